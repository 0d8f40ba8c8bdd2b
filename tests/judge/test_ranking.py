"""Rank statistics against cases worked by hand, scipy, and what they must be by simulation."""

import numpy as np
import pytest
from scipy import stats

from gtnlib.judge.ranking import bootstrap, break_even, correlation, noise_ceiling, regret, top_overlap

PROXY, TRUTH = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]


def noisy(n, seed, noise=1.0):
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=n)
    return truth, truth + noise * generator.normal(size=n)


def test_correlations_by_hand():
    assert correlation(PROXY, TRUTH) == pytest.approx(1 - 6 * 4 / (5 * 24))  # four ranks are off by one
    assert correlation(PROXY, TRUTH, "kendall") == pytest.approx((8 - 2) / 10)  # two of ten pairs differ
    assert correlation(PROXY, PROXY[::-1]) == pytest.approx(-1)
    assert correlation([1, 1, 1], [1, 2, 3]) == correlation([1, 2, 3], [1, 1, 1], "kendall") == 0


def test_bootstrap_is_scipys():
    x, y = noisy(60, 0)
    for kind, function in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        found = bootstrap(x, y, kind, resamples=400)
        assert found == bootstrap(x, y, kind, resamples=400) != bootstrap(x, y, kind, 400, seed=1)
        assert found.value == pytest.approx(function(x, y).statistic)
        wanted = stats.bootstrap(
            (x, y), lambda x, y: function(x, y).statistic, paired=True, n_resamples=400,
            vectorized=False, method="percentile", rng=np.random.default_rng(5),
        )  # fmt: skip
        assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval), abs=0.08)
        assert found.low < found.value < found.high


def test_the_ceiling_is_what_a_repetition_reaches():
    truth = np.random.default_rng(0).normal(size=400)
    for seeds in (2, 3, 4):
        noise = [np.random.default_rng(s).normal(size=(400, seeds)) for s in (1, 2)]
        measured, again = (truth[:, None] + one for one in noise)
        wanted = correlation(measured.mean(1), again.mean(1))
        assert noise_ceiling(measured) == pytest.approx(wanted, abs=0.06)


def test_ceilings_at_the_ends():
    truth = np.arange(10.0)
    assert noise_ceiling(np.stack([truth, truth + 0.1], 1)) == pytest.approx(1)
    assert noise_ceiling(np.stack([truth, -truth], 1)) == 0
    assert noise_ceiling([[1, 2], [2, 1], [3, 4], [4, 3]]) == pytest.approx(1.2 / 1.6)  # halves: 0.6


def test_overlap_and_regret_by_hand():
    assert top_overlap(PROXY, TRUTH, 1) == 1 and top_overlap(PROXY, TRUTH, 2) == 0.5
    assert top_overlap([0, 0, 0], [3, 2, 1], 1) == 1  # of equals the first
    assert regret([0, 1, 0], [0, 0.5, 0.9], [0.1, 0.7, 0.8]) == pytest.approx(0.1)
    assert regret([0, 1, 0], [0, 0.5, 0.9], [0.1, 0.9, 0.8]) == pytest.approx(-0.1)


def test_break_even_is_the_first_number_that_pays():
    for teacher, proxy, other in ((100, 1, 11), (99, 1, 11), (0, 1, 2), (7.5, 0.5, 3)):
        n = break_even(teacher, proxy, other)
        assert teacher + n * proxy < n * other
        assert n == 1 or teacher + (n - 1) * proxy >= (n - 1) * other
    assert break_even(100, 1, 11) == 11 and break_even(1, 2, 2) is None


@pytest.mark.parametrize("call, message", [
    (lambda: correlation([1, 2], [1, 2]), "only 2 candidates"),
    (lambda: correlation([1, 2, 3], [1, 2]), "two lists of one length"),
    (lambda: correlation([1, 2, np.nan], [1, 2, 3]), "not finite"),
    (lambda: correlation(PROXY, TRUTH, "pearson"), "kind is 'pearson'"),
    (lambda: bootstrap(PROXY, TRUTH, resamples=0), "resamples is 0"),
    (lambda: bootstrap(PROXY, TRUTH, level=1), "level is 1"),
    (lambda: noise_ceiling([[1], [2], [3]]), "seeds ≥ 2"),
    (lambda: noise_ceiling([[1, 2], [2, 3], [3, np.inf]]), "not finite"),
    (lambda: top_overlap(PROXY, TRUTH, 6), "k is 6, but there are only 5"),
    (lambda: break_even(-1, 1, 2), "teacher is -1"),
])  # fmt: skip
def test_bad_input_is_one_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
