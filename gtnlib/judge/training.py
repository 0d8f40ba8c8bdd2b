"""Training of any network by an optimiser of torch, on a teacher's batches or on real data.

`fit` and `evaluate` train students by the pure inner step, since that is what a meta-gradient goes
through. What is only measured, here, takes the usual road: `torch.optim.SGD` or Adam.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from gtnlib.data.sets import PARTS, Dataset
from gtnlib.judge.divergence import diverged
from gtnlib.judge.evaluate import accuracy_and_loss, check_fresh, check_seeds, fresh, lessons_of
from gtnlib.judge.protocols import Protocol
from gtnlib.support.errors import check_choice, check_count, check_number, check_positive
from gtnlib.support.seeds import derive_seed
from gtnlib.teachers.rehearsal import rehearse_teacher

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    optimizer: "sgd" or "adam".
    rate: learning rate; None for the rates, momenta and weight decay that the teacher prescribes
        for each step, which only SGD can follow.
    steps: default as many as the teacher has. Beyond them the teacher starts over.
    momentum: of SGD. weight_decay: of either. Both only with a `rate`.
    cosine: let the rate fall to zero along half a cosine.
    """

    optimizer: str = "sgd"
    rate: float | None = None
    steps: int | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    cosine: bool = False

    def __post_init__(self):
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.steps is not None:
            check_count("steps", self.steps)
        check_number("momentum", self.momentum, 0, below=1)
        check_number("weight_decay", self.weight_decay, 0)
        if self.rate is None:
            if self.optimizer == "adam" or self.cosine:
                raise ValueError("rate is None, but only SGD at a constant rate can follow a teacher's.")
        else:
            check_positive("rate", self.rate)


@torch.inference_mode(False)
@torch.enable_grad()
def train(module: nn.Module, lessons, recipe: Recipe) -> int:
    """Train `module` in place on batches t = 0, 1, … of a TeachingSet or Stream; returns the steps.

    With SGD and the teacher's rates this is the inner step of `fit` and `evaluate`. Values that are
    not finite stop nothing: such a network simply knows nothing.
    """
    steps = recipe.steps or lessons.steps
    if recipe.rate is not None:
        decay = recipe.weight_decay
        fall = [0.5 + 0.5 * math.cos(math.pi * t / steps) if recipe.cosine else 1.0 for t in range(steps)]
        rates = [(recipe.rate * factor, recipe.momentum) for factor in fall]
    elif hasattr(lessons, "rates"):
        decay = lessons.weight_decay
        rates = list(zip(lessons.rate.tolist(), lessons.momentum.tolist()))
    else:
        raise ValueError("rate is None, but real data prescribes none: give one.")
    parameters = [p for p in module.parameters() if p.requires_grad]
    if recipe.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(parameters, rates[0][0], weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(parameters, *rates[0], weight_decay=decay)
    group = optimizer.param_groups[0]
    for t in range(steps):
        rate, momentum = rates[t % len(rates)]
        group.update(lr=rate, momentum=momentum)  # of which Adam takes the rate alone
        x, y = lessons.batch(t)
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    return steps


@dataclass(frozen=True)
class Score:
    """What networks of one kind are worth after training, one value per seed.

    accuracy: by split, fractions. loss: by split, as `accuracy_and_loss` has it. seconds: of training
    alone. steps: that each of them took.
    diverged: how many did, as `gtnlib.judge.divergence` counts it; they are among the others.
    """

    accuracy: dict[str, tuple[float, ...]]
    loss: dict[str, tuple[float, ...]]
    seconds: tuple[float, ...]
    steps: int
    diverged: int = 0


@torch.inference_mode(False)
@torch.enable_grad()
def score(
    teacher,
    student: Callable[..., nn.Module],
    data: Dataset,
    recipe: Recipe | Protocol,
    seeds: int | Sequence[int] = 1,
    splits: Sequence[str] = ("validation",),
    images: int | None = None,
) -> Score:
    """Train fresh networks on what the teacher teaches and measure them on real images.

    Parameters
    ----------
    teacher: any that `evaluate` takes, or a Stream of real images.
    student: class, function, Architecture, or list of them, as for `evaluate`.
    recipe: or a protocol by epochs.
    seeds: how many networks, or their seeds; those of `evaluate` give the networks and the draws
        of images of `evaluate`.
    splits: where to measure them. images: on so many of each; default all.
    """
    seeds = check_seeds(seeds)
    rehearse_teacher(teacher)
    measured = {name: data.part(check_choice("splits", name, PARTS)) for name in splits}
    if images is not None:
        measured = {name: part.first(images) for name, part in measured.items()}
    values: dict[str, list[tuple[float, float]]] = {name: [] for name in splits}
    seconds, steps, lost = [], 0, 0
    modules: list[nn.Module] = []
    for seed in seeds:
        trained, lessons = fresh(student, data, seed), lessons_of(teacher, data, seed)
        modules = [*modules[-1:], trained.module]  # a network is trained in place
        check_fresh(modules)
        module, start = trained.module, trained.initial()
        began = time.perf_counter()
        if isinstance(recipe, Recipe):
            steps = train(module, lessons, recipe)
        else:
            generator = data.generator(derive_seed("protocol", seed))
            *_, steps = recipe.training(module, lessons.images, lessons.labels, generator)
        if data.device.type == "cuda":
            torch.cuda.synchronize(data.device)
        seconds.append(time.perf_counter() - began)
        lost += int(diverged(trained, start, trained.initial(), lessons))
        for name, split in measured.items():
            values[name].append(accuracy_and_loss(trained, trained.initial(), split))
    found, losses = ({name: tuple(one[part] for one in v) for name, v in values.items()} for part in (0, 1))
    return Score(found, losses, tuple(seconds), steps, lost)
