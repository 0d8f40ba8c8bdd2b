"""What a convolution's weights learn from images of one channel, as a matrix product.

That is a student's first layer. On a CPU PyTorch's own function takes nearly as long for it as for a second
layer of eight times the operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def weight_gradient(adjoint: Tensor, x: Tensor, w: Tensor, biases: Sequence[int] | None,
                    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], transposed: bool,
                    output_padding: Sequence[int], groups: int, wanted: Sequence[bool]):  # fmt: skip
    """`aten.convolution_backward` of images x (N, 1, H, W) and weights w (C, 1, K, L), whose adjoint is
    (N, C, H', W'), for `make_fx` to trace in its place: None, the gradients of w and of the bias, if wanted.

    NotImplemented, so that `make_fx` leaves it alone, on a GPU, in half precision, for other channels,
    strides and groups, and where the gradient of x is wanted.
    """
    simple = x.ndim == 4 and not transposed and groups == 1 and {1} == {*stride, *dilation}
    if not simple or x.is_cuda or x.itemsize < 4 or x.shape[1] != 1 or wanted[0]:
        return NotImplemented
    height, width = adjoint.shape[2:]
    above, beside = padding
    padded = F.pad(x[:, 0], (beside, beside, above, above))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(w.shape[2]) for j in range(w.shape[3])]
    patches, rows = torch.stack(shifted, 1).flatten(2), adjoint.flatten(2)
    of_weights = torch.bmm(rows, patches.transpose(1, 2)).sum(0).view(w.shape) if wanted[1] else None
    return None, of_weights, adjoint.sum((0, 2, 3)) if wanted[2] else None
