"""What an outer step costs, and how many steps on real images the learned ones save."""

from __future__ import annotations

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.comparison import Comparison
from gtnlib.experiments.cost import Cost
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.settings.cells import METHODS, RECORDED_TEACHERS
from gtnlib.experiments.settings.recipes import ADAM, OWN, SGD


def cost() -> Cost:
    """Recomputed and recorded unrolling, implicit differentiation and matching, of one GTN."""
    return Cost(
        name="cost",
        title="seconds and memory of an outer step against inner steps and the student's width",
        methods={
            "unrolled, graph kept": ("Unrolled", {"checkpoint": False, "loss_at": "last"}),
            "unrolled, recomputed": ("Unrolled", {"checkpoint": True, "loss_at": "last"}),
            "implicit": ("Implicit", {**METHODS["implicit"]["metagrad_args"], "damping": 5.0}),
            "matching": ("GradientMatching", {}),
        },
        teacher_args={"batch_size": 64, "rate": 0.02, "momentum": 0.5},
    )


def few_steps() -> Comparison:
    """Accuracy against inner steps: learned data, chosen and random real images, all real images."""
    teachers = {name: (Lessons(name), [OWN]) for name in RECORDED_TEACHERS}
    hundred = {name: (Lessons(name, batch_size=100, images=100), [*SGD, *ADAM])
               for name in ("real", "k_centre", "herding")}  # fmt: skip
    return Comparison(
        name="few-steps",
        title="accuracy after 4 to 128 steps on learned, chosen, random and all real images",
        sources={**teachers, **hundred, "passes": (Lessons("passes", batch_size=64), [*SGD, *ADAM])},
        students={"ConvNet": ("ConvNet", {})},
        steps=(4, 8, 16, 32, 64, 128),
        seeds=5,
    )


def many_steps() -> Comparison:
    """How many steps on all real images the learned ones stand for."""
    return Comparison(
        name="many-steps",
        title="accuracy after 256 to 1024 steps on all real images",
        sources={"passes": (Lessons("passes", batch_size=64), [*SGD, *ADAM])},
        students={"ConvNet": ("ConvNet", {})},
        steps=(256, 512, 1024),
        seeds=5,
    )


LIST: list[Experiment] = [cost(), few_steps(), many_steps()]
