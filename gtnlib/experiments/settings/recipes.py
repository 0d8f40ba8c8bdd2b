"""How students and candidates are trained on what the recorded teachers teach, or on real images."""

from __future__ import annotations

from collections.abc import Sequence

from gtnlib.experiments.lessons import Lessons
from gtnlib.judge.training import Recipe

OWN = Recipe()  # the rates that the teacher prescribes
SGD = tuple(Recipe("sgd", rate) for rate in (0.01, 0.03, 0.1))
ADAM = tuple(Recipe("adam", rate) for rate in (0.001, 0.003, 0.01))


def chosen(names: Sequence[str]) -> dict[str, tuple[Lessons, Sequence[Recipe]]]:
    """Recorded teachers, whose students may follow their recipe or Adam, whichever serves them."""
    return {f"{name}, chosen": (Lessons(name), [OWN, *ADAM]) for name in names}
