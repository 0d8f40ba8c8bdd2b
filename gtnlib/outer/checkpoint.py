"""The file that keeps the state of `fit` between two outer steps.

A checkpoint is one safetensors file with a JSON text in its metadata, so opening one runs nothing. It
is replaced in one move, so the last good one is always there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from gtnlib.outer.fingerprints import strangers
from gtnlib.support.errors import DataError, check_number, check_path
from gtnlib.support.files import locked, parse_tensors, read_whole, write_tensors
from gtnlib.support.identity import differences, plain
from gtnlib.support.processes import Ranks


class Checkpoint:
    """A file that is written at least every so many seconds, and when its `with` block is left.

    Parameters
    ----------
    path: the file; None keeps nothing.
    seconds: at most this long, and one outer step, between two writes.
    configuration: what the run was asked for; a file of another run is refused.
    fingerprints: what it begins with, as `gtnlib.outer.fingerprints` has it; of another, alike.
    """

    def __init__(self, path: str | os.PathLike | None, seconds: float, configuration: dict,
                 fingerprints: Callable[[], dict]):  # fmt: skip
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"checkpoint must be a path or None, got {path!r}.")
        self.path = None if path is None else check_path("checkpoint", path)
        if self.path is not None and self.path.is_dir():
            raise DataError(f"{path} is not a checkpoint, or is damaged: it is a folder. Name a file in it.")
        self.seconds = check_number("checkpoint_seconds", seconds, 0)
        self.configuration = plain(configuration)
        self._fingerprints = fingerprints
        self._lock = contextlib.ExitStack()
        self._latest: tuple[dict[str, Tensor], dict] | None = None
        self._written = time.monotonic()

    @cached_property
    def fingerprints(self) -> dict:
        return self._fingerprints()

    def read(self, ranks: Ranks) -> tuple[dict[str, Tensor], dict] | None:
        """What the file of the first process holds, or None if there is none.

        Raises DataError if it is damaged or no checkpoint, ValueError if it is of another run.
        """
        content = None
        if self.path and self.fingerprints and ranks.rank == 0 and self.path.exists():
            content = read_whole(self.path, "checkpoint")
        content = ranks.share(content)
        if content is None or self.path is None:
            return None
        tensors, state = parse_tensors(content, "checkpoint", self.path)
        stored, training = state.get("configuration"), state.get("training")
        if not isinstance(stored, dict) or not isinstance(training, dict):
            raise DataError(f"{self.path} is not a checkpoint, or is damaged. Remove it, or name another.")
        found = differences(stored, self.configuration)
        records, most = training.get("records"), self.configuration["outer_steps"]
        if not found and not (isinstance(records, list) and len(records) <= most):
            raise DataError(
                f"{self.path} is not a checkpoint, or is damaged: it has over {most} outer steps."
            )
        begun = state.get("fingerprints", {})
        found = found or strangers(begun, self.fingerprints, tensors)
        if found:
            raise ValueError(
                f"checkpoint {self.path} is of another run: {'; '.join(found)}. Ask for the same again "
                "to go on with it, or name another file to start anew; it was not changed."
            )
        self.fingerprints = {**self.fingerprints, **begun}  # the run began where the file says
        return tensors, training

    def keep(self, tensors: dict[str, Tensor], training: dict) -> None:
        """Remember the state after a whole outer step, and write it if it is time to."""
        self._latest = tensors, training
        if time.monotonic() - self._written >= self.seconds:
            self.write()

    def write(self) -> None:
        """Write the state remembered last, if it is not written yet."""
        if self.path is None or self._latest is None:
            return
        tensors, training = self._latest
        state = {"configuration": self.configuration, "fingerprints": self.fingerprints, "training": training}
        try:
            write_tensors(self.path, "checkpoint", tensors, state)
        except OSError:
            self._latest = None  # one error is enough
            raise
        self._latest, self._written = None, time.monotonic()

    def __enter__(self) -> Checkpoint:
        if self.path is not None:
            self._lock.enter_context(locked(self.path))
        return self

    def __exit__(self, *error) -> None:
        with self._lock:
            self.write()
