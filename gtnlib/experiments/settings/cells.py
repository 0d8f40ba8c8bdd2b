"""The main table: two teachers, three meta-gradients. What was tuned for each of them is here."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from gtnlib.experiments.distillation import Distillation, Mixture

SMALL = "small student: ConvNet of 16 and 32 channels"
TEACHERS_PER_CELL = 3

# Batches of an inner step: all images up to 10 per class, a batch at a time above.
PIXELS = {
    1: {"images_per_class": 1, "steps": 10},
    10: {"images_per_class": 10, "steps": 10},
    50: {"images_per_class": 50, "steps": 15, "batch_size": 100},
}
PIXEL_SGD = {"rate": 0.02, "momentum": 0.9}

# By name in the experiment: its class and arguments; and for pixels, for the generator, and for the
# generator with 100 images, what it needs of the teacher and of `fit`.
METHODS: dict[str, dict[str, Any]] = {
    "unrolled": {
        "metagrad": "Unrolled",
        "metagrad_args": {"loss_at": "every", "real_batch_size": 128},
        "pixels": {},
        "pixels_fit": {"outer_steps": 300, "rate": 0.1},
        "gtn": {"steps": 32, "batch_size": 64},
        "gtn_fit": {"outer_steps": 700, "rate": 3e-3},
        "gtn_teachers": 1,  # an outer step takes seconds on a CPU
        "gtn_100": {},
        "gtn_100_fit": {"outer_steps": 400, "rate": 3e-3},
        "gtn_100_teachers": 1,
    },
    "implicit": {
        "metagrad": "Implicit",
        "metagrad_args": {"solver": "neumann", "neumann_terms": 5, "power_iterations": 4, "batches": 1},
        "pixels": {"weight_decay": 0.1},
        "pixels_fit": {"outer_steps": 400, "rate": 0.1},
        "gtn": {"steps": 40, "batch_size": 100, "batches": 4, "weight_decay": 0.03},
        "gtn_args": {"batches": 4},
        "gtn_fit": {"outer_steps": 250, "rate": 5e-3},
        "gtn_teachers": 1,
        "gtn_100": {"weight_decay": 0.1},
        "gtn_100_fit": {"outer_steps": 400, "rate": 5e-3},
    },
    "matching": {
        "metagrad": "GradientMatching",
        "metagrad_args": {"distance": "cosine"},
        "pixels": {},
        "pixels_fit": {"outer_steps": 600, "rate": 0.1},
        "gtn": {"steps": 40, "batch_size": 100, "batches": 4, "rate": 0.05},
        "gtn_args": {"updates_per_student": 20},
        "gtn_fit": {"outer_steps": 1200, "rate": 1e-2},
        "gtn_100": {"rate": 0.05},
        "gtn_100_fit": {"outer_steps": 600, "rate": 1e-2},
    },
}
NAMES = {"unrolled": "unrolled", "implicit": "implicit differentiation", "matching": "gradient matching"}


def cell(method: str, kind: str, name: str, images: str, teacher: str, lesson: dict) -> Distillation:
    """The experiment of a method with what `METHODS` says of this kind of teacher."""
    settings = METHODS[method]
    return Distillation(
        name=name,
        title=f"{images}, {NAMES[method]} ({SMALL})",
        teacher=teacher,
        teacher_args={**lesson, **settings[kind]},
        metagrad=settings["metagrad"],
        metagrad_args={**settings["metagrad_args"], **settings.get(f"{kind}_args", {})},
        fit_args=settings[f"{kind}_fit"],
        teacher_seeds=settings.get(f"{kind}_teachers", TEACHERS_PER_CELL),
    )


def pixels(method: str, per_class: int) -> Distillation:
    """Dataset distillation to so many images per class."""
    images = f"{per_class} learned image{'' if per_class == 1 else 's'} per class"
    lesson = {**PIXELS[per_class], **PIXEL_SGD}
    one = cell(method, "pixels", f"pixels-{method}-{per_class}", images, "PixelTeacher", lesson)
    if per_class <= 10:
        return one
    # Not all images in every step: implicit differentiation takes the batches together.
    batches = {"batches": 5} if method == "implicit" else {}
    return replace(one, metagrad_args={**one.metagrad_args, **batches}, teacher_seeds=1)


def gtn_100(method: str) -> Distillation:
    """The same lesson for every method: 20 steps on one batch of 100 images."""
    lesson = {"steps": 20, "batch_size": 100, "batches": 1}
    return cell(method, "gtn_100", f"gtn-{method}-100", "100 generated images", "GeneratorTeacher", lesson)


def other_students(one: Distillation, suffix: str, words: str, **changes: Any) -> Mixture:
    """The same cell with one teacher that meets other students."""
    arguments = {field.name: getattr(one, field.name) for field in fields(one)}
    title = f"{one.title.removesuffix(f' ({SMALL})')}, {words}"
    return Mixture(**{**arguments, "name": f"{one.name}-{suffix}", "title": title, "teacher_seeds": 1,
                      **changes})  # fmt: skip


LIST: list[Distillation] = [
    *(pixels(method, per_class) for method in METHODS for per_class in PIXELS),
    # Of the generator, the lesson that served the method best.
    *(cell(method, "gtn", f"gtn-{method}", "generated images", "GeneratorTeacher", {}) for method in METHODS),
    *(gtn_100(method) for method in METHODS),
]
HUNDRED = [*(pixels(method, 10) for method in METHODS), *(gtn_100(method) for method in METHODS)]
RECORDED_TEACHERS = (*(f"gtn-{method}" for method in METHODS), *(f"pixels-{method}-10" for method in METHODS))
