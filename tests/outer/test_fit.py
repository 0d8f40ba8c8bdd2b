"""The outer loop: it learns, it repeats, it stops well, in all six cells."""

import copy
import math
from functools import partial

import pytest
import torch

from gtnlib import (
    MLP, ConvNet, DivergenceError, DivergenceWarning, FlatStudent, GeneratorTeacher, GradientMatching,
    Implicit, PixelTeacher, StudentRun, Unrolled, evaluate, fit, make_student,
)  # fmt: skip
from gtnlib.support.seeds import derive_seed
from gtnlib.teachers.generator import Generator

STUDENT = partial(MLP, widths=(16,), activation="gelu")

METAGRADS = {
    "unrolled": partial(Unrolled, real_batch_size=64),
    # Three steps leave a student far from a minimum, so the Hessian needs much damping.
    "implicit": partial(Implicit, "neumann", neumann_terms=3, real_batch_size=64, damping=5.0),
    "matching": partial(GradientMatching, real_batch_size=16),
}
every_metagrad = pytest.mark.parametrize("make_metagrad", METAGRADS.values(), ids=METAGRADS.keys())


def pixels(shape=(1, 28, 28), num_classes=10, **keywords):
    return PixelTeacher(1, 3, shape=shape, num_classes=num_classes, **keywords)


def generated(shape=(1, 28, 28), num_classes=10, **keywords):
    generator = Generator(8, shape, num_classes, hidden=16, channels=4)
    return GeneratorTeacher(3, 2 * num_classes, noise_size=8, generator=generator, shape=shape,
                            num_classes=num_classes, **keywords)  # fmt: skip


every_teacher = pytest.mark.parametrize("make_teacher", [pixels, generated])


def small(make, **keywords):
    """A teacher for the `toy` data, the same at every call."""
    torch.manual_seed(0)
    return make((1, 8, 8), 3, **keywords)


toy_student = partial(MLP, widths=(8,))


def parameters(teacher):
    return torch.cat([p.detach().flatten() for p in teacher.parameters()])


# ---------------------------------------------------------------- learning


@every_metagrad
@every_teacher
def test_every_cell_lowers_its_loss_on_mnist(make_teacher, make_metagrad, mnist):
    torch.manual_seed(0)
    teacher = make_teacher(weight_decay=0.01)
    history = fit(teacher, make_metagrad(), STUDENT, mnist, outer_steps=30, final_rate=1.0,
                  rate=0.05 if make_teacher is pixels else 0.01, progress=False)  # fmt: skip
    assert len(history) == 30 and not history.interrupted
    assert sum(history.loss[-5:]) < 0.97 * sum(history.loss[:5])


@pytest.mark.parametrize(
    "metagrad",
    [Unrolled(), Unrolled(checkpoint=False), Implicit("neumann", neumann_terms=10, damping=10.0),
     Implicit("neumann", neumann_terms=2, scale=0.01), Implicit(),
     GradientMatching(distance="layerwise-cosine")],
    ids=["unrolled", "recorded", "implicit", "implicit-scale", "implicit-cg", "matching"],
)  # fmt: skip
@pytest.mark.parametrize(
    "make_teacher",
    [partial(PixelTeacher, images_per_class=1, steps=2),
     partial(GeneratorTeacher, steps=2, batch_size=20)],
    ids=["pixels", "generated"],
)  # fmt: skip
def test_the_documented_lines_work_as_printed(make_teacher, metagrad, mnist, tmp_path):
    teacher = make_teacher()
    student = partial(ConvNet, width=4)
    history = fit(teacher, metagrad, student=student, data=mnist, outer_steps=2, seed=0)
    report = evaluate(teacher, student=student, data=mnist, seeds=2)
    teacher.export(tmp_path / "set.npz")
    assert len(history) == 2 and all(map(math.isfinite, history.loss + history.gradient_norm))
    assert history[0].seconds > 0 and history.seconds == sum(record.seconds for record in history)
    assert 0 <= report.accuracy.mean <= 1 and report.accuracy.std >= 0
    assert (tmp_path / "set.npz").stat().st_size > 0


def test_unrolling_teaches_digits_in_a_few_seconds(mnist):
    teacher = PixelTeacher(1, steps=3)
    student = partial(MLP, widths=(32,))
    before = evaluate(teacher, student, mnist, seeds=2, split="validation").accuracy.mean
    fit(teacher, Unrolled(real_batch_size=128), student, mnist, outer_steps=60, progress=False)
    after = evaluate(teacher, student, mnist, seeds=2, split="validation").accuracy.mean
    assert before < 0.3 and after > 0.5


def test_only_unrolling_moves_the_rates(toy):
    moved = {}
    for name, make_metagrad in METAGRADS.items():
        teacher = small(pixels, weight_decay=0.1)
        before = teacher.log_rate.detach().clone()
        fit(teacher, make_metagrad(), toy_student, toy, outer_steps=2, progress=False)
        moved[name] = not torch.equal(teacher.log_rate, before)
    assert moved == {"unrolled": True, "implicit": False, "matching": False}


# ---------------------------------------------------------------- the same again


@every_metagrad
@pytest.mark.parametrize(
    "make_teacher", [pixels, generated, partial(generated, curriculum="fresh")],
    ids=["pixels", "learned", "fresh"],
)  # fmt: skip
def test_seed_decides_everything(make_teacher, make_metagrad, toy):
    def train(seed, noise):
        teacher = small(make_teacher)
        torch.manual_seed(noise)
        history = fit(teacher, make_metagrad(), toy_student, toy, 3, seed, progress=False)
        return history.loss, parameters(teacher)

    one, two, other = train(0, noise=1), train(0, noise=2), train(1, noise=1)
    assert one[0] == two[0] and torch.equal(one[1], two[1])
    assert one[0] != other[0] and not torch.equal(one[1], other[1])


@every_metagrad
def test_random_state_is_left_alone(make_metagrad, toy, random_state_untouched):
    teacher = PixelTeacher(1, 2, shape=(1, 8, 8), num_classes=3, weight_decay=0.1)
    fit(teacher, make_metagrad(), [toy_student, ConvNet], toy, 2, validate_every=1, progress=False)


@pytest.mark.parametrize("curriculum", ["learned", "fresh"])
def test_looking_on_does_not_change_the_training(curriculum, toy):
    teachers = [small(generated, curriculum=curriculum) for _ in range(2)]
    losses = [
        fit(teacher, Unrolled(), toy_student, toy, 4, progress=False, **keywords).loss
        for teacher, keywords in zip(
            teachers,
            ({}, {"validate_every": 1, "callback": lambda *_: evaluate(teachers[1], MLP, toy, 1)}),
        )
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("make_metagrad", [METAGRADS["unrolled"], METAGRADS["matching"]])
def test_two_students_per_step_give_the_average_gradient(make_metagrad, toy):
    teacher = small(pixels)
    expected = copy.deepcopy(teacher)
    history = fit(teacher, make_metagrad(), toy_student, toy, 1, seed=3, students_per_step=2,
                  progress=False)  # fmt: skip

    generator, losses = torch.Generator().manual_seed(derive_seed("fit", 3)), []
    for born in range(2):
        module = make_student(toy_student, toy.shape, 3, derive_seed("fit", 3, born))
        run = StudentRun.start(FlatStudent(module))
        losses.append(float(make_metagrad()(expected, run, toy.train, generator)))
    torch.testing.assert_close(teacher.images.grad, expected.images.grad / 2)
    assert history.loss == pytest.approx([sum(losses) / 2])
    assert losses[0] != losses[1]


def test_every_update_forgets_the_gradient_of_the_last(toy):
    teacher = small(pixels)
    expected = copy.deepcopy(teacher)
    fit(
        teacher,
        Unrolled(),
        toy_student,
        toy,
        2,
        rate=0.0,
        rates_rate=0.0,
        clip=None,
        progress=False,
    )

    generator = torch.Generator().manual_seed(derive_seed("fit", 0))
    for born in range(2):
        expected.zero_grad()
        module = make_student(toy_student, toy.shape, 3, derive_seed("fit", 0, born))
        Unrolled()(expected, StudentRun.start(FlatStudent(module)), toy.train, generator)
    torch.testing.assert_close(teacher.images.grad, expected.images.grad)


@pytest.mark.parametrize("updates, outer_steps, born", [(1, 4, 4), (3, 7, 3), (10, 4, 1)])
@pytest.mark.parametrize("method", [partial(Implicit, damping=5.0), GradientMatching])
def test_a_student_serves_as_many_updates_as_asked(method, updates, outer_steps, born, toy):
    built = []

    def student(shape, num_classes):
        built.append(1)
        return MLP(shape, num_classes, widths=(8,), activation="tanh")

    fit(
        small(pixels),
        method(updates_per_student=updates),
        student,
        toy,
        outer_steps,
        progress=False,
    )
    assert len(built) == born + 2  # the first two only rehearse


# ---------------------------------------------------------------- history


def test_validation_is_measured_as_often_as_asked(toy):
    history = fit(small(pixels), Unrolled(), toy_student, toy, 7, validate_every=3, progress=False)
    assert [step for step, _ in history.validation] == [3, 6]
    assert all(0 <= accuracy <= 1 for _, accuracy in history.validation)
    assert len(history) == len(history.loss) == len(history.gradient_norm) == 7


def test_last_validation_is_what_evaluate_measures(toy):
    teacher = small(pixels)
    history = fit(teacher, Unrolled(), toy_student, toy, 4, validate_every=4, progress=False)
    report = evaluate(teacher, toy_student, toy, seeds=1, split="validation")
    assert history.validation == [(4, report.accuracy.mean)]


def test_callback_sees_every_update(toy):
    seen = []
    teacher = small(pixels)
    history = fit(teacher, Unrolled(), toy_student, toy, 3, progress=False,
                  callback=lambda *args: seen.append((*args, len(args[2]))))  # fmt: skip
    assert [(step, n) for step, _, _, n in seen] == [(0, 1), (1, 2), (2, 3)]
    assert all(t is teacher and h is history for _, t, h, _ in seen)


def test_rates_of_the_optimiser_are_what_was_asked(toy):
    """Adam's first step moves every parameter by its rate."""
    teacher = small(pixels)
    images, log_rate = teacher.images.detach(), teacher.log_rate.detach()
    before = images.clone(), log_rate.clone()
    fit(teacher, Unrolled(), toy_student, toy, 1, rate=0.5, rates_rate=0.25, progress=False)
    assert float((images - before[0]).abs().median()) == pytest.approx(0.5, rel=1e-3)
    assert float((log_rate - before[1]).abs().median()) == pytest.approx(0.25, rel=1e-3)


def test_cosine_decay_ends_where_asked(toy):
    moves = []

    def callback(step, teacher, history):
        moves.append(teacher.log_rate.detach().clone())

    teacher = small(pixels)
    fit(teacher, Unrolled(), toy_student, toy, 20, rate=0.0, final_rate=0.0, clip=None,
        callback=callback, progress=False)  # fmt: skip
    sizes = [float((b - a).abs().max()) for a, b in zip(moves, moves[1:])]
    assert sizes[-1] < 0.02 * max(sizes)


def test_clipping_limits_the_step_not_the_recorded_norm(toy):
    def norms_of(clip):
        teacher, applied = small(pixels), []

        def callback(step, teacher, history):
            grads = [p.grad for p in teacher.parameters() if p.grad is not None]
            applied.append(float(torch.cat([g.flatten() for g in grads]).norm()))

        history = fit(teacher, Unrolled(), toy_student, toy, 6, clip=clip, callback=callback,
                      progress=False)  # fmt: skip
        return history.gradient_norm, applied

    recorded, applied = norms_of(None)
    assert applied == pytest.approx(recorded)
    recorded, applied = norms_of(0.1)
    assert applied[0] == pytest.approx(recorded[0])
    typical = recorded[0]
    for norm, step in zip(recorded[1:], applied[1:]):
        assert step == pytest.approx(min(norm, 0.1 * typical), rel=1e-2)
        typical = 0.9 * typical + 0.1 * step


def test_a_gradient_of_zero_does_not_stop_the_learning_for_good(toy):
    """The first student gives no gradient, the rehearsed ones and the later ones do."""
    built = []

    class Deaf(MLP):
        def forward(self, x):
            return super().forward(x * 0)

    def student(shape, num_classes):
        built.append(1)
        return (Deaf if len(built) == 3 else MLP)(shape, num_classes, widths=(8,))

    teacher = small(pixels, learn_rates=False)
    before = teacher.images.detach().clone()
    history = fit(teacher, Unrolled(), student, toy, 3, progress=False)
    assert history.gradient_norm[0] == 0 < history.gradient_norm[1]
    assert not torch.equal(teacher.images, before)


# ---------------------------------------------------------------- stopping


@every_teacher
def test_interrupted_fit_returns_what_there_is(make_teacher, toy):
    def callback(step, teacher, history):
        if step == 2:
            raise KeyboardInterrupt

    teacher, whole = small(make_teacher), small(make_teacher)
    history = fit(teacher, Unrolled(), toy_student, toy, 9, callback=callback, progress=False)
    assert len(history) == 3 and history.interrupted
    assert parameters(teacher).isfinite().all()
    assert evaluate(teacher, toy_student, toy, seeds=1).accuracy.mean >= 0
    states = []
    fit(whole, Unrolled(), toy_student, toy, 9, progress=False,
        callback=lambda *_: states.append(parameters(whole)))  # fmt: skip
    assert torch.equal(parameters(teacher), states[2])


def test_a_function_that_gives_another_kind_of_student_later_is_refused(toy):
    built = []

    def student(shape, num_classes):
        built.append(1)
        return MLP(shape, num_classes + (len(built) == 5), widths=(8,))

    teacher = small(pixels)
    with pytest.raises(ValueError, match=r"scores of shape \(2, 4\) of 2 images, but must make \(2, 3\)"):
        fit(teacher, Unrolled(real_batch_size=6), student, toy, 6, progress=False)
    assert len(built) == 5


def test_interrupted_inside_a_student_keeps_the_last_whole_update(toy):
    states, built = [], []

    def student(shape, num_classes):
        built.append(1)
        if len(built) == 5:  # the first two rehearse
            raise KeyboardInterrupt
        return MLP(shape, num_classes)

    teacher = small(pixels)
    history = fit(teacher, Unrolled(), student, toy, 9, progress=False,
                  callback=lambda *_: states.append(parameters(teacher)))  # fmt: skip
    assert len(history) == 2 and torch.equal(parameters(teacher), states[-1])


@every_metagrad
@every_teacher
def test_divergence_keeps_the_last_good_teacher(make_teacher, make_metagrad, toy):
    """The rate explodes at a known update; students then leave the numbers that float32 has."""
    states = []

    def callback(step, teacher, history):
        if step == 1:
            teacher.log_rate.data.fill_(80)
        states.append(parameters(teacher))

    teacher = small(make_teacher, weight_decay=0.1)
    student = partial(MLP, widths=(8, 8), activation="softplus")
    last = 2 if make_metagrad is METAGRADS["matching"] else 1  # it trains its students afterwards
    message = f"outer step {last + 1}: .*as step {last} made it.*Lower"
    with pytest.raises(DivergenceError, match=message) as caught:
        fit(teacher, make_metagrad(), student, toy, 9, callback=callback, progress=False)
    assert len(caught.value.history) == last + 1 == len(states)
    assert torch.equal(parameters(teacher), states[-1])


def test_divergence_of_the_first_update_leaves_the_teacher_as_it_was(toy):
    teacher = small(pixels, rate=1e30)
    before = parameters(teacher)
    with pytest.raises(DivergenceError, match="outer step 0: .*left as it was") as caught:
        fit(teacher, Unrolled(), toy_student, toy, 9, progress=False)
    assert len(caught.value.history) == 0 and torch.equal(parameters(teacher), before)


def test_a_huge_outer_rate_diverges_with_an_error(toy):
    teacher = small(pixels)
    with pytest.raises(DivergenceError) as caught:
        fit(teacher, Unrolled(), toy_student, toy, 50, rate=1e12, final_rate=1.0, progress=False)
    assert 0 < len(caught.value.history) < 50
    assert parameters(teacher).isfinite().all()
    assert all(map(math.isfinite, caught.value.history.loss))


def test_implicit_warns_where_it_cannot_converge(toy):
    metagrad = Implicit("neumann", scale=1)
    with pytest.warns(DivergenceWarning):
        fit(small(pixels, weight_decay=0.5), metagrad, toy_student, toy, 1, progress=False)
