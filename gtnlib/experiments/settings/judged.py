"""The recorded teachers judged by both protocols, beside as many real images."""

from __future__ import annotations

from dataclasses import replace

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.distillation import Distillation
from gtnlib.experiments.judgement import Judgement
from gtnlib.experiments.settings import ablations, cells, curriculum, search, transfer, tuned
from gtnlib.experiments.settings.recipes import SGD
from gtnlib.judge.protocols import LONG, LONG_AUGMENTED

TABLE = tuple(one.name for one in cells.LIST if isinstance(one, Distillation))
OTHERS = tuple(one.name for family in (curriculum, transfer, search) for one in family.LIST
               if isinstance(one, Distillation))  # fmt: skip
TUNED = tuple(one.name for one in tuned.LIST if isinstance(one, Distillation))
SINGLE, TEN, FIFTY = (
    tuple(name for name in TUNED if name.startswith("tuned-pixels-") and name.endswith(f"-{per_class}"))
    for per_class in (1, 10, 50)
)
CURES = tuple(one.name for one in ablations.LIST if isinstance(one, Distillation))
GENERATORS = tuple(name for name in TUNED if name.startswith("tuned-gtn-"))
NEAREST = ("real", "herding")
ALIKE = [
    Judgement("judged-tuned", "the tuned cells, judged alike", teachers=TEN, long_seeds=10),
    Judgement("judged-tuned-1", "the tuned single images of each class, judged alike", teachers=SINGLE,
              baselines=NEAREST, real_epochs=0, long_seeds=10),
    Judgement("judged-tuned-50", "the tuned sets of 500 images, judged alike", teachers=FIFTY,
              baselines=NEAREST, real_epochs=0),
    Judgement("judged-tuned-gtn", "the tuned generators, judged alike", teachers=GENERATORS,
              baselines=NEAREST, seeds=20),
]  # fmt: skip

LIST: list[Experiment] = [
    Judgement("judged-small", "a rehearsal of judged in minutes, with short protocols: no results",
              teachers=tuple(one.name for one in cells.HUNDRED), grid=SGD, long=replace(LONG, epochs=30),
              augmented=replace(LONG_AUGMENTED, epochs=30), real_epochs=1, seeds=2, long_seeds=2),
    Judgement("judged", "the teachers of the main table in their own lessons and in long training, and "
              "as many real images", teachers=TABLE, long_seeds=3),
    *(one for one in ALIKE if len(one.teachers) == 3),
    Judgement("judged-cures", "unrolled pixels with what might keep them from falling apart, judged alike",
              teachers=CURES, baselines=(), real_epochs=0, long_seeds=10),
    Judgement("judged-others", "the other teachers, judged alike", teachers=OTHERS, seeds=20, long_seeds=3),
    Judgement("judged-real", "100 real images in long training of 3 × 128 channels, as the literature has it",
              student=("ConvNet", {"width": 128, "depth": 3}), long=None, augmented=LONG_AUGMENTED,
              baselines=("real",), images=(100,), real_epochs=0, long_seeds=3),
]  # fmt: skip
