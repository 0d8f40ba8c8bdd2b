"""Fresh students of several kinds, each taught from several sources, for several numbers of steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from gtnlib.data import STATISTICS
from gtnlib.errors import check_choice, check_count
from gtnlib.evaluate import Statistic
from gtnlib.experiments.base import Check, Context, Experiment, Tally, check_arguments
from gtnlib.experiments.lessons import STUDENTS, Lessons, job, measure
from gtnlib.jobs import run_jobs
from gtnlib.records import Record, commit, device_name, versions
from gtnlib.training import Recipe

SELECTION_SEEDS = range(1000, 1002)  # of the students that choose a recipe; never measured on test
SMALLEST_TOLERANCE = 0.01  # of `check`: a spread over a few students can be small by chance
SAMPLE = 6  # cells that `check` measures again


@dataclass(frozen=True)
class Comparison(Experiment):
    """Test accuracy of every source × student × number of steps.

    Parameters
    ----------
    sources: by name, Lessons and the recipes to choose from; one with `rate=None` follows the
        teacher. Where there are several, each trains two students of their own and the best on
        `selection_images` of the validation split is taken, for every cell on its own.
    students: by name, a name of `STUDENTS` and arguments.
    steps: numbers of steps; None is as many as the recipe has, or the teacher.
    seeds: students per cell.

    The record's results have a list of cells: source, student, steps, recipe (its place in the
    source's list), test_accuracy (a value per seed) and seconds of training (their mean).
    """

    sources: Mapping[str, tuple[Lessons, Sequence[Recipe]]]
    students: Mapping[str, tuple[str, Mapping]]
    steps: Sequence[int | None] = (None,)
    seeds: int = 5
    selection_images: int | None = 2000
    data: str = "mnist"

    def __post_init__(self):
        for student, arguments in self.students.values():
            check_choice("a student", student, STUDENTS)
            check_arguments(f"arguments of {student}", arguments, STUDENTS[student], ("shape", "num_classes"))
        for name, (_, recipes) in self.sources.items():
            if not recipes:
                raise ValueError(f"source {name!r} has no recipe: give at least one.")
        check_count("seeds", self.seeds)
        check_choice("data", self.data, STATISTICS)

    def configuration(self) -> dict:
        plain = super().configuration()
        plain["sources"] = {name: {"lessons": asdict(lessons), "recipes": [asdict(r) for r in recipes]}
                            for name, (lessons, recipes) in self.sources.items()}  # fmt: skip
        return plain

    def cells(self) -> Iterator[tuple[str, str, int | None]]:
        """Names of source and student, and steps."""
        return product(self.sources, self.students, self.steps)

    def _job(self, cell, recipe: int, seeds, splits, folder: Path, images=None) -> dict:
        source, student, steps = cell
        lessons, recipes = self.sources[source]
        given = recipes[recipe] if steps is None else replace(recipes[recipe], steps=steps)
        return job(list(self.students[student]), lessons, given, seeds, splits, self.data, folder, images)

    def run(self, context: Context) -> Record:
        tally, work = Tally(self, context), self.work_folder(context.folder)
        carry_out = partial(measure, build=build, folder=context.teachers, device=str(context.device))

        trials = {f"{i:04}-{recipe:02}": self._job(cell, recipe, SELECTION_SEEDS, ["validation"],
                                                   context.teachers, self.selection_images)
                  for i, cell in enumerate(self.cells())
                  if len(self.sources[cell[0]][1]) > 1
                  for recipe in range(len(self.sources[cell[0]][1]))}  # fmt: skip
        tried = run_jobs(trials, carry_out, work / "choice", context.workers, context.progress)
        best: dict[int, tuple[float, int]] = {}
        for name, result in tried.items():
            i, recipe = map(int, name.split("-"))
            value = sum(result["accuracy"]["validation"])
            if i not in best or value > best[i][0]:
                best[i] = value, recipe
        chosen = [best.get(i, (0, 0))[1] for i, _ in enumerate(self.cells())]
        tally.write()

        finals = {f"{i:04}": self._job(cell, chosen[i], range(self.seeds), ["test"], context.teachers)
                  for i, cell in enumerate(self.cells())}  # fmt: skip
        found = run_jobs(finals, carry_out, work / "test", context.workers, context.progress)
        tally.write()
        record = Record(
            name=self.name,
            configuration=self.configuration(),
            seeds={"choice": list(SELECTION_SEEDS), "evaluation": list(range(self.seeds))},
            device=device_name(context.device),
            versions=versions(),
            commit=commit(),
            started=tally.started,
            seconds=round(sum(sum(result["seconds"]) for result in [*tried.values(), *found.values()]), 3),
            peak_memory_mb=tally.peak_memory_mb,
            curves={},
            results={"cells": [
                {"place": list(self._place(cell)), "recipe": chosen[i], "steps": result["steps"],
                 "test_accuracy": result["accuracy"]["test"],
                 "seconds": round(sum(result["seconds"]) / self.seeds, 4)}
                for i, (cell, result) in enumerate(zip(self.cells(), found.values()))
            ]},
        )  # fmt: skip
        record.save(self.record_path(context.folder))
        return record

    def _place(self, cell) -> tuple[int, int, int]:
        """Where a cell's source, student and steps stand in the configuration."""
        source, student, steps = cell
        return list(self.sources).index(source), list(self.students).index(student), self.steps.index(steps)

    def check(self, record: Record, context: Context, students: int = 5) -> Check:
        """Train new students in a sample of cells; every mean must be within three of the record's
        standard deviations, or one percentage point if that is more.
        """
        check_count("students", students)
        cells, stored = list(self.cells()), record.results["cells"]
        seeds = range(self.seeds, self.seeds + students)
        every = max(1, len(cells) // SAMPLE)
        sample, far = range(len(cells))[every // 2 :: every], []
        for i in sample:
            again = self._job(cells[i], stored[i]["recipe"], seeds, ["test"], context.teachers)
            found = measure(again, build, context.teachers, str(context.device))
            old = Statistic(tuple(stored[i]["test_accuracy"]))
            new = Statistic(tuple(found["accuracy"]["test"]))
            if abs(new.mean - old.mean) > max(3 * old.std, SMALLEST_TOLERANCE):
                far.append(f"{' / '.join(map(str, cells[i]))}: recorded {old}, now {new}")
        agree = f"{len(sample)} of {len(cells)} cells measured again, {len(sample) - len(far)} agree"
        return Check(not far, "; ".join([f"{self.name}: {agree}", *far]))

    def summary(self, record: Record) -> str:
        return f"{self.name}: {len(record.results['cells'])} cells × {self.seeds} students"


def build(student):
    name, arguments = student
    return partial(STUDENTS[name], **arguments)
