"""One style for every figure of the book: colours, bands over seeds, image grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from torch import Tensor

# Told apart by readers of every colour vision, and by their lightness where there is no colour.
BLUE, ORANGE, GREEN, GREY = "#2f6299", "#d9822b", "#3a8a63", "#8a8f98"
INK, PINK = "#22262c", "#dda3c9"
# One colour a method, in every figure; GREY is for guides and for what is no method.
COLOURS = {"unrolled": BLUE, "implicit": GREEN, "matching": ORANGE, "distribution matching": PINK,
           "real images": INK}  # fmt: skip
STYLE: dict[Any, Any] = {
    "figure.figsize": (6.4, 3.0), "figure.facecolor": "white", "figure.constrained_layout.use": True,
    "font.size": 10.5, "axes.titlesize": 10.5, "axes.grid": True, "grid.color": "#e6e8eb",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#6b7078",
    "axes.axisbelow": True, "lines.linewidth": 1.8, "legend.frameon": False,
    "legend.handlelength": 2.8,
    "axes.prop_cycle": plt.cycler(color=[BLUE, INK, GREY]),
    "image.cmap": "gray", "svg.hashsalt": "gtnlib", "animation.embed_limit": 20,
}  # fmt: skip


def use_style() -> None:
    """Set the book's style for all figures to come, and sharp figures in a notebook."""
    plt.rcParams.update(STYLE)
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")
    except ImportError:  # not in a notebook
        pass


def method_of(name: str) -> str | None:
    """Which of COLOURS an experiment or source of lessons belongs to, by a name such as "gtn-unrolled"."""
    words = set(name.split("-"))
    if words & {"real", "herding", "k_centre", "passes"}:
        return "real images"
    return next((method for method in COLOURS if method in words), None)


def shades(color: str, count: int) -> list[tuple[float, ...]]:
    """Tints of one colour from light to full, for variants of one method."""
    full = np.array(to_rgb(color))
    return [tuple(1 - share * (1 - full)) for share in np.linspace(min(1, 0.3 + 0.7 / count), 1, count)]


def plot_band(ax: Axes, steps: Sequence[float], curves: Tensor, label: str, color: str) -> None:
    """Mean over seeds of curves (seeds, len(steps)), in percent, within one standard deviation."""
    curves = 100 * curves.double()
    mean, std = curves.mean(0), curves.std(0, correction=min(1, len(curves) - 1))
    ax.plot(steps, mean, color=color, marker="o", markersize=3.5, label=label)
    ax.fill_between(steps, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)


def mosaic(images: Tensor, columns: int, gap: int = 2) -> np.ndarray:
    """Images (N, 1, H, W) or (N, 3, H, W) row by row in one array, NaN between them."""
    pixels = images.float().cpu().permute(0, 2, 3, 1).numpy()
    n, height, width, channels = pixels.shape
    rows = -(-n // columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), np.nan)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid.squeeze(2) if channels == 1 else grid


def show_images(
    images: Tensor,
    columns: int,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    ax: Axes | None = None,
    limits: tuple[float, float] | None = None,
    gap: int = 2,
) -> Axes:
    """Draw images (N, C, H, W) row by row; black to white is `limits`, default all there is."""
    images = images.detach()
    grid = mosaic(images, columns, gap)
    rows = -(-len(images) // columns)
    if ax is None:
        width = min(6.4, 0.8 * columns)
        _, ax = plt.subplots(figsize=(width, width * grid.shape[0] / grid.shape[1] + 0.35))
    low, high = limits or (float(images.min()), float(images.max()))
    if grid.ndim == 3:
        grid = np.clip((grid - low) / (high - low), 0, 1)
    ax.imshow(grid, vmin=low, vmax=high, interpolation="nearest")
    height, width = images.shape[2] + gap, images.shape[3] + gap
    ax.set_yticks([height * i + height / 2 - 1.5 for i in range(rows)][: len(row_labels)], row_labels)
    ax.set_xticks([width * i + width / 2 - 1.5 for i in range(columns)][: len(column_labels)],
                  column_labels)  # fmt: skip
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax


def matrix(ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], low: float,
           high: float, form: str) -> None:  # fmt: skip
    """Numbers (len(rows), len(columns)) on squares, the darker the larger, from `low` to `high`."""
    shade = LinearSegmentedColormap.from_list("", ["white", INK])
    ax.imshow(values, cmap=shade, vmin=low, vmax=high, aspect="auto")
    for i, j in np.ndindex(*values.shape):
        number = form.format(values[i, j]).replace("-0.00", "0.00")
        color = "white" if values[i, j] > (low + high) / 2 else "black"
        ax.text(j, i, number, ha="center", va="center", fontsize=9, color=color)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
