"""What each part of a tuned cell is worth, and what might make it better: one change at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gtnlib.experiments.distillation import Distillation
from gtnlib.experiments.settings.tuned import CHOSEN, GENERATORS, METHODS, generator, pixels, tuned, tuning
from gtnlib.experiments.trials import Trials

COMMON: Mapping[str, Mapping] = {
    "as it is": {},
    "from herding": {"start": "herding"},
    "from k-centre": {"start": "k_centre"},
    "labels learned": {"teacher_args": {"learn_labels": True}},
}
OWN: Mapping[str, Mapping[str, Mapping]] = {
    "unrolled": {
        "rates not learned": {"teacher_args": {"learn_rates": False}},
        "loss at every step": {"metagrad_args": {"loss_at": "every"}},
    },
    "implicit": {
        "4 products": {"metagrad_args": {"products": 4}},
        "16 products": {"metagrad_args": {"products": 16}},
        "5 Neumann terms": {"metagrad_args": {"solver": "neumann", "neumann_terms": 5}},
        "20 Neumann terms": {"metagrad_args": {"solver": "neumann", "neumann_terms": 20}},
    },
    "matching": {
        "cosine of the whole gradient": {"metagrad_args": {"distance": "cosine"}},
        "squared error": {"metagrad_args": {"distance": "squared-error"}},
        "5 updates a student": {"metagrad_args": {"updates_per_student": 5}},
        "40 updates a student": {"metagrad_args": {"updates_per_student": 40}},
    },
}
# Of a generator, each with as many outer steps as the teacher had where it names no other number.
AHEAD: Mapping[str, Any] = {"start": "random", "fit_args": {"rate": 1e-3}}
COSINE: Mapping[str, Any] = {"metagrad_args": {"distance": "cosine"}}
# Whether it was still rising: the end of a falling rate hides that.
KEPT: Mapping[str, Any] = {"fit_args": {"final_rate": 1.0}}
IDEAS: Mapping[str, Mapping[str, Mapping]] = {
    "unrolled": {
        "1600 images": {"teacher_args": {"batches": 16}},
        "64 steps on 6400 images": {"teacher_args": {"steps": 64, "batches": 64}},
        "labels learned": {"teacher_args": {"learn_labels": True}},
        "Adam's rate kept": KEPT,
    },
    "implicit": {
        "from random, Adam 0.001": AHEAD,
        "1600 images": {"teacher_args": {"batches": 16}},
        "8 products": {"metagrad_args": {"products": 8}},
        "Adam's rate kept": KEPT,
    },
    "matching": {
        "cosine of the whole gradient": COSINE,
        # Which takes as long as the teachers of the other two methods.
        "the same, 6000 outer steps": {**COSINE, "fit_args": {"outer_steps": 6000}},
        "the same, from random, Adam 0.001": {**COSINE, **AHEAD},
        "the same, labels learned": {**COSINE, "teacher_args": {"learn_labels": True}},
    },
}
# And of 100 pixel images: a change, two more on top of it, and whether the cell was still rising.
CHANGE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "unrolled": ("from k-centre", {"start": "k_centre"}),
    "implicit": ("from k-centre", {"start": "k_centre"}),
    "matching": ("cosine of the whole gradient", COSINE),
}
PIXEL_IDEAS: Mapping[str, Mapping[str, Mapping]] = {
    method: {
        words: change,
        "the same, twice the outer steps": {
            **change, "fit_args": {"outer_steps": 2 * METHODS[method]["teacher"]}},
        "the same, labels learned": {**change, "teacher_args": {"learn_labels": True}},
        "Adam's rate kept": KEPT,
    }
    for method, (words, change) in CHANGE.items()
}  # fmt: skip
# What might keep unrolled images from falling apart in long training: as many outer steps of lessons that
# are not always the same, or seen in part.
CURES: Mapping[str, tuple[str, Mapping[str, Mapping]]] = {
    "rates": ("rates not learned", {"teacher_args": {"learn_rates": False}}),
    "augmented": ("augmented lessons", {"fit_args": {"lessons": {"augment": True}}}),
    "varied": (
        "lessons of 20 to 60 steps, rates halved to doubled",
        {"fit_args": {"lessons": {"length": [20, 60], "rate_factor": 2.0}}},
    ),
    "window": ("a window of 20 steps", {"metagrad_args": {"window": 20}}),
}


def ablation(method: str) -> Trials:
    """Changes of the tuned cell of 100 pixel images, each with one teacher."""
    base = pixels(method, 10)
    cell = replace(tuned(base, METHODS[method]["trial"]), teacher_seeds=1)
    return Trials(f"ablation-{base.name.removeprefix('tuned-')}", f"one change at a time of {base.name}",
                  cell, {**COMMON, **OWN[method]})  # fmt: skip


def ideas(base: Distillation, outer_steps: int, changes: Mapping[str, Mapping]) -> Trials:
    """Changes that might make a tuned cell better, each with one teacher."""
    cell = replace(tuned(base, outer_steps), teacher_seeds=1)
    return Trials(f"ideas-{cell.name.removeprefix('tuned-')}", f"what might improve {cell.name}", cell,
                  changes)  # fmt: skip


def cure(key: str) -> Distillation:
    """The tuned cell of 100 unrolled pixel images with one of `CURES`."""
    words, change = CURES[key]
    cell = tuned(pixels("unrolled", 10), METHODS["unrolled"]["teacher"])
    changed: dict[str, Any] = {part: {**getattr(cell, part), **values} for part, values in change.items()}
    return replace(cell, name=f"cured-{key}", title=f"{cell.title}, {words}", teacher_seeds=1, **changed)


IMPROVED = [
    *((generator(method), GENERATORS[method]["teacher"], IDEAS[method]) for method in GENERATORS),
    *((pixels(method, 10), METHODS[method]["teacher"], PIXEL_IDEAS[method]) for method in METHODS),
]
LIST = [
    *(cure(key) for key in CURES),
    *(ablation(method) for method in METHODS if tuning(pixels(method, 10)).name in CHOSEN),
    *(ideas(*one) for one in IMPROVED if tuning(one[0]).name in CHOSEN),
]
