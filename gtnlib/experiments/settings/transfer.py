"""Students that no teacher has met; and teachers that have met another student, or five."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.comparison import Comparison
from gtnlib.experiments.distillation import Distillation, Mixture
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.settings.cells import HUNDRED, RECORDED_TEACHERS, SMALL, other_students
from gtnlib.experiments.settings.recipes import ADAM, OWN, SGD, chosen

# Next to ConvNet, the students of a teacher that is to serve many kinds.
OTHERS: Sequence[tuple[str, Mapping]] = (
    ("ConvNet", {"norm": "batch"}),
    ("ConvNet", {"norm": "none"}),
    ("MLP", {}),
    ("LeNet", {}),
)


def mixed(one: Distillation) -> Mixture:
    """The same cell with one teacher, as many outer steps, and one of five students in each."""
    return other_students(one, "mixed", f"five students ({SMALL})", others=OTHERS)


def perceptron(one: Distillation) -> Mixture:
    """The same cell with one teacher that meets the perceptron in place of the ConvNet."""
    return other_students(one, "mlp", "perceptron", student="MLP")


MIXED, MLPS = [mixed(one) for one in HUNDRED], [perceptron(one) for one in HUNDRED]
TWELVE: Mapping[str, tuple[str, Mapping]] = {
    "ConvNet": ("ConvNet", {}),
    "ConvNet, half as wide": ("ConvNet", {"width": [8, 16]}),
    "ConvNet, twice as wide": ("ConvNet", {"width": [32, 64]}),
    "ConvNet, three blocks": ("ConvNet", {"width": [16, 32, 64]}),
    "ConvNet, batch norm": ("ConvNet", {"norm": "batch"}),
    "ConvNet, no norm": ("ConvNet", {"norm": "none"}),
    "MLP": ("MLP", {}),
    "LeNet": ("LeNet", {}),
    "AlexNet": ("AlexNet", {}),
    "VGG": ("VGG", {}),
    "ResNet": ("ResNet", {}),
    "VisionTransformer": ("VisionTransformer", {}),
}


def transfer() -> Comparison:
    """Students that no teacher has met, but for the first; by the teacher's recipe and by a chosen one."""
    short = [replace(recipe, steps=32) for recipe in (*SGD, *ADAM)]
    return Comparison(
        name="transfer",
        title="twelve networks taught by teachers that have met one of them",
        sources={
            **{name: (Lessons(name), [OWN]) for name in RECORDED_TEACHERS},
            **chosen(RECORDED_TEACHERS),
            "real": (Lessons("real", batch_size=64), short),
        },
        students=TWELVE,
        seeds=5,
    )


def transfer_mixed() -> Comparison:
    """The same students, from teachers of 100 images that have met ConvNet, the perceptron or five kinds."""
    return Comparison(
        name="transfer-mixed",
        title="twelve networks taught by teachers that have met one of them, another one, or five",
        sources=chosen([one.name for one in (*HUNDRED, *MLPS, *MIXED)]),
        students=TWELVE,
        seeds=5,
    )


LIST: list[Experiment] = [*MLPS, *MIXED, transfer(), transfer_mixed()]
