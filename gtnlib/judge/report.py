"""Numbers measured once per seed, and what `evaluate` reports."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from torch import Tensor


WIDE = 0.05  # a standard deviation above it is told with median and range


@dataclass(frozen=True)
class Statistic:
    """A number measured once per seed. Raises ValueError if there is none."""

    values: tuple[float, ...]

    def __post_init__(self):
        if not len(self.values):
            raise ValueError("values is empty: a statistic needs at least one.")

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def std(self) -> float:
        """Sample standard deviation (n − 1); 0 for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return min(self.values), max(self.values)

    @property
    def wide(self) -> bool:
        """Whether mean and standard deviation say little: some values lie far from the others."""
        return self.std > WIDE

    def __str__(self) -> str:
        """Mean ± standard deviation of fractions, in percent; and median and range if they are wide."""
        return self.full() if self.wide else f"{100 * self.mean:.1f} ± {100 * self.std:.1f} %"

    def full(self) -> str:
        """With median and range, for values of which some may lie far from the others."""
        low, high = (100 * value for value in self.range)
        spread = f"{100 * self.median:.1f} ({low:.1f} to {high:.1f}) %"
        return f"{100 * self.mean:.1f} ± {100 * self.std:.1f} %, median {spread}"


@dataclass(frozen=True)
class Report:
    """Accuracies of fresh students, as fractions.

    accuracy: after the last step.
    steps: where the curve was measured.
    curves: (seeds, len(steps)).
    split: the part of the data they were measured on.
    diverged: how many students did, as `gtnlib.judge.divergence` counts it. They are among the others.
    """

    accuracy: Statistic
    steps: tuple[int, ...]
    curves: Tensor
    split: str
    diverged: int = 0

    def __str__(self) -> str:
        after = f"on {self.split} after {self.steps[-1]} steps"
        if not self.diverged:
            return f"{self.accuracy} {after}"
        count = f"{self.diverged} of {len(self.accuracy.values)} students diverged"
        return f"{self.accuracy.full()} {after}; {count}"
