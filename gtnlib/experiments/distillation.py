"""The main kind of experiment: train teachers, then fresh students on what they teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path

from gtnlib.data.load import STATISTICS, load_dataset
from gtnlib.experiments.agreement import agreement
from gtnlib.experiments.base import Check, Context, Experiment, Tally, check_arguments
from gtnlib.experiments.lessons import STUDENTS, named_student
from gtnlib.experiments.records import Record, recorded, recorded_teacher
from gtnlib.judge.evaluate import evaluate
from gtnlib.judge.report import Statistic
from gtnlib.metagrad import DistributionMatching, GradientMatching, Implicit, Unrolled
from gtnlib.outer.fit import fit
from gtnlib.support.errors import DataError, check_choice, check_count
from gtnlib.support.seeds import derive_seed
from gtnlib.teachers.files import TEACHERS, load_teacher, rounded, save_teacher
from gtnlib.teachers.generator import GeneratorTeacher
from gtnlib.teachers.starts import STARTS
from gtnlib.teachers.varied import Variation

METAGRADS = {kind.__name__: kind for kind in (Unrolled, Implicit, GradientMatching, DistributionMatching)}
OWN = ("teacher", "metagrad", "student", "data", "seed", "progress", "callback", "checkpoint",
       "checkpoint_seconds")  # fmt: skip

# A spread over a few students can be small by chance, so `check` allows at least this much.
SMALLEST_TOLERANCE = 0.002
MARKS = 8  # how often accuracy is measured along the inner steps


@dataclass(frozen=True)
class Distillation(Experiment):
    """Train `teacher_seeds` teachers in turn, and `evaluation_seeds` students on each.

    Parameters
    ----------
    teacher, teacher_args: a name of `TEACHERS`, and arguments of its constructor but the seed.
    metagrad, metagrad_args: a name of `METAGRADS`, and arguments.
    student, student_args: a name of `STUDENTS`, and arguments.
    fit_args: outer_steps, and other arguments of `fit`. Validation is measured 20 times by default.
    start: what the images begin as: "noise", or real ones, "random", "herding" or "k_centre", which
        pixels copy and a generator learns to make first (`start_from`).
    seed: of the first teacher and its `fit`; the others take those after it.
    data: a name for `load_dataset`.

    The record holds the accuracies on the test split of all students, with every teacher rounded to
    half precision; the teacher it ships is the first one, not the best. A generator that makes one
    batch, with as many images of every class, is measured and shipped as a PixelTeacher of these
    images, which take a tenth of the space.
    """

    teacher: str
    teacher_args: Mapping
    metagrad: str
    metagrad_args: Mapping = field(default_factory=dict)
    student: str = "ConvNet"
    student_args: Mapping = field(default_factory=dict)
    fit_args: Mapping = field(default_factory=dict)
    start: str = "noise"
    seed: int = 0
    teacher_seeds: int = 1
    evaluation_seeds: int = 5
    data: str = "mnist"

    def __post_init__(self):
        for kind, known, own in (
            ("teacher", TEACHERS, ("seed", "generator")),
            ("metagrad", METAGRADS, ()),
            ("student", STUDENTS, ("shape", "num_classes")),
        ):
            found = known[check_choice(kind, getattr(self, kind), known)]
            check_arguments(f"{kind}_args", getattr(self, f"{kind}_args"), found, own)
        check_arguments("fit_args", self.fit_args, fit, OWN)
        check_count("outer_steps in fit_args", self.fit_args.get("outer_steps"))
        Variation.of(self.fit_args.get("lessons"))
        check_choice("data", self.data, STATISTICS)
        check_count("seed", self.seed, 0)
        check_count("teacher_seeds", self.teacher_seeds)
        check_count("evaluation_seeds", self.evaluation_seeds)
        check_choice("start", self.start, ("noise", *STARTS))
        if self.start != "noise" and self.teacher_args.get("curriculum") == "fresh":
            raise ValueError(f"start is {self.start!r}, but fresh noise makes no fixed images to start from.")

    # ------------------------------------------------------------ the parts

    def build_teacher(self, seed: int, data):
        """The teacher of a seed before training."""
        shapes = {"shape": data.shape, "num_classes": data.num_classes}
        teacher = TEACHERS[self.teacher](**{**shapes, **self.teacher_args}, seed=seed).to(data.device)
        if self.start != "noise":
            teacher.start_from(data.train, data.generator(derive_seed("start", seed)), self.start)
        return teacher

    def build_metagrad(self):
        return METAGRADS[self.metagrad](**self.metagrad_args)

    def build_student(self):
        return partial(STUDENTS[self.student], **self.student_args)

    def met(self):
        """The student, or the list of them to draw from, that teaches the teacher."""
        return self.build_student()

    # ------------------------------------------------------------ run and check

    def fitted(self, seed: int, data, **arguments):
        """The teacher of a seed after `fit` with these arguments as well, and its history."""
        every = max(1, self.fit_args["outer_steps"] // 20)
        teacher = self.build_teacher(seed, data)
        history = fit(teacher, self.build_metagrad(), self.met(), data, seed=seed,
                      **{"validate_every": every, **self.fit_args, **arguments})  # fmt: skip
        return teacher, history

    def train(self, seed: int, data, checkpoint: Path, tally: Tally, context: Context):
        """The teacher of a seed after training, and its history. KeyboardInterrupt if interrupted."""

        def measured(step, teacher, history):
            if history.validation and history.validation[-1][0] == step + 1:
                tally.write()

        teacher, history = self.fitted(seed, data, callback=measured, progress=context.progress,
                                       checkpoint=checkpoint)  # fmt: skip
        if history.interrupted:
            raise KeyboardInterrupt
        return teacher, history

    def run(self, context: Context) -> Record:
        tally, data = Tally(self, context), load_dataset(self.data, device=context.device)
        seeds = [self.seed + k for k in range(self.teacher_seeds)]
        work, teachers, histories = self.work_folder(context.folder), [], []
        for seed in seeds:
            teacher, history = self.train(seed, data, work / f"teacher-{seed}.safetensors", tally, context)
            teachers.append(rounded(kept(teacher)))
            histories.append(history)

        every = max(1, teachers[0].steps // MARKS)  # the test split is used from here on only
        reports = [evaluate(teacher, self.build_student(), data, self.evaluation_seeds, every=every)
                   for teacher in teachers]  # fmt: skip
        seconds = [elapsed(history) for history in histories]
        save_teacher(teachers[0], self.teacher_path(context.folder))
        return tally.record(
            seeds={"fit": seeds, "evaluation": list(range(self.evaluation_seeds))},
            seconds=sum(history.seconds for history in histories),
            curves={
                "loss": [shortened(history.loss) for history in histories],
                "seconds": seconds,
                "validation": [[[step, time[step - 1], value] for step, value in history.validation]
                               for history, time in zip(histories, seconds)],
            },
            results={
                "test_accuracy": [list(report.accuracy.values) for report in reports],
                "inner_steps": list(reports[0].steps),
                "inner_accuracy": [[[round(v, 6) for v in curve] for curve in report.curves.tolist()]
                                   for report in reports],
                "diverged": [report.diverged for report in reports],
                "images": len(teachers[0].teaching_set().images),
                "outer_steps": self.fit_args["outer_steps"],
            },
        )  # fmt: skip

    def check(self, record: Record, context: Context, students: int = 5) -> Check:
        """New students of the recorded teacher must agree with those of the record, see `agreement`, or be
        within 0.2 percentage points of them.
        """
        check_count("students", students)
        old = accuracies(record)[0]
        teacher = load_teacher(self.teacher_path(context.folder)).to(context.device)
        data = load_dataset(self.data, device=context.device)
        first = max(record.seeds["evaluation"], default=-1) + 1
        report = evaluate(teacher, self.build_student(), data, range(first, first + students))
        new = report.accuracy
        found = agreement(old, new, SMALLEST_TOLERANCE, diverged=report.diverged)
        return Check(found.agrees, (
            f"{self.name}: recorded {100 * old.mean:.2f} ± {100 * old.std:.2f} %, {students} new students "
            f"{100 * new.mean:.2f} ± {100 * new.std:.2f} %, {'within' if found.within else 'NOT within'} "
            f"{100 * found.tolerance:.2f} percentage points{found.said and '; ' + found.said}"
        ))  # fmt: skip

    def summary(self, record: Record) -> str:
        each = accuracies(record)
        return f"{self.name}: {pooled(each)} over {len(each)} × {len(each[0].values)} students"

    def files(self, folder: Path) -> list[Path]:
        return [*super().files(folder), self.teacher_path(folder)]


@dataclass(frozen=True)
class Mixture(Distillation):
    """A distillation that draws the student of every outer step from several kinds: `student`, `others`.

    others: of each, a name of `STUDENTS` or "Architecture", and arguments; there may be none.
        Accuracies on the way, on the validation split, are of students drawn alike; those of the
        record, on test, are of `student`.
    """

    others: Sequence[tuple[str, Mapping]] = ()

    def __post_init__(self):
        super().__post_init__()
        self.met()

    def met(self):
        return [self.build_student(), *(named_student(*other) for other in self.others)]


def kept(teacher):
    """What is measured and shipped of a trained teacher: of a generator with a fixed lesson its images,
    where they are fewer numbers and as many of every class.
    """
    fixed = isinstance(teacher, GeneratorTeacher) and teacher.curriculum != "fresh"
    if not fixed or teacher.labels.numel() % teacher.num_classes:
        return teacher
    return min(teacher.as_pixels(), teacher, key=lambda one: sum(p.numel() for p in one.parameters()))


def elapsed(history) -> list[float]:
    """Seconds of training after every outer step."""
    return [round(s, 3) for s in accumulate(record.seconds for record in history.records)]


def shortened(losses: Sequence[float]) -> list[float]:
    """To six digits."""
    return [float(f"{loss:.6g}") for loss in losses]


def accuracies(record: Record) -> list[Statistic]:
    """Test accuracy over the students of each teacher. DataError if the record has none."""
    try:
        values = [tuple(float(v) for v in teacher) for teacher in record.results["test_accuracy"]]
        if not values or not all(values) or not all(0 <= v <= 1 for t in values for v in t):
            raise ValueError("they must be fractions, at least one per teacher")
        if not isinstance(record.seeds["evaluation"], list):
            raise ValueError("there are no evaluation seeds")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the record {record.name} has no good test accuracies: {error}.") from error
    return [Statistic(v) for v in values]


def pooled(each: list[Statistic]) -> Statistic:
    """Over the students of all teachers."""
    return Statistic(tuple(value for teacher in each for value in teacher.values))


def checked_again(names: Sequence[str], data, seeds: Sequence[int] = (100, 101, 102)) -> dict[str, dict]:
    """By name, what the shipped record of a distillation says, and what new students do with its teacher.

    seeds: of students that no record contains.
    """
    rows = {}
    for name in names:
        record, teacher = recorded(name), recorded_teacher(name, data.device)
        student = partial(STUDENTS[record.configuration["student"]], **record.configuration["student_args"])
        rows[name] = {
            "images": record.results["images"], "inner steps": teacher.steps,
            "outer steps": record.results["outer_steps"], "recorded": accuracies(record)[0],
            "three new students": evaluate(teacher, student, data, seeds=list(seeds)).accuracy,
        }  # fmt: skip
    return rows
