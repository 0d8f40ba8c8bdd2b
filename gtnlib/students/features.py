"""What a classifier makes of images before it decides."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def features_of(module: nn.Module, call: Callable[[], object], name: str = "module") -> Tensor:
    """What the last `nn.Linear` to be called sees (N, D) while `call` runs the network.

    Raises ValueError if none is called, or if that one sees more than a vector for every image.
    """
    seen: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs: seen.__setitem__(slice(None), inputs[:1]))
             for layer in module.modules() if isinstance(layer, nn.Linear)]  # fmt: skip
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ValueError(f"{name} has no linear layer whose input could be its features.")
    if seen[-1].ndim != 2:
        raise ValueError(f"the last linear layer of {name} sees {tuple(seen[-1].shape)}, but features must "
                         "be one vector for every image.")  # fmt: skip
    return seen[-1]
