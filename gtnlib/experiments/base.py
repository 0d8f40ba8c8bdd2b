"""What every kind of experiment offers, and the folder it works in."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import torch

from gtnlib.data.sets import default_device
from gtnlib.experiments.agreement import Agreement
from gtnlib.experiments.machine import commit, device_name, now, peak_memory_mb, versions
from gtnlib.experiments.records import RECORDED, Record
from gtnlib.support.errors import DataError, check_choice, check_number
from gtnlib.support.files import read_json, sealed, write_whole
from gtnlib.support.identity import differences, plain
from gtnlib.support.jobs import Pool


@dataclass(frozen=True)
class Context:
    """Where an experiment runs: its output folder, the device, and whether to show progress.

    teachers: folder of the recorded teachers it needs. pool: who measures, where that is much.
    """

    folder: Path
    device: torch.device = field(default_factory=default_device)
    progress: bool = True
    teachers: Path = RECORDED
    pool: Pool = Pool()


@dataclass(frozen=True)
class Check:
    """The outcome of comparing fresh measurements with a record, in one sentence."""

    passed: bool
    message: str


@dataclass(frozen=True)
class Experiment:
    """A named configuration. A kind of experiment is a subclass with `run` and `check`.

    name: also that of its files. title: one line for people. pooled: whether the context's pool measures.
    """

    pooled: ClassVar[bool] = False
    name: str
    title: str

    def run(self, context: Context) -> Record:
        """Do it, or go on with what lies in `work_folder`; write teacher and record and return it.

        Raises KeyboardInterrupt if interrupted, with everything kept to go on later.
        """
        raise NotImplementedError

    def check(self, record: Record, context: Context, students: int) -> Check:
        """Measure again, with seeds that the record does not contain, and compare."""
        raise NotImplementedError

    def summary(self, record: Record) -> str:
        """The result in one line."""
        raise NotImplementedError

    def configuration(self) -> dict:
        """All of it as plain JSON values."""
        return plain({"kind": type(self).__name__, **asdict(self)})

    def record_path(self, folder: Path) -> Path:
        return folder / f"{self.name}.json"

    def teacher_path(self, folder: Path) -> Path:
        return folder / f"{self.name}.safetensors"

    def files(self, folder: Path) -> list[Path]:
        """What a finished run has written."""
        return [self.record_path(folder)]

    def work_folder(self, folder: Path) -> Path:
        """Where an unfinished run keeps its checkpoints."""
        return folder / f"{self.name}.run"


THEN = ", then "  # between the commits, or devices, of a run that was resumed by another


class Tally:
    """When a run was first started, where and by which code, and its highest memory, over all the times it
    was resumed.

    strict: raise ValueError if the file is of a run with another configuration. Raises DataError if it is
    damaged.
    """

    def __init__(self, experiment: Experiment, context: Context, strict: bool = True):
        self.experiment, self.folder, self.device = experiment, context.folder, context.device
        self.path = experiment.work_folder(context.folder) / "progress.json"
        self.state: dict[str, Any] = {
            "configuration": experiment.configuration(), "started": now(), "peak_memory_mb": None,
            "commits": [commit()], "devices": [device_name(context.device)],
        }  # fmt: skip
        if context.device.type == "cuda":
            torch.cuda.init()  # nothing may be on it yet, and then it has no peak to reset
            torch.cuda.reset_peak_memory_stats(context.device)
        if self.path.exists():
            try:
                stored = read_json(self.path)
                found = differences(stored["configuration"], self.state["configuration"])
                started, peak = stored["started"], stored["peak_memory_mb"]
                datetime.fromisoformat(started)
                peak = peak if peak is None else check_number("peak_memory_mb", peak, 0)
                self.state |= {"started": started, "peak_memory_mb": peak}
                for where in ("commits", "devices"):
                    self.state[where] = list(
                        dict.fromkeys([*stored.get(where, ["unknown"]), *self.state[where]])
                    )
            except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                raise DataError(f"{self.path} is damaged: {error}. Remove {self.path.parent}.") from error
            if found and strict:
                raise ValueError(
                    f"{self.path.parent} holds a run of other settings: {'; '.join(found)}. "
                    "Use another --out, or remove that folder; nothing was changed."
                )
        self.write()

    def record(self, seeds: dict[str, list[int]], seconds: float, curves: dict, results: dict,
               memory: bool = True) -> Record:  # fmt: skip
        """Write the record; `memory` says whether the highest of this process belongs in it."""
        self.write()
        record = Record(
            name=self.experiment.name, configuration=self.experiment.configuration(), seeds=seeds,
            device=THEN.join(self.state["devices"]), versions=versions(),
            commit=THEN.join(self.state["commits"]),
            seconds=round(seconds, 3), curves=curves, results=results, started=self.state["started"],
            peak_memory_mb=self.state["peak_memory_mb"] if memory else None,
        )  # fmt: skip
        record.save(self.experiment.record_path(self.folder))
        return record

    def write(self) -> None:
        """Measure the memory and keep it."""
        peaks = [self.state["peak_memory_mb"], peak_memory_mb(self.device)]
        self.state["peak_memory_mb"] = max((p for p in peaks if p is not None), default=None)
        write_whole(self.path, json.dumps(sealed(self.state)).encode())


def sampled(experiment: Experiment, what: str, sample: int, far: list[str], allowed: int = 0,
            remarks: Sequence[str] = ()) -> Check:  # fmt: skip
    """The outcome for a sample of so many measurements, of which those in `far` do not agree.

    remarks: on others, which do.
    """
    agree = f"{experiment.name}: {sample} {what} measured again, {sample - len(far)} agree"
    return Check(len(far) <= allowed, "; ".join([agree, *far, *remarks]))


def compared(experiment: Experiment, what: str, found: Mapping[str, Agreement], allowed: int = 0) -> Check:
    """The outcome for a sample of cells, by name."""
    told = {good: [f"{name}: {one.said}" for name, one in found.items() if one.agrees == good and one.said]
            for good in (True, False)}  # fmt: skip
    return sampled(experiment, what, len(found), told[False], allowed, told[True])


def check_arguments(name: str, given: Mapping, function, own: tuple = ()) -> None:
    """Raise unless `given` is a table whose keys are arguments of `function`, but not those in `own`."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a table of names and values, got {given!r}.")
    allowed = [key for key in inspect.signature(function).parameters if key not in own]
    for key in given:
        check_choice(f"a name in {name}", key, allowed)
