"""The unrolled meta-gradient is exact: against finite differences and against plain autograd."""

import weakref
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from gtnlib import MLP, ConvNet, GeneratorTeacher, PixelTeacher, StudentRun, Unrolled
from gtnlib.support.seeds import seeded
from gtnlib.teachers.generator import Generator

SHAPE, CLASSES, REAL = (1, 8, 8), 3, 12


def pixels(**keywords):
    return PixelTeacher(2, steps=4, batch_size=4, shape=SHAPE, num_classes=CLASSES, rate=0.2,
                        weight_decay=0.05, **keywords).double()  # fmt: skip


def generated(**keywords):
    generator = seeded(lambda: Generator(4, SHAPE, CLASSES, hidden=6, channels=2), 0)
    return GeneratorTeacher(steps=4, batch_size=6, batches=2, noise_size=4, generator=generator,
                            shape=SHAPE, num_classes=CLASSES, rate=0.2, weight_decay=0.05,
                            **keywords).double()  # fmt: skip


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
every_loss = pytest.mark.parametrize("loss_at", ["every", "last"])
every_momentum = pytest.mark.parametrize("momentum", [0.0, 0.7])


def call(metagrad, teacher, student, split):
    """The loss, and the gradient of every parameter that learns."""
    teacher.zero_grad()
    generator = torch.Generator().manual_seed(0)
    loss = metagrad(teacher, StudentRun.start(student), split, generator)
    return float(loss), {n: p.grad.clone() for n, p in teacher.named_parameters() if p.requires_grad}


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("norm", ["none", "instance", "batch", "group"])
@every_momentum
@every_loss
@every_teacher
def test_gradient_equals_finite_differences(make_teacher, loss_at, momentum, norm, flat64, tiny):
    activation = {"none": "tanh", "instance": "softplus", "batch": "gelu", "group": "sigmoid"}[norm]
    student = flat64(lambda: ConvNet(SHAPE, CLASSES, 4, 1, norm=norm, activation=activation))
    teacher, metagrad = make_teacher(momentum=momentum), Unrolled(True, loss_at, REAL)
    _, gradients = call(metagrad, teacher, student, tiny)

    groups = {"log_rate": [], "momentum_logit": [], "others": []}
    for name in gradients:
        groups[name if name in groups else "others"].append(name)
    parameters = dict(teacher.named_parameters())
    for seed, names in enumerate(names for names in groups.values() if names):
        random = torch.Generator().manual_seed(seed)
        along = {n: torch.randn(parameters[n].shape, generator=random, dtype=torch.float64)
                 for n in names}  # fmt: skip
        slope, h = [], 1e-5
        for sign in (1, -2, 1):  # up, down, and back
            for n in names:
                parameters[n].data += sign * h * along[n]
            slope.append(call(metagrad, teacher, student, tiny)[0])
        slope = (slope[0] - slope[1]) / (2 * h)
        found = sum(float((gradients[n] * along[n]).sum()) for n in names)
        assert found == pytest.approx(slope, rel=1e-6), names


def plain_autograd(teacher, module, split, loss_at, first_order=False):
    """The same training with torch.autograd alone. `first_order` drops the Hessian term."""
    names = [name for name, _ in module.named_parameters()]
    ws = [p.detach().clone().requires_grad_() for p in module.parameters()]
    ms = [torch.zeros_like(w) for w in ws]
    generator = torch.Generator().manual_seed(0)
    scored = range(teacher.steps) if loss_at == "every" else [teacher.steps - 1]
    real = {t: split.sample(REAL, generator) for t in scored}

    def loss(ws, x, y):
        return F.cross_entropy(functional_call(module, dict(zip(names, ws)), (x,)), y)

    total = 0
    for t in range(teacher.steps):
        x, y = teacher.batch(t)
        rate, momentum = teacher.log_rate[t].exp(), teacher.momentum_logit[t].sigmoid()
        points = [w.detach().requires_grad_() for w in ws] if first_order else ws
        gradients = torch.autograd.grad(loss(points, x, y), points, create_graph=True)
        ms = [momentum * m + g + teacher.weight_decay * w for m, g, w in zip(ms, gradients, ws)]
        ws = [w - rate * m for w, m in zip(ws, ms)]
        if t in real:
            total = total + loss(ws, *real[t]) / len(real)
    learned = {n: p for n, p in teacher.named_parameters() if p.requires_grad}
    return total.item(), dict(zip(learned, torch.autograd.grad(total, list(learned.values()))))


def assert_equals_plain_autograd(checkpoint, loss_at, teacher, student, tiny):
    loss, found = call(Unrolled(checkpoint, loss_at, REAL), teacher, student, tiny)
    expected, wanted = plain_autograd(teacher, student.module, tiny, loss_at)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert relative(found[name], wanted[name]) < 1e-10, name


@pytest.mark.parametrize("checkpoint", [True, False], ids=["recomputed", "recorded"])
@every_momentum
@every_loss
@every_teacher
def test_gradient_equals_plain_autograd(make_teacher, loss_at, momentum, checkpoint, flat64, tiny):
    student = flat64(lambda: ConvNet(SHAPE, CLASSES, width=4, depth=2))
    assert_equals_plain_autograd(checkpoint, loss_at, make_teacher(momentum=momentum), student, tiny)


@every_teacher
def test_dropping_the_second_order_term_would_be_noticed(make_teacher, flat64, tiny):
    student = flat64(lambda: MLP(SHAPE, CLASSES, widths=(6,)))
    teacher = make_teacher()
    _, full = plain_autograd(teacher, student.module, tiny, "last")
    _, first = plain_autograd(teacher, student.module, tiny, "last", first_order=True)
    _, ours = call(Unrolled(loss_at="last", real_batch_size=REAL), teacher, student, tiny)
    name = "noise" if hasattr(teacher, "noise") else "images"
    assert relative(first[name], full[name]) > 0.02
    assert relative(ours[name], full[name]) < 1e-10


@every_teacher
def test_recomputed_and_recorded_leave_the_same_student(make_teacher, flat64, tiny):
    student, runs = flat64(lambda: ConvNet(SHAPE, CLASSES, width=4)), []
    for checkpoint in (True, False):
        runs.append(StudentRun.start(student))
        Unrolled(checkpoint)(make_teacher(), runs[-1], tiny, torch.Generator().manual_seed(0))
    assert runs[0].t == runs[1].t == 4
    assert not any(tensor.requires_grad for run in runs for tensor in (run.w, run.m))
    torch.testing.assert_close(runs[0].w, runs[1].w, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(runs[0].m, runs[1].m, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("checkpoint", [True, False])
def test_gradients_of_two_calls_add_up(checkpoint, flat64, tiny):
    student, teacher = flat64(lambda: MLP(SHAPE, CLASSES)), pixels()
    for _ in range(2):
        Unrolled(checkpoint)(teacher, StudentRun.start(student), tiny, torch.Generator().manual_seed(0))
    twice = teacher.images.grad.clone()
    teacher.zero_grad()
    Unrolled(checkpoint)(teacher, StudentRun.start(student), tiny, torch.Generator().manual_seed(0))
    torch.testing.assert_close(twice, 2 * teacher.images.grad)


@pytest.mark.parametrize("checkpoint", [True, False])
def test_only_what_learns_gets_a_gradient(checkpoint, flat64, tiny):
    teacher = generated(learn_rates=False, curriculum="fixed")
    student = flat64(lambda: MLP(SHAPE, CLASSES))
    Unrolled(checkpoint)(teacher, StudentRun.start(student), tiny, torch.Generator().manual_seed(0))
    assert teacher.log_rate.grad is teacher.momentum_logit.grad is teacher.noise.grad is None
    assert all(p.grad is not None for p in teacher.generator.parameters())


@pytest.mark.parametrize("checkpoint", [True, False, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("make_teacher", [pixels, generated])
def test_the_loss_at_drawn_steps_has_the_mean_of_that_at_all(make_teacher, count, checkpoint, flat64, tiny):
    """Over all sets of steps, with the same real batch at each step; and one call is not the mean."""
    student, teacher = flat64(lambda: ConvNet(SHAPE, CLASSES, 3, 1, activation="tanh")), make_teacher()
    metagrad = Unrolled(checkpoint, "every", REAL, loss_steps=count)
    batches = Unrolled(real_batch_size=REAL).draw(teacher, 0, tiny, torch.Generator().manual_seed(0))

    def found(drawn):
        teacher.zero_grad()
        loss = metagrad.differentiate(teacher, StudentRun.start(student), tiny, drawn)
        return torch.cat([loss[None], *(p.grad.flatten() for p in teacher.parameters() if p.requires_grad)])

    sets = list(combinations(range(4), min(count, 4)))
    each = [found([b if t in chosen else None for t, b in enumerate(batches)]) for chosen in sets]
    wanted = found(batches)
    assert relative(sum(each) / len(each), wanted) < 1e-12
    assert len(sets) == 1 or relative(each[0], wanted) > 1e-3


def test_steps_are_drawn_anew_each_as_often(tiny):
    generator, teacher = torch.Generator().manual_seed(0), pixels()
    drawn = [
        Unrolled(real_batch_size=REAL, loss_steps=2).draw(teacher, 0, tiny, generator) for _ in range(400)
    ]
    chosen = [tuple(t for t, batch in enumerate(one) if batch is not None) for one in drawn]
    assert {len(steps) for steps in chosen} == {2} and len(set(chosen)) == 6
    counts = torch.bincount(torch.tensor(chosen).flatten())
    assert counts.tolist() == pytest.approx([200] * 4, abs=40)  # four standard deviations


@pytest.mark.parametrize("checkpoint, most", [(True, 1), (False, 12)])
def test_recomputation_keeps_one_batch_alive_and_recording_all(checkpoint, most, flat64, tiny):
    teacher = PixelTeacher(12, 12, CLASSES, shape=SHAPE, num_classes=CLASSES).double()
    student, plain_batch, born, alive = flat64(lambda: MLP(SHAPE, CLASSES)), teacher.batch, [], []

    def watched_batch(t):
        x, y = plain_batch(t)
        born.append(weakref.ref(x))
        alive.append(sum(ref() is not None for ref in born))
        return x, y

    teacher.batch = watched_batch
    Unrolled(checkpoint, "last")(teacher, StudentRun.start(student), tiny, torch.Generator().manual_seed(0))
    assert most <= max(alive) <= most + 1


@pytest.mark.parametrize("checkpoint, calls", [(True, 4), (False, 2), (2, 6)])
def test_a_batch_that_comes_back_is_made_once_per_pass(checkpoint, calls, flat64, tiny):
    teacher = generated()  # four steps, two batches
    student, plain_batch, made = flat64(lambda: MLP(SHAPE, CLASSES)), teacher.batch, []
    teacher.batch = lambda t: made.append(t) or plain_batch(t)
    Unrolled(checkpoint)(teacher, StudentRun.start(student), tiny, torch.Generator().manual_seed(0))
    assert len(made) == calls
