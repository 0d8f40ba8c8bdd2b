"""Dataset distillation (Wang et al. 2018): the images themselves are the parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gtnlib.data.sets import Split
from gtnlib.support.errors import check_count, check_seed
from gtnlib.teachers.base import Teacher
from gtnlib.teachers.starts import real_images
from gtnlib.teachers.teaching_set import TeachingSet


class PixelTeacher(Teacher):
    """Learned images (Wang et al. 2018): the pixels are the parameters.

    Image i has label i mod classes. Without `batch_size` every step uses all images; with it, the
    steps go through them in order, a batch at a time, around and around.

    Parameters
    ----------
    images_per_class: number of images of every class.
    steps: T, inner steps.
    batch_size: images per step; default all of them.
    seed: of the noise that the images are at first.

    All else is as for every `Teacher`.
    """

    outer_rate = 1e-1
    order: Tensor

    def __init__(self, images_per_class=10, steps=10, batch_size=None, *, shape=(1, 28, 28),
                 num_classes=10, rate=0.02, momentum=0.9, learn_rates=True, weight_decay=0.0,
                 seed=0, final_rate=None, schedule="linear", learn_labels=False):  # fmt: skip
        super().__init__(shape, num_classes, steps, rate, final_rate, schedule, momentum, learn_rates,
                         weight_decay)  # fmt: skip
        count = check_count("images_per_class", images_per_class) * num_classes
        batch_size = count if batch_size is None else check_count("batch_size", batch_size)
        if batch_size > count:
            raise ValueError(f"batch_size is {batch_size}, but there are only {count} images.")
        generator = torch.Generator().manual_seed(check_seed(seed))
        self.images = nn.Parameter(torch.randn(count, *self.shape, generator=generator))
        self.register_buffer("labels", torch.arange(count) % num_classes)
        self.register_buffer("order", torch.arange(steps * batch_size).view(steps, -1) % count)
        self._learn_labels(learn_labels)
        self.batches = min(steps, count // math.gcd(count, batch_size))

    @torch.no_grad()
    def start_from(self, split: Split, generator: torch.Generator | None = None,
                   method: str = "random") -> PixelTeacher:  # fmt: skip
        """Replace the noise by real images of the right classes; returns the teacher.

        method: "random" draws them by `generator`, with replacement; "herding" and "k_centre" choose
        them by their pixels (`teachers.coresets`), always the same ones.
        """
        self.images.copy_(real_images(self, split, generator, method))
        return self

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        index = self.order[t % self.steps]
        return self.images[index], self._targets(index)

    def batch_labels(self, t: int) -> Tensor:
        return self.labels[self.order[t % self.steps]]

    def teaching_set(self, generator=None) -> TeachingSet:
        return self._freeze(self.images, self.order)
