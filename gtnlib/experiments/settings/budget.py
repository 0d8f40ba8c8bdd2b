"""What an outer step costs, and how many steps on real images the learned ones save."""

from __future__ import annotations

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.comparison import Comparison
from gtnlib.experiments.cost import Cost
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.settings.cells import METHODS
from gtnlib.experiments.settings.recipes import FALLING
from gtnlib.experiments.settings.tuned import GENERATED_STEPS
from gtnlib.judge.training import Recipe

# Higher rates as well, for trainings of very different length.
WIDER = (*FALLING, Recipe("sgd", 0.3, cosine=True), Recipe("adam", 0.03, cosine=True))

LIST: list[Experiment] = [
    Cost(
        name="cost",
        title="seconds and memory of an outer step against inner steps and the student's width",
        methods={
            "unrolled, graph kept": ("Unrolled", {"checkpoint": False, "loss_at": "last"}),
            "unrolled, recomputed": ("Unrolled", {"checkpoint": True, "loss_at": "last"}),
            "implicit": ("Implicit", {**METHODS["implicit"]["metagrad_args"], "damping": 5.0}),
            "matching": ("GradientMatching", {}),
        },
        teacher_args={"batch_size": 64, "rate": 0.02, "momentum": 0.5},
    ),
    Comparison(
        name="shortcut",
        title="accuracy after 48 to 768 steps on all real images, at rates that fall",
        sources={"passes": (Lessons("passes", batch_size=100), WIDER)},
        students={"ConvNet": ("ConvNet", {})},
        steps=tuple(GENERATED_STEPS * 2**k for k in range(5)),
        seeds=10,
    ),
]
