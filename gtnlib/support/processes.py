"""Several processes, one training: what `fit` needs to know when `torchrun` started it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The number `count` of processes that work together, and which of them this one is, `rank`.

    Started by `torchrun`, on one host or several, the processes meet here: over gloo for a CPU, over
    nccl for GPUs, of which each takes its own. Alone, there is one process, of rank 0.

    Whatever needs the others raises ConnectionError if one of them has ended.
    """

    def __init__(self, device: torch.device):
        self.rank, self.count, self.device = 0, 1, device
        if dist.is_available():
            if dist.is_torchelastic_launched() and not dist.is_initialized():
                if device.index is not None:
                    torch.cuda.set_device(device)
                dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            if dist.is_initialized():
                self.rank, self.count = dist.get_rank(), dist.get_world_size()

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ConnectionError(
                f"rank {self.rank} of {self.count}: another process of this training has ended, or cannot be "
                f"reached ({str(error).partition(chr(10))[0]}). The teacher is as the last whole update left "
                "it. Start all processes again, with the same checkpoint, to go on from there."
            ) from error

    def agree(self, tensors) -> None:
        """Overwrite every tensor, in place, by that of rank 0."""
        if self.count > 1:
            with self._together():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def share(self, content: bytes | None) -> bytes | None:
        """The content that rank 0 has, in every process: so a file need only be where rank 0 is."""
        if self.count > 1:
            size = torch.tensor(-1 if content is None else len(content), device=self.device)
            self.agree([size])
            if size < 0:
                return None
            mine = content if self.rank == 0 and content else bytes(int(size))
            whole = torch.frombuffer(bytearray(mine), dtype=torch.uint8).to(self.device)
            self.agree([whole])
            content = whole.cpu().numpy().tobytes()
        return content

    def sum(self, tensors: list[Tensor]) -> list[Tensor]:
        """Overwrite every tensor, in place, by its sum over the processes, in one message."""
        if self.count > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            with self._together():
                dist.all_reduce(flat)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
                tensor.copy_(part.view_as(tensor))
        return tensors
