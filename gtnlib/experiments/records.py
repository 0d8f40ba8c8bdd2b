"""A recorded run: what was asked for, where it ran, what came out; and the teacher it made.

A record is JSON and a teacher is safetensors, so reading either runs nothing. What ships with the
package lies in the folder `recorded`, as NAME.json and NAME.safetensors.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import torch

from gtnlib.data.load import STATISTICS
from gtnlib.data.scale import Scale
from gtnlib.support.errors import DataError, check_path
from gtnlib.support.files import read_json, sealed, write_whole
from gtnlib.teachers.files import load_teacher

RECORDED = Path(__file__).parent.parent / "recorded"


@dataclass
class Record:
    """One run of a named experiment.

    Attributes
    ----------
    name: of the experiment. configuration: all it was asked for.
    seeds: lists of whole numbers by what they seeded: "fit", "evaluation".
    device, versions, commit: where it ran, and with what; of a run that was resumed by other code or on
        another device, all of them in turn.
    started: UTC, ISO 8601. seconds: wall time of training, measurements not counted.
    peak_memory_mb: highest memory in use, in 10⁶ bytes: of the whole process on a CPU, of tensors on
        a GPU; None where it cannot be told.
    curves, results: nested tables and lists of finite numbers, as the experiment's kind has them;
        accuracies are fractions.
    """

    name: str
    configuration: dict
    seeds: dict[str, list[int]]
    device: str
    versions: dict[str, str]
    commit: str
    started: str
    seconds: float
    peak_memory_mb: float | None
    curves: dict
    results: dict

    def save(self, path: str | os.PathLike) -> None:
        """Write it as JSON, in one move. Raises OSError if that cannot be done."""
        text = json.dumps(sealed(asdict(self)), indent=1, allow_nan=False)
        write_whole(path, (_short(text) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Record:
        """Read what `save` wrote. Raises DataError for anything else, FileNotFoundError for nothing."""
        path = check_path("path", path)
        try:
            record = cls(**read_json(path))
            record._check()
            return record
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise DataError(f"{path} is not a record, or is damaged: {error}") from error

    def _check(self) -> None:
        for name in ("name", "device", "commit", "started"):
            _expect(isinstance(getattr(self, name), str), f"{name} must be a text")
        for name in ("configuration", "seeds", "versions", "curves", "results"):
            _expect(isinstance(getattr(self, name), dict), f"{name} must be a table of names and values")
        datetime.fromisoformat(self.started)
        for name, seeds in self.seeds.items():
            good = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
            _expect(good, f"seeds.{name} must be a list of whole numbers")
        for name, version in self.versions.items():
            _expect(isinstance(version, str), f"versions.{name} must be a text")
        _expect(_is_number(self.seconds), "seconds must be a number of at least 0")
        known = self.peak_memory_mb is None or _is_number(self.peak_memory_mb)
        _expect(known, "peak_memory_mb must be a number of at least 0, or null")
        _check_numbers(self.curves, "curves")
        _check_numbers(self.results, "results")


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"{message}.")


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _check_numbers(value, name: str) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            _check_numbers(part, f"{name}.{key}")
    elif isinstance(value, list):
        for part in value:
            _check_numbers(part, name)
    else:
        good = type(value) in (int, float) and math.isfinite(value)
        _expect(good, f"{name} must hold finite numbers, not {value!r}")


def _short(text: str) -> str:
    """Indented JSON with every list of numbers, or of such lists, and every innermost table on one line; no
    text in it has a line break.
    """
    for inner in (r"\[\n\s*([-+.\deE,\s]+?)\n\s*\]", r"\[\n\s*([-+.\deE,\s\[\]]+?)\n\s*\]"):
        text = re.sub(inner, lambda found: "[" + "".join(found[1].split()) + "]", text)
    tables = r"\{\n\s*([^{}\n]*(?:\n[^{}\n]*)*?)\n\s*\}"
    return re.sub(tables, lambda found: "{" + re.sub(r"\n\s*", " ", found[1]) + "}", text)


def recorded(name: str) -> Record:
    """The record of this name that comes with the package."""
    return Record.load(RECORDED / f"{name}.json")


def recorded_teacher(name: str, device: str | torch.device = "cpu"):
    """The first teacher of a distillation whose record comes with the package."""
    teacher = load_teacher(RECORDED / f"{name}.safetensors").to(device)
    data = recorded(name).configuration["data"]
    teacher.scale = teacher.scale or Scale(data, *STATISTICS[data])  # older files do not have it
    return teacher


def shipped(folder: Path = RECORDED) -> list[str]:
    """Names of the records that come with the package."""
    return sorted(path.stem for path in folder.glob("*.json"))
