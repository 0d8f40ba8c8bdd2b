"""The search space: what it holds, poor networks included, and how it is sampled."""

from dataclasses import asdict

import pytest
import torch

from gtnlib import (
    Architecture, Dataset, FlatStudent, GradientMatching, PixelTeacher, RealTeacher, Split, fit,
    make_student, sample_architectures,
)  # fmt: skip
from gtnlib.inner.structure import structure
from gtnlib.judge.training import Recipe, score
from gtnlib.students.space import SPACE
from gtnlib.support.identity import plain

SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def hundred():
    return sample_architectures(100, seed=0)


def test_a_sample_is_decided_by_its_seed_and_begins_with_the_shorter_one(hundred, random_state_untouched):
    assert sample_architectures(30, seed=0) == hundred[:30]
    assert not set(sample_architectures(30, seed=1)) & set(hundred[:30])
    assert str(hundred[0]) == "4-8 7×7 none relu avg skip flatten"


def test_no_two_of_a_sample_are_the_same_network(hundred):
    with torch.device("meta"):
        kinds = [structure(architecture()) for architecture in hundred]
    assert None not in kinds and len(set(kinds)) == len(hundred) == len(set(map(str, hundred)))


def test_one_block_is_not_counted_twice_for_its_growth():
    space = {"depth": (1,), "width": (4,), "growth": (1, 2), "norm": ("none", "batch")}
    assert len(sample_architectures(2, space=space)) == 2
    with pytest.raises(ValueError, match="n is 3, but only 2 architectures"):
        sample_architectures(3, space=space)


def test_a_sample_spreads_over_every_value_of_every_field(hundred):
    for name, options in SPACE.items():
        drawn = [getattr(architecture, name) for architecture in hundred]
        assert all(drawn.count(option) >= 5 for option in options), name


def test_a_sample_keeps_to_its_limits(hundred):
    assert all(architecture.multiplications() <= 4_000_000 for architecture in hundred)
    small = sample_architectures(20, shape=(3, 8, 8), limit=50_000)
    assert all(a.multiplications((3, 8, 8)) <= 50_000 for a in small)
    assert all(a((3, 8, 8), 3)(torch.zeros(2, 3, 8, 8)).shape == (2, 3) for a in small)


def test_every_network_of_a_sample_is_a_student(hundred):
    """It computes, keeps no state, and has as many parameters as it says."""
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for architecture in hundred[:40]:
        student = FlatStudent(make_student(architecture, SHAPE, 10, 0))
        assert student.module(x).shape == (2, 10) and student.module(x).isfinite().all()
        assert student.size == architecture.parameters()


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("pooling", SPACE["pooling"])
def test_blocks_halve_the_image_as_the_sizes_say(pooling, skip):
    architecture = Architecture(depth=3, width=4, pooling=pooling, skip=skip)
    x, sizes = torch.zeros(1, 1, 28, 20), []
    for layer in architecture((1, 28, 20)):
        x = layer(x)
        if x.ndim == 4:
            sizes.append(tuple(x.shape[2:]))
    assert list(dict.fromkeys([(28, 20), *sizes])) == list(dict.fromkeys(architecture.sizes((1, 28, 20))))
    assert sizes[-1] == architecture.sizes((1, 28, 20))[-1]


def test_multiplications_by_hand():
    assert Architecture(2, 4, 2, 3).multiplications() == 28**2 * 9 * 4 + 14**2 * 9 * 4 * 8 + 49 * 8 * 10
    strided = Architecture(1, 4, 1, 5, pooling="stride", head="mean")
    assert strided.multiplications((3, 9, 9), 7) == 5 * 5 * 25 * 3 * 4 + 4 * 7


def test_a_skip_adds_the_input_to_the_block():
    module = Architecture(1, 4, skip=True, pooling="none", norm="none")((4, 8, 8), 3).double()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module[0](x), module[0].body(x) + x)


def test_poor_architectures_are_really_poor(mnist):
    """After a short training on real digits, a blind or a saturated network knows next to nothing."""
    good = Architecture(2, 16, 2, 3)
    blind = Architecture(2, 4, 1, 1, norm="none", head="mean")  # it sees only how many pixels are how bright
    saturated = Architecture(4, 4, 1, 3, norm="none", activation="sigmoid", pooling="max")
    for architecture in (good, blind, saturated):
        assert all(getattr(architecture, name) in options for name, options in SPACE.items())
    digits = Split(mnist.validation.images[:1000], mnist.validation.labels[:1000])
    data = Dataset("digits", mnist.train, digits, None)
    teacher = RealTeacher(mnist.train, steps=40, batch_size=32)
    accuracies = [score(teacher, a, data, Recipe()).accuracy["validation"][0]
                  for a in (good, blind, saturated)]  # fmt: skip
    assert accuracies[0] > 0.8 and max(accuracies[1:]) < 0.4


def test_an_architecture_is_a_student_of_fit(toy):
    teacher = PixelTeacher(1, steps=2, shape=(1, 8, 8), num_classes=3)
    history = fit(teacher, GradientMatching(real_batch_size=6), [Architecture(1, 4), Architecture(2, 4)],
                  toy, outer_steps=4, progress=False)  # fmt: skip
    assert len(history) == 4


# ---------------------------------------------------------------- as text


def test_json_gives_the_architecture_back(hundred):
    for architecture in hundred:
        assert Architecture.from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"depth": 1}', Architecture().to_json()[:-1] + ', "a": 1}',
                                  Architecture().to_json().replace('"avg"', '"average"'),
                                  Architecture().to_json().replace("16", "1.5"), "[" * 100_000])  # fmt: skip
def test_any_other_text_is_one_error(text):
    with pytest.raises(ValueError, match="not an architecture: "):
        Architecture.from_json(text)


def test_configurations_tell_architectures_apart():
    assert plain(Architecture(kernel=5)) != plain(Architecture(kernel=3)) == plain(Architecture())
    assert plain(Architecture()) == {"class": "Architecture", **asdict(Architecture())}


@pytest.mark.parametrize("change, error, message", [
    ({"depth": 0}, ValueError, "depth is 0"),
    ({"width": 2.5}, TypeError, "width must be a whole number"),
    ({"kernel": 4}, ValueError, "kernel is 4, but must be odd"),
    ({"norm": "layer"}, ValueError, "norm is 'layer'"),
    ({"activation": "swish"}, ValueError, "activation is 'swish'"),
    ({"pooling": "strid"}, ValueError, "pooling is 'strid'.*Did you mean 'stride'"),
    ({"head": "flat"}, ValueError, "head is 'flat'"),
    ({"skip": 1}, TypeError, "skip must be True or False, got 1"),
])  # fmt: skip
def test_a_bad_architecture_is_one_error(change, error, message):
    with pytest.raises(error, match=message):
        Architecture(**change)


@pytest.mark.parametrize("pooling, depth", [("avg", 5), ("max", 5), ("stride", 5)])
def test_blocks_that_halve_the_image_away_are_refused(pooling, depth):
    architecture = Architecture(depth, 4, 1, pooling=pooling)
    for call in (architecture, architecture.sizes, architecture.parameters, architecture.multiplications):
        with pytest.raises(ValueError, match="5 blocks halve a 28 × 28 image away"):
            call()


@pytest.mark.parametrize("arguments, message", [
    ({"n": 0}, "n is 0"), ({"n": 2, "limit": 0}, "limit is 0"),
    ({"n": 2, "space": {"deph": (1,)}}, "a name in space is 'deph'.*Did you mean 'depth'"),
    ({"n": 2, "limit": 1}, "only 0 architectures of at most 1 multiplications"),
])  # fmt: skip
def test_a_bad_sample_is_one_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_architectures(**arguments)
