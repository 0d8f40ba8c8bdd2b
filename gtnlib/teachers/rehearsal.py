"""A teacher makes its first batch once, before anything is trained, and shows what it is."""

from __future__ import annotations

import torch

from gtnlib.inner.rehearsal import check_differentiable, check_pure
from gtnlib.teachers.base import Teacher

OTHERS = ("log_rate", "momentum_logit", "label_logits")  # of which no image is made


def rehearse_teacher(teacher, learning: bool = False) -> None:
    """Raise ValueError unless batch 0 of a teacher that learns is of its shape and a pure function.

    With `learning`, it must depend on the parameters as well.
    """
    if not isinstance(teacher, Teacher):
        return  # plain images
    images, _ = check_pure("generator", teacher, lambda: teacher.batch(0)[0])
    size = len(teacher.batch_labels(0))
    if not isinstance(images, torch.Tensor) or tuple(images.shape) != (size, *teacher.shape):
        made = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise ValueError(
            f"the generator makes {made} of {size} labels, but must make images {(size, *teacher.shape)}."
        )
    if images.dtype != teacher.log_rate.dtype:
        raise ValueError(f"the generator makes images of {images.dtype}, but the teacher is "
                         f"{teacher.log_rate.dtype}: end its forward by .to(noise.dtype).")  # fmt: skip
    if learning:
        makers = {name: p for name, p in teacher.named_parameters() if name not in OTHERS}
        with torch.enable_grad():
            check_differentiable(makers, teacher.batch(0)[0])
