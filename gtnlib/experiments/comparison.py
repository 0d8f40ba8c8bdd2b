"""Fresh students of several kinds, each taught from several sources, for several numbers of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from gtnlib.data.load import STATISTICS
from gtnlib.experiments.base import Check, Context, Experiment, Tally, compared
from gtnlib.experiments.choice import SELECTION_SEEDS, choose
from gtnlib.experiments.lessons import (Lessons, Measuring, check_recipes, job, measured_again,
                                        named_student)  # fmt: skip
from gtnlib.experiments.records import Record
from gtnlib.judge.protocols import Protocol
from gtnlib.judge.report import Statistic
from gtnlib.judge.training import Recipe
from gtnlib.support.errors import check_choice, check_count
from gtnlib.support.jobs import run_jobs

SAMPLE = 6  # cells that `check` measures again


@dataclass(frozen=True)
class Comparison(Experiment):
    """Test accuracy of every source × student × number of steps.

    Parameters
    ----------
    sources: by name, Lessons and the recipes or protocols by epochs to choose from; a recipe with
        `rate=None` follows the teacher. Where there are several, each trains students of its own
        and the best on `selection_images` of the validation split is taken, for every cell on its own.
    students: by name, a name of `STUDENTS` and arguments.
    steps: numbers of steps; None is as many as the recipe has, or the teacher; only that for protocols.
    seeds: students per cell. Of networks that fail now and then, such as a ConvNet without norm, five say
        little: see `agreement`.

    The record's results have a list of cells: place (of source, student and steps in the configuration),
    recipe (its place in the source's list), steps, test_accuracy (a value per seed), diverged (students; not
    in older records) and seconds of training (their mean).
    """

    pooled = True
    sources: Mapping[str, tuple[Lessons, Sequence[Recipe | Protocol]]]
    students: Mapping[str, tuple[str, Mapping]]
    steps: Sequence[int | None] = (None,)
    seeds: int = 10
    selection_images: int | None = 2000
    data: str = "mnist"

    def __post_init__(self):
        for student in self.students.values():
            named_student(*student)
        for name, (lessons, recipes) in self.sources.items():
            if not recipes:
                raise ValueError(f"source {name!r} has no recipe: give at least one.")
            check_recipes(name, lessons, recipes, self.steps)
            for one in recipes:
                if isinstance(one, Protocol) and (one.epochs is None or tuple(self.steps) != (None,)):
                    raise ValueError(f"source {name!r} has a protocol: it must be by epochs, and alone says "
                                     "how many steps. Give a Recipe, or leave steps unset.")  # fmt: skip
        check_count("seeds", self.seeds)
        check_choice("data", self.data, STATISTICS)

    def cells(self) -> Iterator[tuple[str, str, int | None]]:
        """Names of source and student, and steps."""
        return product(self.sources, self.students, self.steps)

    def _job(self, cell, recipe: int, seeds, splits, folder: Path, images=None) -> dict:
        source, student, steps = cell
        lessons, recipes = self.sources[source]
        given = recipes[recipe]
        if steps is not None and isinstance(given, Recipe):
            given = replace(given, steps=steps)
        return job(list(self.students[student]), lessons, given, seeds, splits, self.data, folder, images)

    def run(self, context: Context) -> Record:
        tally, work, cells = Tally(self, context), self.work_folder(context.folder), list(self.cells())
        recipes = [range(len(self.sources[source][1])) for source, *_ in cells]
        carry_out = Measuring(context.teachers, str(context.device))
        trials = {f"{i:04}": [self._job(cell, recipe, SELECTION_SEEDS, ["validation"], context.teachers,
                                        self.selection_images) for recipe in recipes[i]]
                  for i, cell in enumerate(cells)}  # fmt: skip
        choice = choose(trials, carry_out, work / "choice", context)
        chosen = list(choice.place.values())
        tally.write()
        finals = {f"{i:04}": self._job(cell, chosen[i], range(self.seeds), ["test"], context.teachers)
                  for i, cell in enumerate(cells)}  # fmt: skip
        found = run_jobs(finals, carry_out, work / "test", context.pool, context.progress)
        places = product(*(range(len(axis)) for axis in (self.sources, self.students, self.steps)))
        return tally.record(
            seeds={"choice": list(SELECTION_SEEDS), "evaluation": list(range(self.seeds))},
            seconds=choice.seconds + sum(sum(result["seconds"]) for result in found.values()),
            curves={},
            results={"cells": [
                {"place": list(place), "recipe": recipe, "steps": result["steps"],
                 "test_accuracy": result["accuracy"]["test"], "diverged": result.get("diverged", 0),
                 "seconds": round(sum(result["seconds"]) / self.seeds, 4)}
                for place, recipe, result in zip(places, chosen, found.values())
            ]},
        )  # fmt: skip

    def check(self, record: Record, context: Context, students: int = 5) -> Check:
        """Train new students in a sample of cells; they must agree with the recorded ones, see `agreement`,
        or be within one percentage point.
        """
        check_count("students", students)
        cells, stored = list(self.cells()), by_name(record)
        seeds = range(self.seeds, self.seeds + students)
        every = math.ceil(len(cells) / SAMPLE)
        again_of = {}
        for i in range(len(cells))[every // 2 :: every]:
            cell = stored[cells[i]]
            again = self._job(cells[i], cell["recipe"], seeds, ["test"], context.teachers)
            again_of[" / ".join(map(str, cells[i]))] = measured_again(again, cell["test_accuracy"], context)
        return compared(self, f"of {len(cells)} cells", again_of)

    def summary(self, record: Record) -> str:
        wide = sum(one.wide for one in accuracies(record).values())
        cells = record.results["cells"]
        said = f"{self.name}: {len(cells)} cells × {len(cells[0]['test_accuracy'])} students"
        return f"{said}, which scatter in {wide}: see median and range there" if wide else said


def accuracies(record: Record) -> dict[tuple[str, str, int | None], Statistic]:
    """Test accuracy of every cell of a recorded Comparison, by names of source and student and by steps."""
    return {name: Statistic(tuple(cell["test_accuracy"])) for name, cell in by_name(record).items()}


def by_name(record: Record) -> dict[tuple[str, str, int | None], dict]:
    """The cells of a recorded Comparison, by names of source and student and by steps."""
    axes = [list(record.configuration[axis]) for axis in ("sources", "students", "steps")]
    return {tuple(axis[i] for axis, i in zip(axes, cell["place"])): cell for cell in record.results["cells"]}
