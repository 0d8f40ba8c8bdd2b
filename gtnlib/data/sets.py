"""A data set as plain tensors on one device, in three parts, and balanced draws from them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gtnlib.data.border import as_images, as_labels
from gtnlib.data.scale import Scale
from gtnlib.support.errors import check_choice, check_count, check_kind

PARTS = ("train", "validation", "test")


def default_device() -> torch.device:
    """The CUDA device of this process if there is one, else the CPU; `torchrun` numbers them."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if rank is None else f"cuda:{rank}")


def check_device(name: str, value: str | torch.device) -> torch.device:
    """The device, if it can be used here."""
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} is {value!r}, but it cannot be used here: {reason}") from None
    return device


@dataclass(frozen=True)
class Split:
    """Images and labels of one part of a data set.

    images: float32 or float64 (N, C, H, W), normalised to mean 0 and variance 1 per channel.
    labels: int64 (N,).

    Numpy arrays, images in half precision and labels of other whole numbers are converted. Raises
    TypeError or ValueError for what cannot be, and for a pixel that is not finite.
    """

    images: Tensor
    labels: Tensor
    num_classes: int = 10

    def __post_init__(self):
        check_count("num_classes", self.num_classes)
        images = as_images(self.images)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", as_labels(self.labels, images, self.num_classes))

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Images in order of their class; size and start of every class there; classes with none."""
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        missing = torch.nonzero(counts == 0).flatten().tolist()
        return torch.argsort(self.labels, stable=True), counts, counts.cumsum(0) - counts, missing

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device) -> Split:
        """The same split on another device (itself if it is there already)."""
        device = check_device("device", device)
        if self.device.type == device.type and device.index in (None, self.device.index):
            return self
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def double(self) -> Split:
        """The same images in float64, for checks in which rounding must not hide a mistake."""
        return replace(self, images=self.images.double())

    def first(self, n: int) -> Split:
        """The first n images. ValueError if there are fewer."""
        if check_count("n", n) > len(self):
            raise ValueError(f"n is {n}, but there are only {len(self)} images.")
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def sample(
        self, n: int, generator: torch.Generator | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw a class-balanced batch, with replacement, without leaving the device.

        Every class appears ⌊n / classes⌋ times; the remainder goes to classes drawn at random.

        Parameters
        ----------
        n: number of images.
        generator: source of randomness, on the device of the images.
        labels: int64 (n,), to ask for these classes instead of balanced ones.

        Returns
        -------
        images (n, C, H, W) and labels (n,).
        """
        return self.at(self.draw(n, generator, labels))

    def at(self, drawn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The images and labels of what `draw` drew."""
        index, labels = drawn
        return self.images[index], labels

    def draw(
        self, n: int, generator: torch.Generator | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `sample` would draw, as indices (n,) and labels (n,): a batch that needs no room."""
        n = check_count("n", n)
        order, counts, starts, missing = self._classes
        if generator is not None:
            check_kind("generator", generator, torch.Generator)
        if labels is None:
            if missing:
                raise ValueError(f"cannot balance classes: none of class {missing[0]} here.")
            first = torch.randperm(self.num_classes, generator=generator, device=self.device)
            labels = first[torch.arange(n, device=self.device) % self.num_classes]
        elif check_kind("labels", labels, Tensor).shape != (n,):
            raise ValueError(f"labels must have shape ({n},), got {tuple(labels.shape)}.")
        else:
            for c in labels.unique().tolist():
                if c in missing or not 0 <= c < self.num_classes:
                    raise ValueError(f"labels asks for class {c}, but no image of it is here.")
        u = torch.rand(n, generator=generator, device=self.device, dtype=torch.float64)
        return order[starts[labels] + (u * counts[labels]).long()], labels


@dataclass(frozen=True)
class Dataset:
    """A data set in three parts: `train`, `validation` (held out of the training file), `test`.

    A part that nothing may look at is None, but for `train`. scale: how the images were normalised, if
    that is known.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    scale: Scale | None = None

    def __post_init__(self):
        if self.scale is not None:
            check_kind("scale", self.scale, Scale)
        for part in PARTS:
            split = getattr(self, part)
            if split is None and part != "train":
                continue
            check_kind(part, split, Split)
            if split.images.dtype != self.dtype:
                raise TypeError(f"{part} is {split.images.dtype}, but train is {self.dtype}.")
            kind = tuple(split.images.shape[1:]), split.num_classes
            if kind != (self.shape, self.num_classes):
                raise ValueError(
                    f"{part} has {kind[1]} classes of images {kind[0]}, but train has {self.num_classes} "
                    f"of {self.shape}."
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        return self.train.num_classes

    @property
    def device(self) -> torch.device:
        return self.train.device

    def generator(self, seed: int = 0) -> torch.Generator:
        """A source of random numbers on the device of the images."""
        return torch.Generator(self.device).manual_seed(seed)

    @property
    def dtype(self) -> torch.dtype:
        """Of the images, and of all that is computed on them: torch.float32 or torch.float64."""
        return self.train.images.dtype

    def part(self, name: str) -> Split:
        """The split of this name. ValueError if there is none of that name, or this data set lacks it."""
        split = getattr(self, check_choice("split", name, PARTS))
        if split is None:
            raise ValueError(f"{self.name} has no {name} split: it is None. Use another, or give it one.")
        return split

    def to(self, device) -> Dataset:
        moved = {name: split.to(device) for name in PARTS if (split := getattr(self, name)) is not None}
        return replace(self, **moved)

    def __repr__(self) -> str:
        sizes = (str(len(split)) if (split := getattr(self, name)) is not None else "none" for name in PARTS)
        return f"Dataset({self.name!r}, train / validation / test {' / '.join(sizes)}, {self.device})"
