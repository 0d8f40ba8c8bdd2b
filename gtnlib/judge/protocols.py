"""Protocols: how fresh students are trained on what a teacher has made, before they are measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtnlib.data.augment import Augment
from gtnlib.support.errors import check_count, check_kind, check_number, check_positive


@dataclass(frozen=True)
class Protocol:
    """Either the teacher's own lesson, or SGD for many epochs on its images as a mere set.

    Parameters
    ----------
    epochs: passes over the images, each in a random order of its own. None is the teacher's own
        lesson: its batches, steps, rates, momenta and weight decay; all else stays unset then.
    rate: learning rate; from half of the epochs on, `drop` times it, with the momentum starting over.
    momentum, weight_decay, batch_size: of SGD; the last batch of an epoch may be smaller.
    augment: what is done to every batch, drawn anew; None for nothing.
    hard: take the most probable class in place of learned labels.
    """

    epochs: int | None = None
    rate: float = 0.01
    drop: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256
    augment: Augment | None = None
    hard: bool = False

    def __post_init__(self):
        if self.epochs is None:
            odd = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
            if odd:
                raise ValueError(f"epochs is None, so the teacher decides on {odd[0]}: leave it unset.")
            return
        check_count("epochs", self.epochs)
        for name in ("rate", "drop"):
            check_positive(name, getattr(self, name))
        check_number("momentum", self.momentum, 0, below=1)
        check_number("weight_decay", self.weight_decay, 0)
        check_count("batch_size", self.batch_size)
        if self.augment is not None:
            check_kind("augment", self.augment, Augment)

    def steps(self, images: int) -> int:
        """Of a training by epochs, on so many images."""
        return (self.epochs or 0) * -(-images // self.batch_size)

    def training(self, module: nn.Module, images: Tensor, labels: Tensor,
                 generator: torch.Generator) -> Iterator[int]:  # fmt: skip
        """Train `module` in place, by epochs; yields the number of steps after every step.

        images (N, C, H, W), labels (N,) or probabilities (N, classes); `generator`, on their device,
        draws the orders and augmentations.
        """
        assert self.epochs is not None
        if self.hard and labels.is_floating_point():
            labels = labels.argmax(1)
        step, half = 0, (self.epochs + 1) // 2
        learned = [p for p in module.parameters() if p.requires_grad]
        for epoch in range(self.epochs):
            if epoch in (0, half):
                rate = self.rate if epoch < half else self.rate * self.drop
                optimizer = torch.optim.SGD(learned, rate, self.momentum,
                                            weight_decay=self.weight_decay)  # fmt: skip
            order = torch.randperm(len(images), generator=generator, device=images.device)
            for index in order.split(self.batch_size):
                x, y = images[index], labels[index]
                if self.augment is not None:
                    x = self.augment(x, generator)
                optimizer.zero_grad()
                F.cross_entropy(module(x), y).backward()
                optimizer.step()
                step += 1
                yield step


LESSON = Protocol()
"""The teacher's own steps and rates."""

LONG = Protocol(epochs=300)
"""The evaluation of Zhao et al. (2021), VICO-UoE/DatasetCondensation, utils.py: `evaluate_synset`.

Theirs makes one epoch more and lets the rate fall two epochs after half. Published numbers for MNIST
are by its augmented form.
"""

LONG_AUGMENTED = Protocol(epochs=1000, augment=Augment())
"""The same with random shifts, scalings and rotations, and for 1000 epochs."""
