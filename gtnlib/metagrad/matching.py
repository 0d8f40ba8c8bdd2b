"""Gradient matching: synthetic images whose training gradient points where the real one points.

Zhao et al. (2021), equation 10 and Algorithm 1: at parameters w along the student's own training on
synthetic data, class by class,

    D(w, φ) = Σ_c Σ_layers d(∂ℓ(w; x_c(φ))/∂w, ∂ℓ(w; real images of class c)/∂w)

is reduced over the teacher's parameters φ. It is a different objective from the real loss of a trained
student: nothing is differentiated through time, so memory does not depend on the number of inner
steps, and rates and momenta get no gradient.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from gtnlib.data.sets import Split
from gtnlib.inner.flat import learnable
from gtnlib.inner.stacked import refused
from gtnlib.inner.step import StudentRun, pull_back, train_student
from gtnlib.metagrad.base import MetaGradient
from gtnlib.support.errors import check_choice, check_count

EPSILON = 1e-6  # keeps the cosine finite where a gradient vanishes


def layerwise_cosine(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    """Σ over weight tensors, Σ over their output rows, of 1 − ⟨p, q⟩ / (‖p‖ ‖q‖ + ε); vectors are skipped.

    ε is 1e-6, as in Zhao et al.'s code, and √(‖p‖² + ε²) stands for every norm ‖p‖.
    """
    total = torch.zeros((), dtype=next(iter(a.values())).dtype, device=next(iter(a.values())).device)
    if all(part.ndim < 2 for part in a.values()):
        raise ValueError("distance is 'layerwise-cosine', but no parameter that is trained is a matrix or "
                         "more: use 'cosine'.")  # fmt: skip
    for name in a:
        if a[name].ndim > 1:
            p, q = a[name].flatten(1), b[name].flatten(1)
            norms = _norm(p) * _norm(q)
            total = total + (1 - (p * q).sum(1) / (norms + EPSILON)).sum()
    return total


def cosine(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    """1 − ⟨p, q⟩ / (‖p‖ ‖q‖ + ε) of the whole gradient, with ε and norms as in `layerwise_cosine`."""
    p, q = (torch.cat([part.flatten() for part in g.values()])[None] for g in (a, b))
    return 1 - (p * q).sum() / (_norm(p) * _norm(q) + EPSILON).squeeze()


def squared_error(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    """Squared Euclidean distance of the whole gradient."""
    first, *others = ((a[name] - b[name]).square().sum() for name in a)
    return sum(others, first)


def _norm(rows: Tensor) -> Tensor:
    """Norm of each row, with a finite derivative at zero."""
    return (rows.square().sum(1) + EPSILON**2).sqrt()


DISTANCES = {
    "layerwise-cosine": layerwise_cosine,
    "cosine": cosine,
    "squared-error": squared_error,
}


class GradientMatching(MetaGradient):
    """Match gradients on synthetic and real images, per class and layer.

    Parameters
    ----------
    distance: "layerwise-cosine" (Zhao et al. 2021, equation 11), "cosine" or "squared-error".
    real_batch_size: real images per class.
    inner_steps: steps the student takes on the teacher's batches after each update.
    updates_per_student: outer steps before a student is started afresh.
    """

    def __init__(self, distance: str = "layerwise-cosine", real_batch_size: int = 64,
                 inner_steps: int = 1, updates_per_student: int = 10):  # fmt: skip
        self.distance = check_choice("distance", distance, DISTANCES)
        self.real_batch_size = check_count("real_batch_size", real_batch_size)
        self.inner_steps = check_count("inner_steps", inner_steps, 0)
        self.updates_per_student = check_count("updates_per_student", updates_per_student)

    def steps_per_update(self, teacher) -> int:
        return self.inner_steps

    def draw(self, teacher, t: int, split: Split, generator: torch.Generator) -> tuple:
        """All that is random in a call: a real batch of every class, as (indices, labels)."""
        wanted = teacher.batch_labels(t).unique().repeat_interleave(self.real_batch_size)
        return split.draw(len(wanted), generator, wanted)

    def differentiate(self, teacher, run: StudentRun, split: Split, drawn: tuple) -> Tensor:
        """Add the gradient of D to the .grad of the teacher's parameters; return D per class (0-d).

        Then trains `run` for `inner_steps` steps.
        """
        x, y = teacher.batch(run.t)
        real, labels = split.at(drawn)
        with torch.no_grad():
            real = teacher.transformed(real, run.t)
        classes = labels[:: self.real_batch_size]
        real = real.view(len(classes), self.real_batch_size, *real.shape[1:])
        own = teacher.batch_labels(run.t)  # of all classes in one go: a GPU is waited for once
        rows = own.argsort(stable=True).split(own.unique(return_counts=True)[1].tolist())
        with torch.no_grad():
            loss, *adjoints = self._match(run, x, y, rows, classes, real)
        pull_back(dict(zip((x, y), adjoints)))
        train_student(teacher, run, self.inner_steps)
        return loss

    def _match(self, run, x, y, rows, classes, real) -> tuple[Tensor, ...]:
        """Mean of D over the classes, its gradient at the images x and, if they are soft, labels y."""
        distance = DISTANCES[self.distance]
        adjoints, losses = [torch.zeros_like(part) for part in learnable(x, y)], []
        # On a GPU all classes at once, if they have as many images; on a CPU that was slower.
        if x.is_cuda and len({len(row) for row in rows}) == 1:
            index = torch.stack(rows)
            shared = classes, x[index], y[index], distance
            try:
                losses, *found = run.student.compute(match_classes, (run.w, real), shared)
            except RuntimeError as error:
                if not refused(error):  # which cannot run every network
                    raise
            else:
                for adjoint, part in zip(adjoints, found):
                    adjoint[index] = part / len(classes)
                return losses.mean(), *adjoints
        for c, row, images in zip(classes, rows, real):
            shared = c, x[row], y[row], distance
            loss, *found = run.student.compute(match_class, (run.w, images), shared)
            for adjoint, part in zip(adjoints, found):
                adjoint[row] = part / len(classes)
            losses.append(loss)
        return torch.stack(losses).mean(), *adjoints


def match_class(student, w, real, label, x, y, distance) -> tuple[Tensor, ...]:
    """The distance of images x (N, C, H, W), labelled y, of one class from real ones of that label (0-d);
    its gradient at x and, if y is soft, at y.
    """
    target = student.unflatten(student.gradient(w, real, label.expand(len(real))))
    return student.through_gradient(w, x, y, lambda g: distance(student.unflatten(g), target))


def match_classes(student, w, real, label, x, y, distance) -> tuple[Tensor, ...]:
    """`match_class` for all classes at once: real, label, x and y have a leading dimension of classes."""
    one = partial(match_class, student, w, distance=distance)
    return vmap(lambda *parts: one(*parts))(real, label, x, y)
