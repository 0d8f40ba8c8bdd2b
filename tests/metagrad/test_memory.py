"""The exact unrolled gradient needs no more memory for a longer training, but for the student's state."""

import subprocess
import sys

import pytest

# In a fresh process, since a peak never falls. The teacher has 8 batches for any T, so that only
# the training grows.
PEAK = """
import sys, torch
from pathlib import Path
from gtnlib import ConvNet, FlatStudent, GeneratorTeacher, Split, StudentRun, Unrolled
torch.set_num_threads(1)
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**10
steps, checkpoint = int(sys.argv[1]), sys.argv[2] == "True"
split = Split(torch.randn(100, 1, 28, 28), torch.arange(100) % 10)
teacher = GeneratorTeacher(steps, 32, batches=8)
student = FlatStudent(ConvNet(width=(8, 16)))
before = peak()
Unrolled(checkpoint, "last", 64)(
    teacher, StudentRun.start(student), split, torch.Generator().manual_seed(0)
)
print(peak() - before, 2 * 4 * student.size / 2**20)
"""


def growth(steps, checkpoint):
    """MB that a call adds to the peak of its process, and MB of one student's state."""
    command = [sys.executable, "-c", PEAK, str(steps), str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return map(float, done.stdout.split())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_memory_grows_by_the_states_alone():
    short, state = growth(8, True)
    long, _ = growth(40, True)
    assert long - short < 32 * state + 30
    recorded, _ = growth(40, False)
    assert recorded - short > 32 * state + 100
