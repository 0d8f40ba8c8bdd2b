"""The command line: python -m gtnlib.experiments list | show NAME | run NAME | check NAME | table.

Exit status: 0 for success, 1 for a failed check or a divergence, 2 for bad input, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gtnlib.data.sets import check_device, default_device
from gtnlib.experiments import EXPERIMENTS, Context, Experiment
from gtnlib.experiments.records import RECORDED, Record, shipped
from gtnlib.experiments.table import table
from gtnlib.support.errors import DataError, DivergenceError, check_choice
from gtnlib.support.identity import differences
from gtnlib.support.interrupt import handled
from gtnlib.support.jobs import Pool

COMMAND = "python -m gtnlib.experiments"
COMMANDS = ("list", "show", "run", "check", "table")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog=COMMAND, description="The named experiments of the book.")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, help: str, named: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        if named:
            made.add_argument("name", metavar="NAME", help="of the experiment, as `list` prints it")
        return made

    def device(made: argparse.ArgumentParser) -> None:
        made.add_argument("--device", help="such as cpu or cuda; default the GPU if there is one")

    def teachers(made: argparse.ArgumentParser) -> None:
        made.add_argument("--teachers", type=Path, metavar="DIR",
                          help="folder of all teachers it needs; default: the shipped ones")  # fmt: skip

    command("list", "names and titles, and which have a record", named=False)
    command("show", "the configuration as JSON and, if recorded, the result")
    run = command("run", "run it, with checkpoints, and record the result")
    device(run)
    run.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    run.add_argument("--resume", action="store_true", help="go on with what lies in DIR")
    run.add_argument("--workers", type=int, default=1, metavar="N",
                     help="that measure for a comparison, judgement or search; default: 1")  # fmt: skip
    run.add_argument("--backend", default="loky", help="dask or ray: measure on a cluster that runs already")
    run.add_argument("--address", metavar="URL", help="of the cluster: tcp://host:8786, or auto for ray")
    teachers(run)
    check = command("check", "train fresh students on the recorded teacher and compare")
    device(check)
    check.add_argument("--out", type=Path, default=None, metavar="DIR", help="default: the shipped records")
    check.add_argument("--students", type=int, default=5, metavar="N", help="default: 5")
    teachers(check)
    command("table", "all shipped results", named=False)
    return top


def main(argv: Sequence[str] | None = None, experiments: Mapping[str, Experiment] = EXPERIMENTS,
         folder: Path = RECORDED) -> int:  # fmt: skip
    """Do what the arguments say and return the exit status; `folder` holds the shipped records."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and not words[0].startswith("-"):
            check_choice("COMMAND", words[0], COMMANDS)
        asked = parser().parse_args(words)
        if asked.command == "list":
            return _list(experiments, folder)
        if asked.command == "table":
            text = table(experiments, folder)
            print(text or f"no record is shipped yet; make one with `{COMMAND} run NAME`")
            return 0
        experiment = experiments[check_choice("NAME", asked.name, experiments)]
        if asked.command == "show":
            return _show(experiment, folder)
        device = default_device() if asked.device is None else check_device("--device", asked.device)
        teachers = asked.teachers or folder
        if asked.command == "run":
            pool = Pool(asked.workers, asked.backend, asked.address)
            if pool != Pool() and not experiment.pooled:
                raise ValueError(f"--workers and --backend are for comparisons, judgements and searches; "
                                 f"leave them out for {experiment.name}.")  # fmt: skip
            context = Context(asked.out, device, teachers=teachers, pool=pool)
            return _run(experiment, context, asked)
        context = Context(asked.out or folder, device, teachers=teachers)
        return _check(experiment, context, asked.students)
    except (ValueError, OSError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DivergenceError as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _list(experiments, folder: Path) -> int:
    recorded, width = set(shipped(folder)), max(map(len, experiments))
    for name, experiment in experiments.items():
        print(f"{name:{width}}  {'recorded' if name in recorded else '-':8}  {experiment.title}")
    return 0


def _show(experiment: Experiment, folder: Path) -> int:
    shown = {"configuration": experiment.configuration()}
    if experiment.record_path(folder).exists():
        record = Record.load(experiment.record_path(folder))
        shown["record"] = {name: value for name, value in vars(record).items() if name != "curves"}
    print(json.dumps(shown, indent=2))
    return 0


def _recorded(experiment: Experiment, path: Path) -> Record:
    """The record in a file. Raises ValueError if it is of another experiment, or of other settings."""
    record = Record.load(path)
    if record.name != experiment.name:
        raise ValueError(f"{path} is the record of {record.name}.")
    if found := differences(record.configuration, experiment.configuration()):
        raise ValueError(f"{path} was made with other settings: {'; '.join(found)}. "
                         "Remove it and --resume, or choose another --out, or its code.")  # fmt: skip
    return record


def _run(experiment: Experiment, context: Context, asked: argparse.Namespace) -> int:
    name, folder = experiment.name, context.folder
    options = {"out": folder, "device": asked.device, "workers": asked.workers, "backend": asked.backend,
               "address": asked.address, "teachers": asked.teachers}  # fmt: skip
    usual = {"workers": 1, "backend": "loky"}
    given = [
        f"--{key} {shlex.quote(str(value))}"
        for key, value in options.items()
        if value not in (None, usual.get(key))
    ]
    again = f"{COMMAND} run {name} {' '.join(given)} --resume"
    files, work = experiment.files(folder), experiment.work_folder(folder)
    if not asked.resume:
        for path in [*files, work]:
            if path.exists():
                raise ValueError(f"{path} exists. Go on with it by --resume, or choose another --out.")
    elif files[0].exists():
        record = _recorded(experiment, files[0])
        print(f"{name} is finished: see {files[0]}, started {record.started}.")
        return 0
    try:
        record = experiment.run(context)
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on with\n    {again}", file=sys.stderr)
        return 130
    except DivergenceError as error:
        done = 0 if error.history is None else len(error.history)
        print(f"diverged after {done} good outer steps, which {work} holds: {error}", file=sys.stderr)
        return 1
    print(f"{experiment.summary(record)}\nwritten to {' and '.join(map(str, files))}")
    return 0


def _check(experiment: Experiment, context: Context, students: int) -> int:
    path = experiment.record_path(context.folder)
    if not path.exists():
        raise ValueError(
            f"there is no record {path}. Make one with `{COMMAND} run {experiment.name}`, and name its "
            "folder by --out."
        )
    outcome = experiment.check(_recorded(experiment, path), context, students)
    print(outcome.message)
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    handled()
    sys.exit(main())
