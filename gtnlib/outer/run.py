"""One run of `fit`: what its loop carries from outer step to outer step."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gtnlib.inner.compiled import CompiledStudent, worthwhile
from gtnlib.inner.flat import FlatStudent, flat_student
from gtnlib.inner.rehearsal import check_second_order
from gtnlib.inner.stacked import stacked
from gtnlib.inner.step import StudentRun
from gtnlib.judge.evaluate import check_fresh, evaluate
from gtnlib.outer.arguments import Arguments
from gtnlib.outer.checkpoint import Checkpoint
from gtnlib.outer.fingerprints import fingerprints, leave
from gtnlib.outer.history import History, OuterStep
from gtnlib.outer.training import Training
from gtnlib.students.build import check_seeded, make_student
from gtnlib.support.errors import DivergenceError
from gtnlib.support.precision import autocast_dtype, tensor_cores
from gtnlib.support.processes import Ranks
from gtnlib.support.progress import progress_bar
from gtnlib.support.seeds import derive_seed
from gtnlib.teachers.rehearsal import rehearse_teacher


class Run:
    """A teacher in training, with its optimiser, its students, its share of the work and its file.

    The arguments are those of `fit`. Within `opened`, an outer step is `draw`, `differentiate`,
    `update`, `report`, in this order.
    """

    def __init__(self, asked: Arguments, progress: bool, callback, checkpoint, checkpoint_seconds: float):
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a function or None, got {callback!r}.")
        self.asked, self.callback = asked, callback
        self.ranks = ranks = Ranks(asked.data.device)
        self.first = ranks.rank == 0
        self._check_processes(checkpoint)
        teacher = asked.teacher.to(asked.data.device)
        teacher.scale = asked.data.scale
        with torch.no_grad():
            ranks.agree([*teacher.parameters(), *teacher.buffers()])
        groups = teacher.parameter_groups(asked.rate, asked.rates_rate)
        if not groups:
            raise ValueError("nothing can be learned: no parameter of the teacher requires a gradient.")
        self.kernels: dict = {}
        self.parameters = [p for group in groups for p in group["params"]]
        self.training = Training(
            teacher,
            torch.optim.Adam([{**group, "initial_lr": group["lr"]} for group in groups]),
            torch.Generator(device=asked.data.device).manual_seed(derive_seed("fit", asked.seed)),
            [None] * asked.students_per_step,
            [0] * asked.students_per_step,
            compiled=asked.compile if isinstance(asked.compile, bool) else None,
        )
        begun = partial(fingerprints, teacher, asked.student, asked.data)
        self.file = Checkpoint(checkpoint, checkpoint_seconds, asked.identity(), begun)
        self.show = progress and self.first
        self.begun, self.bar = False, progress_bar(0, "", False)
        self.trouble: str | None = None

    def _rehearse(self) -> None:
        """Raise ValueError or TypeError if a student, the teacher or its generator is not what it must be."""
        asked, split = self.asked, self.asked.data.train
        rehearse_teacher(asked.teacher, learning=True)
        kinds = asked.student if isinstance(asked.student, Sequence) else [asked.student]
        for kind in kinds:
            student = flat_student(kind, asked.data, derive_seed("rehearsal"), asked.data.dtype)
            again = make_student(kind, asked.data.shape, asked.data.num_classes, derive_seed("rehearsal"))
            check_fresh([student.module, again])
            check_seeded(student.module, again)
            student.rehearse(split.images, asked.data.num_classes)
            check_second_order(student, split.images, split.labels)

    def _check_processes(self, checkpoint) -> None:
        """Raise ValueError if the students cannot be shared out among the processes."""
        students, count = self.asked.students_per_step, self.ranks.count
        if students % count:
            raise ValueError(
                f"students_per_step is {students}, but must be a multiple of the {count} processes."
            )
        metagrad = self.asked.metagrad
        if checkpoint is not None and count > 1 and (metagrad.updates_per_student > 1 or metagrad.remembers):
            raise ValueError(
                f"checkpoint is {str(checkpoint)!r}, but under torchrun no process knows the students of "
                "the others. Use updates_per_student=1 and estimate_every=1, one process, or checkpoint=None."
            )

    @property
    def history(self) -> History:
        return self.training.history

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Begin, or go on from the checkpoint; show the bar; keep the checkpoint; end when interrupted."""
        with contextlib.ExitStack() as entered:
            try:
                self._begin(entered)
                yield
            except KeyboardInterrupt:
                self.history.interrupted = True
                if not self.begun:  # there is no step to interrupt yet
                    yield
                else:
                    self.bar.set_postfix_str("interrupted")

    def _begin(self, entered: contextlib.ExitStack) -> None:
        asked, training, file = self.asked, self.training, self.file
        self._rehearse()
        if self.first:
            entered.enter_context(file)
        saved = file.read(self.ranks)
        if file.path:
            entered.callback(lambda: leave(asked.teacher, file.fingerprints["teacher"]))
        done = 0 if saved is None else len(saved[1].get("records", ()))
        self.bar = progress_bar(asked.outer_steps, type(asked.metagrad).__name__, self.show, done)
        entered.enter_context(self.bar)
        entered.enter_context(tensor_cores(asked.precision, asked.data.device))
        if saved is not None:
            training.restore(*saved, file.path, self._build)
        else:
            self._keep()
            file.write()  # now, to fail now if it cannot be written
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            training.optimizer, self._decay, last_epoch=len(self.history) - 1
        )
        self.begun = True

    def _decay(self, step: int) -> float:
        """Cosine decay, as a fraction of the first rate."""
        last = self.asked.final_rate
        return last + (1 - last) * (1 + math.cos(math.pi * step / self.asked.outer_steps)) / 2

    def _keep(self) -> None:
        if self.first and self.file.path:
            self.file.keep(*self.training.capture(self.asked.metagrad.updates_per_student))

    def steps(self) -> Iterator[int]:
        """The outer steps that are left."""
        for step in range(len(self.history), 0 if self.history.interrupted else self.asked.outer_steps):
            self.started, self.trouble = time.perf_counter(), None
            self.training.optimizer.zero_grad()
            yield step

    # ------------------------------------------------------------ students

    def _build(self, birth: int) -> FlatStudent:
        """The student of this number, compiled if that is asked for or pays back."""
        asked, training = self.asked, self.training
        seed = derive_seed("fit", asked.seed, birth)
        student = flat_student(asked.student, asked.data, seed, asked.data.dtype)
        student.rehearse(asked.data.train.images, asked.data.num_classes)  # a function may give others later
        if training.compiled is None:
            kinds = len(asked.student) if isinstance(asked.student, Sequence) else 1
            each = 1 + asked.metagrad.steps_per_update(asked.teacher)
            ahead = asked.outer_steps * len(self._mine) * each / kinds
            training.compiled = worthwhile(student, asked.teacher.batch(0), ahead)
        student.dtype = autocast_dtype(asked.precision)
        if not training.compiled:
            return student
        compiled = CompiledStudent(student.module, self.bar.set_postfix_str, student.dtype, self.kernels)
        compiled.rehearsed, compiled.attends = True, student.attends
        return compiled

    @property
    def _mine(self) -> range:
        """The students of an outer step that this process differentiates."""
        return range(self.ranks.rank, self.asked.students_per_step, self.ranks.count)

    def _serving(self, i: int) -> StudentRun:
        """Student i of this outer step: the one in training, or a fresh one if that has served."""
        training, run = self.training, self.training.runs[i]
        if run is None or run.updates >= self.asked.metagrad.updates_per_student:
            training.runs[i] = run = StudentRun.start(self._build(training.born))
            run.memory = training.memories[i]
            training.births[i] = training.born
            training.born += 1
        run.updates += 1
        return run

    # ------------------------------------------------------------ an outer step

    def draw(self) -> Iterable[tuple[Any, StudentRun, Sequence]]:
        """The students of this process, stacked if they can be, each with its lesson and what is random.

        Students of other processes are drawn too, and passed over, so that all draw in one order.
        """
        teacher, metagrad, generator = self.asked.teacher, self.asked.metagrad, self.training.generator
        teacher.resample(generator)
        variation, lessons, own, drawn = self.asked.lessons, [], [], []
        for i in range(self.asked.students_per_step):
            run = self._serving(i)
            lesson = teacher if variation is None else variation.draw(teacher, generator)
            batches = metagrad.draw(lesson, run.t, self.asked.data.train, generator)
            if i in self._mine:
                lessons.append(lesson)
                own.append(run)
                drawn.append(batches)
            else:
                run.t += metagrad.steps_per_update(lesson)
        together = metagrad.stacks and variation is None
        return zip(lessons, *(stacked(own, drawn) if together else (own, drawn)))

    def differentiate(self, lessons: Iterable[tuple[Any, StudentRun, Sequence]]) -> Tensor:
        """The mean loss over all students, its gradient in the teacher: the same in every process."""
        asked = self.asked
        loss = torch.zeros((), device=asked.data.device, dtype=asked.data.dtype)
        for lesson, run, batches in lessons:
            loss += asked.metagrad.differentiate(lesson, run, asked.data.train, batches)
            if found := asked.metagrad.trouble():
                self.trouble, loss = found, loss + math.inf  # which every process will see
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not gradients:
            raise ValueError(
                "nothing can be learned: no gradient reaches the teacher's parameters by "
                f"{type(asked.metagrad).__name__}. Only Unrolled can learn rates and momenta."
            )
        for total in self.ranks.sum([loss, *gradients]):
            total /= asked.students_per_step
        return loss

    def update(self, loss: Tensor) -> None:
        """One step of Adam along the clipped gradient, whole and recorded, or undone."""
        training, parameters, clip = self.training, self.parameters, self.asked.clip
        typical, step = training.typical, len(self.history)
        limit = clip * typical if clip and typical else math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        mean = float(loss)
        if not (math.isfinite(norm) and math.isfinite(mean)):
            what = f"the loss is {mean:.3g} and its gradient's norm {norm:.3g}."
            raise self._diverged(self.trouble or what)
        before = [p.detach().clone() for p in parameters]
        try:
            training.optimizer.step()
            if not torch.stack([p.isfinite().all() for p in parameters]).all():
                raise self._diverged("the update left the range of the teacher's numbers.")
            self.schedule.step()
            training.typical = norm if not typical else 0.9 * typical + 0.1 * min(norm, limit)
            self.history.records.append(OuterStep(mean, norm, time.perf_counter() - self.started))
        except BaseException:
            if len(self.history) == step:
                with torch.no_grad():
                    torch._foreach_copy_(parameters, before)
            raise

    def _diverged(self, what: str) -> DivergenceError:
        """The error of this outer step, with all that was recorded before it."""
        step = len(self.history)
        before = f"as step {step - 1} made it" if step else "as it was"
        return DivergenceError(
            f"outer step {step}: {what} The teacher was left {before}. Lower its inner rate or the rate of "
            "fit, or take fewer inner steps.",
            self.history,
        )

    def report(self, step: int) -> None:
        """Validate if it is time to; tell the bar, the callback and the checkpoint."""
        asked, history = self.asked, self.history
        if asked.validate_every and self.first and (step + 1) % asked.validate_every == 0:
            report = evaluate(asked.teacher, asked.student, asked.data, 1, split="validation")
            history.validation.append((step + 1, report.accuracy.mean))
            self.bar.set_postfix_str(f"validation accuracy {100 * report.accuracy.mean:.1f} %")
        elif not history.validation:
            self.bar.set_postfix_str(f"loss {history[-1].loss:.3f}")
        self.bar.update()
        if self.callback is not None and self.first:
            self.callback(step, asked.teacher, history)
        self._keep()
