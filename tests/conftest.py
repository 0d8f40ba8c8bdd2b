"""What several test files share: real MNIST, and problems small enough for float64."""

import functools
import random
import signal

import gtnlib.inner.compiled
import numpy as np
import pytest
import torch

from gtnlib import Dataset, FlatStudent, Split, load_dataset
from gtnlib.support.seeds import seeded

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
torch.set_num_threads(1)  # the tensors are tiny, so more threads only wait for each other


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where tests/gpu runs: cuda, or cpu as a rehearsal")


@pytest.fixture(scope="session")
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def mnist():
    return load_dataset("mnist", device="cpu")


def random_split(n, shape, classes, seed, dtype):
    """Random images whose mean depends on the class, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    means = torch.randn(classes, *shape, generator=generator, dtype=dtype)
    return Split(means[labels] + torch.randn(n, *shape, generator=generator, dtype=dtype), labels,
                 num_classes=classes)  # fmt: skip


@pytest.fixture(scope="session")
def tiny():
    """A split of 30 float64 images (1, 8, 8) in three classes."""
    return random_split(30, (1, 8, 8), 3, seed=0, dtype=torch.float64)


def toy_data():
    """A data set of float32 images (1, 8, 8) in three classes."""
    parts = [random_split(n, (1, 8, 8), 3, seed=1, dtype=torch.float32) for n in (120, 60, 60)]
    return Dataset("toy", *parts)


@pytest.fixture(scope="session")
def toy():
    return toy_data()


@pytest.fixture(scope="session")
def flat64():
    """flat64(build, seed=0): the network that `build` returns, as a float64 FlatStudent."""
    return lambda build, seed=0: FlatStudent(seeded(build, seed).double())


@pytest.fixture
def quick_compile(monkeypatch):
    """torch.compile with all of its tracing and guards, but without its slow last stage."""
    monkeypatch.setattr(gtnlib.inner.compiled, "_kernels", {})
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


@pytest.fixture
def random_state_untouched():
    """Fails the test if it leaves the random state of torch, numpy or random changed."""

    def states():
        kind, keys, *rest = np.random.get_state()
        return random.getstate(), torch.get_rng_state().tolist(), kind, keys.tolist(), rest

    before = states()
    yield
    assert states() == before
