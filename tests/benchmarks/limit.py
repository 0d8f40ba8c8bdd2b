"""Where the time of an unrolled outer step goes, beside what its operations cost at this machine's peak;
and that of a product with the Hessian, through a kept graph and compiled.

    python tests/benchmarks/limit.py --steps 16       # eager and compiled; prints, and writes limit.json

The peak is that of a product of two large matrices; the operations are those of matrix products and
convolutions, counted as PyTorch runs them. Groups are of the profiler's own times, so they add up to the
time on the processor.
"""

import argparse
import json
import statistics
from functools import partial

import torch
from compare import REAL, Setting, as_measured
from torch.profiler import ProfilerActivity, profile

from gtnlib import ConvNet, FlatStudent, Unrolled, make_student
from gtnlib.experiments.machine import now
from gtnlib.inner.compiled import CompiledStudent
from gtnlib.show import measure
from gtnlib.support.operations import operations

# By what the profiler's names contain, the first that fits: a fused loop is named after all that it fuses.
GROUPS = {
    "compiled loops": ("cpp_fused", "graph_", "kernel"),
    "convolutions": ("conv", "mkldnn"),
    "matrix products": ("mm", "matmul", "linear"),
    "copies": ("copy", "clone", "fill", "zero", "cat"),
}


def peak(size: int = 2048, rounds: int = 5) -> float:
    """Floating-point operations per second of a product of two matrices, the best of some."""
    a, b = torch.randn(2, size, size)
    return 2 * size**3 / min(measure.seconds(lambda: a @ b, rounds))


def grouped(function, rounds: int) -> dict[str, float]:
    """Seconds of one call on the processor, by group."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(rounds):
            function()
    seconds: dict[str, float] = {}
    for event in profiler.key_averages():
        name = event.key.lower()
        group = next(
            (group for group, parts in GROUPS.items() if any(part in name for part in parts)), "other"
        )
        seconds[group] = seconds.get(group, 0.0) + event.self_cpu_time_total / 1e6 / rounds
    return {group: round(value, 4) for group, value in seconds.items()}


def products(rounds: int, images: int = 100) -> dict[str, list[float]]:
    """Seconds of a product with the Hessian of one batch, by the way it is taken."""
    student = FlatStudent(make_student(ConvNet, (1, 28, 28), 10, 0))
    x, y, w = torch.randn(images, 1, 28, 28), torch.arange(images) % 10, student.initial()
    found = {}
    with torch.no_grad():
        for name, kind in (("kept graph", student), ("compiled", CompiledStudent(student.module))):
            curvature = kind.curvature(w, x, y)
            found[name] = measure.seconds(partial(curvature.hessian_product, torch.randn_like(w)), rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", default="limit.json")
    args = parser.parse_args()
    started = now()
    torch.set_num_threads(args.threads)
    torch._inductor.config.cpp.enable_kernel_profile = True
    setting, metagrad = Setting(args.steps, "cpu"), Unrolled(True, "last", REAL)

    def step(kind=None):
        setting.zero_grad()
        setting.ours(metagrad, *([kind] if kind else []))

    counted, best = operations(step), peak()
    report = {"operations": counted, "operations a second at the peak": round(best),
              "seconds at the peak": round(counted / best, 4)}  # fmt: skip
    for name, kind in (("eager", None), ("compiled", setting.compiled)):
        report[name] = {"seconds": round(statistics.median(measure.seconds(lambda: step(kind), args.rounds)), 4),
                        "groups": grouped(lambda: step(kind), args.rounds)}  # fmt: skip
    report["product"] = {
        name: [round(s, 5) for s in found] for name, found in products(3 * args.rounds).items()
    }
    print(json.dumps(report, indent=1))
    as_measured("limit", {"steps": args.steps, "rounds": args.rounds}, started, {}, report).save(args.output)


if __name__ == "__main__":
    main()
