"""Architectures ranked after a short training on what a teacher teaches, and after a full one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.search import Search
from gtnlib.experiments.settings.cells import METHODS, RECORDED_TEACHERS, SMALL, gtn_100, other_students
from gtnlib.experiments.settings.recipes import OWN
from gtnlib.experiments.settings.tuned import REAL, TUNED
from gtnlib.judge.training import Recipe
from gtnlib.students.space import SPACE, sample_architectures

# Where candidates are drawn from, and the most multiplications that one may need.
SEARCHED: Mapping[str, Sequence] = {**SPACE, "width": (4, 8, 16)}
LIMIT = 1_000_000

# Teachers that meet ConvNet and networks from the space that is searched.
MET = [("Architecture", asdict(architecture))
       for architecture in sample_architectures(20, seed=1, limit=LIMIT, space=SEARCHED)]  # fmt: skip
SEARCHERS = [
    other_students(gtn_100(method), "searcher", f"networks like those of the search ({SMALL})", others=MET)
    for method in ("unrolled", "matching")
]

# The short trainings see 2048 images or fewer, the full one about 150 000.
FRESH = Lessons("real", batch_size=64)
WITH_ADAM = (*(f"gtn-{method}" for method in METHODS), "gtn-unrolled-100", "gtn-matching-100",
             *(one.name for one in SEARCHERS))  # fmt: skip

# The lessons of the tuned cells, and as many real images in as many steps, by the same two recipes.
TRUTH = (Lessons("passes", batch_size=128), Recipe("adam", 0.003, steps=1170, cosine=True))
TAUGHT = {
    **{name: (Lessons(name), None) for name in TUNED},
    **{name: (Lessons(kind, batch_size=100, images=images), steps)
       for name, (kind, images, steps) in REAL.items()},
    "real-12800": (Lessons("real", batch_size=100), 128),
}  # fmt: skip
RECIPES = {kind: Recipe(kind, rate, cosine=True) for kind, rate in (("sgd", 0.1), ("adam", 0.003))}

SEARCH = Search(
    name="search",
    title="100 architectures ranked after a short training, and after a full one",
    truth=TRUTH,
    proxies={
        **{name: (Lessons(name), OWN) for name in RECORDED_TEACHERS},
        **{f"{name}-adam": (Lessons(name), Recipe("adam", 0.003)) for name in WITH_ADAM},
        "real": (FRESH, Recipe("sgd", 0.03, steps=32)),
        "real-adam": (FRESH, Recipe("adam", 0.003, steps=32)),
        "k_centre": (Lessons("k_centre", batch_size=64), Recipe("sgd", 0.03, steps=32)),
        "herding": (Lessons("herding", batch_size=64), Recipe("sgd", 0.03, steps=32)),
        "real-128": (FRESH, Recipe("sgd", 0.03, steps=128)),
    },
    truth_seeds=2,
    proxy_seeds=2,
    proxy_images=2000,
    limit=LIMIT,
    space=SEARCHED,
)

LIST: list[Experiment] = [
    *SEARCHERS,
    SEARCH,
    replace(
        SEARCH,
        name="search-tuned",
        title="the same after a short training on what the tuned cells teach, or on as many real images",
        truth_from=SEARCH.name,
        proxies={
            **{name: (Lessons(name), OWN) for name in TUNED},
            **{f"{name}-{kind}": (lessons, replace(recipe, steps=steps))
               for name, (lessons, steps) in TAUGHT.items() for kind, recipe in RECIPES.items()},
        },
    ),
]  # fmt: skip
