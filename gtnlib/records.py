"""A recorded run: what was asked for, where it ran, what came out; and the teacher it made.

A record is JSON and a teacher is safetensors, so reading either runs nothing. What ships with the
package lies in the folder `recorded`, as NAME.json and NAME.safetensors.
"""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from gtnlib.errors import DataError, check_path
from gtnlib.files import fill, read_tensors, write_tensors, write_whole
from gtnlib.teachers import Generator, GeneratorTeacher, PixelTeacher

RECORDED = Path(__file__).parent / "recorded"
TEACHERS = {"PixelTeacher": PixelTeacher, "GeneratorTeacher": GeneratorTeacher}
PRECISE = ("log_rate", "momentum_logit")  # kept in float32: an error in them counts at every step


@dataclass
class Record:
    """One run of a named experiment.

    Attributes
    ----------
    name: of the experiment. configuration: all it was asked for.
    seeds: lists of whole numbers by what they seeded: "fit", "evaluation".
    device, versions, commit: where it ran, and with what.
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
        text = json.dumps(asdict(self), indent=1, allow_nan=False)
        write_whole(path, (_short_lists(text) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Record:
        """Read what `save` wrote. Raises DataError for anything else, FileNotFoundError for nothing."""
        check_path("path", path)
        try:
            record = cls(**json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse))
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


def _refuse(constant: str):
    raise ValueError(f"it holds {constant}, which is no number")


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


def _short_lists(text: str) -> str:
    """Indented JSON with every innermost list of numbers on one line; no text in it has a line break."""
    inner = re.compile(r"\[\n\s*([-+.\deE,\s]+?)\n\s*\]")
    return inner.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text)


# ---------------------------------------------------------------- where a run takes place


def now() -> str:
    """The time, UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Of Python, torch and gtnlib."""
    import gtnlib

    return {"python": platform.python_version(), "torch": torch.__version__, "gtnlib": gtnlib.__version__}


def device_name(device: torch.device) -> str:
    """The name of the processor or GPU, and for a CPU the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = found[0].partition(":")[2].strip() if found else model
    threads = torch.get_num_threads()
    return f"{model}, {threads} thread{'s' if threads > 1 else ''}"


def commit() -> str:
    """The commit of the package's own code, with "+dirty" if it was changed since; else its version."""
    import gtnlib

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(RECORDED.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # or the repository is that of someone else
        dirty = git("status", "--porcelain", "--untracked-files=no", ".", ":!recorded")
        return git("rev-parse", "HEAD") + ("+dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return f"gtnlib {gtnlib.__version__}"


def resident_bytes(peak: bool = False) -> int:
    """Memory of this process now, or at most so far. OSError where there is no /proc."""
    kind = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {kind[:-1]}")


def peak_memory_mb(device: torch.device) -> float | None:
    """Highest memory in use so far, in 10⁶ bytes: of tensors on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        return resident_bytes(peak=True) / 1e6
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


# ---------------------------------------------------------------- teachers


def rounded(teacher):
    """A copy whose images or weights are rounded to half precision; rates and momenta are not."""
    teacher = copy.deepcopy(teacher)
    with torch.no_grad():
        for name, p in teacher.named_parameters():
            if name not in PRECISE:
                p.copy_(p.half())
    return teacher


def save_teacher(teacher, path: str | os.PathLike) -> None:
    """Write a PixelTeacher or GeneratorTeacher in half precision, and what builds it again.

    Raises ValueError for a generator of another class than `Generator`: `teacher.export` writes the
    teaching set of any.
    """
    kind = type(teacher).__name__
    if type(teacher) not in TEACHERS.values():
        raise TypeError(f"teacher must be one of {', '.join(TEACHERS)}, got {kind}.")
    arguments = dict(teacher.arguments)
    if isinstance(teacher, GeneratorTeacher):
        arguments.pop("generator")
        network = teacher.generator
        if type(network) is not Generator:
            raise ValueError(
                f"the teacher's generator is a {type(network).__name__}, but only the default Generator "
                "can be built again from a file. teacher.export(...) writes what any teacher teaches."
            )
        arguments["hidden"], arguments["channels"] = network.hidden, network.channels
    tensors = {name: value.half() if value.is_floating_point() and name not in PRECISE else value
               for name, value in teacher.state_dict().items()}  # fmt: skip
    arguments["shape"] = list(arguments["shape"])
    write_tensors(path, "teacher", tensors, {"class": kind, "arguments": arguments})


def load_teacher(path: str | os.PathLike):
    """The teacher that `save_teacher` wrote, in float32 on the CPU. Raises DataError if it is none."""
    tensors, state = read_tensors(path, "teacher")
    try:
        teacher = TEACHERS[state["class"]](**state["arguments"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise DataError(f"{path} is not a teacher, or is damaged: {error}.") from error
    fill(teacher.state_dict(), tensors, path)
    return teacher


def shipped(folder: Path = RECORDED) -> list[str]:
    """Names of the records that come with the package."""
    return sorted(path.stem for path in folder.glob("*.json"))
