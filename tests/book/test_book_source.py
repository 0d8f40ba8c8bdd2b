"""The sources of the book, checked without building it: table of contents, notebooks, citations."""

import json
import re
import statistics
from pathlib import Path

import pytest
import yaml

from gtnlib.data.load import MNIST_SHA256

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROSE = [ROOT / "index.md", *sorted((ROOT / "book").glob("*.md"))]
MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(?:home|root|tmp|work|mnt|Users)/\w")
BROKEN_FENCE = re.compile(r"^```+\{[^\n`]*`.*", re.MULTILINE)
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")


def bibliography() -> set[str]:
    entries = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    return set(re.findall(r"^@\w+\{([^,\s]+),", entries, re.MULTILINE))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def text_problems(text: str, keys: set[str]) -> list[str]:
    """What is wrong with a piece of prose or code, as sentences."""
    cited = [key.strip() for group in CITATION.findall(text) for key in group.split(",")]
    problems = [f"cites {key!r}, which references.bib lacks" for key in cited if key not in keys]
    problems += [
        f"is no directive, for a backtick in its title: {m[0]!r}" for m in BROKEN_FENCE.finditer(text)
    ]
    return problems + [f"names a machine's path {m[0]!r}" for m in MACHINE_PATH.finditer(text)]


def notebook_problems(notebook: dict, keys: set[str]) -> list[str]:
    """What is wrong with a notebook, as sentences; an empty list if nothing is."""
    problems = []
    metadata, cells = notebook["metadata"], notebook["cells"]
    if metadata.get("kernelspec", {}).get("name") != "python3":
        problems.append("its kernel is not python3")
    if metadata.get("execution", {}).get("allow_errors"):
        problems.append("it allows errors")
    if not re.search(r"^# \D", source(cells[0]) if cells else "", re.MULTILINE):
        problems.append("its first cell has no title, or a title with the chapter's number in it")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    first = source(code[0]) if code else ""
    if "pip install" not in first or not re.search("import gtnlib|find_spec", first):
        problems.append("its first code cell does not install gtnlib where it is missing")
    address = '"gtnlib @ git+https://github.com/gtn-book/gtn-book"'
    installs = re.findall(r"(?:pip|conda|apt|curl|wget)\b[^\n]*", "\n".join(map(source, code)))
    if any(line not in [f"pip install --quiet {address}"] for line in installs):
        problems.append("it installs something from elsewhere than the project's own address")
    for cell in cells:
        problems += [f"{p}: {source(cell)[:60]!r}" for p in cell_problems(cell)]
        problems += text_problems(source(cell), keys)
    return problems


def cell_problems(cell: dict) -> list[str]:
    problems = []
    if {"raises-exception", "skip-execution"} & set(cell["metadata"].get("tags", [])):
        problems.append("a tag hides that the cell fails or does not run")
    if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"] is not None):
        problems.append("stored output")
    shown = cell["metadata"].get("mystnb", {})
    if "figure" in shown or "image" in shown:
        if len(shown.get("image", {}).get("alt", "")) < 20:
            problems.append("an image without a description (mystnb.image.alt)")
        if "figure" in shown and not {"name", "caption"} <= set(shown["figure"]):
            problems.append("a figure without name or caption")
    return problems


def contents() -> list[str]:
    """The documents in _toc.yml, in order, without suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))

    def files(node):
        if isinstance(node, dict):
            yield from (node[key] for key in ("root", "file") if key in node)
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from files(child)

    return list(files(toc))


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_well_formed(path):
    assert notebook_problems(read(path), bibliography()) == []


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_prose_cites_what_exists_and_names_no_machine(path):
    assert text_problems(path.read_text(encoding="utf-8"), bibliography()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_visible_cells_are_the_idea_and_hidden_ones_draw(path):
    visible = []
    for cell in read(path)["cells"]:
        hidden = {"hide-input", "hide-cell"} & set(cell["metadata"].get("tags", []))
        if cell["cell_type"] != "code" or "remove-cell" in cell["metadata"].get("tags", []):
            continue
        if "hide-cell" in hidden:
            assert "relative_difference" in source(cell), "only checks against the library are folded whole"
        elif hidden:
            assert re.search(r"plt\.subplots|show_images|player", source(cell)), source(cell)[:80]
            assert "print(" not in source(cell) and "table(" not in source(cell), source(cell)[:80]
        else:
            visible.append(len(source(cell).splitlines()))
    assert statistics.median(visible) <= 8, sorted(visible)
    assert max(visible) <= 25, sorted(visible)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_gap_is_to_be_filled_and_its_solution_must_be_right(path):
    """A gap runs without harm, as `check` says that it is one; the solution asserts the same check."""
    cells = read(path)["cells"]
    gaps = [i for i, cell in enumerate(cells) if "gap" in cell["metadata"].get("tags", [])]
    assert gaps, "no exercise to be filled in"
    for i in gaps:
        asked = re.search(r"^check\((?:.|\n)*", source(cells[i]), re.MULTILINE)
        assert asked and "...  " in source(cells[i])
        label = re.search(r"```\{solution-start\} (\S+)", source(cells[i + 1]))
        assert label and f":label: {label[1]}" in source(cells[i - 1])
        assert f"assert {asked[0].rstrip(';')}" in source(cells[i + 2]) and "..." not in source(cells[i + 2])


def test_figures_take_their_colours_from_the_methods():
    for path in NOTEBOOKS:
        for cell in read(path)["cells"]:
            if cell["cell_type"] == "code":
                named = re.findall(r"\b(?:BLUE|ORANGE|GREEN|PINK)\b|#[0-9a-f]{6}\b", source(cell))
                assert not named, f"{path.stem}: {named} in {source(cell)[:60]!r}"


def test_contents_lists_every_page_once_and_only_pages_that_exist():
    listed = contents()
    assert len(listed) == len(set(listed))
    for name in listed:
        assert any((ROOT / f"{name}{suffix}").is_file() for suffix in (".md", ".ipynb")), name
    pages = {str(path.relative_to(ROOT).with_suffix("")) for path in NOTEBOOKS + PROSE}
    assert pages == set(listed)


def test_figures_have_different_names():
    cells = [cell for path in NOTEBOOKS for cell in read(path)["cells"]]
    figures = [cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells]
    names = [name for name in figures if name]
    assert len(names) == len(set(names)), "labels are global to the book"


def test_the_page_on_data_names_the_checksum_in_use():
    assert MNIST_SHA256 in (ROOT / "book" / "data.md").read_text(encoding="utf-8")


# The checks themselves: a good notebook passes, and each way to break it is noticed.


def good_notebook() -> dict:
    def cell(kind, text, **metadata):
        extra = {"outputs": [], "execution_count": None} if kind == "code" else {}
        return {"cell_type": kind, "metadata": metadata, "source": [text], **extra}

    figure = {"image": {"alt": "A line that rises from left to right."},
              "figure": {"name": "fig-line", "caption": "A line."}}  # fmt: skip
    install = "try:\n    import gtnlib\nexcept ImportError:\n    %pip install --quiet "
    install += '"gtnlib @ git+https://github.com/gtn-book/gtn-book"'
    return {
        "metadata": {"kernelspec": {"name": "python3"}},
        "cells": [cell("markdown", "# A title\nafter {cite:t}`wang2018`"), cell("code", install),
                  cell("code", "plt.plot([1, 2])", mystnb=figure, tags=["hide-input"])],
    }  # fmt: skip


BREAKS = {
    "kernel": lambda n: n["metadata"]["kernelspec"].update(name="my-env"),
    "allow_errors": lambda n: n["metadata"].update(execution={"allow_errors": True}),
    "no title": lambda n: n["cells"].pop(0),
    "number in title": lambda n: n["cells"][0].update(source=["# 1 A title"]),
    "no install cell": lambda n: n["cells"].pop(1),
    "foreign install": lambda n: n["cells"][2].update(source=["%pip install https://example.org/x.whl"]),
    "output": lambda n: n["cells"][2].update(outputs=[{"output_type": "stream"}]),
    "execution count": lambda n: n["cells"][2].update(execution_count=3),
    "raises": lambda n: n["cells"][2]["metadata"].update(tags=["raises-exception"]),
    "no alt text": lambda n: n["cells"][2]["metadata"]["mystnb"].pop("image"),
    "short alt text": lambda n: n["cells"][2]["metadata"]["mystnb"]["image"].update(alt="A line."),
    "no caption": lambda n: n["cells"][2]["metadata"]["mystnb"]["figure"].pop("caption"),
    "unknown citation": lambda n: n["cells"][0]["source"].append(" {cite:p}`wang2018,nobody1900`"),
    "broken directive": lambda n: n["cells"][0]["source"].append("\n```{exercise} Why `x`?\n```"),
    "machine path": lambda n: n["cells"][2].update(source=["open('/home/me/x.npz')"]),
}


def test_a_good_notebook_passes():
    assert notebook_problems(good_notebook(), {"wang2018"}) == []


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_notebook_is_noticed(name):
    notebook = good_notebook()
    BREAKS[name](notebook)
    assert notebook_problems(notebook, {"wang2018"})
