"""Tables of the chapters: pandas as HTML, with a caption, scrolling sideways where the screen is narrow."""

from __future__ import annotations

import html
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from gtnlib.judge.intervals import difference
from gtnlib.judge.ranking import Interval
from gtnlib.judge.report import Report, Statistic


@dataclass(frozen=True)
class Table:
    """A DataFrame, shown as HTML in a notebook and as text elsewhere."""

    frame: pd.DataFrame
    caption: str
    style: pd.io.formats.style.Styler

    def _repr_html_(self) -> str:
        caption = html.escape(self.caption)
        box = f'role="region" tabindex="0" aria-label="{caption}" style="overflow-x: auto"'
        return (f'<figure class="book-table"><figcaption>{caption}</figcaption>'
                f"<div {box}>{self.style.to_html()}</div></figure>")  # fmt: skip

    def __repr__(self) -> str:
        shown = self.frame.map(lambda value: f"{value:.3g}" if isinstance(value, float) else str(value))
        return f"{self.caption}\n{shown.to_string()}"


def table(rows: Mapping, caption: str, best: Sequence[str] = (), least: Sequence[str] = (),
          form: str | Mapping[str, str] | None = None) -> Table:  # fmt: skip
    """A table of the last line of a cell.

    Parameters
    ----------
    rows: by label (or tuple of labels) one number, Statistic or text per column, by the column's name.
    caption: what it shows, for the reader and for those who cannot see it.
    best, least: names of columns whose largest, or smallest, entry is set in bold; all that share it.
    form: a format such as "{:.1f} %", of all columns or by name; the rest are shown as `str` does,
        floats with two digits.

    Raises ValueError if a name of best, least or form is no column.
    """
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    tuples = all(isinstance(label, tuple) for label in rows)
    index = pd.MultiIndex.from_tuples(rows) if tuples else list(rows)
    entries = [[row.get(name, float("nan")) for name in columns] for row in rows.values()]
    frame = pd.DataFrame(entries, index, columns, dtype=object)
    named = [*best, *least, *(form if isinstance(form, Mapping) else ())]
    if unknown := [name for name in named if name not in frame.columns]:
        raise ValueError(f"there is no column {unknown[0]!r}, only {', '.join(map(str, frame.columns))}.")
    style = frame.style.set_uuid(f"{zlib.crc32(repr((rows, caption)).encode()):x}")
    style = style.set_table_attributes('class="dataframe"').format(form, precision=2, na_rep="–")
    for names, wanted in ((best, max), (least, min)):
        if names:
            style = style.apply(_bold, wanted=wanted, subset=list(names))
    return Table(frame, caption, style)


def points(one: Statistic, two: Statistic) -> str:
    """one − two in percentage points with its 95 % interval, as "+5.7 (+2.3 to +9.0)".

    Fractions of the same seeds in the same order; the interval is that of
    `gtnlib.judge.intervals.difference`, which raises ValueError for lists of other lengths and for one seed.
    """
    return difference(one.values, two.values).points()


def _bold(column: pd.Series, wanted) -> list[str]:
    sizes = [_size(value) for value in column]
    known = [size for size in sizes if size == size]
    return ["font-weight: bold" if known and size == wanted(known) else "" for size in sizes]


def _size(value) -> float:
    """What an entry is ordered by; NaN, which is never best, for a text."""
    if isinstance(value, Report):
        value = value.accuracy
    if isinstance(value, Statistic):
        return value.mean
    if isinstance(value, Interval):
        return value.value
    return float(value) if not isinstance(value, str) else float("nan")
