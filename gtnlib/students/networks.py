"""Students: image classifiers.

Every class takes `shape` (C, H, W) and `num_classes` as keywords, holds no running statistics,
and uses only operations with second derivatives, so that it works under
`torch.func.functional_call`, `grad` of `grad`, and `vmap`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from gtnlib.support.errors import check_choice, check_count, check_shape, check_widths

NORMS = ("none", "instance", "batch", "group")
ACTIVATIONS = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU,
    "softplus": nn.Softplus, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
}  # fmt: skip
POOLINGS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


def make_norm(name: str, channels: int) -> nn.Module:
    """A normalisation of (N, channels, H, W) by statistics of the batch at hand, never running ones.

    "instance" and "group" (up to 8 groups) normalise every image on its own, "batch" the batch.
    """
    check_choice("norm", name, NORMS)
    if name == "none":
        return nn.Identity()
    if name == "instance":
        return nn.GroupNorm(channels, channels)
    if name == "group":
        return nn.GroupNorm(max(g for g in range(1, 9) if channels % g == 0), channels)
    return nn.BatchNorm2d(channels, track_running_stats=False)


def make_activation(name: str) -> nn.Module:
    return ACTIVATIONS[check_choice("activation", name, ACTIVATIONS)]()


def check_shapes(shape: Sequence[int], num_classes: int) -> tuple[int, int, int]:
    check_count("num_classes", num_classes, 2)
    return check_shape(shape)


class MLP(nn.Sequential):
    """Fully connected layers of the given widths."""

    def __init__(self, shape=(1, 28, 28), num_classes=10, widths=(128,), activation="relu"):
        channels, height, width = check_shapes(shape, num_classes)
        layers: list[nn.Module] = [nn.Flatten()]
        size = channels * height * width
        for n in check_widths(widths, 0):
            layers += [nn.Linear(size, n), make_activation(activation)]
            size = n
        super().__init__(*layers, nn.Linear(size, num_classes))


class LeNet(nn.Sequential):
    """Two 5×5 convolutions (6 and 16 channels), then 120 and 84 units (LeCun et al. 1998)."""

    def __init__(self, shape=(1, 28, 28), num_classes=10, activation="relu", pooling="avg"):
        channels, height, width = check_shapes(shape, num_classes)
        rows, columns = (height // 2 - 4) // 2, (width // 2 - 4) // 2
        if min(rows, columns) < 1:
            raise ValueError(f"LeNet needs images of at least 12 × 12, got {height} × {width}.")
        pool = POOLINGS[check_choice("pooling", pooling, POOLINGS)]
        act = lambda: make_activation(activation)  # noqa: E731
        super().__init__(
            nn.Conv2d(channels, 6, 5, padding=2), act(), pool(2),
            nn.Conv2d(6, 16, 5), act(), pool(2), nn.Flatten(),
            nn.Linear(16 * rows * columns, 120), act(), nn.Linear(120, 84), act(),
            nn.Linear(84, num_classes),
        )  # fmt: skip


class ConvNet(nn.Sequential):
    """Blocks of 3×3 convolution, normalisation, activation, pooling; then one linear layer.

    The default, 16 and 32 channels, is small enough for a CPU. The student of most tables in the
    literature (Zhao et al. 2021) is `ConvNet(width=128, depth=3)`.

    Parameters
    ----------
    width: channels of every block, as one number or a sequence.
    depth: number of blocks, if `width` is one number (default 2).
    norm: "none", "instance", "batch" or "group".
    pooling: "avg" or "max", 2×2 after every block.
    activation: a name of `ACTIVATIONS`.
    """

    def __init__(self, shape=(1, 28, 28), num_classes=10, width=(16, 32), depth=None,
                 norm="instance", pooling="avg", activation="relu"):  # fmt: skip
        channels, height, columns = check_shapes(shape, num_classes)
        if not isinstance(width, Sequence):
            width = [width] * check_count("depth", 2 if depth is None else depth)
        elif depth not in (None, len(width)):
            raise ValueError(f"depth is {depth}, but width lists {len(width)} blocks.")
        pool = POOLINGS[check_choice("pooling", pooling, POOLINGS)]
        blocks: list[nn.Module] = []
        for n in width:
            check_count("width", n)
            if min(height, columns) < 2:
                raise ValueError(f"{len(width)} blocks pool a {shape[1]} × {shape[2]} image away.")
            blocks += [nn.Conv2d(channels, n, 3, padding=1), make_norm(norm, n),
                       make_activation(activation), pool(2)]  # fmt: skip
            channels, height, columns = n, height // 2, columns // 2
        head = nn.Linear(channels * height * columns, num_classes)
        super().__init__(*blocks, nn.Flatten(), head)


class _Residual(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, activation: str):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), make_norm(norm, outputs),
            make_activation(activation),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), make_norm(norm, outputs),
        )  # fmt: skip
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


class ResNet(nn.Sequential):
    """A small residual network: one block per width, halving the image from the second on."""

    def __init__(self, shape=(1, 28, 28), num_classes=10, widths=(16, 32, 64), norm="group",
                 activation="relu"):  # fmt: skip
        channels, _, _ = check_shapes(shape, num_classes)
        first = check_widths(widths)[0]
        layers: list[nn.Module] = [nn.Conv2d(channels, first, 3, padding=1, bias=False),
                                   make_norm(norm, first), make_activation(activation)]  # fmt: skip
        for i, n in enumerate(widths):
            layers.append(_Residual(first, check_count("widths", n), 1 + (i > 0), norm, activation))
            first = n
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(first, num_classes))


class VGG(nn.Sequential):
    """A small VGG (Simonyan & Zisserman 2015): two convolutions, then pooling, per width."""

    def __init__(self, shape=(1, 28, 28), num_classes=10, widths=(16, 32, 64), norm="group",
                 pooling="max", activation="relu"):  # fmt: skip
        channels, height, columns = check_shapes(shape, num_classes)
        if min(height, columns) < 2 ** len(check_widths(widths)):
            raise ValueError(f"{len(widths)} blocks pool a {height} × {columns} image away.")
        pool = POOLINGS[check_choice("pooling", pooling, POOLINGS)]
        layers: list[nn.Module] = []
        for n in widths:
            for _ in range(2):
                layers += [nn.Conv2d(channels, check_count("widths", n), 3, padding=1),
                           make_norm(norm, n), make_activation(activation)]  # fmt: skip
                channels = n
            layers.append(pool(2))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


class AlexNet(nn.Sequential):
    """A small AlexNet (Krizhevsky et al. 2012) for small images, as in Zhao et al. (2021).

    Five convolutions, two of 5×5 and three of 3×3, with 2×2 pooling after the first, second and
    fifth; then one linear layer. `norm` stands in for local response normalisation, which the
    original has; its dropout is left out.
    """

    def __init__(self, shape=(1, 28, 28), num_classes=10, widths=(16, 24, 32, 24, 24), norm="group",
                 pooling="max", activation="relu"):  # fmt: skip
        channels, height, columns = check_shapes(shape, num_classes)
        if len(widths) != 5:
            raise ValueError(f"AlexNet has five convolutions, but widths lists {len(widths)}.")
        if min(height, columns) < 8:
            raise ValueError(f"AlexNet needs images of at least 8 × 8, got {height} × {columns}.")
        pool = POOLINGS[check_choice("pooling", pooling, POOLINGS)]
        layers: list[nn.Module] = []
        for n, size, pooled in zip(widths, (5, 5, 3, 3, 3), (True, True, False, False, True)):
            layers += [nn.Conv2d(channels, check_count("widths", n), size, padding=size // 2),
                       make_norm(norm, n), make_activation(activation)]  # fmt: skip
            layers += [pool(2)] if pooled else []
            channels = n
        head = nn.Linear(channels * (height // 8) * (columns // 8), num_classes)
        super().__init__(*layers, nn.Flatten(), head)
