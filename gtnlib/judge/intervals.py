"""Is one better than the other? Differences between two methods with paired intervals.

A claim of order needs an interval that excludes zero: `Interval.excludes(0)`.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from gtnlib.judge.ranking import KINDS, Interval, check_bootstrap, check_level, check_pair, correlate
from gtnlib.support.errors import check_choice


def difference(one, two, level: float = 0.95) -> Interval:
    """Mean of one − two, numbers measured for the same seeds in the same order, and its interval.

    Student's paired interval, by scipy: right at any number of seeds from two on if the differences are
    about normal, and wide where seeds are few (of three, 4.3 standard errors either way).
    """
    one, two = check_pair(one, two, "numbers", 2)
    check_level(level)
    differences = one - two
    if np.ptp(differences) == 0:
        return Interval(*[float(differences[0])] * 3)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(level)
    return Interval(float(differences.mean()), float(low), float(high))


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
