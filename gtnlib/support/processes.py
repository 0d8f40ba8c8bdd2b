"""Several processes, one training: what `fit` needs to know when `torchrun` started it."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The number `count` of processes that work together, and which of them this one is, `rank`.

    Started by `torchrun`, the processes meet here: over gloo for a CPU, over nccl for GPUs, of which
    each takes its own. Alone, there is one process, of rank 0.
    """

    def __init__(self, device: torch.device):
        self.rank, self.count = 0, 1
        if dist.is_available():
            if dist.is_torchelastic_launched() and not dist.is_initialized():
                dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            if dist.is_initialized():
                self.rank, self.count = dist.get_rank(), dist.get_world_size()

    def agree(self, tensors) -> None:
        """Overwrite every tensor, in place, by that of rank 0."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def sum(self, tensors: list[Tensor]) -> list[Tensor]:
        """Overwrite every tensor, in place, by its sum over the processes, in one message."""
        if self.count > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
                tensor.copy_(part.view_as(tensor))
        return tensors
