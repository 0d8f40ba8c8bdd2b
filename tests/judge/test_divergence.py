"""Students that blow up are counted, those that learn badly are not, and no such rate is chosen."""

import math
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from gtnlib import (
    MLP, ConvNet, DivergenceError, DivergenceWarning, FlatStudent, PixelTeacher, Protocol, RealTeacher,
    best_rate, evaluate,
)  # fmt: skip
from gtnlib.experiments import Context
from gtnlib.experiments.choice import choose
from gtnlib.inner.stacked import StackedStudent
from gtnlib.judge.divergence import FAR, WORSE, diverged
from gtnlib.judge.evaluate import measure
from gtnlib.judge.training import Recipe, score

KIND = {"shape": (1, 8, 8), "num_classes": 3}
STUDENT = partial(MLP, widths=(8,))
UNNORMALISED = partial(ConvNet, norm="none")


def pixels(rate, **arguments):
    return PixelTeacher(2, steps=4, rate=rate, **{**KIND, **arguments})


@pytest.mark.parametrize("student", [STUDENT, ConvNet, UNNORMALISED], ids=["MLP", "ConvNet", "no norm"])
@pytest.mark.parametrize("rate", [1e3, 1e6, 1e12])
def test_students_whose_numbers_stay_finite_at_a_huge_rate_have_diverged(rate, student, toy):
    teacher = RealTeacher(toy.train, 4, 30, rate=rate)
    with pytest.warns(DivergenceWarning, match="of 4 students diverged"):
        report = evaluate(teacher, student, toy, 4, every=1)
    assert report.diverged == 4 and report.curves.isfinite().all()
    assert score(teacher, student, toy, Recipe(), 4).diverged == 4


def test_a_students_own_lessons_decide(toy):
    """Of three that learn from six images at rate 10⁶ some have learned these by heart."""
    teacher = pixels(1e6)
    with pytest.warns(DivergenceWarning):
        report = evaluate(teacher, STUDENT, toy, 3)
    assert report.diverged == score(teacher, STUDENT, toy, Recipe(), 3).diverged > 0


LEARN_BADLY = {
    "not at all": (lambda toy: pixels(1e-12), {}),
    "unnormalised": (lambda toy: RealTeacher(toy.train, 20, 6, rate=0.3), {"student": UNNORMALISED}),
    "by heart": (lambda toy: pixels(0.1), {"protocol": Protocol(epochs=300, rate=0.1)}),
    "at chance": (lambda toy: RealTeacher(toy.train, 20, 6, rate=1.0), {"student": ConvNet}),
    "uniform labels": (lambda toy: replace(pixels(0.1).teaching_set(), labels=torch.full((6, 3), 1 / 3)), {}),
    "soft labels": (lambda toy: pixels(0.1, learn_labels=True), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LEARN_BADLY)
def test_students_that_learn_badly_have_not_diverged(name, toy, recwarn):
    build, arguments = LEARN_BADLY[name]
    given = {"student": STUDENT, "progress": False, **arguments}
    assert evaluate(build(toy), data=toy, seeds=3, **given).diverged == 0
    assert not any(issubclass(w.category, DivergenceWarning) for w in recwarn)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("knows, factor", [(True, FAR), (False, WORSE)])
def test_the_limit_is_some_times_the_loss_of_guessing_or_of_the_start(knows, factor, soft):
    """A linear student that gives class 0 a low score: by it the loss is known.

    The others it knows, four images of six; or there are none.
    """
    student = FlatStudent(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)))
    labels = torch.tensor([0, 0, 1, 1, 2, 2] if knows else [0] * 6)
    images = F.one_hot(labels, 64).float().view(6, 1, 8, 8)
    lessons = replace(pixels(0.1).teaching_set(), images=images, labels=labels)
    if soft:
        lessons = replace(lessons, labels=F.one_hot(labels, 3).float())

    def at(loss):
        w = torch.zeros(student.size)
        scores = w[:192].view(3, 64)
        scores[1, 1] = scores[2, 2] = 50
        scores[0, 0] = -math.log(math.expm1(loss * (3 if knows else 1)) / 2)
        return w

    limit = factor * math.log(3)
    far = 20 * factor
    cases = [(0.0, limit - 0.1, False), (0.0, limit + 0.1, True), (limit + 1, limit + 2, False),
             (20.0, far - 1, False), (20.0, far + 1, True), (0.0, math.inf, True)]  # fmt: skip
    for before, after, wanted in cases:
        start = torch.zeros(student.size) if before == 0 else at(before)
        assert bool(diverged(student, start, at(after), lessons)) == wanted, (before, after)
    assert bool(diverged(student, at(math.inf), at(limit - 1), lessons)) is False


def test_students_that_training_made_worse_by_either_measure_have_diverged(toy):
    """Their losses are 6 to 8 times that of guessing, 4.5 times, and just above it."""
    for teacher, student, wanted in (
        (RealTeacher(toy.train, 30, 30, rate=10.0), ConvNet, 4),  # one answer to all
        (RealTeacher(toy.train, 20, 6, rate=10.0), UNNORMALISED, 4),
        (RealTeacher(toy.train, 20, 6, rate=1.0), UNNORMALISED, 0),  # of which one knows 89 % of its images
        (RealTeacher(toy.train, 20, 6, rate=3.0), UNNORMALISED, 0),  # whose units have died
    ):
        report = measure(teacher, student, toy, 4)
        assert report.diverged == wanted and report.curves.isfinite().all()


def test_rates_at_which_students_diverge_are_never_chosen(toy, tmp_path):
    def at(rate):
        return RealTeacher(toy.train, 30, 30, rate=rate)

    small = partial(MLP, widths=(8,))
    assert best_rate(at, small, toy, [1e3, 1e-9, 1e6]) == 1e-9
    with pytest.raises(DivergenceError, match="students diverged at every rate of 1000.0, 1000000.0"):
        best_rate(at, small, toy, [1e3, 1e6])


def test_experiments_choose_among_the_options_in_which_fewest_students_diverged(tmp_path):
    def measure(job):
        return {"accuracy": {"validation": [job["value"]] * 2}, "seconds": [1], **job["more"]}

    one, two, three = ({"value": v, "more": m} for v, m in ((0.9, {"diverged": 1}), (0.2, {"diverged": 0}),
                                                            (0.1, {})))  # fmt: skip
    context = Context(tmp_path, torch.device("cpu"), progress=False)
    chosen = choose({"cell": [one, three, two]}, measure, tmp_path / "a", context)
    assert chosen.place == {"cell": 2} and chosen.accuracy["cell"][0] == [0.9, 0.9]
    worse = {"value": 0.95, "more": {"diverged": 2}}
    assert choose({"cell": [worse, one]}, measure, tmp_path / "b", context).place == {"cell": 1}


def test_side_by_side_each_student_is_judged_by_its_own_lessons(toy, monkeypatch):
    module = sys.modules["gtnlib.judge.evaluate"]
    teacher = pixels(1e6)
    in_turn = module.measure(teacher, STUDENT, toy, 6)
    plain = module._groups
    monkeypatch.setattr(module, "_groups", lambda pupils, together: plain(pupils, True))
    monkeypatch.setattr(module, "StackedStudent", partial(StackedStudent, batched=True))
    assert module.measure(teacher, STUDENT, toy, 6).diverged == in_turn.diverged
