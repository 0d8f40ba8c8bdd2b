"""Speed against the number of processes: of one training by torchrun, and of a search by dask's workers.

    python tests/benchmarks/scaling.py             # 1 and 2 of each here, and what more would give on paper

On paper: n processes take s/n students of an outer step each, t seconds a student, and then add up their
gradients, 4 P bytes for P parameters. A ring sends 2 (n − 1)/n of that through every link, of B bytes a second:

    seconds an outer step ≥ t s/n + 8 P (n − 1)/(n B)

so that no number of processes, were there as many students, gives more than t s/(t + 8 P/B).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from gtnlib import ConvNet, GeneratorTeacher, PixelTeacher, Unrolled, fit, load_dataset
from gtnlib.experiments.machine import commit, device_name, now, versions
from gtnlib.experiments.records import Record
from gtnlib.support.jobs import Pool, run_jobs

TEACHERS = {
    "a GTN of 32 × 64": lambda: GeneratorTeacher(32, 64),
    "500 pixel images": lambda: PixelTeacher(50, 32, 64),
}
STUDENTS = 8


def parameters(teacher) -> int:
    return sum(p.numel() for p in teacher.parameters() if p.requires_grad)


def limit(seconds: float, students: int, count: int, processes: int, bandwidth: float) -> float:
    """The least seconds of an outer step; `seconds` a student, `count` parameters, `bandwidth` bytes a second."""
    return seconds * students / processes + 8 * count * (processes - 1) / (processes * bandwidth)


def train(steps: int, students: int = STUDENTS) -> list[float]:
    """Seconds of every outer step but the first."""
    data = load_dataset("mnist", device="cpu")
    history = fit(GeneratorTeacher(8, 64), Unrolled(), ConvNet, data, steps + 1, students_per_step=students,
                  progress=False, compile=False)  # fmt: skip
    return [record.seconds for record in history.records[1:]]


def launched(processes: int, steps: int) -> list[float]:
    """Seconds of the outer steps that so many processes share."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               __file__, "--worker", str(steps)]  # fmt: skip
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return json.loads(done.stdout.splitlines()[-1])


def job(asked: dict) -> dict:
    """A short training, as a search has many; one thread a worker."""
    torch.set_num_threads(1)
    return {"seconds": train(asked["steps"], students=1)}


def searched(workers: int, jobs: int) -> list[float]:
    """Seconds that so many workers of a cluster here take for all the jobs, their start not counted."""
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        pool = Pool(1, "dask", cluster.scheduler_address)
        run_jobs(
            {f"warm-{i}": {"steps": 1, "n": i} for i in range(2 * workers)}, job, folder, pool, progress=False
        )
        start = time.perf_counter()
        run_jobs({f"{i:03}": {"steps": 1, "n": i} for i in range(jobs)}, job, folder, pool, progress=False)
        return [time.perf_counter() - start]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--gigabits", type=float, default=1.0, help="of the network on paper, a second")
    parser.add_argument("--output", default="scaling.json")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        torch.set_num_threads(1)
        seconds = train(args.worker)
        if os.environ["RANK"] == "0":
            print(json.dumps(seconds))
        return
    started, start = now(), time.monotonic()
    training = {n: launched(n, args.steps) for n in args.processes}
    search = {n: searched(n, args.jobs) for n in args.processes}
    Record(
        name="scaling", seeds={}, device=device_name(torch.device("cpu")), versions=versions(), commit=commit(),
        configuration={"processes": args.processes, "students": STUDENTS, "steps": args.steps, "jobs": args.jobs},
        started=started, seconds=round(time.monotonic() - start, 1), peak_memory_mb=None, curves={},
        results={name: {str(n): [round(s, 4) for s in seconds] for n, seconds in times.items()}
                 for name, times in (("an outer step", training), ("all jobs", search))},
    ).save(args.output)  # fmt: skip
    for what, times in (("an outer step", training), (f"{args.jobs} jobs", search)):
        first = statistics.median(times[args.processes[0]])
        for n, seconds in times.items():
            took = statistics.median(seconds)
            print(f"{what}, {n} at work: {took:.3f} s, {first / took:.2f} times as fast")
    each = statistics.median(training[args.processes[0]]) * args.processes[0] / STUDENTS
    for name, make in TEACHERS.items():
        count, bandwidth = parameters(make()), args.gigabits * 1e9 / 8
        print(
            f"{name}: {4 * count / 1e6:.1f} MB to add up; on paper, at {args.gigabits:g} Gbit/s and {each:.3f} s a "
            "student, one a process: "
            + ", ".join(
                f"{n} processes {each * n / limit(each, n, count, n, bandwidth):.1f} times as fast"
                for n in (2, 4, 8, 16, 64)
            )
        )


if __name__ == "__main__":
    main()
