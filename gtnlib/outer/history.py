"""What `fit` records on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class OuterStep(NamedTuple):
    """One update of the teacher: the meta-gradient's loss, the gradient's norm, the seconds taken."""

    loss: float
    gradient_norm: float
    seconds: float


@dataclass
class History:
    """What `fit` saw.

    records: one `OuterStep` per update.
    validation: pairs of a step and the accuracy after it.
    interrupted: whether it was stopped from the keyboard, even within its last step.
    """

    records: list[OuterStep] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    interrupted: bool = False

    @classmethod
    def of(cls, records: list, validation: list) -> History:
        """From lists of JSON values. ValueError unless they are lists of three and of two numbers."""
        for name, rows, kinds in (
            ("records", records, 3 * [float]),
            ("validation", validation, [int, float]),
        ):
            good = isinstance(rows, list) and all(
                isinstance(row, list) and len(row) == len(kinds)
                and all(type(v) is kind or kind is float and type(v) is int for v, kind in zip(row, kinds))
                for row in rows
            )  # fmt: skip
            if not good:
                raise ValueError(f"its {name} are not lists of {len(kinds)} numbers")
        return cls([OuterStep(*map(float, row)) for row in records],
                   [(step, float(value)) for step, value in validation])  # fmt: skip

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index) -> OuterStep:
        return self.records[index]

    @property
    def loss(self) -> list[float]:
        return [record.loss for record in self.records]

    @property
    def gradient_norm(self) -> list[float]:
        return [record.gradient_norm for record in self.records]

    @property
    def seconds(self) -> float:
        """Time of all outer steps together, validation not counted."""
        return sum(record.seconds for record in self.records)
