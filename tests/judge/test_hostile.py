"""Calls that looked right and gave a number: one network as several students, one seed twice, vectors."""

from functools import partial

import numpy as np
import pytest
import torch

from gtnlib import MLP, FlatStudent, PixelTeacher, StudentRun, evaluate, inner_step
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
