"""What a teacher is worth: the accuracy of fresh students trained on what it teaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gtnlib.data.sets import Dataset, Split
from gtnlib.inner.flat import FlatStudent
from gtnlib.inner.stacked import StackedStudent
from gtnlib.inner.step import check_parameters, sgd
from gtnlib.inner.structure import structure
from gtnlib.judge.report import Report, Statistic
from gtnlib.students.build import make_student
from gtnlib.support.errors import check_choice, check_count, check_kind
from gtnlib.support.seeds import derive_seed
from gtnlib.teachers.teaching_set import TeachingSet


@torch.no_grad()
def accuracy(student: FlatStudent, w: Tensor, split: Split, batch_size: int = 1000) -> float | list[float]:
    """Fraction of a split that the student with parameters w (P,) classifies correctly.

    One fraction per student for a `StackedStudent` and w (S, P).
    """
    check_kind("student", student, FlatStudent, " FlatStudent(module) makes one.")
    check_kind("split", split, Split)
    check_parameters(student, w)
    check_count("batch_size", batch_size)
    if not len(split):
        raise ValueError("split is empty: there is nothing to classify.")
    batches = zip(split.images.split(batch_size), split.labels.split(batch_size))
    right = [(student.compute(logits, (w,), (x,)).argmax(-1) == y).sum(-1) for x, y in batches]
    counts = torch.stack(right).sum(0).tolist()
    return [n / len(split) for n in counts] if isinstance(counts, list) else counts / len(split)


def logits(student, w, x) -> Tensor:
    return student.logits(w, x)


def evaluate(
    teacher,
    student,
    data: Dataset,
    seeds: int | Sequence[int] = 5,
    steps: int | None = None,
    split: str = "test",
    every: int | None = None,
) -> Report:
    """Train fresh students on what the teacher teaches and measure them on real images.

    On a GPU, students of one structure train side by side; on a CPU, one after the other.

    Parameters
    ----------
    teacher: PixelTeacher, GeneratorTeacher, RealTeacher or TeachingSet.
    student: class, function or list of them, as for `fit`.
    seeds: how many students, or their seeds; never those `fit` draws, whatever its seed.
    steps: inner steps; default teacher.steps. Beyond it the teacher starts over.
    split: "test" for final numbers, "validation" for every choice made on the way, or "train".
    every: also measure after 0, every, 2·every, … steps.

    Returns
    -------
    Report with .accuracy (.mean, .std, .values), .steps and .curves (seeds, len(steps)).
    """
    check_choice("split", split, ("train", "validation", "test"))
    images = getattr(check_kind("data", data, Dataset, " load_dataset(…) makes one."), split)
    if isinstance(teacher, type) or not hasattr(teacher, "teaching_set"):
        raise TypeError(f"teacher must be a teacher or a TeachingSet, got {teacher!r}.")
    seeds = check_seeds(seeds)
    steps = teacher.steps if steps is None else check_count("steps", steps)
    between = () if every is None else range(0, steps, check_count("every", every))
    marks = sorted({*between, steps})
    pupils = [FlatStudent(fresh(student, data, seed)) for seed in seeds]
    curve_of: dict[int, tuple[float, ...]] = {}
    for group in _groups(pupils, together=data.device.type == "cuda"):
        lessons = [lessons_of(teacher, data, seeds[i]) for i in group]
        curve = _train(StackedStudent([pupils[i] for i in group]), lessons, marks, images)
        curve_of.update(zip(group, zip(*curve)))
    curves = [curve_of[i] for i in range(len(seeds))]
    final = Statistic(tuple(curve[-1] for curve in curves))
    return Report(final, tuple(marks), torch.tensor(curves), split)


def check_seeds(seeds: int | Sequence[int]) -> list[int]:
    """The seeds of so many students, or those given. Raises ValueError if there is none."""
    if not isinstance(seeds, Sequence) or isinstance(seeds, str):
        seeds = range(check_count("seeds", seeds))
    seeds = [check_count("every one of seeds", seed, 0) for seed in seeds]
    if not seeds:
        raise ValueError("seeds is empty: give at least one.")
    return seeds


def fresh(student, data: Dataset, seed: int) -> nn.Module:
    """The untrained network that this seed gives."""
    module = make_student(student, data.shape, data.num_classes, derive_seed("evaluate", seed))
    return module.to(data.device)


def lessons_of(teacher, data: Dataset, seed: int):
    """What the student of this seed is taught. Raises ValueError unless a teaching set fits the data."""
    lessons = teacher.teaching_set(data.generator(derive_seed("draw", seed))).to(data.device)
    if isinstance(lessons, TeachingSet):
        check_fit(lessons, data)
    return lessons


def _groups(pupils: list[FlatStudent], together: bool) -> list[list[int]]:
    """Who trains side by side: all of one structure, or everyone alone."""
    groups: dict = {}
    for i, pupil in enumerate(pupils):
        kind = structure(pupil.module) if together else None
        groups.setdefault(i if kind is None else kind, []).append(i)
    return list(groups.values())


@torch.no_grad()
def _train(student: StackedStudent, lessons: list[TeachingSet], marks, images: Split) -> list[list[float]]:
    """Accuracy of every student, each with its own lessons, after so many steps: (marks, S)."""
    w, t = student.initial(), 0
    m, curve = torch.zeros_like(w), list[Any]()
    for mark in marks:
        for t in range(t, mark):
            each = [(*lesson.batch(t), *lesson.rates(t)) for lesson in lessons]
            batches = tuple(map(torch.stack, zip(*each)))
            w, m = student.compute(sgd, (w, m, *batches), (lessons[0].weight_decay,))
        t = mark
        curve.append(accuracy(student, w, images))
    return curve


def check_fit(lessons: TeachingSet, data: Dataset) -> None:
    """Raise ValueError unless the teacher's images and labels are of the data's kind."""
    shape = tuple(lessons.images.shape[1:])
    if shape != data.shape:
        raise ValueError(f"the teacher's images are {shape}, those of {data.name} {data.shape}.")
    if int(lessons.labels.max()) >= data.num_classes:
        raise ValueError(
            f"the teacher's labels go up to {int(lessons.labels.max())}, but {data.name} has "
            f"{data.num_classes} classes."
        )


def best_rate(
    teacher_at,
    student,
    data: Dataset,
    rates: Sequence[float] = (0.003, 0.01, 0.03, 0.1, 0.3),
    seeds: int = 3,
    steps: int | None = None,
) -> float:
    """The learning rate whose students do best on the validation split.

    teacher_at: function from a rate to a teacher, for instance
        lambda rate: RealTeacher(data.train, steps=10, batch_size=100, rate=rate)
    """
    if isinstance(teacher_at, (type, torch.nn.Module)) or not callable(teacher_at):
        raise TypeError(f"teacher_at must be a function from a rate to a teacher, got {teacher_at!r}.")
    if not isinstance(rates, Sequence) or isinstance(rates, str):
        raise TypeError(f"rates must be a sequence of numbers, got {rates!r}.")
    if not rates:
        raise ValueError("rates is empty: give at least one.")
    scores = {rate: evaluate(teacher_at(rate), student, data, seeds, steps, "validation").accuracy.mean
              for rate in rates}  # fmt: skip
    return max(scores, key=scores.__getitem__)
