"""The inner step is torch.optim.SGD, and a training is its repetition."""

import pytest
import torch
import torch.nn.functional as F

from gtnlib import MLP, PixelTeacher, StudentRun, inner_step, train_student
from gtnlib.inner.step import pull_back

SHAPE = (1, 8, 8)


@pytest.fixture
def student(flat64):
    return flat64(lambda: MLP(SHAPE, 3, widths=(5,)))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_inner_step_is_torch_sgd(student, tiny, momentum, weight_decay):
    w = student.initial()
    m = torch.zeros_like(w)
    optimizer = torch.optim.SGD(
        student.module.parameters(), lr=1.0, momentum=momentum, weight_decay=weight_decay
    )
    for t in range(6):
        rate, mu = torch.tensor([0.1 + 0.05 * t, momentum], dtype=torch.float64)
        x, y = tiny.images[5 * t : 5 * t + 5], tiny.labels[5 * t : 5 * t + 5]
        w, m = inner_step(student, w, m, (x, y), rate, mu, weight_decay)

        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        F.cross_entropy(student.module(x), y).backward()
        optimizer.step()
        torch.testing.assert_close(w, student.initial(), rtol=1e-12, atol=1e-12)


def test_inner_step_does_not_change_its_arguments(student, tiny):
    w, m = student.initial(), torch.ones(student.size, dtype=torch.float64)
    before = w.clone(), m.clone()
    inner_step(student, w, m, (tiny.images, tiny.labels), torch.tensor(0.1), torch.tensor(0.5), 0.1)
    assert torch.equal(w, before[0]) and torch.equal(m, before[1])


@pytest.fixture
def teacher():
    return PixelTeacher(2, steps=4, batch_size=4, shape=SHAPE, num_classes=3).double()


def test_training_in_two_parts_equals_training_at_once(student, teacher):
    parts = train_student(teacher, train_student(teacher, StudentRun.start(student), 3), 4)
    whole = train_student(teacher, StudentRun.start(student), 7)
    assert parts.t == whole.t == 7
    assert torch.equal(parts.w, whole.w) and torch.equal(parts.m, whole.m)


def test_training_records_nothing_for_autograd(student, teacher):
    run = train_student(teacher, StudentRun.start(student), 3)
    assert not run.w.requires_grad and not run.m.requires_grad
    assert all(p.grad is None for p in teacher.parameters())


def test_zero_steps_of_training_change_nothing(student, teacher):
    run = train_student(teacher, StudentRun.start(student), 0)
    assert run.t == 0 and torch.equal(run.w, student.initial())


def test_pull_back_adds_and_skips_what_depends_on_no_parameter():
    p = torch.ones(2, requires_grad=True)
    for _ in range(2):
        pull_back({p * torch.tensor([2.0, 3.0]): torch.ones(2), torch.ones(2): torch.ones(2)})
    assert p.grad.tolist() == [4.0, 6.0]
    pull_back({torch.ones(2): torch.ones(2)})
