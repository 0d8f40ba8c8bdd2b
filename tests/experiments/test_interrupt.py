"""Ctrl-C in the first seconds of the command line: one line and status 130."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gtnlib.support import interrupt


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="it is seen by /proc how far the imports are"
)
@pytest.mark.parametrize("library", ["libtorch_cpu", "_C.cpython", "safetensors"])
def test_an_interrupt_while_it_still_imports_is_no_traceback(library):
    command = [sys.executable, "-m", "gtnlib.experiments", "list"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and library not in maps.read_text():
        time.sleep(0.005)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (130, "\ninterrupted\n")


def test_once_it_runs_the_command_answers_to_ctrl_c_itself():
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, interrupt._end)
        interrupt.handled()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
        interrupt.handled()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
