"""The reference page: the public names of gtnlib by room, their docstrings, and links to them.

A docstring of the library is plain prose in which `name` is code. An entry is a line "name: text", what
belongs to it is indented; entries stand in paragraphs of their own, under the title of a section or
without one. Where prose names something public for the first time on a page, the name leads here.
"""

import re
from itertools import groupby

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature

import gtnlib

PAGE = "book/reference"
ENTRY = re.compile(r"(\w+(?:, \w+)*):(?: |$)")
ANOTHER = re.compile(r"[.;] (?=\w+: )")  # entry on the same line
CALL = re.compile(r"\(.*\)$", re.DOTALL)
STRING = re.compile(r'"[\w.-]+"')
RULE = re.compile(r"-{3,}$")


class Room(SphinxDirective):
    """`.. room:: data` documents the public names that the package gtnlib.data holds."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = [line for name in public(self.arguments[0]) for line in entry(name)]
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, source=self.get_source_info()[0]), 0, node)
        return node.children


def public(room: str) -> list[str]:
    """The public names of a room."""
    return [name for name in gtnlib.__all__ if getattr(gtnlib, name).__module__.split(".")[1] == room]


def entry(name: str) -> list[str]:
    """What asks autodoc for a public name."""
    value = getattr(gtnlib, name)
    if not isinstance(value, type):
        return [f".. auto{'function' if callable(value) else 'data'}:: gtnlib.{name}", ""]
    lines = [f".. autoclass:: gtnlib.{name}"]
    if value.__base__.__module__.startswith("gtnlib"):
        lines += ["   :show-inheritance:"]
    if not issubclass(value, tuple):  # whose fields are documented as numbers
        lines += ["   :members:"]
    return [*lines, ""]


def inline(text: str) -> str:
    """A line with names in backticks as code, the public ones as links, and nothing else marked."""
    parts = text.split("`")
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f":py:obj:`~gtnlib.{part}`" if part in gtnlib.__all__ else f"``{part}``"
        else:
            parts[i] = STRING.sub(r"``\g<0>``", re.sub(r"([\\*|]|_\b)", r"\\\1", part))
    return "".join(parts)


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Lines between empty lines."""
    groups = groupby((line.rstrip() for line in lines), bool)
    return [list(group) for written, group in groups if written]


def body(lines: list[str]) -> list[str]:
    """A paragraph: entries as a list, what is indented as it stands, all else as prose."""
    if all(line.startswith(" ") for line in lines):
        return ["::", "", *lines]
    if not all(line.startswith(" ") or ENTRY.match(line) for line in lines):
        return [inline(line) for line in lines]
    entries: list[str] = []
    for line in lines:
        if line.startswith(" "):
            entries.append("  " + inline(line.strip()))
            continue
        for entry in ANOTHER.sub(".\n", line).split("\n"):
            name, _, text = entry.partition(":")
            entries.append(f"* **{name}**: {inline(text.strip())}")
    return entries


def restructured(lines: list[str]) -> list[str]:
    """A docstring in the form that Sphinx reads."""
    result: list[str] = []
    for paragraph in paragraphs(lines):
        if len(paragraph) > 2 and RULE.match(paragraph[1]):
            result += [f":{paragraph[0]}:", *("    " + line for line in body(paragraph[2:])), ""]
        else:
            result += [*body(paragraph), ""]
    return result


def rewrite(app, what, name, obj, options, lines) -> None:
    if what == "data":  # is documented where it is made, not by its class
        documented = ModuleAnalyzer.for_module(obj.__module__).find_attr_docs()
        lines[:] = documented["", name.rpartition(".")[2]]
    lines[:] = restructured(lines)


def sign(app, what, name, obj, options, signature, returns):
    """A class is called as its __init__ says, whatever its __new__ takes; all defaults must be Python."""
    if what == "class" and "__init__" in vars(obj):
        signature = stringify_signature(signature_of(obj.__init__, bound_method=True),
                                        show_return_annotation=False, unqualified_typehints=True)  # fmt: skip
    return signature and signature.replace("<factory>", "..."), returns


def link_first_uses(app, doctree) -> None:
    """In prose, the first mention of a public name on a page leads to the reference."""
    linked: set[str] = set()
    if app.env.docname == PAGE:
        return
    for literal in list(doctree.findall(nodes.literal)):
        name = CALL.sub("", literal.astext())
        context = literal.parent
        if name not in gtnlib.__all__ or name in linked or isinstance(context, nodes.title | nodes.reference):
            continue
        linked.add(name)
        link = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=f"gtnlib.{name}",
                                     refexplicit=True, refwarn=True, refdoc=app.env.docname)  # fmt: skip
        literal.replace_self(link)
        link += literal


def find_public(app, env, node, contnode):
    """A type named by the module that holds it is documented by its public name."""
    name = node["reftarget"].rsplit(".", 1)[-1]
    if node.get("refdomain") == "py" and name in gtnlib.__all__:
        return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", f"gtnlib.{name}",
                                                 node, contnode)  # fmt: skip
    return None


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("room", Room)
    app.connect("autodoc-process-docstring", rewrite)
    app.connect("autodoc-process-signature", sign)
    app.connect("doctree-read", link_first_uses)
    app.connect("missing-reference", find_public)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
