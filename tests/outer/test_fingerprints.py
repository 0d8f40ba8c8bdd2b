"""A run is the same run by what it computes on: another start, other data or students are refused."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gtnlib
from gtnlib import (
    MLP, Dataset, DivergenceError, GeneratorTeacher, PixelTeacher, RealTeacher, Split, Unrolled, best_rate,
    evaluate, fit,
)  # fmt: skip
from gtnlib.judge.training import Recipe, score
from gtnlib.support.files import locked, read_tensors, write_tensors
from gtnlib.support.jobs import run_jobs

KIND = {"shape": (1, 8, 8), "num_classes": 3}


class Net(nn.Module):
    slope = 0.1

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.two(F.leaky_relu(self.one(x.flatten(1)), self.slope))


def pixels():
    return PixelTeacher(2, 3, rate=0.1, **KIND)


def train(data, checkpoint=None, teacher=None, student=Net, steps=2, **keywords):
    teacher = teacher or pixels()
    return fit(teacher, Unrolled(real_batch_size=6), student, data, steps, progress=False,
               checkpoint=checkpoint, **keywords)  # fmt: skip


def other_images(data):
    images = data.train.images.clone()
    images[-1, 0, -1, -1] += 1e-3
    return replace(data, train=Split(images, data.train.labels, 3))


def other_labels(data):
    labels = data.validation.labels.clone()
    labels[0] = (labels[0] + 1) % 3
    return replace(data, validation=Split(data.validation.images, labels, 3))


OTHERS = {
    "start": ("teacher started from other values", lambda data: {
        "teacher": pixels().start_from(data.train, torch.Generator().manual_seed(0))}),
    "images": ("images or labels of the data are others", lambda data: {"data": other_images(data)}),
    "labels": ("images or labels of the data are others", lambda data: {"data": other_labels(data)}),
    "student": ("students compute something else", None),
}  # fmt: skip


@pytest.mark.parametrize("message, change", OTHERS.values(), ids=OTHERS.keys())
def test_a_checkpoint_of_another_run_is_refused_and_named(message, change, toy, tmp_path, monkeypatch):
    path = tmp_path / "run"
    train(toy, path)
    before = path.read_bytes()
    if change is None:
        monkeypatch.setattr(Net, "slope", 3.0)
    with pytest.raises(ValueError, match=f"run is of another run: the {message}"):
        train(**{"data": toy, "checkpoint": path, **(change(toy) if change else {})})
    assert path.read_bytes() == before


def test_the_same_run_goes_on_with_the_teacher_it_began_with_or_has(toy, tmp_path):
    path, teacher, whole = tmp_path / "run", pixels(), train(toy)
    assert train(toy, path, teacher).loss == whole.loss
    assert train(toy, path, teacher).loss == train(toy, path).loss == whole.loss


def test_a_file_from_before_fingerprints_says_nothing_of_them(toy, tmp_path):
    path = tmp_path / "run"
    expected = train(toy, path).loss
    tensors, state = read_tensors(path, "checkpoint")
    del state["fingerprints"]
    write_tensors(path, "checkpoint", tensors, state)
    assert train(toy, path).loss == expected


# ---------------------------------------------------------------- one run, one place


def test_a_second_run_in_one_place_gets_one_error(toy, tmp_path):
    path, refused = tmp_path / "run", []

    def again(*_):
        with pytest.raises(BlockingIOError, match="run is in use by another run"):
            train(toy, path)
        refused.append(path.read_bytes())

    whole = train(toy)
    assert train(toy, path, callback=again).loss == whole.loss and len(refused) == 2
    assert os.listdir(tmp_path) == ["run"]  # and the lock is gone
    with locked(tmp_path / "jobs"), pytest.raises(BlockingIOError, match="jobs is in use"):
        run_jobs({"0": {"n": 1}}, lambda job: {}, tmp_path / "jobs", progress=False)


HOLD = """
import sys, time
from gtnlib.support.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_killed_process_does_not_block(toy, tmp_path):
    path = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(Path(gtnlib.__file__).parents[1])}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True,
                              env=environment)  # fmt: skip
    try:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(BlockingIOError):
            train(toy, path)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert path.with_name("run.lock").exists()
    assert len(train(toy, path)) == 2


# ---------------------------------------------------------------- threads


def test_two_fits_in_two_threads_give_the_numbers_of_each_alone(toy):
    seeds = range(3)
    alone = [train(toy, seed=seed, steps=4).loss for seed in seeds]
    together = {}

    def one(seed):
        together[seed] = train(toy, seed=seed, steps=4).loss

    threads = [threading.Thread(target=one, args=(seed,)) for seed in seeds]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [together[seed] for seed in seeds] == alone


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize("place", ["rehearse_teacher", "progress_bar", "tensor_cores", "flat_student"])
def test_ctrl_c_before_the_first_step_is_no_traceback(place, toy, monkeypatch):
    def interrupted(*arguments, **keywords):
        signal.raise_signal(signal.SIGINT)

    teacher, called = pixels(), []
    real = getattr(gtnlib.outer.run, place)

    def wait(*arguments, **keywords):
        called.append(1)
        return real(*arguments, **keywords) if place == "progress_bar" and len(called) == 1 else interrupted()

    monkeypatch.setattr(gtnlib.outer.run, place, wait)
    history = train(toy, teacher=teacher)
    assert history.interrupted and len(history) == 0 and torch.equal(teacher.images, pixels().images)


def test_a_folder_is_no_checkpoint(toy, tmp_path):
    with pytest.raises(gtnlib.DataError, match="is a folder. Name a file in it"):
        train(toy, tmp_path)


# ---------------------------------------------------------------- parts that are missing


def test_a_data_set_without_validation(toy):
    data = Dataset("half", toy.train, None, None)
    assert repr(data) == "Dataset('half', train / validation / test 120 / none / none, cpu)"
    assert data.to("cpu").validation is None and len(train(data)) == 2
    teacher = pixels()
    for call in (
        lambda: train(data, teacher=teacher, validate_every=2),
        lambda: evaluate(pixels(), Net, data, split="validation"),
        lambda: best_rate(lambda rate: pixels(), Net, data),
        lambda: score(pixels(), Net, data, Recipe()),
    ):
        with pytest.raises(ValueError, match="half has no validation split: it is None"):
            call()
    with pytest.raises(ValueError, match="half has no test split"):
        evaluate(pixels(), Net, data)
    assert torch.equal(teacher.images, pixels().images)  # before the good steps


# ---------------------------------------------------------------- divergence


def test_rates_at_which_students_diverge_are_never_chosen(toy):
    at = lambda rate: RealTeacher(toy.train, 30, 30, rate=rate)  # noqa: E731
    small = lambda: MLP(**KIND, widths=(8,))  # noqa: E731
    assert best_rate(at, small, toy, [1e8, 0.01, 1e6]) == 0.01
    with pytest.raises(DivergenceError, match="students diverged at every rate of 100000000.0, 1000000.0"):
        best_rate(at, small, toy, [1e8, 1e6])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pixel_that_is_not_finite_is_found_when_the_split_is_made(value):
    images = torch.zeros(4, 1, 8, 8)
    images[2, 0, 3, 4] = value
    with pytest.raises(ValueError, match=r"images hold (nan|inf) at \(2, 0, 3, 4\), but must be finite"):
        Split(images, torch.tensor([0, 1, 2, 0]), 3)


class Painter(nn.Module):
    """A generator whose weights do not tell what it does with them."""

    def __init__(self, squash=torch.tanh):
        super().__init__()
        self.layer, self.squash = nn.Linear(4, 64), squash

    def forward(self, noise, labels):
        return self.squash(self.layer(noise)).view(-1, 1, 8, 8)


def paint(data, checkpoint, squash=torch.tanh, seed=0, steps=2):
    torch.manual_seed(0)
    teacher = GeneratorTeacher(3, 6, noise_size=4, generator=Painter(squash), **KIND)
    return fit(teacher, Unrolled(real_batch_size=6), Net, data, steps, progress=False, checkpoint=checkpoint,
               seed=seed)  # fmt: skip


def test_an_edited_generator_is_another_run(toy, tmp_path):
    losses = paint(toy, tmp_path / "run").loss
    assert paint(toy, tmp_path / "run").loss == losses
    with pytest.raises(ValueError, match="the generator makes something else there"):
        paint(toy, tmp_path / "run", torch.sin)


def test_a_seed_of_numpy_is_that_seed(toy, tmp_path):
    losses = [paint(toy, None, seed=seed).loss for seed in np.arange(2)]
    assert losses[0] != losses[1] and losses == [paint(toy, None, seed=seed).loss for seed in range(2)]
    paint(toy, tmp_path / "run", seed=np.int64(0))
    with pytest.raises(ValueError, match="seed is 0 there, but 1 here"):
        paint(toy, tmp_path / "run", seed=np.int64(1))


def test_weights_that_no_seed_decides_are_refused(toy):
    class Chance(Net):
        def __init__(self):
            super().__init__()
            with torch.no_grad():
                self.one.weight.copy_(torch.from_numpy(np.random.randn(8, 64)))

    with pytest.raises(ValueError, match="student builds another Chance from the same seed"):
        train(toy, student=Chance)


class Table(nn.Module):
    """A generator with a parameter for every image of a batch, and weights that must be positive."""

    def __init__(self):
        super().__init__()
        self.layer, self.own = nn.Linear(4, 64), nn.Parameter(torch.ones(6, 64))

    def forward(self, noise, labels):
        return (self.layer(noise) + self.own.sqrt()).view(-1, 1, 8, 8)


def test_a_generator_that_takes_no_other_weights_may_have_a_checkpoint(toy, tmp_path):
    torch.manual_seed(0)
    teacher = GeneratorTeacher(3, 6, noise_size=4, generator=Table(), **KIND)
    fit(teacher, Unrolled(real_batch_size=6), Net, toy, 2, progress=False, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").exists()


def test_a_generator_that_turns_its_images_is_another_run(toy, tmp_path):
    paint(toy, tmp_path / "run")
    with pytest.raises(ValueError, match="the generator makes something else there"):
        paint(toy, tmp_path / "run", lambda x: torch.tanh(x).flip(-1))
