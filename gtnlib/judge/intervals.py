"""Is one better than the other? Differences between two methods with paired bootstrap intervals.

A claim of order needs an interval that excludes zero: `Interval.excludes(0)`.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from gtnlib.judge.ranking import KINDS, Interval, check_bootstrap, check_pair, correlate
from gtnlib.support.errors import check_choice


def difference(one, two, level: float = 0.95, resamples: int = 9999, seed: int = 0) -> Interval:
    """Mean of one − two, numbers measured for the same seeds in the same order, and its interval.

    The percentile bootstrap over seeds (Efron 1979), by scipy. For few seeds it is too narrow, so its
    level is raised to what gives Student's interval for normal differences (Hesterberg 2015, "What
    teachers should know about the bootstrap", expanded percentile). For ten seeds it then holds; of five,
    intervals at 95 % cover 92 % (simulated).
    """
    one, two = check_pair(one, two, "numbers", 2)
    check_bootstrap(level, resamples)
    differences, n = one - two, len(one)
    if np.ptp(differences) == 0:
        return Interval(*[float(differences[0])] * 3)
    tail = stats.norm.cdf(-((n / (n - 1)) ** 0.5) * stats.t.ppf((1 + level) / 2, n - 1))
    found = stats.bootstrap((differences,), np.mean, n_resamples=resamples, confidence_level=1 - 2 * tail,
                            method="percentile", rng=np.random.default_rng(seed))  # fmt: skip
    return Interval(float(differences.mean()), *map(float, found.confidence_interval))


def correlation_difference(one, two, truth, kind: str = "spearman", level: float = 0.95,
                           resamples: int = 2000, seed: int = 0) -> Interval:  # fmt: skip
    """How much better `one` ranks the candidates than `two`: difference of their correlations with `truth`.

    The percentile bootstrap over candidates, by scipy: all three scores of a candidate are drawn together.
    """
    check_choice("kind", kind, KINDS)
    one, truth = check_pair(one, truth)
    two, _ = check_pair(two, truth)
    check_bootstrap(level, resamples)

    def statistic(one, two, truth, axis=-1):
        return correlate(one, truth, kind) - correlate(two, truth, kind)

    found = stats.bootstrap(
        (one, two, truth), statistic, paired=True, n_resamples=resamples, confidence_level=level,
        method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Interval(float(statistic(one, two, truth)), *map(float, found.confidence_interval))
