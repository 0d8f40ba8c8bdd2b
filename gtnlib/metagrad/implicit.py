"""Implicit differentiation: the hypergradient at the end of training, without looking back.

If w minimises the training loss f(w, φ) = ℓ(w; x(φ)) + β/2 ‖w‖², the implicit function theorem gives
(Lorraine et al. 2020, equation 3), with L the real loss and H = ∂²f/∂w²

    dL/dφ = −(∂L/∂w) H⁻¹ ∂²f/∂w∂φ,    H⁻¹ ≈ α Σ_{k=0…K} (1 − αH)^k    (their Algorithm 3)

a Neumann series, which converges if 0 < α < 2/λ_max and every eigenvalue of H is positive. Conjugate
gradients solve H q = ∂L/∂w in fewer products with H, and stop where its curvature is negative, as it
is before the minimum. The graph of ∂f/∂w is built once per outer step, at w, and kept for all products;
a compiled student keeps none and runs the gradient anew in each. Memory grows with the batches in f, if
at all, not with the number of inner steps. Rates and momenta do not enter f, so they get no gradient;
nor is the result exact for a student that is not at a minimum.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gtnlib.data.sets import Split
from gtnlib.inner.step import StudentRun, loss_gradient, pull_back, train_student
from gtnlib.metagrad.base import MetaGradient
from gtnlib.metagrad.solvers import InnerHessian, conjugate_gradients, largest_eigenvalue, neumann, residual
from gtnlib.support.errors import DivergenceWarning, check_choice, check_count, check_number

SOLVERS = ("cg", "neumann", "stochastic-neumann")

# What only one kind of solver takes, and what it is where nothing is given.
PRODUCTS, TOLERANCE = 8, 1e-3
SERIES: Mapping[str, Any] = {
    "neumann_terms": 10,
    "scale": "auto",
    "power_iterations": 8,
    "estimate_every": 1,
    "residual": False,
}
GROWN = 1e6  # a series whose last term is so many times its first has nothing to do with the inverse
CURE = ("Use scale='auto' or a smaller one, more damping or weight decay, or train the student closer to a "
        "minimum.")  # fmt: skip


class Implicit(MetaGradient):
    """The implicit function theorem, its inverse Hessian by a truncated iteration.

    Parameters
    ----------
    solver: "cg" for truncated conjugate gradients (`solvers.conjugate_gradients`); "neumann" for a
        series; "stochastic-neumann" for one whose every term is multiplied by the Hessian of one batch
        of f, drawn at random.
    damping: δ added to the Hessian's diagonal, to invert H + δ.
    batches: how many of the teacher's distinct batches make up f, at most, drawn anew each time;
        None takes all of them, at a cost that grows with their number.
    updates_per_student: outer steps before a student is started afresh; above 1 it is trained
        on from where it stands (warm start) for another teacher.steps inner steps each time.
    real_batch_size: real images for ∂L/∂w.
    products: of "cg", with the Hessian of all batches in f, at most.
    tolerance: of "cg", the relative residual to stop at.
    neumann_terms: of a series, K, terms after the first; 0 puts α times the identity for the inverse. 10
        by default.
    scale: of a series, α; "auto", the default, takes 1/λ_max, where λ_max is an estimate of the
        largest absolute eigenvalue by power iteration.
    power_iterations: of a series, for the estimate of λ_max; 8 by default. estimate_every: outer steps
        between two estimates, 1 by default; in between the last one is handed on, from each student to the
        one that takes its place.
    residual: of a series, measure it too, for one product more with all batches; "cg" has it anyway.

    Raises ValueError for an argument that does nothing with the solver.

    Attributes
    ----------
    diagnostics: of the last call: "inner_gradient" ‖∂f/∂w‖, "residual" ‖(H + δ) q − v‖ / ‖v‖ of the
        solution if known; of a series also "scale" and "terms" (norms of its terms, relative to the
        first), of "cg" "products" and "curvatures" (p·(H + δ) p / ‖p‖² of every direction).
    """

    def __init__(self, solver: str = "cg", damping: float = 0.0, batches: int | None = 4,
                 updates_per_student: int = 1, real_batch_size: int = 256, products: int = PRODUCTS,
                 tolerance: float = TOLERANCE, neumann_terms: int | None = None,
                 scale: float | str | None = None, power_iterations: int | None = None,
                 estimate_every: int | None = None, residual: bool | None = None):  # fmt: skip
        self.solver = check_choice("solver", solver, SOLVERS)
        asked = {"neumann_terms": neumann_terms, "scale": scale, "power_iterations": power_iterations,
                 "estimate_every": estimate_every, "residual": residual}  # fmt: skip
        series = {name: SERIES[name] if value is None else value for name, value in asked.items()}
        self.neumann_terms = check_count("neumann_terms", series["neumann_terms"], 0)
        if series["scale"] != "auto" and check_number("scale", series["scale"], 0) == 0:
            raise ValueError("scale is 0, but must be positive or 'auto'.")
        self.scale = series["scale"]
        self.damping = check_number("damping", damping, 0)
        self.batches = None if batches is None else check_count("batches", batches)
        self.power_iterations = check_count("power_iterations", series["power_iterations"])
        self.updates_per_student = check_count("updates_per_student", updates_per_student)
        self.real_batch_size = check_count("real_batch_size", real_batch_size)
        self.products = check_count("products", products)
        self.tolerance = check_number("tolerance", tolerance, 0)
        self.estimate_every = check_count("estimate_every", series["estimate_every"])
        self.residual = series["residual"]
        self.diagnostics: dict = {}
        if solver == "cg":
            idle = [name for name, value in asked.items() if value is not None]
        else:
            idle = ["products"] * (products != PRODUCTS) + ["tolerance"] * (tolerance != TOLERANCE)
        for name in idle:
            others = "'neumann' or 'stochastic-neumann'" if solver == "cg" else "'cg'"
            raise ValueError(f"{name} does nothing with solver={solver!r}: leave it out, or take "
                             f"solver={others}.")  # fmt: skip

    def draw(self, teacher, t: int, split: Split, generator: torch.Generator) -> tuple:
        """All that is random in a call: the steps whose batches make up f, the real batch, and the
        place in f of the batch of every term of a stochastic series.
        """
        steps, distinct = list(range(teacher.batches)), teacher.batches
        if self.batches is not None and self.batches < distinct:
            order = torch.randperm(distinct, generator=generator, device=generator.device)
            steps = order[: self.batches].tolist()
        real = split.draw(self.real_batch_size, generator)
        if self.solver != "stochastic-neumann":
            return steps, real, None
        size = (self.neumann_terms,)
        places = torch.randint(len(steps), size, generator=generator, device=generator.device)
        return steps, real, places.tolist()

    def differentiate(self, teacher, run: StudentRun, split: Split, drawn: tuple) -> Tensor:
        """Add the hypergradient to the .grad of the teacher's parameters; return the real loss (0-d).

        Trains `run` for teacher.steps inner steps first.
        """
        train_student(teacher, run, teacher.steps)
        student, w = run.student, run.w
        steps, real, places = drawn
        batches = [teacher.batch(t) for t in steps]
        with torch.no_grad():
            v, loss = student.compute(loss_gradient, (w, *split.at(real)))
            hessian = InnerHessian(student, w, batches, teacher.weight_decay + self.damping)
            q = self._solve(hessian, v, places, run.memory)
            inner = sum(part.gradient for part in hessian.parts) / len(batches) + teacher.weight_decay * w
            self.diagnostics["inner_gradient"] = float(inner.norm())
            adjoints = [[-mixed / len(batches) for mixed in part.mixed_products(q)] for part in hessian.parts]
        total: dict[Tensor, Tensor] = {}
        for batch, found in zip(batches, adjoints):
            for part, a in zip(batch, found):
                total[part] = total[part] + a if part in total else a  # batches may be the same tensor
        pull_back(total)
        return loss

    @property
    def remembers(self) -> bool:  # type: ignore[override]
        return self.solver != "cg" and self.scale == "auto" and self.estimate_every > 1

    def trouble(self) -> str | None:
        grown = self.diagnostics.get("terms", [0])[-1]
        if grown <= GROWN:
            return None
        return f"the Neumann series grew to {grown:.3g} times its first term. {CURE}"

    def _solve(self, hessian: InnerHessian, v: Tensor, places: list | None, memory: dict) -> Tensor:
        """q ≈ (H + δ)⁻¹ v, with `hessian` for H + δ; notes diagnostics."""
        if self.solver == "cg":
            q, self.diagnostics = conjugate_gradients(hessian, v, self.products, self.tolerance)
            return q
        drawn = [hessian.of_batch(k) for k in places or ()]
        q, self.diagnostics = neumann(hessian, v, self.neumann_terms, self._scale(hessian, v, memory), drawn)
        if self.residual:
            self.diagnostics["residual"] = residual(hessian, q, v)
        last, scale = self.diagnostics["terms"][-1], self.diagnostics["scale"]
        if v.isfinite().all() and not last <= 1:
            memory.clear()  # λ_max was too small
            warnings.warn(
                f"the Neumann series diverges: its term {self.neumann_terms} is {last:.3g} "
                f"times the first, at scale {scale:.3g}. {CURE}",
                DivergenceWarning,
                stacklevel=4,
            )
        return q

    def _scale(self, hessian, v: Tensor, memory: dict) -> float:
        """α; 1/λ_max by the estimate in `memory`, if it is not too old."""
        if not isinstance(self.scale, str):
            return self.scale
        if memory.get("age", self.estimate_every) >= self.estimate_every:
            largest = largest_eigenvalue(hessian, v, self.power_iterations)
            memory.update(largest=float(largest), age=0)
        memory["age"] += 1
        return 1 / memory["largest"]
