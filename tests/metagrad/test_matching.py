"""Gradient matching: against finite differences and against a loop over the classes."""

import pytest
import torch
import torch.nn.functional as F

from gtnlib import ConvNet, GeneratorTeacher, GradientMatching, PixelTeacher, Split, StudentRun
from gtnlib.metagrad import DISTANCES
from gtnlib.metagrad.matching import match_class, match_classes
from gtnlib.support.seeds import seeded
from gtnlib.teachers.generator import Generator

SHAPE, CLASSES, REAL = (1, 8, 8), 3, 5

every_distance = pytest.mark.parametrize("distance", DISTANCES)


def pixels(batch_size=6, **keywords):
    return PixelTeacher(4, steps=4, batch_size=batch_size, shape=SHAPE, num_classes=CLASSES,
                        **keywords).double()  # fmt: skip


def generated(batch_size=6, **keywords):
    generator = seeded(lambda: Generator(4, SHAPE, CLASSES, hidden=6, channels=2), 0)
    return GeneratorTeacher(4, batch_size, noise_size=4, generator=generator, shape=SHAPE,
                            num_classes=CLASSES, **keywords).double()  # fmt: skip


def soft(make_teacher):
    """The same with learned labels, far from those they start from."""

    def make(*arguments, **keywords):
        teacher = make_teacher(*arguments, learn_labels=True, **keywords)
        random = torch.Generator().manual_seed(7)
        teacher.label_logits.data += torch.randn(teacher.label_logits.shape, generator=random)
        return teacher

    return make


every_teacher = pytest.mark.parametrize(
    "make_teacher", [pixels, generated, soft(pixels), soft(generated)],
    ids=["pixels", "generated", "pixels-soft", "generated-soft"],
)  # fmt: skip
every_size = pytest.mark.parametrize("size", [6, 7], ids=["balanced", "unbalanced"])


@pytest.fixture
def student(flat64):
    return flat64(lambda: ConvNet(SHAPE, CLASSES, width=3, depth=2, activation="tanh"))


def call(distance, teacher, student, split, t=0):
    teacher.zero_grad()
    metagrad = GradientMatching(distance, real_batch_size=REAL, inner_steps=0)
    run = StudentRun.start(student)
    run.t = t
    loss = metagrad(teacher, run, split, torch.Generator().manual_seed(0))
    return float(loss), {n: p.grad for n, p in teacher.named_parameters() if p.grad is not None}


@every_size
@every_distance
@every_teacher
def test_gradient_equals_finite_differences(make_teacher, distance, size, student, tiny):
    teacher = make_teacher(size)
    _, gradients = call(distance, teacher, student, tiny)
    gradients = {n: g.clone() for n, g in gradients.items()}
    parameters, random = dict(teacher.named_parameters()), torch.Generator().manual_seed(1)
    along = {n: torch.randn(g.shape, generator=random, dtype=g.dtype) for n, g in gradients.items()}
    values, h = [], 1e-5
    for sign in (1, -2, 1):
        for n in along:
            parameters[n].data += sign * h * along[n]
        values.append(call(distance, teacher, student, tiny)[0])
    found = sum(float((gradients[n] * along[n]).sum()) for n in along)
    assert found == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


def zhao_loop(distance, teacher, module, split, t=0):
    """Algorithm 1 of Zhao et al. (2021), one class after the other, as their code has it."""
    ws = list(module.parameters())
    x, y = teacher.batch(t)
    labels = teacher.batch_labels(t)
    classes = sorted(set(labels.tolist()))
    wanted = torch.tensor([c for c in classes for _ in range(REAL)])
    real, _ = split.sample(len(wanted), torch.Generator().manual_seed(0), wanted)
    total = 0
    for i, c in enumerate(classes):
        loss_real = F.cross_entropy(module(real[i * REAL : (i + 1) * REAL]), torch.full((REAL,), c))
        loss_syn = F.cross_entropy(module(x[labels == c]), y[labels == c])
        gwr = torch.autograd.grad(loss_real, ws)
        gws = torch.autograd.grad(loss_syn, ws, create_graph=True)
        if distance == "layerwise-cosine":
            for r, s in zip(gwr, gws):
                if r.ndim > 1:
                    r, s = r.reshape(len(r), -1), s.reshape(len(s), -1)
                    norms = r.norm(dim=1) * s.norm(dim=1)
                    total = total + (1 - (r * s).sum(1) / (norms + 1e-6)).sum()
            continue
        r, s = (torch.cat([g.flatten() for g in gs]) for gs in (gwr, gws))
        if distance == "cosine":
            total = total + 1 - (r @ s) / (r.norm() * s.norm() + 1e-6)
        else:
            total = total + (r - s).square().sum()
    total = total / len(classes)
    learned = {n: p for n, p in teacher.named_parameters() if n not in ("log_rate", "momentum_logit")}
    gradients = torch.autograd.grad(total, list(learned.values()))
    return total.item(), dict(zip(learned, gradients))


@every_size
@every_distance
@every_teacher
def test_gradient_equals_a_loop_over_classes(make_teacher, distance, size, student, tiny):
    teacher = make_teacher(size)
    loss, found = call(distance, teacher, student, tiny, t=1)
    expected, wanted = zhao_loop(distance, teacher, student.module, tiny, t=1)
    assert loss == pytest.approx(expected, rel=1e-8)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert float((found[name] - wanted[name]).norm() / wanted[name].norm()) < 1e-7, name


@every_distance
@pytest.mark.parametrize("learn_labels", [False, True])
def test_all_classes_at_once_equal_one_after_the_other(learn_labels, distance, student, tiny):
    """The path of a GPU and that of a CPU."""
    teacher, classes = pixels(6, learn_labels=learn_labels), torch.arange(CLASSES)
    x, y = (tensor.detach() for tensor in teacher.batch(0))
    rows = torch.stack([torch.nonzero(teacher.batch_labels(0) == c).flatten() for c in classes])
    real = torch.stack([tiny.images[tiny.labels == c][:REAL] for c in range(CLASSES)])
    w, how = student.initial(), DISTANCES[distance]
    together = match_classes(student, w, real, classes, x[rows], y[rows], how)
    apart = [match_class(student, w, r, c, x[row], y[row], how) for r, c, row in zip(real, classes, rows)]
    assert len(together) == 2 + learn_labels
    for ours, theirs in zip(together, zip(*apart)):
        torch.testing.assert_close(ours, torch.stack(theirs))


@every_distance
def test_the_same_images_match_perfectly(distance, student):
    teacher = pixels(3)
    images, labels = (tensor.detach() for tensor in teacher.batch(0))
    loss, gradients = call(distance, teacher, student, Split(images, labels, CLASSES))
    assert loss == pytest.approx(0, abs=1e-4)
    assert float(gradients["images"].norm()) < 1e-4


def test_cosines_do_not_see_the_length_of_the_gradient_and_squared_error_does():
    a = {"weight": torch.randn(3, 4, dtype=torch.float64), "bias": torch.ones(3)}
    b = {name: 5 * part for name, part in a.items()}
    assert float(DISTANCES["layerwise-cosine"](a, b)) == pytest.approx(0, abs=1e-4)
    assert float(DISTANCES["cosine"](a, b)) == pytest.approx(0, abs=1e-4)
    for name in ("layerwise-cosine", "cosine"):
        assert "ε" in DISTANCES[name].__doc__
    size = sum(float(part.square().sum()) for part in a.values())
    assert float(DISTANCES["squared-error"](a, b)) == pytest.approx(16 * size)


@every_distance
def test_distance_has_a_finite_derivative_where_a_gradient_vanishes(distance):
    zero, one = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3)
    value = DISTANCES[distance]({"weight": zero}, {"weight": one})
    assert torch.autograd.grad(value, zero)[0].isfinite().all()


@pytest.mark.parametrize("inner_steps", [0, 1, 3])
def test_student_takes_the_asked_number_of_steps_afterwards(inner_steps, student, tiny):
    run = StudentRun.start(student)
    metagrad = GradientMatching(inner_steps=inner_steps, real_batch_size=REAL)
    metagrad(pixels(), run, tiny, torch.Generator().manual_seed(0))
    assert run.t == inner_steps
    assert torch.equal(run.w, student.initial()) == (inner_steps == 0)


def test_rates_get_no_gradient(student, tiny):
    _, gradients = call("cosine", pixels(), student, tiny)
    assert list(gradients) == ["images"]


def test_only_the_images_of_the_step_get_a_gradient(student, tiny):
    _, gradients = call("cosine", pixels(6), student, tiny, t=1)
    assert torch.nonzero(gradients["images"].flatten(1).norm(dim=1)).flatten().tolist() == [*range(6, 12)]
