"""A script that trains in forks of itself and kills them: torch is imported once, not once per kill.

    python tests/killing.py run DIR KILLS SEED           # `experiments run toy-long`, writing to DIR
    python tests/killing.py fit METHOD FILE KILLS SEED   # `fit` with the checkpoint FILE

Prints as JSON how many children were killed, and how many of them while they wrote a file.
"""

import builtins
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import gtnlib.support.files
import torch
from conftest import toy_data

import gtnlib.experiments.distillation as module
from gtnlib.experiments.__main__ import main


def tear(write, share):
    """Let the given write of a file, counted from 0, stop half-way, by SIGKILL."""

    class Torn:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, content):
            self.file.write(content[: int(share * len(content))])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    opened = []

    def open_(*arguments, **keywords):
        opened.append(arguments)
        file = builtins.open(*arguments, **keywords)
        return Torn(file) if len(opened) == write + 1 else file

    gtnlib.support.files.open = open_


def broken(train, folder, kills, moments):
    """Fork and train again and again, killed at `kills` random moments and then no more.

    A moment is either some time after some step, or within some write. After each the checkpoints
    must be whole.
    """
    killed, torn, gap = 0, set(), 0.01
    while True:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                if killed < kills and killed % 3 == 2:
                    tear(moments.randrange(4), moments.random())
                train(lambda *_: os.write(writer, b"."))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writer)
        moments.random()  # the child drew from a copy
        if killed < kills and killed % 3 != 2:
            for _ in range(moments.randrange(4)):
                before = time.perf_counter()
                if not os.read(reader, 1):
                    break
                gap = 0.8 * gap + 0.2 * min(0.1, time.perf_counter() - before)
            time.sleep(2 * gap * moments.random())
            os.kill(child, signal.SIGKILL)
        else:
            while os.read(reader, 4096):
                pass
        os.close(reader)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != -signal.SIGKILL:
            assert status == 0, status
            return {"killed": killed, "writing": len(torn)}
        killed += 1
        torn |= {(part.name, part.stat().st_mtime_ns) for part in folder.rglob("*.part")}
        for path in folder.rglob("*.safetensors"):
            kind = "teacher" if path.name == "toy-long.safetensors" else "checkpoint"
            gtnlib.support.files.read_tensors(path, kind)


def experiment(tell):
    fit = module.fit

    def telling(*arguments, callback, **keywords):
        def call(*now):
            callback(*now)
            tell()

        return fit(*arguments, callback=call, checkpoint_seconds=0, **keywords)

    module.fit = telling
    module.load_dataset = lambda name, device: toy_data()
    out = sys.argv[2]
    if main(["run", "toy-long", "--out", out, "--resume", "--device", "cpu"], TOYS):
        raise SystemExit("it failed")


def fitting(tell):
    method, path = sys.argv[2:4]
    train(lambda: generated("fresh"), METAGRADS[method], toy_data(), path, checkpoint_seconds=0,
          callback=tell, steps=60)  # fmt: skip


def killed(*arguments):
    """Run this script; what it prints."""
    here = Path(__file__).parent
    paths = os.pathsep.join(
        map(str, (Path(gtnlib.__file__).parents[1], here / "outer", here / "experiments"))
    )
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


if __name__ == "__main__":
    torch.set_num_threads(1)
    import torch._dynamo  # Adam will: now, not once per fork
    from test_checkpoint import METAGRADS, generated, train
    from test_experiments import TOYS

    *_, kills, seed = sys.argv
    folder = Path(sys.argv[2]) if sys.argv[1] == "run" else Path(sys.argv[3]).parent
    with open(os.devnull, "w") as silence:
        out, sys.stdout = sys.stdout, silence
        found = broken({"run": experiment, "fit": fitting}[sys.argv[1]], folder, int(kills),
                       random.Random(int(seed)))  # fmt: skip
    json.dump(found, out)
