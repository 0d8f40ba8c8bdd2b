"""One progress bar: tqdm's in a terminal, one line of text that updates itself in a notebook."""

from __future__ import annotations

import io
import sys

from tqdm import tqdm

WIDTH = 78  # characters, so that a line fits on the page of the book


class _NotebookBar(tqdm):
    """tqdm drawn into one notebook output, which a static page shows in its final state."""

    def __init__(self, *args, **keywords):
        from IPython.display import display

        self._output = display({"text/plain": ""}, raw=True, display_id=True)
        super().__init__(*args, file=io.StringIO(), **keywords)

    def display(self, msg=None, pos=None):
        self._output.update({"text/plain": msg or str(self)}, raw=True)


def progress_bar(total: int, description: str, show: bool = True, done: int = 0) -> tqdm:
    """A bar of `total` steps, `done` of them already; a no-op if `show` is False."""
    in_notebook = "ipykernel" in sys.modules and show
    bar = _NotebookBar if in_notebook else tqdm
    pause = 0.5 if in_notebook or sys.stderr.isatty() else 10.0  # a log file needs few lines
    return bar(total=total, initial=done, desc=description, disable=not show, mininterval=pause, ncols=WIDTH)
