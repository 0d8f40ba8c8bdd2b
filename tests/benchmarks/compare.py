"""Ours against `higher`, TorchOpt and plain autograd: time, memory and agreement of one outer step.

    pip install .[benchmarks]
    python tests/benchmarks/compare.py            # prints the table, writes benchmarks.json

Every method gets the same teacher, the same student, the same real images, and the same loss: on 256
real images after the last inner step. The peers' generator and student are plain torch layers, as their
users write them; in the rows "…, our generator" they are ours as well. Times: for every T one fresh process, in which the methods take
turns; the median, and half the distance between the quartiles. Memory: fresh processes for every method
and T; what the peak of resident memory over two outer steps, after one to warm up, is above that of the
process with data and teacher loaded, and, in brackets, that baseline; the median over the processes. What
the compiler leaves behind counts for compiled methods, but not its own work. A peer that is not installed is left out.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from gtnlib import (
    ConvNet, FlatStudent, GeneratorTeacher, GradientMatching, Implicit, StudentRun, Unrolled,
    load_dataset, make_student, train_student,
)  # fmt: skip
from gtnlib.experiments.cost import measure, printed_by
from gtnlib.experiments.machine import commit, device_name, now, versions
from gtnlib.experiments.records import Record
from gtnlib.inner.compiled import CompiledStudent

REAL, RATE, MOMENTUM, REAL_PER_CLASS = 256, 0.02, 0.5, 64


class AsWritten(torch.nn.Module):
    """The generator as its layers say, one after the other, in the layout that torch has by default."""

    def __init__(self, generator):
        super().__init__()
        self.body = copy.deepcopy(generator.body).to(memory_format=torch.contiguous_format)

    def forward(self, noise, labels):
        code = F.one_hot(labels, 10).to(noise.dtype)
        return 2 * torch.tanh(self.body(torch.cat([noise, code], dim=1)))


class Setting:
    """What all methods share, and one method per name."""

    def __init__(self, steps: int, device: str):
        self.data = load_dataset("mnist", device=device)
        self.teacher = GeneratorTeacher(steps, 64, rate=RATE, momentum=MOMENTUM,
                                        weight_decay=1e-3).to(device)  # fmt: skip
        self.device = device
        self.plain = copy.deepcopy(self.teacher)
        self.plain.generator = AsWritten(self.plain.generator)
        self.real = self.data.train.sample(REAL, self.random())
        self.compiled = partial(CompiledStudent, kernels={})  # traced once for all outer steps, as by `fit`

    def random(self):
        return torch.Generator(device=self.device).manual_seed(0)

    def module(self):
        return make_student(ConvNet, (1, 28, 28), 10, 0).to(self.device)

    # ---------------------------------------------------------------- ours

    def ours(self, metagrad, kind=FlatStudent):
        run = StudentRun.start(kind(self.module()))
        return metagrad(self.teacher, run, self.data.train, self.random())

    def training(self, kind=FlatStudent):
        train_student(self.teacher, StudentRun.start(kind(self.module())), self.teacher.steps)

    # ---------------------------------------------------------------- theirs

    def higher(self, teacher):
        import higher

        module = self.module()
        sgd = torch.optim.SGD(module.parameters(), RATE, MOMENTUM, weight_decay=teacher.weight_decay)
        with higher.innerloop_ctx(module, sgd) as (student, optimizer):
            for t in range(teacher.steps):
                x, y = teacher.batch(t)
                rate, momentum = teacher.rates(t)
                override = {"lr": [rate], "momentum": [momentum]}
                optimizer.step(F.cross_entropy(student(x), y), override=override)
            F.cross_entropy(student(self.real[0]), self.real[1]).backward()

    def torchopt(self, teacher):
        import torchopt  # it learns no rates

        module = self.module()
        optimizer = torchopt.MetaSGD(module, lr=RATE, momentum=MOMENTUM,
                                     weight_decay=teacher.weight_decay)  # fmt: skip
        for t in range(teacher.steps):
            x, y = teacher.batch(t)
            optimizer.step(F.cross_entropy(module(x), y))
        F.cross_entropy(module(self.real[0]), self.real[1]).backward()

    def autograd(self, teacher, checkpointed=False):
        module = self.module().to(teacher.log_rate.dtype)
        names = [name for name, _ in module.named_parameters()]
        ws = list(module.parameters())
        ms, count = [torch.zeros_like(w) for w in ws], len(ws)

        def loss(ws, x, y):
            return F.cross_entropy(functional_call(module, dict(zip(names, ws)), (x,)), y)

        def step(t, *state):
            ws, ms = state[:count], state[count:]
            gradients = torch.autograd.grad(loss(ws, *teacher.batch(t)), ws, create_graph=True)
            rate, momentum = teacher.rates(t)
            ms = [momentum * m + g + teacher.weight_decay * w for m, g, w in zip(ms, gradients, ws)]
            return *(w - rate * m for w, m in zip(ws, ms)), *ms

        state = *ws, *ms
        for t in range(teacher.steps):
            state = checkpoint(step, t, *state, use_reentrant=False) if checkpointed else step(t, *state)
        loss(state[:count], self.real[0].to(teacher.log_rate.dtype), self.real[1]).backward()

    def matching_loop(self):
        """Zhao et al. (2021), Algorithm 1, class by class; then one step of the student."""
        module, teacher = self.module(), self.teacher
        ws, (x, y) = list(module.parameters()), teacher.batch(0)
        wanted = torch.arange(10, device=self.device).repeat_interleave(REAL_PER_CLASS)
        images, _ = self.data.train.sample(len(wanted), self.random(), wanted)
        total = 0
        for c, real in enumerate(images.split(REAL_PER_CLASS)):
            label = torch.full((len(real),), c, device=self.device)
            targets = torch.autograd.grad(F.cross_entropy(module(real), label), ws)
            synthetic = F.cross_entropy(module(x[y == c]), y[y == c])
            found = torch.autograd.grad(synthetic, ws, create_graph=True)
            for a, b in zip(found, targets):
                if a.ndim > 1:
                    a, b = a.flatten(1), b.flatten(1)
                    total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
        (total / 10).backward()
        self.training_step(module, x.detach(), y)

    def training_step(self, module, x, y):
        sgd = torch.optim.SGD(module.parameters(), RATE, MOMENTUM)
        sgd.zero_grad()
        F.cross_entropy(module(x), y).backward()
        sgd.step()

    def methods(self):
        unrolled = Unrolled(True, "last", REAL)
        implicit = Implicit("neumann", neumann_terms=10, damping=5.0, batches=1, real_batch_size=REAL)
        matching = GradientMatching(real_batch_size=REAL_PER_CLASS)
        ours = self.ours
        return {
            "training": self.training,
            "training, compiled": lambda: self.training(self.compiled),
            "higher": lambda: self.higher(self.plain),
            "TorchOpt": lambda: self.torchopt(self.plain),
            "autograd": lambda: self.autograd(self.plain),
            "autograd, torch.utils.checkpoint per step": lambda: self.autograd(self.plain, True),
            "higher, our generator": lambda: self.higher(self.teacher),
            "TorchOpt, our generator": lambda: self.torchopt(self.teacher),
            "autograd, our generator": lambda: self.autograd(self.teacher),
            "Unrolled, graph kept": lambda: ours(Unrolled(False, "last", REAL)),
            "Unrolled": lambda: ours(unrolled),
            "Unrolled, compiled": lambda: ours(unrolled, self.compiled),
            "Unrolled, loss at every step": lambda: ours(Unrolled(True, "every", REAL)),
            "Unrolled, loss at every step, compiled":
                lambda: ours(Unrolled(True, "every", REAL), self.compiled),
            "Implicit": lambda: ours(implicit),
            "Implicit, conjugate gradients": lambda: ours(Implicit(products=5, tolerance=0, batches=4,
                                                                   real_batch_size=REAL)),
            "Implicit, stochastic series": lambda: ours(Implicit(
                "stochastic-neumann", batches=4, damping=5.0, real_batch_size=REAL, neumann_terms=20,
                estimate_every=10)),
            "Implicit, compiled": lambda: ours(implicit, self.compiled),
            "matching, loop over classes": self.matching_loop,
            "GradientMatching": lambda: ours(matching),
            "GradientMatching, compiled": lambda: ours(matching, self.compiled),
        }  # fmt: skip

    def zero_grad(self):
        self.teacher.zero_grad()
        self.plain.zero_grad()

    def gradient(self, teacher=None):
        """Of the teacher that was differentiated last, in float64; rates left out."""
        if teacher is None:
            teacher = self.teacher if self.teacher.noise.grad is not None else self.plain
        rates = "log_rate", "momentum_logit"
        parts = [p.grad.flatten() for n, p in teacher.named_parameters() if n not in rates]
        return torch.cat(parts).double()

    def exact(self):
        """The unrolled gradient by plain autograd in float64."""
        teacher = copy.deepcopy(self.teacher).double()
        self.autograd(teacher)
        return self.gradient(teacher)


UNROLLED = "higher", "TorchOpt", "autograd", "Unrolled"


def installed(name: str) -> bool:
    try:
        return bool(version(name.lower()))
    except PackageNotFoundError:
        return False


def wanted(setting: Setting, only: list[str] | None) -> dict:
    return {name: method for name, method in setting.methods().items()
            if (not only or name in only)
            and (not name.startswith(("higher", "TorchOpt")) or installed(name.split(",")[0]))}  # fmt: skip


def relative(found, reference) -> float:
    return float((found - reference).norm() / reference.norm())


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def measure_times(args) -> dict:
    setting = Setting(args.steps[0], args.device)
    methods = wanted(setting, args.only)
    seconds, errors = {name: [] for name in methods}, {}
    compared = [n for n in methods if n.startswith(UNROLLED) and "every" not in n]
    if compared and args.steps[0] <= 32:
        setting.autograd(setting.teacher)
        reference = setting.gradient()
        errors["float64"] = relative(setting.exact(), reference)
    for turn in range(-2, args.rounds):  # two to warm up
        for name, method in methods.items():
            setting.zero_grad()
            synchronize(args.device)
            start = time.perf_counter()
            method()
            synchronize(args.device)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
            elif errors and name in compared:
                errors[name] = relative(setting.gradient(), reference)
    return {"seconds": seconds, "error": errors}


def measure_memory(args) -> dict:
    setting = Setting(args.steps[0], args.device)
    (method,) = wanted(setting, args.only).values()
    _, baseline, peak = measure(lambda: (setting.zero_grad(), method()), 2, torch.device(args.device))
    return {"baseline": baseline, "peak": peak}


def fresh_process(args, what: str, steps: int, only: list[str] | None) -> dict:
    command = [sys.executable, __file__, "--worker", what, "--steps", str(steps), "--rounds",
               str(args.rounds), "--threads", str(args.threads), "--device", args.device]  # fmt: skip
    for name in only or ():
        command += ["--only", name]
    return printed_by(command)


def table(title: str, rows: dict[str, dict[int, str]], steps: list[int]) -> str:
    lines = [f"\n{title:42}" + "".join(f"{f'T = {t}':>18}" for t in steps)]
    lines += [f"{name:42}" + "".join(f"{row.get(t, ''):>18}" for t in steps) for name, row in rows.items()]
    return "\n".join(lines)


def above(processes: list[dict]) -> list[float]:
    """Peak above the baseline, of every process."""
    return [round(one["peak"] - one["baseline"], 1) for one in processes]


def as_measured(name: str, configuration: dict, started: str, seeds: dict, results: dict,
                device: str = "cpu") -> Record:  # fmt: skip
    """Measurements in the form of the records of experiments."""
    peers = {name: version(name) for name in ("higher", "torchopt") if installed(name)}
    seconds = (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds()
    return Record(
        name=name, seeds=seeds, configuration=configuration,
        device=device_name(torch.device(device)), versions={**versions(), **peers}, commit=commit(),
        started=started, seconds=round(seconds, 1), peak_memory_mb=None, curves={}, results=results,
    )  # fmt: skip


def as_record(args, started: str, times: dict, memory: dict) -> Record:
    """The measurements by method and T."""
    names, steps = list(next(iter(times.values()))["seconds"]), list(times)
    results = {
        "seconds": {n: {str(t): [round(s, 5) for s in times[t]["seconds"][n]] for t in steps}
                    for n in names},
        "difference": {n: {str(t): times[t]["error"][n] for t in steps if n in times[t]["error"]}
                       for n in [*names, "float64"]},
        "megabytes": {n: {str(t): above(m) for t, m in row.items()} for n, row in memory.items()},
        "baseline_megabytes": {n: {str(t): [round(one["baseline"], 1) for one in m]
                                   for t, m in row.items()} for n, row in memory.items()},
    }  # fmt: skip
    configuration = {"steps": steps, "memory_steps": list(next(iter(memory.values()), {})),
                     "rounds": args.rounds, "batch_size": 64, "real_images": REAL}  # fmt: skip
    seeds = {"student": [0], "real images": [0]}
    return as_measured("benchmarks", configuration, started, seeds, results, args.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128], metavar="T")
    parser.add_argument("--memory-steps", type=int, nargs="+", metavar="T", help="default: as --steps")
    parser.add_argument("--rounds", type=int, default=7, help="timed turns per method")
    parser.add_argument("--processes", type=int, default=1, help="per measurement of memory")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", action="append", metavar="METHOD", help="repeat for several")
    parser.add_argument("--no-memory", action="store_true", help="times only")
    parser.add_argument("--output", default="benchmarks.json")
    parser.add_argument("--worker", choices=["times", "memory"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.worker:
        print(json.dumps(measure_times(args) if args.worker == "times" else measure_memory(args)))
        return

    started = now()
    names = list(wanted(Setting(1, args.device), args.only))
    times: dict[int, dict] = {}
    for t in args.steps:
        times[t] = fresh_process(args, "times", t, args.only)
        as_record(args, started, times, {}).save(args.output)
    memory = {} if args.no_memory else {
        name: {t: [fresh_process(args, "memory", t, [name]) for _ in range(args.processes)]
               for t in args.memory_steps or args.steps} for name in names
    }  # fmt: skip

    def cell(t, name):
        values = times[t]["seconds"][name]
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        return f"{statistics.median(values):.3f} ± {(high - low) / 2:.3f}"

    def multiple(t, name):
        seconds = times[t]["seconds"]
        return f"{statistics.median(seconds[name]) / statistics.median(seconds['training, compiled']):.2f}"

    tables = [
        table("seconds per outer step", {n: {t: cell(t, n) for t in args.steps} for n in names}, args.steps)
    ]
    if "training, compiled" in names:
        tables.append(table("× training the same student, compiled",
                            {n: {t: multiple(t, n) for t in args.steps} for n in names}, args.steps))  # fmt: skip
    errors = {n: {t: f"{times[t]['error'][n]:.1e}" for t in args.steps if n in times[t]["error"]}
              for n in [*names, "float64"]}  # fmt: skip
    tables.append(table("difference from autograd in float32", {n: e for n, e in errors.items() if e},
                        args.steps))  # fmt: skip
    if memory:
        cells = {n: {t: f"{statistics.median(above(m)):.0f} ({m[0]['baseline']:.0f})" for t, m in row.items()}
                 for n, row in memory.items()}  # fmt: skip
        tables.append(table("peak MiB above (baseline)", cells, args.memory_steps or args.steps))
    print("\n".join(tables))
    as_record(args, started, times, memory).save(args.output)


if __name__ == "__main__":
    main()
