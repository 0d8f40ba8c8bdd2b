"""Real images for a teacher to begin with: as its pixels, or as what a generator is to make first."""

from __future__ import annotations

import torch
from torch import Tensor

from gtnlib.data.sets import Split
from gtnlib.support.errors import check_choice, check_kind
from gtnlib.teachers.base import Teacher
from gtnlib.teachers.coresets import METHODS

STARTS = ("random", *METHODS)


def real_images(teacher: Teacher, split: Split, generator: torch.Generator | None, method: str) -> Tensor:
    """A real image (N, C, H, W) of the right class for each of the teacher's N images, in their order.

    method: "random" draws them by `generator`, with replacement; "herding" and "k_centre" choose them
    by their pixels (`coresets`), always the same ones, as many of every class. Raises ValueError for
    data of another shape or number of classes, or without so many images.
    """
    check_choice("method", method, STARTS)
    check_kind("split", split, Split, " Pass, for instance, data.train.")
    if tuple(split.images.shape[1:]) != teacher.shape:
        raise ValueError(
            f"the teacher's images are {teacher.shape}, the data's {tuple(split.images.shape[1:])}."
        )
    if split.num_classes != teacher.num_classes:
        raise ValueError(f"the teacher has {teacher.num_classes} classes, the data {split.num_classes}.")
    labels = teacher.labels.to(split.device).flatten()
    if method == "random":
        index, _ = split.draw(len(labels), generator, labels)
        return split.images[index]
    per_class, rest = divmod(len(labels), teacher.num_classes)
    if rest:
        raise ValueError(
            f"{len(labels)} images are not as many for each of {teacher.num_classes} classes, as a coreset "
            'has; use method="random".'
        )
    return split.images[METHODS[method](split.images.flatten(1), split.labels, per_class, split.num_classes)]
