"""Students that no teacher has met; and teachers that have met another student, or five."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.comparison import Comparison
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.settings.cells import HUNDRED, SMALL, other_students
from gtnlib.experiments.settings.recipes import FALLING, OWN, chosen, lasting
from gtnlib.experiments.settings.tuned import METHODS, REAL, TUNED
from gtnlib.judge.protocols import LONG, LONG_AUGMENTED

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

# Sets of 100 images in long training, for students that no teacher has met.
SIX = ("ConvNet, three blocks", "ConvNet, batch norm", "MLP", "LeNet", "AlexNet", "VisionTransformer")
SETS = {**{f"tuned-pixels-{method}-10": Lessons(f"tuned-pixels-{method}-10") for method in METHODS},
        **{kind: Lessons(kind, batch_size=100, images=100) for kind in ("real", "herding")}}  # fmt: skip
PROTOCOLS = {"long": LONG, "augmented": LONG_AUGMENTED}


LIST: list[Experiment] = [
    *MLPS,
    *MIXED,
    Comparison(
        name="transfer-mixed",
        title="twelve networks taught by teachers that have met one of them, another one, or five",
        sources=chosen([one.name for one in (*HUNDRED, *MLPS, *MIXED)]),
        students=TWELVE,
        seeds=5,
    ),
    Comparison(
        name="transfer-tuned",
        title="twelve networks taught by the tuned cells, which have met one of them",
        sources={
            **{name: (Lessons(name), [OWN]) for name in TUNED},
            **chosen(TUNED, FALLING),
            **{
                name: (Lessons(kind, batch_size=100, images=images), lasting(steps, FALLING))
                for name, (kind, images, steps) in REAL.items()
                if kind != "k_centre"
            },
        },
        students=TWELVE,
        seeds=5,
    ),
    Comparison(
        name="transfer-long",
        title="six networks that no teacher has met, trained for long on the images of the tuned cells",
        sources={
            f"{name}, {what}": (lessons, [protocol])
            for name, lessons in SETS.items()
            for what, protocol in PROTOCOLS.items()
        },
        students={name: TWELVE[name] for name in SIX},
        seeds=5,
    ),
]
