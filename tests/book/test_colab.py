"""The edition for Colab, on a small page that has one of everything the chapters use."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

pytest.importorskip("sphinx_exercise")
ROOT = Path(__file__).parents[2]
HOME = "https://example.org/deep/book/"
sys.path.insert(0, str(ROOT / "book"))  # where Sphinx finds the extensions, too
spec = importlib.util.spec_from_file_location("colab", ROOT / "book" / "colab.py")
colab = importlib.util.module_from_spec(spec)
spec.loader.exec_module(colab)

PROSE = [
    r"""(ch-one)=
# A title

After {cite:t}`wang2018` it is {glue:text}`accuracy`, 5 * 3 * 2 and a_b; `x | y`, $x_1$.
See {numref}`Chapter %s <ch-two>`, {eq}`eq-one`, {numref}`fig-one` and [the second](two.md).

$$
a = b, \\
c = d
$$ (eq-one)
""",
    r"""## A section

1. One has

   $$
   x
   = 1
   $$
2. Two

```{table} A table of $x$
:name: tab-one

| name | value |
|---|--:|
| `a` | {glue:text}`accuracy` |
```

```{note}
Mind $y$.
```

Term
: What it means.

```{exercise} Why is $x$ so?
:label: ex-one

Think.
```

```{solution} ex-one
:class: dropdown

Because.
```

```{exercise-start} Do it
:label: ex-two
```

Compute.

```{exercise-end}
```

```{solution-start} ex-two
:class: dropdown
```

Before.
""",
    """After.

```{solution-end}
```

## The end

See {numref}`ex-two`, {numref}`tab-one`.
""",
]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
VALUE = "97.0 ± 0.1 %"


def code(text, output=(), **metadata):
    return {"cell_type": "code", "metadata": metadata, "source": text, "outputs": list(output),
            "execution_count": 1, "id": f"code-{abs(hash(text))}"}  # fmt: skip


def shown(data, **metadata):
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def sample(folder):
    """The sources of a book of two pages and a list of references."""
    prose = [{"cell_type": "markdown", "metadata": {}, "source": text, "id": f"prose-{i}"}
             for i, text in enumerate(PROSE)]  # fmt: skip
    glued = shown({"application/papermill.record/text/plain": repr(VALUE)},
                  scrapbook={"mime_prefix": "application/papermill.record/", "name": "accuracy"})  # fmt: skip
    figure = {"name": "fig-one", "caption": "A line, {glue:text}`accuracy`; see {eq}`eq-one`."}
    cells = [
        prose[0], code("measure()"), code("glue()", [glued], tags=["remove-cell"]),
        code("plot()", [shown({"image/png": PIXEL})], tags=["hide-input"], mystnb={"figure": figure}),
        prose[1], code("solve()"), prose[2],
    ]  # fmt: skip
    notebook = {"nbformat": 4, "nbformat_minor": 5, "cells": cells,
                "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"},
                             "language_info": {"name": "python"}}}  # fmt: skip
    (folder / "deep").mkdir()
    (folder / "deep" / "one.ipynb").write_text(json.dumps(notebook))
    (folder / "deep" / "two.md").write_text("(ch-two)=\n# The second\n")
    (folder / "references.md").write_text("# References\n\n```{bibliography}\n```\n")
    (folder / "index.md").write_text(
        "# Index\n\n```{toctree}\n:numbered: 1\ndeep/one\ndeep/two\nreferences\n```\n"
    )
    entry = "@misc{wang2018, author={Wang, T. and Zhu, J. and Torralba, A.}, title={Distillation}, year=2018}"
    (folder / "references.bib").write_text(entry)


@pytest.fixture(scope="module")
def editions(tmp_path_factory):
    """The source of the sample and its edition, as Sphinx makes it with the settings of the book."""
    from sphinx.testing.util import SphinxTestApp

    folder = tmp_path_factory.mktemp("sample")
    sample(folder)
    (folder / "conf.py").write_text("")
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    names = "numfig", "numfig_format", "math_numfig", "math_eqref_format", "bibtex_reference_style"
    config = {name: settings["sphinx"]["config"][name] for name in names}
    config |= {
        "extensions": ["myst_nb", "sphinx_exercise", "sphinxcontrib.bibtex", "colab"],
        "myst_enable_extensions": settings["parse"]["myst_enable_extensions"],
        "bibtex_bibfiles": ["references.bib"], "nb_execution_mode": "off", "html_baseurl": HOME,
        "html_title": "The book", "exclude_patterns": ["_build"],
    }  # fmt: skip
    sys.modules["colab"] = colab
    app = SphinxTestApp("html", srcdir=folder, confoverrides=config)
    try:
        app.build()
        assert not app.warning.getvalue()
        read = (nbformat.read(path, as_version=4) for path in
                (folder / "deep" / "one.ipynb", Path(app.outdir) / "colab" / "one.ipynb"))  # fmt: skip
        return tuple(read)
    finally:
        app.cleanup()
        del sys.modules["colab"]


@pytest.fixture(scope="module")
def text(editions):
    return "\n\n".join(cell.source for cell in editions[1].cells if cell.cell_type == "markdown")


def test_the_edition_is_a_notebook_with_the_cells_of_its_source_and_no_raw_markup(editions):
    source, edition = editions
    nbformat.validate(edition)
    assert colab.problems(source, edition) == []
    assert colab.problems(source, source), "the check sees what is raw in the source"
    assert [cell.source for cell in edition.cells if cell.cell_type == "code"] == [
        "measure()", "glue()", "plot()", "solve()"]  # fmt: skip


def test_cells_that_the_site_hides_and_those_of_solutions_are_folded(editions):
    folded = {
        cell.source: "jupyter" in cell.metadata for cell in editions[1].cells if cell.cell_type == "code"
    }
    assert folded == {"measure()": False, "glue()": True, "plot()": True, "solve()": True}


@pytest.mark.parametrize("expected", [
    "# 1 A title",
    f"After Wang *et al.* [[2018]({HOME}references.html#id2)] it is {VALUE}, 5 \\* 3 \\* 2 and a_b; `x | y`, $x_1$.",
    f"[Chapter 2]({HOME}deep/two.html#ch-two), [(1.1)]({HOME}deep/one.html#equation-eq-one), "
    f"[Figure 1.1]({HOME}deep/one.html#fig-one) and [the second]({HOME}deep/two.html).",
    "$$\n\\begin{aligned}\na = b, \\\\\nc = d\n\\end{aligned} \\tag{1.1}\n$$",
    f"**Figure 1.1** A line, {VALUE}; see [(1.1)]({HOME}deep/one.html#equation-eq-one).",
    "## A section",
    "1. One has\n\n   $$x = 1$$\n\n2. Two",
    f"**Table 1.1** A table of $x$\n\n| name | value |\n|---|--:|\n| `a` | {VALUE} |",
    "> **Note**\n>\n> Mind $y$.",
    "**Term**: What it means.",
    "<details open>\n<summary><b>Exercise 1.1 (Why is $x$ so?)</b></summary>\n\nThink.\n\n</details>",
    "<details>\n<summary><b>Solution to Exercise 1.1 (Why is $x$ so?)</b></summary>\n\nBecause.\n\n</details>",
    "<summary><b>Solution to Exercise 1.2 (Do it)</b></summary>\n\nBefore.\n\n</details>",
    "<summary><b>Solution to Exercise 1.2 (Do it), continued</b></summary>\n\nAfter.\n\n</details>",
    f"See [Exercise 1.2]({HOME}deep/one.html#ex-two), [Table 1.1]({HOME}deep/one.html#tab-one).",
])  # fmt: skip
def test_prose_is_plain_markdown_with_the_values_of_the_build(text, expected):
    assert expected in text


@pytest.mark.parametrize("raw", [
    "so {glue:text}`accuracy`", "```{note}\nMind.\n```", "> :::{tip}\n> Mind.", "(ch-one)=\n# A title",
    "$$\nx\n$$ (eq-one)", ":class: dropdown\n",
])  # fmt: skip
def test_raw_markup_is_noticed(editions, raw):
    source, edition = editions
    cells = [*edition.cells, nbformat.v4.new_markdown_cell(raw)]
    assert colab.problems(source, nbformat.v4.new_notebook(cells=cells))


def test_a_changed_or_lost_code_cell_is_noticed(editions):
    source, edition = editions
    cells = [cell for cell in edition.cells if cell.source != "glue()"]
    assert colab.problems(source, nbformat.v4.new_notebook(cells=cells))
    cells = [nbformat.v4.new_code_cell(cell.source + " ") if cell.source == "glue()" else cell
             for cell in edition.cells]  # fmt: skip
    assert colab.problems(source, nbformat.v4.new_notebook(cells=cells))


def test_what_has_no_rule_is_said_and_not_lost():
    from docutils import nodes

    with pytest.raises(colab.Unknown, match="sidebar"):
        colab.Prose(HOME, {}, "1").pieces([nodes.sidebar()])


def test_the_buttons_of_a_chapter_and_the_badge_lead_to_the_edition():
    from types import SimpleNamespace

    address = "https://colab.research.google.com/github/me/book/blob/"
    colab_button, download = (
        {"text": "Colab", "url": address + "main/deep/one.ipynb"},
        {"text": ".ipynb", "url": ""},
    )
    context = {"header_buttons": [{"buttons": [colab_button, download]}, {"text": "no group"}],
               "pathto": lambda path, resource: f"../{path}"}  # fmt: skip
    app = SimpleNamespace(
        builder=SimpleNamespace(name="html"), env=SimpleNamespace(doc2path="{}.ipynb".format)
    )
    colab.lead_there(app, "deep/one", "page.html", context, object())
    assert colab_button["url"] == f"{address}{colab.BRANCH}/one.ipynb"
    assert download["url"] == f"../{colab.BRANCH}/one.ipynb"
    badge = re.search(rf"/blob/{colab.BRANCH}/(\w+\.ipynb)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert badge and (ROOT / "notebooks" / badge[1]).is_file()
    deploy = yaml.safe_load((ROOT / ".github" / "workflows" / "deploy.yml").read_text(encoding="utf-8"))
    assert deploy["jobs"]["colab"]["steps"][1]["run"].rstrip().endswith(f" {colab.BRANCH}")
