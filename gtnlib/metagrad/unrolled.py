"""Unrolled differentiation: the exact hypergradient, by reverse mode through the student's training.

Wang et al. (2018) and Such et al. (2020) differentiate a recorded graph of all T inner steps, whose
memory grows with T. With checkpoint=True only (w_t, m_t) is kept, and the adjoint of one step is
written by hand (Maclaurin et al. 2015, Algorithm 2, without its reversal of the dynamics).

One inner step, with training loss ℓ, rate η, momentum μ and weight decay β:

    m' = μ m + ∂ℓ(w; x)/∂w + β w        w' = w − η m'

Let λ be the derivative of the real loss with respect to w' and m', and a = λ_m' − η λ_w'. Then

    λ_w = λ_w' + (H + β) a    λ_m = μ a    λ_x = (∂²ℓ/∂x∂w) a    λ_η = −⟨λ_w', m'⟩    λ_μ = ⟨a, m⟩

so that a step back costs one product with second derivatives, `FlatStudent.second_order`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad_and_value

from gtnlib.data import Split
from gtnlib.errors import check_choice, check_count
from gtnlib.inner import StudentRun, inner_step, pull_back


class Unrolled:
    """Backpropagation through all inner steps.

    Parameters
    ----------
    checkpoint: recompute every step on the way back, so that memory grows only by the student's
        own parameters and momentum per step; False keeps the whole graph. The same gradient.
    loss_at: "every" averages the real loss over all inner steps (as the official GTN code does),
        "last" takes it after the last one only.
    real_batch_size: real images per evaluation of the real loss.
    """

    updates_per_student = 1

    def __init__(self, checkpoint: bool = True, loss_at: str = "every", real_batch_size: int = 256):
        self.checkpoint = checkpoint
        self.loss_at = check_choice("loss_at", loss_at, ("every", "last"))
        self.real_batch_size = check_count("real_batch_size", real_batch_size)

    def __call__(self, teacher, run: StudentRun, split: Split, generator: torch.Generator) -> Tensor:
        """Add the hypergradient to the .grad of the teacher's parameters; return the real loss (0-d).

        Trains `run` for teacher.steps inner steps on the way.
        """
        steps = range(teacher.steps)
        scored = steps if self.loss_at == "every" else steps[-1:]
        real = {t: split.sample(self.real_batch_size, generator) for t in scored}
        differentiate = self._recomputed if self.checkpoint else self._recorded
        return differentiate(teacher, run, real)

    def _recorded(self, teacher, run: StudentRun, real: dict) -> Tensor:
        """Plain autograd through the loop."""
        w, m, losses = run.w, run.m, []
        with torch.enable_grad():
            for t in range(teacher.steps):
                w, m = inner_step(
                    run.student, w, m, teacher.batch(t), *teacher.rates(t), teacher.weight_decay
                )
                if t in real:
                    losses.append(run.student.loss(w, *real[t]))
            loss = torch.stack(losses).mean()
            loss.backward()
        run.w, run.m, run.t = w.detach(), m.detach(), run.t + teacher.steps
        return loss.detach()

    def _recomputed(self, teacher, run: StudentRun, real: dict) -> Tensor:
        """Forward without a graph, keeping (w_t, m_t); then the adjoint, one step at a time."""
        student, decay = run.student, teacher.weight_decay
        trajectory = [(run.w, run.m)]
        with torch.no_grad():
            for t in range(teacher.steps):
                state = inner_step(student, *trajectory[-1], teacher.batch(t), *teacher.rates(t), decay)
                trajectory.append(state)

        adjoint_w, adjoint_m, losses = torch.zeros_like(run.w), torch.zeros_like(run.m), []
        for t in reversed(range(teacher.steps)):
            (w, m), (w_next, m_next) = trajectory[t], trajectory.pop()
            if t in real:
                gradient, loss = grad_and_value(student.loss)(w_next, *real[t])
                adjoint_w = adjoint_w + gradient / len(real)
                losses.append(loss)
            (x, y), (rate, momentum) = teacher.batch(t), teacher.rates(t)
            with torch.no_grad():
                a = adjoint_m - rate * adjoint_w
                hessian_a, mixed_a = student.second_order(w, x, y, a)
                pulled = {x: mixed_a, rate: -(adjoint_w @ m_next), momentum: a @ m}
                adjoint_w, adjoint_m = adjoint_w + hessian_a + decay * a, momentum * a
            pull_back(pulled)
        (run.w, run.m), run.t = state, run.t + teacher.steps
        return torch.stack(losses).mean()
