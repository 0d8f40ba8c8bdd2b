"""The cells once more: one lesson and one grid for every method, chosen on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.distillation import Distillation
from gtnlib.experiments.records import Record
from gtnlib.experiments.settings.cells import NAMES, SMALL
from gtnlib.experiments.trials import Trials, accuracies

# One lesson: 40 steps on batches of at most 100 images, the student's rate falling along a line to a
# twentieth. One image per class makes ten images, a smaller batch.
LESSON_STEPS = 40
LESSON = {"steps": LESSON_STEPS, "momentum": 0.9, "weight_decay": 0.02}
SETS = {
    1: {"images_per_class": 1},
    10: {"images_per_class": 10},
    50: {"images_per_class": 50, "batch_size": 100},
}

# Of each method: its class and arguments, and the outer steps of a trial and of a teacher. An outer step of
# one method is dearer than of another, so it has fewer of them; matching has the least time all the same.
METHODS: Mapping[str, dict[str, Any]] = {
    "unrolled": {"metagrad": "Unrolled", "metagrad_args": {"loss_at": "last", "real_batch_size": 256},
                 "trial": 40, "teacher": 200},
    "implicit": {"metagrad": "Implicit", "metagrad_args": {"solver": "cg", "products": 8, "batches": None},
                 "trial": 120, "teacher": 500},
    "matching": {"metagrad": "GradientMatching", "metagrad_args": {"updates_per_student": 20},
                 "trial": 250, "teacher": 800},
}  # fmt: skip

# A step on ten images takes a fraction of the time; products with all five batches of 500, five times it.
OUTER_STEPS: Mapping[tuple[str, int], dict[str, int]] = {
    ("unrolled", 1): {"trial": 100, "teacher": 500},
    ("implicit", 1): {"trial": 200, "teacher": 800},
    ("matching", 1): {"teacher": 1000},
    ("implicit", 50): {"trial": 30, "teacher": 250},
}

# The grid: where images start, the student's first rate, and the rate of Adam. Students learn from ten
# images at lower rates, and each of these images learns at a higher one.
STARTS, RATES, OUTER_RATES = ("noise", "random"), (0.05, 0.1), (0.02, 0.06)
LOWER: Mapping[int, tuple[Sequence[float], Sequence[float]]] = {1: ((0.01, 0.02, 0.05), (0.03, 0.1))}

# The same of a generator: one lesson, 48 steps on eight batches of 100 images, one grid.
GENERATED_STEPS = 48
GENERATED = {"steps": GENERATED_STEPS, "momentum": 0.9, "weight_decay": 0.02, "batch_size": 100, "batches": 8}
CHANGES: Mapping[str, dict[str, Any]] = {
    "unrolled": {"teacher": 500},
    "implicit": {"metagrad_args": {"solver": "cg", "products": 5, "batches": None}, "trial": 40},
    "matching": {"trial": 300, "teacher": 3000},
}
GENERATORS = {method: {**settings, **CHANGES[method]} for method, settings in METHODS.items()}
GENERATOR_RATES = (3e-3, 1e-2)

# What the grid chose: words of the best trial in the record `tune-…`, which a test compares.
CHOSEN: Mapping[str, str] = {
    "tune-pixels-unrolled-1": "from random, student 0.01, Adam 0.1",
    "tune-pixels-implicit-1": "from noise, student 0.02, Adam 0.1",
    "tune-pixels-matching-1": "from noise, student 0.05, Adam 0.1",
    "tune-pixels-unrolled-10": "from random, student 0.05, Adam 0.06",
    "tune-pixels-implicit-10": "from random, student 0.05, Adam 0.06",
    "tune-pixels-matching-10": "from random, student 0.1, Adam 0.06",
    "tune-gtn-unrolled": "student 0.05, Adam 0.01",
    "tune-gtn-implicit": "student 0.1, Adam 0.01",
    "tune-gtn-matching": "student 0.05, Adam 0.003",
}


def best(record: Record) -> str:
    """The trial with the highest mean of its students' validation accuracies less their standard deviation.

    Less the deviation, since images that grow sharper as they are learned let single students jump.
    """
    found = accuracies(record)
    return max(found, key=lambda words: found[words].mean - found[words].std)


def rates(student: float, outer: float) -> dict[str, dict[str, float]]:
    """A trial's rate of the student, falling to a twentieth, and of Adam."""
    return {"teacher_args": {"rate": student, "final_rate": student / 20}, "fit_args": {"rate": outer}}


def grid(per_class: int) -> dict[str, dict[str, Any]]:
    """What each trial of pixels changes, by words; the same for every method."""
    student, adam = LOWER.get(per_class, (RATES, OUTER_RATES))
    return {
        f"from {start}, student {rate}, Adam {outer}": {"start": start, **rates(rate, outer)}
        for start, rate, outer in product(STARTS, student, adam)
    }


def generator_grid() -> dict[str, dict[str, Any]]:
    """The same of a generator, from noise."""
    return {f"student {rate}, Adam {outer}": rates(rate, outer)
            for rate, outer in product(RATES, GENERATOR_RATES)}  # fmt: skip


def pixels(method: str, per_class: int) -> Distillation:
    """Dataset distillation to so many images per class, before anything is chosen."""
    images = f"{per_class} learned image{'' if per_class == 1 else 's'} per class"
    lesson = {**LESSON, **SETS[per_class]}
    return cell(f"pixels-{method}-{per_class}", images, "PixelTeacher", lesson, method,
                settings(method, per_class))  # fmt: skip


def settings(method: str, per_class: int) -> dict[str, Any]:
    """What `METHODS` says of a method, for so many images."""
    return {**METHODS[method], **OUTER_STEPS.get((method, per_class), {})}


def generator(method: str) -> Distillation:
    """A GTN, before anything is chosen."""
    images = "800 generated images"
    return cell(f"gtn-{method}", images, "GeneratorTeacher", GENERATED, method, GENERATORS[method])


def cell(name: str, images: str, teacher: str, lesson: Mapping, method: str, of: Mapping) -> Distillation:
    return Distillation(
        name=f"tuned-{name}",
        title=f"{images}, {NAMES[method]}, tuned ({SMALL})",
        teacher=teacher,
        teacher_args=lesson,
        metagrad=of["metagrad"],
        metagrad_args=of["metagrad_args"],
        fit_args={"outer_steps": of["trial"]},
        evaluation_seeds=5,
    )


def tuning(base: Distillation) -> Trials:
    """Every point of the grid, with a teacher that is trained for a few minutes."""
    generated = base.teacher == "GeneratorTeacher"
    trials = generator_grid() if generated else grid(base.teacher_args["images_per_class"])
    return Trials(f"tune-{base.name.removeprefix('tuned-')}", f"the grid for {base.name}", base, trials)


def tuned(base: Distillation, outer_steps: int) -> Distillation:
    """The cell as the grid chose it: two teachers of pixels, one generator, ten students each."""
    trials = tuning(base)
    chosen = trials.variants()[CHOSEN[trials.name]]
    longer = {**chosen.fit_args, "outer_steps": outer_steps}
    teachers = 2 if base.teacher == "PixelTeacher" else 1
    return replace(chosen, fit_args=longer, teacher_seeds=teachers, evaluation_seeds=10)


# Every cell, and the outer steps of its teachers.
CELLS: list[tuple[Distillation, int]] = [
    *((pixels(*one), settings(*one)["teacher"]) for one in product(METHODS, SETS)),
    *((generator(method), GENERATORS[method]["teacher"]) for method in GENERATORS),
]
TUNING = [tuning(base) for base, _ in CELLS]
RECORDED = [tuned(*one) for one, trials in zip(CELLS, TUNING, strict=True) if trials.name in CHOSEN]
# Of 100 pixel images and of 800 generated ones, by every method.
TUNED = tuple(one.name for one in RECORDED if one.name.endswith("-10") or one.teacher == "GeneratorTeacher")
# As many real images in as many steps as they have: which ones, how many, and the steps.
REAL = {f"{kind}-{images}": (kind, images, steps)
        for images, steps in ((100, LESSON_STEPS), (800, GENERATED_STEPS))
        for kind in ("real", "herding", "k_centre")}  # fmt: skip
LIST: list[Experiment] = [
    *TUNING,
    *RECORDED,
]
