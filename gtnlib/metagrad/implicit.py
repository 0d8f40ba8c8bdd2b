"""Implicit differentiation: the hypergradient at the end of training, without looking back.

If w minimises the training loss f(w, φ) = ℓ(w; x(φ)) + β/2 ‖w‖², the implicit function theorem gives
(Lorraine et al. 2020, equation 3), with L the real loss and H = ∂²f/∂w²

    dL/dφ = −(∂L/∂w) H⁻¹ ∂²f/∂w∂φ,    H⁻¹ ≈ α Σ_{k=0…K} (1 − αH)^k    (their Algorithm 3)

a Neumann series, which converges if 0 < α < 2/λ_max and every eigenvalue of H is positive. Memory
does not depend on the number of inner steps. Rates and momenta do not enter f, so they get no
gradient; nor is the result exact for a student that is not at a minimum.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from gtnlib.data.sets import Split
from gtnlib.inner.step import StudentRun, loss_gradient, pull_back, train_student
from gtnlib.metagrad.base import MetaGradient
from gtnlib.support.errors import DivergenceWarning, check_count, check_number

GROWN = 1e6  # a series whose last term is so many times its first has nothing to do with the inverse
CURE = ("Use scale='auto' or a smaller one, more damping or weight decay, or train the student closer to a "
        "minimum.")  # fmt: skip


class Implicit(MetaGradient):
    """The implicit function theorem, its inverse Hessian by a Neumann series.

    Parameters
    ----------
    neumann_terms: K, terms after the first; 0 puts α times the identity for the inverse.
    scale: α; "auto" takes 1/λ_max, the largest eigenvalue estimated by power iteration.
    damping: δ added to the Hessian's diagonal, to invert H + δ.
    batches: how many of the teacher's distinct batches make up f, at most, drawn anew each time;
        None takes all of them, at a cost that grows with their number.
    power_iterations: for the estimate of λ_max.
    updates_per_student: outer steps before a student is started afresh; above 1 it is trained
        on from where it stands (warm start) for another teacher.steps inner steps each time.
    real_batch_size: real images for ∂L/∂w.

    Attributes
    ----------
    diagnostics: of the last call: "scale", "terms" (norms of the terms of the series, relative to
        the first), "residual" ‖(H + δ) q − v‖ / ‖v‖ of the solution, "inner_gradient" ‖∂f/∂w‖.
    """

    def __init__(self, neumann_terms: int = 10, scale: float | str = "auto", damping: float = 0.0,
                 batches: int | None = 4, power_iterations: int = 8,
                 updates_per_student: int = 1, real_batch_size: int = 256):  # fmt: skip
        self.neumann_terms = check_count("neumann_terms", neumann_terms, 0)
        if scale != "auto" and check_number("scale", scale, 0) == 0:
            raise ValueError("scale is 0, but must be positive or 'auto'.")
        self.scale = scale
        self.damping = check_number("damping", damping, 0)
        self.batches = None if batches is None else check_count("batches", batches)
        self.power_iterations = check_count("power_iterations", power_iterations)
        self.updates_per_student = check_count("updates_per_student", updates_per_student)
        self.real_batch_size = check_count("real_batch_size", real_batch_size)
        self.diagnostics: dict = {}

    def draw(self, teacher, t: int, split: Split, generator: torch.Generator) -> tuple:
        """All that is random in a call: the steps whose batches make up f, and the real batch."""
        return self._draw(teacher, generator), split.draw(self.real_batch_size, generator)

    def differentiate(self, teacher, run: StudentRun, split: Split, drawn: tuple) -> Tensor:
        """Add the hypergradient to the .grad of the teacher's parameters; return the real loss (0-d).

        Trains `run` for teacher.steps inner steps first.
        """
        train_student(teacher, run, teacher.steps)
        student, w = run.student, run.w
        steps, real = drawn
        with torch.no_grad():
            batches = [teacher.batch(t) for t in steps]
            v, loss = student.compute(loss_gradient, (w, *split.at(real)))
            shift = teacher.weight_decay + self.damping

            def hessian(p: Tensor) -> Tensor:
                products = (student.compute(hessian_product, (w, p), batch) for batch in batches)
                return sum(products) / len(batches) + shift * p

            inner = sum(student.compute(loss_gradient, (w, *batch))[0] for batch in batches)
            inner = inner / len(batches)
            q = self._solve(hessian, v)
            self.diagnostics["inner_gradient"] = float((inner + teacher.weight_decay * w).norm())

        for t in steps:
            x, y = teacher.batch(t)
            with torch.no_grad():
                mixed = student.compute(mixed_product, (w, q), (x, y))
            pull_back({x: -mixed / len(steps)})
        return loss

    def trouble(self) -> str | None:
        grown = self.diagnostics.get("terms", [0])[-1]
        if grown <= GROWN:
            return None
        return f"the Neumann series grew to {grown:.3g} times its first term. {CURE}"

    def _draw(self, teacher, generator: torch.Generator) -> list[int]:
        """Steps whose batches make up the inner loss f."""
        distinct = teacher.batches
        if self.batches is None or self.batches >= distinct:
            return list(range(distinct))
        order = torch.randperm(distinct, generator=generator, device=generator.device)
        return order[: self.batches].tolist()

    def _solve(self, hessian, v: Tensor) -> Tensor:
        """q ≈ (H + δ)⁻¹ v by the Neumann series."""
        scale: Tensor | float
        if isinstance(self.scale, str):
            scale = 1 / largest_eigenvalue(hessian, v, self.power_iterations)
        else:
            scale = self.scale
        term = total = v
        norms = [term.norm()]
        for _ in range(self.neumann_terms):
            term = term - scale * hessian(term)
            total = total + term
            norms.append(term.norm())
        q = scale * total
        terms = (torch.stack(norms) / norms[0].clamp(min=1e-30)).tolist()
        # H q = v − (1 − αH)^(K+1) v, so the residual is the norm of the term after the last.
        residual = (term - scale * hessian(term)).norm() / norms[0].clamp(min=1e-30)
        self.diagnostics = {"scale": float(scale), "terms": terms, "residual": float(residual)}
        if norms[0].isfinite() and not terms[-1] <= 1:
            warnings.warn(
                f"the Neumann series diverges: its term {self.neumann_terms} is {terms[-1]:.3g} "
                f"times the first, at scale {float(scale):.3g}. {CURE}",
                DivergenceWarning,
                stacklevel=4,
            )
        return q


def hessian_product(student, w, p, x, y) -> Tensor:
    """(∂²ℓ/∂w²) p, of shape (P,)."""
    return student.hessian_product(w, x, y, p)


def mixed_product(student, w, q, x, y) -> Tensor:
    """(∂²ℓ/∂x∂w) q, of the shape of x."""
    return student.second_order(w, x, y, q)[1]


def largest_eigenvalue(hessian, start: Tensor, iterations: int) -> Tensor:
    """Largest |eigenvalue| of a symmetric operator by power iteration, a lower bound (0-d)."""
    # A fixed start that overlaps every eigenvector in practice, so that results repeat.
    generator = torch.Generator(device=start.device).manual_seed(0)
    p = torch.randn(start.shape, generator=generator, device=start.device, dtype=start.dtype)
    p = p / p.norm()
    for _ in range(iterations):
        product = hessian(p)
        size = product.norm()
        if size == 0:
            raise ValueError(
                "the Hessian of the training loss vanishes, so it has no inverse. Add weight decay "
                "to the teacher or damping to Implicit."
            )
        p = product / size
    return size
