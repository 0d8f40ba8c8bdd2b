"""Files that are whole or not there: one move puts them in place, and nothing in them is run.

Tensors are kept as safetensors, with one JSON text in the file's metadata; a teaching set as an npz;
everything else is JSON. Each says its format's version and the SHA-256 of its content, which is
compared when it is read; files from before the first version have neither, and are still read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from gtnlib.support.errors import DataError, check_path

VERSION = 1
LIMIT = 2**30  # bytes that the arrays of one file may take when unpacked: 2.5 × all of CIFAR-10 in float32


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that a stop at any moment leaves either the old one or the new one.

    It is written beside its place, to a new file NAME.part, forced to the disk, and moved; what a kill
    left under that name goes first. Raises OSError, with the old file as it was, if the folder cannot
    be written to or the disk is full.
    """
    path = check_path("path", path)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with open(part, "xb") as file:  # never one that is there already, nor what a link points at
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        try:
            if not isinstance(error, FileExistsError):
                part.unlink(missing_ok=True)
        except OSError:
            pass  # the folder cannot be written to at all
        if isinstance(error, OSError):
            raise OSError(
                f"cannot write {path}: {error.strerror or error}. Make room or choose another folder; "
                "what was there before is unchanged."
            ) from error
        raise


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Keep a file or folder to oneself, by PATH.lock beside it, which the end of the process opens too.

    Raises BlockingIOError if another process or thread has it, OSError if its folder cannot be written to.
    """
    from filelock import FileLock, Timeout  # only where it is needed

    path = check_path("path", path)
    place = path.with_name(path.name + ".lock")
    lock = FileLock(place, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BlockingIOError(
            f"{path} is in use by another run, and two would write over each other. Wait for its end, or "
            "choose another place."
        ) from None
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error.strerror or error}. Choose another folder; what was there before "
            "is unchanged."
        ) from error
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
        lock.release()


# ---------------------------------------------------------------- digests


def digest_of(tensors: Mapping[str, Tensor], state: object = None) -> str:
    """SHA-256 of named tensors (name, dtype, shape and bytes) and of a state of JSON values."""
    made = hashlib.sha256(json.dumps(state, sort_keys=True, allow_nan=False).encode())
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        made.update(f"\n{name} {t.dtype} {tuple(t.shape)}\n".encode())
        made.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()


def check_digest(version: object, stored: object, found: str) -> None:
    """Raise ValueError unless the version is known and the digest that was stored is the one found."""
    if version != VERSION:
        raise ValueError(f"it is of format version {version!r}, but this gtnlib reads {VERSION}")
    if stored != found:
        raise ValueError("its content is not what was written (wrong SHA-256)")


def no_constant(constant: str):
    """For `json.loads(…, parse_constant=…)`: NaN and infinity are no JSON."""
    raise ValueError(f"it holds {constant}, which is no number")


# ---------------------------------------------------------------- safetensors


def write_tensors(path: str | os.PathLike, kind: str, tensors: dict[str, Tensor], state: dict) -> None:
    """Write tensors and a JSON state as one safetensors file of this kind, e.g. "checkpoint".

    The same content makes the same bytes.
    """
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    header = {"format": f"gtnlib {kind}", "version": VERSION, "sha256": digest_of(plain, state),
              "state": state}  # fmt: skip
    # One entry, since safetensors writes several in any order.
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    write_whole(path, to_bytes(plain, {"gtnlib": text}))


def read_tensors(path: str | os.PathLike, kind: str) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the state that `write_tensors` wrote.

    Raises DataError if the file is damaged or anything else, FileNotFoundError if there is none.
    """
    return parse_tensors(read_whole(path, kind), kind, path)


def read_whole(path: str | os.PathLike, kind: str) -> bytes:
    """The content of a file. DataError if it cannot be read, FileNotFoundError if there is none."""
    path = check_path("path", path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _damaged(path, kind, error) from error


def parse_tensors(content: bytes, kind: str, path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """`read_tensors`, given the content of the file. Raises DataError if that is damaged."""
    try:
        # Copies, since results of matrix products can depend on where a tensor lies in memory.
        tensors = {name: tensor.clone() for name, tensor in from_bytes(content).items()}
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
        new = metadata.keys() == {"gtnlib"}
        if not new and metadata.keys() != {"format", "state"}:
            raise ValueError("it was not written by gtnlib as one")
        header = json.loads(metadata["gtnlib"], parse_constant=no_constant) if new else metadata
        if header.get("format") != f"gtnlib {kind}":
            raise ValueError("it was not written by gtnlib as one")
        state = header["state"] if new else json.loads(header["state"], parse_constant=no_constant)
        if not isinstance(state, dict):
            raise TypeError("its state is not a table of names and values")
        if new:
            check_digest(header["version"], header["sha256"], digest_of(tensors, state))
        return tensors, state
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, kind, error) from error


def _damaged(path: str | os.PathLike, kind: str, error: Exception) -> DataError:
    return DataError(f"{path} is not a {kind}, or is damaged: {error}. Remove it, or name another file.")


def fill(targets: dict[str, Tensor], source: dict[str, Tensor], path: str | os.PathLike) -> None:
    """Copy `source` into `targets` in place, of the same names, shapes and, to rounding, dtypes.

    All is checked before anything is copied: DataError leaves the targets as they were.
    """
    check_alike(targets, source, path)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(source[name])


def check_alike(targets: Mapping[str, Tensor], source: Mapping[str, Tensor], path: object) -> None:
    """Raise DataError unless both have the same names, shapes and kinds of number."""
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


# ---------------------------------------------------------------- arrays


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz, by name. No memory is taken before their sizes are known to be honest.

    Raises ValueError for arrays larger than `LIMIT` together, or of other sizes than their headers say;
    whatever else zipfile and numpy raise for a file that is none.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > LIMIT:
            raise ValueError(f"it unpacks to more than the limit of {LIMIT:,} bytes")
        return {part.filename.removesuffix(".npy"): _array(archive, part) for part in parts}


def _array(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(part) as file:
        first = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"{part.filename} holds Python objects, which are not read")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or part.file_size - file.tell() != size:
            raise ValueError(f"{part.filename} promises shape {shape}, but other than {size} bytes follow")
        content = file.read()
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if by_columns else "C")


# ---------------------------------------------------------------- JSON


def sealed(table: dict) -> dict:
    """The table with the version of its format and the digest of its JSON values, for `unsealed`."""
    return {**table, "version": VERSION, "sha256": digest_of({}, table)}


def unsealed(table: dict) -> dict:
    """The table without version and digest, checked if it has them; ValueError if they do not fit."""
    known = {key: value for key, value in table.items() if key not in ("version", "sha256")}
    if len(known) < len(table):
        check_digest(table.get("version"), table.get("sha256"), digest_of({}, known))
    return known


def read_json(path: Path) -> dict:
    """The table that `sealed` made, from its file. ValueError or OSError if there is none."""
    table = json.loads(path.read_text(encoding="utf-8"), parse_constant=no_constant)
    if not isinstance(table, dict):
        raise ValueError("it is not a table of names and values")
    return unsealed(table)
