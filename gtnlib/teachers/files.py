"""Teachers as files: safetensors, in half precision, with what builds them again."""

from __future__ import annotations

import copy
import os

import torch

from gtnlib.support.errors import DataError
from gtnlib.support.files import fill, read_tensors, write_tensors
from gtnlib.teachers.generator import Generator, GeneratorTeacher
from gtnlib.teachers.pixels import PixelTeacher

TEACHERS = {"PixelTeacher": PixelTeacher, "GeneratorTeacher": GeneratorTeacher}
PRECISE = ("log_rate", "momentum_logit", "label_logits")  # kept in float32: few, and felt at every step


def rounded(teacher):
    """A copy whose images or weights are rounded to half precision; rates and momenta are not."""
    teacher = copy.deepcopy(teacher)
    with torch.no_grad():
        for name, p in teacher.named_parameters():
            if name not in PRECISE:
                p.copy_(p.half())
    return teacher


def save_teacher(teacher, path: str | os.PathLike) -> None:
    """Write a PixelTeacher or GeneratorTeacher in half precision, and what builds it again.

    Raises ValueError for a generator of another class than `Generator`: `teacher.export` writes the
    teaching set of any.
    """
    kind = type(teacher).__name__
    if type(teacher) not in TEACHERS.values():
        raise TypeError(f"teacher must be one of {', '.join(TEACHERS)}, got {kind}.")
    arguments = dict(teacher.arguments)
    if isinstance(teacher, GeneratorTeacher):
        arguments.pop("generator")
        network = teacher.generator
        if type(network) is not Generator:
            raise ValueError(
                f"the teacher's generator is a {type(network).__name__}, but only the default Generator "
                "can be built again from a file. teacher.export(...) writes what any teacher teaches."
            )
        arguments["hidden"], arguments["channels"] = network.hidden, network.channels
    tensors = {name: value.half() if value.is_floating_point() and name not in PRECISE else value
               for name, value in teacher.state_dict().items()}  # fmt: skip
    arguments["shape"] = list(arguments["shape"])
    write_tensors(path, "teacher", tensors, {"class": kind, "arguments": arguments})


def load_teacher(path: str | os.PathLike):
    """The teacher that `save_teacher` wrote, in float32 on the CPU. Raises DataError if it is none."""
    tensors, state = read_tensors(path, "teacher")
    try:
        teacher = TEACHERS[state["class"]](**state["arguments"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise DataError(f"{path} is not a teacher, or is damaged: {error}.") from error
    fill(teacher.state_dict(), tensors, path)
    return teacher
