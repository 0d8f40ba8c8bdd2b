"""Random shifts, scalings and rotations of images, one draw per image, differentiable in the images.

By `affine_grid` and `grid_sample`, since no library makes this draw: torchvision's v2 draws once per
batch, kornia draws per image, but each kind on its own, or one kind per batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gtnlib.support.errors import check_count, check_kind, check_number


@dataclass(frozen=True)
class Augment:
    """Every image is shifted, scaled or rotated: one of the three, drawn anew for each.

    So Zhao et al. (2021) augment MNIST, VICO-UoE/DatasetCondensation, utils.py: `augment`. They
    interpolate scaled images by the nearest pixel and rotated ones by cubic splines; here all is
    bilinear. What comes in from outside is the mean of the batch, per channel.

    Parameters
    ----------
    crop: pixels of padding; rows and columns shift by whole numbers from −crop to crop − 1.
    scale: height and width are each multiplied by a number from 1 − scale to 1 + scale.
    rotation: degrees, up to which images turn either way.

    A part that is 0 is never drawn. Raises ValueError if all three are.
    """

    crop: int = 4
    scale: float = 0.2
    rotation: float = 45.0

    def __post_init__(self):
        check_count("crop", self.crop, 0)
        check_number("scale", self.scale, 0, below=1)
        check_number("rotation", self.rotation, 0)
        if not self._kinds():
            raise ValueError("crop, scale and rotation are all 0, so nothing would be changed.")

    def _kinds(self) -> list[int]:
        return [kind for kind, size in enumerate((self.crop, self.scale, self.rotation)) if size]

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Maps (N, 2, 3) for images (N, C, H, W): from a place in the result to one in the image,
        both from −1 to 1 in x and y, as `affine_grid` has them.
        """
        check_kind("generator", generator, torch.Generator)
        count, (height, width) = len(images), images.shape[-2:]
        kinds = self._kinds()
        drawn = torch.randint(len(kinds), (count,), generator=generator, device=images.device)
        x, y, turn = torch.rand(3, count, generator=generator, device=images.device, dtype=images.dtype)

        zero, one = torch.zeros_like(x), torch.ones_like(x)
        shifted, scaled, rotated = (drawn == (kinds.index(k) if k in kinds else -1) for k in range(3))
        right, down = (torch.where(shifted, (2 * self.crop * u).floor() - self.crop, zero) for u in (x, y))
        wide, high = (torch.where(scaled, 1 / (1 - self.scale + 2 * self.scale * u), one) for u in (x, y))
        angle = torch.where(rotated, (2 * turn - 1) * self.rotation, zero).deg2rad()
        rows = (
            torch.stack([angle.cos() * wide, -angle.sin() * height / width, right * 2 / width], 1),
            torch.stack([angle.sin() * width / height, angle.cos() * high, down * 2 / height], 1),
        )
        return torch.stack(rows, 1)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A fresh draw of the images (N, C, H, W)."""
        return moved(images, self.draw(images, generator))


def moved(images: Tensor, maps: Tensor) -> Tensor:
    """Images (N, C, H, W) as maps (N, 2, 3) that were drawn say; linear in the images."""
    mean = images.mean((0, 2, 3), keepdim=True)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images - mean, grid, align_corners=False) + mean
