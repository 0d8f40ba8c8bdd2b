"""Approximate solutions q of H q = v, for a symmetric operator H that is known by its products alone.

Each solver takes H as a function of a vector (P,) and returns q (P,) with what it learned on the way,
as plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from gtnlib.inner.flat import Curvature, FlatStudent

Product = Callable[[Tensor], Tensor]
SMALLEST = 1e-30  # stands for zero below a fraction bar


class InnerHessian:
    """H = ∂²f/∂w² at w, of f = the mean of ℓ over batches (x, y), and β/2 ‖w‖², as an operator.

    parts: the `Curvature` of ℓ on every batch. `products` counts those taken with the Hessian of one batch.
    """

    def __init__(self, student: FlatStudent, w: Tensor, batches: Sequence[tuple[Tensor, Tensor]],
                 weight_decay: float = 0.0):  # fmt: skip
        self.parts = [student.curvature(w, *batch) for batch in batches]
        self.weight_decay, self.products = weight_decay, 0

    def of_batch(self, k: int) -> Product:
        """The product of batch k alone, as a function of a vector (P,)."""
        return partial(self._mean, self.parts[k : k + 1])

    def __call__(self, p: Tensor) -> Tensor:
        """H p (P,)."""
        return self._mean(self.parts, p)

    def _mean(self, parts: Sequence[Curvature], p: Tensor) -> Tensor:
        self.products += len(parts)
        return sum(part.hessian_product(p) for part in parts) / len(parts) + self.weight_decay * p

    def hypergradient(self, q: Tensor) -> Tensor:
        """−(∂²f/∂w∂x)ᵀ q for the images of all batches (N, C, H, W), with q in place of H⁻¹ ∂L/∂w."""
        return torch.cat([-part.mixed_products(q)[0] for part in self.parts]) / len(self.parts)


def neumann(hessian: Product, v: Tensor, terms: int, scale: float,
            drawn: Sequence[Product] | None = None) -> tuple[Tensor, dict]:  # fmt: skip
    """q = α Σ_{k=0…K} (1 − αH)^k v, with K = `terms` products and α = `scale`.

    Lorraine et al. (2020), Algorithm 3. Converges if 0 < α < 2/λ_max and H is positive definite. With
    `drawn`, K operators drawn independently whose mean is H, every term is multiplied by the next of them
    instead: a series with the same mean (LiSSA, Agarwal et al. 2017).

    Returns q, "scale" and "terms" (norms of the terms, relative to the first).
    """
    term = total = v
    norms = [term.norm()]
    for k in range(terms):
        term = term - scale * (drawn[k] if drawn else hessian)(term)
        total = total + term
        norms.append(term.norm())
    relative = torch.stack(norms) / norms[0].clamp(min=SMALLEST)
    return scale * total, {"scale": float(scale), "terms": relative.tolist()}


def residual(hessian: Product, q: Tensor, v: Tensor) -> float:
    """‖H q − v‖ / ‖v‖, for one product."""
    return float((hessian(q) - v).norm() / v.norm().clamp(min=SMALLEST))


def conjugate_gradients(hessian: Product, v: Tensor, products: int,
                        tolerance: float) -> tuple[Tensor, dict]:  # fmt: skip
    """q from the Krylov space of v that minimises q·Hq/2 − v·q, as far as H curves upwards.

    Hestenes and Stiefel (1952), stopped after so many products, where ‖H q − v‖ falls to `tolerance`
    times ‖v‖, or at a direction p without positive curvature p·Hp, where the last q stands (Dembo
    and Steihaug 1983). If the first direction, v, is such a one, q = v ‖v‖ / ‖Hv‖.

    Returns q and "products" used, "residual" ‖H q − v‖ / ‖v‖ by its recurrence, and "curvatures",
    p·Hp / ‖p‖² of every direction tried. Raises ValueError if H v vanishes.
    """
    q, r, p = torch.zeros_like(v), v, v
    curvatures: list[float] = []
    size = first = r @ r
    rounding = torch.finfo(v.dtype).eps
    # Written so that what is not a number goes on and is found, not taken for the solution.
    while len(curvatures) < products and not size <= tolerance**2 * first:
        image, length = hessian(p), p.norm()
        curvature, stretched = p @ image, check_not_zero(image.norm())
        curvatures.append(float(curvature / length**2))
        if curvature <= rounding * length * stretched:
            if len(curvatures) == 1:
                q = v * (length / stretched)
                size = (image * (length / stretched) - v).square().sum()
            break
        step = size / curvature
        q, r = q + step * p, r - step * image
        before, size = size, r @ r
        p = r + size / before * p
    residual = float((size / first.clamp(min=SMALLEST)).sqrt())
    return q, {"products": len(curvatures), "residual": residual, "curvatures": curvatures}


def largest_eigenvalue(hessian: Product, start: Tensor, iterations: int) -> Tensor:
    """Largest |eigenvalue| of a symmetric operator by power iteration, a lower bound (0-d)."""
    # A fixed start that overlaps every eigenvector in practice, so that results repeat.
    generator = torch.Generator(device=start.device).manual_seed(0)
    p = torch.randn(start.shape, generator=generator, device=start.device, dtype=start.dtype)
    p = p / p.norm()
    sizes = []  # looked at in the end, or a GPU would be waited for after every product
    for _ in range(iterations):
        product = hessian(p)
        sizes.append(product.norm())
        p = product / sizes[-1]
    check_not_zero(torch.stack(sizes).nan_to_num(torch.inf).min())
    return sizes[-1]


def check_not_zero(size: Tensor) -> Tensor:
    """Return the norm of a product with the Hessian, unless it is 0."""
    if size == 0:
        raise ValueError(
            "the Hessian of the training loss vanishes, so it has no inverse. Add weight decay "
            "to the teacher or damping to Implicit."
        )
    return size
