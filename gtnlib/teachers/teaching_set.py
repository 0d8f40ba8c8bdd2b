"""A frozen teacher: plain arrays, and the batches they make."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtnlib.data.border import as_images, as_targets, as_tensor, check_finite
from gtnlib.data.scale import Scale
from gtnlib.support.errors import DataError, check_number, check_path
from gtnlib.support.files import VERSION, check_digest, digest_of, read_arrays, write_whole

ARRAYS = ("images", "labels", "order", "rate", "momentum")


@dataclass(frozen=True)
class TeachingSet:
    """A frozen teacher: plain tensors, and the batches they make.

    images: (N, C, H, W) float32 or float64; all other numbers have their type.
    labels: (N,) int64, or probabilities (N, classes).
    order: (T, B) int64, the indices of the images of every step.
    rate, momentum: (T,), of every step, rate ≥ 0 and 0 ≤ momentum ≤ 1.
    weight_decay: of all steps.
    scale: how the images were normalised, if that is known.

    Numpy arrays and other types of number are converted. Raises TypeError or ValueError for what cannot
    be, and for values that are impossible or not finite.
    """

    images: Tensor
    labels: Tensor
    order: Tensor
    rate: Tensor
    momentum: Tensor
    weight_decay: float = 0.0
    scale: Scale | None = None

    def __post_init__(self):
        images = as_images(self.images)
        given = {name: as_tensor(name, getattr(self, name)) for name in ("order", "rate", "momentum")}
        labels, order = as_targets(self.labels, images), given["order"]
        if not len(labels):
            raise ValueError("labels is empty: a teaching set needs at least one image.")
        if order.dtype.is_floating_point or order.dtype.is_complex:
            raise TypeError(f"order must be integers, got {order.dtype}.")
        if order.ndim != 2 or order.numel() == 0:
            raise ValueError(f"order must have shape (steps, batch), got {tuple(order.shape)}.")
        order = order.long()
        if not 0 <= int(order.min()) <= int(order.max()) < len(images):
            raise ValueError(f"order points outside the {len(images)} images.")
        for name, high in (("rate", math.inf), ("momentum", 1)):
            values = given[name]
            if values.shape != order.shape[:1]:
                raise ValueError(f"{name} must have one entry for each of the {len(order)} steps.")
            check_finite(name, values)
            if not 0 <= float(values.min()) <= float(values.max()) <= high:
                limit = "at least 0" if name == "rate" else "from 0 to 1"
                raise ValueError(f"{name} must be {limit}, got {values.tolist()}.")
            given[name] = values.to(images.dtype)
        decay = check_number("weight_decay", self.weight_decay, 0)
        for name, value in {**given, "images": images, "labels": labels, "order": order,
                            "weight_decay": decay}.items():  # fmt: skip
            object.__setattr__(self, name, value)

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

    def to(self, device=None, dtype: torch.dtype | None = None) -> TeachingSet:
        """The same on another device, or in another type of floating-point number."""
        moved: dict[str, Any] = {name: t.to(device, dtype if t.is_floating_point() else None)
                                 for name, t in self._tensors().items()}  # fmt: skip
        return replace(self, **moved)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ARRAYS}

    def pixels(self) -> Tensor:
        """The images with pixels from 0 to 1, what they have beyond cut off. ValueError without a `scale`."""
        if self.scale is None:
            raise ValueError("it is not known how the images were normalised: scale is None.")
        return self.scale.pixels(self.images)

    def save(self, path: str | os.PathLike) -> None:
        """Write an .npz of plain arrays, in one move, so that no half-written file is left.

        Beside the set it holds the version of the format and the SHA-256 of the content; and, if they are
        known, the name of the data set, mean and std.
        """
        tensors = {name: t.cpu().contiguous() for name, t in self._tensors().items()}
        buffer, digest = io.BytesIO(), digest_of(tensors, self._state())
        arrays: dict[str, Any] = {name: t.numpy() for name, t in tensors.items()}
        arrays |= {"weight_decay": self.weight_decay, "version": VERSION, "sha256": digest}
        if self.scale is not None:
            arrays |= {"dataset": self.scale.name, "mean": self.scale.mean, "std": self.scale.std}
        np.savez_compressed(buffer, **arrays)
        write_whole(path, buffer.getvalue())

    def _state(self):
        """What a file's digest is of, beside the tensors; without a scale, as it was before there was any."""
        scale = self.scale
        return [self.weight_decay, *vars(scale).values()] if scale is not None else self.weight_decay

    @classmethod
    def load(cls, path: str | os.PathLike) -> TeachingSet:
        """Read what `save` or `Teacher.export` wrote. Raises DataError if it is anything else."""
        path = check_path("path", path)
        try:
            arrays = read_arrays(path)
            tensors = {name: torch.from_numpy(arrays[name]) for name in ARRAYS}
            decay = arrays["weight_decay"].item()
            scale = None
            if "dataset" in arrays:
                scale = Scale(arrays["dataset"].item(), arrays["mean"].tolist(), arrays["std"].tolist())
            made = cls(**tensors, weight_decay=decay, scale=scale)
            if arrays.keys() - {*ARRAYS, "weight_decay"}:
                found = digest_of(tensors, made._state())
                check_digest(arrays["version"].item(), arrays["sha256"].item(), found)
            return made
        except FileNotFoundError:
            raise
        except Exception as error:  # zipfile and numpy raise a dozen kinds for files of another kind
            raise DataError(f"{path} is not a teaching set, or is damaged: {error}") from error
