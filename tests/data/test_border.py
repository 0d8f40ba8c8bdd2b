"""Own images and labels: what they come as does not matter, or is refused."""

import numpy as np
import pytest
import torch

from gtnlib import MLP, Dataset, PixelTeacher, Split, TeachingSet, Unrolled, evaluate, fit

X = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


def inferred(x):
    with torch.inference_mode():
        return x.clone()


def same(y):
    return y


FORMS = {
    "numpy": (torch.Tensor.numpy, torch.Tensor.numpy),
    "numpy, columns first": (lambda x: np.asfortranarray(x.numpy()), lambda y: y.numpy()[::-1][::-1]),
    "numpy in float64, uint8": (lambda x: x.double().numpy(), lambda y: y.numpy().astype(np.uint8)),
    "numpy in float16, int16": (lambda x: x.half().numpy(), lambda y: y.numpy().astype(np.int16)),
    "float64": (torch.Tensor.double, same),
    "float16": (torch.Tensor.half, same),
    "bfloat16": (torch.Tensor.bfloat16, same),
    "int32": (same, torch.Tensor.int),
    "int8": (same, torch.Tensor.char),
    "uint8": (same, torch.Tensor.byte),
    "with a graph": (lambda x: x.clone().requires_grad_() * 1, same),
    "of inference": (inferred, inferred),
    "channels last": (lambda x: x.to(memory_format=torch.channels_last), same),
}


def trained(images, labels):
    split = Split(images, labels, 3)
    data = Dataset("own", split, split, split)
    teacher = PixelTeacher(1, 2, shape=(1, 8, 8), num_classes=3).to(data.dtype)
    loss = fit(teacher, Unrolled(real_batch_size=6), MLP, data, 2, progress=False, validate_every=2).loss
    return split, loss, evaluate(teacher, MLP, data, 2).accuracy.values


@pytest.mark.parametrize("name", FORMS)
def test_whatever_they_come_as_they_give_the_same_numbers(name, tmp_path):
    images, labels = (form(t) for form, t in zip(FORMS[name], (X, Y)))
    exact = torch.tensor(images) if isinstance(images, np.ndarray) else images.detach()
    exact = exact.to(torch.float64 if "float64" in name else torch.float32)
    split, *found = trained(images, labels)
    assert split.images.dtype == exact.dtype and split.labels.dtype == torch.int64
    assert torch.equal(split.images, exact) and torch.equal(split.labels, Y)
    assert found == list(trained(exact.clone(), Y)[1:])

    order, rate = np.arange(12, dtype=np.int32).reshape(2, 6), np.full(2, 0.1)
    given = TeachingSet(images, labels, order, rate, rate.astype(np.float16))
    given.save(tmp_path / "set.npz")
    back = TeachingSet.load(tmp_path / "set.npz")
    for t, wanted in ((back.images, exact), (back.labels, Y), (back.order, torch.arange(12).view(2, 6)),
                      (back.rate, torch.full((2,), 0.1, dtype=exact.dtype))):  # fmt: skip
        assert t.dtype == wanted.dtype and torch.equal(t, wanted)
    assert back.momentum.dtype == exact.dtype


def test_truth_values_are_labels_of_two_classes():
    assert Split(X, Y == 1, 2).labels.tolist() == (Y == 1).long().tolist()


@pytest.mark.parametrize("images, labels, message", [
    (X.numpy().astype(">f4"), Y, "images cannot become a tensor"),
    (np.full((12, 1, 8, 8), "1"), Y, "images cannot become a tensor"),
    (X.long(), Y, "images must be floating point, got torch.int64: scale and normalise them"),
    (X.numpy().astype(np.complex64), Y, "images must be floating point, got torch.complex64"),
    (X, Y.to(torch.complex64), "labels must be integers, got torch.complex64"),
    (X, Y.numpy().astype(">i8"), "labels cannot become a tensor"),
])  # fmt: skip
def test_what_cannot_be_converted_is_refused(images, labels, message):
    with pytest.raises(TypeError, match=message):
        Split(images, labels, 3)
    with pytest.raises(TypeError, match=message):
        TeachingSet(images, labels, Y[None], torch.ones(1), torch.ones(1))
