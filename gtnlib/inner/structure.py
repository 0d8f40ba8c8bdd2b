"""What a network is, as a key that can be compared: what is compiled or stacked together has the same."""

from __future__ import annotations

import types

import torch
from torch import nn


def structure(module: nn.Module) -> tuple | None:
    """All that a network is but the values of its parameters, as a key that can be compared.

    Two networks with the same key are the same pure function of a parameter vector. None if the
    network holds something whose value cannot be compared.
    """
    common = vars(nn.Module()).keys()
    try:
        parts = [
            (name, type(part), part.training, *((key, _comparable(value))
             for key, value in vars(part).items() if key not in common))
            for name, part in module.named_modules()
        ]  # fmt: skip
    except TypeError:
        return None
    return *parts, *((name, p.shape, p.dtype) for name, p in module.named_parameters())


def _comparable(value):
    """A hashable stand-in that is equal exactly for equal values, or TypeError."""
    plain = (bool, int, float, str, type, type(None), torch.dtype, types.BuiltinFunctionType)
    if isinstance(value, plain):
        return type(value), value
    if isinstance(value, (list, tuple)):
        return type(value), *map(_comparable, value)
    if isinstance(value, types.FunctionType) and not value.__closure__:
        return value.__code__, _comparable(value.__defaults__)
    raise TypeError(f"cannot compare {value!r}.")
