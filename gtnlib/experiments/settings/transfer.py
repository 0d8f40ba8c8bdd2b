"""Students that no teacher has met; and teachers that have met another student, or five."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.comparison import Comparison
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.settings.cells import HUNDRED, RECORDED_TEACHERS, SMALL, other_students
from gtnlib.experiments.settings.recipes import ADAM, OWN, SGD, chosen
from gtnlib.experiments.settings.tuned import LESSON_STEPS, METHODS
from gtnlib.judge.protocols import LONG, LONG_AUGMENTED, Protocol
from gtnlib.judge.training import Recipe

# Next to ConvNet, the students of a teacher that is to serve many kinds.
OTHERS: Sequence[tuple[str, Mapping]] = (
    ("ConvNet", {"norm": "batch"}),
    ("ConvNet", {"norm": "none"}),
    ("MLP", {}),
    ("LeNet", {}),
)
# One teacher as before, but for the students it meets: one of five at every outer step, or the perceptron.
MIXED = [other_students(one, "mixed", f"five students ({SMALL})", others=OTHERS) for one in HUNDRED]
MLPS = [other_students(one, "mlp", "perceptron", student="MLP") for one in HUNDRED]
TWELVE: Mapping[str, tuple[str, Mapping]] = {
    "ConvNet": ("ConvNet", {}),
    "ConvNet, half as wide": ("ConvNet", {"width": [8, 16]}),
    "ConvNet, twice as wide": ("ConvNet", {"width": [32, 64]}),
    "ConvNet, three blocks": ("ConvNet", {"width": [16, 32, 64]}),
    "ConvNet, batch norm": ("ConvNet", {"norm": "batch"}),
    "ConvNet, no norm": ("ConvNet", {"norm": "none"}),
    **{name: (name, {}) for name in ("MLP", "LeNet", "AlexNet", "VGG", "ResNet", "VisionTransformer")},
}


def short(steps: int) -> list[Recipe]:
    """Every recipe at a constant rate, for so many steps: of real images, which prescribe none."""
    return [replace(recipe, steps=steps) for recipe in (*SGD, *ADAM)]


# Sets of 100 images in both kinds of protocol, for students that no teacher has met.
SIX = ("ConvNet, three blocks", "ConvNet, batch norm", "MLP", "LeNet", "AlexNet", "VisionTransformer")
SETS = {**{f"tuned-pixels-{method}-10": Lessons(f"tuned-pixels-{method}-10") for method in METHODS},
        **{kind: Lessons(kind, batch_size=100, images=100) for kind in ("real", "herding")}}  # fmt: skip
PROTOCOLS = {"long": LONG, "augmented": LONG_AUGMENTED}


def judged(name: str, lessons: Lessons) -> dict[str, tuple[Lessons, Sequence[Recipe | Protocol]]]:
    """The set in a lesson, by whichever recipe serves the student, and by both protocols of epochs."""
    recipes = [OWN, *SGD, *ADAM] if lessons.recorded else short(LESSON_STEPS)
    return {f"{name}, lesson": (lessons, recipes)} | {
        f"{name}, {what}": (lessons, [protocol]) for what, protocol in PROTOCOLS.items()
    }


LIST: list[Experiment] = [
    *MLPS,
    *MIXED,
    Comparison(
        name="transfer",
        title="twelve networks taught by teachers that have met one of them",
        sources={
            **{name: (Lessons(name), [OWN]) for name in RECORDED_TEACHERS},
            **chosen(RECORDED_TEACHERS),
            "real": (Lessons("real", batch_size=64), short(32)),
        },
        students=TWELVE,
        seeds=5,
    ),
    Comparison(
        name="transfer-mixed",
        title="twelve networks taught by teachers that have met one of them, another one, or five",
        sources=chosen([one.name for one in (*HUNDRED, *MLPS, *MIXED)]),
        students=TWELVE,
        seeds=5,
    ),
    Comparison(
        name="transfer-tuned",
        title="six networks that no teacher has met, taught by the tuned cells, in lessons and for long",
        sources={name: source for one in SETS.items() for name, source in judged(*one).items()},
        students={name: TWELVE[name] for name in SIX},
        seeds=5,
    ),
]
