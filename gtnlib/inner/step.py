"""The inner loop: one step of SGD with momentum as a pure function, and a whole training."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gtnlib.inner.flat import FlatStudent
from gtnlib.support.errors import check_count, check_kind


def sgd(student, w, m, x, y, rate, momentum, weight_decay) -> tuple[Tensor, Tensor]:
    """`inner_step` for one student and plain tensors: what a subclass compiles or stacks."""
    m = momentum * m + student.gradient(w, x, y) + weight_decay * w
    return w - rate * m, m


def loss(student, w, x, y) -> Tensor:
    """ℓ (0-d)."""
    return student.loss(w, x, y)


def loss_gradient(student, w, x, y) -> tuple[Tensor, Tensor]:
    """∂ℓ/∂w (P,) and ℓ (0-d)."""
    return student.gradient_and_loss(w, x, y)


def check_parameters(student: FlatStudent, w: Tensor) -> None:
    """Raise unless w holds the student's parameters, for several students in rows."""
    check_kind("w", w, Tensor)
    if w.shape[-1:] != (student.size,):
        raise ValueError(f"w must hold the student's {student.size} parameters, got shape {tuple(w.shape)}.")


def inner_step(
    student: FlatStudent,
    w: Tensor,
    m: Tensor,
    batch: tuple[Tensor, Tensor],
    rate: Tensor,
    momentum: Tensor,
    weight_decay: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Φ: one step of SGD with momentum on the batch (x, y), as `torch.optim.SGD` does it.

        m ← μ m + ∂ℓ(w; x)/∂w + β w        w ← w − η m

    Shapes: w and m (P,); x (B, C, H, W); y classes (B,) or probabilities (B, classes); rate η
    and momentum μ are 0-d. Returns new w, m. (Where μ is exactly 0 torch leaves its m as it was, which
    shows only if a later step has another μ.)
    """
    check_parameters(check_kind("student", student, FlatStudent), w)
    for name, value, shape in (("m", m, w.shape), ("rate", rate, ()), ("momentum", momentum, ())):
        if isinstance(value, Tensor) and value.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}.")
    return student.compute(sgd, (w, m), (*batch, rate, momentum, weight_decay))


@dataclass
class StudentRun:
    """A student in training: its parameters w, momentum m (both (P,)) and steps taken t.

    `updates` counts the outer steps it has served, so that `fit` knows when to start a fresh one. `memory`
    holds numbers that a meta-gradient keeps from one outer step to the next; `fit` hands them on to the
    student that takes its place.
    """

    student: FlatStudent
    w: Tensor
    m: Tensor
    t: int = 0
    updates: int = 0
    memory: dict[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, student: FlatStudent) -> StudentRun:
        w = check_kind("student", student, FlatStudent, " FlatStudent(module) makes one.").initial()
        return cls(student, w, torch.zeros_like(w))


@torch.no_grad()
def train_student(teacher, run: StudentRun, steps: int) -> StudentRun:
    """Take `steps` inner steps on the teacher's batches, in place; nothing is recorded for autograd."""
    check_kind("run", run, StudentRun, " StudentRun.start(FlatStudent(module)) makes one.")
    if isinstance(teacher, type) or not hasattr(teacher, "reader"):
        raise TypeError(f"teacher must be a teacher that is trained, or a TeachingSet, got {teacher!r}.")
    batch_at = teacher.reader()
    for _ in range(check_count("steps", steps, 0)):
        batch, (rate, momentum) = batch_at(run.t), teacher.rates(run.t)
        run.w, run.m = inner_step(run.student, run.w, run.m, batch, rate, momentum, teacher.weight_decay)
        run.t += 1
    return run


def pull_back(adjoints: dict[Tensor, Tensor]) -> None:
    """Send adjoints of the teacher's outputs (a batch, a rate) on to the teacher's parameters.

    Adds to their .grad, as `backward` does; outputs that depend on no parameter are skipped.
    """
    live = {output: adjoint for output, adjoint in adjoints.items() if output.requires_grad}
    if live:
        torch.autograd.backward(list(live), list(live.values()))
