"""The spectrum of the Hessian of a student's training loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from gtnlib.support.errors import check_count


def lanczos(product: Callable[[Tensor], Tensor], v: Tensor, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a symmetric operator as v (P,) sees them, and the share of ‖v‖² at each.

    The Gauss quadrature of `steps` points that Lanczos' iteration gives (Golub and Meurant 2010, chapter
    4); the basis is orthogonalised again at every step. Fewer points where v has no more directions. Raises
    ValueError if v is zero or not finite.
    """
    check_count("steps", steps)
    if not 0 < float(v.norm()) < math.inf:
        raise ValueError(f"v has the norm {float(v.norm())}, but needs a direction to start from.")
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
