"""Explorers for live readers: controls, and a picture that follows them.

The picture is an image inside the widget, drawn at the first values when the cell runs, so a page
without a kernel still shows it; the book's style sheet leaves out the controls there. ipywidgets
is imported only when an explorer is asked for.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from gtnlib.data.sets import Dataset
from gtnlib.judge.evaluate import measure
from gtnlib.show.style import COLOURS, GREEN, GREY, INK, ORANGE
from gtnlib.students.networks import ConvNet
from gtnlib.support.seeds import derive_seed

CURVES = (COLOURS["unrolled"], COLOURS["real images"], GREEN, ORANGE)


def explore_student(teachers: dict, data: Dataset, student=ConvNet, images=2000, shown=4):
    """Choose a teacher, a number of steps and a factor for its rates; train a fresh student.

    Every press of the button trains one student more, with a seed of its own. To begin with, every
    teacher has taught one, for as many steps as its lesson has.

    Parameters
    ----------
    teachers: anything with a teaching set, by the name to show.
    data: its validation split gives the accuracy.
    student: class or function that builds a classifier.
    images: how many validation images to measure on.
    shown: how many curves to keep.
    """
    from ipywidgets import HTML, Button, Dropdown, FloatLogSlider, IntSlider

    if not teachers:
        raise ValueError("teachers is empty: give at least one, by name.")
    split = data.part("validation")
    data = replace(data, validation=split.first(min(images, len(split))))
    longest = max(teacher.steps for teacher in teachers.values())
    teacher = Dropdown(options=list(teachers), description="teacher")
    steps = IntSlider(teachers[teacher.value].steps, 1, 3 * longest, description="steps",
                      continuous_update=False)  # fmt: skip
    factor = FloatLogSlider(1.0, min=-1, max=1, step=0.1, description="rates ×",
                            continuous_update=False)  # fmt: skip
    button, picture = Button(description="Train a student"), HTML()
    curves, seeds = [], itertools.count()

    def train(name: str, length: int, times: float) -> None:
        marks, values = learning_curve(teachers[name], data, student, length, times, next(seeds))
        label = f"{name}, {length} steps" + (f", rates × {times:.2g}" if times != 1 else "")
        curves.append((label, marks, values))
        del curves[:-shown]

    def pressed(_) -> None:
        button.disabled, button.description = True, "training …"
        try:
            train(teacher.value, steps.value, factor.value)
            picture.value = draw_curves(curves)
        finally:
            button.disabled, button.description = False, "Train a student"

    for name, one in list(teachers.items())[:shown]:
        train(name, one.steps, 1.0)
    picture.value = draw_curves(curves)
    button.on_click(pressed)
    return _explorer([teacher, steps, factor, button], picture)


def explore_neumann(hessian, v, terms: int = 20, share: float = 0.4, most: int = 60):
    """Slide the number of terms and the scale of the Neumann series for H⁻¹v in two dimensions.

    Parameters
    ----------
    hessian, v: H (2, 2), symmetric with positive eigenvalues, and v (2,).
    terms: K to begin with, terms after the first; at most `most`.
    share: the scale α to begin with, as a multiple of 1/h_max, the largest eigenvalue.
    """
    from ipywidgets import HTML, FloatSlider, IntSlider

    hessian, v = np.asarray(hessian, float), np.asarray(v, float)
    if hessian.shape != (2, 2) or v.shape != (2,):
        raise ValueError(f"H must be (2, 2) and v (2,), but they are {hessian.shape} and {v.shape}.")
    eigenvalues = np.linalg.eigvalsh(hessian)
    if not np.allclose(hessian, hessian.T) or eigenvalues[0] <= 0:
        raise ValueError("H must be symmetric with positive eigenvalues.")
    count = IntSlider(terms, 0, most, description="terms K")
    scale = FloatSlider(share, min=0.05, max=2.1, step=0.05, description="α · h_max")
    picture = HTML()

    def draw(_=None) -> None:
        path = partial_sums(hessian, v, scale.value / eigenvalues[-1], count.value)
        picture.value = draw_sums(hessian, v, path, scale.value)

    for slider in (count, scale):
        slider.observe(draw, "value")
    draw()
    return _explorer([count, scale], picture)


def learning_curve(teacher, data: Dataset, student, steps, factor, seed):
    """Validation accuracy of a fresh student along so many steps, the teacher's rates times `factor`."""
    lesson = teacher.teaching_set(data.generator(derive_seed("draw", seed)))
    lesson = replace(lesson, rate=factor * lesson.rate)
    report = measure(lesson, student, data, [seed], steps, "validation", every=-(-steps // 6))
    return report.steps, report.curves[0].tolist()


def partial_sums(hessian: np.ndarray, v: np.ndarray, scale: float, terms: int) -> np.ndarray:
    """α Σ_{k≤j} (1 − αH)^k v for j = 0 … terms, of shape (terms + 1, 2)."""
    term, total, path = v, np.zeros(2), []
    for _ in range(terms + 1):
        total = total + term
        path.append(scale * total)
        term = term - scale * hessian @ term
    return np.array(path)


def draw_curves(curves) -> str:
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    ax = figure.add_subplot()
    for (label, marks, values), color in zip(curves, CURVES * len(curves)):
        ax.plot(marks, 100 * np.array(values), "o-", color=color, markersize=3.5,
                label=f"{label}: {100 * values[-1]:.1f} %")  # fmt: skip
    ax.set(xlabel="inner step", ylabel="validation accuracy (%)", ylim=(0, 100))
    ax.legend(loc="lower right", fontsize=9)
    ends = "; ".join(f"{label}: {100 * values[-1]:.1f} %" for label, _, values in curves)
    return _image(figure, f"Validation accuracy against the inner step; at the end, {ends}.")


def draw_sums(hessian: np.ndarray, v: np.ndarray, path: np.ndarray, share: float) -> str:
    solution = np.linalg.solve(hessian, v)
    errors = np.linalg.norm(path - solution, axis=1) / np.linalg.norm(solution)
    figure = Figure(figsize=(6.4, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    centre, radius = solution / 2, np.abs(solution).max()
    x, y = (np.linspace(c - radius, c + radius, 100) for c in centre)
    q = np.stack(np.meshgrid(x, y))
    valley = np.einsum("ixy,ij,jxy->xy", q, hessian, q) / 2 - np.einsum("i,ixy->xy", v, q)
    left.contour(x, y, valley, levels=14, colors=GREY, linewidths=0.5, alpha=0.7)
    left.plot(*path.T, "o-", color=COLOURS["implicit"], markersize=3.5, linewidth=1.2)
    left.plot(*solution, marker="*", markersize=13, color=INK)
    left.set(xlim=x[[0, -1]], ylim=y[[0, -1]], xticks=[], yticks=[], aspect="equal",
             title="partial sums")  # fmt: skip
    errors = np.maximum(errors, 1e-16)
    right.semilogy(errors, color=COLOURS["implicit"])
    right.plot(len(path) - 1, errors[-1], "o", color=INK)
    right.minorticks_off()
    limits = min(1e-3, errors.min() / 2), max(2, 2 * errors.max())
    right.set(xlabel="terms $K$", ylabel="relative error", ylim=limits,
              title=rf"$\alpha = {share:.3g}/h_{{\max}}$: error {errors[-1]:.2g}")  # fmt: skip
    return _image(figure, f"Partial sums of the Neumann series with {len(path) - 1} terms after "
                          f"the first, at scale {share:.3g} over the largest eigenvalue; their "
                          f"relative error is {errors[-1]:.2g}.")  # fmt: skip


def _image(figure: Figure, alt: str) -> str:
    """A figure as an image that needs no file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return (f'<img alt="{html.escape(alt)}" style="max-width: 100%" '
            f'src="data:image/svg+xml;base64,{data}">')  # fmt: skip


def _explorer(controls: list, picture):
    from ipywidgets import HBox, Layout, VBox

    panel = HBox(controls, layout=Layout(flex_flow="row wrap"))
    panel.add_class("explorer-controls")
    return VBox([panel, picture])
