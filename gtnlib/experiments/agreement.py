"""Whether new students do as the recorded ones did: their mean, and their distribution."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

from gtnlib.judge.report import Statistic

LEVEL = 0.01  # of the test, so that of a hundred good cells one is called far


@dataclass(frozen=True)
class Agreement:
    """agrees: or not. said: both numbers, where they do not or where that they do says little; else "".
    tolerance: that of the means; within: whether they keep to it.
    """

    agrees: bool
    said: str
    tolerance: float
    within: bool


def agreement(old: Statistic, new: Statistic, least: float, std: float | None = None,
              diverged: int = 0) -> Agreement:  # fmt: skip
    """Compare accuracies of recorded students with those of new ones.

    They are far if their means differ by more than three standard deviations and by more than `least`; or
    if their distributions differ, by the exact two-sample Kolmogorov–Smirnov test, and by more than `least`
    as a Wasserstein distance (W₁). For few students that test is weak: of five and five it sees samples that
    do not overlap, of two and five nothing.

    std: of students of this kind; default that of the recorded ones. diverged: of the new students.
    """
    p = float(stats.ks_2samp(old.values, new.values).pvalue)
    tolerance = max(3 * (old.std if std is None else std), least)
    within = abs(new.mean - old.mean) <= tolerance
    apart = float(stats.wasserstein_distance(old.values, new.values)) > least
    agrees, remarks = within and not (apart and p < LEVEL), list[str]()
    if not agrees and within:
        remarks.append(f"another distribution (p = {p:.2g})")
    if agrees and (old.wide or new.wide):
        remarks.append("they scatter, so that means agree says little")
    if diverged:
        remarks.append(f"{diverged} of {len(new.values)} diverged")
    said = f"recorded {old}, now {new}" if remarks or not agrees else ""
    said = ": ".join(part for part in (said, "; ".join(remarks)) if part)
    return Agreement(agrees, said, tolerance, within)
