"""Records are compared as distributions, and what scatters does not pass without a word."""

import pytest
import torch

from gtnlib import Statistic
from gtnlib.experiments.agreement import agreement
from gtnlib.experiments.base import Experiment, compared
from gtnlib.experiments.comparison import Comparison
from gtnlib.experiments.records import recorded
from gtnlib.experiments.settings import EXPERIMENTS
from gtnlib.judge.report import Report

SCATTERED = (0.11, 0.10, 0.12, 0.60, 0.215)
CASES = {
    "equal": ([0.95, 0.96, 0.955, 0.958, 0.951], [0.952, 0.957, 0.956, 0.953, 0.959], True, ""),
    "other mean": ([0.95, 0.951, 0.952, 0.95, 0.951], [0.90, 0.901, 0.905], False, "now 90.2"),
    "no spread, and hardly apart": ([0.95] * 5, [0.952, 0.953, 0.951, 0.952, 0.953], True, ""),
    "no overlap": ([0.27, 0.30, 0.32, 0.35, 0.33], [0.36, 0.37, 0.36, 0.365, 0.39], False,
                   "another distribution (p = 0.0079)"),
    "five and eight of issue 21": ([0.27, 0.30, 0.32, 0.35, 0.335],
                                   [0.37, 0.40, 0.48, 0.5, 0.55, 0.58, 0.6, 0.66], False, "now 51.7"),
    "two modes and one": ([0.1] * 8 + [0.9] * 2, [0.9, 0.91, 0.89, 0.92, 0.9, 0.88, 0.9, 0.9], False,
                          "another distribution"),
    "scattered": (SCATTERED, [0.138, 0.19, 0.08, 0.15, 0.132], True, "they scatter"),
    "scattered, two": (SCATTERED, [0.10, 0.18], True, "they scatter"),
    "one of each": ([0.5], [0.505], True, ""),
}  # fmt: skip


@pytest.mark.parametrize("old, new, agrees, said", CASES.values(), ids=CASES.keys())
def test_means_and_distributions_are_compared(old, new, agrees, said):
    for one, other in ((old, new), (old, tuple(reversed(new)))):
        found = agreement(Statistic(tuple(one)), Statistic(tuple(other)), 0.01)
        assert found.agrees == agrees and said in found.said and bool(found.said) == bool(said), found


def test_what_agrees_but_scatters_or_diverged_is_in_the_message():
    assert str(Statistic(SCATTERED)) == "22.9 ± 21.2 %, median 12.0 (10.0 to 60.0) %"
    quiet = Statistic((0.95, 0.951, 0.952))
    found = {
        "a": agreement(quiet, quiet, 0.01),
        "b": agreement(Statistic(SCATTERED), Statistic((0.138, 0.08)), 0.01),
        "c": agreement(quiet, quiet, 0.01, diverged=2),
        "d": agreement(quiet, Statistic((0.1, 0.1)), 0.01),
    }
    check = compared(Experiment("x", "y"), "cells", found)
    assert not check.passed and check.message.startswith("x: 4 cells measured again, 3 agree; d: recorded")
    assert "b: recorded 22.9 ± 21.2 %, median 12.0 (10.0 to 60.0) %, now 10.9 ± 4.1 %: they" in check.message
    assert "2 of 3 diverged" in check.message and "a:" not in check.message
    assert compared(Experiment("x", "y"), "cells", found, allowed=1).passed


@pytest.mark.parametrize("values, wide", [((0.9, 0.95, 0.93), False), ((0.9, 0.9, 0.78), True),
                                          ((0.5,), False), ((0.3, 0.9), True)])  # fmt: skip
def test_wide_values_are_told_with_median_and_range(values, wide):
    statistic = Statistic(values)
    assert statistic.wide == wide and ("median" in str(statistic)) == wide
    assert f"median {100 * statistic.median:.1f} (" in statistic.full()
    report = Report(statistic, (3,), torch.zeros(len(values), 1), "test", diverged=1)
    assert str(report) == (f"{statistic.full()} on test after 3 steps; "
                           f"1 of {len(values)} students diverged")  # fmt: skip


def test_the_summary_of_transfer_says_where_students_scatter():
    record = recorded("transfer-tuned")
    summary = EXPERIMENTS["transfer-tuned"].summary(record)
    assert summary.startswith("transfer-tuned: 192 cells × 5 students, which scatter in ")
    assert summary.endswith("see median and range there")


def test_new_comparisons_have_ten_students_a_cell():
    assert Comparison("x", "y", sources={}, students={}).seeds == 10
