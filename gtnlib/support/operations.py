"""How many operations a computation takes: counted, not timed."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils._python_dispatch import TorchDispatchMode


class _Operations(TorchDispatchMode):
    def __init__(self, registry: dict):
        super().__init__()
        self.registry, self.total = registry, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        count = self.registry.get(operation._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=result) if count else 0
        return result


def operations(function: Callable[[], object]) -> int:
    """Of all convolutions and matrix products in a call, as PyTorch counts them.

    PyTorch's own FlopCounterMode asks for modules, does not see into `torch.func` transforms, and hangs
    hooks on the modules of every thread.
    """
    from torch.utils.flop_counter import flop_registry  # slow to import

    with _Operations(flop_registry) as counter:
        function()
    return counter.total
