"""What a classifier makes of images before it decides."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def features_of(module: nn.Module, call: Callable[[], object], name: str = "module") -> Tensor:
    """What the last `nn.Linear` to be called sees (N, D) while `call` runs the network.

    Raises ValueError if none is called, or if that one sees more than a vector for every image.
    """
    seen: list[Tensor] = []

    def keep(layer, inputs):
        seen[:] = inputs[:1]

    hooks = [layer.register_forward_pre_hook(keep)
             for layer in module.modules() if isinstance(layer, nn.Linear)]  # fmt: skip
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ValueError(f"{name} has no linear layer whose input could be its features.")
    if seen[0].ndim != 2:
        raise ValueError(f"the last linear layer of {name} sees {tuple(seen[0].shape)}, but features must "
                         "be one vector for every image.")  # fmt: skip
    return seen[0]
