"""Evaluation: fresh students, counted right, on the split that was asked for."""

import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from gtnlib import (
    MLP, ConvNet, Dataset, FlatStudent, GeneratorTeacher, PixelTeacher, RealTeacher, Split, Statistic,
    accuracy, best_rate, evaluate,
)  # fmt: skip
from gtnlib.inner.flat import flat_student
from gtnlib.inner.stacked import StackedStudent
from gtnlib.inner.step import StudentRun, train_student
from gtnlib.judge.evaluate import HOPELESS, accuracy_and_loss

MODULE = sys.modules["gtnlib.judge.evaluate"]  # the name gtnlib.evaluate is the function
STUDENT = partial(MLP, widths=(8,))


@pytest.fixture
def teacher():
    return PixelTeacher(2, steps=6, shape=(1, 8, 8), num_classes=3)


def test_report_has_one_row_per_seed_and_one_column_per_mark(teacher, toy):
    report = evaluate(teacher, STUDENT, toy, seeds=3, every=2)
    assert report.steps == (0, 2, 4, 6)
    assert report.curves.shape == (3, 4)
    assert torch.equal(report.curves[:, -1], torch.tensor(report.accuracy.values))
    assert report.split == "test" and "on test after 6 steps" in str(report)


@pytest.mark.parametrize(
    "steps, every, marks",
    [
        (None, None, (6,)),
        (4, None, (4,)),
        (None, 4, (0, 4, 6)),
        (14, 7, (0, 7, 14)),
        (2, 5, (0, 2)),
    ],
)
def test_curve_is_measured_where_asked_and_at_the_end(teacher, toy, steps, every, marks):
    assert evaluate(teacher, STUDENT, toy, seeds=1, steps=steps, every=every).steps == marks


def test_measuring_on_the_way_does_not_change_the_end(teacher, toy):
    plain = evaluate(teacher, STUDENT, toy, seeds=2)
    assert evaluate(teacher, STUDENT, toy, seeds=2, every=1).accuracy == plain.accuracy
    assert evaluate(teacher, STUDENT, toy, seeds=2, steps=4, every=2).curves.tolist() == (
        evaluate(teacher, STUDENT, toy, seeds=2, every=2).curves[:, :3].tolist()
    )


def test_mean_and_standard_deviation():
    statistic = Statistic((0.5, 0.7, 0.9))
    assert statistic.mean == pytest.approx(0.7) and statistic.std == pytest.approx(0.2)
    assert Statistic((0.5,)).std == 0
    with pytest.raises(ValueError, match="values is empty: a statistic needs at least one"):
        Statistic(())
    assert str(statistic) == "70.0 ± 20.0 %, median 70.0 (50.0 to 90.0) %"


def test_seeds_are_a_count_or_a_list(teacher, toy):
    three = evaluate(teacher, STUDENT, toy, seeds=3).accuracy.values
    assert evaluate(teacher, STUDENT, toy, seeds=[2, 0]).accuracy.values == (three[2], three[0])
    assert len(set(three)) > 1


@pytest.mark.parametrize("kind", ["pixels", "fresh", "real", "set"])
def test_evaluation_repeats_and_leaves_random_state_alone(kind, toy, random_state_untouched):
    teacher = {
        "pixels": lambda: PixelTeacher(2, steps=6, shape=(1, 8, 8), num_classes=3),
        "fresh": lambda: GeneratorTeacher(3, 6, curriculum="fresh", shape=(1, 8, 8), num_classes=3),
        "real": lambda: RealTeacher(toy.train, 5, 9),
        "set": lambda: PixelTeacher(2, steps=6, shape=(1, 8, 8), num_classes=3).teaching_set(),
    }[kind]()
    one, two = (evaluate(teacher, [STUDENT, ConvNet], toy, seeds=4, every=1) for _ in range(2))
    assert torch.equal(one.curves, two.curves)


def test_evaluation_does_not_train_the_teacher(teacher, toy):
    before = {name: p.detach().clone() for name, p in teacher.named_parameters()}
    evaluate(teacher, STUDENT, toy, seeds=1)
    for name, p in teacher.named_parameters():
        assert torch.equal(p, before[name]) and p.grad is None


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_asked_split_is_measured(teacher, toy, split):
    """Every other split is made unlearnable, and would give an accuracy of exactly 0 or 1."""
    wrong = Split(toy.test.images * 0, toy.test.labels * 0, 3)
    parts = {name: wrong for name in ("train", "validation", "test")}
    data = Dataset("mixed", **{**parts, split: getattr(toy, split)})
    report = evaluate(teacher, STUDENT, data, seeds=3, split=split)
    assert report.accuracy == evaluate(teacher, STUDENT, toy, seeds=3, split=split).accuracy
    assert report.split == split


def test_accuracy_counts_right_answers_whatever_the_batch_size(toy):
    student = FlatStudent(MLP((1, 8, 8), 3))
    w = student.initial()
    right = (student.module(toy.test.images).argmax(1) == toy.test.labels).float().mean()
    for batch_size in (1, 7, 60, 1000):
        assert accuracy(student, w, toy.test, batch_size) == pytest.approx(float(right))


def test_the_loss_beside_the_accuracy_is_torchs_and_always_a_number(toy):
    student = FlatStudent(MLP((1, 8, 8), 3))
    w = student.initial()
    wanted = F.cross_entropy(student.module(toy.test.images), toy.test.labels).item()
    assert accuracy_and_loss(student, w, toy.test) == (
        accuracy(student, w, toy.test), pytest.approx(wanted, rel=1e-5),
    )  # fmt: skip
    for value in (torch.nan, torch.inf):
        assert accuracy_and_loss(student, torch.full_like(w, value), toy.test)[1] == HOPELESS


def test_real_images_teach_mnist(mnist):
    teacher = RealTeacher(mnist.train, steps=60, batch_size=32)
    report = evaluate(teacher, partial(MLP, widths=(32,)), mnist, seeds=2, every=60)
    assert (report.curves[:, 0] < 0.3).all() and (report.curves[:, 1] > 0.75).all()


def test_more_real_images_teach_more(mnist):
    few, many = (
        evaluate(RealTeacher(mnist.train, 60, 20, images=n), MLP, mnist, 2, split="validation")
        for n in (20, 1200)
    )
    assert few.accuracy.mean + 0.05 < many.accuracy.mean


def test_best_rate_is_the_one_that_learns(toy):
    def teacher_at(rate):
        return RealTeacher(toy.train, steps=20, batch_size=12, rate=rate)

    assert best_rate(teacher_at, STUDENT, toy, rates=(1e-7, 0.05, 1e6)) == 0.05


def test_best_rate_never_looks_at_the_test_images(toy):
    blind = Dataset("blind", toy.train, toy.validation, None)
    rate = best_rate(lambda rate: RealTeacher(toy.train, 5, 6, rate=rate), STUDENT, blind, (0.1,), 1)
    assert rate == 0.1


@pytest.mark.parametrize("kind", ["pixels", "real"])
def test_side_by_side_as_on_a_gpu_students_do_as_one_after_the_other(kind, teacher, toy, monkeypatch):
    lessons = teacher if kind == "pixels" else RealTeacher(toy.train, 6, 4)
    students = [STUDENT, partial(MLP, widths=(5,))]
    in_turn = evaluate(lessons, students, toy, seeds=6, every=2)
    groups = []
    plain = MODULE._groups
    monkeypatch.setattr(MODULE, "_groups",
                        lambda pupils, together: groups.extend(plain(pupils, True)) or groups)  # fmt: skip
    monkeypatch.setattr(MODULE, "StackedStudent", partial(StackedStudent, batched=True))
    together = evaluate(lessons, students, toy, seeds=6, every=2)
    assert len(groups) == 2 and sorted(sum(groups, [])) == list(range(6))
    torch.testing.assert_close(together.curves, in_turn.curves)


def test_the_order_of_a_split_does_not_matter_to_batch_norm(mnist):
    order = mnist.validation.labels[:3000].argsort(stable=True)
    mixed = mnist.validation.first(3000)
    by_class = Split(mixed.images[order], mixed.labels[order])
    student = flat_student(partial(ConvNet, width=(8, 16), norm="batch"), mnist)
    run = StudentRun.start(student)
    lesson = RealTeacher(mnist.train, 20, 50).teaching_set(mnist.generator())
    train_student(lesson, run, 20)
    one, two = (accuracy(student, run.w, split) for split in (mixed, by_class))
    assert abs(one - two) < 0.02 and one > 0.5
