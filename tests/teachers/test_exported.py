"""What leaves the library: a file that says how its images were normalised, and trains any network."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gtnlib import (
    MLP, ConvNet, FlatStudent, GeneratorTeacher, PixelTeacher, StudentRun, TeachingSet, Unrolled, fit,
    make_student, train_student,
)  # fmt: skip
from gtnlib.data.scale import Scale
from gtnlib.experiments.records import recorded_teacher
from gtnlib.support.errors import DataError
from gtnlib.teachers.files import load_teacher, save_teacher

ROOT = Path(__file__).parents[2]
MNIST = Scale("mnist", (0.1307,), (0.3081,))


@pytest.fixture
def trained(mnist):
    teacher = PixelTeacher(images_per_class=1, steps=3, weight_decay=0.01).start_from(mnist.train)
    fit(teacher, Unrolled(), partial(MLP, widths=(8,)), mnist, outer_steps=1, progress=False)
    return teacher


def test_the_readmes_lines_train_a_network_as_gtnlib_does(trained, tmp_path, monkeypatch):
    with torch.no_grad():  # rates and momenta that differ from step to step
        trained.log_rate += torch.linspace(-1, 1, 3)
        trained.momentum_logit += torch.linspace(1, -1, 3)
    trained.export(tmp_path / "set.npz")
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").split("```")
    (lines,) = [block.removeprefix("python\n") for block in blocks if 'np.load("set.npz")' in block]
    assert "gtnlib" not in lines
    network = make_student(ConvNet, (1, 28, 28), 10, seed=0)
    run = StudentRun.start(FlatStudent(make_student(ConvNet, (1, 28, 28), 10, seed=0)))
    train_student(TeachingSet.load(tmp_path / "set.npz"), run, 3)
    monkeypatch.chdir(tmp_path)
    exec(lines, {"network": network})
    torch.testing.assert_close(FlatStudent(network).initial(), run.w)


def test_a_trained_teachers_file_says_how_its_images_were_normalised(trained, mnist, tmp_path):
    assert mnist.scale == trained.scale == MNIST
    trained.export(tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz", allow_pickle=False) as file:
        assert file["dataset"] == "mnist" and (file["mean"], file["std"]) == (0.1307, 0.3081)
    back = TeachingSet.load(tmp_path / "set.npz")
    assert back.scale == MNIST and torch.equal(back.images, trained.images)
    assert back.to("cpu").scale == MNIST
    save_teacher(trained, tmp_path / "teacher")
    assert load_teacher(tmp_path / "teacher").scale == MNIST


def test_pixels_are_those_of_the_data_and_learned_ones_are_cut_off(mnist):
    teacher = PixelTeacher(images_per_class=2).start_from(mnist.train)
    teacher.scale = mnist.scale
    grey = 255 * teacher.teaching_set().pixels()
    assert grey.max() > 250 and grey.min() >= 0
    torch.testing.assert_close(grey, grey.round(), rtol=0, atol=1e-3)
    with torch.no_grad():
        teacher.images[0, 0, 0, :2] = torch.tensor([-9.0, 9.0])
    assert teacher.teaching_set().pixels()[0, 0, 0, :2].tolist() == [0, 1]


def test_a_generators_images_as_pixels_keep_it():
    teacher = GeneratorTeacher(2, 10, batches=1, hidden=8, channels=4)
    teacher.scale = MNIST
    assert teacher.as_pixels().scale == teacher.teaching_set().scale == MNIST


def test_shipped_teachers_have_it_and_sets_of_old_do_not(tmp_path):
    assert recorded_teacher("pixels-unrolled-1").scale == MNIST
    old = TeachingSet.load(ROOT / "tests" / "written" / "set.npz")
    assert old.scale is None
    old.save(tmp_path / "again.npz")
    assert TeachingSet.load(tmp_path / "again.npz").scale is None
    with pytest.raises(ValueError, match="not known how the images were normalised"):
        old.pixels()


def test_a_changed_scale_is_seen(trained, tmp_path):
    trained.export(tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "set.npz", **{**arrays, "mean": np.array([0.2])})
    with pytest.raises(DataError, match="damaged"):
        TeachingSet.load(tmp_path / "set.npz")


@pytest.mark.parametrize("mean, std", [((), ()), ((0.1,), (0.0,)), ((0.1,), (0.1, 0.2)), ((-1,), (0.1,))])
def test_a_bad_scale_is_one_error(mean, std):
    with pytest.raises(ValueError, match="mean"):
        Scale("toy", mean, std)


def test_images_of_another_kind_are_one_error():
    with pytest.raises(ValueError, match="images have 3 channels, those of mnist 1"):
        MNIST.pixels(torch.zeros(2, 3, 4, 4))
