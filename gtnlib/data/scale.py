"""How the pixels of a data set were normalised, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gtnlib.support.errors import check_number


@dataclass(frozen=True)
class Scale:
    """x = (p − mean) / std, per channel, of pixels p from 0 to 1 of the data set of this name."""

    name: str
    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self):
        for name in ("mean", "std"):
            values = tuple(check_number(name, value, 0) for value in getattr(self, name))
            object.__setattr__(self, name, values)
        if not self.mean or len(self.mean) != len(self.std) or not all(self.std):
            raise ValueError(f"mean and std must have an entry per channel, std above 0, got {self}.")

    def pixels(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) as pixels from 0 to 1; what a learned image has beyond is cut off."""
        if images.shape[1] != len(self.mean):
            raise ValueError(
                f"images have {images.shape[1]} channels, those of {self.name} {len(self.mean)}."
            )
        mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)
