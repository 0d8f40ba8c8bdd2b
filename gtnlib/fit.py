"""The outer loop: students come and go, the teacher learns."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from gtnlib.compiled import CompiledStudent, worthwhile
from gtnlib.data import Dataset
from gtnlib.errors import DivergenceError, check_choice, check_count, check_number
from gtnlib.evaluate import evaluate
from gtnlib.inner import StudentRun
from gtnlib.precision import autocast_dtype, tensor_cores
from gtnlib.progress import progress_bar
from gtnlib.ranks import Ranks
from gtnlib.stacked import stacked
from gtnlib.students import FlatStudent, derive_seed, make_student


class OuterStep(NamedTuple):
    """One update of the teacher: the meta-gradient's loss, the gradient's norm, the seconds taken."""

    loss: float
    gradient_norm: float
    seconds: float


@dataclass
class History:
    """What `fit` saw: one `OuterStep` per update, and validation accuracy where it was measured."""

    records: list[OuterStep] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index) -> OuterStep:
        return self.records[index]

    @property
    def loss(self) -> list[float]:
        return [record.loss for record in self.records]

    @property
    def gradient_norm(self) -> list[float]:
        return [record.gradient_norm for record in self.records]

    @property
    def seconds(self) -> float:
        """Time of all outer steps together, validation not counted."""
        return sum(record.seconds for record in self.records)


def fit(
    teacher,
    metagrad,
    student,
    data: Dataset,
    outer_steps: int = 1000,
    seed: int = 0,
    *,
    students_per_step: int = 1,
    rate: float | None = None,
    rates_rate: float = 2e-2,
    final_rate: float = 0.1,
    clip: float | None = 2.0,
    validate_every: int | None = None,
    progress: bool = True,
    callback=None,
    compile: bool | str = "auto",
    precision: str = "float32",
) -> History:
    """Train a teacher, in place, with Adam and cosine decay.

    Under `torchrun` every process takes its share of the students of each outer step and the
    gradients are averaged, so that any number of processes gives the same updates as one.

    Parameters
    ----------
    teacher: PixelTeacher or GeneratorTeacher; it is moved to the device of the data.
    metagrad: Unrolled(), Implicit() or GradientMatching().
    student: class or function that builds a classifier, or a list of them to draw from.
    data: its train split gives the real loss, its validation split the validation accuracy.
    outer_steps: updates of the teacher.
    seed: of students, real batches and fresh noise. The caller's random state is not touched.
    students_per_step: average the meta-gradient over this many students; under `torchrun`, a
        multiple of the number of processes.
    rate: of Adam, for images or generator; default teacher.outer_rate.
    rates_rate: of Adam, for the logarithms of the inner rates and the logits of the momenta.
    final_rate: what cosine decay leaves of both at the end, as a fraction.
    clip: limit the gradient's norm to this multiple of its running mean; None for no limit.
    validate_every: measure the validation accuracy of one fresh student every so many updates.
    progress: show one bar.
    callback: called as callback(step, teacher, history) after every update, by the first process.
    compile: compile the student's steps, once per architecture: up to a minute at the start for
        faster steps after it. "auto" does so on a CPU if the inner steps ahead are many
        enough to pay for it (`compiled.worthwhile`), True always, False never.
    precision: of the inner steps: "float32", "tf32" (matrix products and convolutions of a GPU on
        its tensor cores) or "bfloat16" (the student's, on any device). Parameters, momenta, losses
        and adjoints stay in float32.

    Returns
    -------
    History of losses, gradient norms, seconds and validation accuracies. Interrupted from the
    keyboard, it returns what there is; the teacher stays as the last whole update left it.

    Raises
    ------
    DivergenceError: a loss or gradient is not finite; the teacher stays as the last good update
        left it, and the error carries the history.
    """
    outer_steps = check_count("outer_steps", outer_steps)
    check_count("students_per_step", students_per_step)
    check_number("final_rate", final_rate, 0)
    if clip is not None and check_number("clip", clip, 0) == 0:
        raise ValueError("clip is 0, but must be positive or None.")
    if not hasattr(teacher, "parameter_groups"):
        raise TypeError(
            f"teacher must be a PixelTeacher or GeneratorTeacher, got {type(teacher).__name__}."
        )
    if isinstance(metagrad, type) or not callable(metagrad):
        raise TypeError(f"metagrad must be an instance such as Unrolled(), got {metagrad!r}.")
    if tuple(teacher.shape) != data.shape or teacher.num_classes != data.num_classes:
        raise ValueError(
            f"the teacher makes {teacher.num_classes} classes of images {teacher.shape}, but "
            f"{data.name} has {data.num_classes} classes of images {data.shape}."
        )
    if validate_every is not None:
        check_count("validate_every", validate_every)
    if not isinstance(compile, bool):
        check_choice("compile", compile, ("auto",))
    ranks = Ranks(data.device)
    if students_per_step % ranks.count:
        raise ValueError(
            f"students_per_step is {students_per_step}, but must be a multiple of the "
            f"{ranks.count} processes."
        )
    teacher.to(data.device)
    with torch.no_grad():
        ranks.agree([*teacher.parameters(), *teacher.buffers()])
    rate = teacher.outer_rate if rate is None else check_number("rate", rate, 0)
    groups = teacher.parameter_groups(rate, check_number("rates_rate", rates_rate, 0))
    optimizer = torch.optim.Adam(groups)
    parameters = [p for group in groups for p in group["params"]]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda k: final_rate + (1 - final_rate) * (1 + math.cos(math.pi * k / outer_steps)) / 2,
    )
    generator = torch.Generator(device=data.device).manual_seed(derive_seed("fit", seed))
    runs: list[StudentRun | None] = [None] * students_per_step
    mine = range(ranks.rank, students_per_step, ranks.count)
    history, typical, born = History(), None, 0

    def newborn() -> FlatStudent:
        """The next student, compiled if that is asked for or pays back."""
        nonlocal compile
        born_seed = derive_seed("fit", seed, born)
        module = make_student(student, data.shape, data.num_classes, born_seed).to(data.device)
        if compile == "auto":
            kinds = len(student) if isinstance(student, Sequence) else 1
            ahead = outer_steps * len(mine) * (1 + metagrad.steps_per_update(teacher)) / kinds
            compile = worthwhile(FlatStudent(module), teacher.batch(0), ahead)
        dtype = autocast_dtype(precision)
        if compile:
            return CompiledStudent(module, bar.set_postfix_str, dtype)
        return FlatStudent(module, dtype)

    first = ranks.rank == 0
    name = type(metagrad).__name__
    with tensor_cores(precision), progress_bar(outer_steps, name, progress and first) as bar:
        try:
            for step in range(outer_steps):
                start = time.perf_counter()
                optimizer.zero_grad()
                loss = torch.zeros((), device=data.device)
                teacher.resample(generator)
                drawn = []
                for i, run in enumerate(runs):
                    if run is None or run.updates >= metagrad.updates_per_student:
                        runs[i] = run = StudentRun.start(newborn())
                        born += 1
                    run.updates += 1
                    drawn.append(metagrad.draw(teacher, run.t, data.train, generator))
                    if i not in mine:
                        run.t += metagrad.steps_per_update(teacher)
                own = [runs[i] for i in mine], [drawn[i] for i in mine]
                for run, batches in zip(*(stacked(*own) if metagrad.stacks else own)):
                    loss += metagrad.differentiate(teacher, run, data.train, batches)
                gradients = [p.grad for p in parameters if p.grad is not None]
                for total in ranks.sum([loss, *gradients]):
                    total /= students_per_step
                limit = clip * typical if clip and typical else math.inf
                norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
                loss = float(loss)
                if not (math.isfinite(norm) and math.isfinite(loss)):
                    before = f"as step {step - 1} made it" if step else "as it was"
                    raise DivergenceError(
                        f"outer step {step}: the loss is {loss:.3g} and its gradient's norm "
                        f"{norm:.3g}. The teacher was left {before}. Lower its inner rate or the "
                        "rate of fit, or take fewer inner steps.",
                        history,
                    )
                typical = norm if not typical else 0.9 * typical + 0.1 * min(norm, limit)
                optimizer.step()
                schedule.step()
                seconds = time.perf_counter() - start
                history.records.append(OuterStep(loss, norm, seconds))
                if validate_every and first and (step + 1) % validate_every == 0:
                    report = evaluate(teacher, student, data, 1, split="validation")
                    history.validation.append((step + 1, report.accuracy.mean))
                    bar.set_postfix_str(f"validation accuracy {100 * report.accuracy.mean:.1f} %")
                elif not history.validation:
                    bar.set_postfix_str(f"loss {loss:.3f}")
                bar.update()
                if callback is not None and first:
                    callback(step, teacher, history)
        except KeyboardInterrupt:
            bar.set_postfix_str("interrupted")
    return history
