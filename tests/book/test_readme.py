"""The README has no glue: its numbers must be those of the records."""

import re
from pathlib import Path

from gtnlib.experiments import distillation, judgement
from gtnlib.experiments.records import recorded

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
GENERATED, PIXELS = (
    "48 steps on 800 generated images give",
    "1000 epochs with augmentation on 100 pixel images give",
)


def line(start: str) -> list[float]:
    """The percentages of the line that begins so, until its first sentence ends."""
    found = re.search(rf"^- {start} (.*?)\.( |$)", README, re.MULTILINE)
    assert found, f"no line begins with {start!r}"
    return [float(number) for number in re.findall(r"([\d.]+) %", found[1])]


def test_its_generators_are_those_of_the_records():
    own = [
        distillation.accuracies(recorded(f"tuned-gtn-{m}"))[0] for m in ("unrolled", "implicit", "matching")
    ]
    real = judgement.accuracies(recorded("judged-tuned-gtn"))["real-800.lesson-48x100"]
    assert line(GENERATED) == [round(100 * one.mean, 1) for one in (*own, real)]


def test_its_pixels_are_those_of_the_records():
    found = judgement.accuracies(recorded("judged-tuned"))
    names = [f"tuned-pixels-{method}-10" for method in ("implicit", "matching", "unrolled")]
    assert line(PIXELS) == [
        round(100 * found[f"{name}.augmented"].mean, 1) for name in (*names, "herding-100")
    ]
