"""Errors and the small checks that give every bad argument one clear message."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any


class DataError(RuntimeError):
    """A data file is missing, unreachable, truncated or not what it should be."""


class DivergenceError(RuntimeError):
    """Training produced a value that is not finite, or a series that grows without bound.

    Attributes
    ----------
    history:
        What had been recorded up to the last good outer step (or None).
    """

    def __init__(self, message: str, history=None):
        super().__init__(message)
        self.history = history


class DivergenceWarning(RuntimeWarning):
    """An iteration is not converging, or students diverged, so the result should not be trusted."""


def check_choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`, else raise ValueError with the nearest name."""
    allowed = list(allowed)
    if value in allowed:
        return value
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}.{hint}")


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` if it is a whole number of at least `minimum`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{name} is {value}, but must be at least {minimum}.")
    return int(value)


def check_number(name: str, value: Any, minimum: float, below: float = float("inf")) -> float:
    """Return `value` if it is a number with `minimum` <= value < `below`."""
    known = isinstance(value, Real) and not isinstance(value, bool)
    if not known:
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not minimum <= value < below:
        upper = "" if below == float("inf") else f" and below {below:g}"
        raise ValueError(f"{name} is {value}, but must be at least {minimum:g}{upper}.")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Return `value` if it is a number > 0."""
    if check_number(name, value, 0) == 0:
        raise ValueError(f"{name} is 0, but must be positive.")
    return float(value)


def check_seed(value: int) -> int:
    """Return `value` if it can seed a torch generator."""
    if check_count("seed", value, 0) >= 2**63:
        raise ValueError(f"seed is {value}, but must be below 2**63.")
    return int(value)


def check_kind(name: str, value, kind: type, hint: str = ""):
    """Return `value` if it is an instance of `kind`."""
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name} must be a {kind.__name__}, got {given}.{hint}")
    return value


def check_path(name: str, value) -> Path:
    """Return `value` as a path, with ~ for the home folder, if it names a file or folder."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{name} must be a path, got {value!r}.")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name} is {str(value)!r}, but {str(error).lower()}") from error


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return `shape` as (channels, height, width)."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(f"shape must be (channels, height, width), got {shape!r}.")
    if len(shape) != 3:
        raise ValueError(f"shape must be (channels, height, width), got {tuple(shape)}.")
    channels, height, width = (check_count("every entry of shape", n) for n in shape)
    return channels, height, width


def check_widths(widths: Sequence[int], minimum: int = 1) -> Sequence[int]:
    """Return `widths` if it lists at least `minimum` whole numbers."""
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise TypeError(f"widths must be a sequence of whole numbers, got {widths!r}.")
    if len(widths) < minimum:
        raise ValueError(f"widths is empty, but must list at least {minimum} block.")
    return [check_count("widths", n) for n in widths]
