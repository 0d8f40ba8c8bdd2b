"""How well one ranking of networks agrees with another, and how well it could.

Scores are sequences of n numbers, one per candidate, or (n, S) with one column per seed; larger is
better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from gtnlib.support.errors import check_choice, check_count, check_number

KINDS = ("spearman", "kendall")


@dataclass(frozen=True)
class Interval:
    """A number and the interval that holds it: value, low, high."""

    value: float
    low: float
    high: float

    def excludes(self, number: float) -> bool:
        return not self.low <= number <= self.high

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})".replace("-", "−")

    def points(self) -> str:
        """Of fractions, in percentage points, as "+5.7 (+2.3 to +9.0)"."""
        value, low, high = (f"{100 * number:+.1f}" for number in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})".replace("-", "−")


def correlation(proxy, truth, kind: str = "spearman") -> float:
    """Spearman's ρ, or Kendall's τ-b, of two lists of n scores, by scipy.

    0 if one of them is constant, since it orders nothing.
    """
    check_choice("kind", kind, KINDS)
    proxy, truth = check_pair(proxy, truth)
    return float(correlate(proxy, truth, kind))


def correlate(one: np.ndarray, two: np.ndarray, kind: str) -> np.ndarray:
    """`correlation` without its checks, of the last axes of arrays (…, n)."""
    if kind == "kendall":
        pairs = zip(one.reshape(-1, one.shape[-1]), two.reshape(-1, two.shape[-1]))
        return np.nan_to_num([stats.kendalltau(*pair).statistic for pair in pairs]).reshape(one.shape[:-1])
    a, b = (stats.rankdata(x, axis=-1) - (x.shape[-1] + 1) / 2 for x in (one, two))
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return (a * b).sum(-1) / np.where(scale > 0, scale, 1)


def bootstrap(proxy, truth, kind: str = "spearman", resamples: int = 2000, level: float = 0.95,
              seed: int = 0) -> Interval:  # fmt: skip
    """The correlation with its percentile bootstrap interval over candidates (Efron 1979).

    Candidates are drawn with replacement, proxy and truth of each together; the interval tells how
    the number would vary with another sample of the space, not with other seeds of training.
    """
    check_choice("kind", kind, KINDS)
    proxy, truth = check_pair(proxy, truth)
    check_bootstrap(level, resamples)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(proxy), size=(resamples, len(proxy)))
    values = correlate(proxy[drawn], truth[drawn], kind)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(correlate(proxy, truth, kind)), float(low), float(high))


def noise_ceiling(truth, splits: int = 100, seed: int = 0) -> float:
    """The correlation of the measured truth (n, S) with a repetition of all of it by new seeds.

    The S seeds are split at random into two halves of h = ⌊S/2⌋ and their means correlated
    (Spearman's ρ), on average over `splits` splits: r. The mean of all S seeds is less noisy than
    that of h; by the formula of Spearman (1910) and Brown (1910), with k = S/h, its reliability is

        k r / (1 + (k − 1) r).

    A ranking of the same candidates that is as noisy as the truth is not expected to correlate with
    it any better than this; one without any noise of its own could reach the square root. The
    formula is about Pearson's correlation, so for ranks it is an approximation.
    """
    truth = np.asarray(truth, dtype=float)
    if truth.ndim != 2 or len(truth) < 3 or truth.shape[1] < 2:
        raise ValueError(f"truth must be (candidates ≥ 3, seeds ≥ 2), got {truth.shape}.")
    if not np.isfinite(truth).all():
        raise ValueError("truth holds a value that is not finite.")
    check_count("splits", splits)
    seeds, generator, found = truth.shape[1], np.random.default_rng(seed), []
    half = seeds // 2
    for _ in range(splits if seeds > 2 else 1):
        order = generator.permutation(seeds)
        one, two = (truth[:, part].mean(1) for part in (order[:half], order[half : 2 * half]))
        found.append(correlate(one, two, "spearman"))
    r, k = max(float(np.mean(found)), 0.0), seeds / half
    return k * r / (1 + (k - 1) * r)


def top_overlap(proxy, truth, k: int) -> float:
    """The fraction of the k best by truth that are among the k best by proxy; of equals, the first."""
    proxy, truth = check_pair(proxy, truth)
    if check_count("k", k) > len(proxy):
        raise ValueError(f"k is {k}, but there are only {len(proxy)} candidates.")
    best = [set(np.argsort(-scores, kind="stable")[:k].tolist()) for scores in (proxy, truth)]
    return len(best[0] & best[1]) / k


def regret(proxy, validation, test) -> float:
    """Test accuracy lost by choosing the first of `proxy` rather than the first by true validation.

    Both are chosen without the test split, so the regret can be negative.
    """
    proxy, validation = check_pair(proxy, validation)
    _, test = check_pair(proxy, test)
    return float(test[validation.argmax()] - test[proxy.argmax()])


def break_even(teacher: float, proxy: float, other: float) -> int | None:
    """From how many candidates on a teacher pays for itself; None if it never does.

    teacher: cost of its training. proxy, other: cost per candidate of a short training on what it
    teaches, and of what that replaces, such as full training; all in one unit, seconds or steps.
    The smallest n ≥ 1 with teacher + n proxy < n other.
    """
    for name, value in (("teacher", teacher), ("proxy", proxy), ("other", other)):
        check_number(name, value, 0)
    if proxy >= other:
        return None
    return math.floor(teacher / (other - proxy)) + 1


def check_pair(one, two, what: str = "scores", least: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays (n,) of finite numbers. Raises ValueError if they are not, or n < least."""
    one, two = np.asarray(one, dtype=float), np.asarray(two, dtype=float)
    if one.ndim != 1 or one.shape != two.shape:
        raise ValueError(f"{what} must be two lists of one length, got shapes {one.shape} and {two.shape}.")
    if len(one) < least:
        of = "candidates: a ranking" if what == "scores" else f"{what}: an interval"
        raise ValueError(f"there are only {len(one)} {of} needs at least {least}.")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise ValueError(f"{what} hold a value that is not finite.")
    return one, two


def check_level(level: float) -> None:
    if check_number("level", level, 0, below=1) == 0:
        raise ValueError("level is 0, but must be above.")


def check_bootstrap(level: float, resamples: int) -> None:
    check_level(level)
    check_count("resamples", resamples)
