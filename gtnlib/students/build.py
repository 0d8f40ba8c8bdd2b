"""How a student is built: fresh at every call, from a seed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import nn

from gtnlib.support.errors import check_count
from gtnlib.support.seeds import derive_seed, seeded


def check_student(student) -> None:
    """Raise unless `student` is a class or function, or a list of them."""
    if isinstance(student, Sequence) and not isinstance(student, str):
        if not student:
            raise ValueError("student is an empty list.")
        for one in student:
            check_student(one)
    elif isinstance(student, nn.Module):
        raise TypeError(
            "student must build a fresh network at every call: pass a class or a function, such as "
            "ConvNet or lambda: ConvNet(width=64), not one network."
        )
    elif not callable(student):
        raise TypeError(f"student must be a class or function that builds a network, got {student!r}.")


def make_student(
    student: Callable[..., nn.Module] | Sequence[Callable[..., nn.Module]],
    shape: Sequence[int],
    num_classes: int,
    seed: int,
) -> nn.Module:
    """Build a freshly initialised student.

    Parameters
    ----------
    student: a class or function that returns a classifier, or a list of them to draw from. The
        keywords `shape` and `num_classes` are passed to those that take them.
    seed: decides the draw and the initialisation.
    """
    check_student(student)
    check_count("num_classes", num_classes, 2)
    if isinstance(student, Sequence):
        student = student[derive_seed("architecture", seed) % len(student)]
    known = inspect.signature(student).parameters
    wanted = {"shape": tuple(shape), "num_classes": num_classes}
    keywords = {name: value for name, value in wanted.items() if name in known}
    module = seeded(lambda: student(**keywords), derive_seed("initialisation", seed))
    if not isinstance(module, nn.Module):
        raise TypeError(f"student must build a torch.nn.Module, got {type(module).__name__}.")
    return module


def check_seeded(one: nn.Module, other: nn.Module) -> None:
    """Raise ValueError unless two networks that were built from one seed are the same."""
    a, b = ({**dict(module.named_parameters()), **dict(module.named_buffers())} for module in (one, other))
    same = a.keys() == b.keys() and all(
        a[name].shape == b[name].shape and torch.equal(a[name].nan_to_num(), b[name].to(a[name]).nan_to_num())
        for name in a
    )
    if not same:
        raise ValueError(f"student builds another {type(one).__name__} from the same seed. "
                         "What is random in it must come from torch's own generator of the CPU.")  # fmt: skip
