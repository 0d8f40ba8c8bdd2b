"""What a teacher is worth: the accuracy of fresh students trained on what it teaches."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtnlib.data.sets import PARTS, Dataset, Split
from gtnlib.inner.flat import FlatStudent, flat_student
from gtnlib.inner.stacked import StackedStudent
from gtnlib.inner.step import check_parameters, sgd
from gtnlib.inner.structure import structure
from gtnlib.judge.divergence import diverged
from gtnlib.judge.protocols import LESSON, Protocol
from gtnlib.judge.report import Report, Statistic
from gtnlib.support.errors import DivergenceError, DivergenceWarning, check_choice, check_count, check_kind
from gtnlib.support.progress import progress_bar
from gtnlib.support.seeds import derive_seed
from gtnlib.teachers.rehearsal import rehearse_teacher
from gtnlib.teachers.teaching_set import TeachingSet

HOPELESS = 1e6  # a mean cross-entropy that stands for all that is higher, or no number


@torch.no_grad()
def accuracy(student: FlatStudent, w: Tensor, split: Split, batch_size: int = 1000) -> float | list[float]:
    """Fraction of a split that the student with parameters w (P,) classifies correctly.

    One fraction per student for a `StackedStudent` and w (S, P).
    """
    right = [(scores.argmax(-1) == y).sum(-1) for scores, y in _scored(student, w, split, batch_size)]
    counts = torch.stack(right).sum(0).tolist()
    return [n / len(split) for n in counts] if isinstance(counts, list) else counts / len(split)


@torch.no_grad()
def accuracy_and_loss(student: FlatStudent, w: Tensor, split: Split) -> tuple[float, float]:
    """The accuracy of one student, w (P,), and its mean cross-entropy, at most `HOPELESS`.

    What is no number is `HOPELESS` as well.
    """
    right, total = 0, 0.0
    for scores, y in _scored(student, w, split, 1000):
        right += int((scores.argmax(-1) == y).sum())
        total += float(F.cross_entropy(scores, y, reduction="sum"))
    loss = total / len(split)
    return right / len(split), loss if loss < HOPELESS else HOPELESS


def _scored(
    student: FlatStudent, w: Tensor, split: Split, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and labels of a split, batch by batch.

    Where there are several batches they are mixed, the same way every time: what a network makes of an
    image may depend on the others (batch norm), and a split may be sorted by class.
    """
    check_kind("student", student, FlatStudent, " FlatStudent(module) makes one.")
    check_kind("split", split, Split)
    check_parameters(student, w)
    check_count("batch_size", batch_size)
    if not len(split):
        raise ValueError("split is empty: there is nothing to classify.")
    if len(split) <= batch_size:
        batches = [slice(None)]
    else:
        batches = _mixed(len(split)).to(split.device).split(batch_size)
    for batch in batches:
        yield student.compute(logits, (w,), (split.images[batch],)), split.labels[batch]


@functools.lru_cache(maxsize=8)
def _mixed(n: int) -> Tensor:
    """0 … n − 1 in an order that is always the same."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))


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
    protocol: Protocol = LESSON,
    progress: bool | None = None,
) -> Report:
    """Train fresh students on what the teacher teaches and measure them on real images.

    In the teacher's own lesson, students of one structure train side by side on a GPU; on a CPU, and
    by epochs, one after the other.

    Parameters
    ----------
    teacher: PixelTeacher, GeneratorTeacher, RealTeacher or TeachingSet.
    student: class, function or list of them, as for `fit`.
    seeds: how many students, or their seeds; never those `fit` draws, whatever its seed.
    steps: inner steps of a lesson; default teacher.steps. Beyond it the teacher starts over.
    split: "test" for final numbers, "validation" for every choice made on the way, or "train".
    every: also measure after 0, every, 2·every, … steps.
    protocol: LESSON, LONG, LONG_AUGMENTED or another.
    progress: show a bar; default where the training is by epochs.

    Returns
    -------
    Report with .accuracy (.mean, .std, .values), .steps, .curves (seeds, len(steps)) and .diverged, as
    `gtnlib.judge.divergence` counts it; if that is not 0, a DivergenceWarning is given as well.
    """
    report = measure(teacher, student, data, seeds, steps, split, every, protocol, progress)
    if report.diverged:
        warnings.warn(f"{report}: their accuracies are among the others.", DivergenceWarning, 2)
    return report


@torch.inference_mode(False)
@torch.enable_grad()
def measure(teacher, student, data, seeds, steps=None, split="test", every=None, protocol=LESSON,
            progress=None) -> Report:  # fmt: skip
    """`evaluate` without the warning, for who looks at `diverged`."""
    check_choice("split", split, PARTS)
    images = check_kind("data", data, Dataset, " load_dataset(…) makes one.").part(split)
    if isinstance(teacher, type) or not hasattr(teacher, "teaching_set"):
        raise TypeError(f"teacher must be a teacher or a TeachingSet, got {teacher!r}.")
    rehearse_teacher(teacher)
    seeds, own = check_seeds(seeds), check_kind("protocol", protocol, Protocol).epochs is None
    if steps is not None and not own:
        raise ValueError(f"steps is {steps}, but the protocol has epochs: give protocol=LESSON, or no steps.")
    if every is not None:
        check_count("every", every)
    pupils = [fresh(student, data, seed) for seed in seeds]
    check_fresh([pupil.module for pupil in pupils])
    if own:
        steps = teacher.steps if steps is None else check_count("steps", steps)
    else:
        steps = protocol.steps(len(lessons_of(teacher, data, seeds[0]).images))
    marks = sorted({*(() if every is None else range(0, steps, every)), steps})
    curve_of: dict[int, tuple[float, ...]] = {}
    lost = 0
    with progress_bar(len(seeds) * steps, "students", not own if progress is None else progress) as bar:
        for group in _groups(pupils, together=own and data.device.type == "cuda"):
            lessons = [lessons_of(teacher, data, seeds[i]) for i in group]
            starts = [pupils[i].initial() for i in group]
            if own:
                stack = StackedStudent([pupils[i] for i in group])
                curve, w = _train(stack, lessons, marks, images)
                bar.update(len(group) * steps)
            else:
                generator = data.generator(derive_seed("protocol", seeds[group[0]]))
                curve, w = _epochs(pupils[group[0]], lessons[0], protocol, generator, marks, images, bar)
            curve_of.update(zip(group, zip(*curve)))
            ends = zip((pupils[i] for i in group), starts, w, lessons)
            lost += sum(int(diverged(*end)) for end in ends)
    curves = [curve_of[i] for i in range(len(seeds))]
    final = Statistic(tuple(curve[-1] for curve in curves))
    return Report(final, tuple(marks), torch.tensor(curves), split, lost)


def check_seeds(seeds: int | Sequence[int]) -> list[int]:
    """The seeds of so many students, or those given. Raises ValueError if there is none, or one twice."""
    if isinstance(seeds, (Tensor, np.ndarray)) and seeds.ndim:
        seeds = seeds.tolist()
    if not isinstance(seeds, Sequence) or isinstance(seeds, str):
        seeds = range(check_count("seeds", seeds))
    seeds = [check_count("every one of seeds", seed, 0) for seed in seeds]
    if not seeds:
        raise ValueError("seeds is empty: give at least one.")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds has one of {sorted(seeds)} twice: it gives the same student again.")
    return seeds


def fresh(student, data: Dataset, seed: int) -> FlatStudent:
    """The untrained network that this seed gives, once it has run on two images."""
    pupil = flat_student(student, data, derive_seed("evaluate", seed), data.dtype)
    pupil.rehearse(data.train.images, data.num_classes)
    return pupil


def check_fresh(modules: Sequence[torch.nn.Module]) -> None:
    """Raise TypeError if one network is to be several students."""
    if len(set(map(id, modules))) < len(modules):
        raise TypeError(f"student gives one and the same {type(modules[0]).__name__} at every call, but must "
                        "build a fresh network.")  # fmt: skip


def lessons_of(teacher, data: Dataset, seed: int):
    """What the student of this seed is taught. Raises ValueError unless a teaching set fits the data."""
    lessons = teacher.teaching_set(data.generator(derive_seed("draw", seed))).to(data.device)
    if isinstance(lessons, TeachingSet):
        check_fit(lessons, data)
        lessons = lessons.to(dtype=data.dtype)
    return lessons


def _groups(pupils: list[FlatStudent], together: bool) -> list[list[int]]:
    """Who trains side by side: all of one structure, or everyone alone."""
    groups: dict = {}
    for i, pupil in enumerate(pupils):
        kind = structure(pupil.module) if together and not pupil.constants else None
        groups.setdefault(i if kind is None else kind, []).append(i)
    return list(groups.values())


@torch.no_grad()
def _train(student: StackedStudent, lessons: list[TeachingSet], marks, images: Split):
    """Accuracy of every student, each with its own lessons, after so many steps: (marks, S); and w (S, P)."""
    w, t = student.initial(), 0
    m, curve = torch.zeros_like(w), list[Any]()
    for mark in marks:
        for t in range(t, mark):
            each = [(*lesson.batch(t), *lesson.rates(t)) for lesson in lessons]
            batches = tuple(map(torch.stack, zip(*each)))
            w, m = student.compute(sgd, (w, m, *batches), (lessons[0].weight_decay,))
        t = mark
        curve.append(accuracy(student, w, images))
    return curve, w


def _epochs(pupil: FlatStudent, lessons: TeachingSet, protocol: Protocol, generator, marks, images: Split,
            bar):  # fmt: skip
    """Accuracy of one student, trained by epochs, after so many steps: (marks, 1); and w (1, P)."""
    curve = [[accuracy(pupil, pupil.initial(), images)]] if 0 in marks else []
    for step in protocol.training(pupil.module, lessons.images, lessons.labels, generator):
        bar.update()
        if step in marks:
            curve.append([accuracy(pupil, pupil.initial(), images)])
    return curve, pupil.initial()[None]


def check_fit(lessons: TeachingSet, data: Dataset) -> None:
    """Raise ValueError unless the teacher's images and labels are of the data's kind."""
    shape = tuple(lessons.images.shape[1:])
    if shape != data.shape:
        raise ValueError(f"the teacher's images are {shape}, those of {data.name} {data.shape}.")
    if lessons.classes > data.num_classes or (lessons.soft and lessons.classes < data.num_classes):
        say = f"are of {lessons.classes} classes" if lessons.soft else f"go up to {lessons.classes - 1}"
        raise ValueError(f"the teacher's labels {say}, but {data.name} has {data.num_classes} classes.")


def best_rate(
    teacher_at,
    student,
    data: Dataset,
    rates: Sequence[float] = (0.003, 0.01, 0.03, 0.1, 0.3),
    seeds: int = 3,
    steps: int | None = None,
) -> float:
    """The learning rate whose students do best on the validation split, none of them diverging.

    Raises DivergenceError if some diverge at every rate.

    teacher_at: function from a rate to a teacher, for instance
        lambda rate: RealTeacher(data.train, steps=10, batch_size=100, rate=rate)
    """
    if isinstance(teacher_at, (type, torch.nn.Module)) or not callable(teacher_at):
        raise TypeError(f"teacher_at must be a function from a rate to a teacher, got {teacher_at!r}.")
    if not isinstance(rates, Sequence) or isinstance(rates, str):
        raise TypeError(f"rates must be a sequence of numbers, got {rates!r}.")
    if not rates:
        raise ValueError("rates is empty: give at least one.")
    reports = {rate: measure(teacher_at(rate), student, data, seeds, steps, "validation") for rate in rates}
    scores = {rate: report.accuracy.mean for rate, report in reports.items() if not report.diverged}
    if not scores:
        raise DivergenceError(
            f"students diverged at every rate of {', '.join(map(str, rates))}: add lower ones."
        )
    return max(scores, key=scores.__getitem__)
