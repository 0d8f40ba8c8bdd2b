"""The explorers, moved by hand as a reader would: what is shown must follow."""

import base64
import re
import subprocess
import sys

import numpy as np
import pytest

from gtnlib import PixelTeacher, RealTeacher
from gtnlib.show import explore

pytest.importorskip("ipywidgets")
H, V = np.array([[1.0, 0.3], [0.3, 0.5]]), np.array([0.9, 0.4])


def parts(box):
    """The controls of an explorer by their description, and its picture."""
    panel, picture = box.children
    return {child.description: child for child in panel.children}, picture


def alt(picture):
    return re.search(r'alt="([^"]*)"', picture.value)[1]


@pytest.fixture
def teachers(toy):
    learned = PixelTeacher(1, steps=3, shape=toy.shape, num_classes=toy.num_classes)
    return {"learned": learned, "real": RealTeacher(toy.train, steps=4, batch_size=6)}


def test_ipywidgets_is_imported_only_when_asked_for():
    code = "import sys, gtnlib.show.explore; sys.exit(bool({'ipywidgets', 'pandas'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_teacher_has_taught_a_student_to_begin_with(teachers, toy):
    _, picture = parts(explore.explore_student(teachers, toy))
    assert re.search(r"learned, 3 steps: [\d.]+ %; real, 4 steps: [\d.]+ %", alt(picture))
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', picture.value)[1]
    assert b"</svg>" in base64.b64decode(data)


def test_a_press_trains_a_fresh_student_as_the_controls_say(teachers, toy):
    controls, picture = parts(explore.explore_student(teachers, toy, shown=3))
    button = controls["Train a student"]
    controls["teacher"].value, controls["steps"].value, controls["rates ×"].value = "real", 2, 0.1
    before = picture.value
    button.click()
    assert picture.value != before and "real, 2 steps, rates × 0.1: " in alt(picture)
    assert not button.disabled and button.description == "Train a student"
    button.click()
    assert "learned" not in alt(picture), "the oldest curve makes room"


def test_rates_and_seed_make_a_difference(toy):
    teacher = RealTeacher(toy.train, steps=20, batch_size=30, rate=0.1)

    def last(factor, seed):
        return explore.learning_curve(teacher, toy, explore.ConvNet, 20, factor, seed)

    marks, values = last(1.0, 0)
    assert marks[0] == 0 and marks[-1] == 20 and values[-1] > values[0]
    assert last(1.0, 0)[1] == values
    assert last(1e-6, 0)[1][-1] == values[0], "hardly a step is taken"
    assert last(0.02, 1)[1] != last(0.02, 0)[1]


def test_no_teachers_is_an_error(toy):
    with pytest.raises(ValueError, match="teachers is empty"):
        explore.explore_student({}, toy)


def test_partial_sums_close_in_on_the_solution():
    scale = 1 / np.linalg.eigvalsh(H)[-1]
    path = explore.partial_sums(H, V, scale, 100)
    assert path.shape == (101, 2)
    assert path[0] == pytest.approx(scale * V)
    assert path[-1] == pytest.approx(np.linalg.solve(H, V))


def test_the_neumann_picture_follows_its_sliders():
    controls, picture = parts(explore.explore_neumann(H, V, terms=20, share=0.4))

    def error():
        return float(re.search(r"relative error is ([\d.e+-]+)\.$", alt(picture))[1])

    first = error()
    controls["terms K"].value = 40
    assert "40 terms" in alt(picture) and error() < first
    controls["α · h_max"].value = 2.1
    assert error() > 1, "too large a scale diverges"


@pytest.mark.parametrize("hessian", [-H, H + np.array([[0, 1], [0, 0]])])
def test_the_neumann_picture_needs_a_valley(hessian):
    with pytest.raises(ValueError, match="positive eigenvalues"):
        explore.explore_neumann(hessian, V)
    with pytest.raises(ValueError, match="must be .2, 2."):
        explore.explore_neumann(np.eye(3), V)
