"""Seeds: numbers from names, and networks built from them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import torch
from torch import nn

lock = threading.RLock()
"""Held while the random state of the whole process is borrowed, so that threads do not share it."""


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any mix of names and numbers, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Call `build` on the CPU with its own random state; the caller's is left as it was."""
    with lock, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()
