"""Minutes until a GTN teaches well: ours, a script as users of `higher` write it, and implicit by each solver.

    python tests/benchmarks/minutes.py            # an hour for each method; prints as it goes; minutes.json

All start from the same seed, with 32 × 64 generated images and the loss at every step (`higher`, Unrolled),
or 8 × 100 in 48 steps at rates that fall along a line (Unrolled, falling rates, with the loss after the last
step; Implicit); with the same student and the same data. Of two, the generator first learns to make real
images, on the clock. Every so many outer steps the mean validation accuracy of three fresh students is taken,
off the clock. Prints the minutes at which each accuracy was first reached, as one JSON object per method.
"""

import argparse
import json
import time
from functools import partial

import torch
import torch.nn.functional as F
from compare import AsWritten, as_measured

from gtnlib import (
    ConvNet, GeneratorTeacher, Implicit, Unrolled, evaluate, fit, load_dataset, make_student,
)  # fmt: skip
from gtnlib.experiments.machine import now

REAL = 256
IMPLICIT = {"rate": 0.1, "final_rate": 0.005, "weight_decay": 0.02, "learn_rates": False}
SOLVERS = {
    "Implicit, cg": {"products": 5},
    "Implicit, stochastic series": {
        "solver": "stochastic-neumann",
        "neumann_terms": 20,
        "estimate_every": 10,
    },
    "Implicit, series": {"solver": "neumann", "neumann_terms": 20},
}


class Clock:
    """Minutes of training alone, and the accuracies on the way."""

    def __init__(self, args, data):
        self.args, self.data, self.seconds, self.curve = args, data, 0.0, []
        self.started = time.perf_counter()

    def __call__(self, step, teacher, history=None):
        if (step + 1) % self.args.every:
            return
        self.seconds += time.perf_counter() - self.started
        accuracy = evaluate(teacher, ConvNet, self.data, 3, split="validation").accuracy.mean
        self.curve.append((step + 1, round(self.seconds / 60, 3), round(accuracy, 4)))
        print(*self.curve[-1], flush=True)
        if self.over():
            raise KeyboardInterrupt
        self.started = time.perf_counter()

    def over(self) -> bool:
        _, minutes, accuracy = self.curve[-1]
        return minutes > self.args.minutes or accuracy >= max(self.args.accuracy)

    def reached(self) -> dict:
        """The minutes at which each accuracy was first measured, of those that were."""
        first = {a: [m for _, m, found in self.curve if found >= a] for a in self.args.accuracy}
        return {f"{a:.3f}": minutes[0] for a, minutes in first.items() if minutes}


def unrolled(args, data, clock):
    teacher = GeneratorTeacher(args.steps, 64, rate=0.02, momentum=0.5)
    fit(teacher, Unrolled(), ConvNet, data, args.outer_steps, rate=3e-3, callback=clock, progress=False)


def falling(args, data, clock, start=False):
    teacher = GeneratorTeacher(args.falling_steps, 100, batches=min(8, args.falling_steps), momentum=0.9,
                               rate=0.05, final_rate=0.0025, weight_decay=0.02)  # fmt: skip
    if start:
        teacher.start_from(data.train, torch.Generator().manual_seed(0))
    fit(teacher, Unrolled(loss_at="last", real_batch_size=REAL), ConvNet, data, args.outer_steps,
        rate=1e-3 if start else 1e-2, callback=clock, progress=False)  # fmt: skip


def implicit(args, data, clock, solver):
    teacher = GeneratorTeacher(args.falling_steps, 100, batches=min(8, args.falling_steps), **IMPLICIT)
    fit(teacher, Implicit(batches=None, **solver), ConvNet, data, args.outer_steps, rate=5e-3,
        callback=clock, progress=False)  # fmt: skip


def higher(args, data, clock, start=False):
    """As users write it: plain layers, rates as parameters, the graph of all inner steps, Adam."""
    import higher

    teacher = GeneratorTeacher(args.steps, 64, rate=0.02, momentum=0.5)
    if start:
        teacher.start_from(data.train, torch.Generator().manual_seed(0))
    teacher.generator = AsWritten(teacher.generator)
    rate = 1e-3 if start else 3e-3
    adam = torch.optim.Adam(teacher.parameter_groups(rate, 2e-2))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, args.outer_steps, rate / 10)
    random = torch.Generator().manual_seed(0)
    for step in range(args.outer_steps):
        student = make_student(ConvNet, data.shape, data.num_classes, step)
        sgd, loss = torch.optim.SGD(student.parameters(), 0.02, 0.5), 0
        with higher.innerloop_ctx(student, sgd) as (inner, optimizer):
            for t in range(args.steps):
                (x, y), (rate, momentum) = teacher.batch(t), teacher.rates(t)
                override = {"lr": [rate], "momentum": [momentum]}
                optimizer.step(F.cross_entropy(inner(x), y), override=override)
                real, labels = data.train.sample(REAL, random)
                loss = loss + F.cross_entropy(inner(real), labels) / args.steps
            adam.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        adam.step()
        cosine.step()
        clock(step, teacher)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--accuracy", type=float, nargs="+", default=[0.95, 0.965])
    parser.add_argument("--every", type=int, default=20, help="outer steps between two accuracies")
    parser.add_argument("--outer-steps", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--falling-steps", type=int, default=48)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", action="append", metavar="METHOD", help="repeat for several")
    parser.add_argument("--output", default="minutes.json")
    args = parser.parse_args()
    started, results = now(), {}
    torch.set_num_threads(args.threads)
    methods = {"Unrolled": unrolled, "higher": higher, "Unrolled, falling rates": falling,
               "higher, from real images": partial(higher, start=True),
               "Unrolled, falling rates, from real images": partial(falling, start=True)}  # fmt: skip
    methods |= {name: lambda *a, solver=solver: implicit(*a, solver) for name, solver in SOLVERS.items()}
    data = load_dataset("mnist", device="cpu")
    for name in args.only or methods:
        print(name, flush=True)
        clock = Clock(args, data)
        try:
            methods[name](args, data, clock)
        except KeyboardInterrupt:
            if not clock.curve or not clock.over():
                raise
        results[name] = {"minutes to": clock.reached(), "curve": clock.curve}
        print(json.dumps({"method": name, **results[name]}), flush=True)
        said = {name: value for name, value in vars(args).items() if name not in ("only", "output")}
        as_measured("minutes", said, started, {"fit": [0]}, results).save(args.output)


if __name__ == "__main__":
    main()
