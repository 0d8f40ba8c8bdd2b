"""Real images in place of learned ones: a random draw of them, or passes over all."""

from __future__ import annotations

import torch
from torch import Tensor

from gtnlib.data.sets import Split
from gtnlib.support.errors import check_count, check_kind
from gtnlib.support.seeds import derive_seed
from gtnlib.teachers.rates import check_sgd
from gtnlib.teachers.teaching_set import TeachingSet


class RealTeacher:
    """The baseline: random real images in place of learned ones, drawn anew for every student.

    Parameters
    ----------
    split: where to draw from.
    steps, batch_size: inner steps and images per step.
    images: how many are drawn, with replacement within each class, and used in turn; default steps ×
        batch_size. A few of many come twice: of 800 out of 50 000 about seven.
    rate, final_rate, schedule, momentum, weight_decay: as for a `Teacher`.
    """

    def __init__(self, split: Split, steps, batch_size, images=None, rate=0.05, momentum=0.9,
                 weight_decay=0.0, final_rate=None, schedule="linear"):  # fmt: skip
        check_kind("split", split, Split, " Pass, for instance, data.train.")
        self.split, self.steps = split, check_count("steps", steps)
        self.batch_size = check_count("batch_size", batch_size)
        self.images = steps * batch_size if images is None else check_count("images", images)
        self.rates, self.momentum, self.weight_decay = check_sgd(steps, rate, momentum, weight_decay,
                                                                 final_rate, schedule)  # fmt: skip
        self.shape, self.num_classes = tuple(split.images.shape[1:]), split.num_classes

    def teaching_set(self, generator: torch.Generator | None = None) -> TeachingSet:
        device = self.split.device
        labels = torch.arange(self.images, device=device) % self.num_classes
        images, _ = self.split.sample(self.images, generator, labels)
        order = torch.arange(self.steps * self.batch_size).view(self.steps, -1) % self.images
        rate, momentum = torch.tensor(self.rates), torch.full((self.steps,), self.momentum)
        return TeachingSet(images.cpu(), labels.cpu(), order, rate, momentum, self.weight_decay)


class Stream:
    """All images of a split, shuffled anew for every pass: a `teacher` for full training.

    Batch t is a function of the seed and t. A last batch of fewer images is left out of every pass.
    `steps` is one pass; `images` (N, C, H, W) and `labels` (N,) are all there are.
    """

    def __init__(self, split: Split, batch_size: int = 128, seed: int = 0):
        self.split, self.batch_size, self.seed = split, check_count("batch_size", batch_size), seed
        self.images, self.labels = split.images, split.labels
        self.steps = len(split) // batch_size
        if not self.steps:
            raise ValueError(f"batch_size is {batch_size}, but there are only {len(split)} images.")
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64)

    def teaching_set(self, generator: torch.Generator | None = None) -> Stream:
        """The same images in an order that `generator` decides."""
        seed = self.seed if generator is None else generator.initial_seed()
        return Stream(self.split, self.batch_size, seed)

    def to(self, device) -> Stream:
        return Stream(self.split.to(device), self.batch_size, self.seed)

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B,) of step t."""
        now, row = divmod(t, self.steps)
        if now != self._pass:
            generator = torch.Generator().manual_seed(derive_seed("pass", self.seed, now))
            order = torch.randperm(len(self.split), generator=generator)
            self._pass, self._order = now, order.to(self.split.device)
        index = self._order[row * self.batch_size : (row + 1) * self.batch_size]
        return self.images[index], self.labels[index]
