"""Training by an optimiser of torch: the teacher's own steps, real data, and what is measured."""

from functools import partial

import pytest
import torch

from gtnlib import MLP, Dataset, PixelTeacher, RealTeacher, Split, evaluate, make_student
from gtnlib.judge.training import Recipe, score, train
from gtnlib.teachers.real import Stream

STUDENT = partial(MLP, widths=(8,))


def pixels(**keywords):
    return PixelTeacher(2, steps=6, shape=(1, 8, 8), num_classes=3, weight_decay=0.01, **keywords)


def parameters(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("kind", ["pixels", "real"])
@pytest.mark.parametrize("steps", [None, 3, 10])
def test_sgd_by_the_teachers_rates_is_what_evaluate_does(kind, steps, toy, random_state_untouched):
    teacher = pixels() if kind == "pixels" else RealTeacher(toy.train, 6, 9, weight_decay=0.02)
    if kind == "pixels":
        with torch.no_grad():  # rates and momenta that differ from step to step
            teacher.log_rate += torch.linspace(-1, 1, 6)
            teacher.momentum_logit += torch.linspace(1, -1, 6)
    found = score(teacher, [STUDENT, MLP], toy, Recipe(steps=steps), seeds=4, splits=("test", "validation"))
    for split in ("test", "validation"):
        wanted = evaluate(teacher, [STUDENT, MLP], toy, seeds=4, steps=steps, split=split)
        assert found.accuracy[split] == wanted.accuracy.values
    assert found.steps == (steps or 6) and len(found.seconds) == 4 and min(found.seconds) > 0


def test_adam_and_sgd_with_a_cosine_are_torchs(toy):
    """Against a loop written out, with the scheduler of torch."""
    lessons = RealTeacher(toy.train, 5, 9).teaching_set(torch.Generator().manual_seed(0))
    for training, build in [
        (Recipe("adam", 0.01, weight_decay=0.1, cosine=True),
         lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
        (Recipe("sgd", 0.1, momentum=0.5, cosine=True), lambda p: torch.optim.SGD(p, 0.1, 0.5)),
    ]:  # fmt: skip
        one, two = (make_student(STUDENT, toy.shape, 3, 0) for _ in range(2))
        assert train(one, lessons, training) == 5
        optimizer = build(two.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
        for t in range(5):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(two(lessons.batch(t)[0]), lessons.batch(t)[1]).backward()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(parameters(one), parameters(two))


def test_a_stream_shows_every_image_once_per_pass_in_an_order_of_its_own(toy):
    images = toy.train.images[:, 0, 0, 0].sort().values
    stream = Stream(toy.train, 20)
    assert stream.steps == 6
    passes = [torch.cat([stream.batch(6 * k + t)[0][:, 0, 0, 0] for t in range(6)]) for k in range(2)]
    for shown in passes:
        assert torch.equal(shown.sort().values, images)
    assert not torch.equal(*passes)
    assert torch.equal(stream.batch(2)[0][:, 0, 0, 0], passes[0][40:60])  # going back is free
    for x, y in map(stream.batch, range(6)):
        where = [(toy.train.images == image).flatten(1).all(1).nonzero().item() for image in x]
        assert torch.equal(toy.train.labels[where], y)


def test_a_streams_order_is_decided_by_the_draw(toy):
    stream = Stream(toy.train, 20)
    one, two, other = (stream.teaching_set(torch.Generator().manual_seed(s)).batch(3)[0] for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_full_training_learns_and_short_training_less(toy):
    stream = Stream(toy.train, 20)
    short, full = (score(stream, STUDENT, toy, Recipe("adam", 0.003, steps), 3).accuracy["validation"]
                   for steps in (2, 60))  # fmt: skip
    assert sum(full) / 3 > 0.8 and sum(full) > sum(short) + 0.3


def test_only_the_asked_splits_are_measured(toy):
    blind = Dataset("blind", toy.train, toy.validation, None)
    assert score(pixels(), STUDENT, blind, Recipe()).accuracy.keys() == {"validation"}


def test_a_network_that_diverges_scores_as_one_that_knows_nothing(toy):
    found = score(Stream(toy.train, 20), STUDENT, toy, Recipe("sgd", 1e20, steps=8))
    assert found.accuracy["validation"][0] == pytest.approx(1 / 3, abs=0.05)
    assert found.loss == {"validation": (1e6,)}


@pytest.mark.parametrize("arguments, message", [
    ({"optimizer": "adamw"}, "optimizer is 'adamw'.*Did you mean 'adam'"),
    ({"optimizer": "adam"}, "rate is None, but only SGD"),
    ({"cosine": True}, "rate is None, but only SGD"),
    ({"rate": 0}, "rate is 0, but must be positive"),
    ({"rate": -1}, "rate is -1"),
    ({"steps": 0}, "steps is 0"),
    ({"rate": 0.1, "momentum": 1}, "momentum is 1"),
    ({"rate": 0.1, "weight_decay": -1}, "weight_decay is -1"),
])  # fmt: skip
def test_a_bad_training_is_one_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


@pytest.mark.parametrize("call, message", [
    (lambda toy: Stream(toy.train, 0), "batch_size is 0"),
    (lambda toy: Stream(toy.train, 121), "batch_size is 121, but there are only 120 images"),
    (lambda toy: score(Stream(toy.train, 20), MLP, toy, Recipe()), "real data prescribes none"),
    (lambda toy: score(pixels(), MLP, toy, Recipe(), 0), "seeds is 0"),
    (lambda toy: score(pixels(), MLP, toy, Recipe(), []), "seeds is empty"),
    (lambda toy: score(pixels(), MLP, toy, Recipe(), splits=["valid"]), "splits is 'valid'"),
    (lambda toy: score(PixelTeacher(), MLP, toy, Recipe()), "the teacher's images are"),
    (lambda toy: score(pixels(), MLP, Dataset("b", *[Split(toy.test.images, toy.test.labels * 0, 2)] * 3),
                       Recipe()), "the teacher's labels go up to 2"),
])  # fmt: skip
def test_bad_input_is_one_error(call, message, toy):
    with pytest.raises(ValueError, match=message):
        call(toy)
