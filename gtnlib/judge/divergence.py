"""When a student has diverged, for whoever counts it or chooses a rate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gtnlib.inner.flat import FlatStudent
from gtnlib.inner.step import loss

FAR = 10.0  # times the loss at the start, or of uniform guessing if that is more
LOOKED_AT = 1000  # images of a lesson, at most


@torch.no_grad()
def diverged(student: FlatStudent, start: Tensor, end: Tensor, lessons) -> Tensor:
    """Whether the student, which went from the parameters `start` to `end` (P,), has diverged (0-d, bool).

    Its parameters or its loss on what it was taught are not finite, or that loss is more than `FAR` times
    that of the start and of uniform guessing, log(classes) for hard and soft labels alike: on average the
    right class has then a probability below classes⁻¹⁰, on images that the student was trained on. One
    that learned nothing, or only its own images, is far below.

    lessons: a TeachingSet or Stream, of which `LOOKED_AT` images evenly spaced are enough.
    """
    every = -(-len(lessons.images) // LOOKED_AT)
    x, y = lessons.images[::every], lessons.labels[::every]
    classes = student.logits(start, x[:2]).shape[-1]
    before, after = (student.compute(loss, (w,), (x, y)) for w in (start, end))
    most = FAR * before.nan_to_num(0.0).clamp(min=math.log(classes))
    return ~(end.isfinite().all() & (after <= most))
