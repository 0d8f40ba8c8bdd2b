"""Four ways to improve a teacher, one interface.

A meta-gradient is called as metagrad(teacher, run, split, generator): it trains the student `run` as
far as it needs, adds its gradient to the .grad of the teacher's parameters, and returns its loss.
"""

from gtnlib.metagrad.distribution import DistributionMatching
from gtnlib.metagrad.implicit import Implicit
from gtnlib.metagrad.matching import DISTANCES, GradientMatching
from gtnlib.metagrad.unrolled import Unrolled

__all__ = ["DISTANCES", "DistributionMatching", "GradientMatching", "Implicit", "Unrolled"]
