"""What one outer step costs: seconds and memory, of each method, in processes of their own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from gtnlib.data.load import load_dataset
from gtnlib.experiments.base import Check, Context, Experiment, Tally, check_arguments, sampled
from gtnlib.experiments.distillation import METAGRADS
from gtnlib.experiments.machine import resident_bytes
from gtnlib.experiments.records import Record
from gtnlib.inner.flat import flat_student
from gtnlib.inner.step import StudentRun
from gtnlib.show.measure import seconds
from gtnlib.students.networks import ConvNet
from gtnlib.support.errors import check_choice, check_count
from gtnlib.support.jobs import run_jobs
from gtnlib.teachers.generator import GeneratorTeacher

TOLERANCE = 0.35  # of memory: an allocator keeps more or less of what was freed
# How glibc keeps it changes the peak by half; so always the same way, that of the Makefile.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


@dataclass(frozen=True)
class Cost(Experiment):
    """Outer steps of a GTN by several methods, against inner steps and against the student's width.

    Parameters
    ----------
    methods: by name, a name of `METAGRADS` and arguments.
    steps: numbers of inner steps, at the first of `widths`; widths: channels of the blocks of a
        `ConvNet`, at `steps_of_widths` inner steps.
    rounds: outer steps that are timed, after one to warm up. repeats: processes per setting, spread
        over the whole run, so that a machine that is slow for a while is slow for all.
    teacher_args: of `GeneratorTeacher`.

    The record's results hold one cell per setting: method, steps, width, and of every process the
    median of its seconds and its peak of memory above and at the baseline, which is the process with
    data, teacher and student in memory; in 2²⁰ bytes, of the process on a CPU, of tensors on a GPU.
    """

    methods: Mapping[str, tuple[str, Mapping]]
    steps: Sequence[int] = (4, 8, 16, 32, 64, 128)
    widths: Sequence[Sequence[int]] = ((16, 32), (32, 64), (64, 128))
    steps_of_widths: int = 16
    rounds: int = 3
    repeats: int = 2
    teacher_args: Mapping = field(default_factory=dict)
    data: str = "mnist"

    def __post_init__(self):
        for name, (metagrad, arguments) in self.methods.items():
            found = METAGRADS[check_choice(f"methods[{name!r}]", metagrad, METAGRADS)]
            check_arguments(f"arguments of {name}", arguments, found)
        check_arguments("teacher_args", self.teacher_args, GeneratorTeacher, ("steps", "generator"))
        for name in ("steps_of_widths", "rounds", "repeats"):
            check_count(name, getattr(self, name))

    def settings(self) -> list[dict]:
        """All that decides a measurement, but the repeat."""
        lengths = [(steps, self.widths[0]) for steps in self.steps]
        widths = [(self.steps_of_widths, width) for width in self.widths]
        return [
            {"method": name, "metagrad": metagrad, "metagrad_args": dict(arguments), "steps": steps,
             "width": list(width), "teacher_args": dict(self.teacher_args), "rounds": self.rounds,
             "data": self.data}
            for steps, width in dict.fromkeys((steps, tuple(width)) for steps, width in lengths + widths)
            for name, (metagrad, arguments) in self.methods.items()
        ]  # fmt: skip

    def run(self, context: Context) -> Record:
        tally, settings = Tally(self, context), self.settings()
        where = {"device": str(context.device), "threads": torch.get_num_threads()}
        jobs = {f"{repeat:02}-{i:04}": {**setting, "repeat": repeat, **where}
                for repeat in range(self.repeats) for i, setting in enumerate(settings)}  # fmt: skip
        folder = self.work_folder(context.folder) / "measured"
        found = run_jobs(jobs, in_fresh_process, folder, progress=context.progress)
        cells = []
        for i, setting in enumerate(settings):
            each = [found[f"{repeat:02}-{i:04}"] for repeat in range(self.repeats)]
            cells.append({
                "method": list(self.methods).index(setting["method"]), "steps": setting["steps"],
                "width": setting["width"],
                "seconds": [round(statistics.median(one["seconds"]), 5) for one in each],
                "megabytes": [round(one["peak"] - one["baseline"], 1) for one in each],
                "baseline": [round(one["baseline"], 1) for one in each],
            })  # fmt: skip
        total = sum(sum(one["seconds"]) for one in found.values())
        return tally.record({"student": [0]}, total, {}, {"cells": cells}, memory=False)

    def check(self, record: Record, context: Context, students: int = 5) -> Check:
        """Measure memory again in the quickest setting of every method. Seconds are the machine's and prove
        nothing.
        """
        cells, far = record.results["cells"], []
        methods = list(record.configuration["methods"])
        settings = {(one["method"], one["steps"], *one["width"]): one for one in self.settings()}
        quickest: dict[int, int] = {}
        for i in sorted(range(len(cells)), key=lambda i: min(cells[i]["seconds"])):
            quickest.setdefault(cells[i]["method"], i)
        places = quickest.values()
        where = {"device": str(context.device), "threads": 1, "repeat": 0}
        for i in places:
            method, steps = methods[cells[i]["method"]], cells[i]["steps"]
            again = in_fresh_process({**settings[method, steps, *cells[i]["width"]], "rounds": 1, **where})
            old, new = statistics.median(cells[i]["megabytes"]), again["peak"] - again["baseline"]
            if abs(new - old) > TOLERANCE * old:
                far.append(f"{method}, {steps} steps: {old:.0f} MiB, now {new:.0f}")
        return sampled(self, "settings", len(places), far)

    def summary(self, record: Record) -> str:
        cells, repeats = record.results["cells"], record.configuration["repeats"]
        return f"{self.name}: {len(cells)} settings × {repeats} processes"


def in_fresh_process(job: Mapping) -> dict:
    """`outer_step` in a process of its own, so that nobody else's memory is counted."""
    program = "from gtnlib.experiments.cost import main; main()"
    return printed_by([sys.executable, "-c", program, json.dumps(job)])


def printed_by(command: Sequence[str]) -> dict:
    """The JSON that a process prints in its last line, its memory kept as `ALLOCATOR` says."""
    environment = {**os.environ, **ALLOCATOR}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    except subprocess.CalledProcessError as error:
        raise ChildProcessError(f"a process of its own ended with status {error.returncode}; what it said is "
                                "above.") from error  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def outer_step(job: Mapping) -> dict:
    """Seconds of every timed outer step, and memory in 2²⁰ bytes: the baseline, and the peak."""
    torch.set_num_threads(job["threads"])
    device = torch.device(job["device"])
    data = load_dataset(job["data"], device=device)
    teacher = GeneratorTeacher(steps=job["steps"], **job["teacher_args"]).to(device)
    metagrad = METAGRADS[job["metagrad"]](**job["metagrad_args"])
    student, random = flat_student(partial(ConvNet, width=job["width"]), data), data.generator()
    student.rehearse(data.train.images)  # as a fit does first; it brings modules of torch into memory

    def method():
        teacher.zero_grad()
        metagrad(teacher, StudentRun.start(student), data.train, random)

    times, baseline, peak = measure(method, job["rounds"], device)
    return {"seconds": times, "baseline": baseline, "peak": peak}


def measure(method: Callable[[], object], rounds: int, device: torch.device) -> tuple[list, float, float]:
    """Seconds of every round after one to warm up; memory before, and its peak over those rounds."""
    baseline = memory(device)
    method()
    forget_peak(device)
    return seconds(method, rounds, warm_up=0), baseline, memory(device, peak=True)


def memory(device: torch.device, peak: bool = False) -> float:
    """In use now, or at most since `forget_peak`, in 2²⁰ bytes. OSError where there is no /proc."""
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated
        return used(device) / 2**20
    return resident_bytes(peak) / 2**20


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    print(json.dumps(outer_step(json.loads(sys.argv[1]))))
