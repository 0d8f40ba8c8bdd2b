"""What the chapters need of a notebook: numbers for the prose, players for the static page."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def warn_without_gpu(minutes: int) -> None:
    """On Colab, which has GPUs to choose: say if none is chosen, and how long the page takes without."""
    if "google.colab" in sys.modules and not torch.cuda.is_available():
        time = "a minute" if minutes == 1 else f"{minutes} minutes"
        print(f"No GPU is chosen: see Runtime, Change runtime type. Without one this page takes about {time} "
              "on two cores.")  # fmt: skip


def glue(name: str, value: object) -> None:
    """Keep a measured value under a name, for the prose of the built book; nothing elsewhere."""
    try:
        from myst_nb import glue as keep
    except ImportError:  # Colab and plain Jupyter show the prose as it is
        return
    keep(name, str(value), display=False)


def scientific(value: float) -> str:
    """One digit and a power of ten, as "3 · 10⁻⁷"."""
    if value == 0:
        return "0"
    digit, power = f"{value:.0e}".split("e")
    return f"{digit} · 10{str(int(power)).translate(RAISED)}"


def player(figure: Figure, draw: Callable[[int], Any], frames: int, alt: str, fps: int = 4):
    """An animation that plays and scrubs in a static page, with no kernel and no network.

    draw(i) draws frame i into the figure; alt describes the animation to those who cannot see it.
    """
    from IPython.display import HTML

    figure.set_dpi(144)  # sharp on screens of two pixels a point; shown at the figure's own size
    animation = FuncAnimation(figure, draw, frames=frames, repeat=False, blit=False)
    html = animation.to_jshtml(fps=fps, default_mode="once")
    plt.close(figure)
    html = re.sub(r'<link rel="stylesheet"\s+href="https://[^"]*">', "", html)
    width = f"width: {96 * figure.get_figwidth():.0f}px; max-width: 100%"
    html = html.replace("<img id=", f'<img alt="{alt}" style="{width}" id=')
    return HTML(html.replace('<input id="_anim_slider', '<input aria-label="frame" id="_anim_slider'))
