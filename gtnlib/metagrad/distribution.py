"""Distribution matching: synthetic images whose features have the mean of the real ones.

Zhao & Bilen (2023), equation 6: under the features ψ of a network that is freshly initialised and never
trained, class by class,

    D(φ) = Σ_c ‖ mean of ψ(real images of class c) − mean of ψ(x_c(φ)) ‖²

is reduced over the teacher's parameters φ. There is no inner loop and no second derivative, so it is
the cheapest; rates, momenta and learned labels do not enter and get no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gtnlib.data.sets import Split
from gtnlib.inner.step import StudentRun, pull_back
from gtnlib.metagrad.base import MetaGradient
from gtnlib.support.errors import check_count


class DistributionMatching(MetaGradient):
    """Match means of features, per class, under random networks.

    The features are what the last `nn.Linear` of the student sees. Every outer step has a fresh student
    and one batch of the teacher, drawn at random.

    Parameters
    ----------
    real_batch_size: real images per class.
    """

    def __init__(self, real_batch_size: int = 64):
        self.real_batch_size = check_count("real_batch_size", real_batch_size)

    def steps_per_update(self, teacher) -> int:
        return 0

    def draw(self, teacher, t: int, split: Split, generator: torch.Generator) -> tuple:
        """All that is random in a call: the step whose batch is matched, and a real batch of every class."""
        step = int(torch.randint(teacher.batches, (), generator=generator, device=generator.device))
        wanted = teacher.batch_labels(step).unique().repeat_interleave(self.real_batch_size)
        return step, split.draw(len(wanted), generator, wanted)

    def differentiate(self, teacher, run: StudentRun, split: Split, drawn: tuple) -> Tensor:
        """Add the gradient of D to the .grad of the teacher's parameters; return D per class (0-d)."""
        step, indices = drawn
        real, wanted = split.at(indices)
        x, _ = teacher.batch(step)
        with torch.no_grad():
            real = teacher.transformed(real, step)
            mine = (teacher.batch_labels(step) == wanted[:: self.real_batch_size, None]).to(x.dtype)
            shared = x, mine / mine.sum(1, keepdim=True), self.real_batch_size
            loss, adjoint = run.student.compute(match_means, (run.w, real), shared)
        pull_back({x: adjoint})
        return loss


def match_means(student, w, real, x, weights, each) -> tuple[Tensor, Tensor]:
    """D over the number C of classes (0-d), and its gradient at the images x (N, C, H, W).

    real: `each` images of every class in turn. weights: (classes, N), which average x by class.
    """
    target = student.features(w, real).unflatten(0, (-1, each)).mean(1)

    def distance(features: Tensor) -> Tensor:
        return (weights @ features - target).square().sum(1).mean()

    return student.through_features(w, x, distance)
