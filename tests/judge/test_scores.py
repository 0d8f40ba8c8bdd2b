"""The scores of DD-Ranking by hand, at their ends, and what they refuse."""

import math

import pytest

from gtnlib.judge.scores import augmentation_robust, label_robust


def test_the_label_robust_score_by_hand():
    """HLR = 0.99 − 0.95 = 0.04, IOR = 0.95 − 0.85 = 0.1, α = 0.03."""
    wanted = (math.exp(0.03) - math.exp(-1)) / (math.e - math.exp(-1))
    assert label_robust(real=0.99, synthetic=0.95, random=0.85) == pytest.approx(wanted)
    assert wanted == pytest.approx(0.2819, abs=5e-5)


def test_soft_labels_count_for_the_gain_and_hard_ones_for_the_recovery():
    """HLR = 0.2, IOR = 0.1; weights of 1 and 0 leave one of them."""

    def score(weight):
        return label_robust(real=0.9, synthetic=0.8, random=0.7, hard=0.7, weight=weight)

    def of(x):
        return (math.exp(x) - math.exp(-1)) / (math.e - math.exp(-1))

    assert score(1) == pytest.approx(of(0.1)) and score(0) == pytest.approx(of(-0.2))
    assert score(0.5) == pytest.approx(of(-0.05))


def test_scores_run_from_0_to_1():
    assert label_robust(real=1, synthetic=0, random=1) == pytest.approx(0)
    assert label_robust(real=1, synthetic=1, random=0, weight=1) == pytest.approx(1)
    assert augmentation_robust((1, 0), (1, 0)) == pytest.approx(1)
    assert augmentation_robust((0, 1), (0, 1)) == pytest.approx(0)


def test_the_augmentation_robust_score_by_hand():
    """Gains 0.02 with and 0.1 without; β = 0.06, and with γ = 0.25 it is 0.08."""

    def of(x):
        return (math.exp(x) - math.exp(-1)) / (math.e - math.exp(-1))

    assert augmentation_robust((0.95, 0.93), (0.95, 0.85)) == pytest.approx(of(0.06))
    assert augmentation_robust((0.95, 0.93), (0.95, 0.85), gamma=0.25) == pytest.approx(of(0.08))


@pytest.mark.parametrize("call, message", [
    (lambda: label_robust(99, 0.9, 0.8), "real is 99, but must be a fraction"),
    (lambda: label_robust(0.9, 0.9, -0.1), "random is -0.1"),
    (lambda: label_robust(0.9, 0.9, 0.8, hard=95), "hard is 95, but must be a fraction"),
    (lambda: label_robust(0.9, 0.9, 0.8, weight=2), "weight is 2"),
    (lambda: augmentation_robust((0.9, 0.8), (90, 80)), "plain is 90"),
    (lambda: augmentation_robust((0.9, 0.8), (0.9, 0.8), gamma=-1), "gamma is -1"),
])  # fmt: skip
def test_bad_input_is_one_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
