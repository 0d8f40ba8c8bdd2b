"""The arithmetic of a student's training: exact to float32, or faster and coarser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gtnlib.support.errors import check_choice

PRECISIONS = ("float32", "tf32", "bfloat16")


@contextmanager
def tensor_cores(precision: str) -> Iterator[None]:
    """Let a GPU multiply float32 matrices and convolve in TF32 (10 bits of mantissa), or forbid it.

    PyTorch's own default allows it for convolutions only. Restored at the end; no effect on a CPU.
    """
    allowed = check_choice("precision", precision, PRECISIONS) != "float32"
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = allowed
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


def autocast_dtype(precision: str) -> torch.dtype | None:
    """The type in which a `FlatStudent` multiplies and convolves, if not that of its parameters."""
    return torch.bfloat16 if precision == "bfloat16" else None
