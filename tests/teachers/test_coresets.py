"""Coresets against brute force on a few points."""

from itertools import combinations

import pytest
import torch
from torch import nn

from gtnlib import MLP, make_student
from gtnlib.data.sets import Split
from gtnlib.judge.training import Recipe, score
from gtnlib.teachers.coresets import METHODS, coreset, herding, k_centre, penultimate


def points(seed, n=11):
    x = torch.randn(2 * n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, torch.arange(2 * n) % 2


def radius(x, chosen):
    return float(torch.cdist(x, x[list(chosen)]).min(1).values.max())


@pytest.mark.parametrize("seed", range(5))
def test_k_centre_leaves_at_most_twice_the_smallest_radius(seed):
    x, y = points(seed)
    chosen = k_centre(x, y, 3)
    assert y[chosen].tolist() == [0, 1] * 3
    for c in (0, 1):
        part = x[y == c]
        of_class = [i // 2 for i in chosen.tolist() if i % 2 == c]
        best = min(radius(part, s) for s in combinations(range(len(part)), 3))
        assert len(set(of_class)) == 3 and best <= radius(part, of_class) <= 2 * best
        centre = (part - part.mean(0)).norm(dim=1).argmin()
        assert of_class[0] == centre
        far = max(range(len(part)), key=lambda i: float((part[i] - part[centre]).norm()))
        assert of_class[1] == far


@pytest.mark.parametrize("seed", range(5))
def test_herding_takes_the_best_next_image(seed):
    x, y = points(seed)
    chosen = herding(x, y, 4).tolist()
    for c in (0, 1):
        part, taken = x[y == c], []
        for _ in range(4):
            left = [i for i in range(len(part)) if i not in taken]
            taken.append(min(left, key=lambda i: float((part[[*taken, i]].mean(0) - part.mean(0)).norm())))
        assert [i // 2 for i in chosen if i % 2 == c] == taken


@pytest.mark.parametrize("method", METHODS)
def test_all_of_a_class_even_copies_can_be_chosen(method):
    x, y = torch.zeros(6, 2), torch.arange(6) % 2
    assert sorted(METHODS[method](x, y, 3).tolist()) == list(range(6))


@pytest.mark.parametrize("method", METHODS)
def test_a_coreset_is_a_teacher(method, toy):
    lessons = coreset(toy.train, method, 4, steps=5, batch_size=6)
    assert lessons.images.shape == (12, 1, 8, 8) and lessons.labels.tolist() == [0, 1, 2] * 4
    assert torch.equal(lessons.batch(2)[0], lessons.batch(0)[0]) and lessons.steps == 5
    assert score(lessons, MLP, toy, Recipe()).accuracy["validation"][0] > 0.5


def test_features_decide_what_is_chosen(toy):
    module = make_student(MLP, toy.shape, 3, 0)
    features = penultimate(module, toy.train, batch_size=50)
    torch.testing.assert_close(features, torch.nn.Sequential(*list(module)[:-1])(toy.train.images).detach())
    one, two = (coreset(toy.train, "herding", 4, 1, 12, features=f) for f in (None, features))
    assert not torch.equal(one.images, two.images)
    assert torch.equal(
        one.images, toy.train.images[herding(toy.train.images.flatten(1), toy.train.labels, 4)]
    )


@pytest.mark.parametrize("call, message", [
    (lambda s: coreset(s, "k_center", 1, 1, 1), "method is 'k_center'.*Did you mean 'k_centre'"),
    (lambda s: coreset(s, "herding", 0, 1, 1), "per_class is 0"),
    (lambda s: coreset(s, "herding", 41, 1, 1), "per_class is 41, but class 0 has 40 images"),
    (lambda s: coreset(s, "herding", 1, 0, 1), "steps is 0"),
    (lambda s: coreset(s, "herding", 1, 1, 1, rate=0), "rate is 0"),
    (lambda s: herding(s.images, s.labels, 1), r"features must be \(N, D\)"),
    (lambda s: herding(s.images[:0].flatten(1), s.labels[:0], 1), "with N at least 1"),
    (lambda s: herding(s.images.flatten(1), s.labels, 1, classes=2), "labels must lie in 0 … 1"),
    (lambda s: herding(s.images.flatten(1), s.labels - 1, 1), "labels must be at least 0"),
    (lambda s: penultimate(torch.nn.Flatten(), s), "module has no linear layer"),
])  # fmt: skip
def test_bad_input_is_one_error(call, message, toy):
    with pytest.raises(ValueError, match=message):
        call(toy.train)


def test_features_hang_on_no_chance_and_leave_the_network_as_it_was(toy):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 3))
    network[2].eval()
    before = [t.clone() for t in network.state_dict().values()]
    one, two = penultimate(network, toy.train), penultimate(network, toy.train, batch_size=7)
    torch.testing.assert_close(one, two)
    assert all(map(torch.equal, before, network.state_dict().values()))
    assert [layer.training for layer in network] == [True, True, False, True]


def test_a_class_without_images_is_refused():
    with pytest.raises(ValueError, match="per_class is 1, but class 1 has 0 images"):
        herding(torch.randn(4, 2), torch.tensor([0, 0, 2, 2]), 1)
    split = Split(torch.randn(4, 1, 2, 2), torch.tensor([0, 0, 1, 1]), num_classes=3)
    with pytest.raises(ValueError, match="per_class is 1, but class 2 has 0 images"):
        coreset(split, "herding", 1, steps=1, batch_size=3)  # of the last class, too, which no label names
