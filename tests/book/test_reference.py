"""The reference page: every public name once, in its room, from a docstring that Sphinx can read."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import gtnlib

pytest.importorskip("sphinx")
from docutils import core, nodes, utils  # noqa: E402
from docutils.parsers.rst import roles  # noqa: E402
from sphinx.addnodes import pending_xref  # noqa: E402

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("docstrings", ROOT / "book" / "docstrings.py")
docstrings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docstrings)


def test_every_public_name_is_on_the_page_once():
    page = (ROOT / f"{docstrings.PAGE}.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\.\. room:: (\w+)$", page, re.MULTILINE)
    assert sorted(name for room in rooms for name in docstrings.public(room)) == sorted(gtnlib.__all__)


@pytest.mark.parametrize("name, expected", [
    ("Split", [".. autoclass:: gtnlib.Split", "   :members:", ""]),
    ("PixelTeacher", [".. autoclass:: gtnlib.PixelTeacher", "   :show-inheritance:", "   :members:", ""]),
    ("OuterStep", [".. autoclass:: gtnlib.OuterStep", ""]),
    ("fit", [".. autofunction:: gtnlib.fit", ""]),
    ("LONG", [".. autodata:: gtnlib.LONG", ""]),
])  # fmt: skip
def test_a_name_is_documented_by_its_kind(name, expected):
    assert docstrings.entry(name) == expected


def test_the_page_is_in_the_table_of_contents():
    assert f"- file: {docstrings.PAGE}\n" in (ROOT / "_toc.yml").read_text(encoding="utf-8")


def read(text: str) -> nodes.document:
    """The doctree of a docstring; fails where docutils finds anything to complain of."""
    roles.register_local_role("py:obj", roles.GenericRole("py:obj", nodes.reference))
    lines = docstrings.restructured(inspect.cleandoc(text).splitlines())
    strict = {"report_level": 1, "halt_level": 1, "warning_stream": False}
    return core.publish_doctree("\n".join(lines), settings_overrides=strict)


@pytest.mark.parametrize("name", gtnlib.__all__)
def test_docstrings_are_there_and_can_be_read(name):
    public = getattr(gtnlib, name)
    members = vars(public).values() if isinstance(public, type) else ()
    texts = [inspect.getdoc(member) for member in members if inspect.isroutine(member)]
    assert public.__doc__
    for text in [public.__doc__, *filter(None, texts)]:
        read(text)


def test_a_docstring_of_entries_becomes_lists_under_titles():
    document = read("""What it does, *state and w_ as they stand.

    Parameters
    ----------
    name: "mnist" or
        another. root: no entry of its own.
    steps, rate: two at once. width: on the same line.

    Returns
    -------
    A number of `torch`, see `fit`.

    free: without a title.

        m ← μ m
    """)
    fields = list(document.findall(nodes.field))
    assert [field[0].astext() for field in fields] == ["Parameters", "Returns"]
    entries = [item.astext() for item in fields[0].findall(nodes.list_item)]
    assert entries == ['name: "mnist" or\nanother. root: no entry of its own.', "steps, rate: two at once.",
                       "width: on the same line."]  # fmt: skip
    assert [literal.astext() for literal in document.findall(nodes.literal)] == ['"mnist"', "torch"]
    assert [link.astext() for link in document.findall(nodes.reference)] == ["~gtnlib.fit"]
    assert [block.astext() for block in document.findall(nodes.literal_block)] == ["m ← μ m"]
    assert document[0].astext() == "What it does, *state and w_ as they stand."


def page(*texts: str) -> nodes.document:
    """A page whose title and paragraphs are code."""
    document = utils.new_document("page")
    document += nodes.title("", "", nodes.literal("", texts[0]))
    document.extend(nodes.paragraph("", "", nodes.literal("", text)) for text in texts[1:])
    return document


def test_the_first_mention_of_a_public_name_leads_to_the_reference():
    document = page("fit", "fit(teacher, Unrolled())", "fit", "fitted", "Split")
    docstrings.link_first_uses(SimpleNamespace(env=SimpleNamespace(docname="page")), document)
    links = list(document.findall(pending_xref))
    assert [link["reftarget"] for link in links] == ["gtnlib.fit", "gtnlib.Split"]
    assert [link.astext() for link in links] == ["fit(teacher, Unrolled())", "Split"]
    assert links[0].parent is document[1]


def test_the_reference_does_not_link_to_itself():
    document = page("Title", "fit")
    docstrings.link_first_uses(SimpleNamespace(env=SimpleNamespace(docname=docstrings.PAGE)), document)
    assert not list(document.findall(pending_xref))
