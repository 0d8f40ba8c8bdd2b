"""Several students of one structure, trained side by side on the same batches.

Their parameters are the rows of one matrix (S, P). On a GPU one `vmap` runs all rows at once; on a
CPU, where that was measured to be slower, the rows take turns. Either way the teacher makes every
batch once, and its gradient goes back through it once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.func import vmap

from gtnlib.inner.flat import FlatStudent
from gtnlib.inner.step import StudentRun
from gtnlib.inner.structure import structure


class StackedStudent(FlatStudent):
    """S students as one whose state has a leading dimension of S.

    Parameters
    ----------
    students: of one structure, and without constants; the first one computes for all.
    batched: run them by `vmap` rather than in turn, unless it refuses the network; default on a GPU only.
    """

    def __init__(self, students: Sequence[FlatStudent], batched: bool | None = None):
        super().__init__(students[0].module, students[0].dtype)
        self.students = list(students)
        on_gpu = next(self.module.parameters()).is_cuda
        self.batched = on_gpu if batched is None else batched

    def initial(self) -> Tensor:
        """The parameters of all students (S, P)."""
        return torch.stack([student.initial() for student in self.students])

    def compute(self, function, state, shared=()):
        first = self.students[0]
        if self.batched:
            try:
                return first.compute(side_by_side(function, len(state), len(shared)), state, shared)
            except RuntimeError as error:
                if not refused(error):
                    raise
                self.batched = False  # a network that vmap cannot run, such as one that branches on values
        results = [first.compute(function, row, shared) for row in zip(*state)]
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return tuple(map(torch.stack, zip(*results)))

    def total(self, value: Tensor) -> Tensor:
        return value.sum(0)


def refused(error: RuntimeError) -> bool:
    """Whether it is `vmap` that cannot run a network."""
    return "vmap" in str(error) or "Batching rule" in str(error)


@cache
def side_by_side(function: Callable, state: int, shared: int) -> Callable:
    """`function` over the leading dimension of its first `state` arguments after the student."""

    def all_students(student, *arguments):
        return vmap(partial(function, student), (0,) * state + (None,) * shared)(*arguments)

    all_students.__name__ = function.__name__
    return all_students


def stacked(runs: Sequence[StudentRun], drawn: Sequence) -> tuple[Sequence[StudentRun], Sequence]:
    """Fresh runs and their real batches as one run and its batches, if all are of one structure."""
    kinds = {structure(run.student.module) for run in runs}
    if len(runs) == 1 or len(kinds) > 1 or None in kinds or runs[0].student.constants:
        return runs, drawn
    student = StackedStudent([run.student for run in runs])
    w, m = (torch.stack([getattr(run, name) for run in runs]) for name in "wm")
    batches = [tuple(map(torch.stack, zip(*students))) for students in zip(*drawn)]
    return [StudentRun(student, w, m, runs[0].t)], [batches]
