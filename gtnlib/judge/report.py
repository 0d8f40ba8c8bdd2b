"""Numbers measured once per seed, and what `evaluate` reports."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Statistic:
    """A number measured once per seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def std(self) -> float:
        """Sample standard deviation (n − 1); 0 for a single value."""
        n = len(self.values)
        return (sum((v - self.mean) ** 2 for v in self.values) / max(n - 1, 1)) ** 0.5

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.std:.1f} %"


@dataclass(frozen=True)
class Report:
    """Accuracies of fresh students, as fractions.

    accuracy: after the last step. steps: where the curve was measured. curves: (seeds, len(steps)).
    """

    accuracy: Statistic
    steps: tuple[int, ...]
    curves: Tensor
    split: str

    def __str__(self) -> str:
        return f"{self.accuracy} on {self.split} after {self.steps[-1]} steps"
