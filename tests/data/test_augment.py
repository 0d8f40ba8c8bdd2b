"""Shifts, scalings and rotations: against what they are by hand, and their draws."""

import math

import pytest
import torch
import torch.nn.functional as F

from gtnlib import Augment
from gtnlib.data.augment import moved


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, height=8, width=8, channels=2):
    return torch.randn(n, channels, height, width, generator=generator(), dtype=torch.float64)


def test_a_shift_is_by_whole_pixels_and_brings_in_the_mean():
    x = images(400, 8, 12)
    maps = Augment(crop=3, scale=0, rotation=0).draw(x, generator())
    right, down = (maps[:, :, 2] * torch.tensor([12, 8]) / 2).round().long().unbind(1)
    assert set(right.tolist()) == set(down.tolist()) == set(range(-3, 3))
    padded = F.pad(x - x.mean((0, 2, 3), keepdim=True), (3, 3, 3, 3)) + x.mean((0, 2, 3), keepdim=True)
    for one, image, i, j in zip(moved(x, maps), padded, down.tolist(), right.tolist()):
        torch.testing.assert_close(one, image[:, 3 + i : 11 + i, 3 + j : 15 + j])


def test_a_scaling_is_that_of_interpolate():
    """Twice the size, of which the middle is seen, and half of it, amid the mean."""
    x = images(2)
    twice, half = (torch.tensor([[[s, 0, 0], [0, s, 0]]] * 2, dtype=x.dtype) for s in (0.5, 2.0))
    big = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(moved(x, twice), big[:, :, 4:12, 4:12])
    small = F.interpolate(x, scale_factor=0.5, mode="bilinear")
    torch.testing.assert_close(moved(x, half)[:, :, 2:6, 2:6], small)
    mean = x.mean((0, 2, 3))[None, :, None]
    torch.testing.assert_close(moved(x, half)[:, :, 0], mean.expand(2, 2, 8))


def test_scales_and_angles_are_within_bounds_and_reach_them():
    x = images(1000, 8, 12)
    maps = Augment(crop=0, scale=0.2, rotation=0).draw(x, generator())
    factors = 1 / maps[:, [0, 1], [0, 1]]
    assert 0.8 <= factors.min() < 0.81 and 1.19 < factors.max() <= 1.2
    assert (factors[:, 0] - factors[:, 1]).abs().max() > 0.3  # height and width each on its own
    assert not maps[:, [0, 1], [1, 0]].any() and not maps[:, :, 2].any()
    maps = Augment(crop=0, scale=0, rotation=30).draw(x, generator())
    angles = torch.atan2(maps[:, 1, 0] * 8 / 12, maps[:, 0, 0]).rad2deg()
    assert -30 <= angles.min() < -29 and 29 < angles.max() <= 30
    in_pixels = maps[:, :, :2] * torch.tensor([[1, 12 / 8], [8 / 12, 1]], dtype=x.dtype)
    torch.testing.assert_close(in_pixels @ in_pixels.mT, torch.eye(2, dtype=x.dtype).expand(1000, 2, 2))


def test_a_quarter_turn_is_rot90():
    x = images(3)
    angle = torch.tensor(math.pi / 2, dtype=x.dtype)
    quarter = torch.stack([angle.cos(), -angle.sin(), 0 * angle, angle.sin(), angle.cos(), 0 * angle])
    torch.testing.assert_close(moved(x, quarter.view(1, 2, 3).expand(3, 2, 3)), x.rot90(1, (2, 3)))


def test_every_image_has_one_kind_of_its_own():
    maps = Augment().draw(images(3000), generator())
    shifted = maps[:, :, 2].any(1)
    turned = maps[:, 0, 1] != 0
    scaled = ~turned & (maps[:, [0, 1], [0, 1]] != 1).all(1)
    assert not (shifted & turned).any() and not (shifted & scaled).any()
    for kind in (turned, scaled):
        assert kind.double().mean() == pytest.approx(1 / 3, abs=0.03)


def test_a_draw_is_the_generators_alone(random_state_untouched):
    x = images()
    one, two, other = (Augment()(x, generator(s)) for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(one, moved(x, Augment().draw(x, generator())))


def test_the_images_adjoint_is_exact():
    x = images(3).requires_grad_()
    maps = Augment().draw(x, generator())
    assert torch.autograd.gradcheck(lambda x: moved(x, maps), x)


@pytest.mark.parametrize("arguments, message", [
    ({"crop": -1}, "crop is -1"), ({"crop": 1.5}, "crop must be a whole number"),
    ({"scale": 1}, "scale is 1"), ({"rotation": -3}, "rotation is -3"),
    ({"crop": 0, "scale": 0, "rotation": 0}, "all 0, so nothing would be changed"),
])  # fmt: skip
def test_bad_input_is_one_error(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Augment(**arguments)
