"""The outer loop: students come and go, the teacher learns."""

from __future__ import annotations

import os

import torch

from gtnlib.data.sets import Dataset
from gtnlib.outer.arguments import Arguments
from gtnlib.outer.history import History
from gtnlib.outer.run import Run


@torch.inference_mode(False)
@torch.enable_grad()
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
    lessons=None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_seconds: float = 30.0,
) -> History:
    """Train a teacher, in place, with Adam and cosine decay.

    Under `torchrun` every process takes its share of the students of each outer step and the
    gradients are averaged, so that any number of processes gives the same updates as one.

    Parameters
    ----------
    teacher: PixelTeacher or GeneratorTeacher; it is moved to the device of the data.
    metagrad: Unrolled(), Implicit(), GradientMatching() or DistributionMatching().
    student: class or function that builds a classifier, or a list of them, to draw from for every
        fresh one.
    data: its train split gives the real loss, its validation split the validation accuracy.
    outer_steps: updates of the teacher.
    seed: of students, real batches and fresh noise. The caller's random state is not touched.
    students_per_step: average the meta-gradient over this many students; under `torchrun`, a
        multiple of the number of processes.
    rate: of Adam, for images or generator, and learned labels; default teacher.outer_rate.
    rates_rate: of Adam, for the logarithms of the inner rates and the logits of the momenta.
    final_rate: what cosine decay leaves of both at the end, as a fraction.
    clip: limit the gradient's norm to this multiple of its running mean; None for no limit.
    validate_every: measure the validation accuracy of one fresh student every so many updates.
    progress: show one bar.
    callback: called as callback(step, teacher, history) after every update, by the first process.
    compile: compile the student's steps, once per architecture: up to a minute at the start for
        faster steps after it; on a GPU, record them as CUDA graphs. "auto" does so if the inner
        steps ahead are many enough to pay for it (`inner.compiled`), True always, False never.
    precision: of the inner steps: "float32", "tf32" (matrix products and convolutions of a GPU on
        its tensor cores) or "bfloat16" (the student's, on any device). Parameters, momenta, losses
        and adjoints stay in float32.
    lessons: a `Variation`, or a table of its arguments: what of the lesson is drawn anew for every
        student (augmentation, order, length, rates). Validation is of the plain lesson.
    checkpoint: a file that holds the whole state between two outer steps (`checkpoint`). If it is
        there already, training goes on from it, and on a CPU, with as many threads, ends with the
        same teacher and history, seconds aside, bit for bit as if it had never stopped; a run that
        was finished just gives them back. A step is whole once `callback` has returned, so what
        was interrupted in the midst of one begins that step anew. Under `torchrun` only the first
        process reads and writes it, and every student must serve a single outer step.
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
    ValueError: nothing can be learned, or a student or generator is not what it must be: both run once
        before anything is trained. The checkpoint is of another run, of other data, another start or
        another student: the message says which.
    DataError: the checkpoint is damaged, or the file is none. BlockingIOError: another run is using it.
    OSError: it cannot be written; the old one stays. None of them changes the file.
    ConnectionError: under `torchrun` another process has ended; the teacher is as the last whole update
        left it.
    """
    asked = Arguments(
        teacher, metagrad, student, data, outer_steps, seed, students_per_step, rate, rates_rate, final_rate,
        clip, validate_every, compile, precision, lessons,
    )  # fmt: skip
    run = Run(asked, progress, callback, checkpoint, checkpoint_seconds)
    with run.opened():
        for step in run.steps():
            lessons = run.draw()
            loss = run.differentiate(lessons)
            run.update(loss)
            run.report(step)
    return run.history
