"""Teachers: the batches they make, the rates they hold, and the file they leave."""

import math
import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gtnlib import (
    MLP, DataError, DivergenceError, DivergenceWarning, FlatStudent, GeneratorTeacher, PixelTeacher,
    RealTeacher, StudentRun, TeachingSet, evaluate, make_student, train_student,
)  # fmt: skip
from gtnlib.judge.training import Recipe, score
from gtnlib.teachers.coresets import coreset
from gtnlib.teachers.files import load_teacher, save_teacher
from gtnlib.teachers.generator import Generator

SHAPE, CLASSES = (1, 8, 8), 3


def pixels(**keywords):
    return PixelTeacher(**{"images_per_class": 2, "steps": 5, "shape": SHAPE,
                           "num_classes": CLASSES, **keywords})  # fmt: skip


def generated(**keywords):
    return GeneratorTeacher(**{"steps": 5, "batch_size": 4, "noise_size": 6, "shape": SHAPE,
                               "num_classes": CLASSES, **keywords})  # fmt: skip


# ---------------------------------------------------------------- batches


def test_pixel_teacher_uses_all_images_at_every_step():
    teacher = pixels()
    assert teacher.images.shape == (6, *SHAPE) and teacher.batches == 1
    for t in (0, 3):
        images, labels = teacher.batch(t)
        assert torch.equal(images, teacher.images) and labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_pixel_teacher_goes_around_in_batches():
    teacher = pixels(batch_size=4)
    assert teacher.order.tolist() == [
        [0, 1, 2, 3],
        [4, 5, 0, 1],
        [2, 3, 4, 5],
        [0, 1, 2, 3],
        [4, 5, 0, 1],
    ]
    images, labels = teacher.batch(1)
    assert torch.equal(images, teacher.images[[4, 5, 0, 1]]) and labels.tolist() == [1, 2, 0, 1]


@pytest.mark.parametrize("steps, batch_size", [(5, 6), (5, 4), (2, 4), (9, 5), (9, 2), (1, 1)])
def test_batches_counts_the_distinct_batches(steps, batch_size):
    teacher = pixels(steps=steps, batch_size=batch_size)
    rows = [tuple(row) for row in teacher.order.tolist()]
    assert teacher.batches == len(set(rows))
    assert rows == [rows[t % teacher.batches] for t in range(steps)]


@pytest.mark.parametrize("make_teacher", [pixels, generated])
def test_steps_repeat_after_the_last(make_teacher):
    teacher = make_teacher()
    for before, after in zip(teacher.batch(2), teacher.batch(2 + 3 * teacher.steps)):
        assert torch.equal(before, after)
    assert teacher.rates(2) == teacher.rates(2 + 3 * teacher.steps)


def test_generator_teacher_makes_labelled_images_in_range():
    teacher = generated()
    images, labels = teacher.batch(1)
    assert images.shape == (4, *SHAPE) and float(images.detach().abs().max()) < 2
    assert labels.tolist() == [1, 2, 0, 1]  # labels run through the classes, on from batch 0


def test_generated_images_depend_on_label_and_noise():
    network = Generator(6, SHAPE, CLASSES, hidden=8, channels=4)
    noise, labels = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    images = network(noise, labels)
    assert not torch.allclose(images, network(noise, labels.flip(0).roll(1)))
    assert not torch.allclose(images, network(noise.flip(0), labels))


def test_batches_of_the_curriculum_repeat():
    teacher = generated(batches=2)
    assert teacher.noise.shape == (2, 4, 6) and teacher.batches == 2
    assert torch.equal(teacher.batch(0)[0], teacher.batch(2)[0])
    assert not torch.equal(teacher.batch(0)[0], teacher.batch(1)[0])


def test_a_network_of_ones_own_can_generate():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 64)

        def forward(self, noise, labels):
            return self.linear(noise).view(-1, *SHAPE)

    teacher = generated(generator=Own())
    assert teacher.batch(0)[0].shape == (4, *SHAPE)
    assert any(p is teacher.generator.linear.weight for p in teacher.parameters())


@pytest.mark.parametrize("make_teacher", [pixels, generated])
def test_seed_decides_the_teacher_and_leaves_random_state_alone(make_teacher, random_state_untouched):
    one, two, other = (make_teacher(seed=s).batch(0)[0] for s in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize("curriculum", ["learned", "fixed", "fresh"])
def test_curriculum_says_what_learns_and_what_is_drawn_anew(curriculum):
    teacher = generated(curriculum=curriculum)
    before = teacher.noise.detach().clone()
    assert teacher.noise.requires_grad == (curriculum == "learned")
    teacher.resample(torch.Generator().manual_seed(1))
    assert torch.equal(teacher.noise, before) == (curriculum != "fresh")
    names = {n for n, p in teacher.named_parameters() if p.requires_grad}
    assert ("noise" in names) == (curriculum == "learned") and "log_rate" in names


def test_fresh_noise_repeats_with_its_generator():
    teacher = generated(curriculum="fresh")
    sets = [teacher.teaching_set(torch.Generator().manual_seed(s)).images for s in (0, 0, 1)]
    assert torch.equal(sets[0], sets[1]) and not torch.equal(sets[0], sets[2])


@pytest.mark.parametrize("learn_rates, momentum", [(True, 0.5), (False, 0.5), (True, 0.0)])
def test_a_generator_as_pixels_gives_the_same_lesson(learn_rates, momentum):
    one = GeneratorTeacher(5, 6, batches=2, shape=(1, 8, 8), num_classes=3, learn_rates=learn_rates,
                           momentum=momentum, weight_decay=0.1)  # fmt: skip
    with torch.no_grad():
        one.log_rate.add_(torch.linspace(-1, 1, 5))
    pixels = one.as_pixels()
    assert type(pixels) is PixelTeacher and pixels.images.requires_grad
    assert pixels.batches == 2 and pixels.weight_decay == 0.1
    for name in ("log_rate", "momentum_logit"):
        assert getattr(pixels, name).requires_grad == getattr(one, name).requires_grad
    for t in range(7):
        torch.testing.assert_close(pixels.batch(t), one.batch(t), rtol=0, atol=0)
        torch.testing.assert_close(pixels.rates(t), one.rates(t), rtol=0, atol=0)


@pytest.mark.parametrize("arguments, message", [
    ({"curriculum": "fresh"}, "curriculum is 'fresh'"),
    ({"batch_size": 4}, "5 × 4 images are not as many for each of 3"),
])  # fmt: skip
def test_what_is_no_fixed_balanced_set_cannot_become_pixels(arguments, message):
    teacher = GeneratorTeacher(5, **{"batch_size": 6, "shape": (1, 8, 8), "num_classes": 3, **arguments})
    with pytest.raises(ValueError, match=message):
        teacher.as_pixels()


def test_start_from_copies_real_images_of_the_right_classes(toy):
    teacher = pixels().start_from(toy.train, torch.Generator().manual_seed(0))
    for image, label in zip(teacher.images.detach(), teacher.labels):
        same = (toy.train.images == image).flatten(1).all(1)
        assert toy.train.labels[same].tolist() == [int(label)]
    assert teacher.images.requires_grad


# ---------------------------------------------------------------- rates


@pytest.mark.parametrize("make_teacher", [pixels, generated])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rates_start_where_asked(make_teacher, momentum):
    teacher = make_teacher(rate=0.02, momentum=momentum)
    for t in range(teacher.steps):
        assert float(teacher.rates(t)[0].detach()) == pytest.approx(0.02)
        assert float(teacher.rates(t)[1].detach()) == pytest.approx(momentum)
    assert teacher.log_rate.requires_grad
    assert teacher.momentum_logit.requires_grad == (momentum > 0)


def test_rates_are_valid_whatever_their_parameters():
    teacher = pixels()
    teacher.log_rate.data.normal_(0, 10)
    teacher.momentum_logit.data.normal_(0, 5)
    exported = teacher.teaching_set()
    assert (exported.rate > 0).all() and ((exported.momentum > 0) & (exported.momentum < 1)).all()


@pytest.mark.parametrize("learn_rates", [True, False])
def test_parameter_groups_hold_every_learned_parameter_once(learn_rates):
    teacher = generated(learn_rates=learn_rates, curriculum="fixed")
    groups = teacher.parameter_groups(0.1, 0.2)
    assert [group["lr"] for group in groups] == ([0.1, 0.2] if learn_rates else [0.1])
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in teacher.parameters() if p.requires_grad)


# ---------------------------------------------------------------- schedules


@pytest.mark.parametrize("make_teacher", [pixels, generated])
@pytest.mark.parametrize("arguments, rates", [
    ({"rate": 0.1, "final_rate": 0.02}, [0.1, 0.08, 0.06, 0.04, 0.02]),
    ({"rate": 0.02, "final_rate": 0.1, "schedule": "linear"}, [0.02, 0.04, 0.06, 0.08, 0.1]),
    ({"rate": 0.1, "final_rate": 0.02, "schedule": "cosine"},
     [0.02 + 0.04 * (1 + math.cos(math.pi * t / 4)) for t in range(5)]),
    ({"rate": (0.5, 0.4, 1, 0.2, 0.1)}, [0.5, 0.4, 1, 0.2, 0.1]),
])  # fmt: skip
def test_rates_follow_a_list_a_line_or_a_cosine(make_teacher, arguments, rates, toy, tmp_path):
    teacher = make_teacher(**arguments)
    lessons = [teacher.teaching_set(), RealTeacher(toy.train, 5, 4, **arguments).teaching_set(),
               coreset(toy.train, "herding", 2, 5, 4, **arguments)]  # fmt: skip
    if make_teacher is pixels:
        save_teacher(teacher, tmp_path / "teacher.safetensors")
        lessons.append(load_teacher(tmp_path / "teacher.safetensors").teaching_set())
    for one in lessons:
        assert one.rate.dtype == torch.float32 and one.rate.tolist() == pytest.approx(rates, rel=1e-6)


def test_one_step_has_the_first_rate():
    assert pixels(steps=1, rate=0.1, final_rate=0.5).teaching_set().rate.tolist() == pytest.approx([0.1])


@pytest.mark.parametrize("arguments, error, message", [
    ({"rate": [0.1, 0.2]}, ValueError, "rate lists 2 numbers, but there are 5 steps"),
    ({"rate": [0.1] * 5, "final_rate": 0.1}, ValueError, "final_rate is 0.1, but rate lists that of every"),
    ({"rate": [0.1] * 4 + [0]}, ValueError, "every one of rate is 0, but must be positive"),
    ({"rate": [0.1] * 4 + ["a"]}, TypeError, "every one of rate must be a number, got 'a'"),
    ({"rate": torch.ones(5)}, TypeError, "rate must be a number"),
    ({"final_rate": 0}, ValueError, "final_rate is 0, but must be positive"),
    ({"final_rate": "0.1"}, TypeError, "final_rate must be a number"),
    ({"schedule": "cosin"}, ValueError, "schedule is 'cosin'.*Did you mean 'cosine'"),
])  # fmt: skip
def test_bad_schedules_are_refused(arguments, error, message, toy):
    for build in (pixels, generated, partial(RealTeacher, toy.train, 5, 4),
                  partial(coreset, toy.train, "herding", 2, 5, 4)):  # fmt: skip
        with pytest.raises(error, match=message):
            build(**arguments)


# ---------------------------------------------------------------- starts


@pytest.mark.parametrize("method", ["herding", "k_centre"])
def test_start_from_a_coreset_holds_its_images(method, toy):
    teacher = pixels().start_from(toy.train, method=method)
    chosen = coreset(toy.train, method, 2, 1, 1)
    assert torch.equal(teacher.images, chosen.images) and torch.equal(teacher.labels, chosen.labels)


def test_start_from_refuses_what_it_cannot_do(toy):
    with pytest.raises(ValueError, match="method is 'herd'.*Did you mean 'herding'"):
        pixels().start_from(toy.train, method="herd")
    with pytest.raises(ValueError, match="the teacher has 4 classes, the data 3"):
        pixels(num_classes=4).start_from(toy.train)
    with pytest.raises(ValueError, match="per_class is 41, but class 0 has 40 images"):
        pixels(images_per_class=41).start_from(toy.train, method="k_centre")


@pytest.mark.parametrize("curriculum", ["learned", "fixed"])
@pytest.mark.parametrize("method", ["random", "herding"])
def test_a_generator_starts_with_images_like_real_ones_of_the_right_classes(method, curriculum, toy):
    teacher = generated(steps=4, batch_size=6, batches=2, curriculum=curriculum).double()
    noise = teacher.noise.clone()
    started = teacher.start_from(toy.train, torch.Generator().manual_seed(0), method, updates=300, rate=0.01)
    assert started is teacher and torch.equal(teacher.noise, noise) == (curriculum == "fixed")
    same = pixels(images_per_class=4).start_from(toy.train, torch.Generator().manual_seed(0), method)
    made = torch.cat([teacher.batch(b)[0] for b in range(2)]).detach()
    target = same.images.detach().double()
    assert (made - target).square().mean() < 0.15 * target.var()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_generators_start_repeats(toy):
    def weights(seed):
        teacher = generated(batch_size=6).start_from(
            toy.train, torch.Generator().manual_seed(seed), updates=40
        )
        return torch.cat([p.detach().flatten() for p in teacher.parameters()])

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))


class Pointwise(nn.Module):
    """One value an image, which would broadcast to any."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 1)

    def forward(self, noise, labels):
        return self.layer(noise)[..., None, None]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_generator_starts_where_autograd_is_off(mode, toy):
    teacher = generated(batch_size=6)
    before = teacher.noise.clone()
    with mode():
        teacher.start_from(toy.train, torch.Generator().manual_seed(0), updates=40)
    assert not torch.equal(before, teacher.noise)


@pytest.mark.parametrize("start", [{"rate": 30}, {"updates": 1}])
def test_a_generator_that_has_not_come_near_real_images_says_so(start, toy):
    with pytest.warns(
        DivergenceWarning, match="no nearer to the real ones than their mean is: .*Use a lower rate"
    ):
        generated(batch_size=6).start_from(toy.train, torch.Generator().manual_seed(0), **start)


@pytest.mark.parametrize("arguments, start, error, message", [
    ({"curriculum": "fresh"}, {}, ValueError, "curriculum is 'fresh', so there is no fixed set"),
    ({"generator": Pointwise()}, {}, ValueError, r"the generator makes \(4, 1, 1, 1\) of 4 labels"),
    ({}, {"updates": 0}, ValueError, "updates is 0, but must be at least 1"),
    ({}, {"rate": 0}, ValueError, "rate is 0, but must be positive"),
    ({}, {"rate": "1"}, TypeError, "rate must be a number"),
    ({}, {"rate": 1e30}, DivergenceError, "no numbers after 400 updates .* Use a lower rate"),
    ({}, {"method": "herding"}, ValueError, '20 images are not as many .* use method="random"'),
    ({"num_classes": 4}, {}, ValueError, "the teacher has 4 classes, the data 3"),
    ({"shape": (1, 12, 12)}, {}, ValueError, r"images are \(1, 12, 12\), the data's \(1, 8, 8\)"),
])  # fmt: skip
def test_a_generator_refuses_to_start_from_what_it_cannot(arguments, start, error, message, toy):
    with pytest.raises(error, match=message):
        generated(**arguments).start_from(toy.train, torch.Generator(), **start)


# ---------------------------------------------------------------- teaching sets

TEACHERS = {
    "pixels": pixels,
    "pixels in batches": lambda: pixels(batch_size=4, momentum=0.0),
    "generated": lambda: generated(weight_decay=0.01),
    "generated in fewer batches": lambda: generated(batches=2),
}
every_kind = pytest.mark.parametrize("make_teacher", TEACHERS.values(), ids=TEACHERS.keys())


@every_kind
def test_a_student_learns_the_same_from_the_set_as_from_the_teacher(make_teacher):
    teacher = make_teacher()
    student = FlatStudent(make_student(MLP, SHAPE, CLASSES, 0))
    taught = train_student(teacher, StudentRun.start(student), 7)
    read = train_student(teacher.teaching_set(), StudentRun.start(student), 7)
    torch.testing.assert_close(taught.w, read.w, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(taught.m, read.m, rtol=1e-6, atol=1e-6)


def equal(a, b):
    names = ("images", "labels", "order", "rate", "momentum")
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in names) and (
        a.weight_decay == b.weight_decay
    )


@every_kind
def test_export_and_load_give_back_the_same(make_teacher, tmp_path):
    teacher = make_teacher()
    teacher.export(tmp_path / "set.npz")
    assert equal(TeachingSet.load(tmp_path / "set.npz"), teacher.teaching_set())
    assert os.listdir(tmp_path) == ["set.npz"]


def test_export_keeps_the_precision(tmp_path):
    teacher = pixels().double()
    teacher.export(tmp_path / "set.npz")
    assert equal(TeachingSet.load(tmp_path / "set.npz"), teacher.teaching_set())
    assert teacher.teaching_set().images.dtype == teacher.teaching_set().rate.dtype == torch.float64


def train_from_file(path, module, steps):
    """What a reader without gtnlib would write."""
    with np.load(path, allow_pickle=False) as file:
        images, labels, order = (torch.from_numpy(file[k]) for k in ("images", "labels", "order"))
        rate, momentum, weight_decay = file["rate"], file["momentum"], float(file["weight_decay"])
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9, weight_decay=weight_decay)
    for t in range(steps):
        t = t % len(order)
        optimizer.param_groups[0].update(lr=float(rate[t]), momentum=float(momentum[t]))
        optimizer.zero_grad()
        F.cross_entropy(module(images[order[t]]), labels[order[t]]).backward()
        optimizer.step()
    return module


@every_kind
def test_exported_file_needs_no_gtnlib(make_teacher, tmp_path):
    teacher = make_teacher()
    teacher.log_rate.data += torch.linspace(0, 1, teacher.steps)
    teacher.export(tmp_path / "set.npz")
    module = make_student(MLP, SHAPE, CLASSES, 0)
    ours = train_student(teacher, StudentRun.start(FlatStudent(module)), 7).w
    train_from_file(tmp_path / "set.npz", module, 7)
    theirs = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("images", [None, 7, 30])
def test_real_teacher_draws_real_images_with_their_labels(toy, images):
    teacher = RealTeacher(toy.train, steps=4, batch_size=5, images=images, rate=1, momentum=0)
    drawn = teacher.teaching_set(torch.Generator().manual_seed(0))
    assert drawn.order.shape == (4, 5) and len(drawn.images) == (images or 20)
    assert drawn.order.flatten().tolist() == [i % len(drawn.images) for i in range(20)]
    assert drawn.rate.dtype == drawn.momentum.dtype == torch.float32
    for image, label in zip(drawn.images, drawn.labels):
        assert int(label) in toy.train.labels[(toy.train.images == image).flatten(1).all(1)]
    again = teacher.teaching_set(torch.Generator().manual_seed(1))
    assert not torch.equal(drawn.images, again.images)


# ---------------------------------------------------------------- learned labels

SOFT = {
    "pixels": lambda: pixels(batch_size=4, learn_labels=True),
    "generated": lambda: generated(batches=2, batch_size=6, learn_labels=True),
    "generated in one batch": lambda: generated(batches=1, batch_size=6, learn_labels=True),
}
every_soft = pytest.mark.parametrize("make_teacher", SOFT.values(), ids=SOFT.keys())


def uneven(teacher):
    """The teacher with labels far from those they start from."""
    random = torch.Generator().manual_seed(1)
    teacher.label_logits.data += torch.randn(teacher.label_logits.shape, generator=random)
    return teacher


@every_soft
def test_learned_labels_start_as_smoothed_classes_and_are_trained(make_teacher):
    teacher = make_teacher()
    _, y = teacher.batch(1)
    hard = torch.full((len(y), CLASSES), 0.1 / CLASSES)
    hard[torch.arange(len(y)), teacher.batch_labels(1)] += 0.9
    torch.testing.assert_close(y.detach(), hard)
    assert y.requires_grad
    groups = teacher.parameter_groups(0.1, 0.2)
    assert any(p is teacher.label_logits for p in groups[0]["params"])


@every_soft
def test_a_set_of_soft_labels_teaches_the_same_and_comes_back(make_teacher, tmp_path):
    teacher = uneven(make_teacher())
    lessons = teacher.teaching_set()
    assert lessons.soft and lessons.labels.shape == (len(lessons.images), CLASSES)
    student = FlatStudent(make_student(MLP, SHAPE, CLASSES, 0))
    taught = train_student(teacher, StudentRun.start(student), 7)
    teacher.export(tmp_path / "set.npz")
    read = TeachingSet.load(tmp_path / "set.npz")
    assert equal(read, lessons)
    torch.testing.assert_close(train_student(read, StudentRun.start(student), 7).w, taught.w)
    module = train_from_file(tmp_path / "set.npz", make_student(MLP, SHAPE, CLASSES, 0), 7)
    theirs = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(theirs, taught.w, rtol=1e-5, atol=1e-6)


@every_soft
def test_a_teacher_of_soft_labels_is_saved_with_them(make_teacher, tmp_path):
    teacher = uneven(make_teacher())
    if isinstance(teacher, GeneratorTeacher):
        pixel_teacher = teacher.as_pixels()
        assert torch.equal(pixel_teacher.teaching_set().labels, teacher.teaching_set().labels)
        assert pixel_teacher.label_logits.requires_grad
    save_teacher(teacher, tmp_path / "teacher.safetensors")
    again = load_teacher(tmp_path / "teacher.safetensors")
    assert torch.equal(again.label_logits, teacher.label_logits)


@every_soft
def test_soft_labels_are_evaluated_and_scored(make_teacher, toy):
    teacher = uneven(make_teacher())
    report = evaluate(teacher, MLP, toy, 2)
    assert score(teacher, MLP, toy, Recipe(), 2, ["test"]).accuracy["test"] == report.accuracy.values


@pytest.mark.parametrize("labels, message", [
    (torch.full((6, 3), 0.5), "probabilities .N, classes. that sum to 1.*sums 1.5 to 1.5"),
    (torch.tensor([[2.0, -1.0, 0.0]] * 6), "no less than -1"),
    (torch.full((6, 3), math.nan), "that sum to 1"),
    (torch.full((5, 3), 1 / 3), "labels must have shape .6,., one per image"),
    (torch.ones(6), "labels must be classes .N,., int64"),
])  # fmt: skip
def test_labels_that_are_no_probabilities_are_refused(labels, message):
    lessons = pixels().teaching_set()
    with pytest.raises(ValueError, match=message):
        replace(lessons, labels=labels)


def test_soft_labels_of_other_classes_than_the_data_are_refused(toy):
    with pytest.raises(ValueError, match="labels are of 2 classes, but toy has 3"):
        evaluate(pixels(num_classes=2, learn_labels=True), MLP, toy)
    with pytest.raises(TypeError, match="learn_labels must be True or False, got 1"):
        pixels(learn_labels=1)


# ---------------------------------------------------------------- damaged and foreign files


@pytest.fixture
def file(tmp_path):
    pixels().export(tmp_path / "set.npz")
    return tmp_path / "set.npz"


def arrays_of(file):
    with np.load(file) as arrays:  # as one who knows nothing of digests would write them
        return {name: array for name, array in arrays.items() if name not in ("version", "sha256")}


def test_pickles_are_refused(file, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    arrays = arrays_of(file)
    arrays["images"] = np.array([Harm()], dtype=object)
    np.savez(file, **arrays)
    with pytest.raises(DataError, match="not a teaching set"):
        TeachingSet.load(file)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "name, value",
    [
        pytest.param("images", None, id="no-images"),
        pytest.param("weight_decay", None, id="no-weight-decay"),
        pytest.param("images", np.zeros((6, 8, 8), np.float32), id="flat-images"),
        pytest.param("images", np.full((6, 1, 8, 8), np.nan, np.float32), id="nan"),
        pytest.param("images", np.zeros((6, 1, 0, 8), np.float32), id="no-rows"),
        pytest.param("images", np.zeros((6, 1, 8, 8), "S3"), id="text"),
        pytest.param("images", np.zeros((0, 1, 8, 8), np.float32), id="fewer-images-than-labels"),
        pytest.param("labels", np.zeros(6, np.float32), id="float-labels"),
        pytest.param("labels", np.full(6, -1), id="negative-labels"),
        pytest.param("labels", np.zeros(0, np.int64), id="no-labels"),
        pytest.param("order", np.full((5, 6), 6), id="order-outside"),
        pytest.param("order", np.zeros((5, 6), np.float32), id="float-order"),
        pytest.param("order", np.zeros((0, 6), np.int64), id="no-steps"),
        pytest.param("rate", np.zeros(4, np.float32), id="too-few-rates"),
        pytest.param("momentum", np.zeros((5, 1), np.float32), id="momenta-in-a-matrix"),
        pytest.param("rate", np.full(5, -0.1, np.float32), id="negative-rate"),
        pytest.param("rate", np.full(5, np.inf, np.float32), id="infinite-rate"),
        pytest.param("momentum", np.full(5, 7, np.float32), id="momentum-of-7"),
        pytest.param("momentum", np.full(5, np.nan, np.float32), id="momentum-nan"),
        pytest.param("weight_decay", np.array(np.nan), id="weight-decay-nan"),
        pytest.param("weight_decay", np.zeros(3), id="three-weight-decays"),
    ],
)
def test_arrays_that_are_not_a_teaching_set_are_refused(file, name, value):
    arrays = arrays_of(file)
    arrays[name] = value
    np.savez(file, **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(DataError, match="not a teaching set, or is damaged"):
        TeachingSet.load(file)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x93NUMPY"], ids=repr)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(DataError, match="set.npz"):
        TeachingSet.load(tmp_path / "set.npz")


def test_a_single_array_and_a_folder_are_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    for path in (tmp_path / "array.npy", tmp_path):
        with pytest.raises(DataError):
            TeachingSet.load(path)


def test_a_missing_file_is_called_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        TeachingSet.load(tmp_path / "none.npz")


def test_a_failed_save_leaves_the_old_file_whole(file, monkeypatch):
    before = file.read_bytes()

    def full_disk(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="cannot write .*set.npz.*No space left"):
        generated().export(file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["set.npz"]


def test_saving_over_a_folder_leaves_nothing_behind(tmp_path):
    (tmp_path / "set.npz").mkdir()
    with pytest.raises(OSError, match="cannot write"):
        pixels().export(tmp_path / "set.npz")
    assert os.listdir(tmp_path) == ["set.npz"]


def test_momentum_of_zero_is_exported_as_zero():
    assert pixels(momentum=0.0).teaching_set().momentum.tolist() == [0.0] * 5
    assert math.isinf(float(pixels(momentum=0.0).momentum_logit[0].detach()))
