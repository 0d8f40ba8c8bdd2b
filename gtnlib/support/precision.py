"""The arithmetic of a student's training: exact to float32, or faster and coarser.

What is set for it is set for the whole process, since torch has it so. Only what must change is
touched; several at once in threads share it; the last one out puts back what was there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gtnlib.support.errors import check_choice

PRECISIONS = ("float32", "tf32", "bfloat16")
NEW = hasattr(torch.backends, "fp32_precision")  # torch's settings for each operation, since 2.9


class _Shared:
    """A change of global settings that threads share: made by the first, undone by the last one."""

    def __init__(self) -> None:
        self.lock, self.inside, self.what = threading.Lock(), 0, None
        self.undo: Callable[[], None] = lambda: None

    @contextmanager
    def __call__(self, what: Any, change: Callable[[], Callable[[], None]]) -> Iterator[None]:
        with self.lock:
            if self.inside and what != self.what:
                raise RuntimeError(
                    f"another thread trains with precision {self.what!r}, which holds for the whole process, "
                    f"so this one cannot with {what!r}. Run one after the other, or in processes."
                )
            if not self.inside:
                self.what, self.undo = what, change()
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    self.undo()


_cores, _attention = _Shared(), _Shared()


@contextmanager
def tensor_cores(precision: str, device: torch.device) -> Iterator[None]:
    """Let a GPU multiply float32 matrices and convolve in TF32 (10 bits of mantissa), or forbid it.

    PyTorch's own default allows it for convolutions only. On a CPU, "float32" forbids coarser products,
    which PyTorch makes only if asked to. Restored at the end.
    """
    check_choice("precision", precision, PRECISIONS)
    if device.type == "cpu" and precision != "float32":
        yield
        return
    wanted = "ieee" if precision == "float32" else "tf32"
    with _cores((precision, device.type), lambda: _set(wanted, device.type)):
        yield


def _set(wanted: str, device: str) -> Callable[[], None]:
    """Change what is not as wanted; returns what puts it back."""
    if not NEW:
        return _set_old(wanted == "tf32")
    backends: Any = torch.backends
    cuda = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    places = cuda if device == "cuda" else (backends.mkldnn.matmul, backends.mkldnn.conv)
    fine = ("ieee", "none") if wanted == "ieee" else (wanted,)
    before = [(place, place.fp32_precision) for place in places if place.fp32_precision not in fine]
    for place, _ in before:
        place.fp32_precision = wanted

    def undo() -> None:
        for place, old in before:
            place.fp32_precision = "none"  # so it is again, if it came from a more general setting
            if place.fp32_precision != old:
                place.fp32_precision = old

    return undo


def _set_old(allowed: bool) -> Callable[[], None]:
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    if convolutions != allowed:
        torch.backends.cudnn.allow_tf32 = allowed
    if (products == "highest") == allowed:
        torch.set_float32_matmul_precision("high" if allowed else "highest")

    def undo() -> None:
        if torch.backends.cudnn.allow_tf32 != convolutions:
            torch.backends.cudnn.allow_tf32 = convolutions
        if torch.get_float32_matmul_precision() != products:
            torch.set_float32_matmul_precision(products)

    return undo


def settings() -> tuple[str, ...]:
    """The global settings that a compiled kernel depends on."""
    if NEW:
        b: Any = torch.backends
        places = (b.cuda.matmul, b.cudnn.conv, b.mkldnn.matmul, b.mkldnn.conv)
        return tuple(place.fp32_precision for place in places)
    return str(torch.backends.cudnn.allow_tf32), torch.get_float32_matmul_precision()


@contextmanager
def math_attention() -> Iterator[None]:
    """Let attention run as plain products and a softmax: its fused kernels have no second derivative."""

    def change() -> Callable[[], None]:
        stack = ExitStack()
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        return stack.close

    with _attention("attention", change):
        yield


def autocast_dtype(precision: str) -> torch.dtype | None:
    """The type in which a `FlatStudent` multiplies and convolves, if not that of its parameters."""
    return torch.bfloat16 if precision == "bfloat16" else None
