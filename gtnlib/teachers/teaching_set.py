"""A frozen teacher: plain arrays, and the batches they make."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtnlib.support.errors import DataError, check_kind, check_labels, check_number, check_path
from gtnlib.support.files import write_whole


@dataclass(frozen=True)
class TeachingSet:
    """A frozen teacher: plain tensors, and the batches they make.

    images: (N, C, H, W) float32.
    labels: (N,) int64, or probabilities (N, classes) float32.
    order: (T, B) int64, the indices of the images of every step.
    rate, momentum: (T,), of every step.
    weight_decay: of all steps.
    """

    images: Tensor
    labels: Tensor
    order: Tensor
    rate: Tensor
    momentum: Tensor
    weight_decay: float = 0.0

    def __post_init__(self):
        for name in ("images", "labels", "order", "rate", "momentum"):
            check_kind(name, getattr(self, name), Tensor)
        check_number("weight_decay", self.weight_decay, 0)
        if not self.labels.numel():
            raise ValueError("labels is empty: a teaching set needs at least one image.")
        if self.soft:
            self._check_probabilities()
        check_labels(self.images, self.labels.argmax(1) if self.soft else self.labels, self.classes)
        if self.order.ndim != 2 or self.order.numel() == 0:
            raise ValueError(f"order must have shape (steps, batch), got {tuple(self.order.shape)}.")
        if not 0 <= int(self.order.min()) <= int(self.order.max()) < len(self.images):
            raise ValueError(f"order points outside the {len(self.images)} images.")
        for name in ("rate", "momentum"):
            if getattr(self, name).shape != (self.steps,):
                raise ValueError(f"{name} must have one entry for each of the {self.steps} steps.")

    def _check_probabilities(self) -> None:
        sums = self.labels.sum(-1)
        if self.labels.ndim != 2 or not (self.labels.min() >= 0 and ((sums - 1).abs() <= 1e-3).all()):
            raise ValueError(
                "labels must be classes (N,), int64, or probabilities (N, classes) that sum to 1, got "
                f"{self.labels.dtype} of shape {tuple(self.labels.shape)}, no less than "
                f"{float(self.labels.min()):.3g}, sums {float(sums.min()):.3g} to {float(sums.max()):.3g}."
            )

    @property
    def soft(self) -> bool:
        """Whether labels are probabilities."""
        return self.labels.is_floating_point()

    @property
    def classes(self) -> int:
        """How many classes probabilities are of; of hard labels, the highest and one."""
        return self.labels.shape[1] if self.soft else 1 + int(self.labels.max())

    @property
    def steps(self) -> int:
        return len(self.order)

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        index = self.order[t % self.steps]
        return self.images[index], self.labels[index]

    def reader(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        return self.batch

    def rates(self, t: int) -> tuple[Tensor, Tensor]:
        return self.rate[t % self.steps], self.momentum[t % self.steps]

    def teaching_set(self, generator=None) -> TeachingSet:
        return self

    def to(self, device) -> TeachingSet:
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items()
                                 if isinstance(value, Tensor)}  # fmt: skip
        return replace(self, **moved)

    def save(self, path: str | os.PathLike) -> None:
        """Write an .npz of plain arrays, in one move, so that no half-written file is left."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(self).items()}
        np.savez_compressed(buffer, **arrays)
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> TeachingSet:
        """Read what `save` or `Teacher.export` wrote. Raises DataError if it is anything else."""
        check_path("path", path)
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                names = ("images", "labels", "order", "rate", "momentum")
                tensors = {name: torch.from_numpy(file[name]) for name in names}
                for name, value in tensors.items():
                    kind = torch.int64 if name in ("labels", "order") else torch.float32
                    soft = name == "labels" and value.ndim == 2 and value.dtype == torch.float32
                    if value.dtype != kind and not soft:
                        raise TypeError(f"{name} must be {kind}, got {value.dtype}.")
                return cls(**tensors, weight_decay=float(file["weight_decay"]))
        except FileNotFoundError:
            raise
        except (KeyError, ValueError, TypeError, OSError, EOFError, RuntimeError, zlib.error,
                zipfile.BadZipFile) as error:  # fmt: skip
            raise DataError(f"{path} is not a teaching set, or is damaged: {error}") from error
