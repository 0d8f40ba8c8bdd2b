"""What a network is, as a key that can be compared: what is compiled or stacked together has the same."""

from __future__ import annotations

import functools
import types
from collections.abc import Hashable, Mapping

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

CONTENT = ("training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def structure(module: nn.Module) -> tuple | None:
    """All that a network is but the values of its parameters and buffers, as a key that can be compared.

    Two networks with the same key are the same pure function of them. None if the network holds
    something whose value cannot be compared.
    """
    try:
        parts = [
            (name, type_before_parametrizations(part), part.training, *map(_comparable, _held(part)))
            for name, part in module.named_modules()
        ]
    except (TypeError, ValueError, RecursionError):
        return None
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return *parts, *((name, t.shape, t.dtype, t.requires_grad) for name, t in tensors)


def _held(part: nn.Module) -> list[tuple[str, object]]:
    """What a layer holds but for tensors and layers, by name; its hooks without their numbers."""
    return [(key, list(value.values()) if "_hooks" in key else value) for key, value in vars(part).items()
            if key not in CONTENT and "state_dict" not in key]  # fmt: skip


def _comparable(value) -> Hashable:
    """A hashable stand-in that is equal exactly for equal values, or TypeError."""
    plain = (bool, int, float, str, type, type(None), torch.dtype, torch.device, types.BuiltinFunctionType)
    if isinstance(value, plain):
        return type(value), value
    if isinstance(value, (list, tuple)):
        return type(value), *map(_comparable, value)
    if isinstance(value, Mapping):
        return type(value), *((_comparable(key), _comparable(part)) for key, part in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(map(_comparable, value))
    if isinstance(value, functools.partial):
        return type(value), *map(_comparable, (value.func, value.args, value.keywords))
    if isinstance(value, types.FunctionType):
        cells = tuple(_comparable(cell.cell_contents) for cell in value.__closure__ or ())
        defaults = map(_comparable, (value.__defaults__, value.__kwdefaults__))
        return value.__code__, id(value.__globals__), *defaults, *cells
    raise TypeError(f"cannot compare {value!r}.")
