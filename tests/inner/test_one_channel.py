"""The gradient of weights on images of one channel, against PyTorch's own."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from gtnlib.inner.one_channel import weight_gradient

OWN = torch.ops.aten.convolution_backward.default


def arguments(channels=1, kernel=(3, 3), padding=(1, 1), stride=(1, 1), groups=1, wanted=(False, True, True)):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(5, channels, 8, 9, generator=random, dtype=torch.float64)
    w = torch.randn(4, channels // groups, *kernel, generator=random, dtype=torch.float64)
    out = torch.nn.functional.conv2d(x, w, None, stride, padding, groups=groups)
    adjoint = torch.randn(out.shape, generator=random, dtype=torch.float64)
    return adjoint, x, w, [4], list(stride), list(padding), [1, 1], False, [0, 0], groups, list(wanted)


@pytest.mark.parametrize("given", [
    {}, {"kernel": (5, 5), "padding": (2, 2)}, {"kernel": (1, 1), "padding": (0, 0)},
    {"kernel": (3, 2), "padding": (0, 1)}, {"wanted": (False, True, False)}, {"wanted": (False, False, True)},
])  # fmt: skip
def test_it_is_pytorchs(given):
    for ours, own in zip(weight_gradient(*arguments(**given)), OWN(*arguments(**given)), strict=True):
        assert ours is own is None or torch.allclose(ours, own, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given", [
    {"channels": 3}, {"stride": (2, 2)}, {"channels": 2, "groups": 2}, {"wanted": (True, True, True)},
])  # fmt: skip
def test_it_leaves_what_it_is_not_for(given):
    assert weight_gradient(*arguments(**given)) is NotImplemented
    graph = make_fx(OWN, {OWN: weight_gradient})(*arguments(**given))
    assert OWN in {node.target for node in graph.graph.nodes}


def test_a_trace_has_it_in_place_of_pytorchs():
    graph = make_fx(OWN, {OWN: weight_gradient})(*arguments())
    targets = {node.target for node in graph.graph.nodes}
    assert OWN not in targets and torch.ops.aten.bmm.default in targets


def test_half_precision_is_left_alone():
    given = [a.bfloat16() if isinstance(a, torch.Tensor) else a for a in arguments()]
    assert weight_gradient(*given) is NotImplemented
