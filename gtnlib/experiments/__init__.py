"""Named experiments: each a typed configuration that can be run, resumed, recorded and checked.

python -m gtnlib.experiments list | show NAME | run NAME | check NAME | table
"""

from gtnlib.experiments.base import Check, Context, Experiment
from gtnlib.experiments.comparison import Comparison
from gtnlib.experiments.cost import Cost
from gtnlib.experiments.distillation import Distillation, Mixture
from gtnlib.experiments.judgement import Judgement
from gtnlib.experiments.lessons import Lessons
from gtnlib.experiments.search import Search
from gtnlib.experiments.settings import EXPERIMENTS
from gtnlib.experiments.trials import Trials

__all__ = ["EXPERIMENTS", "Check", "Comparison", "Context", "Cost", "Distillation", "Experiment",
           "Judgement", "Lessons", "Mixture", "Search", "Trials"]  # fmt: skip
