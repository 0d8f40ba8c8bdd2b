"""What `fit` is asked for: checked, and as what makes two runs the same run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from gtnlib.data.sets import Dataset
from gtnlib.metagrad.base import MetaGradient
from gtnlib.students.build import check_student
from gtnlib.support.errors import check_choice, check_count, check_kind, check_number, check_seed
from gtnlib.support.identity import built, teacher_of
from gtnlib.support.precision import PRECISIONS
from gtnlib.teachers.varied import Variation


@dataclass
class Arguments:
    """Arguments of `fit` that decide its numbers. Raises TypeError or ValueError."""

    teacher: Any
    metagrad: MetaGradient
    student: Callable[..., nn.Module] | Sequence[Callable[..., nn.Module]]
    data: Dataset
    outer_steps: int
    seed: int
    students_per_step: int
    rate: float | None
    rates_rate: float
    final_rate: float
    clip: float | None
    validate_every: int | None
    compile: bool | str
    precision: str
    lessons: Any = None

    def __post_init__(self):
        self.outer_steps = check_count("outer_steps", self.outer_steps)
        self.students_per_step = check_count("students_per_step", self.students_per_step)
        self.final_rate = check_number("final_rate", self.final_rate, 0)
        if self.clip is not None:
            self.clip = check_number("clip", self.clip, 0)
            if self.clip == 0:
                raise ValueError("clip is 0, but must be positive or None.")
        check_kind("data", self.data, Dataset, " load_dataset(…) makes one.")
        check_student(self.student)
        self.seed = check_seed(self.seed)
        if not isinstance(self.metagrad, MetaGradient):
            raise TypeError(f"metagrad must be an instance such as Unrolled(), got {self.metagrad!r}.")
        self._check_teacher()
        self.rate = self.teacher.outer_rate if self.rate is None else check_number("rate", self.rate, 0)
        self.rates_rate = check_number("rates_rate", self.rates_rate, 0)
        if self.validate_every is not None:
            self.validate_every = check_count("validate_every", self.validate_every)
            self.data.part("validation")
        if not isinstance(self.compile, bool) and self.compile != "auto":
            raise ValueError(f"compile is {self.compile!r}, but must be True, False or 'auto'.")
        check_choice("precision", self.precision, PRECISIONS)
        self.lessons = Variation.of(self.lessons)
        self.metagrad.check_length(
            self.teacher.steps if self.lessons is None else self.lessons.shortest(self.teacher)
        )

    def _check_teacher(self) -> None:
        teacher, data = self.teacher, self.data
        if isinstance(teacher, type) or not hasattr(teacher, "parameter_groups"):
            raise TypeError(
                f"teacher must be a PixelTeacher or GeneratorTeacher, got {type(teacher).__name__}."
            )
        if teacher.log_rate.dtype != data.dtype:
            raise TypeError(
                f"teacher is {teacher.log_rate.dtype}, but data is {data.dtype}. Make one as the other, by "
                "teacher.double(), or images.float() for every Split."
            )
        if tuple(teacher.shape) != data.shape or teacher.num_classes != data.num_classes:
            raise ValueError(
                f"the teacher makes {teacher.num_classes} classes of images {teacher.shape}, but "
                f"{data.name} has {data.num_classes} classes of images {data.shape}."
            )

    def identity(self) -> dict:
        """What a checkpoint must have been asked for as well: learned values are not part of it."""
        data = self.data
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "teacher": teacher_of(self.teacher),
            "metagrad": built(self.metagrad),
            "data": {"name": data.name, "train": list(data.train.images.shape), "device": data.device.type},
        }
