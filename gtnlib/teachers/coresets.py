"""Real images chosen rather than drawn: a baseline for every learned teaching set.

Distances are Euclidean between features (N, D): the pixels, or what a trained network's last layer
sees. Both methods choose per class, and the k-th chosen of every class come before the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gtnlib.data.border import as_labels
from gtnlib.data.sets import Split
from gtnlib.students.features import features_of
from gtnlib.support.errors import check_choice, check_count
from gtnlib.teachers.rates import check_sgd
from gtnlib.teachers.teaching_set import TeachingSet


@torch.no_grad()
def penultimate(module: nn.Module, split: Split, batch_size: int = 1000) -> Tensor:
    """What the last `nn.Linear` of a network sees in evaluation mode, (N, D). ValueError if it has none."""
    modes = {layer: layer.training for layer in module.modules()}
    module.train(False)  # an image's features must not hang on the others, nor on chance
    try:
        return torch.cat([features_of(module, partial(module, x))
                          for x in split.images.split(batch_size)])  # fmt: skip
    finally:
        for layer, training in modes.items():
            layer.training = training


def k_centre(features: Tensor, labels: Tensor, per_class: int, classes: int | None = None) -> Tensor:
    """Indices (classes · per_class,) of images such that no image of a class is far from all chosen.

    Greedy (Gonzalez 1985; as a coreset, Sener & Savarese 2018): first the image nearest to the
    class's mean, then always the one farthest from those chosen. The largest distance that remains
    is at most twice the smallest possible. classes: how many there are, by default one more than the
    largest label.
    """

    def choose(x: Tensor) -> Tensor:
        chosen = [(x - x.mean(0)).square().sum(1).argmin()]
        nearest = torch.full((len(x),), torch.inf, device=x.device, dtype=x.dtype)
        for _ in range(per_class - 1):
            nearest = torch.minimum(nearest, (x - x[chosen[-1]]).square().sum(1))
            nearest[chosen[-1]] = -1  # never again, even among copies
            chosen.append(nearest.argmax())
        return torch.stack(chosen)

    return _per_class(choose, features, labels, per_class, classes)


def herding(features: Tensor, labels: Tensor, per_class: int, classes: int | None = None) -> Tensor:
    """Indices (classes · per_class,) of images whose mean stays near that of their class.

    Greedy (Welling 2009; Rebuffi et al. 2017): every time the image that brings the mean of those
    chosen nearest to the class's mean. No image is chosen twice. classes: as for `k_centre`.
    """

    def choose(x: Tensor) -> Tensor:
        mean, total, chosen = x.mean(0), torch.zeros_like(x[0]), []
        free = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        for k in range(1, per_class + 1):
            chosen.append(((total + x) / k - mean).square().sum(1).add(free).argmin())
            total, free[chosen[-1]] = total + x[chosen[-1]], torch.inf
        return torch.stack(chosen)

    return _per_class(choose, features, labels, per_class, classes)


METHODS = {"k_centre": k_centre, "herding": herding}


def _per_class(choose, features: Tensor, labels: Tensor, per_class: int, classes: int | None) -> Tensor:
    check_count("per_class", per_class)
    if features.ndim != 2 or not len(features) or labels.shape != features.shape[:1]:
        raise ValueError(f"features must be (N, D), with N at least 1, and labels (N,), got "
                         f"{tuple(features.shape)} and {tuple(labels.shape)}.")  # fmt: skip
    if classes is not None:
        check_count("classes", classes)
    labels, chosen = as_labels(labels, features, classes), []
    for c in range(classes or int(labels.max()) + 1):
        index = (labels == c).nonzero().flatten()
        if len(index) < per_class:
            raise ValueError(f"per_class is {per_class}, but class {c} has {len(index)} images.")
        chosen.append(index[choose(features[index])])
    return torch.stack(chosen, 1).flatten()


def coreset(split: Split, method: str, per_class: int, steps: int, batch_size: int, *,
            features: Tensor | None = None, rate: float | Sequence[float] = 0.05, momentum: float = 0.9,
            weight_decay: float = 0.0, final_rate: float | None = None,
            schedule: str = "linear") -> TeachingSet:  # fmt: skip
    """The chosen images as a teaching set, a batch at a time in the order of choice, around and around.

    method: "k_centre" or "herding". features: (N, D), default the pixels. rate, final_rate,
    schedule, momentum, weight_decay: as for a `Teacher`.
    """
    choose = METHODS[check_choice("method", method, METHODS)]
    check_count("steps", steps), check_count("batch_size", batch_size)
    rates, momentum, weight_decay = check_sgd(steps, rate, momentum, weight_decay, final_rate, schedule)
    index = choose(
        split.images.flatten(1) if features is None else features, split.labels, per_class, split.num_classes
    )
    order = torch.arange(steps * batch_size).view(steps, batch_size) % len(index)
    return TeachingSet(split.images[index].cpu(), split.labels[index].cpu(), order,
                       torch.tensor(rates), torch.full((steps,), momentum), weight_decay)  # fmt: skip
