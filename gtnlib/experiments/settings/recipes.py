"""How students and candidates are trained on what the recorded teachers teach, or on real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gtnlib.experiments.lessons import Lessons
from gtnlib.judge.training import Recipe

OWN = Recipe()  # the rates that the teacher prescribes
SGD = tuple(Recipe("sgd", rate) for rate in (0.01, 0.03, 0.1))
ADAM = tuple(Recipe("adam", rate) for rate in (0.001, 0.003, 0.01))
# Rates that fall along half a cosine, as those of a tuned lesson fall along a line.
FALLING = (*(Recipe("sgd", rate, cosine=True) for rate in (0.03, 0.1)),
           *(Recipe("adam", rate, cosine=True) for rate in (0.003, 0.01)))  # fmt: skip


def chosen(
    names: Sequence[str], others: Sequence[Recipe] = ADAM
) -> dict[str, tuple[Lessons, Sequence[Recipe]]]:
    """Recorded teachers, whose students may follow their recipe or another, whichever serves them."""
    return {f"{name}, chosen": (Lessons(name), [OWN, *others]) for name in names}


def lasting(steps: int, recipes: Sequence[Recipe]) -> list[Recipe]:
    """The recipes for so many steps: of real images, which prescribe none."""
    return [replace(recipe, steps=steps) for recipe in recipes]
