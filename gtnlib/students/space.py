"""A space of convolutional networks, good and poor ones, to search in.

A search is only worth something where there is something to find: next to sound choices, the space
holds convolutions of one pixel, sigmoids, missing normalisation and networks of four channels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from gtnlib.students.networks import ACTIVATIONS, NORMS, POOLINGS, check_shapes, make_activation, make_norm
from gtnlib.support.errors import check_choice, check_count
from gtnlib.support.seeds import derive_seed

REDUCTIONS = (*POOLINGS, "stride", "none")
HEADS = ("flatten", "mean")

SPACE: Mapping[str, Sequence] = MappingProxyType({
    "depth": (1, 2, 3, 4),
    "width": (4, 8, 16, 32),
    "growth": (1, 2),
    "kernel": (1, 3, 5, 7),
    "norm": NORMS,
    "activation": tuple(ACTIVATIONS),
    "pooling": REDUCTIONS,
    "skip": (False, True),
    "head": HEADS,
})  # fmt: skip


class _Skip(nn.Module):
    """body(x) plus x itself, or a 1×1 convolution of it where the shapes differ (He et al. 2016)."""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, stride: int):
        super().__init__()
        same = inputs == outputs and stride == 1
        self.body = body
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


@dataclass(frozen=True)
class Architecture:
    """One network of the space. To call it builds it, so it is a `student` for all that takes one.

    Every one of `depth` blocks is convolution, normalisation, activation, and halving of the image.

    Parameters
    ----------
    depth: number of blocks. width: channels of the first; growth: their factor from block to block.
    kernel: side of the convolutions, odd.
    norm: "none", "instance", "batch" or "group". activation: a name of `ACTIVATIONS`.
    pooling: how a block halves the image: "avg" or "max" over 2×2, a "stride" of 2, or "none".
    skip: add the input of a block to its output, before pooling.
    head: what the last linear layer sees: "flatten", every pixel, or "mean", of every channel.
    """

    depth: int = 2
    width: int = 16
    growth: int = 2
    kernel: int = 3
    norm: str = "instance"
    activation: str = "relu"
    pooling: str = "avg"
    skip: bool = False
    head: str = "flatten"

    def __post_init__(self):
        for name in ("depth", "width", "growth", "kernel"):
            check_count(name, getattr(self, name))
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}, but must be odd.")
        check_choice("norm", self.norm, NORMS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("pooling", self.pooling, REDUCTIONS)
        check_choice("head", self.head, HEADS)
        if not isinstance(self.skip, bool):
            raise TypeError(f"skip must be True or False, got {self.skip!r}.")

    # ------------------------------------------------------------ the network

    def __call__(self, shape=(1, 28, 28), num_classes=10) -> nn.Sequential:
        """A freshly initialised network for images (C, H, W)."""
        sizes, channels = self.sizes(shape, num_classes), shape[0]
        stride = 2 if self.pooling == "stride" else 1
        layers: list[nn.Module] = []
        for i in range(self.depth):
            n = self.channels(i)
            body = nn.Sequential(
                nn.Conv2d(channels, n, self.kernel, stride, self.kernel // 2), make_norm(self.norm, n),
                make_activation(self.activation),
            )  # fmt: skip
            layers.append(_Skip(body, channels, n, stride) if self.skip else body)
            layers += [POOLINGS[self.pooling](2)] if self.pooling in POOLINGS else []
            channels = n
        if self.head == "mean":
            layers.append(nn.AdaptiveAvgPool2d(1))
        features = channels * (1 if self.head == "mean" else math.prod(sizes[-1]))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, num_classes))

    def channels(self, block: int) -> int:
        """Channels of block 0, 1, …"""
        return self.width * self.growth**block

    def sizes(self, shape=(1, 28, 28), num_classes=10) -> list[tuple[int, int]]:
        """Height and width of the image before every block and after the last.

        Raises ValueError if the blocks halve it away.
        """
        _, height, width = check_shapes(shape, num_classes)
        sizes = [(height, width)]
        for _ in range(self.depth):
            if self.pooling == "stride":  # to at least 2, since one pixel cannot be normalised
                smallest, height, width = 3, (height + 1) // 2, (width + 1) // 2
            elif self.pooling != "none":
                smallest, height, width = 2, height // 2, width // 2
            else:
                smallest = 1
            if min(sizes[-1]) < smallest:
                raise ValueError(f"{self.depth} blocks halve a {shape[1]} × {shape[2]} image away.")
            sizes.append((height, width))
        return sizes

    def parameters(self, shape=(1, 28, 28), num_classes=10) -> int:
        """How many parameters the network has. Nothing is computed or drawn for it."""
        with torch.device("meta"):
            return sum(p.numel() for p in self(shape, num_classes).parameters())

    def multiplications(self, shape=(1, 28, 28), num_classes=10) -> int:
        """Of all convolutions (but 1×1 shortcuts) and the last layer, for one image."""
        sizes, channels, total = self.sizes(shape, num_classes), shape[0], 0
        for i in range(self.depth):
            rows, columns = sizes[i + 1] if self.pooling == "stride" else sizes[i]
            total += rows * columns * self.kernel**2 * channels * self.channels(i)
            channels = self.channels(i)
        return total + channels * num_classes * (1 if self.head == "mean" else math.prod(sizes[-1]))

    # ------------------------------------------------------------ as text

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The architecture of which `text` is the `to_json`. Raises ValueError for anything else."""
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or values.keys() != {field.name for field in fields(cls)}:
                raise ValueError("it must have exactly the names of an architecture's fields")
            return cls(**values)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"not an architecture: {error}") from error

    def __str__(self) -> str:
        """In short, as "16-32 3×3 instance relu avg skip flatten"."""
        widths = "-".join(str(self.channels(i)) for i in range(self.depth))
        skip = " skip" if self.skip else ""
        return (f"{widths} {self.kernel}×{self.kernel} {self.norm} {self.activation} "
                f"{self.pooling}{skip} {self.head}")  # fmt: skip


def sample_architectures(
    n: int,
    seed: int = 0,
    shape: Sequence[int] = (1, 28, 28),
    limit: int = 4_000_000,
    space: Mapping[str, Sequence] = SPACE,
) -> list[Architecture]:
    """n different architectures, drawn evenly and independently for every field.

    Those that halve an image of this shape away, or that need more than `limit` multiplications for
    one, are drawn again. The same seed gives the same list on every machine, and a longer list
    begins with the shorter one.

    Parameters
    ----------
    space: the values to draw from, by name of the field; a field that is not named keeps its default.

    Raises ValueError if the space does not hold so many.
    """
    check_count("n", n)
    check_count("limit", limit)
    for name in space:
        check_choice("a name in space", name, [field.name for field in fields(Architecture)])
    found: dict[Architecture, None] = {}
    for draw in range(1000 + 200 * n):
        drawn = {name: options[derive_seed("architecture", seed, draw, name) % len(options)]
                 for name, options in space.items()}  # fmt: skip
        if drawn.get("depth") == 1:
            drawn["growth"] = 1  # one block does not grow: two factors would be one network
        architecture = Architecture(**drawn)
        if architecture.norm == "group" and architecture.channels(architecture.depth - 1) <= 8:
            architecture = replace(architecture, norm="instance")  # up to 8 groups: the same again
        try:
            too_large = architecture.multiplications(shape) > limit
        except ValueError:
            continue
        if not too_large:
            found[architecture] = None
        if len(found) == n:
            return list(found)
    raise ValueError(
        f"n is {n}, but only {len(found)} architectures of at most {limit} multiplications were found "
        f"for images {tuple(shape)}."
    )
