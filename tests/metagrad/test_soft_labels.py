"""Learned labels: their hypergradient by implicit differentiation, compiled and stacked as well."""

from functools import partial

import pytest
import torch

from gtnlib import MLP, FlatStudent, GeneratorTeacher, Implicit, PixelTeacher, StudentRun, Unrolled, fit
from gtnlib.inner.step import train_student

SHAPE, CLASSES, DAMPING = (1, 8, 8), 3, 20.0
LESSON = {"shape": SHAPE, "num_classes": CLASSES, "learn_labels": True, "weight_decay": 0.1}


def pixels(steps=4):
    return PixelTeacher(2, steps, 3, **LESSON)


def generated(steps=4):
    return GeneratorTeacher(steps, 6, batches=2, noise_size=4, hidden=6, channels=4, **LESSON)


every_teacher = pytest.mark.parametrize("make_teacher", [pixels, generated])


def dense_implicit(teacher, student, split, drawn):
    """−(∂L/∂w) (H + δ)⁻¹ ∂²f/∂w∂φ with the whole matrix H, by plain autograd."""
    run = train_student(teacher, StudentRun.start(student), teacher.steps)
    steps, real, _ = drawn
    batches = [teacher.batch(t) for t in steps]

    def f(w):
        losses = [student.loss(w, x, y) for x, y in batches]
        return sum(losses) / len(losses) + teacher.weight_decay / 2 * w @ w

    hessian = torch.autograd.functional.hessian(f, run.w) + DAMPING * torch.eye(len(run.w), dtype=run.w.dtype)
    q = torch.linalg.solve(hessian, student.gradient(run.w, *split.at(real))).detach()
    w = run.w.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(w), w, create_graph=True)
    learned = {n: p for n, p in teacher.named_parameters() if n not in ("log_rate", "momentum_logit")}
    return dict(zip(learned, torch.autograd.grad(-(slope @ q), list(learned.values()))))


@every_teacher
def test_implicit_gradient_of_labels_is_that_of_the_dense_hessian(make_teacher, flat64, tiny):
    teacher, student = make_teacher().double(), flat64(lambda: MLP(SHAPE, CLASSES, (5,), activation="tanh"))
    teacher.label_logits.data += torch.randn(teacher.label_logits.shape)
    metagrad = Implicit("neumann", neumann_terms=300, damping=DAMPING, real_batch_size=9)
    drawn = metagrad.draw(teacher, 0, tiny, torch.Generator().manual_seed(0))
    metagrad.differentiate(teacher, StudentRun.start(student), tiny, drawn)
    wanted = dense_implicit(teacher, student, tiny, drawn)
    for name, p in teacher.named_parameters():
        if name in wanted:
            torch.testing.assert_close(p.grad, wanted[name], rtol=1e-7, atol=1e-12)
    assert float(teacher.label_logits.grad.norm()) > 1e-5


@every_teacher
@pytest.mark.parametrize("students", [1, 2])
def test_compiled_and_stacked_students_move_labels_alike(make_teacher, students, toy, quick_compile):
    student = partial(MLP, widths=(6,), activation="tanh")
    found = []
    for compiled in (True, False):
        teacher = make_teacher()
        fit(teacher, Unrolled(real_batch_size=9), student, toy, 3, students_per_step=students,
            compile=compiled, progress=False)  # fmt: skip
        found.append(teacher.label_logits.detach())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], make_teacher().label_logits, atol=1e-3)


def test_a_student_of_probabilities_that_are_hard_is_that_of_classes(flat64, tiny):
    student: FlatStudent = flat64(lambda: MLP(SHAPE, CLASSES, (5,)))
    w, x, y = student.initial(), tiny.images[:6], tiny.labels[:6]
    hard = torch.nn.functional.one_hot(y, CLASSES).double()
    a = torch.randn(w.shape, dtype=w.dtype)
    with torch.no_grad():
        for ours, theirs in zip(student.second_order(w, x, hard, a), student.second_order(w, x, y, a)):
            torch.testing.assert_close(ours, theirs)
