"""What makes two runs the same run: arguments as plain JSON values, and where two sets differ."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gtnlib.support.files import digest_of


def plain(value):
    """A stand-in of JSON values only: equal for what is built alike, different where that shows.

    A class or function is its name, a `functools.partial` or dataclass its parts, a network its
    layers' shapes. A number of numpy or torch is that number, an array a digest of its values.
    What a lambda does cannot be seen: two of them in the same function look alike.
    """
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        if value.ndim:
            if isinstance(value, torch.Tensor):
                digest = digest_of({"": value})
            else:
                digest = digest_of({}, [str(value.dtype), value.tobytes().hex()])
            return {"class": type(value).__name__, "shape": list(value.shape), "digest": digest[:12]}
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, functools.partial):
        return {"of": plain(value.func), "arguments": plain(value.args), "keywords": plain(value.keywords)}
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, nn.Module):
        shapes = {name: list(tensor.shape) for name, tensor in value.state_dict().items()}
        return {"class": type(value).__name__, **shapes}
    if is_dataclass(value) and not isinstance(value, type):
        known = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {"class": type(value).__name__, **known}
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, Sequence):
        return [plain(v) for v in value]
    return getattr(value, "__qualname__", type(value).__qualname__)


def built(instance) -> dict:
    """Class of an instance, and the arguments of its constructor, which it keeps as attributes."""
    names = inspect.signature(type(instance)).parameters
    known = {name: plain(getattr(instance, name)) for name in names if hasattr(instance, name)}
    return {"class": type(instance).__name__, **known}


def teacher_of(teacher) -> dict:
    """A teacher as it was asked for: its class, arguments and tensors, not what it has learned."""
    tensors = {
        name: [str(tensor.dtype), list(tensor.shape), getattr(tensor, "requires_grad", False)]
        for name, tensor in [*teacher.named_parameters(), *teacher.named_buffers()]
    }
    arguments = getattr(teacher, "arguments", {})
    return {"class": type(teacher).__name__, **plain(arguments), "tensors": tensors}


# What an argument means where it is not named: in files written before it was there, or after it was
# gone. By the end of its dotted name.
FORMER = {
    "lessons": None,
    "metagrad.estimate_every": 1,
    "metagrad.loss_steps": None,
    "metagrad.products": 8,
    "metagrad.residual": False,
    "metagrad.solver": "neumann",
    "metagrad.tolerance": 1e-3,
    "metagrad.window": None,
    "metagrad_args.solver": "neumann",
    "methods.implicit.solver": "neumann",
    "start": "noise",
    "start_from_real": False,
    "teacher.final_rate": None,
    "teacher.learn_labels": False,
    "teacher.schedule": "linear",
    "truth_from": None,
}


def flat(value, prefix: str = "") -> dict:
    """Nested tables as one, with dotted names; a list of a name and its table of arguments is a table."""
    match value:
        case [str() as name, {**arguments}]:
            return {prefix: name, **(flat(arguments, prefix) if arguments else {})}
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix: value}
    parts = (flat(v, f"{prefix}.{key}" if prefix else str(key)) for key, v in value.items())
    return {name: v for part in parts for name, v in part.items()}


def differences(stored: Mapping, given: Mapping) -> list[str]:
    """One phrase per entry that differs, as "metagrad.neumann_terms is 5 there, but 10 here"."""
    there, here = flat(stored), flat(json.loads(json.dumps(plain(given))))
    for one, other in ((there, here), (here, there)):
        for name in other.keys() - one.keys():
            one |= {name: value for end, value in FORMER.items() if f".{name}".endswith(f".{end}")}
    for one, other in ((there, here), (here, there)):  # an empty table beside one with entries says nothing
        for name in [name for name, value in one.items() if value == {} and name not in other]:
            if any(longer.startswith(f"{name}.") for longer in other):
                del one[name]
    return [
        f"{name} is {there.get(name, 'not set')!r} there, but {here.get(name, 'not set')!r} here"
        for name in dict.fromkeys([*here, *there])
        if name not in there or name not in here or there[name] != here[name]
    ]


@functools.cache
def code() -> dict[str, str]:
    """What computes here: the version of torch, and a digest of every line of this package."""
    package, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return {"torch": torch.__version__, "gtnlib": digest.hexdigest()[:12]}
