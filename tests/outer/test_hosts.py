"""`torchrun` on two hosts with addresses of their own: one training, which survives the loss of a host.

Network namespaces are the hosts where this user may make them; else both are this machine.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from conftest import toy_data

from gtnlib import MLP, PixelTeacher, Unrolled, fit
from gtnlib.support.files import read_tensors

STEPS = 40


def train(folder=None, pause=0.0):
    """The teacher after STEPS updates with two students; in `folder`, its own checkpoint and result."""
    data = toy_data()
    teacher = PixelTeacher(2, 4, batch_size=4, shape=data.shape, num_classes=data.num_classes)
    history = fit(teacher, Unrolled(real_batch_size=12), partial(MLP, widths=(8,), activation="tanh"), data,
                  STEPS, students_per_step=2, progress=False, callback=lambda *_: time.sleep(pause),
                  checkpoint=folder and folder / "run.safetensors", checkpoint_seconds=0)  # fmt: skip
    return teacher, history


def main(folder, pause):
    """What every process does."""
    folder = Path(folder) / os.environ["RANK"]
    folder.mkdir(exist_ok=True)
    (folder / "pid").write_text(str(os.getpid()))
    teacher, history = train(folder, float(pause))
    torch.save({"images": teacher.images.detach(), "loss": history.loss}, folder / "result.pt")


def call(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def two_hosts():
    """Of each, what comes before a command there; then the address of the first, and the interface."""
    one, two = names = [f"gtn{os.getpid()}{side}" for side in "ab"]
    try:
        try:
            for name in names:
                call("netns", "add", name)
            call("link", "add", "gtn0", "netns", one, "type", "veth", "peer", "name", "gtn0", "netns", two)
            for i, name in enumerate(names):
                call("-n", name, "addr", "add", f"10.213.7.{i + 1}/24", "dev", "gtn0")
                call("-n", name, "link", "set", "gtn0", "up")
                call("-n", name, "link", "set", "lo", "up")
            hosts = [("ip", "netns", "exec", name) for name in names], "10.213.7.1", "gtn0"
        except (OSError, subprocess.CalledProcessError):
            hosts = [(), ()], "127.0.0.1", "lo"
        yield hosts
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def free_port(prefix):
    ask = "import socket; one = socket.socket(); one.bind(('', 0)); print(one.getsockname()[1])"
    return subprocess.run([*prefix, sys.executable, "-c", ask], check=True, capture_output=True,
                          text=True).stdout.strip()  # fmt: skip


@contextmanager
def launched(hosts, folder, pause):
    """torchrun on every host, its words in HOST.log; what is left of it is ended."""
    prefixes, address, interface = hosts
    here, port, running = Path(__file__), free_port(prefixes[0]), []
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": interface,
        "PYTHONPATH": os.pathsep.join(map(str, (here.parents[2], here.parents[1]))),
    }  # fmt: skip
    for i, prefix in enumerate(prefixes):
        command = [*prefix, sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
                   f"--node-rank={i}", f"--master-addr={address}", f"--master-port={port}", str(here),
                   str(folder), str(pause)]  # fmt: skip
        with open(folder / f"{i}.log", "w") as log:
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log,
                                            start_new_session=True))  # fmt: skip
    try:
        yield running
    finally:
        for process in running:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def steps_kept(path):
    return len(read_tensors(path, "checkpoint")[1]["training"]["records"]) if path.exists() else 0


def test_two_hosts_train_as_one_process_and_go_on_after_one_is_lost(tmp_path):
    kept = tmp_path / "0" / "run.safetensors"
    with two_hosts() as hosts:
        with launched(hosts, tmp_path, 0.2) as running:
            limit = time.monotonic() + 120
            while steps_kept(kept) < 3:
                alive = all(process.poll() is None for process in running)
                assert alive and time.monotonic() < limit, (tmp_path / "0.log").read_text()
                time.sleep(0.1)
            os.kill(int((tmp_path / "1" / "pid").read_text()), signal.SIGKILL)
            assert all(process.wait(60) for process in running)
        said = (tmp_path / "0.log").read_text()
        assert said.count("ConnectionError: rank 0 of 2: another process of this training has ended") == 1, (
            said
        )
        assert 3 <= steps_kept(kept) < STEPS and not (tmp_path / "1" / "run.safetensors").exists()

        with launched(hosts, tmp_path, 0.0) as running:
            assert [process.wait(120) for process in running] == [0, 0], (tmp_path / "0.log").read_text()
    first, second = (torch.load(tmp_path / str(rank) / "result.pt") for rank in (0, 1))
    teacher, history = train()
    torch.testing.assert_close(first["images"], teacher.images.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first["loss"], history.loss, rtol=1e-5, atol=1e-6)
    assert torch.equal(first["images"], second["images"]) and first["loss"] == second["loss"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
