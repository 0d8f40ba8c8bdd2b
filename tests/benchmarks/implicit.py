"""An outer step of implicit differentiation as it was, and as it is: seconds in turns, and what it teaches.

    python tests/benchmarks/implicit.py           # ten minutes; prints as it goes, writes implicit.json

Both train a generator for the lesson of `gtn-implicit`, 40 steps on four batches of 100 images. Before, by
the code of commit `--before` in a worktree of its own: five terms of the Neumann series on all four batches,
four iterations for λ_max, from noise, as that cell was trained. Now: three products of conjugate gradients on
one batch drawn at random, from a generator that makes real images at first, whose fit is timed apart. The two
processes take turns, one outer step each, so that whatever else the machine does meets both alike. After
every few outer steps the mean validation accuracy of three fresh students is taken, off the clock. Both compile the
student's steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = {
    "before": {"method": {"neumann_terms": 5, "power_iterations": 4, "batches": 4}, "rate": 5e-3},
    "now": {"method": {"products": 3, "batches": 1, "real_batch_size": 128}, "rate": 1e-3, "start": True},
}
LESSON = {"steps": 40, "batch_size": 100, "batches": 4, "weight_decay": 0.03}
OUTER_STEPS = 250  # that the rate of Adam is set for


def serve(way: dict, every: int) -> None:
    """One outer step for every line of input, by whatever gtnlib is on the path; prints what it took."""
    import torch

    from gtnlib import ConvNet, GeneratorTeacher, Implicit, evaluate, fit, load_dataset

    data, teacher = load_dataset("mnist", device="cpu"), GeneratorTeacher(**LESSON)
    told = {}
    if way.get("start"):
        began = time.perf_counter()
        teacher.start_from(data.train, torch.Generator().manual_seed(0))
        told["start"] = time.perf_counter() - began

    def wait(step=-1, teacher=teacher, history=None):
        if step >= 0:
            told["seconds"] = time.perf_counter() - told.pop("began")
        if (step + 1) % every == 0:
            told["accuracy"] = evaluate(teacher, ConvNet, data, 3, split="validation").accuracy.mean
        print(json.dumps(told), flush=True)
        told.clear()
        if not sys.stdin.readline():
            raise KeyboardInterrupt
        told["began"] = time.perf_counter()

    wait()
    try:
        fit(teacher, Implicit(**way["method"]), ConvNet, data, OUTER_STEPS, rate=way["rate"], callback=wait,
            progress=False, compile=True)  # fmt: skip
    except KeyboardInterrupt:
        pass


def begun(way: dict, tree: Path, args: argparse.Namespace) -> subprocess.Popen:
    """A process that serves, with the code in `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(args.threads)}
    words = [sys.executable, __file__, "--every", str(args.every), "--serve", json.dumps(way)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def turn(process: subprocess.Popen, go: bool) -> dict:
    """What a process says, after one more outer step if it is to go on."""
    if go:
        print(file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a process ended with status {process.wait()}: its error is above.")
    return json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="6ce8883", help="the commit to compare with")
    parser.add_argument("--outer-steps", type=int, default=48, help="how many of each are taken")
    parser.add_argument("--every", type=int, default=12, help="outer steps between two accuracies")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", default="implicit.json")
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, args.every)

    from compare import as_measured

    from gtnlib.experiments.machine import now

    started, here = now(), Path(__file__).resolve().parents[2]
    found = {name: {"seconds": [], "curve": []} for name in WAYS}
    running: dict[str, subprocess.Popen] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "before")
        subprocess.run(
            ["git", "-C", here, "worktree", "add", "--detach", "--quiet", tree, args.before], check=True
        )
        try:
            for step in range(args.outer_steps + 1):
                for name, way in WAYS.items():
                    if not step:
                        running[name] = begun(way, tree if name == "before" else here, args)
                    one, of = turn(running[name], go=step > 0), found[name]
                    of |= {"start": round(one["start"], 2)} if "start" in one else {}
                    of["seconds"] += [round(one["seconds"], 4)] if step else []
                    if "accuracy" in one:
                        of["curve"].append((step, round(one["accuracy"], 4)))
                        print(name, *of["curve"][-1], flush=True)
        finally:
            for process in running.values():
                process.kill()
            subprocess.run(["git", "-C", here, "worktree", "remove", "--force", tree], check=True)
    before, now_ = (found[name]["seconds"] for name in WAYS)
    ratios = [b / a for a, b in zip(before, now_)][1:]  # the first compiles
    found["ratio"] = round(statistics.median(ratios), 4)
    print(found["ratio"], [round(statistics.median(s[1:]), 3) for s in (before, now_)])
    said = {"before": args.before, "outer_steps": args.outer_steps, "every": args.every, "ways": WAYS,
            "lesson": LESSON}  # fmt: skip
    as_measured("implicit", said, started, {"fit": [0]}, found).save(args.output)


if __name__ == "__main__":
    main()
