"""The chapters for Colab and Jupyter, which read Markdown but know nothing of MyST.

Every notebook of the book is written once more, into colab/NAME.ipynb beside the pages: the code cells
as they are in its source, and between them the prose of the page as it was resolved for the site, with
the values of the build, and with references, captions, equations and exercises in plain Markdown. All
links lead to the site. The deploy workflow puts the folder on a branch of its own, BRANCH, because
Colab opens notebooks from GitHub alone, and the buttons of a page lead there.
"""

import re
from pathlib import Path
from urllib.parse import urljoin

import nbformat
from prose import Prose, Unknown
from sphinx.util import logging

BRANCH = "colab"
NOTE = ("*This chapter of [{book}]({page}) is rendered here for Colab and Jupyter. The numbers in the text "
        "are those of the site, where all results can be seen; yours may differ in the last digits. Cells "
        "that only draw, or collect numbers for the text, are folded, and so are solutions.*")  # fmt: skip
RAW = {
    "a role": re.compile(r"\{[\w:-]+\}`"),
    "a fence": re.compile(r"^[> ]*(?:```+|~~~+|:::+) *\{", re.MULTILINE),
    "a label": re.compile(r"^[> ]*\([\w-]+\)=|\$\$ *\([\w-]+\)$", re.MULTILINE),
    "an option": re.compile(r"^[> ]*:[\w-]+:( |$)", re.MULTILINE),
}
log = logging.getLogger(__name__)


def assemble(source, pieces: list, folded: set[int]):
    """A notebook of the pieces and of all code cells of the source, those too that the site does not show.

    A cell that is not shown follows the cell that is before it in the source.
    """
    shown = {piece[0] for piece in pieces if not isinstance(piece, str)}
    waiting = [i for i, cell in enumerate(source.cells) if cell.cell_type == "code"]
    cells, written = [], []

    def write():
        if written:
            cells.append(nbformat.v4.new_markdown_cell("\n\n".join(written), id=f"text-{len(cells):02}"))
            written.clear()

    def run(stop):
        while waiting and not stop(waiting[0]):
            cell = source.cells[index := waiting.pop(0)]
            hidden = index in folded or index not in shown or "hide-input" in cell.metadata.get("tags", [])
            metadata = {"cellView": "form", "jupyter": {"source_hidden": True}} if hidden else {}
            cells.append(nbformat.v4.new_code_cell(cell.source, id=cell.id, metadata=metadata))

    for piece in pieces:
        if isinstance(piece, str):
            if piece.startswith(("#", "<details open")):
                write()
            written.append(piece)
            continue
        index, caption = piece
        write()
        run(lambda i: i > index)
        written.extend([caption] if caption else [])
        write()
        run(lambda i: i in shown)
    write()
    return nbformat.v4.new_notebook(cells=cells, metadata=source.metadata)


def problems(source, edition) -> list[str]:
    """What is wrong with an edition, as sentences; an empty list if nothing is."""
    code = [[cell.source for cell in book.cells if cell.cell_type == "code"] for book in (source, edition)]
    found = [] if code[0] == code[1] else ["has other code cells than its source"]
    for cell in edition.cells:
        if cell.cell_type == "markdown":
            found += [f"has {name}: {match[0]!r}" for name, kind in RAW.items()
                      for match in kind.finditer(cell.source)]  # fmt: skip
    return found


def render(app, doctree, docname: str):
    """The edition of a page whose doctree is resolved."""
    env, page = app.env, urljoin(app.config.html_baseurl, app.builder.get_target_uri(docname))
    chapter = ".".join(map(str, env.toc_secnumbers.get(docname, {}).get("", ())))
    prose = Prose(page, env.toc_fignumbers.get(docname, {}), chapter)
    pieces = prose.pieces(doctree)
    pieces.insert(1, NOTE.format(book=app.config.html_title, page=page))
    source = nbformat.read(env.doc2path(docname), as_version=4)
    return source, assemble(source, pieces, prose.folded)


def is_notebook(app, docname: str) -> bool:
    return app.builder.name == "html" and str(app.env.doc2path(docname)).endswith(".ipynb")


def write_edition(app, doctree, docname: str) -> None:
    if not is_notebook(app, docname):
        return
    try:
        source, edition = render(app, doctree, docname)
    except Unknown as error:
        return log.warning("the Colab edition has no rule for a %s", error, location=docname)
    for problem in problems(source, edition):
        log.warning("the Colab edition %s", problem, location=docname)
    folder = Path(app.outdir, BRANCH)
    folder.mkdir(exist_ok=True)
    nbformat.write(edition, folder / f"{Path(docname).name}.ipynb")


def lead_there(app, pagename, templatename, context, doctree) -> None:
    """The buttons of a chapter that open it on Colab and that download it: both mean this edition."""
    if doctree is None or not is_notebook(app, pagename):
        return
    name = f"{Path(pagename).name}.ipynb"
    for button in (b for group in context.get("header_buttons", []) for b in group.get("buttons", [])):
        if button["text"] == "Colab":
            button["url"] = re.sub("/blob/.*", f"/blob/{BRANCH}/{name}", button["url"])
        elif button["text"] == ".ipynb":
            button["url"] = context["pathto"](f"{BRANCH}/{name}", 1)


def setup(app):
    app.connect("doctree-resolved", write_edition, priority=900)
    app.connect("html-page-context", lead_there, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
