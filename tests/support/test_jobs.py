"""Measurements that are kept one by one: resumed after a kill, never mixed, in several processes."""

import os
import signal
import subprocess
import sys

import pytest

from gtnlib import DataError
from gtnlib.support.jobs import Pool, run_jobs

JOBS = {f"{n:04}": {"n": n} for n in range(6)}
SQUARES = {f"{n:04}": {"square": n * n} for n in range(6)}
KILLED = """
import os, signal, sys
from gtnlib.support.jobs import Pool, run_jobs
def measure(job):
    if job["n"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": job["n"] ** 2}
run_jobs({f"{n:04}": {"n": n} for n in range(6)}, measure, sys.argv[1], progress=False)
"""


def square(job):
    return {"square": job["n"] ** 2}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_kill_loses_only_the_job_under_way(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=os.getcwd())
    assert done.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000.json", "0001.json", "0002.json"]
    seen = []
    measure = lambda job: seen.append(job["n"]) or square(job)  # noqa: E731
    assert run_jobs(JOBS, measure, tmp_path, progress=False) == SQUARES
    assert seen == [3, 4, 5]
    assert run_jobs(JOBS, None, tmp_path, progress=False) == SQUARES


def test_several_processes_give_the_same(tmp_path):
    pytest.importorskip("joblib")
    assert run_jobs(JOBS, square, tmp_path, Pool(2), progress=False) == SQUARES


def test_workers_without_joblib_are_one_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ValueError, match="joblib cannot be imported.*gtnlib.parallel"):
        run_jobs(JOBS, square, tmp_path, Pool(2), progress=False)


def test_results_of_another_job_are_not_mixed_in(tmp_path):
    run_jobs(JOBS, square, tmp_path, progress=False)
    with pytest.raises(ValueError, match="0002.json is of another job: n is 2 there, but 7 here"):
        run_jobs({**JOBS, "0002": {"n": 7}}, square, tmp_path, progress=False)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"job": {}}', '{"job": 1, "result": {}}'])
def test_a_damaged_result_is_one_error(content, tmp_path):
    (tmp_path / "0001.json").write_text(content)
    with pytest.raises((DataError, ValueError), match="0001.json"):
        run_jobs(JOBS, square, tmp_path, progress=False)
