"""When a student has diverged, for whoever counts it or chooses a rate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gtnlib.inner.flat import FlatStudent
from gtnlib.inner.step import loss

FAR = 10.0  # times the loss at the start, or of uniform guessing if that is more
WORSE = 2.0  # the same for a student that knows nothing of its own images
LOOKED_AT = 1000  # images of a lesson, at most


@torch.no_grad()
def diverged(student: FlatStudent, start: Tensor, end: Tensor, lessons) -> Tensor:
    """Whether the student, which went from the parameters `start` to `end` (P,), has diverged (0-d, bool).

    Its parameters or its loss on what it was taught are not finite, or that loss is more than `FAR` times
    that of the start and of uniform guessing, log(classes) for hard and soft labels alike: on average the
    right class has then a probability below classes⁻¹⁰, on images that the student was trained on. It is
    enough to be `WORSE` times as high where no more of these images are classified rightly than by one
    and the same answer to all: training has then made it worse by either measure. One that learned
    nothing, whose units have died, or that knows only its own images, is below.

    lessons: a TeachingSet or Stream, of which `LOOKED_AT` images evenly spaced are enough.
    """
    every = -(-len(lessons.images) // LOOKED_AT)
    x, y = lessons.images[::every], lessons.labels[::every]
    before, after = (student.compute(loss, (w,), (x, y)) for w in (start, end))
    scores, wanted = student.logits(end, x), y.argmax(-1) if y.is_floating_point() else y
    knows = (scores.argmax(-1) == wanted).sum() > wanted.bincount().max()
    most = before.nan_to_num(0.0).clamp(min=math.log(scores.shape[-1]))
    return ~(end.isfinite().all() & (after <= most * torch.where(knows, FAR, WORSE)))
