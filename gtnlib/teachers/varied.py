"""Lessons drawn anew for every student: what teaches many lessons should not hang on one of them.

A teacher alone gives every student the same batches at the same rates. A `Variation` draws, for each
student, a transform of the images of every step, an order of the batches, a length, and a factor on the
rates; the `VariedLesson` that holds the draws stands in for the teacher wherever it teaches, and is
differentiable in its parameters as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gtnlib.data.augment import Augment, moved
from gtnlib.support.errors import check_count, check_kind, check_number
from gtnlib.teachers.base import Teacher


@dataclass(frozen=True)
class Variation:
    """What of a lesson is drawn anew whenever a meta-gradient is taken.

    Parameters
    ----------
    augment: an `Augment`, a table of its arguments, or True for its defaults: all images of a step pass
        through one draw of it, and with gradient matching the real ones through the same (siamese
        augmentation, Zhao & Bilen 2021).
    order: take the batches in a random order, around and around; of a teacher of one batch, nothing.
    length: (shortest, longest) number of steps, drawn evenly; rates and momenta are spread over it.
    rate_factor: f ≥ 1: all rates are multiplied by one number between 1/f and f, even in its logarithm.

    Raises ValueError if nothing is varied.
    """

    augment: Augment | Mapping | bool | None = None
    order: bool = False
    length: Sequence[int] | None = None
    rate_factor: float = 1.0

    def __post_init__(self):
        if self.augment is True:
            object.__setattr__(self, "augment", Augment())
        elif isinstance(self.augment, Mapping) and self.augment:
            object.__setattr__(self, "augment", Augment(**self.augment))
        elif self.augment is not None and self.augment is not False:
            check_kind("augment", self.augment, Augment, " Its arguments in a table, or True, will do too.")
        if not isinstance(self.order, bool):
            raise TypeError(f"order must be True or False, got {self.order!r}.")
        if self.length is not None:
            if not isinstance(self.length, Sequence) or len(self.length) != 2:
                raise TypeError(f"length must be (shortest, longest) numbers of steps, got {self.length!r}.")
            low, high = (check_count("every one of length", n) for n in self.length)
            if low > high:
                raise ValueError(f"length is {(low, high)}, but the shortest must come first.")
            object.__setattr__(self, "length", (low, high))
        check_number("rate_factor", self.rate_factor, 1)
        if not (self.augment or self.order or self.length or self.rate_factor > 1):
            raise ValueError("lessons vary in nothing: set augment, order, length or rate_factor.")

    @classmethod
    def of(cls, value) -> Variation | None:
        """A `Variation`, or a table of its arguments, or None."""
        if isinstance(value, Mapping):
            return cls(**value)
        return None if value is None else check_kind("lessons", value, cls, " A table of arguments will do.")

    def shortest(self, teacher: Teacher) -> int:
        """Steps that a lesson has at least."""
        return teacher.steps if self.length is None else self.length[0]

    def draw(self, teacher: Teacher, generator: torch.Generator) -> VariedLesson:
        """A lesson of this teacher."""

        def uniform() -> float:
            return float(torch.rand((), generator=generator, device=generator.device, dtype=torch.float64))

        steps, order, factor, maps = teacher.steps, None, 1.0, None
        if self.length is not None:
            low, high = self.length
            steps = low + int(uniform() * (high + 1 - low))
        if self.order:
            order = torch.randperm(teacher.batches, generator=generator, device=generator.device).tolist()
        if self.rate_factor > 1:
            factor = self.rate_factor ** (2 * uniform() - 1)
        if isinstance(self.augment, Augment):
            images = teacher.log_rate.detach().new_empty(1, *teacher.shape).expand(steps, *teacher.shape)
            maps = self.augment.draw(images, generator)
        return VariedLesson(teacher, steps, order, factor, maps)


class VariedLesson:
    """A teacher's lesson as drawn for one student, with the parts of `Teacher` that teaching needs.

    Parameters
    ----------
    steps: L, its length. Step t has the rates of the teacher's step ⌊t T / L⌋.
    order: of the teacher's distinct batches; None as they are.
    factor: on all rates.
    maps: (L, 2, 3), of the images of every step, as `Augment.draw` gives them; None to leave them. With
        maps no batch comes back, so all L are distinct.
    """

    def __init__(self, teacher: Teacher, steps: int, order: list[int] | None = None, factor: float = 1.0,
                 maps: Tensor | None = None):  # fmt: skip
        self.teacher, self.steps, self.factor, self.maps = teacher, steps, factor, maps
        self.order = list(range(teacher.batches)) if order is None else order
        self.batches = min(teacher.batches, steps) if maps is None else steps
        self.weight_decay, self.num_classes = teacher.weight_decay, teacher.num_classes

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        return self._from(self.teacher.batch, t)

    def reader(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        source = self.teacher.reader()
        return lambda t: self._from(source, t)

    def batch_labels(self, t: int) -> Tensor:
        return self.teacher.batch_labels(self._place(t))

    def transformed(self, images: Tensor, t: int) -> Tensor:
        if self.maps is None:
            return images
        return moved(images, self.maps[t % self.steps].expand(len(images), 2, 3))

    def rates(self, t: int) -> tuple[Tensor, Tensor]:
        rate, momentum = self.teacher.rates(math.floor(t % self.steps * self.teacher.steps / self.steps))
        return rate * self.factor, momentum

    def _place(self, t: int) -> int:
        """The teacher's batch at step t."""
        return self.order[t % self.steps % self.teacher.batches]

    def _from(self, source: Callable[[int], tuple[Tensor, Tensor]], t: int) -> tuple[Tensor, Tensor]:
        images, labels = source(self._place(t))
        return self.transformed(images, t), labels
