"""Measurements by the workers of a cluster: equal to those of one process, and safe from a kill."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from gtnlib import PixelTeacher
from gtnlib.experiments import Comparison, Lessons
from gtnlib.experiments.__main__ import main
from gtnlib.experiments.lessons import Measuring
from gtnlib.experiments.records import Record
from gtnlib.judge.training import Recipe
from gtnlib.support.identity import code
from gtnlib.support.jobs import Pool, _fetched, _one, run_jobs
from gtnlib.teachers.files import save_teacher

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
TOYS = {
    "toy": Comparison(
        "toy", "tiny", {"pixels": (Lessons("taught"), [Recipe()]),
                        "real": (Lessons("real", 10), [Recipe("sgd", 0.1), Recipe("sgd", 1e-6)])},
        {"narrow": ("MLP", {"widths": [8]})}, steps=(2, 3), seeds=2, selection_images=100)
}  # fmt: skip


# ---------------------------------------------------------------- clusters on this machine


@contextmanager
def started(folder, *commands):
    """Processes in groups of their own, ended with all that they started."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE))),
                   "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
    running = []
    try:
        for i, command in enumerate(commands):
            with open(folder / f"{i}.log", "w") as log:
                running.append(subprocess.Popen([sys.executable, "-m", *command], cwd=folder, env=environment,
                                                start_new_session=True, stdout=log, stderr=log))  # fmt: skip
        yield running
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(ready, seconds=120):
    limit = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < limit, "it does not start"
        time.sleep(0.1)
    return found


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def dask(folder):
    pytest.importorskip("distributed")
    port = free_port()
    address, quiet = f"tcp://127.0.0.1:{port}", ("--no-dashboard", "--host", "127.0.0.1")
    scheduler = "distributed.cli.dask_scheduler", *quiet, f"--port={port}"
    worker = "distributed.cli.dask_worker", address, *quiet, "--nthreads=1"
    with started(folder, scheduler, worker, worker) as running:
        until(lambda: "Registered to" in (folder / "1.log").read_text())
        yield address, running[0]


@contextmanager
def ray(folder):
    pytest.importorskip("ray")
    port = free_port()
    here = "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--node-ip-address=127.0.0.1"
    with started(folder, (*here, "--head", f"--port={port}", "--include-dashboard=false")) as running:
        until(lambda: "Ray runtime started" in (folder / "0.log").read_text())
        (folder / "other").mkdir()
        with started(folder / "other", (*here, f"--address=127.0.0.1:{port}")):
            yield f"127.0.0.1:{port}", running[0]


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(request, tmp_path_factory):
    """Backend, address and first process of a cluster of two workers."""
    with globals()[request.param](tmp_path_factory.mktemp(request.param)) as (address, process):
        yield request.param, address, process


@pytest.fixture
def taught(mnist, tmp_path):
    """A folder with one recorded teacher."""
    teacher = PixelTeacher(images_per_class=1, steps=3).start_from(
        mnist.train, torch.Generator().manual_seed(0)
    )
    save_teacher(teacher, tmp_path / "taught.safetensors")
    return tmp_path


# ---------------------------------------------------------------- what they measure


def test_a_cluster_measures_what_one_process_does(cluster, taught, capsys):
    backend, address, _ = cluster
    words, there = ["run", "toy", "--device", "cpu"], ["--backend", backend, "--address", address]
    assert main([*words, "--out", str(taught / "here")], TOYS, taught) == 0
    assert main([*words, "--out", str(taught / "there"), *there], TOYS, taught) == 0
    one, other = (Record.load(taught / folder / "toy.json").results["cells"] for folder in ("here", "there"))
    assert [{**cell, "seconds": 0} for cell in one] == [{**cell, "seconds": 0} for cell in other]
    assert len(list((taught / "there").rglob("test/*.json"))) == len(one) == 4


def measure(job):
    """A square; the first to measure job 7 dies of it, once all before it are safe."""
    first = not list(Path(job["log"]).glob(f"{job['n']}-*"))
    Path(job["log"], f"{job['n']}-{os.getpid()}").touch()
    if job["n"] == 7 and first:
        mine = [path.name.partition("-")[0] for path in Path(job["log"]).glob(f"*-{os.getpid()}")]
        until(lambda: all(Path(job["out"], f"{n}.json").exists() for n in mine if n != "7"))
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": job["n"] ** 2, "process": os.getpid()}


def test_a_killed_worker_loses_only_what_it_was_measuring(cluster, tmp_path):
    backend, address, _ = cluster
    log, out = tmp_path / "log", tmp_path / "out"
    log.mkdir()
    jobs = {str(n): {"n": n, "log": str(log), "out": str(out)} for n in range(12)}
    found = run_jobs(jobs, measure, out, Pool(1, backend, address), progress=False)
    assert [found[name]["square"] for name in jobs] == [n * n for n in range(12)]
    assert os.getpid() not in {result["process"] for result in found.values()}
    measured = [path.name.partition("-")[0] for path in log.iterdir()]
    assert sorted(measured) == sorted([*jobs, "7"])


@pytest.mark.parametrize("cluster", ["dask"], indirect=True)
def test_a_cluster_that_is_lost_is_one_error_and_keeps_what_came_back(cluster, tmp_path):
    import dask.config

    _, address, scheduler = cluster
    out = tmp_path / "out"

    def lose():
        until(lambda: list(out.glob("*.json")))
        os.killpg(scheduler.pid, signal.SIGKILL)

    jobs = {str(n): {"n": n} for n in range(500)}
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), ThreadPoolExecutor() as other:
        other.submit(lose)
        with pytest.raises(
            ConnectionError, match=f"the cluster at {address} is lost: .*What was measured is kept"
        ):
            run_jobs(jobs, slowly, out, Pool(1, "dask", address), progress=False)
    assert 0 < len(list(out.glob("*.json"))) < 500
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(OSError, match=address):
        run_jobs(jobs, slowly, out, Pool(1, "dask", address), progress=False)


@pytest.mark.parametrize("status, message", [
    ("finished", "the cluster at tcp://a:1 is lost: reset by peer What was measured is kept"),
    ("error", "^reset by peer$"),  # the job's own
])  # fmt: skip
def test_a_network_that_breaks_under_a_result_is_no_error_of_the_job(status, message):
    future = SimpleNamespace(status=status, result=Mock(side_effect=OSError("reset by peer")))
    with pytest.raises(OSError, match=message):
        _fetched(future, "tcp://a:1")


def slowly(job):
    time.sleep(0.1)
    return {}


# ---------------------------------------------------------------- what travels, and what is refused


def test_a_recorded_teacher_travels_and_no_path_does(taught):
    cloudpickle = pytest.importorskip("cloudpickle")
    job = TOYS["toy"]._job(("pixels", "narrow", 2), 0, [0], ["test"], taught)
    measuring = Measuring(taught, "cpu")
    sent = cloudpickle.dumps((measuring.portable(job), job))
    assert str(taught).encode() not in sent
    assert (taught / "taught.safetensors").read_bytes() in sent
    save_teacher(PixelTeacher(images_per_class=1, steps=3), taught / "taught.safetensors")
    with pytest.raises(ValueError, match="taught.safetensors has changed since this run began"):
        measuring.portable(job)


def test_a_worker_of_other_code_is_one_error():
    with pytest.raises(
        ValueError, match="the worker on .* has other code: torch is .* there, but '1.0' here"
    ):
        _one({**code(), "torch": "1.0"}, "name", slowly, {})


@pytest.mark.parametrize("arguments, message", [
    ((0,), "workers is 0"), ((1, "dusk"), "backend is 'dusk'.*Did you mean 'dask'"),
    ((1, "dask"), "backend is 'dask', which needs the address"),
    ((1, "loky", "tcp://a:1"), "address is 'tcp://a:1', which needs backend"),
    ((2, "ray", "auto"), "workers is 2, but a cluster of ray has its own"),
])  # fmt: skip
def test_a_pool_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pool(*arguments)


@pytest.mark.parametrize("backend, package", [("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_missing_is_one_error(backend, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"{package} cannot be imported.*pip install gtnlib.{package}"):
        run_jobs({"a": {}}, slowly, tmp_path, Pool(1, backend, "auto"), progress=False)
