"""The pixel cells once more: one lesson and one grid for every method, chosen on validation images."""

from __future__ import annotations

from collections.abc import Mapping
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
LESSON = {"steps": 40, "momentum": 0.9, "weight_decay": 0.02}
SETS = {
    1: {"images_per_class": 1},
    10: {"images_per_class": 10},
    50: {"images_per_class": 50, "batch_size": 100},
}

# Of each method: its class and arguments, and the outer steps of a trial and of a teacher. Trials are to
# take about as long as each other, teachers as well; an outer step of one method is dearer than of another.
METHODS: Mapping[str, dict[str, Any]] = {
    "unrolled": {"metagrad": "Unrolled", "metagrad_args": {"loss_at": "last", "real_batch_size": 256},
                 "trial": 40, "teacher": 200},
    "implicit": {"metagrad": "Implicit", "metagrad_args": {"solver": "cg", "products": 8, "batches": None},
                 "trial": 120, "teacher": 500},
    "matching": {"metagrad": "GradientMatching", "metagrad_args": {"updates_per_student": 20},
                 "trial": 250, "teacher": 800},
}  # fmt: skip

# The grid: where images start, the student's first rate, and the rate of Adam.
STARTS, RATES, OUTER_RATES = ("noise", "random"), (0.05, 0.1), (0.02, 0.06)

# What the grid chose: words of the best trial in the record `tune-…`, which a test compares.
CHOSEN: Mapping[str, str] = {
    "tune-pixels-implicit-10": "from random, student 0.05, Adam 0.06",
    "tune-pixels-matching-10": "from random, student 0.1, Adam 0.06",
}


def best(record: Record) -> str:
    """The trial with the highest mean of its students' validation accuracies less their standard deviation.

    Less the deviation, since images that grow sharper as they are learned let single students jump.
    """
    found = accuracies(record)
    return max(found, key=lambda words: found[words].mean - found[words].std)


def grid() -> dict[str, dict[str, Any]]:
    """What each trial changes, by words; the same for every method."""
    return {
        f"from {start}, student {rate}, Adam {outer}": {
            "start": start,
            "teacher_args": {"rate": rate, "final_rate": rate / 20},
            "fit_args": {"rate": outer},
        }
        for start, rate, outer in product(STARTS, RATES, OUTER_RATES)
    }


def pixels(method: str, per_class: int) -> Distillation:
    """Dataset distillation to so many images per class, before anything is chosen."""
    settings, images = METHODS[method], f"{per_class} learned image{'' if per_class == 1 else 's'} per class"
    return Distillation(
        name=f"tuned-pixels-{method}-{per_class}",
        title=f"{images}, {NAMES[method]}, tuned ({SMALL})",
        teacher="PixelTeacher",
        teacher_args={**LESSON, **SETS[per_class]},
        metagrad=settings["metagrad"],
        metagrad_args=settings["metagrad_args"],
        fit_args={"outer_steps": settings["trial"]},
        evaluation_seeds=5,
    )


def tuning(method: str, per_class: int) -> Trials:
    """Every point of the grid, with a teacher that is trained for a minute or two."""
    base = pixels(method, per_class)
    return Trials(f"tune-{base.name.removeprefix('tuned-')}", f"the grid for {base.name}", base, grid())


def tuned(method: str, per_class: int) -> Distillation:
    """The cell as the grid chose it: two teachers, ten students each."""
    trials = tuning(method, per_class)
    best = trials.variants()[CHOSEN[trials.name]]
    longer = {**best.fit_args, "outer_steps": METHODS[method]["teacher"]}
    return replace(best, fit_args=longer, teacher_seeds=2, evaluation_seeds=10)


TUNING = {trials.name: (trials, cell) for cell in product(METHODS, SETS) for trials in [tuning(*cell)]}
LIST: list[Experiment] = [
    *(trials for trials, _ in TUNING.values()),
    *(tuned(*cell) for name, (_, cell) in TUNING.items() if name in CHOSEN),
]
