"""Tables of the chapters: caption, entries, the best in bold, a box that scrolls."""

import re

import pytest

from gtnlib import Statistic
from gtnlib.judge.ranking import Interval
from gtnlib.show.tables import points, table

ROWS = {"one": {"accuracy": Statistic((0.91, 0.93)), "seconds": 1.234, "steps": 10},
        "two": {"accuracy": Statistic((0.95, 0.97)), "seconds": 0.5, "steps": 32}}  # fmt: skip


def bold(shown):
    """Entries of a table in bold."""
    html = shown._repr_html_()
    cells = dict(re.findall(r'<td id="(\S+)"[^>]*>([^<]*)</td>', html))
    rules = re.findall(r"([^{}]*)\{\s*font-weight: bold;\s*\}", html)
    return {cells[name] for rule in rules for name in re.findall(r"#(\S+_col\d+)", rule)}


def test_entries_are_written_as_statistics_and_formats_say():
    html = table(ROWS, "Some results.", form={"steps": "{:04}"})._repr_html_()
    assert "<figcaption>Some results.</figcaption>" in html
    for entry in ("92.0 ± 1.4 %", "1.23", "0.50", "0010", "one"):
        assert f">{entry}</" in html
    assert 'tabindex="0"' in html and "overflow-x: auto" in html


def test_the_best_is_bold_by_its_mean():
    assert bold(table(ROWS, "c")) == set()
    assert bold(table(ROWS, "c", best=["accuracy"])) == {"96.0 ± 1.4 %"}
    assert bold(table(ROWS, "c", best=["accuracy"], least=["seconds"])) == {"96.0 ± 1.4 %", "0.50"}
    intervals = {"a": {"ρ": Interval(0.9, 0.1, 1.0)}, "b": {"ρ": Interval(0.8, 0.7, 0.9)}, "c": {"ρ": "none"}}
    assert bold(table(intervals, "c", best=["ρ"])) == {"0.90 (0.10 to 1.00)"}


def test_missing_entries_are_a_dash_and_never_the_best():
    shown = table({"a": {"x": 1, "y": 2}, "b": {"x": 3}}, "c", best=["x", "y"])
    assert ">–</td>" in shown._repr_html_() and bold(shown) == {"3", "2"}


def test_the_same_table_is_the_same_text():
    assert table(ROWS, "c")._repr_html_() == table(ROWS, "c")._repr_html_()
    assert table(ROWS, "c")._repr_html_() != table(ROWS, "d")._repr_html_()


def test_outside_a_notebook_it_is_text():
    text = repr(table(ROWS, "Some results."))
    assert text.startswith("Some results.") and "96.0 ± 1.4 %" in text


def test_labels_of_two_parts_make_two_columns():
    html = table({("pixels", "unrolled"): {"x": 1}, ("pixels", "implicit"): {"x": 2}}, "c")._repr_html_()
    assert html.count(">pixels</th>") == 1 and 'rowspan="2"' in html


@pytest.mark.parametrize("arguments", [{"best": ["speed"]}, {"least": ["speed"]}, {"form": {"speed": "{}"}}])
def test_an_unknown_column_is_an_error(arguments):
    with pytest.raises(ValueError, match="no column 'speed', only accuracy"):
        table(ROWS, "c", **arguments)


def test_points_are_of_pairs_with_an_interval():
    one, two = Statistic((0.90, 0.91, 0.89, 0.92, 0.88)), Statistic((0.85, 0.86, 0.84, 0.87, 0.83))
    assert points(one, two) == "+5.0 (+5.0 to +5.0)", "seed by seed, so the common spread is gone"
    assert points(two, one) == "−5.0 (−5.0 to −5.0)"
    value, low, high = map(
        float, re.findall(r"[+-][\d.]+", points(one, Statistic((0.85,) * 5)).replace("−", "-"))
    )
    assert value == 5.0 and 2.9 <= low < 4.0 and 6.0 < high <= 7.1
    with pytest.raises(ValueError):
        points(one, Statistic((0.9, 0.8)))
