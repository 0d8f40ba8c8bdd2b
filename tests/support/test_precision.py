"""Coarser arithmetic where it is asked for, and nowhere else."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from gtnlib import ConvNet, FlatStudent, PixelTeacher, StudentRun, Unrolled, fit, make_student
from gtnlib.inner.compiled import CompiledStudent
from gtnlib.support.precision import NEW, tensor_cores

SHAPE, CLASSES = (1, 8, 8), 3
BUILD = partial(ConvNet, width=4, depth=1)
CPU, GPU = torch.device("cpu"), torch.device("cuda")
old_only = pytest.mark.skipif(NEW, reason="torch has the new settings")
new_only = pytest.mark.skipif(not NEW, reason="torch has only the old settings")


def flags():
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@old_only
@pytest.mark.parametrize("name, inside", [("float32", (False, "highest")), ("tf32", (True, "high"))])
def test_tensor_cores_are_switched_and_switched_back(name, inside):
    before = flags()
    with pytest.raises(KeyError), tensor_cores(name, GPU):
        assert flags() == inside
        raise KeyError
    assert flags() == before


def places():
    b = torch.backends
    return [b, b.cuda.matmul, b.cudnn, b.cudnn.conv, b.cudnn.rnn, b.mkldnn, b.mkldnn.matmul, b.mkldnn.conv]


def modern():
    return [place.fp32_precision for place in places()]


# What a user may have set before, by torch's own names, and what it is put back to afterwards.
GIVEN = {
    "nothing": lambda b: None,
    "cuda.matmul": lambda b: setattr(b.cuda.matmul, "fp32_precision", "tf32"),
    "cudnn.conv": lambda b: setattr(b.cudnn.conv, "fp32_precision", "ieee"),
    "cudnn": lambda b: setattr(b.cudnn, "fp32_precision", "tf32"),
    "cudnn.rnn": lambda b: setattr(b.cudnn.rnn, "fp32_precision", "ieee"),
    "all": lambda b: setattr(b, "fp32_precision", "tf32"),
    "mkldnn.matmul": lambda b: setattr(b.mkldnn.matmul, "fp32_precision", "bf16"),
    "mkldnn.conv": lambda b: setattr(b.mkldnn.conv, "fp32_precision", "bf16"),
    "mkldnn": lambda b: setattr(b.mkldnn, "fp32_precision", "bf16"),
    "legacy": lambda b: torch.set_float32_matmul_precision("medium"),
}
STATES = """
import sys, torch
sys.path[:0] = %r
from conftest import toy_data
from test_precision import GIVEN, BUILD, modern, tensor_cores, GPU, CPU
from gtnlib import PixelTeacher, Unrolled, fit
GIVEN[sys.argv[1]](torch.backends)
before, data = modern(), toy_data()
fit(PixelTeacher(1, 2, shape=data.shape, num_classes=3), Unrolled(), BUILD, data, 1, progress=False)
assert modern() == before, (before, modern())
for precision, wanted in (("float32", ("none", "ieee")), ("tf32", ("tf32",))):
    with tensor_cores(precision, GPU):
        assert torch.backends.cuda.matmul.fp32_precision in wanted
        assert torch.backends.cudnn.conv.fp32_precision in wanted
    assert modern() == before, (precision, before, modern())
with tensor_cores("float32", CPU):
    assert torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee")
assert modern() == before
torch.backends.fp32_precision = "tf32" if sys.argv[1] == "nothing" else torch.backends.fp32_precision
print(torch.backends.cuda.matmul.fp32_precision)
"""


@new_only
@pytest.mark.parametrize("given", GIVEN)
def test_the_new_settings_are_respected_and_put_back(given, tmp_path):
    """In a process of its own: what a user sets cannot be unset in this one."""
    here = Path(__file__).parent
    script = STATES % [str(here), str(here.parent)]
    done = subprocess.run([sys.executable, "-c", script, given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@new_only
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_what_came_from_a_more_general_setting_does_so_again(precision):
    with tensor_cores(precision, GPU), tensor_cores(precision, GPU):
        pass
    before = torch.backends.fp32_precision
    torch.backends.fp32_precision = "tf32"
    try:
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.fp32_precision = before


def test_two_threads_share_the_settings_or_get_one_error():
    with tensor_cores("tf32", GPU):
        with tensor_cores("tf32", GPU):
            inside = modern() if NEW else flags()
        assert inside == (modern() if NEW else flags())
        with pytest.raises(RuntimeError, match="another thread trains with precision"):
            with tensor_cores("float32", GPU):
                pass


def test_fit_names_the_choices(toy):
    teacher = PixelTeacher(1, 2, shape=toy.shape, num_classes=toy.num_classes)
    with pytest.raises(ValueError, match="precision is 'float16'.* Did you mean 'bfloat16'"):
        fit(teacher, Unrolled(), BUILD, toy, 1, progress=False, precision="float16")


# On some CPUs torch 2.6 has no compiled convolution in bfloat16: eager, after a warning, is right there.
UNCOMPILED = "default:sgd could not be compiled.*primitive descriptor for a convolution:RuntimeWarning"


@pytest.mark.filterwarnings(UNCOMPILED if torch.__version__ < "2.7" else "error")
@pytest.mark.parametrize("kind", [FlatStudent, CompiledStudent])
def test_bfloat16_gives_nearly_the_hypergradient_in_float32(kind, toy):
    found = []
    for dtype in (None, torch.bfloat16):
        teacher = PixelTeacher(2, 4, shape=toy.shape, num_classes=toy.num_classes)
        student = kind(make_student(BUILD, toy.shape, toy.num_classes, 0), dtype=dtype)
        run = StudentRun.start(student)
        Unrolled(real_batch_size=16)(teacher, run, toy.train, torch.Generator().manual_seed(0))
        assert run.w.dtype == teacher.images.grad.dtype == torch.float32
        found.append(teacher.images.grad.flatten())
    exact, coarse = found
    assert not torch.equal(exact, coarse)
    assert torch.cosine_similarity(exact, coarse, dim=0) > 0.99
