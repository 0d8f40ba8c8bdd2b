"""Nearest upsampling by two and then a 3×3 convolution, as one operation on the small image.

Every pixel of the small image stands for 2 × 2 equal ones, so it adds to 4 × 4 pixels of the large one: a
transposed convolution of stride 2 and padding 1 with the kernel A w Aᵀ. It has 16 products a pixel in
place of 4 · 9, and the upsampled image is never made.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Row k: which of the three rows of w meet row k of the 4 × 4 pixels.
A = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def spread(weight: Tensor) -> Tensor:
    """A w Aᵀ: from a kernel (M, N, 3, 3) of a convolution to one (N, M, 4, 4) of a transposed one."""
    a = torch.tensor(A, dtype=weight.dtype, device=weight.device)
    return torch.einsum("ka,mnab,lb->nmkl", a, weight, a)


def upsampled_convolution(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """layer(nearest upsampling of x), of shape (B, M, 2H, 2W), for x (B, N, H, W) and padding 1."""
    return F.conv_transpose2d(x, spread(layer.weight), layer.bias, stride=2, padding=1)


def upsampled_few(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """`upsampled_convolution`, for few channels out: one matrix product, then the sum of its parts."""
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels) @ spread(layer.weight).flatten(1)
    parts = rows.view(batch, height * width, -1).transpose(1, 2)
    image = F.fold(parts, (2 * height, 2 * width), kernel_size=4, stride=2, padding=1)
    return image if layer.bias is None else image + layer.bias[:, None, None]
