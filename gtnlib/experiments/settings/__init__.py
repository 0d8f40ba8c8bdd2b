"""The named experiments of the book: all their settings, a file per family, to read and to tune.

Unless a name says otherwise, every student is `ConvNet()`, two blocks of 16 and 32 channels: smaller
than the three blocks of 128 channels that most tables use, so that a CPU is enough.
"""

from gtnlib.experiments.base import Experiment
from gtnlib.experiments.settings import (
    ablations, budget, cells, curriculum, judged, search, transfer, tuned,
)  # fmt: skip

FAMILIES = (cells, curriculum, transfer, search, budget, judged, tuned, ablations)
EXPERIMENTS: dict[str, Experiment] = {one.name: one for family in FAMILIES for one in family.LIST}
