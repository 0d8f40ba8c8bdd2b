"""What a computation costs: operations, bytes kept for the way back, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.autograd.graph import saved_tensors_hooks

from gtnlib.support.operations import operations

__all__ = ["bytes_kept", "operations", "seconds"]


class _Saved:
    """A tensor saved by autograd, which says when it comes and goes."""

    def __init__(self, tensor: torch.Tensor, counter: _Bytes):
        storage = tensor.untyped_storage()
        self.tensor, self.counter, self.key = tensor, counter, storage.data_ptr()
        users, size = counter.alive.get(self.key, (0, storage.nbytes()))
        counter.alive[self.key] = users + 1, size
        counter.most = max(counter.most, sum(size for _, size in counter.alive.values()))

    def __del__(self):
        users, size = self.counter.alive.pop(self.key)
        if users > 1:
            self.counter.alive[self.key] = users - 1, size


class _Bytes:
    def __init__(self):
        self.alive: dict[int, tuple[int, int]] = {}
        self.most = 0


def bytes_kept(function: Callable[[], object]) -> int:
    """The most that autograd keeps alive at one time in a call; tensors that share memory count once."""
    counter = _Bytes()
    with saved_tensors_hooks(lambda tensor: _Saved(tensor, counter), lambda saved: saved.tensor):
        function()
    return counter.most


def seconds(function: Callable[[], object], repeats: int = 3, warm_up: int = 1) -> list[float]:
    """Of each of several calls, after some that do not count; a GPU is waited for."""
    times = []
    for _ in range(warm_up + repeats):
        _wait()
        start = time.perf_counter()
        function()
        _wait()
        times.append(time.perf_counter() - start)
    return times[warm_up:]


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
