"""A small vision transformer among the students: no convolution but the one that cuts the patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gtnlib.students.networks import check_shapes, make_activation
from gtnlib.support.errors import check_count


class Patches(nn.Module):
    """Images (N, C, H, W) as tokens (N, patches, width): a linear map of every patch, and its place."""

    def __init__(self, channels: int, rows: int, columns: int, size: int, width: int):
        super().__init__()
        self.embedding = nn.Conv2d(channels, width, size, stride=size)
        self.positions = nn.Parameter(0.02 * torch.randn(rows * columns, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(x).flatten(2).transpose(1, 2) + self.positions


class Attention(nn.Module):
    """Multi-head self-attention on tokens (N, T, width), written out.

    softmax(Q Kᵀ / √d) V: the fused kernels of torch have no second derivative.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inputs(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, d)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention, then two linear layers on every token; both normalised before and added to x."""

    def __init__(self, width: int, heads: int, activation: str):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width),
                                  make_activation(activation), nn.Linear(2 * width, width))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.body(x)


class MeanToken(nn.Module):
    """The mean over the tokens (N, T, width) of every image: (N, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class VisionTransformer(nn.Sequential):
    """A small vision transformer (Dosovitskiy et al. 2021), classifying by the mean token.

    Parameters
    ----------
    patch: side of a square patch in pixels, which must divide height and width.
    width: length of a token. depth: number of blocks. heads: attention heads, which divide width.
    activation: a name of `ACTIVATIONS`.

    The mean in place of an extra class token is the simpler variant of Beyer et al. (2022).
    """

    def __init__(self, shape=(1, 28, 28), num_classes=10, patch=4, width=32, depth=2, heads=4,
                 activation="gelu"):  # fmt: skip
        channels, height, columns = check_shapes(shape, num_classes)
        check_count("patch", patch)
        if height % patch or columns % patch:
            raise ValueError(f"patches of {patch} × {patch} do not tile a {height} × {columns} image.")
        if check_count("width", width) % check_count("heads", heads):
            raise ValueError(f"width is {width}, which {heads} heads do not divide.")
        blocks = [TransformerBlock(width, heads, activation) for _ in range(check_count("depth", depth))]
        super().__init__(
            Patches(channels, height // patch, columns // patch, patch, width), *blocks,
            nn.LayerNorm(width), MeanToken(), nn.Linear(width, num_classes),
        )  # fmt: skip
