"""What version 0.1 wrote before the rooms were built opens, and goes on."""

from pathlib import Path

import pytest
import torch
from test_checkpoint import METAGRADS, generated, pixels, train

from gtnlib import TeachingSet
from gtnlib.teachers.files import load_teacher

WRITTEN = Path(__file__).parent / "written"


@pytest.mark.parametrize(
    "method, teacher", [("unrolled", pixels), ("implicit", pixels), ("matching", generated)]
)
def test_a_checkpoint_goes_on(method, teacher, toy, tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes((WRITTEN / f"checkpoint-{method}.safetensors").read_bytes())
    steps = []
    whole = train(teacher, METAGRADS[method], toy)
    again = train(teacher, METAGRADS[method], toy, path, callback=lambda step, *_: steps.append(step))
    assert steps == [3, 4, 5, 6]
    assert again[1].loss == pytest.approx(whole[1].loss, rel=1e-4)
    for a, b in zip(again[0].parameters(), whole[0].parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_teachers_and_teaching_sets_open(toy):
    teacher, exported = (
        load_teacher(WRITTEN / "teacher-generator.safetensors"),
        TeachingSet.load(WRITTEN / "set.npz"),
    )
    made = teacher.teaching_set()
    torch.testing.assert_close(made.images, exported.images, rtol=0, atol=2e-3)  # one is in half precision
    assert torch.equal(made.labels, exported.labels) and torch.equal(made.order, exported.order)
    torch.testing.assert_close(made.rate, exported.rate)
    assert float(load_teacher(WRITTEN / "teacher-pixels.safetensors").images.detach().sum()) == pytest.approx(
        3.1285, abs=0.01
    )
