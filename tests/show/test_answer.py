"""Answers to exercises with a gap: right, wrong, and not yet given."""

import numpy as np
import pytest
import torch

from gtnlib.show.answer import check


@pytest.mark.parametrize("value", [2.0, np.array([1.0, 2.0]), torch.tensor([1.0, 2.0])])
def test_right_and_wrong_answers_are_told_apart(value, capsys):
    def twice(a):
        return 2 * a

    assert check(twice, value / 2, expected=value)
    assert not check(twice, value, expected=value)
    right, wrong = capsys.readouterr().out.splitlines()
    assert right.startswith("twice: right") and wrong.startswith("twice: not yet")


def test_another_shape_is_wrong_though_it_could_be_broadcast(capsys):
    assert not check(lambda: torch.ones(1), expected=torch.ones(3))
    assert "shape (1,), not (3,)" in capsys.readouterr().out


@pytest.mark.parametrize("gap", [..., None])
def test_a_gap_is_a_gap(gap, capsys):
    assert not check(lambda: gap, expected=1.0)
    assert "gap" in capsys.readouterr().out


def test_what_is_not_a_number_is_wrong():
    assert not check(lambda: float("nan"), expected=1.0)
