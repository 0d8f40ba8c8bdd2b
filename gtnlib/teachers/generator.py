"""Generative Teaching Networks (Such et al. 2020): a network from noise and label to image."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from gtnlib.data.sets import Split
from gtnlib.support.errors import (
    DivergenceError, DivergenceWarning, check_choice, check_count, check_kind, check_positive, check_seed,
    check_shape,
)  # fmt: skip
from gtnlib.support.seeds import seeded
from gtnlib.teachers.base import Teacher
from gtnlib.teachers.pixels import PixelTeacher
from gtnlib.teachers.rehearsal import rehearse_teacher
from gtnlib.teachers.starts import real_images
from gtnlib.teachers.teaching_set import TeachingSet
from gtnlib.teachers.upsampling import upsampled_convolution, upsampled_few

CURRICULA = ("learned", "fixed", "fresh")


class Generator(nn.Module):
    """From noise (B, Z) and labels (B,) to images (B, C, H, W) in (−2, 2).

    The network of Such et al. (2020), with its sizes as arguments: two linear layers, then two
    upsampling 3×3 convolutions, batch normalisation by the batch at hand, LeakyReLU(0.1), 2 tanh: the
    layers of `body`, the same as images by an equal and faster way (`upsampling`).
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
        layers: Any = self.body
        # As the layers of `body` say, but nothing is upsampled only to be convolved.
        x = layers[:7](torch.cat([noise, code], dim=1)).contiguous(memory_format=torch.channels_last)
        x = layers[9:11](upsampled_convolution(x, layers[8]))
        return 2 * torch.tanh(upsampled_few(x, layers[12]))


class GeneratorTeacher(Teacher):
    """A Generative Teaching Network (Such et al. 2020): a generator and a curriculum of noise.

    Parameters
    ----------
    steps: T, inner steps.
    batch_size: B, generated images per step; labels run through the classes in turn.
    batches: number of distinct batches, repeated over the steps; default one per step. One batch
        for all steps makes the inner problem stationary, which implicit differentiation needs.
    curriculum: "learned" noise vectors, "fixed" ones, or "fresh" noise for every outer step,
        and for every student that is judged.
    noise_size: Z, length of a noise vector.
    generator: a network called as generator(noise (B, Z), labels (B,)); default `Generator`.
    hidden, channels: sizes of the default generator.
    seed: of the noise and of the default generator's weights.

    All else is as for every `Teacher`.
    """

    outer_rate = 5e-3

    def __init__(self, steps=32, batch_size=64, *, batches=None, curriculum="learned",
                 noise_size=64, generator=None, hidden=512, channels=32, shape=(1, 28, 28),
                 num_classes=10, rate=0.02, momentum=0.9, learn_rates=True, weight_decay=0.0,
                 seed=0, final_rate=None, schedule="linear", learn_labels=False):  # fmt: skip
        super().__init__(shape, num_classes, steps, rate, final_rate, schedule, momentum, learn_rates,
                         weight_decay)  # fmt: skip
        batches = steps if batches is None else check_count("batches", batches)
        if batches > steps:
            raise ValueError(f"batches is {batches}, but there are only {steps} steps to use them.")
        self.curriculum = check_choice("curriculum", curriculum, CURRICULA)
        self.batches = batches
        size = (batches, check_count("batch_size", batch_size, 2), check_count("noise_size", noise_size))
        noise = torch.randn(size, generator=torch.Generator().manual_seed(check_seed(seed)))
        self.noise = nn.Parameter(noise, requires_grad=curriculum == "learned")
        self.register_buffer("labels", torch.arange(noise[..., 0].numel()).view(size[:2]) % num_classes)
        self._learn_labels(learn_labels)
        if generator is None:
            generator = seeded(lambda: Generator(noise_size, self.shape, num_classes, hidden, channels), seed)
        self.generator: nn.Module = check_kind("generator", generator, nn.Module)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def start_from(self, split: Split, generator: torch.Generator | None = None, method: str = "random",
                   updates: int = 400, rate: float = 3e-3) -> GeneratorTeacher:  # fmt: skip
        """Have the generator make real images of the right classes at first; returns the teacher.

        Its weights and, unless they are fixed, its noise vectors are fitted together to the squared
        error of its images, as in the generative latent optimisation of Bojanowski et al. (2018), but
        with Adam and without a bound on the noise.

        method, generator: which real images, as `PixelTeacher.start_from` has them, one for each of its
            own. Coresets need as many of every class.
        updates: of one batch each, in turn.
        rate: of Adam at first; it falls to zero along half a cosine.

        Raises ValueError if the noise is fresh, so that there is no fixed image to reproduce, or the
        generator is none that `fit` takes, and DivergenceError if its images are no numbers afterwards;
        gives a DivergenceWarning if they are no nearer to the real images than the mean of those is.
        """
        check_count("updates", updates)
        check_positive("rate", rate)
        if self.curriculum == "fresh":
            raise ValueError("curriculum is 'fresh', so there is no fixed set of images to start from.")
        rehearse_teacher(self, learning=True)
        real = real_images(self, split, generator, method).to(self.noise)
        real = real.view(*self.labels.shape, *self.shape)
        learned = [p for p in (self.noise, *self.generator.parameters()) if p.requires_grad]
        adam = torch.optim.Adam(learned, rate)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, updates)
        for update in range(updates):
            b = update % self.batches
            error = mse_loss(self.generator(self.noise[b], self.labels[b]), real[b])
            adam.zero_grad()
            error.backward()
            adam.step()
            falling.step()
        adam.zero_grad()
        if not all(p.isfinite().all() for p in learned):
            raise DivergenceError(f"The generator's weights are no numbers after {updates} updates at a rate "
                                  f"of {rate:g} towards real images. Use a lower rate.")  # fmt: skip
        self._warn_if_far_from(real, f"{updates} updates at a rate of {rate:g}")
        return self

    @torch.no_grad()
    def _warn_if_far_from(self, real: Tensor, after: str) -> None:
        """Warn unless the images are nearer to real ones (batches, B, C, H, W) than the mean of those."""
        made = torch.stack([self.generator(*pair) for pair in zip(self.noise, self.labels)])
        error, of_mean = mse_loss(made, real), mse_loss(real.mean((0, 1)).expand_as(real), real)
        if error >= of_mean:
            warnings.warn(
                f"After {after} the generator's images are no nearer to the real ones than their mean is: "
                f"squared error {error:.3g}, of the mean {of_mean:.3g}. Use a lower rate, or more updates.",
                DivergenceWarning, 3,
            )  # fmt: skip

    @torch.no_grad()
    def resample(self, generator: torch.Generator) -> None:
        if self.curriculum == "fresh":
            self.noise.copy_(self._noise(generator))

    def _noise(self, generator: torch.Generator | None) -> Tensor:
        """The noise of the next student: fresh, if it is, and there is a generator to draw it."""
        if generator is None or self.curriculum != "fresh":
            return self.noise
        noise = torch.empty_like(self.noise, device=generator.device).normal_(generator=generator)
        return noise.to(self.noise.device)

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        b = t % self.steps % self.batches
        return self.generator(self.noise[b], self.labels[b]), self._targets(b)

    def batch_labels(self, t: int) -> Tensor:
        return self.labels[t % self.steps % self.batches]

    @torch.no_grad()
    def teaching_set(self, generator=None) -> TeachingSet:
        noise, size = self._noise(generator), self.labels.shape[1]
        images = torch.cat([self.generator(noise[b], self.labels[b]) for b in range(self.batches)])
        rows = torch.arange(self.steps)[:, None] % self.batches
        order = rows * size + torch.arange(size)
        return self._freeze(images, order)

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
                              learn_rates=self.log_rate.requires_grad, weight_decay=self.weight_decay,
                              learn_labels=self.label_logits is not None)  # fmt: skip
        pixels = pixels.to(self.noise)
        pixels.images.copy_(torch.cat([self.batch(b)[0] for b in range(batches)]))
        if pixels.label_logits is not None and self.label_logits is not None:
            pixels.label_logits.copy_(self.label_logits.flatten(0, 1))
        pixels.log_rate.copy_(self.log_rate)
        pixels.momentum_logit.copy_(self.momentum_logit)
        pixels.momentum_logit.requires_grad_(self.momentum_logit.requires_grad)
        pixels.scale = self.scale
        return pixels
