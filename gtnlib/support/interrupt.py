"""Ctrl-C while `python -m gtnlib.experiments` still imports: status 130 and one line, no traceback.

Imported before all else, since torch takes seconds to load; the command line takes over by `handled`.
"""

from __future__ import annotations

import os
import signal
import sys

COMMAND = "gtnlib.experiments"


def _end(*_) -> None:
    os.write(2, b"\ninterrupted\n")
    os._exit(130)


def handled() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt, as usual."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# While Python looks for the module to be run by -m, that is what argv begins with.
_command = sys.argv[:1] == ["-m"] and COMMAND in sys.orig_argv
if _command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
