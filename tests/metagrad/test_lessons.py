"""Windows and varied lessons at fixed draws, against plain autograd on what was drawn."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from test_checkpoint import METAGRADS, assert_same, stop_at, train
from test_checkpoint import pixels as small_pixels
from test_unrolled import CLASSES, REAL, SHAPE, generated, pixels, relative, soft
from torch.func import functional_call

from gtnlib import (
    MLP, Augment, DistributionMatching, GradientMatching, Implicit, StudentRun, Unrolled, Variation, fit,
)  # fmt: skip

TEACHERS = {"pixels": pixels, "generated": generated, "pixels-soft": soft(pixels)}
every_teacher = pytest.mark.parametrize("make_teacher", TEACHERS.values(), ids=TEACHERS.keys())
VARIED = {
    "augmented": Variation(augment={"crop": 2, "scale": 0.2, "rotation": 30.0}),
    "in any order": Variation(order=True),
    "longer": Variation(length=(6, 6)),
    "shorter": Variation(length=(3, 3), rate_factor=2.0),
    "all": Variation(augment=True, order=True, length=(2, 7), rate_factor=3.0),
}
every_variation = pytest.mark.parametrize("variation", VARIED.values(), ids=VARIED.keys())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def student(flat64):
    return flat64(lambda: MLP(SHAPE, CLASSES, widths=(6,), activation="tanh"))


def written_out(teacher, lesson):
    """The batches and rates of every step of a lesson, from the draws that it holds, by plain torch."""
    steps = []
    for t in range(lesson.steps):
        x, y = teacher.batch(lesson.order[t % teacher.batches])
        x = by_hand(x, lesson, t)
        place = t * teacher.steps // lesson.steps
        rate = lesson.factor * teacher.log_rate[place].exp()
        steps.append((x, y, rate, teacher.momentum_logit[place].sigmoid()))
    return steps


def by_hand(x, lesson, t):
    if lesson.maps is None:
        return x
    mean = x.mean((0, 2, 3), keepdim=True)
    grid = F.affine_grid(lesson.maps[t].repeat(len(x), 1, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x - mean, grid, padding_mode="zeros", align_corners=False) + mean


def unroll(steps, decay, module, start, stop, real):
    """The mean real loss within a window of plain SGD; what came before it has no graph."""
    names = [name for name, _ in module.named_parameters()]
    ws = [p.detach().clone().requires_grad_() for p in module.parameters()]
    ms, total = [torch.zeros_like(w) for w in ws], 0

    def loss(ws, x, y):
        return F.cross_entropy(functional_call(module, dict(zip(names, ws)), (x,)), y)

    for t in range(stop):
        if t == start:
            ws, ms = [w.detach().requires_grad_() for w in ws], [m.detach() for m in ms]
        x, y, rate, momentum = steps[t]
        gradients = torch.autograd.grad(loss(ws, x, y), ws, create_graph=True)
        ms = [momentum * m + g + decay * w for m, g, w in zip(ms, gradients, ws)]
        ws = [w - rate * m for w, m in zip(ws, ms)]
        if t in real:
            total = total + loss(ws, *real[t]) / len(real)
    return total, ws


def assert_gradients(teacher, total):
    """That the .grad of the teacher is the gradient of this number."""
    learned = {n: p for n, p in teacher.named_parameters() if p.requires_grad}
    wanted = torch.autograd.grad(total, list(learned.values()), allow_unused=True)
    for (name, p), w in zip(learned.items(), wanted):
        if w is None:
            assert p.grad is None or not p.grad.any(), name
        else:
            torch.testing.assert_close(p.grad, w, rtol=1e-9, atol=1e-12, msg=lambda text: f"{name}: {text}")


def differentiated(metagrad, lesson, student, split):
    """What the meta-gradient drew, the loss it returned, and the student it left."""
    run = StudentRun.start(student)
    drawn = metagrad.draw(lesson, 0, split, seeded(3))
    return drawn, metagrad.differentiate(lesson, run, split, drawn), run


# ---------------------------------------------------------------- windows


@every_teacher
@pytest.mark.parametrize("checkpoint", [True, False, 2])
@pytest.mark.parametrize("loss_at", ["every", "last"])
@pytest.mark.parametrize("window", [1, 3, 4])
def test_a_window_is_plain_autograd_over_its_steps(window, loss_at, checkpoint, make_teacher, student, tiny):
    teacher = make_teacher()
    metagrad = Unrolled(checkpoint, loss_at, REAL, window)
    (start, *drawn), loss, run = differentiated(metagrad, teacher, student, tiny)
    stop = start + window
    real = dict(zip(range(stop - len(drawn), stop), map(tiny.at, drawn)))
    steps = written_out(teacher, Variation(length=(4, 4)).draw(teacher, seeded()))
    total, ws = unroll(steps, teacher.weight_decay, student.module, start, stop, real)
    torch.testing.assert_close(loss, total.detach())
    assert_gradients(teacher, total)
    torch.testing.assert_close(run.w, torch.cat([w.detach().flatten() for w in ws]))
    assert run.t == stop and not run.w.requires_grad


def test_windows_begin_anywhere_and_a_whole_one_is_no_window(student, tiny):
    teacher, random = pixels(), seeded()
    found = [Unrolled(window=2, real_batch_size=REAL).draw(teacher, 0, tiny, random)[0] for _ in range(60)]
    assert set(found) == {0, 1, 2}
    whole, window = pixels(), pixels()
    Unrolled(real_batch_size=REAL)(whole, StudentRun.start(student), tiny, seeded())
    metagrad = Unrolled(real_batch_size=REAL, window=4)
    drawn = Unrolled(real_batch_size=REAL).draw(window, 0, tiny, seeded())
    metagrad.differentiate(window, StudentRun.start(student), tiny, [0, *drawn])
    assert torch.equal(whole.images.grad, window.images.grad)


def test_a_window_longer_than_the_lesson_is_refused_at_once(toy):
    teacher = small_pixels()
    with pytest.raises(ValueError, match="window is 4, but a lesson can have 3 steps only"):
        fit(teacher, Unrolled(window=4), MLP, toy, 1, progress=False)
    with pytest.raises(ValueError, match="window is 3, but a lesson can have 2 steps only"):
        fit(teacher, Unrolled(window=3), MLP, toy, 1, progress=False, lessons={"length": [2, 9]})
    with pytest.raises(ValueError, match="window is 0"):
        Unrolled(window=0)


# ---------------------------------------------------------------- varied lessons


@every_teacher
@every_variation
@pytest.mark.parametrize("checkpoint", [True, False])
def test_unrolled_through_a_varied_lesson_is_plain_autograd(
    checkpoint, variation, make_teacher, student, tiny
):
    teacher = make_teacher(momentum=0.5)
    lesson = variation.draw(teacher, seeded(5))
    drawn, loss, run = differentiated(Unrolled(checkpoint, "every", REAL), lesson, student, tiny)
    real = dict(enumerate(map(tiny.at, drawn)))
    steps = written_out(teacher, lesson)
    total, ws = unroll(steps, teacher.weight_decay, student.module, 0, lesson.steps, real)
    torch.testing.assert_close(loss, total.detach())
    assert_gradients(teacher, total)
    assert run.t == lesson.steps


@every_teacher
@every_variation
def test_implicit_at_a_varied_lesson_is_that_of_its_batches(variation, make_teacher, student, tiny):
    teacher = make_teacher()
    lesson = variation.draw(teacher, seeded(5))
    metagrad = Implicit(solver="cg", products=400, tolerance=1e-12, damping=20.0, real_batch_size=REAL)
    (chosen, real, _), _, run = differentiated(metagrad, lesson, student, tiny)
    steps = written_out(teacher, lesson)
    _, ws = unroll(steps, teacher.weight_decay, student.module, 0, lesson.steps, {})
    w = torch.cat([w.detach().flatten() for w in ws])
    torch.testing.assert_close(run.w, w)

    def f(w):
        losses = [student.loss(w, *steps[t][:2]) for t in chosen]
        return sum(losses) / len(losses) + teacher.weight_decay / 2 * w @ w

    hessian = torch.autograd.functional.hessian(f, w) + 20 * torch.eye(len(w), dtype=w.dtype)
    q = torch.linalg.solve(hessian, student.gradient(w, *tiny.at(real))).detach()
    (slope,) = torch.autograd.grad(f(w.requires_grad_()), w, create_graph=True)
    assert_gradients(teacher, -(slope @ q))


@every_teacher
@every_variation
def test_matching_shows_the_real_images_alike(variation, make_teacher, student, tiny):
    teacher = make_teacher()
    lesson = variation.draw(teacher, seeded(5))
    metagrad = GradientMatching("squared-error", real_batch_size=5, inner_steps=0)
    (indices, labels), loss, _ = differentiated(metagrad, lesson, student, tiny)
    x, y, *_ = written_out(teacher, lesson)[0]
    real, hard, w = by_hand(tiny.images[indices], lesson, 0), lesson.batch_labels(0), student.initial()
    total, classes = 0, hard.unique()
    for c in classes:
        ours = student.gradient(w, x[hard == c], y[hard == c])
        theirs = student.gradient(w, real[labels == c], labels[labels == c]).detach()
        total = total + (ours - theirs).square().sum() / len(classes)
    torch.testing.assert_close(loss, total.detach())
    assert_gradients(teacher, total)


def test_draws_are_where_they_should_be():
    teacher, random = pixels(), seeded()
    variation = Variation(True, True, (2, 5), 2.0)
    lessons = [variation.draw(teacher, random) for _ in range(100)]
    assert {lesson.steps for lesson in lessons} == {2, 3, 4, 5}
    factors = torch.tensor([lesson.factor for lesson in lessons])
    assert 0.5 <= factors.min() < 0.6 and 1.7 < factors.max() <= 2
    assert len({tuple(lesson.order) for lesson in lessons}) == 6  # of three batches
    assert all(lesson.maps.shape == (lesson.steps, 2, 3) for lesson in lessons)
    plain = Variation(order=True).draw(teacher, random)
    assert plain.steps == 4 and plain.factor == 1 and plain.maps is None and plain.batches == 3


@pytest.mark.parametrize("arguments, error, message", [
    ({}, ValueError, "lessons vary in nothing"),
    ({"augment": {}}, TypeError, "augment must be a Augment"),
    ({"augment": {"crop": -1}}, ValueError, "crop is -1"),
    ({"augment": 4}, TypeError, "augment must be a Augment"),
    ({"order": 1}, TypeError, "order must be True or False"),
    ({"length": 5}, TypeError, "length must be .shortest, longest."),
    ({"length": (5, 2)}, ValueError, "length is .5, 2., but the shortest must come first"),
    ({"length": (0, 2)}, ValueError, "every one of length is 0"),
    ({"rate_factor": 0.5}, ValueError, "rate_factor is 0.5"),
])  # fmt: skip
def test_bad_variations_are_refused(arguments, error, message, toy):
    with pytest.raises(error, match=message):
        fit(small_pixels(), Unrolled(), MLP, toy, 1, lessons=arguments)


# ---------------------------------------------------------------- in fit

LESSONS = {"augment": {"crop": 1, "scale": 0.1, "rotation": 10.0}, "order": True, "length": [2, 4],
           "rate_factor": 1.5}  # fmt: skip
RUNS = {
    **METAGRADS,
    "window": partial(Unrolled, real_batch_size=8, window=2),
    "distribution": partial(DistributionMatching, real_batch_size=8),
}


@pytest.mark.parametrize("name", RUNS)
def test_stopped_and_resumed_it_draws_the_same_lessons(name, toy, tmp_path):
    make = partial(small_pixels, learn_labels=True)
    again = partial(train, make, RUNS[name], toy, lessons=LESSONS)
    whole = again()
    path = tmp_path / "run.safetensors"
    again(path, callback=stop_at(3, KeyboardInterrupt))
    assert_same(again(path), whole)
    plain = train(make, RUNS[name], toy)
    assert plain[1].loss != whole[1].loss
    with pytest.raises(ValueError, match="of another run: lessons"):
        train(make, RUNS[name], toy, path)


def test_students_of_varied_lessons_share_an_outer_step(toy):
    teacher = small_pixels()
    history = fit(teacher, Unrolled(real_batch_size=8), partial(MLP, widths=(8,)), toy, 3,
                  students_per_step=2, lessons=Variation(Augment(), True), progress=False)  # fmt: skip
    assert len(history) == 3 and relative(teacher.images.detach(), small_pixels().images.detach()) > 1e-3
