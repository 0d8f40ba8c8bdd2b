"""The Hessian of a student's training loss: its products, its spectrum, the hypergradient by any inverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from gtnlib.inner.flat import FlatStudent


class InnerHessian:
    """H = ∂²f/∂w² at w, of f = the mean of ℓ over batches (x, y), and β/2 ‖w‖².

    `products` counts those taken with the Hessian of one batch.
    """

    def __init__(self, student: FlatStudent, w: Tensor, batches: Sequence[tuple[Tensor, Tensor]],
                 weight_decay: float = 0.0):  # fmt: skip
        self.w, self.weight_decay, self.products = w.detach(), weight_decay, 0
        self.parts = [student.curvature(self.w, *batch) for batch in batches]

    def of_batch(self, k: int) -> Callable[[Tensor], Tensor]:
        """The product of batch k alone, as a function of a vector (P,)."""

        def product(p: Tensor) -> Tensor:
            self.products += 1
            return self.parts[k].hessian_product(p) + self.weight_decay * p

        return product

    def __call__(self, p: Tensor) -> Tensor:
        """H p (P,)."""
        return torch.stack([self.of_batch(k)(p) for k in range(len(self.parts))]).mean(0)

    def hypergradient(self, q: Tensor) -> Tensor:
        """−(∂²f/∂w∂x)ᵀ q for the images of all batches (N, C, H, W), with q in place of H⁻¹ ∂L/∂w."""
        return torch.cat([-part.mixed_products(q)[0] for part in self.parts]) / len(self.parts)


def lanczos(product: Callable[[Tensor], Tensor], v: Tensor, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a symmetric operator as v (P,) sees them, and the share of ‖v‖² at each.

    The Gauss quadrature of `steps` points that Lanczos' iteration gives (Golub and Meurant 2010, chapter
    4); the basis is orthogonalised again at every step. Fewer points where v has no more directions.
    """
    basis, diagonal, beside = [v / v.norm()], [], []
    for _ in range(steps):
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        for _ in range(2):
            image = image - sum((image @ q) * q for q in basis)
        size = float(image.norm())
        if size <= 1e-5 * max(map(abs, diagonal)):
            break
        beside.append(size)
        basis.append(image / size)
    values, vectors = eigh_tridiagonal(diagonal, beside[: len(diagonal) - 1])
    return values, vectors[0] ** 2
