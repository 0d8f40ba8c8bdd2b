"""What pixels and generators share: steps, rates and momenta, export."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from gtnlib.data.scale import Scale
from gtnlib.support.errors import check_count, check_shape
from gtnlib.teachers.rates import check_sgd
from gtnlib.teachers.teaching_set import TeachingSet

SMOOTHING = 0.1  # of hard labels, where learned ones start


class Teacher(nn.Module):
    """What pixels and generators share: steps, per-step rates and momenta, export.

    A learning rate is kept as its logarithm and a momentum as its logit, so that any real
    parameter gives a valid value and a step of the outer optimiser is a relative change.
    `batches` counts the distinct batches: batch t is batch t mod `batches` again.

    Parameters
    ----------
    steps: T, the number of inner steps; at step t ≥ T everything repeats from t mod T.
    rate: learning rate that every step starts from, a number > 0, or a sequence of T of them.
    final_rate, schedule: let it change from `rate` at step 0 to `final_rate` at step T − 1, along a
        line ("linear") or half a cosine ("cosine").
    momentum: that every step starts from; 0 ≤ momentum < 1.
    learn_rates: make rates and momenta (unless 0) parameters. Only the unrolled meta-gradient
        can train them; the others leave them where they are.
    weight_decay: β of the inner loss ℓ + β/2 ‖w‖².
    learn_labels: teach probabilities in place of hard labels, the softmax of logits that are parameters,
        one vector an image (soft labels, Sucholutsky & Schonlau 2021). They start from the hard ones
        smoothed: 1 − ε there and ε/C on all C classes, ε = 0.1 (Szegedy et al. 2016).
    """

    # What Adam does well with, for images or generator and for log-rates; see `fit`.
    outer_rate = 1e-2
    arguments: dict
    scale: Scale | None = None  # of the data, told by `fit`
    batches: int
    labels: Tensor
    label_logits: nn.Parameter | None

    def __new__(cls, *args, **keywords):
        """Keep the constructor's arguments, to tell teachers apart and to build one again."""
        teacher = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(teacher, *args, **keywords)
        except TypeError:
            return teacher  # __init__ will say what is wrong
        bound.apply_defaults()
        teacher.arguments = {name: value.item() if isinstance(value, np.generic) else value
                             for name, value in list(bound.arguments.items())[1:]}  # fmt: skip
        return teacher

    def __init__(self, shape, num_classes, steps, rate, final_rate, schedule, momentum, learn_rates,
                 weight_decay):  # fmt: skip
        super().__init__()
        self.shape = check_shape(shape)
        self.num_classes = check_count("num_classes", num_classes, 2)
        self.steps = check_count("steps", steps)
        rates, momentum, self.weight_decay = check_sgd(
            steps, rate, momentum, weight_decay, final_rate, schedule
        )
        if isinstance(rate, Sequence) and "rate" in self.arguments:
            self.arguments["rate"] = rates  # plain numbers, which a file can hold
        self.log_rate = nn.Parameter(torch.tensor([math.log(rate) for rate in rates]), learn_rates)
        logit = torch.full((steps,), momentum).logit()
        self.momentum_logit = nn.Parameter(logit, learn_rates and momentum > 0)

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels of inner step t, differentiable in the parameters.

        Labels are classes (B,) or, if they are learned, probabilities (B, classes).
        """
        raise NotImplementedError

    def batch_labels(self, t: int) -> Tensor:
        """The classes (B,) that the images of inner step t stand for, whatever their learned labels."""
        raise NotImplementedError

    def _learn_labels(self, learn: bool) -> None:
        """Make the labels of all images parameters, if asked to."""
        if not isinstance(learn, bool):
            raise TypeError(f"learn_labels must be True or False, got {learn!r}.")
        if not learn:
            return self.register_parameter("label_logits", None)
        hard = nn.functional.one_hot(self.labels, self.num_classes).to(self.log_rate.dtype)
        smooth = (1 - SMOOTHING) * hard + SMOOTHING / self.num_classes
        self.register_parameter("label_logits", nn.Parameter(smooth.log()))

    def _targets(self, index) -> Tensor:
        """What the images of this index are to be taken for: classes or probabilities."""
        return self.labels[index] if self.label_logits is None else self.label_logits[index].softmax(-1)

    def transformed(self, images: Tensor, t: int) -> Tensor:
        """Real images as those of step t are shown: unchanged, but in a `VariedLesson`."""
        return images

    def reader(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        """`batch` for many steps in a row: a batch that comes back is not made a second time."""
        if self.batches == self.steps:
            return self.batch
        made = cache(self.batch)
        return lambda t: made(t % self.steps % self.batches)

    def resample(self, generator: torch.Generator) -> None:
        """Draw what is drawn anew for every outer step; nothing, unless the noise is fresh."""

    def rates(self, t: int) -> tuple[Tensor, Tensor]:
        """Learning rate η_t and momentum μ_t, 0-d."""
        t = t % self.steps
        return self.log_rate[t].exp(), self.momentum_logit[t].sigmoid()

    def parameter_groups(self, rate: float, rates_rate: float) -> list[dict]:
        """Groups for a torch optimiser: rates and momenta, and everything else."""
        rates = [p for p in (self.log_rate, self.momentum_logit) if p.requires_grad]
        others = [p for p in self.parameters()
                  if p.requires_grad and all(p is not r for r in rates)]  # fmt: skip
        groups = [{"params": others, "lr": rate}, {"params": rates, "lr": rates_rate}]
        return [group for group in groups if group["params"]]

    @torch.no_grad()
    def _freeze(self, images: Tensor, order: Tensor) -> TeachingSet:
        labels = self._targets(...).flatten(0, self.labels.ndim - 1)
        return TeachingSet(
            images.detach().cpu(), labels.cpu(), order.cpu(), self.log_rate.exp().cpu(),
            self.momentum_logit.sigmoid().cpu(), self.weight_decay, self.scale,
        )  # fmt: skip

    def teaching_set(self, generator: torch.Generator | None = None) -> TeachingSet:
        """The teacher as plain arrays on the CPU; `generator` draws the noise, if it is fresh."""
        raise NotImplementedError

    def export(self, path: str | os.PathLike, generator: torch.Generator | None = None) -> None:
        """Write the teaching set as an .npz of plain arrays, usable with no gtnlib at all.

        It holds images (N, C, H, W), labels (N,) int64 or, if they are learned, probabilities (N, classes),
        order (T, B) int64 (the images of every step), rate (T,), momentum (T,) and weight_decay, in the
        teacher's type, float32 or float64. Of a teacher that `fit` has trained there are also the name of
        the data set, and mean and std of its pixels.
        """
        self.teaching_set(generator).save(path)
