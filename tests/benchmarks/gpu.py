"""Everything that a GPU must show, one stage after the other: `make gpu`.

    python tests/benchmarks/gpu.py                 # writes gpu.json after every stage, and a summary
    python tests/benchmarks/gpu.py --device cpu    # a rehearsal of all of it, with small sizes

A stage is begun only while there is time left (--seconds), so one call ends after about nine minutes, and
the next goes on with the stages that gpu.json does not have yet, of the same commit and device.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from gtnlib import (
    ConvNet, FlatStudent, GeneratorTeacher, GradientMatching, Implicit, StudentRun, Unrolled, evaluate, fit,
    load_dataset, make_student,
)  # fmt: skip
from gtnlib.experiments.cost import memory
from gtnlib.experiments.machine import commit, device_name, now, versions
from gtnlib.inner.compiled import CompiledStudent
from gtnlib.support.files import write_whole
from gtnlib.support.precision import autocast_dtype, tensor_cores

ROOT = Path(__file__).parents[2]
METAGRADS = {"unrolled": Unrolled, "implicit": Implicit,
             "implicit, neumann": partial(Implicit, "neumann", scale=0.05), "matching": GradientMatching}  # fmt: skip
# What a rehearsal compares: every kind of method, but not each in every form.
REHEARSED = ("training", "higher", "autograd", "Unrolled", "Unrolled, compiled", "Implicit, conjugate gradients",
             "GradientMatching")  # fmt: skip
CHAPTERS = "01_dataset_distillation", "03_generative_teaching"


# ---------------------------------------------------------------- what is measured in this process


class Setting:
    """MNIST and a GTN on a device, and a meta-gradient of it."""

    def __init__(self, device: str, dtype=torch.float32):
        self.device, self.data, self.dtype = torch.device(device), load_dataset("mnist", device=device), dtype
        real = self.data.train.first(5000)
        self.split = type(real)(real.images.to(dtype), real.labels)
        steps, batch_size = (2, 20) if device == "cpu" else (32, 64)
        teacher = GeneratorTeacher(steps, batch_size, rate=0.02, momentum=0.5, weight_decay=0.05)
        self.teacher = teacher.to(self.device, dtype)
        self.compiled = partial(CompiledStudent, kernels={})  # traced once for all outer steps, as by `fit`

    def run(self, name: str, kind=FlatStudent, precision: str = "float32") -> float:
        """The loss; the gradient is left in the teacher."""
        module = make_student(ConvNet, self.data.shape, 10, 0).to(self.device, self.dtype)
        self.teacher.zero_grad()
        random = torch.Generator(self.device).manual_seed(0)
        with tensor_cores(precision, self.device):
            student = kind(module, dtype=autocast_dtype(precision))
            return float(METAGRADS[name]()(self.teacher, StudentRun.start(student), self.split, random))

    def gradient(self) -> torch.Tensor:
        return torch.cat([p.grad.flatten() for p in self.teacher.parameters() if p.grad is not None]).double()


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def timed(function, device: torch.device, rounds: int = 5) -> list[float]:
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(round(time.perf_counter() - start, 5))
    return seconds[1:]


def precisions(device: str) -> dict:
    """The gradient's relative error against float64, by method, of each arithmetic."""
    exact, plain, found = Setting(device, torch.float64), Setting(device), {}
    exact.teacher.load_state_dict(plain.teacher.state_dict())
    for name in METAGRADS:
        exact.run(name)
        found[name] = {}
        for precision in ("float32", "tf32", "bfloat16"):
            plain.run(name, precision=precision)
            found[name][precision] = relative(plain.gradient(), exact.gradient())
    return found


def compiled(device: str) -> dict:
    """Seconds an outer step eager and compiled (on a GPU, as CUDA graphs), their difference, and memory."""
    setting, found = Setting(device), {}
    for name in METAGRADS if device != "cpu" else ("unrolled",):
        eager = timed(partial(setting.run, name), setting.device)
        wanted, before = setting.gradient(), memory(setting.device)
        first = time.perf_counter()
        setting.run(name, setting.compiled)
        first = round(time.perf_counter() - first, 2)
        graphs = timed(partial(setting.run, name, setting.compiled), setting.device)
        found[name] = {"eager": eager, "compiled": graphs, "compilation": first,
                       "difference": relative(setting.gradient(), wanted),
                       "kept_mib": round(memory(setting.device) - before, 1)}  # fmt: skip
        # Under other arithmetic the graphs recorded first must not be replayed.
        setting.run(name, precision="tf32")
        wanted = setting.gradient()
        setting.run(name, setting.compiled, "tf32")
        found[name]["difference in tf32"] = relative(setting.gradient(), wanted)
    return found


def learned(device: str) -> str:
    """The digest of a teacher after a short fit."""
    data = load_dataset("mnist", device=device)
    teacher = GeneratorTeacher(4, 32)
    fit(teacher, Unrolled(), ConvNet, data, 3, progress=False, compile=False, students_per_step=2)
    content = b"".join(p.detach().cpu().numpy().tobytes() for p in teacher.parameters())
    return hashlib.sha256(content).hexdigest()


def side_by_side(device: str) -> dict:
    """Seconds and accuracies of students that train together, and one after the other."""
    count, steps = (2, 4) if device == "cpu" else (5, 32)
    data, teacher = load_dataset("mnist", device=device), GeneratorTeacher(steps, 64)
    teacher, found = teacher.to(data.device), {}

    def together():
        found["together"] = evaluate(teacher, ConvNet, data, count).accuracy.values

    def alone():
        found["alone"] = [evaluate(teacher, ConvNet, data, [seed]).accuracy.mean for seed in range(count)]

    seconds = {function.__name__: timed(function, data.device, 2) for function in (together, alone)}
    return {**seconds, "largest_difference": max(abs(a - b) for a, b in zip(*found.values()))}


WORKERS = {"precisions": precisions, "compiled": compiled, "learned": learned, "side by side": side_by_side}


# ---------------------------------------------------------------- stages, each in processes of its own


def call(command: list[str], limit: float, **environment: str) -> str:
    """The output of a command. RuntimeError with its last lines if it fails or takes too long."""
    try:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
                              timeout=limit)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took more than {limit:.0f} s") from None
    if done.returncode:
        raise RuntimeError(
            f"status {done.returncode}: " + "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        )
    return done.stdout


def worker(name: str, args, limit: float, *launcher: str, **environment: str):
    command = [sys.executable, *launcher, __file__, "--worker", name, "--device", args.device]
    return json.loads(call(command, limit, **environment).splitlines()[-1])


def tests(args, limit):
    return call(
        [sys.executable, "-m", "pytest", "-q", "tests/gpu", "--device", args.device], limit
    ).splitlines()[-1]


def deterministic(args, limit):
    """The same digest twice, where PyTorch is asked for it; an operation that cannot be is named."""
    asked = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "GTNLIB_DETERMINISTIC": "1"}
    one, other = (worker("learned", args, limit / 2, **asked) for _ in range(2))
    if one != other:
        raise RuntimeError("two runs of one seed differ")
    return "equal bit for bit"


def processes(args, limit):
    """torchrun with one process, over nccl on a GPU, against none: the same teacher, but for rounding."""
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"
    asked = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "GTNLIB_DETERMINISTIC": "1"}
    one, other = (
        worker("learned", args, limit / 2, *launcher, **asked),
        worker("learned", args, limit / 2, **asked),
    )
    return "equal bit for bit" if one == other else "different in the last bits"


def compare(args, limit):
    """tests/benchmarks/compare.py: time, memory and agreement with other libraries."""
    few = [word for name in REHEARSED for word in ("--only", name)]
    sizes = ["--steps", "2", "--rounds", "1", *few] if args.device == "cpu" else ["--steps", "16", "64"]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "benchmarks.json")
        call(
            [
                sys.executable,
                "tests/benchmarks/compare.py",
                "--device",
                args.device,
                *sizes,
                "--output",
                str(output),
            ],
            limit,
        )
        return json.loads(output.read_text())


def chapter(name: str, args, limit):
    """Seconds of a chapter, executed on the device that it finds; its outputs are not kept."""
    program = (
        "import sys, nbclient, nbformat; notebook = nbformat.read(sys.argv[1], 4); "
        "nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3').execute(cwd='notebooks')"
    )
    start = time.monotonic()
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if args.device == "cpu" else {}
    call([sys.executable, "-c", program, f"notebooks/{name}.ipynb"], limit, **hidden)
    return round(time.monotonic() - start, 1)


# By name, what to do and the seconds that must be left to begin: the first part, and what goes on after it.
STAGES = {
    "tests": (tests, 150), "precisions": (partial(worker, "precisions"), 60),
    "compiled": (partial(worker, "compiled"), 200), "deterministic": (deterministic, 60),
    "side by side": (partial(worker, "side by side"), 40), "processes": (processes, 60),
    "compare": (compare, 480), **{f"chapter {name}": (partial(chapter, name), 200) for name in CHAPTERS},
}  # fmt: skip


def summary(results: dict) -> str:
    """One line a stage."""
    lines = []
    for name in STAGES:
        found = results.get(name)
        if found is None:
            text = "to come: run it again"
        elif "error" in found:
            text = "FAILED: " + found["error"]
        elif name == "precisions":
            text = "; ".join(f"{method}: " + ", ".join(f"{kind} {error:.1e}" for kind, error in row.items())
                             for method, row in found["result"].items())  # fmt: skip
        elif name == "compiled":
            text = "; ".join(
                f"{method}: eager {statistics.median(row['eager']):.4f} s, compiled "
                f"{statistics.median(row['compiled']):.4f} s after {row['compilation']} s, they differ by "
                f"{row['difference']:.1e}, in TF32 by {row['difference in tf32']:.1e}"
                for method, row in found["result"].items())  # fmt: skip
        elif name == "compare":
            text = "seconds of T = " + ", ".join(map(str, found["result"]["configuration"]["steps"])) + ": " + "; ".join(
                f"{method} " + ", ".join(f"{statistics.median(times):.3f}" for times in row.values())
                for method, row in found["result"]["results"]["seconds"].items())  # fmt: skip
        else:
            text = json.dumps(found["result"])
        lines.append(f"{name:12} {text}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cpu for a rehearsal; default: cuda")
    parser.add_argument("--allow-none", action="store_true", help="where there is no GPU, say so and succeed")
    parser.add_argument("--seconds", type=float, default=540, help="no stage is begun that would end later")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--only", action="append", choices=list(STAGES), help="repeat for several")
    parser.add_argument("--worker", choices=list(WORKERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        torch.use_deterministic_algorithms(bool(os.environ.get("GTNLIB_DETERMINISTIC")))
        print(json.dumps(WORKERS[args.worker](args.device)))
        return 0
    if args.device != "cpu" and not torch.cuda.is_available():
        print("There is no GPU here, so nothing was run. --device cpu rehearses it.")
        return 0 if args.allow_none else 1
    end = time.monotonic() + args.seconds
    where = {"commit": commit(), "device": device_name(torch.device(args.device)), "versions": versions()}
    results: dict = {}
    if args.output.exists():
        stored = json.loads(args.output.read_text())
        if {name: stored.get(name) for name in where} == where:
            results = {name: found for name, found in stored["stages"].items() if "error" not in found}
    for name in args.only or STAGES:
        stage, needed = STAGES[name]
        left = end - time.monotonic()
        if name in results or left < needed and args.seconds >= needed:
            continue
        print(f"{name} …", flush=True)
        start = time.monotonic()
        try:
            results[name] = {"result": stage(args, max(left, 60))}
        except RuntimeError as error:
            results[name] = {"error": str(error)}
        results[name] |= {"started": now(), "seconds": round(time.monotonic() - start, 1)}
        write_whole(args.output, json.dumps({**where, "stages": results}, indent=1).encode())
    print(summary(results))
    return 1 if any("error" in found for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
