"""The outer loop: students come and go, the teacher learns."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Sequence

import torch

from gtnlib.data.sets import Dataset
from gtnlib.inner.compiled import CompiledStudent, worthwhile
from gtnlib.inner.flat import FlatStudent
from gtnlib.inner.stacked import stacked
from gtnlib.inner.step import StudentRun
from gtnlib.judge.evaluate import evaluate
from gtnlib.metagrad.base import MetaGradient
from gtnlib.outer.checkpoint import Checkpoint, Training
from gtnlib.outer.history import History, OuterStep
from gtnlib.students.build import check_student, make_student
from gtnlib.support.errors import DivergenceError, check_count, check_kind, check_number, check_seed
from gtnlib.support.identity import built, teacher_of
from gtnlib.support.precision import autocast_dtype, tensor_cores
from gtnlib.support.processes import Ranks
from gtnlib.support.progress import progress_bar
from gtnlib.support.seeds import derive_seed


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
    checkpoint: str | os.PathLike | None = None,
    checkpoint_seconds: float = 30.0,
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
    checkpoint: a file that holds the whole state between two outer steps (`checkpoint`). If it is
        there already, training goes on from it, and on a CPU, with as many threads, ends with the
        same teacher and history, seconds aside, bit for bit as if it had never stopped; a run that
        was finished just gives them back. A step is whole once `callback` has returned, so what
        was interrupted in the midst of one begins that step anew. Under `torchrun` the first
        process writes, all read, and every student must serve a single outer step.
    checkpoint_seconds: write it after the first outer step that ends so long after the last write;
        also at the start, at the end, and when interrupted or diverged.

    Returns
    -------
    History of losses, gradient norms, seconds and validation accuracies. Interrupted from the
    keyboard, it returns what there is; the teacher stays as the last whole update left it.

    Raises
    ------
    DivergenceError: a loss, a gradient or the teacher is not finite, or an `Implicit` series grows
        without bound; the teacher stays as the last good update left it, the message says which step
        that was and what to change, and the error carries the history.
    DataError: the checkpoint is damaged or none. ValueError: it is of another run. OSError: it
        cannot be written; the old one stays. None of them changes the file.
    """
    outer_steps = check_count("outer_steps", outer_steps)
    check_count("students_per_step", students_per_step)
    check_number("final_rate", final_rate, 0)
    if clip is not None and check_number("clip", clip, 0) == 0:
        raise ValueError("clip is 0, but must be positive or None.")
    check_kind("data", data, Dataset, " load_dataset(…) makes one.")
    check_student(student)
    check_seed(seed)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function or None, got {callback!r}.")
    if isinstance(teacher, type) or not hasattr(teacher, "parameter_groups"):
        raise TypeError(f"teacher must be a PixelTeacher or GeneratorTeacher, got {type(teacher).__name__}.")
    if not isinstance(metagrad, MetaGradient):
        raise TypeError(f"metagrad must be an instance such as Unrolled(), got {metagrad!r}.")
    if teacher.log_rate.dtype != data.train.images.dtype:
        raise TypeError(f"teacher is {teacher.log_rate.dtype}, but data is {data.train.images.dtype}.")
    if tuple(teacher.shape) != data.shape or teacher.num_classes != data.num_classes:
        raise ValueError(
            f"the teacher makes {teacher.num_classes} classes of images {teacher.shape}, but "
            f"{data.name} has {data.num_classes} classes of images {data.shape}."
        )
    if validate_every is not None:
        check_count("validate_every", validate_every)
    if not isinstance(compile, bool) and compile != "auto":
        raise ValueError(f"compile is {compile!r}, but must be True, False or 'auto'.")
    ranks = Ranks(data.device)
    if students_per_step % ranks.count:
        raise ValueError(
            f"students_per_step is {students_per_step}, but must be a multiple of the "
            f"{ranks.count} processes."
        )
    if checkpoint is not None and ranks.count > 1 and metagrad.updates_per_student > 1:
        raise ValueError(
            f"checkpoint is {str(checkpoint)!r}, but under torchrun no process knows the students of "
            "the others. Use updates_per_student=1, one process, or checkpoint=None."
        )
    teacher.to(data.device)
    with torch.no_grad():
        ranks.agree([*teacher.parameters(), *teacher.buffers()])
    rate = teacher.outer_rate if rate is None else check_number("rate", rate, 0)
    groups = teacher.parameter_groups(rate, check_number("rates_rate", rates_rate, 0))
    parameters = [p for group in groups for p in group["params"]]
    mine = range(ranks.rank, students_per_step, ranks.count)
    training = Training(
        teacher,
        torch.optim.Adam([{**group, "initial_lr": group["lr"]} for group in groups]),
        torch.Generator(device=data.device).manual_seed(derive_seed("fit", seed)),
        [None] * students_per_step,
        [0] * students_per_step,
        compiled=compile if isinstance(compile, bool) else None,
    )
    asked = {
        "teacher": teacher_of(teacher), "metagrad": built(metagrad), "student": student,
        "data": {"name": data.name, "train": list(data.train.images.shape), "device": data.device.type},
        "outer_steps": outer_steps, "seed": seed, "students_per_step": students_per_step,
        "rate": rate, "rates_rate": rates_rate, "final_rate": final_rate, "clip": clip,
        "validate_every": validate_every, "compile": compile, "precision": precision,
    }  # fmt: skip
    file = Checkpoint(checkpoint, checkpoint_seconds, asked)

    def build(birth: int) -> FlatStudent:
        """The student of this number, compiled if that is asked for or pays back."""
        seed_of_birth = derive_seed("fit", seed, birth)
        module = make_student(student, data.shape, data.num_classes, seed_of_birth).to(data.device)
        if training.compiled is None:
            kinds = len(student) if isinstance(student, Sequence) else 1
            ahead = outer_steps * len(mine) * (1 + metagrad.steps_per_update(teacher)) / kinds
            training.compiled = worthwhile(FlatStudent(module), teacher.batch(0), ahead)
        dtype = autocast_dtype(precision)
        if training.compiled:
            return CompiledStudent(module, lambda text: bar.set_postfix_str(text), dtype)
        return FlatStudent(module, dtype)

    def diverged(what: str) -> DivergenceError:
        """The error of this outer step, with all that was recorded before it."""
        step, history = len(training.history), training.history
        before = f"as step {step - 1} made it" if step else "as it was"
        return DivergenceError(
            f"outer step {step}: {what} The teacher was left {before}. Lower its inner rate or the rate of "
            "fit, or take fewer inner steps.",
            history,
        )

    first = ranks.rank == 0
    saved = file.read()
    done = 0 if saved is None else len(saved[1].get("records", ()))
    bar = progress_bar(outer_steps, type(metagrad).__name__, progress and first, done)
    with bar, tensor_cores(precision), file if first else contextlib.nullcontext():
        if saved is not None:
            training.restore(*saved, file.path, build)
        elif first and file.path:
            file.keep(*training.capture(metagrad.updates_per_student))
            file.write()  # now, to fail now if it cannot be written
        runs, history, generator = training.runs, training.history, training.generator
        schedule = torch.optim.lr_scheduler.LambdaLR(
            training.optimizer,
            lambda k: final_rate + (1 - final_rate) * (1 + math.cos(math.pi * k / outer_steps)) / 2,
            last_epoch=len(history) - 1,
        )
        try:
            for step in range(len(history), outer_steps):
                start = time.perf_counter()
                training.optimizer.zero_grad()
                loss, trouble = torch.zeros((), device=data.device), None
                teacher.resample(generator)
                own, drawn = [], []
                for i, run in enumerate(runs):
                    if run is None or run.updates >= metagrad.updates_per_student:
                        runs[i] = run = StudentRun.start(build(training.born))
                        training.births[i] = training.born
                        training.born += 1
                    run.updates += 1
                    batches = metagrad.draw(teacher, run.t, data.train, generator)
                    if i in mine:
                        own.append(run)
                        drawn.append(batches)
                    else:
                        run.t += metagrad.steps_per_update(teacher)
                for run, batches in zip(*(stacked(own, drawn) if metagrad.stacks else (own, drawn))):
                    loss += metagrad.differentiate(teacher, run, data.train, batches)
                    if found := metagrad.trouble():
                        trouble, loss = found, loss + math.inf  # which every process will see
                gradients = [p.grad for p in parameters if p.grad is not None]
                for total in ranks.sum([loss, *gradients]):
                    total /= students_per_step
                typical = training.typical
                limit = clip * typical if clip and typical else math.inf
                norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
                mean = float(loss)
                if not (math.isfinite(norm) and math.isfinite(mean)):
                    raise diverged(trouble or f"the loss is {mean:.3g} and its gradient's norm {norm:.3g}.")
                before = [p.detach().clone() for p in parameters]
                try:  # an update is whole and recorded, or it is undone
                    training.optimizer.step()
                    if not torch.stack([p.isfinite().all() for p in parameters]).all():
                        raise diverged("the update left the range of the teacher's numbers.")
                    schedule.step()
                    training.typical = norm if not typical else 0.9 * typical + 0.1 * min(norm, limit)
                    history.records.append(OuterStep(mean, norm, time.perf_counter() - start))
                except BaseException:
                    if len(history) == step:
                        with torch.no_grad():
                            torch._foreach_copy_(parameters, before)
                    raise
                if validate_every and first and (step + 1) % validate_every == 0:
                    report = evaluate(teacher, student, data, 1, split="validation")
                    history.validation.append((step + 1, report.accuracy.mean))
                    bar.set_postfix_str(f"validation accuracy {100 * report.accuracy.mean:.1f} %")
                elif not history.validation:
                    bar.set_postfix_str(f"loss {mean:.3f}")
                bar.update()
                if callback is not None and first:
                    callback(step, teacher, history)
                if first and file.path:
                    file.keep(*training.capture(metagrad.updates_per_student))
        except KeyboardInterrupt:
            history.interrupted = True
            bar.set_postfix_str("interrupted")
    return history
