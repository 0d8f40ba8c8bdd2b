"""Many measurements, each kept as one small file, so that a kill loses only those under way.

They are carried out here one after the other, by several processes of this machine, or by the workers
of a cluster, which share nothing with this machine: a job goes to a worker with all that it needs, and
its result comes back to be written here.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from gtnlib.support.errors import DataError, check_choice, check_count, check_path
from gtnlib.support.files import locked, read_json, sealed, write_whole
from gtnlib.support.identity import code, differences, plain
from gtnlib.support.progress import progress_bar

BACKENDS = ("loky", "dask", "ray")
AHEAD = 2  # jobs sent to a cluster, per worker, before results are back
_turn = threading.Lock()  # torch's random state belongs to a process, so its threads take turns


@dataclass(frozen=True)
class Pool:
    """Who carries jobs out.

    workers: processes of this machine, by joblib; 1 is this one. backend: "loky" for them, or "dask" or
    "ray" for a cluster that runs already, and address: where, as tcp://host:8786 or, on a machine of
    ray's, host:6379.
    """

    workers: int = 1
    backend: str = "loky"
    address: str | None = None

    def __post_init__(self):
        check_count("workers", self.workers)
        cluster = check_choice("backend", self.backend, BACKENDS) != "loky"
        if cluster and not self.address:
            raise ValueError(f"backend is {self.backend!r}, which needs the address of its scheduler.")
        if self.address and not cluster:
            raise ValueError(f"address is {self.address!r}, which needs backend 'dask' or 'ray'.")
        if cluster and self.workers != 1:
            raise ValueError(f"workers is {self.workers}, but a cluster of {self.backend} has its own.")

    def map(self, function: Callable, work: Iterator[tuple]) -> Generator:
        """function(*parts) for all of `work`, in the order in which they end.

        Raises ValueError if a package is missing, OSError if a cluster is not there or is lost.
        """
        if self.backend == "dask":
            yield from _by_dask(self.address, function, work)
        elif self.backend == "ray":
            yield from _by_ray(self.address, function, work)
        elif self.workers > 1:
            joblib = _package("joblib", "parallel")
            parallel = joblib.Parallel(self.workers, batch_size=1, return_as="generator_unordered")
            yield from parallel(joblib.delayed(function)(*parts) for parts in work)
        else:
            yield from (function(*parts) for parts in work)


def _package(name: str, group: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} cannot be imported ({error}): pip install gtnlib[{group}].") from None


# Not by joblib's backend for dask, which measures here, not there, if the cluster has one worker, and takes
# the error of a cluster that is lost for a result.


def _by_dask(address: str | None, function: Callable, work: Iterator[tuple]) -> Generator:
    dask = _package("distributed", "distributed")
    try:
        with dask.Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            ahead = AHEAD * sum(client.ncores().values())
            submit = partial(client.submit, function, pure=False)
            running = dask.as_completed([submit(*parts) for parts in islice(work, ahead)], loop=client.loop)
            for future in running:
                result = _fetched(future, address)
                future.release()  # or it is measured again if its worker is lost
                yield result
                for parts in islice(work, 1):
                    running.add(submit(*parts))
    except (dask.scheduler.KilledWorker, dask.comm.CommClosedError, dask.client.ClosedClientError,
            CancelledError) as error:  # fmt: skip
        raise _lost(address, error) from error


def _fetched(future, address: str | None):
    """The result of a job that has ended. It is fetched over the network, which may break just then."""
    try:
        return future.result()
    except OSError as error:
        if future.status == "error":  # what the job itself has raised
            raise
        raise _lost(address, error) from error


def _by_ray(address: str | None, function: Callable, work: Iterator[tuple]) -> Generator:
    ray = _package("ray", "ray")
    try:
        with ray.init(address, log_to_driver=False):
            submit = ray.remote(function).remote
            ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
            running = [submit(*parts) for parts in islice(work, ahead)]
            while running:
                (done,), running = ray.wait(running)
                yield ray.get(done)
                running += [submit(*parts) for parts in islice(work, 1)]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # what the worker raised
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.RaySystemError) as error:
        raise _lost(address, error) from error


def _lost(address: str | None, error: BaseException) -> ConnectionError:
    reason = str(error).partition("\n")[0]
    return ConnectionError(f"the cluster at {address} is lost: {reason} What was measured is kept; go on "
                           "with it when the cluster is there again.")  # fmt: skip


def run_jobs(jobs: Mapping[str, dict], measure: Callable[[dict], dict], folder: str | os.PathLike,
             pool: Pool = Pool(), progress: bool = True) -> dict[str, dict]:  # fmt: skip
    """measure(job) for every job that has no result in `folder` yet; all results, by name.

    Parameters
    ----------
    jobs: by name, which is also that of the file NAME.json, all that decides the result, as values
        that JSON has.
    measure: returns a table of JSON values. With several workers it must be picklable; if it has a
        method `portable`, what that makes of a job is sent to the worker in its place.
    pool: who measures.

    Raises BlockingIOError if the folder is in use by another run, ValueError if it holds a result of
    another job under a name, DataError if one is damaged, and nothing is measured then; ValueError if a
    worker runs other code than this process.
    """
    folder = check_path("folder", folder)
    jobs = {name: plain(job) for name, job in jobs.items()}
    with locked(folder):
        return _run(jobs, measure, folder, pool, progress)


def _run(jobs: Mapping[str, dict], measure, folder: Path, pool: Pool, progress: bool) -> dict[str, dict]:
    stored = {name: _read(folder / f"{name}.json", job) for name, job in jobs.items()}
    results = {name: result for name, result in stored.items() if result is not None}
    left = [name for name in jobs if name not in results]
    portable = getattr(measure, "portable", lambda job: measure)
    work = ((code(), name, portable(jobs[name]), jobs[name]) for name in left)
    if not left:
        return results
    with progress_bar(len(jobs), folder.name, progress, done=len(jobs) - len(left)) as bar:
        with closing(pool.map(_one, work)) as found:
            for name, result in found:
                kept = sealed({"job": jobs[name], "result": result})
                content = json.dumps(kept, indent=1, allow_nan=False)
                write_whole(folder / f"{name}.json", content.encode())
                results[name] = result
                bar.update()
    return {name: results[name] for name in jobs}


def _one(asked: dict, name: str, measure: Callable[[dict], dict], job: dict) -> tuple[str, dict]:
    """Runs on the worker."""
    found = differences(code(), asked)
    if found:
        raise ValueError(f"the worker on {socket.gethostname()} has other code: {'; '.join(found)}. Install "
                         "the same on all machines, and start the workers again.")  # fmt: skip
    with _turn:
        return name, measure(job)


def _read(path: Path, job: dict) -> dict | None:
    """The result in a file, or None if there is no file."""
    try:
        stored = read_json(path)
        found, result = differences(stored["job"], job), stored["result"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}. Remove it to measure again.") from error
    if found:
        raise ValueError(f"{path} is of another job: {'; '.join(found)}. Use another folder.")
    return result
