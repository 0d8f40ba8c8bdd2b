"""What SGD is told at every inner step: learning rates, momentum, weight decay."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gtnlib.support.errors import check_choice, check_number, check_positive

SCHEDULES = ("linear", "cosine")


def check_sgd(
    steps: int, rate, momentum, weight_decay, final_rate=None, schedule="linear"
) -> tuple[list[float], float, float]:
    """Learning rates of all T steps, momentum and weight decay, if they are good.

    Parameters
    ----------
    steps: T. rate: a number > 0, of every step, or a sequence of T of them.
    final_rate: the rate of step T − 1, if it is to change on the way there from `rate` at step 0.
    schedule: how: along a line, "linear", or half a cosine, "cosine".
    momentum: 0 ≤ μ < 1. weight_decay: β ≥ 0.
    """
    check_choice("schedule", schedule, SCHEDULES)
    momentum = check_number("momentum", momentum, 0, below=1)
    decay = check_number("weight_decay", weight_decay, 0)
    if not isinstance(rate, Sequence) or isinstance(rate, str):
        first = check_positive("rate", rate)
        last = first if final_rate is None else check_positive("final_rate", final_rate)
        return [last + (first - last) * _left(t, steps, schedule) for t in range(steps)], momentum, decay
    if final_rate is not None:
        raise ValueError(f"final_rate is {final_rate}, but rate lists that of every step. Give one of them.")
    if len(rate) != steps:
        raise ValueError(f"rate lists {len(rate)} numbers, but there are {steps} steps.")
    return [check_positive("every one of rate", value) for value in rate], momentum, decay


def _left(t: int, steps: int, schedule: str) -> float:
    """How much of the first rate is left at step t, against the last."""
    done = t / max(steps - 1, 1)
    return 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
