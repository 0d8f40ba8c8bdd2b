"""Upsampling and convolution in one are the two of them, to rounding, in every derivative."""

import pytest
import torch
from torch import nn

from gtnlib.support.seeds import seeded
from gtnlib.teachers.generator import Generator
from gtnlib.teachers.upsampling import upsampled_convolution, upsampled_few


@pytest.mark.parametrize("one", [upsampled_convolution, upsampled_few])
@pytest.mark.parametrize("channels, shape, bias", [((4, 1), (3, 5), True), ((2, 3), (7, 7), False),
                                                   ((1, 1), (1, 1), True)])  # fmt: skip
def test_it_is_upsampling_and_then_the_convolution(one, channels, shape, bias):
    two = seeded(
        lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(*channels, 3, padding=1, bias=bias)), 0
    )
    two, random = two.double(), torch.Generator().manual_seed(0)
    x = torch.randn(3, channels[0], *shape, generator=random, dtype=torch.float64, requires_grad=True)
    variables = [x, *two.parameters()]
    wanted, found = two(x), one(x, two[1])
    adjoint = torch.randn(wanted.shape, generator=random, dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(image, variables, adjoint) for image in (found, wanted))):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 12)])
def test_a_generator_makes_what_its_layers_say(shape):
    generator = seeded(lambda: Generator(5, shape, 3, hidden=7, channels=4), 0).double()
    noise = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(6) % 3
    code = nn.functional.one_hot(labels, 3).double()
    wanted, found = 2 * torch.tanh(generator.body(torch.cat([noise, code], 1))), generator(noise, labels)
    assert found.shape == (6, *shape)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(image.square().sum(), list(generator.parameters()))
                 for image in (found, wanted)]  # fmt: skip
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
