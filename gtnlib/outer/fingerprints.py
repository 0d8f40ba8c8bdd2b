"""What a run begins with, beyond its arguments: the data, the teacher, and what its students compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from gtnlib.data.sets import Dataset
from gtnlib.inner.flat import FlatStudent
from gtnlib.students.build import make_student
from gtnlib.support.files import digest_of
from gtnlib.support.seeds import derive_seed
from gtnlib.teachers.generator import GeneratorTeacher


def fingerprints(teacher: torch.nn.Module, student, data: Dataset) -> dict:
    """Digests of data and teacher, the scores of one student of every kind on two fixed images, and what
    the generator makes of fixed noise.
    """
    parts = {"train": data.train, "validation": data.validation}
    held = {f"{name}.{what}": getattr(part, what) for name, part in parts.items() if part is not None
            for what in ("images", "labels")}  # fmt: skip
    kinds = student if isinstance(student, Sequence) else [student]
    now = digest_of(_tensors(teacher))
    return {"data": digest_of(held), "teacher": now, "origin": getattr(teacher, "origins", {}).get(now),
            "students": [_scores(kind, data) for kind in kinds], "generator": _images(teacher)}  # fmt: skip


def leave(teacher: torch.nn.Module, start: str) -> None:
    """Note, in the teacher as a run leaves it, the digest of what that run started from."""
    teacher.origins = {digest_of(_tensors(teacher)): start}  # type: ignore[assignment]


def _tensors(teacher: torch.nn.Module) -> dict[str, Tensor]:
    return dict([*teacher.named_parameters(), *teacher.named_buffers()])


@torch.no_grad()
def _scores(kind, data: Dataset) -> list[float]:
    seed = derive_seed("fingerprint")
    student = FlatStudent(make_student(kind, data.shape, data.num_classes, seed).to(data.dtype))
    x = torch.randn(2, *data.shape, generator=torch.Generator().manual_seed(seed), dtype=data.dtype)
    return student.logits(student.initial(), x).flatten().tolist()


@torch.no_grad()
def _images(teacher) -> list[float]:
    """Four weighted sums of what a GTN's generator makes of fixed noise with fixed weights; nothing if it
    cannot work with such weights.
    """
    if not isinstance(teacher, GeneratorTeacher):
        return []
    random = torch.Generator().manual_seed(derive_seed("fingerprint"))

    def drawn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=random, dtype=torch.float64) / 2

    weights = {name: drawn(p).to(p) for name, p in sorted(teacher.generator.named_parameters())}
    noise = drawn(teacher.noise[0]).to(teacher.noise)
    try:
        images = functional_call(teacher.generator, weights, (noise, teacher.labels[0])).double().cpu()
    except Exception:  # whatever a network of others raises
        return []
    sums = [float((images * drawn(images)).sum()) for _ in range(4)]
    return sums if all(map(math.isfinite, sums)) else []


def strangers(stored: Mapping, given: Mapping, tensors: Mapping[str, Tensor]) -> list[str]:
    """One phrase for each that is another one than in a checkpoint with these tensors.

    A file from before there were fingerprints says nothing. A teacher is the same one at the start, as far
    as the file, or as the run left it; students may differ by rounding.
    """
    found = []
    if stored.get("data", given["data"]) != given["data"]:
        found.append("the images or labels of the data are others there")
    reached = {name.removeprefix("teacher."): t for name, t in tensors.items() if name.startswith("teacher.")}
    same = stored.get("teacher", given["teacher"]), digest_of(reached)
    if given["teacher"] not in same and given["origin"] not in same:
        found.append("the teacher started from other values there")
    for what, said, near in (("students", "the students compute", 1e-3),
                             ("generator", "the generator makes", 5e-3)):  # fmt: skip
        one, other = (torch.tensor(each[what], dtype=torch.float64) for each in ({**given, **stored}, given))
        largest = float(other.abs().max()) if other.numel() else 0.0
        if one.shape != other.shape or not torch.allclose(one, other, near, near * largest):
            found.append(f"{said} something else there")
    return found
