"""The state of `fit` between two outer steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gtnlib.inner.flat import FlatStudent
from gtnlib.inner.step import StudentRun
from gtnlib.outer.history import History
from gtnlib.support.errors import DataError
from gtnlib.support.files import fill


@dataclass
class Training:
    """Everything that an outer step changes.

    runs, births: the students in training and the number each was born with, which gives its seed.
    memories: of the students, handed on when one takes the place of another (`StudentRun.memory`).
    typical: running mean of the gradient's norm. compiled: whether students are compiled, once known.
    The learning rates follow from the number of updates, len(history).
    """

    teacher: torch.nn.Module
    optimizer: torch.optim.Adam
    generator: torch.Generator
    runs: list[StudentRun | None]
    births: list[int]
    history: History = field(default_factory=History)
    typical: float | None = None
    born: int = 0
    compiled: bool | None = None
    memories: list[dict[str, float]] = field(init=False)

    def __post_init__(self):
        self.memories = [{} for _ in self.runs]

    def _targets(self) -> dict[str, Tensor]:
        """The tensors of teacher and optimiser, by name; Adam's are made if it has none yet."""
        teacher = self.teacher
        targets = {f"teacher.{name}": t for name, t in
                   [*teacher.named_parameters(), *teacher.named_buffers()]}  # fmt: skip
        names = {id(p): name for name, p in teacher.named_parameters()}
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                for key, value in self.optimizer.state.get(p, {}).items():
                    targets[f"adam.{names[id(p)]}.{key}"] = value
        return targets

    def capture(self, updates_per_student: int) -> tuple[dict[str, Tensor], dict]:
        """A copy of it all as tensors by name and a JSON state.

        A student that has served its last update is left out: a fresh one takes its place.
        """
        # Clones keep the layout, and the vectors w and m are replaced, never written into.
        tensors = {name: t.detach().clone() for name, t in self._targets().items()}
        tensors["generator"] = self.generator.get_state()
        students: list[dict | None] = []
        for i, run in enumerate(self.runs):
            if run is None or run.updates >= updates_per_student:
                students.append(None)
                continue
            tensors[f"student.{i}.w"], tensors[f"student.{i}.m"] = run.w.detach(), run.m.detach()
            students.append({"birth": self.births[i], "t": run.t, "updates": run.updates})
        state = {
            "records": list(self.history.records), "validation": list(self.history.validation),
            "typical": self.typical, "born": self.born, "compiled": self.compiled,
            "students": students, "memories": [dict(memory) for memory in self.memories],
        }  # fmt: skip
        return tensors, state

    def restore(self, tensors: dict[str, Tensor], state: dict, path,
                build: Callable[[int], FlatStudent]) -> None:  # fmt: skip
        """Become what was captured; `build` makes the student of a birth number. DataError if it cannot."""
        device, named = self.generator.device, dict(self.teacher.named_parameters())
        try:
            history = History.of(state["records"], state["validation"])
            typical = None if state["typical"] is None else float(state["typical"])
            born, self.compiled = int(state["born"]), state["compiled"]
            memories = [{str(name): float(value) for name, value in memory.items()}
                        for memory in state.get("memories", self.memories)]  # fmt: skip
            fitting = len(memories) == len(state["students"]) == len(self.runs)
            if not fitting or self.compiled not in (None, True, False):
                raise ValueError("its parts do not fit together")
            tensors, runs, births = dict(tensors), list(self.runs), list(self.births)
            self.generator.set_state(tensors.pop("generator"))
            for i, kept in enumerate(state["students"]):
                if kept is not None:
                    births[i], t, updates = (int(kept[name]) for name in ("birth", "t", "updates"))
                    student = build(births[i])
                    w, m = (tensors.pop(f"student.{i}.{name}").to(device) for name in "wm")
                    if not w.shape == m.shape == (student.size,):
                        raise ValueError(f"a student has {student.size} parameters, not {w.numel()}")
                    runs[i] = StudentRun(student, w, m, t, updates, memories[i])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise DataError(f"{path} is not a checkpoint, or is damaged: {error}.") from error
        for name, p in named.items():
            if f"adam.{name}.step" in tensors:  # a parameter that never had a gradient has no state
                self.optimizer.state[p] = {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p),
                                           "exp_avg_sq": torch.zeros_like(p)}  # fmt: skip
        fill(self._targets(), tensors, path)
        self.runs[:], self.births[:], self.memories[:] = runs, births, memories
        self.history, self.typical, self.born = history, typical, born
