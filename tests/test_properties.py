"""What must hold for any input: of samplers, students and files."""

import math
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gtnlib import (
    MLP, VGG, ConvNet, DataError, FlatStudent, GeneratorTeacher, LeNet, PixelTeacher, ResNet, Split,
    TeachingSet, Unrolled, fit, make_student,
)  # fmt: skip
from gtnlib.data.load import read_idx
from gtnlib.experiments.records import Record
from gtnlib.outer.history import History
from gtnlib.students.networks import ACTIVATIONS, NORMS, POOLINGS
from gtnlib.support.files import read_tensors, write_tensors
from gtnlib.teachers.files import load_teacher, rounded, save_teacher

pytestmark = pytest.mark.usefixtures("random_state_untouched")
# The same examples every time, and fixtures that serve all of them.
settings.register_profile("here", derandomize=True, deadline=None, max_examples=40,
                          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
settings.load_profile("here")

counts = partial(st.integers, 1)
seeds = st.integers(0, 2**63 - 1)


def drawn_by(seed):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- samplers


@st.composite
def splits(draw):
    """Up to five classes, each of at least one image, in any order; image i holds the number i."""
    classes = draw(st.integers(2, 5))
    extra = draw(st.lists(st.integers(0, classes - 1), max_size=20))
    labels = torch.tensor(draw(st.permutations([*range(classes), *extra])))
    return Split(torch.arange(float(len(labels))).view(-1, 1, 1, 1), labels, classes)


@given(splits(), counts(50), seeds)
def test_a_sample_is_balanced_and_follows_from_its_seed(split, n, seed):
    images, labels = split.sample(n, drawn_by(seed))
    assert torch.equal(split.labels[images.long().flatten()], labels)
    each = torch.bincount(labels, minlength=split.num_classes)
    assert len(labels) == n and int(each.max() - each.min()) <= 1
    again = split.sample(n, drawn_by(seed))
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])


@given(splits(), st.data(), seeds)
def test_a_sample_of_chosen_classes_holds_them(split, data, seed):
    wanted = torch.tensor(data.draw(st.lists(st.integers(0, split.num_classes - 1), min_size=1)))
    images, labels = split.sample(len(wanted), drawn_by(seed), wanted)
    assert torch.equal(labels, wanted) and torch.equal(split.labels[images.long().flatten()], wanted)


@given(counts(4), counts(9), counts(20), st.integers(2, 4), seeds)
def test_the_steps_of_pixels_use_all_images_equally_often(per_class, steps, batch_size, classes, seed):
    make = partial(
        PixelTeacher, per_class, steps, batch_size, shape=(1, 2, 2), num_classes=classes, seed=seed
    )
    if batch_size > per_class * classes:
        with pytest.raises(ValueError, match="batch_size is"):
            make()
        return
    teacher = make()
    used = torch.bincount(teacher.order.flatten(), minlength=per_class * classes)
    assert int(used.max() - used.min()) <= 1 and used.sum() == steps * batch_size
    assert len({tuple(row) for row in teacher.order.tolist()}) == teacher.batches
    read = teacher.reader()
    assert all(torch.equal(read(t)[1], teacher.labels[teacher.order[t]]) for t in range(steps))
    assert torch.equal(teacher.images, make().images)


# ---------------------------------------------------------------- students


@st.composite
def students(draw):
    """A function that makes a student, its shape and its number of classes; not all can be made."""
    shape = draw(st.tuples(counts(3), counts(18), counts(18)))
    options = {"activation": draw(st.sampled_from(sorted(ACTIVATIONS)))}
    kind = draw(st.sampled_from([MLP, LeNet, ConvNet, ResNet, VGG]))
    widths = tuple(draw(st.lists(counts(9), min_size=1, max_size=3)))
    if kind is not LeNet:
        options["width" if kind is ConvNet else "widths"] = widths
    if kind in (ConvNet, ResNet, VGG):
        options["norm"] = draw(st.sampled_from(NORMS))
    if kind in (LeNet, ConvNet, VGG):
        options["pooling"] = draw(st.sampled_from(sorted(POOLINGS)))
    return partial(kind, **options), shape, draw(st.integers(2, 5))


@given(students(), seeds)
def test_a_student_classifies_or_is_refused_when_it_is_made(made, seed):
    student, shape, classes = made
    try:
        module = make_student(student, shape, classes, seed)
    except ValueError as error:
        assert "pool a" in str(error) or "at least 12 × 12" in str(error)
        return
    flat, x = FlatStudent(module), torch.randn(3, *shape, generator=drawn_by(0))
    w = flat.initial()
    gradient, loss = flat.gradient_and_loss(w, x, torch.arange(3) % classes)
    assert flat.logits(w, x).shape == (3, classes)
    assert w.shape == gradient.shape == (flat.size,) and gradient.isfinite().all() and loss.isfinite()
    assert torch.equal(w, FlatStudent(make_student(student, shape, classes, seed)).initial())
    assert not torch.equal(w, FlatStudent(make_student(student, shape, classes, seed ^ 1)).initial())


# ---------------------------------------------------------------- files that come back

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
texts = st.text(max_size=8) | st.text('[]{}"\\ ,1e\n', max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8,
)  # fmt: skip
numbers = st.recursive(
    st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3), max_leaves=8,
)  # fmt: skip


@st.composite
def tensors(draw):
    """Any bits, of any type and of up to three dimensions, some of them of size 0."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = math.prod(shape) * dtype.itemsize
    content = draw(st.binary(min_size=size, max_size=size))
    if dtype is torch.bool:
        content = bytes(byte & 1 for byte in content)
    return torch.tensor(list(content), dtype=torch.uint8).view(dtype).view(shape)


def bits(tensor):
    return tensor.dtype, tensor.shape, tensor.contiguous().flatten().view(torch.uint8).tolist()


@given(
    st.dictionaries(st.text("abc._0", min_size=1), tensors(), min_size=1, max_size=4),
    st.dictionaries(texts, plain),
)
def test_tensors_and_state_come_back_bit_for_bit(tmp_path, kept, state):
    write_tensors(tmp_path / "file", "teacher", kept, state)
    found, read = read_tensors(tmp_path / "file", "teacher")
    assert read == state and found.keys() == kept.keys()
    assert all(bits(found[name]) == bits(kept[name]) for name in kept)


RECORD = Record("a", {}, {"fit": [0]}, "cpu", {"torch": "2"}, "c", "2026-01-01T00:00:00", 1.5, None, {}, {})


@given(texts, st.dictionaries(texts, plain), st.dictionaries(texts, st.lists(st.integers())),
       st.dictionaries(texts, numbers), st.floats(0, 1e300))  # fmt: skip
def test_a_record_comes_back(tmp_path, name, configuration, by_name, curves, seconds):
    record = Record(**{**vars(RECORD), "name": name, "configuration": configuration, "seeds": by_name,
                       "curves": curves, "seconds": seconds})  # fmt: skip
    record.save(tmp_path / "file")
    assert Record.load(tmp_path / "file") == record


@st.composite
def teachers(draw):
    """Small teachers of both kinds."""
    shape, classes = (draw(counts(2)), 4 * draw(counts(2)), 4), draw(st.integers(2, 3))
    common = {"shape": shape, "num_classes": classes, "seed": draw(seeds), "rate": draw(st.floats(1e-3, 10)),
              "momentum": draw(st.floats(0, 0.99)), "weight_decay": draw(st.floats(0, 1))}  # fmt: skip
    steps = draw(counts(4))
    if draw(st.booleans()):
        return PixelTeacher(draw(counts(2)), steps, **common)
    sizes = {"noise_size": draw(counts(3)), "hidden": draw(counts(3)), "channels": draw(st.integers(2, 5))}
    return GeneratorTeacher(steps, draw(st.integers(2, 4)), **sizes, **common)


@given(teachers())
def test_a_teacher_comes_back_rounded_and_its_set_exactly(tmp_path, teacher):
    save_teacher(teacher, tmp_path / "file")
    found = load_teacher(tmp_path / "file")
    assert type(found) is type(teacher)
    for (name, one), (_, other) in zip(rounded(teacher).state_dict().items(), found.state_dict().items()):
        assert bits(one) == bits(other), name
    assert {**found.arguments, "shape": teacher.shape} == teacher.arguments
    lessons = teacher.teaching_set()
    lessons.save(tmp_path / "set")
    read = TeachingSet.load(tmp_path / "set")
    assert read.weight_decay == lessons.weight_decay
    assert all(bits(getattr(read, name)) == bits(value) for name, value in vars(lessons).items()
               if isinstance(value, torch.Tensor))  # fmt: skip


@given(counts(5), seeds)
@settings(max_examples=8)
def test_a_finished_history_comes_back_exactly(toy, tmp_path, steps, seed):
    path = tmp_path / str((steps, seed))
    first, again = (trained(toy, path, steps, seed) for _ in range(2))
    assert first == again and first.interrupted is False and len(first) == steps
    assert [step for step, _ in first.validation] == list(range(2, steps + 1, 2))


def trained(toy, path, steps=2, seed=0) -> History:
    teacher = PixelTeacher(1, 2, shape=(1, 8, 8), num_classes=3)
    return fit(teacher, Unrolled(real_batch_size=4), partial(MLP, widths=(2,)), toy, steps, seed,
               validate_every=2, progress=False, checkpoint=path)  # fmt: skip


# ---------------------------------------------------------------- files that are damaged


def idx(path):
    path.write_bytes(b"\0\0\x08\2\0\0\0\2\0\0\0\3" + bytes(6))


SMALL = partial(PixelTeacher, 1, 2, shape=(1, 2, 2), num_classes=2)
FILES = {  # how one is written, and how it is read
    "checkpoint": (lambda toy, path: trained(toy, path), lambda toy, path: trained(toy, path)),
    "teacher": (lambda toy, path: save_teacher(SMALL(), path), lambda toy, path: load_teacher(path)),
    "teaching set": (lambda toy, path: SMALL().export(path), lambda toy, path: TeachingSet.load(path)),
    "record": (lambda toy, path: RECORD.save(path), lambda toy, path: Record.load(path)),
    "IDX": (lambda toy, path: idx(path), lambda toy, path: read_idx(path)),
}
every_file = pytest.mark.parametrize("kind", FILES)


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The content of one good file of every kind."""
    path, contents = tmp_path_factory.mktemp("whole") / "file", {}
    for kind, (write, read) in FILES.items():
        path.unlink(missing_ok=True)
        write(toy, path)
        read(toy, path)
        contents[kind] = path.read_bytes()
    return contents


@every_file
@given(st.data())
def test_a_file_that_was_cut_is_refused(kind, toy, whole, tmp_path, data):
    end = data.draw(st.integers(0, len(whole[kind].rstrip()) - 1))
    (tmp_path / "file").write_bytes(whole[kind][:end])
    with pytest.raises(DataError, match="file"):
        FILES[kind][1](toy, tmp_path / "file")


@every_file
@given(st.data())
@settings(max_examples=100)
def test_a_file_with_a_wrong_byte_is_refused_or_read(kind, toy, whole, tmp_path, data):
    """A number may have become another; but nothing is raised that a caller need not expect."""
    content = bytearray(whole[kind])
    head = min(len(content), 2000)  # where the structure is
    place = data.draw(st.integers(0, head - 1) | st.integers(0, len(content) - 1))
    content[place] ^= data.draw(counts(255))
    (tmp_path / "file").write_bytes(content)
    try:
        FILES[kind][1](toy, tmp_path / "file")
    except DataError as error:
        assert "file" in str(error)
    except ValueError as error:
        assert kind == "checkpoint" and "of another run" in str(error)


@given(st.data())
def test_a_wrong_byte_in_a_teaching_set_changes_nothing_unseen(whole, tmp_path, data):
    """An archive carries a checksum of each array."""
    content = bytearray(whole["teaching set"])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(counts(255))
    (tmp_path / "file").write_bytes(content)
    try:
        found = TeachingSet.load(tmp_path / "file")
    except DataError:
        return
    assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(getattr(found, name)))
               for name, value in vars(SMALL().teaching_set()).items() if value is not None)  # fmt: skip
