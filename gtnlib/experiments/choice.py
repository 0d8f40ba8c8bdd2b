"""One way to choose for every experiment: on validation images, from options that are listed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtnlib.experiments.base import Context
from gtnlib.support.jobs import run_jobs

SELECTION_SEEDS = range(1000, 1005)  # of the students that choose; never measured on test


@dataclass(frozen=True)
class Choice:
    """place: by name, that of the option with the best mean validation accuracy among those with the fewest
    students that diverged; of equals, the first.

    accuracy: by name, of every option its students' validation accuracies; none if its teacher diverged.
    seconds: all of it took.
    """

    place: dict[str, int]
    accuracy: dict[str, list[list[float]]]
    seconds: float


def choose(options: Mapping[str, Sequence[dict]], measure: Callable[[dict], dict], folder: Path,
           context: Context) -> Choice:  # fmt: skip
    """Choose for every name among its jobs; where there is only one, nothing is measured.

    options: by name, jobs as for `run_jobs`. measure: gives {"accuracy": {"validation": […]},
        "seconds": […], "diverged": …}; without the last, none did.
    folder: keeps the result of every job, as NAME-PLACE.json.

    Raises ValueError if no option of a name has students at all, since its teachers diverged.
    """
    jobs = {f"{name}-{i:02}": job for name, some in options.items() if len(some) > 1
            for i, job in enumerate(some)}  # fmt: skip
    found = run_jobs(jobs, measure, folder, context.pool, context.progress)
    accuracy = {name: [found[f"{name}-{i:02}"]["accuracy"]["validation"] for i in range(len(some))]
                for name, some in options.items() if len(some) > 1}  # fmt: skip
    place = dict.fromkeys(options, 0)
    for name, each in accuracy.items():
        lost = [found[f"{name}-{i:02}"].get("diverged", 0) for i in range(len(each))]
        if not any(each):
            raise ValueError(f"the teachers of every option of {name} diverged: there is nothing to choose.")
        worth = [(-n, sum(values) / len(values)) if values else (-math.inf, 0.0)
                 for values, n in zip(each, lost)]  # fmt: skip
        place[name] = worth.index(max(worth))
    return Choice(place, accuracy, sum(sum(result["seconds"]) for result in found.values()))
