"""Every public call refuses what it cannot use; nothing is lost, hidden or let in."""

import errno
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_checkpoint import METAGRADS, pixels, train

import gtnlib
from gtnlib import (
    MLP, VGG, ConvNet, DataError, Dataset, DivergenceError, DivergenceWarning, FlatStudent,
    GeneratorTeacher, Implicit, PixelTeacher, RealTeacher, ResNet, Split, StudentRun, TeachingSet,
    Unrolled, accuracy, best_rate, evaluate, fit, inner_step, load_dataset, make_student, train_student,
)  # fmt: skip
from gtnlib.data.load import _read_shipped_mnist, read_idx
from gtnlib.experiments import EXPERIMENTS, Context
from gtnlib.experiments.__main__ import main
from gtnlib.experiments.records import Record
from gtnlib.teachers.files import load_teacher, save_teacher
from gtnlib.teachers.generator import Generator

X, Y = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
SPLIT = Split(X, Y, 3)
DATA = Dataset("toy", SPLIT, SPLIT, SPLIT)
SMALL = partial(MLP, (1, 8, 8), 3, widths=(4,))
STUDENT = FlatStudent(SMALL())
W = STUDENT.initial()
SET = (X, Y, Y[None], torch.ones(1), torch.ones(1))
FIT = {"teacher": None, "metagrad": Unrolled(), "student": SMALL, "data": DATA, "outer_steps": 1,
       "progress": False}  # fmt: skip


def fitting(**keywords):
    return fit(**{**FIT, "teacher": pixels(), **keywords})


def evaluating(**keywords):
    return evaluate(**{"teacher": pixels(), "student": SMALL, "data": DATA, **keywords})


CASES = {
    "name is 3, but must be one of mnist": (ValueError, lambda: load_dataset(3)),
    "device is 'abacus', but it cannot": (ValueError, lambda: load_dataset("mnist", device="abacus")),
    "device is 1.5": (TypeError, lambda: load_dataset("mnist", device=1.5)),
    "root must be a path, got 3": (TypeError, lambda: load_dataset("kmnist", root=3)),
    "images must be a tensor or a numpy array, got list": (TypeError, lambda: Split([1], Y, 3)),
    "labels must be a tensor or a numpy array, got list": (TypeError, lambda: Split(X, [0, 1, 2, 0], 3)),
    "images must be floating point, got torch.uint8": (TypeError, lambda: Split(X.byte(), Y, 3)),
    "labels are on meta, but images on cpu": (ValueError, lambda: Split(X, Y.to("meta"), 3)),
    "num_classes must be a whole number, got '3'": (TypeError, lambda: Split(X, Y, "3")),
    "device is 'gpu'": (ValueError, lambda: SPLIT.to("gpu")),
    "generator must be a Generator, got int": (TypeError, lambda: SPLIT.sample(2, 3)),
    "labels must be a Tensor, got list": (TypeError, lambda: SPLIT.sample(2, labels=[0, 1])),
    "train must be a Split, got Tensor": (TypeError, lambda: Dataset("a", X, SPLIT, SPLIT)),
    "test has 4 classes .*train has 3": (ValueError, lambda: Dataset("a", SPLIT, SPLIT, Split(X, Y, 4))),
    "shape must be .channels, height, width., got 28": (TypeError, lambda: ConvNet(shape=28)),
    "shape must be .channels, height, width., got 8": (TypeError, lambda: PixelTeacher(shape=8)),
    "shape must be .channels, height, width., got 'abc'": (TypeError, lambda: Generator(shape="abc")),
    "widths must be a sequence of whole numbers, got 3": (TypeError, lambda: MLP(widths=3)),
    "widths must be a sequence of whole numbers, got '8'": (TypeError, lambda: VGG(widths="8")),
    "widths is empty": (ValueError, lambda: ResNet(widths=())),
    "widths must be a whole number, got 0.5": (TypeError, lambda: MLP(widths=(8, 0.5))),
    "module must be a Module, got the class MLP": (TypeError, lambda: FlatStudent(MLP)),
    "dtype must be a torch.dtype or None, got 'bfloat16'": (
        TypeError, lambda: FlatStudent(SMALL(), "bfloat16")),
    "num_classes is 1": (ValueError, lambda: make_student(MLP, (1, 8, 8), 1, 0)),
    "student must be a FlatStudent, got MLP. FlatStudent": (TypeError, lambda: StudentRun.start(SMALL())),
    "student must be a FlatStudent, got MLP": (TypeError, lambda: accuracy(SMALL(), W, SPLIT)),
    "split must be a Split, got Dataset": (TypeError, lambda: accuracy(STUDENT, W, DATA)),
    r"w must hold the student's \d+ parameters, got shape .3": (
        ValueError, lambda: accuracy(STUDENT, W[:3], SPLIT)),
    "w must be a Tensor, got list": (TypeError, lambda: accuracy(STUDENT, W.tolist(), SPLIT)),
    "batch_size is 0": (ValueError, lambda: accuracy(STUDENT, W, SPLIT, 0)),
    "split is empty": (ValueError, lambda: accuracy(STUDENT, W, Split(X[:0], Y[:0], 3))),
    "w must hold .* got shape .0": (ValueError, lambda: inner_step(STUDENT, W[:0], W, (X, Y), 1, 0)),
    "student must be a FlatStudent, got function": (
        TypeError, lambda: inner_step(lambda: 0, W, W, (X, Y), 1, 0)),
    "run must be a StudentRun, got FlatStudent": (TypeError, lambda: train_student(pixels(), STUDENT, 1)),
    "steps is -1, but must be at least 0": (
        ValueError, lambda: train_student(pixels(), StudentRun.start(STUDENT), -1)),
    "teacher must be a teacher that is trained": (
        TypeError, lambda: train_student(PixelTeacher, StudentRun.start(STUDENT), 1)),
    "generator must be a Module, got function": (
        TypeError, lambda: GeneratorTeacher(generator=lambda z, y: z)),
    "hidden is 0": (ValueError, lambda: GeneratorTeacher(hidden=0)),
    "seed must be a whole number, got 'a'": (TypeError, lambda: PixelTeacher(seed="a")),
    r"seed is \d+, but must be below 2\*\*63": (ValueError, lambda: PixelTeacher(seed=2**63)),
    "split must be a Split, got Dataset. Pass": (TypeError, lambda: RealTeacher(DATA, 1, 1)),
    "split must be a Split, got str. Pass": (TypeError, lambda: pixels().start_from("train")),
    "rate must be a tensor or a numpy array, got float": (
        TypeError, lambda: TeachingSet(*SET[:3], 0.1, SET[4])),
    "weight_decay is -1": (ValueError, lambda: TeachingSet(*SET, -1)),
    "path must be a path, got 3": (TypeError, lambda: TeachingSet.load(3)),
    "path must be a path, got 4": (TypeError, lambda: TeachingSet(*SET).save(4)),
    "path must be a path, got 5": (TypeError, lambda: Record.load(5)),
    "path must be a path, got 6": (TypeError, lambda: load_teacher(6)),
    "path must be a path, got 7": (TypeError, lambda: save_teacher(pixels(), 7)),
    "data must be a Dataset, got str. load_dataset": (TypeError, lambda: fitting(data="mnist")),
    "data must be a Dataset, got Split": (TypeError, lambda: fitting(data=SPLIT)),
    "seed must be a whole number, got 1.5": (TypeError, lambda: fitting(seed=1.5)),
    "seed is -1": (ValueError, lambda: fitting(seed=-1)),
    "callback must be a function or None, got 3": (TypeError, lambda: fitting(callback=3)),
    "compile is 'yes', but must be True, False or 'auto'": (ValueError, lambda: fitting(compile="yes")),
    "precision is 'bfloat', .*Did you mean 'bfloat16'": (ValueError, lambda: fitting(precision="bfloat")),
    "metagrad must be an instance .*got <function": (TypeError, lambda: fitting(metagrad=lambda *a: 0)),
    "teacher must be a PixelTeacher or GeneratorTeacher": (TypeError, lambda: fitting(teacher=PixelTeacher)),
    "teacher is torch.float64, but data is torch.float32": (
        TypeError, lambda: fitting(teacher=pixels().double())),
    "student must be a class or function .*got 3": (TypeError, lambda: fitting(student=[SMALL, 3])),
    "data must be a Dataset, got the class Dataset": (TypeError, lambda: evaluating(data=Dataset)),
    "teacher must be a teacher or a TeachingSet, got None": (TypeError, lambda: evaluating(teacher=None)),
    "seeds must be a whole number, got '5'": (TypeError, lambda: evaluating(seeds="5")),
    "seeds must be a whole number, got 2.5": (TypeError, lambda: evaluating(seeds=2.5)),
    "every one of seeds is -1": (ValueError, lambda: evaluating(seeds=[0, -1])),
    "teacher_at must be a function .*got PixelTeacher": (TypeError, lambda: best_rate(pixels(), SMALL, DATA)),
    "rates is empty": (ValueError, lambda: best_rate(lambda rate: pixels(), SMALL, DATA, [])),
    "rates must be a sequence of numbers, got 0.1": (
        TypeError, lambda: best_rate(lambda rate: pixels(), SMALL, DATA, 0.1)),
}  # fmt: skip


@pytest.mark.parametrize("message", CASES)
def test_every_call_refuses_what_it_cannot_use(message):
    error, call = CASES[message]
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error


def test_a_refused_call_leaves_no_checkpoint(tmp_path):
    with pytest.raises(TypeError):
        fitting(student=3, checkpoint=tmp_path / "run")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- stopping


@pytest.fixture
def ctrl_c():
    """Raises KeyboardInterrupt at SIGINT, also in a process that was started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_within_an_update_undoes_it(moment, toy, monkeypatch, ctrl_c):
    step, calls, states = torch.optim.Adam.step, [], []

    def interrupted(self, *arguments):
        calls.append(1)
        if moment == "after":
            step(self, *arguments)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        if moment == "before":
            step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    keep = lambda step, teacher, history: states.append(teacher.images.detach().clone())  # noqa: E731
    teacher, history = train(pixels, METAGRADS["unrolled"], toy, callback=keep)
    assert history.interrupted and len(history) == len(states) == 2
    assert torch.equal(teacher.images, states[-1])


WRITERS = {
    "checkpoint": lambda path: fitting(checkpoint=path),
    "teacher": lambda path: save_teacher(pixels(), path),
    "teaching set": lambda path: pixels().export(path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_full_disk_is_one_error(write, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write .*file: No space left.*unchanged"):
        write(tmp_path / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/sys/kernel"), reason="needs a folder that nobody may write to")
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_folder_that_nobody_may_write_to_is_one_error(write):
    with pytest.raises(OSError, match="cannot write /sys/kernel/file: .*another folder"):
        write("/sys/kernel/file")


# ---------------------------------------------------------------- divergence


def test_an_update_out_of_range_is_undone(toy, tmp_path, monkeypatch):
    path, step = tmp_path / "run", torch.optim.Adam.step

    def overflow(self, *arguments):
        step(self, *arguments)
        self.param_groups[0]["params"][0].data[0] = float("inf")

    monkeypatch.setattr(torch.optim.Adam, "step", overflow)
    for _ in range(2):  # going on, it stops at the same step
        teacher = pixels()
        with pytest.raises(DivergenceError, match="outer step 0: the update left the range.*Lower"):
            fit(teacher, Unrolled(), SMALL, toy, 3, progress=False, checkpoint=path)
        assert torch.equal(teacher.images, pixels().images)


def test_a_series_that_grows_stops_the_training(toy, tmp_path):
    teacher = pixels(weight_decay=0.5)
    with pytest.warns(DivergenceWarning), pytest.raises(
        DivergenceError, match="outer step 0: the Neumann series grew to .*more damping.*as it was"
    ) as caught:  # fmt: skip
        fit(
            teacher,
            Implicit("neumann", neumann_terms=20, scale=20),
            SMALL,
            toy,
            3,
            progress=False,
            checkpoint=tmp_path / "run",
        )
    assert len(caught.value.history) == 0 and (tmp_path / "run").exists()


# ---------------------------------------------------------------- the same again

AGAIN = """
import hashlib, sys
import torch
torch.set_num_threads(1)
torch.manual_seed(int(sys.argv[1]))
from conftest import toy_data
from test_checkpoint import METAGRADS, generated, pixels, train
for name, make in METAGRADS.items():
    for teacher in (pixels, generated, lambda: generated("fresh")):
        trained, history = train(teacher, make, toy_data())
        parts = b"".join(t.detach().numpy().tobytes() for t in trained.state_dict().values())
        print(hashlib.sha256(parts).hexdigest(), history.loss, history.gradient_norm, history.validation)
"""


def test_every_method_repeats_in_a_fresh_process():
    root, said = Path(gtnlib.__file__).parents[1], []
    for seed in "12":
        here = Path(__file__).parent
        paths = os.pathsep.join(map(str, (root, here, here / "outer")))
        done = subprocess.run([sys.executable, "-c", AGAIN, seed], capture_output=True, text=True, check=True,
                              env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed})  # fmt: skip
        said.append(done.stdout)
    assert said[0] == said[1] and len(set(said[0].splitlines())) == 3 * len(METAGRADS), said


def test_the_readme_promises_the_same_numbers_to_as_many_threads():
    lines = (Path(gtnlib.__file__).parents[1] / "README.md").read_text().splitlines()
    promises = [sentence for line in lines for sentence in line.split(". ") if "same numbers" in sentence]
    assert promises and all("with as many threads" in sentence for sentence in promises)


# ---------------------------------------------------------------- no pickle


class Harm:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


PAYLOADS = {
    "pickle": lambda file, harm: pickle.dump(harm, file),
    "torch": lambda file, harm: torch.save({"a": harm}, file),
    "npz": lambda file, harm: np.savez(file, images=np.array([harm], dtype=object)),
    "npy": lambda file, harm: np.save(file, np.array([harm], dtype=object)),
}
READERS = {
    "checkpoint": lambda path: fitting(checkpoint=path),
    "teacher": load_teacher,
    "record": Record.load,
    "teaching set": TeachingSet.load,
    "IDX": read_idx,
    "MNIST": _read_shipped_mnist,
    "CIFAR-10": lambda path: cifar10(path),
    "an experiment's progress": lambda path: progress(path),
}


def cifar10(path):
    """Read the file as a part of CIFAR-10."""
    batches = path.parent / "cifar-10-batches-bin"
    batches.mkdir()
    path.rename(batches / "data_batch_1.bin")
    load_dataset("cifar10", path.parent, download=False, device="cpu")


def progress(path):
    """Go on with an experiment that kept the file."""
    experiment = EXPERIMENTS["pixels-unrolled-1"]
    work = experiment.work_folder(path.parent)
    work.mkdir()
    path.rename(work / "progress.json")
    experiment.run(Context(path.parent, torch.device("cpu"), progress=False))


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("write", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_a_malicious_file_does_nothing(write, read, tmp_path):
    with open(tmp_path / "file", "wb") as file:
        write(file, Harm(tmp_path / "harm"))
    with pytest.raises(DataError, match=str(tmp_path)):
        read(tmp_path / "file")
    assert not (tmp_path / "harm").exists()


def test_the_payload_would_do_harm(tmp_path):
    pickle.loads(pickle.dumps(Harm(tmp_path / "harm")))
    assert (tmp_path / "harm").exists()


def test_nothing_in_the_library_unpickles_or_evaluates():
    for path in Path(gtnlib.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8").replace("allow_pickle=False", "")
        for word in ("import pickle", "allow_pickle", "torch.load", "torch.save", "eval(", "exec("):
            assert word not in text, (path, word)


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist", "cifar10"])
def test_a_download_of_another_content_is_refused(name, tmp_path, monkeypatch):
    """Even if it could be unpacked."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("malicious"))

    class Answer:
        length, url = len(packed.getvalue()), None

        def __init__(self, *arguments, **keywords):
            self.parts = [packed.getvalue()]

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def read(self, size=-1):
            return self.parts.pop() if self.parts else b""

    monkeypatch.setattr(urllib.request, "urlopen", Answer)
    with pytest.raises(DataError, match="(?s)could not be downloaded"):
        load_dataset(name, tmp_path, device="cpu")
    assert not list(tmp_path.rglob("malicious"))


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize("words, message", [
    (["show", "pixels-unroled-10"], "NAME is 'pixels-unroled-10'.*Did you mean 'pixels-unrolled-10'"),
    (["run", "pixels-unrolled-1", "--device", "tpu9"], "--device is 'tpu9'"),
    (["check", "pixels-unrolled-1", "--out", "nowhere"], "there is no record nowhere"),
    (["check", "pixels-unrolled-1", "--device", ""], "--device is ''"),
    (["rum", "pixels-unrolled-1"], "COMMAND is 'rum', but must be one of list, show,.*Did you mean 'run'"),
    (["chek"], "COMMAND is 'chek'.*Did you mean 'check'"),
    (["Table"], "COMMAND is 'Table'.*Did you mean 'table'"),
])  # fmt: skip
def test_the_command_line_says_one_line(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and len(error.strip().splitlines()) == 1
