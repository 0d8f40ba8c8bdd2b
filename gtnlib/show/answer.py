"""Exercises to be filled in: whether an answer is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def check(answer: Callable, *arguments, expected: float | np.ndarray | Tensor,
          tolerance: float = 1e-4) -> bool:  # fmt: skip
    """Print whether answer(*arguments) is `expected`, up to a relative `tolerance`; return it.

    An answer that returns `...` still has its gap.
    """
    found = answer(*arguments)
    if found is None or found is ...:
        print(f"{answer.__name__}: there is still a gap.")
        return False
    a, b = (torch.as_tensor(value, dtype=torch.float64, device="cpu").detach() for value in (found, expected))
    if a.shape != b.shape:
        print(f"{answer.__name__}: not yet. It has shape {tuple(a.shape)}, not {tuple(b.shape)}.")
        return False
    difference = float((a - b).norm() / b.norm().clamp(min=1e-30))
    right = difference <= tolerance
    print(f"{answer.__name__}: {'right' if right else 'not yet'} (relative difference {difference:.0e}).")
    return right
