"""Teachers: whatever yields the batch, the rate and the momentum of inner step t.

`PixelTeacher` holds the images themselves as parameters (dataset distillation, Wang et al. 2018).
`GeneratorTeacher` holds a network from noise and label to image and a curriculum of noise vectors
(Generative Teaching Network, Such et al. 2020). `RealTeacher` draws random real images: the
baseline. All can be frozen into a `TeachingSet`, which is plain arrays.
"""

from __future__ import annotations

import inspect
import io
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gtnlib.data import Split
from gtnlib.errors import (
    DataError, check_choice, check_count, check_kind, check_labels, check_number, check_path, check_seed,
    check_shape,
)  # fmt: skip
from gtnlib.files import write_whole
from gtnlib.students import seeded

CURRICULA = ("learned", "fixed", "fresh")


def check_sgd(rate: float, momentum: float, weight_decay: float) -> tuple[float, float, float]:
    """The three as floats, if they are 0 < rate, 0 ≤ momentum < 1 and 0 ≤ weight_decay."""
    if check_number("rate", rate, 0) == 0:
        raise ValueError("rate is 0, but must be positive.")
    momentum = check_number("momentum", momentum, 0, below=1)
    return float(rate), momentum, check_number("weight_decay", weight_decay, 0)


class Teacher(nn.Module):
    """What pixels and generators share: steps, per-step rates and momenta, export.

    A learning rate is kept as its logarithm and a momentum as its logit, so that any real
    parameter gives a valid value and a step of the outer optimiser is a relative change.
    `batches` counts the distinct batches: batch t is batch t mod `batches` again.

    Parameters
    ----------
    steps: T, the number of inner steps; at step t ≥ T everything repeats from t mod T.
    rate, momentum: what every step starts from; 0 < rate, 0 ≤ momentum < 1.
    learn_rates: make rates and momenta (unless 0) parameters. Only the unrolled meta-gradient
        can train them; the others leave them where they are.
    weight_decay: β of the inner loss ℓ + β/2 ‖w‖².
    """

    # What Adam does well with, for images or generator and for log-rates; see `fit`.
    outer_rate = 1e-2
    arguments: dict
    batches: int
    labels: Tensor

    def __new__(cls, *args, **keywords):
        """Keep the constructor's arguments, to tell teachers apart and to build one again."""
        teacher = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(teacher, *args, **keywords)
        except TypeError:
            return teacher  # __init__ will say what is wrong
        bound.apply_defaults()
        teacher.arguments = dict(list(bound.arguments.items())[1:])
        return teacher

    def __init__(self, shape, num_classes, steps, rate, momentum, learn_rates, weight_decay):
        super().__init__()
        self.shape = check_shape(shape)
        self.num_classes = check_count("num_classes", num_classes, 2)
        self.steps = check_count("steps", steps)
        rate, momentum, self.weight_decay = check_sgd(rate, momentum, weight_decay)
        self.log_rate = nn.Parameter(torch.full((steps,), math.log(rate)), learn_rates)
        logit = torch.full((steps,), momentum).logit()
        self.momentum_logit = nn.Parameter(logit, learn_rates and momentum > 0)

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B,) of inner step t, differentiable in the parameters."""
        raise NotImplementedError

    def batch_labels(self, t: int) -> Tensor:
        """The labels (B,) of inner step t alone."""
        raise NotImplementedError

    def reader(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        """`batch` for many steps in a row: a batch that comes back is not made a second time."""
        if self.batches == self.steps:
            return self.batch
        made = cache(self.batch)
        return lambda t: made(t % self.steps % self.batches)

    def resample(self, generator: torch.Generator) -> None:
        """Draw what is drawn anew for every student; nothing, unless the noise is fresh."""

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
    def _freeze(self, images: Tensor, labels: Tensor, order: Tensor) -> TeachingSet:
        return TeachingSet(
            images.cpu(), labels.cpu(), order.cpu(), self.log_rate.exp().float().cpu(),
            self.momentum_logit.sigmoid().float().cpu(), self.weight_decay,
        )  # fmt: skip

    def teaching_set(self, generator: torch.Generator | None = None) -> TeachingSet:
        """The teacher as plain arrays on the CPU; `generator` draws the noise, if it is fresh."""
        raise NotImplementedError

    def export(self, path: str | os.PathLike, generator: torch.Generator | None = None) -> None:
        """Write the teaching set as an .npz of plain arrays, usable with no gtnlib at all.

        It holds images (N, C, H, W) float32, labels (N,) int64, order (T, B) int64 (the images of
        every step), rate (T,), momentum (T,) and weight_decay.
        """
        self.teaching_set(generator).save(path)


class PixelTeacher(Teacher):
    """Learned images (Wang et al. 2018): the pixels are the parameters.

    Image i has label i mod classes. Without `batch_size` every step uses all images; with it, the
    steps go through them in order, a batch at a time, around and around.
    """

    outer_rate = 1e-1
    order: Tensor

    def __init__(self, images_per_class=10, steps=10, batch_size=None, *, shape=(1, 28, 28),
                 num_classes=10, rate=0.02, momentum=0.9, learn_rates=True, weight_decay=0.0,
                 seed=0):  # fmt: skip
        super().__init__(shape, num_classes, steps, rate, momentum, learn_rates, weight_decay)
        count = check_count("images_per_class", images_per_class) * num_classes
        batch_size = count if batch_size is None else check_count("batch_size", batch_size)
        if batch_size > count:
            raise ValueError(f"batch_size is {batch_size}, but there are only {count} images.")
        generator = torch.Generator().manual_seed(check_seed(seed))
        self.images = nn.Parameter(torch.randn(count, *self.shape, generator=generator))
        self.register_buffer("labels", torch.arange(count) % num_classes)
        self.register_buffer("order", torch.arange(steps * batch_size).view(steps, -1) % count)
        self.batches = min(steps, count // math.gcd(count, batch_size))

    @torch.no_grad()
    def start_from(self, split: Split, generator: torch.Generator | None = None) -> PixelTeacher:
        """Replace the noise by random real images of the right classes; returns the teacher."""
        check_kind("split", split, Split, " Pass, for instance, data.train.")
        if tuple(split.images.shape[1:]) != self.shape:
            raise ValueError(
                f"the teacher's images are {self.shape}, the data's {tuple(split.images.shape[1:])}."
            )
        real, _ = split.sample(len(self.labels), generator, self.labels.to(split.device))
        self.images.copy_(real)
        return self

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        return self.images[self.order[t % self.steps]], self.batch_labels(t)

    def batch_labels(self, t: int) -> Tensor:
        return self.labels[self.order[t % self.steps]]

    def teaching_set(self, generator=None) -> TeachingSet:
        return self._freeze(self.images.detach().float(), self.labels, self.order)


class Generator(nn.Module):
    """From noise (B, Z) and labels (B,) to images (B, C, H, W) in (−2, 2).

    The network of Such et al. (2020), with its sizes as arguments: two linear layers, then two
    upsampling 3×3 convolutions, batch normalisation by the batch at hand, LeakyReLU(0.1), 2 tanh.
    """

    def __init__(self, noise_size=64, shape=(1, 28, 28), num_classes=10, hidden=512, channels=32):
        super().__init__()
        image_channels, height, width = check_shape(shape)
        if height % 4 or width % 4:
            raise ValueError(f"Generator needs height and width divisible by 4, got {shape}.")
        self.num_classes = num_classes
        self.channels = check_count("channels", channels, 2)
        self.hidden = check_count("hidden", hidden)

        def norm(kind, n):
            return kind(n, track_running_stats=False)

        self.body = nn.Sequential(
            nn.Linear(noise_size + num_classes, hidden, bias=False),
            norm(nn.BatchNorm1d, hidden), nn.LeakyReLU(0.1),
            nn.Linear(hidden, channels * (height // 4) * (width // 4), bias=False),
            norm(nn.BatchNorm1d, channels * (height // 4) * (width // 4)), nn.LeakyReLU(0.1),
            nn.Unflatten(1, (channels, height // 4, width // 4)), nn.Upsample(scale_factor=2),
            nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False),
            norm(nn.BatchNorm2d, channels // 2), nn.LeakyReLU(0.1), nn.Upsample(scale_factor=2),
            nn.Conv2d(channels // 2, image_channels, 3, padding=1),
        )  # fmt: skip
        # Convolutions and upsampling of few channels are twice as fast in this layout, eager too.
        self.to(memory_format=torch.channels_last)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        code = nn.functional.one_hot(labels, self.num_classes).to(noise.dtype)
        return 2 * torch.tanh(self.body(torch.cat([noise, code], dim=1)))


class GeneratorTeacher(Teacher):
    """A Generative Teaching Network (Such et al. 2020): a generator and a curriculum of noise.

    Parameters
    ----------
    steps: T, inner steps.
    batch_size: B, generated images per step; labels run through the classes in turn.
    batches: number of distinct batches, repeated over the steps; default one per step. One batch
        for all steps makes the inner problem stationary, which implicit differentiation needs.
    curriculum: "learned" noise vectors, "fixed" ones, or "fresh" noise for every student.
    noise_size: Z, length of a noise vector.
    generator: a network called as generator(noise (B, Z), labels (B,)); default `Generator`.
    hidden, channels: sizes of the default generator.
    seed: of the noise and of the default generator's weights.
    """

    outer_rate = 5e-3

    def __init__(self, steps=32, batch_size=64, *, batches=None, curriculum="learned",
                 noise_size=64, generator=None, hidden=512, channels=32, shape=(1, 28, 28),
                 num_classes=10, rate=0.02, momentum=0.9, learn_rates=True, weight_decay=0.0,
                 seed=0):  # fmt: skip
        super().__init__(shape, num_classes, steps, rate, momentum, learn_rates, weight_decay)
        batches = steps if batches is None else check_count("batches", batches)
        if batches > steps:
            raise ValueError(f"batches is {batches}, but there are only {steps} steps to use them.")
        self.curriculum = check_choice("curriculum", curriculum, CURRICULA)
        self.batches = batches
        size = (batches, check_count("batch_size", batch_size, 2), check_count("noise_size", noise_size))
        noise = torch.randn(size, generator=torch.Generator().manual_seed(check_seed(seed)))
        self.noise = nn.Parameter(noise, requires_grad=curriculum == "learned")
        self.register_buffer("labels", torch.arange(noise[..., 0].numel()).view(size[:2]) % num_classes)
        if generator is None:
            generator = seeded(lambda: Generator(noise_size, self.shape, num_classes, hidden, channels), seed)
        self.generator: nn.Module = check_kind("generator", generator, nn.Module)

    @torch.no_grad()
    def resample(self, generator: torch.Generator) -> None:
        if self.curriculum == "fresh":
            fresh = torch.randn(self.noise.shape, generator=generator, device=generator.device)
            self.noise.copy_(fresh)

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        labels = self.batch_labels(t)
        return self.generator(self.noise[t % self.steps % self.batches], labels), labels

    def batch_labels(self, t: int) -> Tensor:
        return self.labels[t % self.steps % self.batches]

    @torch.no_grad()
    def teaching_set(self, generator=None) -> TeachingSet:
        if generator is not None:
            self.resample(generator)
        size = self.labels.shape[1]
        images = torch.cat([self.batch(b)[0] for b in range(self.batches)]).float()
        rows = torch.arange(self.steps)[:, None] % self.batches
        order = rows * size + torch.arange(size)
        return self._freeze(images, self.labels.flatten(), order)

    @torch.no_grad()
    def as_pixels(self) -> PixelTeacher:
        """A teacher of the same lesson whose parameters are the images themselves.

        Raises ValueError if they are not one fixed set with as many of every class: if the noise is
        fresh, or the batches together do not hold a multiple of `num_classes` images.
        """
        if self.curriculum == "fresh":
            raise ValueError("curriculum is 'fresh', so there is no fixed set of images to keep.")
        batches, size = self.labels.shape
        per_class, rest = divmod(batches * size, self.num_classes)
        if rest:
            raise ValueError(
                f"{batches} × {size} images are not as many for each of {self.num_classes} classes."
            )
        pixels = PixelTeacher(per_class, self.steps, size, shape=self.shape, num_classes=self.num_classes,
                              learn_rates=self.log_rate.requires_grad,
                              weight_decay=self.weight_decay)  # fmt: skip
        pixels = pixels.to(self.noise)
        pixels.images.copy_(torch.cat([self.batch(b)[0] for b in range(batches)]))
        pixels.log_rate.copy_(self.log_rate)
        pixels.momentum_logit.copy_(self.momentum_logit)
        pixels.momentum_logit.requires_grad_(self.momentum_logit.requires_grad)
        return pixels


class RealTeacher:
    """The baseline: random real images in place of learned ones, drawn anew for every student.

    Parameters
    ----------
    split: where to draw from.
    steps, batch_size: inner steps and images per step.
    images: number of distinct images, used in turn; default steps × batch_size.
    rate, momentum, weight_decay: of every step.
    """

    def __init__(self, split: Split, steps, batch_size, images=None, rate=0.05, momentum=0.9,
                 weight_decay=0.0):  # fmt: skip
        check_kind("split", split, Split, " Pass, for instance, data.train.")
        self.split, self.steps = split, check_count("steps", steps)
        self.batch_size = check_count("batch_size", batch_size)
        self.images = steps * batch_size if images is None else check_count("images", images)
        self.rate, self.momentum, self.weight_decay = check_sgd(rate, momentum, weight_decay)
        self.shape, self.num_classes = tuple(split.images.shape[1:]), split.num_classes

    def teaching_set(self, generator: torch.Generator | None = None) -> TeachingSet:
        device = self.split.device
        labels = torch.arange(self.images, device=device) % self.num_classes
        images, _ = self.split.sample(self.images, generator, labels)
        order = torch.arange(self.steps * self.batch_size).view(self.steps, -1) % self.images
        rate, momentum = torch.full((self.steps,), self.rate), torch.full((self.steps,), self.momentum)
        return TeachingSet(images.cpu(), labels.cpu(), order, rate, momentum, self.weight_decay)


@dataclass(frozen=True)
class TeachingSet:
    """A frozen teacher: plain tensors, and the batches they make.

    images (N, C, H, W) float32, labels (N,) int64, order (T, B) int64 indices of images, rate and
    momentum (T,), weight_decay.
    """

    images: Tensor
    labels: Tensor
    order: Tensor
    rate: Tensor
    momentum: Tensor
    weight_decay: float = 0.0

    def __post_init__(self):
        for name in ("images", "labels", "order", "rate", "momentum"):
            check_kind(name, getattr(self, name), Tensor)
        check_number("weight_decay", self.weight_decay, 0)
        if not self.labels.numel():
            raise ValueError("labels is empty: a teaching set needs at least one image.")
        check_labels(self.images, self.labels, 1 + int(self.labels.max()))
        if self.order.ndim != 2 or self.order.numel() == 0:
            raise ValueError(f"order must have shape (steps, batch), got {tuple(self.order.shape)}.")
        if not 0 <= int(self.order.min()) <= int(self.order.max()) < len(self.images):
            raise ValueError(f"order points outside the {len(self.images)} images.")
        for name in ("rate", "momentum"):
            if getattr(self, name).shape != (self.steps,):
                raise ValueError(f"{name} must have one entry for each of the {self.steps} steps.")

    @property
    def steps(self) -> int:
        return len(self.order)

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        index = self.order[t % self.steps]
        return self.images[index], self.labels[index]

    def reader(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        return self.batch

    def rates(self, t: int) -> tuple[Tensor, Tensor]:
        return self.rate[t % self.steps], self.momentum[t % self.steps]

    def teaching_set(self, generator=None) -> TeachingSet:
        return self

    def to(self, device) -> TeachingSet:
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items()
                                 if isinstance(value, Tensor)}  # fmt: skip
        return replace(self, **moved)

    def save(self, path: str | os.PathLike) -> None:
        """Write an .npz of plain arrays, in one move, so that no half-written file is left."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(self).items()}
        np.savez_compressed(buffer, **arrays)
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> TeachingSet:
        """Read what `save` or `Teacher.export` wrote. Raises DataError if it is anything else."""
        check_path("path", path)
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                names = ("images", "labels", "order", "rate", "momentum")
                tensors = {name: torch.from_numpy(file[name]) for name in names}
                for name, value in tensors.items():
                    kind = torch.int64 if name in ("labels", "order") else torch.float32
                    if value.dtype != kind:
                        raise TypeError(f"{name} must be {kind}, got {value.dtype}.")
                return cls(**tensors, weight_decay=float(file["weight_decay"]))
        except FileNotFoundError:
            raise
        except (KeyError, ValueError, TypeError, OSError, EOFError, RuntimeError, zlib.error,
                zipfile.BadZipFile) as error:  # fmt: skip
            raise DataError(f"{path} is not a teaching set, or is damaged: {error}") from error
