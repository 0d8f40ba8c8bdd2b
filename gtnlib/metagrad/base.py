"""What all meta-gradients share: to draw what is random, and then to differentiate."""

from __future__ import annotations

import torch
from torch import Tensor

from gtnlib.data.sets import Split
from gtnlib.inner.step import StudentRun


class MetaGradient:
    """Called as metagrad(teacher, run, split, generator), once per student and outer step. `teacher` is a
    `Teacher`, or a `VariedLesson` of one.

    Draws are apart from gradients so that `fit` can make every draw in one order, and share the
    gradients out among stacked students or processes.
    """

    updates_per_student = 1
    stacks = False  # whether a run of several students at once is differentiated like a run of one
    remembers = False  # whether a call depends on what the one before left in StudentRun.memory

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __call__(self, teacher, run: StudentRun, split: Split, generator: torch.Generator) -> Tensor:
        """Train `run` as far as needed, add to the .grad of the teacher's parameters; return the loss."""
        return self.differentiate(teacher, run, split, self.draw(teacher, run.t, split, generator))

    def check_length(self, steps: int) -> None:
        """Raise ValueError if lessons of so many steps are too short."""

    def steps_per_update(self, teacher) -> int:
        """Inner steps that a student takes per call."""
        return teacher.steps

    def draw(self, teacher, t: int, split: Split, generator: torch.Generator):
        """All that is random in a call, for a student that has taken t steps."""
        raise NotImplementedError

    def differentiate(self, teacher, run: StudentRun, split: Split, drawn) -> Tensor:
        """The call, given what was drawn."""
        raise NotImplementedError

    def trouble(self) -> str | None:
        """Why the gradient of the last call, though finite, is worthless, and what to change; or None."""
        return None
