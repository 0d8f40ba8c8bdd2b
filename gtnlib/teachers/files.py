"""Teachers as files: safetensors, in half precision, with what builds them again."""

from __future__ import annotations

import copy
import math
import os
from functools import partial

import torch

from gtnlib.data.border import check_finite
from gtnlib.data.scale import Scale
from gtnlib.support.errors import DataError, check_path
from gtnlib.support.files import check_alike, fill, read_tensors, write_tensors
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
    scale = {} if teacher.scale is None else {"scale": list(vars(teacher.scale).values())}
    write_tensors(path, "teacher", tensors, {"class": kind, "arguments": arguments, **scale})


def load_teacher(path: str | os.PathLike):
    """The teacher that `save_teacher` wrote, in float32 on the CPU.

    Raises DataError if it is none, is damaged, or holds impossible values.
    """
    path = check_path("path", path)
    tensors, state = read_tensors(path, "teacher")
    try:
        build = partial(TEACHERS[state["class"]], **state["arguments"])
        if state["arguments"].get("steps", tensors["log_rate"].numel()) != tensors["log_rate"].numel():
            raise ValueError("it has rates for another number of steps")
        with torch.device("meta"):  # shapes alone: no memory is taken before they are those of the file
            check_alike(build().state_dict(), tensors, path)
        teacher = build().float()
        check_values(teacher, tensors)
        teacher.scale = Scale(*state["scale"]) if "scale" in state else None
    except DataError:
        raise
    except Exception as error:  # whatever a constructor raises for arguments of any kind
        raise DataError(f"{path} is not a teacher, or is damaged: {error}.") from error
    fill(teacher.state_dict(), tensors, path)
    if teacher.momentum_logit.isinf().any():  # a momentum of 0 stays so
        teacher.momentum_logit.requires_grad_(False)
    return teacher


def check_values(teacher, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ValueError for a value that no teacher built like this one can have."""
    own = teacher.state_dict()
    for name, value in tensors.items():
        if not value.is_floating_point():
            if not torch.equal(value, own[name].to(value.dtype)):  # labels and order follow from arguments
                raise ValueError(f"{name} is not that of its arguments")
        elif name == "momentum_logit":
            if not (value < math.inf).all():  # -inf is a momentum of 0
                raise ValueError("momentum_logit holds a value that is no logit")
        else:
            check_finite(name, value)
