"""What a student can be taught from, as a plain description that a record can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from gtnlib.data.augment import Augment
from gtnlib.data.load import load_dataset
from gtnlib.data.sets import Dataset
from gtnlib.experiments.agreement import Agreement, agreement
from gtnlib.experiments.base import Context, check_arguments
from gtnlib.judge.protocols import Protocol
from gtnlib.judge.report import Statistic
from gtnlib.judge.training import Recipe, score
from gtnlib.students.networks import MLP, VGG, AlexNet, ConvNet, LeNet, ResNet
from gtnlib.students.space import Architecture
from gtnlib.students.vit import VisionTransformer
from gtnlib.support.errors import check_choice, check_count
from gtnlib.support.files import digest_of, parse_tensors, read_tensors
from gtnlib.teachers.coresets import METHODS as CORESETS
from gtnlib.teachers.coresets import coreset
from gtnlib.teachers.files import load_teacher
from gtnlib.teachers.real import RealTeacher, Stream
from gtnlib.teachers.teaching_set import TeachingSet

STUDENTS = {"MLP": MLP, "LeNet": LeNet, "ConvNet": ConvNet, "AlexNet": AlexNet, "ResNet": ResNet,
            "VGG": VGG, "VisionTransformer": VisionTransformer}  # fmt: skip
REAL = ("real", *CORESETS, "passes")


def named_student(name: str, arguments: Mapping) -> Callable[..., nn.Module]:
    """What builds a student: a name of `STUDENTS`, or "Architecture", and arguments.

    Raises ValueError for unknown ones.
    """
    check_choice("a student", name, [*STUDENTS, "Architecture"])
    if name == "Architecture":
        check_arguments("arguments of Architecture", arguments, Architecture)
        return Architecture(**arguments)
    check_arguments(f"arguments of {name}", arguments, STUDENTS[name], ("shape", "num_classes"))
    return partial(STUDENTS[name], **arguments)


@dataclass(frozen=True)
class Lessons:
    """A source of training batches.

    Parameters
    ----------
    source: the name of a distillation experiment, whose recorded teacher teaches; or "real", random
        images drawn anew for every student; "k_centre" or "herding", chosen ones; or "passes" over
        the whole training split.
    batch_size: of all but a recorded teacher.
    images: of "real" (drawn as `RealTeacher` does), "k_centre" and "herding"; default steps × batch size.
    shuffled: a recorded teacher's batches in an order drawn anew for every student; rates and
        momenta stay with their step.
    """

    source: str
    batch_size: int = 64
    images: int | None = None
    shuffled: bool = False

    def __post_init__(self):
        check_count("batch_size", self.batch_size)
        if self.images is not None:
            check_count("images", self.images)
        if self.shuffled and self.source in REAL:
            raise ValueError(f"shuffled is for recorded teachers, but source is {self.source!r}.")

    @property
    def recorded(self) -> bool:
        """Whether it needs the file of a teacher."""
        return self.source not in REAL

    def build(self, data: Dataset, steps: int, folder: Path):
        """What `gtnlib.judge.training.score` takes as a teacher."""
        if self.recorded:
            teacher = load_teacher(folder / f"{self.source}.safetensors")
            return _Shuffled(teacher) if self.shuffled else teacher
        if self.source == "passes":
            return Stream(data.train, self.batch_size)
        images = self.images or steps * self.batch_size
        if self.source == "real":
            return RealTeacher(data.train, steps, self.batch_size, images)
        per_class = images // data.num_classes
        return coreset(data.train, self.source, per_class, steps, self.batch_size)


class _Shuffled:
    """A teacher whose batches come in a random order."""

    def __init__(self, teacher):
        self.teacher, self.steps = teacher, teacher.steps

    def teaching_set(self, generator: torch.Generator) -> TeachingSet:
        lessons = self.teacher.teaching_set(generator)
        order = torch.randperm(lessons.steps, generator=generator, device=generator.device).cpu()
        return replace(lessons, order=lessons.order[order])


# ---------------------------------------------------------------- one measurement


def job(student, lessons: Lessons, recipe: Recipe | Protocol, seeds, splits, data: str, folder: Path,
        images: int | None = None) -> dict:  # fmt: skip
    """All that decides a measurement, as JSON values. What a recorded teacher holds is part of it.

    student: name and arguments, as ["MLP", {}]. recipe: or a protocol by epochs. images: measure on so
    many of a split; default all.
    """
    made = {"student": student, "lessons": asdict(lessons), "recipe": asdict(recipe), "seeds": list(seeds),
            "splits": list(splits), "data": data, "images": images}  # fmt: skip
    if lessons.recorded:
        made["sha256"] = digest_of(*read_tensors(teacher_file(folder, lessons.source), "teacher"))
    return made


def teacher_file(folder: Path, name: str) -> Path:
    """Where the recorded teacher of a distillation lies. Raises ValueError if it does not."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        raise ValueError(f"there is no recorded teacher {path}. Make one by `run {name} --out DIR`, and name "
                         "the folder with all teachers by --teachers.")  # fmt: skip
    return path


def check_recipes(name: str, lessons: Lessons, recipes: Sequence[Recipe | Protocol], steps=(None,)) -> None:
    """Raise ValueError if a recipe leaves to a teacher what real images do not prescribe."""
    if lessons.recorded:
        return
    for recipe in recipes:
        if isinstance(recipe, Recipe) and recipe.rate is None:
            raise ValueError(f"{name!r} are real images, whose recipe must have a rate of its own: give one.")
        if (
            isinstance(recipe, Recipe)
            and recipe.steps is None
            and None in steps
            and lessons.source != "passes"
        ):
            raise ValueError(
                f"{name!r} are real images, which prescribe no number of steps: give the recipe one."
            )


def measure(job: dict, device: str, teacher: bytes = b"") -> dict:
    """Carry a job out: accuracies and losses by split, and seconds of training, one per seed.

    teacher: the content of the recorded one's file.
    """
    data, given = _data(job["data"], device=device), job["recipe"]
    recipe = protocol(given) if "epochs" in given else Recipe(**given)
    steps = recipe.steps if isinstance(recipe, Recipe) else 1
    lessons = _built(Lessons(**job["lessons"]), job["data"], steps, teacher, device)
    student = named_student(*job["student"])
    found = score(lessons, student, data, recipe, job["seeds"], job["splits"], job["images"])
    accuracy, loss = ({split: list(values) for split, values in of.items()}
                      for of in (found.accuracy, found.loss))  # fmt: skip
    return {"accuracy": accuracy, "loss": loss, "seconds": [round(s, 4) for s in found.seconds],
            "steps": found.steps, "diverged": found.diverged}  # fmt: skip


def protocol(given: Mapping) -> Protocol:
    """What `asdict` made a table of."""
    augment = given["augment"]
    return Protocol(**{**given, "augment": augment and Augment(**augment)})


@dataclass(frozen=True)
class Measuring:
    """`measure` with the teachers of a folder and on a device; a worker elsewhere needs no such folder."""

    folder: Path
    device: str

    def __call__(self, job: dict) -> dict:
        return self.portable(job)(job)

    def portable(self, job: dict) -> Callable[[dict], dict]:
        """The same for this job alone, its teacher inside. ValueError if that has changed since."""
        carry_out = partial(measure, device=self.device)
        if "sha256" not in job:
            return carry_out
        path = self.folder / f"{job['lessons']['source']}.safetensors"
        content = path.read_bytes()
        if digest_of(*parse_tensors(content, "teacher", path)) != job["sha256"]:
            raise ValueError(f"{path} has changed since this run began. Start it again with another --out.")
        return partial(carry_out, teacher=content)


def measured_again(job: dict, recorded: Sequence[float], context: Context, least: float = 0.01,
                   std: float | None = None) -> Agreement:  # fmt: skip
    """How the students of a job with one split agree with recorded ones, see `agreement`.

    least: difference that is allowed: a spread over a few students can be small by chance.
    std: of students of this kind; this is allowed for, or the spread of the new ones if it is larger, in
        place of that of the recorded ones.
    """
    found = Measuring(context.teachers, str(context.device))(job)
    (values,) = found["accuracy"].values()
    old, new = Statistic(tuple(recorded)), Statistic(tuple(values))
    return agreement(old, new, least, None if std is None else max(std, new.std), found["diverged"])


_data = lru_cache(maxsize=2)(load_dataset)


@lru_cache(maxsize=8)
def _built(lessons: Lessons, data: str, steps: int, teacher: bytes, device: str):
    with TemporaryDirectory() as folder:
        if lessons.recorded:
            Path(folder, f"{lessons.source}.safetensors").write_bytes(teacher)
        return lessons.build(_data(data, device=device), steps, Path(folder))
