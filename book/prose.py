"""A page of the site as plain Markdown, from its resolved doctree: what Colab and Jupyter can read."""

import html
import re
from itertools import groupby
from urllib.parse import urljoin

from docutils import nodes
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_node, solution_node

SPECIAL = re.compile(r"([\\`*$~]|(?<![^\W_])_|_(?![^\W_])|<(?=[\w/!?])|\[(?=[^\]]*\]\())")
MARKER = re.compile(r"^(\d+(?=[.)] )|(?=[#>]|[-+] ))")


class Unknown(Exception):
    """A part of a page that has no rule here."""


class Prose:
    """A page as pieces: Markdown, and between it code cells, as (index in the source, caption)."""

    def __init__(self, page: str, numbers: dict, chapter: str):
        self.page, self.numbers, self.chapter = page, numbers, chapter
        self.depth = 0  # of lists, quotations and tables around the node at hand
        self.folded: set[int] = set()  # code cells of solutions

    def number(self, kind: str, node) -> str:
        """The number of a figure, table, equation or exercise; nothing if it has none."""
        known = self.numbers.get(kind, {})
        found = (".".join(map(str, known[name])) for name in node["ids"] if name in known)
        return next(found, "")

    def text(self, node) -> str:
        """What stands in a line, as Markdown."""
        if isinstance(node, nodes.Text):
            return SPECIAL.sub(r"\\\1", node.astext().replace("\n", " "))
        inner = "".join(map(self.text, node.children))
        match node:
            case nodes.emphasis():
                return around("*", inner)
            case nodes.strong():
                return around("**", inner)
            case nodes.literal():
                return code_span(node.astext())
            case nodes.math():
                return f"${' '.join(node.astext().split())}$"
            case nodes.reference():
                return f"[{inner.strip()}]({self.address(node)})"
            case nodes.footnote_reference() | nodes.superscript():
                return f"<sup>{inner}</sup>"
            case nodes.image():
                return f"![{node.get('alt', '')}]({urljoin(self.page, node['uri'])})"
            case nodes.target() | nodes.comment():
                return ""
            case nodes.inline() | nodes.paragraph() | nodes.caption() | nodes.title() | nodes.term():
                return inner
        raise Unknown(node.tagname)

    def address(self, node) -> str:
        """Where a reference leads, on the site or elsewhere."""
        return urljoin(self.page, node["refuri"] if "refuri" in node else f"#{node['refid']}")

    def pieces(self, parts, level: int = 0) -> list:
        return [piece for part in parts for piece in self.block(part, level)]

    def block(self, node, level: int) -> list:
        """What stands by itself, as pieces."""
        match node:
            case nodes.target() | nodes.comment():
                return []
            case nodes.raw(attributes={"format": "html"}):
                return [] if "<script" in node.astext() else [node.astext()]
            case nodes.section():
                return self.pieces(node, level + 1)
            case nodes.title():
                number = f"{self.chapter} " if level == 1 and self.chapter else ""
                return [f"{'#' * level} {number}{self.text(node)}"]
            case nodes.paragraph():
                return [MARKER.sub(r"\1\\", self.text(node))]
            case nodes.math_block():
                return [self.equation(node)]
            case nodes.literal_block():
                return [f"```{node.get('language', '')}\n{node.astext().strip()}\n```"]
            case nodes.bullet_list() | nodes.enumerated_list():
                return [self.items(node)]
            case nodes.definition_list():
                return [piece for item in node for piece in self.definition(item)]
            case nodes.table():
                return self.table(node)
            case nodes.block_quote():
                return [quoted(self.nested(node))]
            case exercise_node() | exercise_enumerable_node():
                name = f"Exercise {self.number('exercise', node)}".strip()
                return self.fold(name + html_of(node[0]), node[1], " open")
            case solution_node():
                pieces = self.fold("Solution to" + html_of(node[0][1]), node[1])
                self.folded |= {piece[0] for piece in pieces if not isinstance(piece, str)}
                return pieces
            case nodes.Admonition():
                titled = isinstance(node[0], nodes.title)
                title = self.text(node[0]) if titled else node.tagname.capitalize()
                return [quoted([f"**{title}**", *self.nested(node[titled:])])]
            case nodes.container(attributes={"nb_element": "cell_code"}):
                figure = next(node.findall(nodes.figure), None)
                caption = figure and self.caption("Figure", figure, next(figure.findall(nodes.caption)))
                return [(int(node["cell_index"]), caption)]
            case nodes.container():
                return self.pieces(node, level)
            case nodes.figure():
                image = self.text(next(node.findall(nodes.image)))
                return [image, *(self.caption("Figure", node, c) for c in node.findall(nodes.caption))]
            case nodes.transition():
                return ["---"]
            case nodes.footnote():
                return [f"<sup>{node[0].astext()}</sup> " + " ".join(self.nested(node[1:]))]
        raise Unknown(node.tagname)

    def nested(self, parts) -> list[str]:
        """Blocks within a block, where there is no place for a code cell."""
        self.depth += 1
        pieces = self.pieces(parts)
        self.depth -= 1
        if not all(isinstance(piece, str) for piece in pieces):
            raise Unknown("code cell in a list, a quotation or an admonition")
        return pieces

    def equation(self, node) -> str:
        """A displayed formula with its number; on one line within another block, whose lines are prefixed."""
        formula = re.sub(r"(begin|end)\{(align|gather)\*?\}", r"\1{\2ed}", node.astext().strip())
        if r"\\" in formula and not formula.startswith(r"\begin"):
            formula = "\\begin{aligned}\n" + formula + "\n\\end{aligned}"
        if number := self.number("displaymath", node):
            formula += rf" \tag{{{number}}}"
        return f"$${' '.join(formula.split())}$$" if self.depth else f"$$\n{formula}\n$$"

    def items(self, node) -> str:
        start = node.get("start", 1) if isinstance(node, nodes.enumerated_list) else None
        items = [self.nested(item) for item in node]
        tight = all(len(item) == 1 for item in items)
        lines = []
        for i, item in enumerate(items):
            mark = "- " if start is None else f"{start + i}. "
            lines.append(mark + re.sub(r"\n(?=.)", "\n" + " " * len(mark), "\n\n".join(item)))
        return ("\n" if tight else "\n\n").join(lines)

    def definition(self, item) -> list:
        """A term and its definition, for which Markdown has no form: a paragraph that begins in bold."""
        *terms, body = item
        first, *rest = self.nested(body)
        return [f"**{', '.join(map(self.text, terms))}**: {first}", *rest]

    def table(self, node) -> list[str]:
        title = [self.caption("Table", node, part) for part in node if isinstance(part, nodes.title)]
        rows = list(node.findall(nodes.row))
        if not any(node.findall(nodes.thead)):
            rows.insert(0, [nodes.entry() for _ in rows[0]])
        lines = ["| " + " | ".join(map(self.entry, row)) + " |" for row in rows]
        ends = ("--:" if "text-right" in entry["classes"] else "---" for entry in rows[-1])
        lines.insert(1, "|" + "|".join(ends) + "|")
        return [*title, "\n".join(lines)]

    def entry(self, node) -> str:
        line = " ".join(self.nested(node)).replace("\n", " ")
        line = re.sub(r"\$[^$]+\$", lambda formula: formula[0].replace("|", r"\vert "), line)
        return line.replace("|", r"\|")

    def caption(self, kind: str, node, text) -> str:
        return f"**{kind} {self.number(kind.lower(), node)}**".replace(" **", "**") + f" {self.text(text)}"

    def fold(self, summary: str, parts, opened: str = "") -> list:
        """Pieces under a summary that opens them; a code cell ends the fold and another begins after it."""
        folded = []
        for written, group in groupby(self.pieces(parts), lambda piece: isinstance(piece, str)):
            if not written and not folded:  # the summary comes first in any case
                folded.append(details(summary, "In the next cell.", opened))
            folded += [details(summary, "\n\n".join(group), opened)] if written else group
            summary = summary.removesuffix(", continued") + ", continued"
        return folded


def details(summary: str, text: str, opened: str) -> str:
    return f"<details{opened}>\n<summary><b>{summary}</b></summary>\n\n{text}\n\n</details>"


def around(mark: str, text: str) -> str:
    """Emphasis, with the spaces outside."""
    inner = text.strip()
    return text.replace(inner, mark + inner + mark) if inner else text


def code_span(text: str) -> str:
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    edge = " " if text.startswith("`") or text.endswith("`") else ""
    return fence + edge + text + edge + fence


def quoted(blocks: list[str]) -> str:
    return re.sub("^", "> ", "\n\n".join(blocks), flags=re.MULTILINE).replace("> \n", ">\n")


def html_of(node) -> str:
    """A title within a summary, where Markdown is not read."""
    if isinstance(node, nodes.math):
        return f"${node.astext()}$"
    if isinstance(node, nodes.Text):
        return html.escape(node.astext(), quote=False)
    inner = "".join(map(html_of, node.children))
    return f"<code>{inner}</code>" if isinstance(node, nodes.literal) else inner
