"""The named experiments of the book: all their settings, in one place to read and to tune.

Every student here is `ConvNet()`, two blocks of 16 and 32 channels: smaller than the three blocks of
128 channels that most tables use, so that a CPU is enough.
"""

from __future__ import annotations

from typing import Any

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.distillation import Distillation

SMALL = "small student: ConvNet of 16 and 32 channels"
TEACHERS_PER_CELL = 3

# Batches of an inner step: all images up to 10 per class, a batch at a time above.
PIXELS = {
    1: {"images_per_class": 1, "steps": 10},
    10: {"images_per_class": 10, "steps": 10},
    50: {"images_per_class": 50, "steps": 15, "batch_size": 100},
}
PIXEL_SGD = {"rate": 0.02, "momentum": 0.9}

# By name in the experiment: what it is called, its class and arguments; and for pixels and generator
# what it needs of the teacher and of `fit`.
METHODS: dict[str, dict[str, Any]] = {
    "unrolled": {
        "metagrad": "Unrolled",
        "metagrad_args": {"loss_at": "every", "real_batch_size": 128},
        "pixels": {},
        "pixels_fit": {"outer_steps": 300, "rate": 0.1},
        "gtn": {"steps": 32, "batch_size": 64},
        "gtn_fit": {"outer_steps": 700, "rate": 3e-3},
        "gtn_teachers": 1,  # an outer step takes seconds on a CPU
    },
    "implicit": {
        "metagrad": "Implicit",
        "metagrad_args": {"neumann_terms": 5, "power_iterations": 4, "batches": 1},
        "pixels": {"weight_decay": 0.1},
        "pixels_fit": {"outer_steps": 400, "rate": 0.1},
        "gtn": {"steps": 20, "batch_size": 100, "batches": 1, "weight_decay": 0.1},
        "gtn_fit": {"outer_steps": 400, "rate": 5e-3},
    },
    "matching": {
        "metagrad": "GradientMatching",
        "metagrad_args": {},
        "pixels": {},
        "pixels_fit": {"outer_steps": 1000, "rate": 0.1},
        "gtn": {"steps": 20, "batch_size": 100, "batches": 1, "rate": 0.05},
        "gtn_fit": {"outer_steps": 1000, "rate": 1e-2},
    },
}
NAMES = {"unrolled": "unrolled", "implicit": "implicit differentiation", "matching": "gradient matching"}


def pixels(method: str, per_class: int) -> Distillation:
    """Dataset distillation to so many images per class."""
    settings, plural = METHODS[method], "" if per_class == 1 else "s"
    return Distillation(
        name=f"pixels-{method}-{per_class}",
        title=f"{per_class} learned image{plural} per class, {NAMES[method]} ({SMALL})",
        teacher="PixelTeacher",
        teacher_args={**PIXELS[per_class], **PIXEL_SGD, **settings["pixels"]},
        metagrad=settings["metagrad"],
        metagrad_args=settings["metagrad_args"],
        fit_args=settings["pixels_fit"],
        teacher_seeds=TEACHERS_PER_CELL,
    )


def gtn(method: str) -> Distillation:
    """A Generative Teaching Network."""
    settings = METHODS[method]
    return Distillation(
        name=f"gtn-{method}",
        title=f"generated images, {NAMES[method]} ({SMALL})",
        teacher="GeneratorTeacher",
        teacher_args=settings["gtn"],
        metagrad=settings["metagrad"],
        metagrad_args=settings["metagrad_args"],
        fit_args=settings["gtn_fit"],
        teacher_seeds=settings.get("gtn_teachers", TEACHERS_PER_CELL),
    )


LIST: list[Experiment] = [
    *(pixels(method, per_class) for method in METHODS for per_class in PIXELS),
    *(gtn(method) for method in METHODS),
]
EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in LIST}
