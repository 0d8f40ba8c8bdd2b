"""How far gradients agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor
from torch.nn.functional import cosine_similarity


def relative_difference(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / ‖b‖."""
    return float((a - b).norm() / b.norm())


def cosine(a: Tensor, b: Tensor) -> float:
    """⟨a, b⟩ / (‖a‖ ‖b‖), over all entries: 1 for one direction, 0 for nothing in common."""
    return float(cosine_similarity(a.flatten(), b.flatten(), dim=0))


def agreement(gradients: Mapping[str, Sequence[Tensor]]) -> np.ndarray:
    """Mean cosine of any two of different place, between and within groups of equal size; (G, G)."""
    groups = [[g.flatten() for g in group] for group in gradients.values()]
    return np.array([[np.mean([cosine(a, b) for i, a in enumerate(one) for j, b in enumerate(two) if i != j])
                      for two in groups] for one in groups])  # fmt: skip
