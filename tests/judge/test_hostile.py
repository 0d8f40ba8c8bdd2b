"""Calls that looked right and gave a number: one network as several students, one seed twice, vectors for
numbers, labels left out of a mean."""

from functools import partial

import numpy as np
import pytest
import torch

from gtnlib import (
    MLP, FlatStudent, PixelTeacher, Split, StudentRun, TeachingSet, Unrolled, evaluate, fit, inner_step,
    train_student,
)  # fmt: skip
from gtnlib.inner.stacked import StackedStudent
from gtnlib.inner.step import loss
from gtnlib.judge.training import Recipe, score

STUDENT = partial(MLP, (1, 8, 8), 3, widths=(8,))


@pytest.fixture
def teacher():
    return PixelTeacher(2, steps=4, shape=(1, 8, 8), num_classes=3)


def test_one_network_is_not_several_students(teacher, toy):
    one = STUDENT()
    with pytest.raises(TypeError, match="student gives one and the same MLP at every call"):
        evaluate(teacher, lambda: one, toy, 2)
    with pytest.raises(TypeError, match="student gives one and the same MLP at every call"):
        score(teacher, lambda: one, toy, Recipe(), 2)
    before = teacher.images.detach().clone()
    for student in (lambda: one, [STUDENT, lambda: one]):
        with pytest.raises(TypeError, match="student gives one and the same MLP at every call"):
            fit(teacher, Unrolled(real_batch_size=6), student, toy, 1, progress=False)
    assert torch.equal(teacher.images, before)
    assert len(evaluate(teacher, lambda: one, toy, 1).accuracy.values) == 1


def test_every_seed_is_another_student(teacher, toy):
    for call in (lambda seeds: evaluate(teacher, STUDENT, toy, seeds),
                 lambda seeds: score(teacher, STUDENT, toy, Recipe(), seeds)):  # fmt: skip
        with pytest.raises(ValueError, match="seeds has one of .0, 0, 1. twice"):
            call([0, 1, 0])
    wanted = evaluate(teacher, STUDENT, toy, [2, 0]).accuracy
    assert evaluate(teacher, STUDENT, toy, np.array([2, 0])).accuracy == wanted
    assert evaluate(teacher, STUDENT, toy, torch.tensor([2, 0])).accuracy == wanted


@pytest.mark.parametrize("name, value", [("rate", torch.ones(1)), ("rate", torch.ones(547)),
                                         ("momentum", torch.ones(1)), ("m", torch.zeros(1))])  # fmt: skip
def test_an_inner_step_takes_one_rate_and_a_momentum_of_every_parameter(name, value, toy):
    run = StudentRun.start(FlatStudent(STUDENT()))
    batch = toy.train.images[:6], toy.train.labels[:6]
    given = {"m": run.m, "rate": torch.tensor(0.1), "momentum": torch.tensor(0.9), name: value}
    with pytest.raises(ValueError, match=f"{name} must have shape"):
        inner_step(run.student, run.w, batch=batch, **given)


def relabelled(y):
    """A teacher that was given these labels behind its back."""
    teacher = PixelTeacher(2, steps=2, shape=(1, 8, 8), num_classes=3)
    teacher.labels.copy_(y)
    return teacher


LABELLED = {
    "Split": lambda s, w, x, y: Split(x, y, 3),
    "TeachingSet": lambda s, w, x, y: TeachingSet(x, y, y.new_zeros(1, 6), torch.ones(1), torch.zeros(1)),
    "sample": lambda s, w, x, y: Split(x, y.clamp(0), 3).sample(6, labels=y),
    "loss": lambda s, w, x, y: s.loss(w, x, y),
    "gradient": lambda s, w, x, y: s.gradient(w, x, y),
    "second_order": lambda s, w, x, y: s.second_order(w, x, y, w),
    "curvature": lambda s, w, x, y: s.curvature(w, x, y),
    "inner_step": lambda s, w, x, y: inner_step(s, w, w, (x, y), torch.tensor(0.1), torch.tensor(0.9)),
    "stacked": lambda s, w, x, y: StackedStudent([s, FlatStudent(STUDENT())], batched=True).compute(
        loss, (torch.stack([w, w]),), (x, y)),
    "train_student": lambda s, w, x, y: train_student(relabelled(y), StudentRun.start(s), 1),
    "export": lambda s, w, x, y: relabelled(y).teaching_set(),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELLED)
def test_no_label_is_left_out_of_a_mean(name, toy):
    """PyTorch's cross-entropy leaves out those of −100."""
    student, images, labels = FlatStudent(STUDENT()), toy.train.images[:6], toy.train.labels[:6].clone()
    LABELLED[name](student, student.initial(), images, labels)
    labels[2] = -100
    with pytest.raises((ValueError, IndexError, RuntimeError), match="-100"):
        LABELLED[name](student, student.initial(), images, labels)
