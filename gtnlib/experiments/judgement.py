"""Recorded teachers judged: two protocols, two scores, and as many real images judged alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gtnlib.data.load import STATISTICS
from gtnlib.experiments.base import Check, Context, Experiment, Tally, compared
from gtnlib.experiments.choice import SELECTION_SEEDS, choose
from gtnlib.experiments.lessons import (REAL, Lessons, Measuring, job, measured_again, named_student,
                                        teacher_file)  # fmt: skip
from gtnlib.experiments.records import Record
from gtnlib.judge.protocols import LONG, LONG_AUGMENTED, Protocol
from gtnlib.judge.report import Statistic
from gtnlib.judge.training import Recipe
from gtnlib.support.errors import check_choice, check_count
from gtnlib.support.jobs import run_jobs
from gtnlib.teachers.files import load_teacher

SAMPLE = 6  # cells that `check` measures again
GRID = tuple(
    Recipe("sgd", rate, cosine=cosine) for rate in (0.01, 0.03, 0.05, 0.1) for cosine in (False, True)
)


@dataclass(frozen=True)
class Judgement(Experiment):
    """Test accuracy of students of every teacher, and of as many real images, by every protocol.

    Parameters
    ----------
    teachers: names of distillations whose recorded teachers are judged.
    student: a name of `STUDENTS`, and arguments.
    grid: recipes for a lesson: as many steps as the teacher's, with batches of its size. For a teacher its
        own rates are among them; for real images, which have none, they are all there is. The best on
        `selection_images` validation images is taken, for each on its own.
    long, augmented: protocols by epochs, or None; each with the best of `rates`, on validation too.
    shown: epochs are fewer where they would show more images than this.
    baselines: "real", "herding" and "k_centre" images, as many as each teacher has; of chosen ones, up to
        a multiple of the classes.
    images: more numbers of them.
    real_epochs: of a training by `long` on all real images, for the scores; 0 for none.
    seeds: students of a lesson; long_seeds: of the protocols by epochs, of all real images at most 3.

    The record's results hold for every cell, by name as "SOURCE.PROTOCOL", where PROTOCOL is also "hard" if a
    teacher's labels are learned, for `long` with hard ones: images, steps, choice (its
    place among the options), validation (accuracies of every option), test_accuracy (a value per seed),
    diverged (students) and seconds (mean of training).
    """

    pooled = True
    teachers: Sequence[str] = ()
    student: tuple[str, Mapping] = ("ConvNet", {})
    grid: Sequence[Recipe] = GRID
    long: Protocol | None = LONG
    augmented: Protocol | None = LONG_AUGMENTED
    rates: Sequence[float] = (0.01,)
    shown: int = 150_000
    baselines: Sequence[str] = ("real", "herding", "k_centre")
    images: Sequence[int] = ()
    real_epochs: int = 10
    seeds: int = 10
    long_seeds: int = 5
    selection_images: int | None = 2000
    data: str = "mnist"

    def __post_init__(self):
        named_student(*self.student)
        for name in ("shown", "seeds", "long_seeds"):
            check_count(name, getattr(self, name))
        check_count("real_epochs", self.real_epochs, 0)
        check_choice("data", self.data, STATISTICS)
        for name in self.baselines:
            check_choice("baselines", name, [name for name in REAL if name != "passes"])
        for name, protocol in self.protocols.items():
            if protocol.epochs is None:
                raise ValueError(f"{name} must be a protocol by epochs: a lesson is always judged.")
        if not self.rates or (self.teachers and not self.grid):
            raise ValueError("grid and rates must each list at least one to choose from.")

    @property
    def protocols(self) -> dict[str, Protocol]:
        given = {"long": self.long, "augmented": self.augmented}
        return {name: protocol for name, protocol in given.items() if protocol is not None}

    # ------------------------------------------------------------ cells

    def cells(self, folder: Path) -> Iterator[tuple[str, Lessons, int, Sequence[Recipe | Protocol]]]:
        """Name, lessons, images and options of every cell; reads the teachers' files."""
        lengths: dict[tuple[int, int, int], None] = {}
        for name in self.teachers:
            lessons = load_teacher(teacher_file(folder, name)).teaching_set()
            count, (steps, batch) = len(lessons.images), lessons.order.shape
            lengths[count, steps, batch] = None
            yield f"{name}.lesson", Lessons(name), count, [Recipe(), *self.grid]
            for what, protocol in self.protocols.items():
                yield f"{name}.{what}", Lessons(name), count, self._rated(protocol, count)
            if lessons.soft and self.long:
                hard = replace(self.long, hard=True)
                yield f"{name}.hard", Lessons(name), count, self._rated(hard, count)
        for source in self.baselines:
            for count, steps, batch in lengths:
                recipes = [replace(recipe, steps=steps) for recipe in self.grid]
                yield real(source, count, steps, batch), Lessons(source, batch, count), count, recipes
            for count in dict.fromkeys([*(length[0] for length in lengths), *self.images]):
                for what, protocol in self.protocols.items():
                    lessons_of = Lessons(source, images=count)
                    yield f"{source}-{count}.{what}", lessons_of, count, self._rated(protocol, count)
        if self.real_epochs and self.long:
            yield "all.long", Lessons("passes"), 0, [replace(self.long, epochs=self.real_epochs)]

    def _rated(self, protocol: Protocol, images: int) -> list[Protocol]:
        epochs = max(1, min(protocol.epochs or 1, self.shown // images))
        return [replace(protocol, epochs=epochs, rate=rate) for rate in self.rates]

    def _seeds(self, name: str) -> range:
        if name == "all.long":
            return range(min(self.long_seeds, 3))
        return range(self.seeds if ".lesson" in name else self.long_seeds)

    def _job(self, lessons, option, seeds, split: str, folder: Path, images=None) -> dict:
        return job(list(self.student), lessons, option, seeds, [split], self.data, folder, images)

    # ------------------------------------------------------------ run and check

    def run(self, context: Context) -> Record:
        """Measurements are kept one by one, and compared one by one: of a judgement with more teachers
        or more seeds in the same folder only what is new is measured.
        """
        tally, work = Tally(self, context, strict=False), self.work_folder(context.folder)
        cells = {name: (lessons, count, some) for name, lessons, count, some in self.cells(context.teachers)}
        folder = context.teachers
        carry_out = Measuring(folder, str(context.device))
        options = {name: [self._job(lessons, option, SELECTION_SEEDS, "validation", folder,
                                    self.selection_images) for option in some]
                   for name, (lessons, _, some) in cells.items()}  # fmt: skip
        choice = choose(options, carry_out, work / "choice", context)
        tally.write()
        finals = {
            f"{name}-{seed:02}": self._job(lessons, some[choice.place[name]], [seed], "test", folder)
            for name, (lessons, _, some) in cells.items() for seed in self._seeds(name)
        }  # fmt: skip
        found = run_jobs(finals, carry_out, work / "test", context.pool, context.progress)
        results, total = {}, choice.seconds
        for name, (_, count, _) in cells.items():
            students = [found[f"{name}-{seed:02}"] for seed in self._seeds(name)]
            seconds = sum(student["seconds"][0] for student in students)
            total += seconds
            results[name] = {
                "images": count, "steps": students[0]["steps"], "choice": choice.place[name],
                "validation": choice.accuracy.get(name, []),
                "test_accuracy": [student["accuracy"]["test"][0] for student in students],
                "diverged": sum(student["diverged"] for student in students),
                "seconds": round(seconds / len(students), 4),
            }  # fmt: skip
        return tally.record(
            seeds={"choice": list(SELECTION_SEEDS), "evaluation": list(range(self.seeds))},
            seconds=total, curves={}, results={"cells": results},
        )  # fmt: skip

    def check(self, record: Record, context: Context, students: int = 5) -> Check:
        """Train new students in a sample of lessons, and one by epochs: they must agree with the recorded
        ones, see `agreement`, or be within one percentage point.
        """
        check_count("students", students)
        stored, again_of = record.results["cells"], {}
        cells = [cell for cell in self.cells(context.teachers) if cell[0] in stored]
        lessons = [cell for cell in cells if ".lesson" in cell[0]]
        sample = [*lessons[:: max(1, len(lessons) // SAMPLE)][:SAMPLE],
                  *[cell for cell in cells if cell not in lessons][:1]]  # fmt: skip
        for name, source, _, options in sample:
            seeds = range(len(self._seeds(name)), len(self._seeds(name)) + students)
            again = self._job(source, options[stored[name]["choice"]], seeds, "test", context.teachers)
            again_of[name] = measured_again(again, stored[name]["test_accuracy"], context)
        return compared(self, f"of {len(stored)} cells", again_of)

    def summary(self, record: Record) -> str:
        teachers = len(record.configuration["teachers"])
        return f"{self.name}: {teachers} teachers, {len(record.results['cells'])} cells"


def accuracies(record: Record) -> dict[str, Statistic]:
    """Test accuracy of every cell of a recorded Judgement, by its name, "SOURCE.PROTOCOL"."""
    return {name: Statistic(tuple(cell["test_accuracy"])) for name, cell in record.results["cells"].items()}


def real(source: str, images: int, steps: int, batch: int) -> str:
    """Name of the cell of real images for lessons of this length."""
    return f"{source}-{images}.lesson-{steps}x{batch}"
