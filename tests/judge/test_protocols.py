"""The protocols: pinned to plain torch code written apart, and what they refuse."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from gtnlib import (
    LESSON, LONG, LONG_AUGMENTED, MLP, Augment, ConvNet, DivergenceWarning, GeneratorTeacher, PixelTeacher,
    Protocol, RealTeacher, evaluate, make_student,
)  # fmt: skip
from gtnlib.support.seeds import derive_seed
from gtnlib.teachers.coresets import coreset

STUDENT = partial(MLP, widths=(8,))
SHAPES = {"shape": (1, 8, 8), "num_classes": 3}
SHORT = Protocol(epochs=5, rate=0.05, batch_size=5)


def by_hand(images, labels, module, seed, split, augment=None):
    """SHORT, as one would write it without gtnlib: accuracies after every epoch."""
    generator = torch.Generator().manual_seed(derive_seed("protocol", seed))
    velocity = [torch.zeros_like(p) for p in module.parameters()]
    curve = []
    for epoch in range(5):
        if epoch == 3:  # past half of the epochs
            velocity = [torch.zeros_like(v) for v in velocity]
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images), 5):
            index = order[start : start + 5]
            x = images[index] if augment is None else augment(images[index], generator)
            loss = -module(x).log_softmax(1).gather(1, labels[index, None]).mean()
            gradients = torch.autograd.grad(loss, list(module.parameters()))
            with torch.no_grad():
                for p, v, g in zip(module.parameters(), velocity, gradients):
                    v.mul_(0.9).add_(g + 5e-4 * p)
                    p.sub_((0.05 if epoch < 3 else 0.005) * v)
        with torch.no_grad():
            curve.append(float((module(split.images).argmax(1) == split.labels).float().mean()))
    return curve


@pytest.mark.parametrize(
    "augment", [None, Augment(crop=2, scale=0.3, rotation=20)], ids=["plain", "augmented"]
)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_training_by_epochs_is_the_loop_written_out(augment, split, toy):
    lessons = RealTeacher(toy.train, 4, 6).teaching_set(torch.Generator().manual_seed(0))  # 24 images
    protocol = replace(SHORT, augment=augment)
    found = evaluate(lessons, STUDENT, toy, seeds=3, split=split, every=5, protocol=protocol, progress=False)
    assert found.steps == (0, 5, 10, 15, 20, 25) and found.diverged == 0
    for seed in range(3):
        module = make_student(STUDENT, toy.shape, 3, derive_seed("evaluate", seed))
        wanted = by_hand(lessons.images, lessons.labels, module, seed, getattr(toy, split), augment)
        assert found.curves[seed, 1:].tolist() == pytest.approx(wanted, abs=1e-6)
    assert found.curves.unique().numel() > 6  # the numbers compared are not all one


def test_the_long_protocol_is_that_of_the_literature():
    assert LONG == Protocol(300, 0.01, 0.1, 0.9, 5e-4, 256, None, False)
    assert LONG_AUGMENTED == Protocol(1000, 0.01, 0.1, 0.9, 5e-4, 256, Augment(4, 0.2, 45))
    assert LONG.steps(100) == 300 and LONG.steps(500) == 600


TEACHERS = {
    "pixels": lambda toy: PixelTeacher(2, steps=6, **SHAPES),
    "generated": lambda toy: GeneratorTeacher(3, 6, noise_size=4, hidden=8, channels=4, **SHAPES),
    "fresh": lambda toy: GeneratorTeacher(3, 6, curriculum="fresh", hidden=8, channels=4, **SHAPES),
    "real": lambda toy: RealTeacher(toy.train, 5, 9),
    "set": lambda toy: PixelTeacher(2, steps=6, **SHAPES).teaching_set(),
    "herding": lambda toy: coreset(toy.train, "herding", 3, 5, 9),
}


@pytest.mark.parametrize("make_teacher", TEACHERS.values(), ids=TEACHERS.keys())
def test_every_teacher_is_judged_and_judged_alike_again(make_teacher, toy, random_state_untouched):
    protocol = Protocol(epochs=3, augment=Augment(crop=1))
    one, two = (evaluate(make_teacher(toy), [STUDENT, ConvNet], toy, 3, every=1, protocol=protocol,
                         progress=False) for _ in range(2))  # fmt: skip
    assert torch.equal(one.curves, two.curves) and one.curves.shape[1] == len(one.steps)
    alone = evaluate(make_teacher(toy), [STUDENT, ConvNet], toy, [2], protocol=protocol, progress=False)
    assert alone.accuracy.values == (one.accuracy.values[2],)


def test_the_lesson_is_the_default(toy):
    teacher = PixelTeacher(2, steps=6, **SHAPES)
    one, two = (evaluate(teacher, STUDENT, toy, 3, **named).accuracy for named in ({}, {"protocol": LESSON}))
    assert one == two


def test_learned_labels_are_used_or_made_hard(toy):
    lessons = PixelTeacher(2, steps=6, **SHAPES).teaching_set()
    soft = replace(lessons, labels=0.6 * F.one_hot(lessons.labels, 3) + 0.4 / 3)
    cases = (lessons, SHORT), (soft, replace(SHORT, hard=True)), (soft, SHORT)
    one, two, other = (evaluate(each, STUDENT, toy, 2, every=1, protocol=protocol, progress=False).curves
                       for each, protocol in cases)  # fmt: skip
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize("protocol", [LESSON, Protocol(epochs=4, rate=1e20)], ids=["lesson", "epochs"])
def test_students_that_diverge_are_counted_and_said(protocol, toy):
    teacher = RealTeacher(toy.train, 8, 9, rate=1e20)
    with pytest.warns(DivergenceWarning, match="3 of 3 students diverged"):
        report = evaluate(teacher, STUDENT, toy, 3, protocol=protocol, progress=False)
    assert report.diverged == 3
    assert ", median " in str(report) and str(report).endswith("3 of 3 students diverged")
    assert report.accuracy.values == pytest.approx([1 / 3] * 3, abs=0.05)


def test_long_training_on_real_images_learns(mnist):
    teacher = RealTeacher(mnist.train, 1, 100)
    few, many = (evaluate(teacher, partial(MLP, widths=(32,)), mnist, 1, split="validation", progress=False,
                          protocol=Protocol(epochs=n, rate=0.05)).accuracy.mean for n in (1, 30))  # fmt: skip
    assert few < 0.6 < many


def test_progress_is_shown_where_training_is_by_epochs(toy, capsys):
    teacher = PixelTeacher(2, steps=6, **SHAPES)
    for protocol, progress, shown in [(LESSON, None, False), (LESSON, True, True), (SHORT, None, True),
                                      (SHORT, False, False)]:  # fmt: skip
        evaluate(teacher, STUDENT, toy, 2, protocol=protocol, progress=progress)
        assert ("students" in capsys.readouterr().err) == shown


@pytest.mark.parametrize("arguments, message", [
    ({"rate": 0.1}, "epochs is None, so the teacher decides on rate"),
    ({"augment": Augment()}, "epochs is None, so the teacher decides on augment"),
    ({"epochs": 0}, "epochs is 0"),
    ({"epochs": 1, "rate": 0}, "rate is 0, but must be positive"),
    ({"epochs": 1, "drop": -1}, "drop is -1"),
    ({"epochs": 1, "momentum": 1}, "momentum is 1"),
    ({"epochs": 1, "weight_decay": -1}, "weight_decay is -1"),
    ({"epochs": 1, "batch_size": 0}, "batch_size is 0"),
    ({"epochs": 1, "augment": 0.2}, "augment must be a Augment"),
])  # fmt: skip
def test_a_bad_protocol_is_one_error(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Protocol(**arguments)


def test_what_does_not_go_together_is_one_error(toy):
    teacher = PixelTeacher(2, steps=6, **SHAPES)
    with pytest.raises(ValueError, match="steps is 5, but the protocol has epochs"):
        evaluate(teacher, STUDENT, toy, 1, steps=5, protocol=SHORT)
    with pytest.raises(TypeError, match="protocol must be a Protocol, got str"):
        evaluate(teacher, STUDENT, toy, 1, protocol="long")
