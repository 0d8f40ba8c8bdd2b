"""Unrolled differentiation: the exact hypergradient, by reverse mode through the student's training.

Wang et al. (2018) and Such et al. (2020) differentiate a recorded graph of all T inner steps, whose
memory grows with T. With checkpoint=True only (w_t, m_t) is kept, and the adjoint of one step is
written by hand (Maclaurin et al. 2015, Algorithm 2, without its reversal of the dynamics).

One inner step, with training loss ℓ, rate η, momentum μ and weight decay β:

    m' = μ m + ∂ℓ(w; x)/∂w + β w        w' = w − η m'

Let λ be the derivative of the real loss with respect to w' and m', and a = λ_m' − η λ_w'. Then

    λ_w = λ_w' + (H + β) a    λ_m = μ a    λ_x = (∂²ℓ/∂x∂w) a    λ_η = −⟨λ_w', m'⟩    λ_μ = ⟨a, m⟩

and, if labels are probabilities y, λ_y = (∂²ℓ/∂y∂w) a

so that a step back costs one product with second derivatives, `FlatStudent.second_order`. Both the
step and the step back are pure functions of tensors, the same for every t: a `CompiledStudent`
compiles each once, and a `StackedStudent` runs them for several students at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gtnlib.data.sets import Split
from gtnlib.inner.step import StudentRun, inner_step, loss, loss_gradient, pull_back
from gtnlib.metagrad.base import MetaGradient
from gtnlib.support.errors import check_choice, check_count


class Unrolled(MetaGradient):
    """Backpropagation through all inner steps.

    Parameters
    ----------
    checkpoint: True recomputes every step on the way back, so that memory grows only by the
        student's own parameters and momentum per step; False keeps the whole graph; a number k
        keeps the state of every k-th step and the graph of one block of k steps at a time (Chen et
        al. 2016). The same gradient.
    loss_at: "every" averages the real loss over all inner steps (as the official GTN code does),
        "last" takes it after the last one only.
    real_batch_size: real images per evaluation of the real loss.
    window: M, to go through a random window of M steps only, drawn for every student: the steps before
        it are taken without a graph, the real loss is that within it, and its end is the end of the
        lesson (RaT-BPTT, Feng et al. 2023). None for all T steps.
    loss_steps: of "every", the mean over this many steps only, drawn anew each time; over the draws it
        has the same mean.
    """

    def __init__(self, checkpoint: bool | int = True, loss_at: str = "every", real_batch_size: int = 256,
                 window: int | None = None, loss_steps: int | None = None):  # fmt: skip
        whole = isinstance(checkpoint, bool)
        self.checkpoint = checkpoint if whole else check_count("checkpoint", checkpoint)
        self.loss_at = check_choice("loss_at", loss_at, ("every", "last"))
        self.real_batch_size = check_count("real_batch_size", real_batch_size)
        self.window = None if window is None else check_count("window", window)
        if loss_steps is not None and loss_at == "last":
            raise ValueError(f"loss_steps is {loss_steps}, but loss_at is 'last': use loss_at='every'.")
        self.loss_steps = None if loss_steps is None else check_count("loss_steps", loss_steps)
        self.stacks = window is loss_steps is None  # students side by side share their steps

    def check_length(self, steps: int) -> None:
        if self.window is not None and self.window > steps:
            raise ValueError(f"window is {self.window}, but a lesson can have {steps} steps only.")

    def draw(self, teacher, t: int, split: Split, generator: torch.Generator) -> list:
        """All that is random in a call: of every step that may be scored, up to the last one, the real
        batch as (indices, labels), or None if it is not scored; before them, if there is a window, the
        step where it begins.
        """
        self.check_length(teacher.steps)
        steps = self.window or teacher.steps
        first = [] if self.window is None else [
            int(torch.randint(teacher.steps - steps + 1, (), generator=generator, device=generator.device))
        ]  # fmt: skip
        last = steps if self.loss_at == "every" else 1
        scored = [*range(last)]
        if self.loss_steps is not None:
            order = torch.randperm(last, generator=generator, device=generator.device)
            scored = order[: self.loss_steps].tolist()
        return first + [split.draw(self.real_batch_size, generator) if k in scored else None
                        for k in range(last)]  # fmt: skip

    def differentiate(self, teacher, run: StudentRun, split: Split, drawn: list) -> Tensor:
        """Add the hypergradient to the .grad of the teacher's parameters; return the real loss (0-d).

        Trains `run` for teacher.steps inner steps on the way, or to the end of the window. Gradient and
        loss are sums over the students of `run`.
        """
        steps = range(teacher.steps)
        if self.window is not None:
            start, *drawn = drawn
            steps = range(start, start + self.window)
            with torch.no_grad():
                batch_at = teacher.reader()
                for t in range(start):
                    run.w, run.m = _step(run.student, teacher, run.w, run.m, t, batch_at(t))
        real = {t: batch for t, batch in zip(reversed(steps), reversed(drawn)) if batch is not None}
        run.t += steps.stop
        if self.checkpoint is True:
            return self._recomputed(teacher, run, split, real, steps)
        return self._recorded(teacher, run, split, real, steps)

    def _recorded(self, teacher, run: StudentRun, split: Split, real: dict, steps: range) -> Tensor:
        """Plain autograd, one block of steps after the other, from the last to the first."""
        block = self.checkpoint or len(steps)
        student, starts = run.student, steps[::block]
        states, state = [], (run.w, run.m)
        with torch.no_grad():
            batch_at = teacher.reader()
            for t in range(steps.start, starts[-1] + 1):
                if t in starts:
                    states.append(state)
                if t < starts[-1]:
                    state = _step(student, teacher, *state, t, batch_at(t))

        adjoints: list = []
        losses: list[Tensor] = []
        for start in reversed(starts):
            leaves = [s.detach().requires_grad_() for s in states.pop()]
            (w, m), objective = leaves, run.w.new_zeros(())
            with torch.enable_grad():
                batch_at = teacher.reader()
                for t in range(start, min(start + block, steps.stop)):
                    w, m = _step(student, teacher, w, m, t, batch_at(t))
                    if t in real:
                        losses.append(student.total(student.compute(loss, (w, *split.at(real[t])))))
                        objective = objective + losses[-1] / len(real)
                for s, adjoint in zip((w, m), adjoints):
                    objective = objective + (s * adjoint).sum()
                if objective.requires_grad:  # or nothing is scored in this block or after it
                    objective.backward()
                    adjoints = [leaf.grad for leaf in leaves]
            losses = [value.detach() for value in losses]
            if start == starts[-1]:
                run.w, run.m = w.detach(), m.detach()
        return torch.stack(losses).mean()

    def _recomputed(self, teacher, run: StudentRun, split: Split, real: dict, steps: range) -> Tensor:
        """Forward without a graph, keeping (w_t, m_t); then the adjoint, one step at a time."""
        student, decay = run.student, teacher.weight_decay
        # One block for all, since small ones among the passing large ones would break up the memory.
        ws, ms = (s.new_empty(len(steps) + 1, *s.shape) for s in (run.w, run.m))
        ws[0], ms[0] = run.w, run.m
        with torch.no_grad():
            batch_at = teacher.reader()
            for k, t in enumerate(steps):
                ws[k + 1], ms[k + 1] = _step(student, teacher, ws[k], ms[k], t, batch_at(t))
        run.w, run.m = ws[-1].clone(), ms[-1].clone()

        adjoint_w, adjoint_m, losses = torch.zeros_like(run.w), torch.zeros_like(run.m), []
        pending: dict[int, list[Tensor]] = {}  # of batches: adjoints of images and, if soft, labels
        scored = [(k, t) for k, t in enumerate(steps) if t <= max(real)]  # nothing comes back from later
        for k, t in reversed(scored):
            # A batch that comes back is pulled back once, where all its adjoints are in.
            first = k < teacher.batches
            (x, y), (rate, momentum) = teacher.batch(t) if first else batch_at(t), teacher.rates(t)
            with torch.no_grad():
                if t in real:
                    gradient, value = student.compute(loss_gradient, (ws[k + 1], *split.at(real[t])))
                    adjoint_w = adjoint_w + gradient / len(real)
                    losses.append(student.total(value))
                adjoint_w, adjoint_m, *rest = student.compute(
                    step_back,
                    (ws[k], ms[k], ms[k + 1], adjoint_w, adjoint_m),
                    (x, y, rate, momentum, decay),
                )
            adjoint_rate, adjoint_momentum, *pulled = map(student.total, rest)
            b = t % teacher.batches
            pending[b] = [p + q for p, q in zip(pending[b], pulled)] if b in pending else pulled
            pull_back({rate: adjoint_rate, momentum: adjoint_momentum})
            if first:
                pull_back(dict(zip((x, y), pending.pop(b))))
        return torch.stack(losses).mean()


def _step(student, teacher, w: Tensor, m: Tensor, t: int, batch) -> tuple[Tensor, Tensor]:
    rate, momentum = teacher.rates(t)
    return inner_step(student, w, m, batch, rate, momentum, teacher.weight_decay)


def step_back(student, w, m, m_next, adjoint_w, adjoint_m, x, y, rate, momentum, decay):
    """The adjoint of one step: λ_w, λ_m (P,), λ_η, λ_μ (0-d), λ_x and, for soft labels, λ_y."""
    a = adjoint_m - rate * adjoint_w
    hessian_a, *mixed = student.second_order(w, x, y, a)
    rates = -(adjoint_w @ m_next), a @ m
    return adjoint_w + hessian_a + decay * a, momentum * a, *rates, *mixed
