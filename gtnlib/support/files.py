"""Files that are whole or not there: one move puts them in place, and nothing in them is run.

Tensors are kept as safetensors, with one JSON text in the file's metadata; everything else is JSON.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from gtnlib.support.errors import DataError, check_path


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that a stop at any moment leaves either the old one or the new one.

    It is written beside its place (NAME.part), forced to the disk, and moved. Raises OSError, with
    the old file as it was, if the folder cannot be written to or the disk is full.
    """
    path = Path(check_path("path", path))
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        try:
            part.unlink(missing_ok=True)
        except OSError:
            pass  # the folder cannot be written to at all
        if isinstance(error, OSError):
            raise OSError(
                f"cannot write {path}: {error.strerror or error}. Make room or choose another folder; "
                "what was there before is unchanged."
            ) from error
        raise


def write_tensors(path: str | os.PathLike, kind: str, tensors: dict[str, Tensor], state: dict) -> None:
    """Write tensors and a JSON state as one safetensors file of this kind, e.g. "checkpoint"."""
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    metadata = {"format": f"gtnlib {kind}", "state": json.dumps(state, allow_nan=False)}
    write_whole(path, to_bytes(plain, metadata))


def read_tensors(path: str | os.PathLike, kind: str) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the state that `write_tensors` wrote.

    Raises DataError if the file is damaged or anything else, FileNotFoundError if there is none.
    """
    check_path("path", path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != f"gtnlib {kind}":
                raise ValueError("it was not written by gtnlib as one")
            state = json.loads(metadata["state"])
            if not isinstance(state, dict):
                raise TypeError("its state is not a table of names and values")
            # Copies, since results of matrix products can depend on where a tensor lies in memory.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, state
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a {kind}, or is damaged: {error}. Remove it, or name another file."
        ) from error


def fill(targets: dict[str, Tensor], source: dict[str, Tensor], path: str | os.PathLike) -> None:
    """Copy `source` into `targets` in place, of the same names, shapes and, to rounding, dtypes.

    All is checked before anything is copied: DataError leaves the targets as they were.
    """
    if targets.keys() != source.keys():
        odd = sorted(targets.keys() ^ source.keys())[0]
        raise DataError(f"{path} is damaged: the tensor {odd!r} is missing or too many.")
    for name, target in targets.items():
        same_kind = source[name].dtype.is_floating_point == target.dtype.is_floating_point
        if source[name].shape != target.shape or not same_kind:
            raise DataError(
                f"{path} is damaged: the tensor {name!r} is {source[name].dtype} of shape "
                f"{tuple(source[name].shape)}, but must be {target.dtype} of {tuple(target.shape)}."
            )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(source[name])
