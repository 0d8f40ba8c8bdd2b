"""Many measurements, each kept as one small file, so that a kill loses only those under way."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from gtnlib.support.errors import DataError, check_count, check_path
from gtnlib.support.files import read_json, sealed, write_whole
from gtnlib.support.identity import differences, plain
from gtnlib.support.progress import progress_bar


def run_jobs(jobs: Mapping[str, dict], measure: Callable[[dict], dict], folder: str | os.PathLike,
             workers: int = 1, progress: bool = True) -> dict[str, dict]:  # fmt: skip
    """measure(job) for every job that has no result in `folder` yet; all results, by name.

    Parameters
    ----------
    jobs: by name, which is also that of the file NAME.json, all that decides the result, as values
        that JSON has.
    measure: returns a table of JSON values. With several workers it must be picklable.
    workers: processes; more than one by joblib, which must be installed.

    Raises ValueError if the folder holds a result of another job under a name, DataError if one is
    damaged; nothing is measured then.
    """
    folder = check_path("folder", folder)
    check_count("workers", workers)
    jobs = {name: plain(job) for name, job in jobs.items()}
    stored = {name: _read(folder / f"{name}.json", job) for name, job in jobs.items()}
    results = {name: result for name, result in stored.items() if result is not None}
    left = [name for name in jobs if name not in results]
    work = [(measure, jobs[name], folder / f"{name}.json") for name in left]
    with progress_bar(len(jobs), folder.name, progress, done=len(jobs) - len(left)) as bar:
        for name, result in zip(left, _results(work, workers)):
            results[name] = result
            bar.update()
    return {name: results[name] for name in jobs}


def _results(work: list[tuple], workers: int):
    if workers == 1:
        return (_one(*parts) for parts in work)
    try:
        from joblib import Parallel, delayed
    except ImportError:
        raise ValueError(f"workers is {workers}, which needs joblib: pip install gtnlib[parallel].") from None
    return Parallel(workers, return_as="generator")(delayed(_one)(*parts) for parts in work)


def _one(measure, job: dict, path: Path) -> dict:
    result = measure(job)
    write_whole(path, json.dumps(sealed({"job": job, "result": result}), indent=1, allow_nan=False).encode())
    return result


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
