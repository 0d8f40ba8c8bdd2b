"""What a device computes is what the CPU does: pytest tests/gpu --device cuda. On a CPU, a rehearsal.

The CPU's gradients are checked against finite differences and closed forms elsewhere, in float64.
"""

import copy
import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from test_unrolled import CLASSES, SHAPE, generated, pixels, relative, soft
from torch.utils._pytree import tree_map_only

from gtnlib import (
    MLP, VGG, AlexNet, ConvNet, Dataset, FlatStudent, GeneratorTeacher, GradientMatching, Implicit, LeNet,
    PixelTeacher, RealTeacher, ResNet, StudentRun, Unrolled, VisionTransformer, evaluate, fit,
)  # fmt: skip
from gtnlib.data.augment import Augment
from gtnlib.inner.compiled import CompiledStudent
from gtnlib.inner.stacked import StackedStudent
from gtnlib.judge.training import Recipe, score
from gtnlib.metagrad import DISTANCES
from gtnlib.metagrad.solvers import largest_eigenvalue
from gtnlib.support.seeds import seeded
from gtnlib.teachers.coresets import coreset
from gtnlib.teachers.files import load_teacher, save_teacher
from gtnlib.teachers.real import Stream

METAGRADS = {
    "unrolled": Unrolled(real_batch_size=12), "recorded": Unrolled(False, real_batch_size=12),
    "blocks": Unrolled(3, "last", real_batch_size=12),
    "neumann": Implicit("neumann", neumann_terms=3, scale=0.1, batches=None, real_batch_size=12),
    "cg": Implicit(solver="cg", products=3, batches=None, real_batch_size=12),
    **{name: GradientMatching(name, real_batch_size=4) for name in DISTANCES},
}  # fmt: skip
TEACHERS = {"pixels": pixels, "generated": generated, "pixels-soft": soft(pixels)}
STUDENTS = {
    "mlp": partial(MLP, widths=(8,)), "lenet": LeNet, "vgg": partial(VGG, widths=(4, 8)),
    "conv": partial(ConvNet, width=4, depth=1), "max": partial(ConvNet, width=4, depth=1, pooling="max"),
    "batch": partial(ConvNet, width=4, depth=1, norm="batch"), "resnet": partial(ResNet, widths=(4, 8)),
    "alexnet": partial(AlexNet, widths=(4, 4, 4, 4, 4)), "transformer": VisionTransformer,
}  # fmt: skip


@pytest.fixture(scope="module")
def there(toy, device):
    return toy.to(device)


def student(seed=0, build=partial(ConvNet, SHAPE, CLASSES, width=4, depth=1)):
    return FlatStudent(seeded(build, seed).double())


def gradients(metagrad, make, split, device, students, kind=FlatStudent):
    """The loss and the gradient of every parameter, with what is random drawn on the CPU."""
    teacher = make(learn_rates=metagrad.stacks)
    drawn = [metagrad.draw(teacher, 0, split, torch.Generator().manual_seed(i)) for i in range(len(students))]
    teacher, split, loss = teacher.to(device), split.to(device), 0.0
    moved = [kind(copy.deepcopy(one.module).to(device)) for one in students]
    drawn = tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), drawn)
    if device.type == "cuda" and len(students) > 1:
        moved = [StackedStudent(moved, batched=True)]
        drawn = [[tuple(map(torch.stack, zip(*each))) for each in zip(*drawn)]]
    for one, batches in zip(moved, drawn):
        loss += float(metagrad.differentiate(teacher, StudentRun.start(one), split, batches))
    return loss, {n: p.grad.cpu() for n, p in teacher.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", TEACHERS.values(), ids=TEACHERS)
@pytest.mark.parametrize("name", [*METAGRADS, "side by side"])
def test_every_gradient_is_exact_in_float64(name, make, device, tiny):
    metagrad = METAGRADS.get(name, METAGRADS["unrolled"])
    students = [student(seed) for seed in range(3 if name == "side by side" else 1)]
    one, wanted = gradients(metagrad, make, tiny, torch.device("cpu"), students)
    other, found = gradients(metagrad, make, tiny, device, students)
    assert other == pytest.approx(one, rel=1e-9) and found.keys() == wanted.keys()
    for name in wanted:
        assert relative(found[name], wanted[name]) < 1e-8, name


@pytest.mark.parametrize("name", ["unrolled", "blocks", "cg", "cosine"])
def test_kernels_serve_every_student_exactly(name, device, tiny, monkeypatch):
    if device.type == "cpu":
        monkeypatch.setattr(torch, "compile", lambda graph, **keywords: graph)
    kind = partial(CompiledStudent, kernels={})
    for seed in range(2):  # the second is a replay
        one, wanted = gradients(METAGRADS[name], generated, tiny, torch.device("cpu"), [student(seed)])
        other, found = gradients(METAGRADS[name], generated, tiny, device, [student(seed)], kind)
        assert other == pytest.approx(one, rel=1e-9)
        for part in wanted:
            assert relative(found[part], wanted[part]) < 1e-8, part
    assert kind.keywords["kernels"]


@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_has_its_second_derivatives(name, device):
    shape = (1, 12, 12)
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, *shape, generator=random, dtype=torch.float64), torch.arange(6) % CLASSES
    found = []
    for where in (torch.device("cpu"), device):
        module = seeded(partial(STUDENTS[name], shape=shape, num_classes=CLASSES), 0)
        flat = FlatStudent(module.double().to(where))
        w = flat.initial()
        with torch.no_grad():
            found.append([part.cpu() for part in flat.second_order(w, x.to(where), y.to(where), w)])
    for one, other in zip(*found):
        assert relative(other, one) < 1e-9


def test_largest_eigenvalue(device):
    matrix = torch.diag(torch.arange(1.0, 9)).to(device)
    found = largest_eigenvalue(lambda p: matrix @ p, torch.zeros(8, device=device), 50)
    assert found.device.type == device.type and float(found) == pytest.approx(8, rel=1e-3)
    with pytest.raises(ValueError, match="the Hessian of the training loss vanishes"):
        largest_eigenvalue(lambda p: 0 * p, torch.zeros(8, device=device), 3)


@pytest.mark.parametrize("metagrad", [METAGRADS[name] for name in ("unrolled", "cg", "cosine")])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_fit_learns_and_goes_on_from_its_checkpoint(metagrad, precision, there, tmp_path):
    def train(path, stop=None):
        def callback(step, *_):
            if step == stop:
                raise KeyboardInterrupt

        teacher = GeneratorTeacher(4, 6, shape=SHAPE, num_classes=CLASSES, hidden=8, channels=2)
        history = fit(teacher, metagrad, partial(ConvNet, width=4, depth=1), there, 6, students_per_step=2,
                      validate_every=3, progress=False, precision=precision, compile=False, checkpoint=path,
                      callback=callback)  # fmt: skip
        assert teacher.noise.device == there.device
        return history

    train(tmp_path / "broken", stop=2)
    broken, whole = train(tmp_path / "broken"), train(tmp_path / "whole")
    assert broken.loss == pytest.approx(whole.loss, rel=0.05 if precision != "float32" else 1e-3)


def test_students_side_by_side_are_those_alone(there):
    teacher = PixelTeacher(2, 4, shape=SHAPE, num_classes=CLASSES, rate=0.1).start_from(
        there.to("cpu").train, torch.Generator().manual_seed(0)
    )
    for taught in (teacher, teacher.to(there.device), RealTeacher(there.train, 4, 6)):
        together = evaluate(taught, partial(MLP, widths=(8,)), there, 3, every=2)
        alone = [
            evaluate(taught, partial(MLP, widths=(8,)), there, [seed]).accuracy.mean for seed in range(3)
        ]
        assert together.accuracy.values == pytest.approx(alone, abs=2 / len(there.test))


def test_real_data_is_there_too(there, tmp_path):
    random = torch.Generator(there.device).manual_seed(0)
    images, labels = there.train.sample(7, random)
    assert images.device == labels.device == there.device
    moved = Augment()(images, random)
    assert moved.device == there.device and moved.isfinite().all()
    for teacher, recipe in ((Stream(there.train, 20), Recipe("adam", 0.01)),
                            (coreset(there.train, "herding", 2, 3, 6), Recipe())):  # fmt: skip
        found = score(teacher, partial(MLP, widths=(8,)), there, recipe, 2)
        assert all(0 <= value <= 1 for value in found.accuracy["validation"])


@pytest.mark.parametrize("make", TEACHERS.values(), ids=TEACHERS)
def test_teachers_are_written_and_read_from_there(make, there, tmp_path):
    teacher = make().float().to(there.device)
    if isinstance(teacher, PixelTeacher):
        save_teacher(teacher, tmp_path / "teacher.safetensors")
        again = load_teacher(tmp_path / "teacher.safetensors").to(there.device)
        torch.testing.assert_close(again.batch(0)[0], teacher.batch(0)[0], rtol=1e-2, atol=1e-3)
    else:
        torch.testing.assert_close(teacher.as_pixels().images[:6], teacher.batch(0)[0])
    teacher.export(tmp_path / "set.npz")
    data = Dataset("toy", there.train, there.validation, there.test)
    assert evaluate(teacher, partial(MLP, widths=(8,)), data, 1).accuracy.mean >= 0


@pytest.mark.parametrize("words, status", [([], 1), (["--allow-none"], 0)])
def test_where_there_is_no_gpu_the_script_says_so(words, status, monkeypatch, capsys):
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == status and "There is no GPU here" in capsys.readouterr().out
