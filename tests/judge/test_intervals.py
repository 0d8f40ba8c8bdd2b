"""Paired intervals: their coverage by simulation, what pairing gains, and cases by hand."""

import numpy as np
import pytest
from scipy import stats

from gtnlib.judge.intervals import correlation_difference, difference
from gtnlib.judge.ranking import Interval, correlate, correlation


def test_the_value_and_its_interval():
    found = difference([0.9, 0.8, 0.95, 0.85], [0.8, 0.8, 0.85, 0.8])
    assert found.value == pytest.approx(0.0625) and found.low < found.value < found.high
    assert found == difference([0.9, 0.8, 0.95, 0.85], [0.8, 0.8, 0.85, 0.8])
    back = difference([0.8, 0.8, 0.85, 0.8], [0.9, 0.8, 0.95, 0.85])
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.01)
    assert difference([0.5, 0.6], [0.5, 0.6]) == Interval(0, 0, 0)
    assert Interval(1, 0.5, 2).excludes(0) and not Interval(1, -0.5, 2).excludes(0)


@pytest.mark.parametrize("n, scale", [(2, 1), (3, 1), (5, 1), (10, 0.01)])
def test_intervals_of_differences_cover_at_their_level(n, scale):
    """Seeds that both methods share vary far more than the difference, which is 0.3."""
    generator, covered, trials = np.random.default_rng(n), 0, 2000
    for _ in range(trials):
        shared = 20 * generator.normal(size=n)
        one, two = (scale * (shared + generator.normal(size=n) + m) for m in (0.3, 0))
        found = difference(one, two)
        covered += found.low <= 0.3 * scale <= found.high
    assert covered / trials == pytest.approx(0.95, abs=0.015)


def test_an_interval_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1/√3, and Student's quantile of two degrees, 4.3027."""
    found = difference([2, 4, 6], [1, 2, 3])
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - 2.48414, 2 + 2.48414), abs=1e-4)


def test_pairing_tells_what_separate_spreads_hide():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=10)
    one, two = shared + 0.1 + 0.02 * generator.normal(size=10), shared
    assert difference(one, two).excludes(0)
    assert not difference(one, np.roll(two, 1)).excludes(0)


def proxies(generator, n, noise=(0.5, 1.0)):
    truth = generator.normal(size=n)
    return (*(truth + s * generator.normal(size=n) for s in noise), truth)


def test_the_difference_of_correlations():
    one, two, truth = proxies(np.random.default_rng(0), 80)
    for kind in ("spearman", "kendall"):
        found = correlation_difference(one, two, truth, kind, resamples=300)
        wanted = correlation(one, truth, kind) - correlation(two, truth, kind)
        assert found.value == pytest.approx(wanted) and found.low < wanted < found.high
        assert found.excludes(0)
        for trial in range(3):  # of a single row of many
            rows = np.random.default_rng(trial).integers(9, size=(2, 4, 12)).astype(float)
            function = stats.spearmanr if kind == "spearman" else stats.kendalltau
            wanted = [function(a, b).statistic for a, b in zip(*rows)]
            assert correlate(*rows, kind) == pytest.approx(wanted)
    assert correlate(np.ones((1, 4)), np.arange(4.0)[None], "spearman") == 0
    same = correlation_difference(one, one, truth, resamples=100)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_intervals_of_correlations_cover_at_their_level():
    """Two proxies of one quality, whose difference is 0."""
    generator, covered, trials = np.random.default_rng(1), 0, 200
    for trial in range(trials):
        one, two, truth = proxies(generator, 60, (0.7, 0.7))
        found = correlation_difference(one, two, truth, resamples=200, seed=trial)
        covered += not found.excludes(0)
    assert covered / trials == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize("call, message", [
    (lambda: difference([1], [2]), "only 1 numbers: an interval needs at least 2"),
    (lambda: difference([1, 2], [1, 2, 3]), "two lists of one length"),
    (lambda: difference([1, 2], [1, np.nan]), "not finite"),
    (lambda: difference([1, 2], [3, 5], level=1), "level is 1"),
    (lambda: difference([1, 2], [3, 5], level=0), "level is 0"),
    (lambda: correlation_difference([1, 2, 3], [1, 2, 3], [1, 2, 4], resamples=0), "resamples is 0"),
    (lambda: correlation_difference([1, 2], [1, 2], [1, 2]), "only 2 candidates"),
    (lambda: correlation_difference([1, 2, 3], [1, 2], [1, 2, 3]), "two lists of one length"),
    (lambda: correlation_difference([1, 2, 3], [1, 2, 3], [1, 2, 4], "pearson"), "kind is 'pearson'"),
])  # fmt: skip
def test_bad_input_is_one_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
