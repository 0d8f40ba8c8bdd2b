"""The border where own images and labels come in: converted to what the library computes with, or refused."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def as_tensor(name: str, value) -> Tensor:
    """A tensor without a graph; a numpy array is copied. TypeError for anything else."""
    if isinstance(value, np.ndarray):
        try:
            return torch.tensor(np.ascontiguousarray(value).reshape(value.shape))
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} cannot become a tensor: {error}") from None
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor or a numpy array, got {type(value).__name__}.")
    if value.is_inference():
        with torch.inference_mode(False):
            return value.clone()  # which can take part in gradients
    return value.detach() if value.requires_grad else value


def as_images(images) -> Tensor:
    """Images (N, C, H, W), at least one pixel each, all finite, as float32, or as float64 if they are.

    Raises TypeError or ValueError for anything else.
    """
    images = as_tensor("images", images)
    if not images.dtype.is_floating_point:
        raise TypeError(
            f"images must be floating point, got {images.dtype}: scale and normalise them, as in "
            "(images.float() / 255 - mean) / std."
        )
    if images.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {tuple(images.shape)}.")
    if 0 in images.shape[1:]:
        raise ValueError(f"images of shape {tuple(images.shape[1:])} have no pixels.")
    if images.dtype != torch.float64:
        images = images.float()
    check_finite("images", images)
    return images


def as_labels(labels, images: Tensor, num_classes: int | None = None) -> Tensor:
    """Class indices (N,) from 0 to num_classes − 1, one per image, as int64.

    Raises TypeError or ValueError for anything else.
    """
    labels = as_tensor("labels", labels)
    if labels.device != images.device:
        raise ValueError(f"labels are on {labels.device}, but images on {images.device}.")
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(
            f"labels must have shape ({len(images)},), one per image, got {tuple(labels.shape)}."
        )
    if labels.dtype.is_floating_point or labels.dtype.is_complex:
        raise TypeError(f"labels must be integers, got {labels.dtype}.")
    labels = labels.long()
    if len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (num_classes is not None and high >= num_classes):
            range_ = "be at least 0" if num_classes is None else f"lie in 0 … {num_classes - 1}"
            raise ValueError(f"labels must {range_}, got values from {low} to {high}.")
    return labels


def as_targets(labels, images: Tensor) -> Tensor:
    """Labels (N,) as from `as_labels`, or probabilities (N, classes) in the type of the images."""
    labels = as_tensor("labels", labels)
    if not labels.dtype.is_floating_point or not labels.numel():
        return as_labels(labels, images)
    if labels.ndim == 2 and len(labels) != len(images):
        raise ValueError(f"labels must have shape ({len(images)},), one per image, got {len(labels)} rows.")
    low, sums = labels.min(), labels.sum(-1)
    if labels.ndim != 2 or not (low >= 0 and ((sums - 1).abs() <= 1e-3).all()):
        raise ValueError(
            "labels must be classes (N,), int64, or probabilities (N, classes) that sum to 1, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}, no less than {float(low):.3g}, sums "
            f"{float(sums.min()):.3g} to {float(sums.max()):.3g}."
        )
    if labels.device != images.device:
        raise ValueError(f"labels are on {labels.device}, but images on {images.device}.")
    return labels.to(images.dtype)


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError, with the place of one, if a value is NaN or infinite."""
    if not values.numel():
        return
    low, high = values.aminmax()  # one pass without a copy; both are NaN if any value is
    if not (low.isfinite() and high.isfinite()):
        place = tuple(torch.nonzero(~values.isfinite())[0].tolist())
        raise ValueError(f"{name} hold {float(values[place])} at {place}, but must be finite.")
