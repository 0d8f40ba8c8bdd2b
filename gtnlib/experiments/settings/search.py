"""Architectures ranked after a short training on what a teacher teaches, and after a full one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.distillation import Distillation, Mixture
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.search import Search
from gtnlib.experiments.settings.cells import METHODS, RECORDED_TEACHERS, SMALL, gtn_100, other_students
from gtnlib.experiments.settings.recipes import OWN
from gtnlib.judge.training import Recipe
from gtnlib.students.space import SPACE, sample_architectures

# Where candidates are drawn from, and the most multiplications that one may need.
SEARCHED: Mapping[str, Sequence] = {**SPACE, "width": (4, 8, 16)}
LIMIT = 1_000_000


def searcher(one: Distillation) -> Mixture:
    """The same cell with one teacher that meets ConvNet and networks from the space that is searched."""
    others = [("Architecture", asdict(architecture))
              for architecture in sample_architectures(20, seed=1, limit=LIMIT, space=SEARCHED)]  # fmt: skip
    return other_students(one, "searcher", f"networks like those of the search ({SMALL})", others=others)


SEARCHERS = [searcher(gtn_100(method)) for method in ("unrolled", "matching")]


def search() -> Search:
    """100 candidates; the short trainings see 2048 images or fewer, the full one about 150 000."""
    fresh = Lessons("real", batch_size=64)
    with_adam = [*(f"gtn-{method}" for method in METHODS), "gtn-unrolled-100", "gtn-matching-100",
                 *(one.name for one in SEARCHERS)]  # fmt: skip
    return Search(
        name="search",
        title="100 architectures ranked after a short training, and after a full one",
        truth=(Lessons("passes", batch_size=128), Recipe("adam", 0.003, steps=1170, cosine=True)),
        proxies={
            **{name: (Lessons(name), OWN) for name in RECORDED_TEACHERS},
            **{f"{name}-adam": (Lessons(name), Recipe("adam", 0.003)) for name in with_adam},
            "real": (fresh, Recipe("sgd", 0.03, steps=32)),
            "real-adam": (fresh, Recipe("adam", 0.003, steps=32)),
            "k_centre": (Lessons("k_centre", batch_size=64), Recipe("sgd", 0.03, steps=32)),
            "herding": (Lessons("herding", batch_size=64), Recipe("sgd", 0.03, steps=32)),
            "real-128": (fresh, Recipe("sgd", 0.03, steps=128)),
        },
        truth_seeds=2,
        proxy_seeds=2,
        proxy_images=2000,
        limit=LIMIT,
        space=SEARCHED,
    )


LIST: list[Experiment] = [*SEARCHERS, search()]
