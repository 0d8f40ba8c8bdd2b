"""What a classifier makes of images before it decides."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def features_of(module: nn.Module, call: Callable[[], object], name: str = "module") -> Tensor:
    """What the last `nn.Linear` of a network sees (N, D) while `call` runs it. ValueError if it has none."""
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(f"{name} has no linear layer whose input could be its features.")
    seen: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    try:
        call()
    finally:
        hook.remove()
    return seen[0]
