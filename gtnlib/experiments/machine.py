"""Where a run takes place: time, versions, commit, device, memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

PACKAGE = Path(__file__).parent.parent


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
        command = ["git", "-C", str(PACKAGE), *arguments]
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
