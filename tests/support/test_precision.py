"""Coarser arithmetic where it is asked for, and nowhere else."""

from functools import partial

import pytest
import torch

from gtnlib import ConvNet, FlatStudent, PixelTeacher, StudentRun, Unrolled, fit, make_student
from gtnlib.inner.compiled import CompiledStudent
from gtnlib.support.precision import tensor_cores

SHAPE, CLASSES = (1, 8, 8), 3
BUILD = partial(ConvNet, width=4, depth=1)


def flags():
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("name, inside", [("float32", (False, "highest")), ("tf32", (True, "high"))])
def test_tensor_cores_are_switched_and_switched_back(name, inside):
    before = flags()
    with pytest.raises(KeyError), tensor_cores(name):
        assert flags() == inside
        raise KeyError
    assert flags() == before


def test_fit_switches_them_and_names_the_choices(toy):
    seen = []
    teacher = PixelTeacher(1, 2, shape=toy.shape, num_classes=toy.num_classes)
    watch = lambda *_: seen.append(flags())  # noqa: E731
    fit(teacher, Unrolled(), BUILD, toy, 1, progress=False, callback=watch, precision="tf32")
    assert seen == [(True, "high")]
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
