"""A smaller unrolled GTN with one thing changed, and a learned curriculum out of order."""

from __future__ import annotations

from typing import Any

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.comparison import Comparison
from gtnlib.experiments.distillation import Distillation
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.settings.cells import METHODS, SMALL
from gtnlib.experiments.settings.recipes import OWN


def curriculum(what: str, title: str, **changes: Any) -> Distillation:
    """A smaller unrolled GTN, with one thing changed."""
    settings = METHODS["unrolled"]
    return Distillation(
        name=f"curriculum-{what}",
        title=f"generated images, unrolled, {title} ({SMALL})",
        teacher="GeneratorTeacher",
        teacher_args={"steps": 16, "batch_size": 32, "hidden": 64, "channels": 16, **changes},
        metagrad=settings["metagrad"],
        metagrad_args=settings["metagrad_args"],
        fit_args={"outer_steps": 300, "rate": 3e-3},
    )


LIST: list[Experiment] = [
    curriculum("learned", "learned noise and rates"),
    curriculum("fixed", "fixed noise", curriculum="fixed"),
    curriculum("fresh", "fresh noise for every student", curriculum="fresh"),
    curriculum("fixed-rates", "fixed rates", learn_rates=False),
    Comparison(
        name="curriculum-order",
        title="a learned curriculum in its own order and in random ones",
        sources={
            "in order": (Lessons("gtn-unrolled"), [OWN]),
            "shuffled": (Lessons("gtn-unrolled", shuffled=True), [OWN]),
        },
        students={"ConvNet": ("ConvNet", {})},
        steps=(2, 4, 8, 16, 32),
        seeds=10,
    ),
]
