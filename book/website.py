"""What a web site needs beyond its pages: an entrance, a page for lost readers, a card for links.

GitHub Pages serves 404.html for every address that does not exist, at any depth, so the page holds
all it shows and links by full address. The card, 1200 × 630 pixels, is drawn from loop.svg. The
address of the site is html.baseurl in _config.yml, and nowhere else.
"""

import html
import itertools
import re
from pathlib import Path
from string import Template
from urllib.parse import quote
from xml.etree import ElementTree

import matplotlib
from docutils import nodes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

BOOK = Path(__file__).parent
SVG = "{http://www.w3.org/2000/svg}"
INK, BLUE, WARM, LINE = "#323b46", "#2f6299", "#a9560f", "#8a94a0"
SUBTITLE = ("Dataset distillation and\nGenerative Teaching Networks\n"
            "with three meta-gradients,\nfrom the equation to real digits")  # fmt: skip


def not_found(home: str, title: str) -> str:
    """The page for an address that does not exist."""
    icon = (BOOK / "offline" / "favicon.svg").read_text(encoding="utf-8")
    page = Template((BOOK / "404.html").read_text(encoding="utf-8"))
    return page.substitute(home=html.escape(home), title=html.escape(title),
                           icon="data:image/svg+xml," + quote(icon))  # fmt: skip


def description(doctree: nodes.document, longest: int = 200) -> str:
    """The first whole sentences of running text, as many as fit and come before any formula."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            words = itertools.takewhile(lambda part: not isinstance(part, nodes.math), paragraph)
            text = " ".join("".join(part.astext() for part in words).split())
            sentences = re.match(rf".{{30,{longest - 1}}}[.?!](?= |$)", text)
            if sentences:
                return sentences[0]
    return ""


def tags(home: str, site: str, page: str, title: str, text: str) -> str:
    """What makes a shared link show the card, the page's title and its first words."""
    named = {
        "og:type": "website", "og:site_name": site, "og:title": title, "og:description": text,
        "og:url": home + page, "og:image": home + "_static/card.png",
        "og:image:width": "1200", "og:image:height": "630",
        "og:image:alt": "The loop of learned training data: a teacher makes synthetic images, a "
                        "student trains on them, and its loss on real images improves the teacher.",
        "twitter:card": "summary_large_image",
    }  # fmt: skip
    lines = [f'<meta name="description" content="{html.escape(text)}"/>'] if text else []
    for name, value in named.items():
        kind = "name" if name.startswith("twitter") else "property"
        if value:
            lines.append(f'<meta {kind}="{name}" content="{html.escape(value)}"/>')
    return "\n".join(lines) + "\n"


def draw_card(path: Path, title: str) -> None:
    """The social card: the title, and the loop of the first page."""
    style = {"font.family": "STIXGeneral", "mathtext.fontset": "stix", "text.color": INK}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="white")
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, 1200), ylim=(630, 0))
        ax.axis("off")
        draw_tiles(ax, ElementTree.parse(BOOK / "offline" / "logo.svg"), (64, 64), 1.0)
        ax.text(64, 228, "\n".join(title.split(" ", 1)), fontsize=46, va="top", weight="bold",
                linespacing=1.1)  # fmt: skip
        ax.text(64, 388, SUBTITLE, fontsize=21, va="top", linespacing=1.45)
        draw_loop(ax, ElementTree.parse(BOOK / "loop.svg"), (530, 130), 1.23)
        FigureCanvasAgg(figure).print_png(path)


def draw_icon(path: Path) -> None:
    """The tiles of the favicon for home screens, 180 × 180 pixels."""
    figure = Figure(figsize=(1.8, 1.8), dpi=100, facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 180), ylim=(180, 0))
    ax.axis("off")
    draw_tiles(ax, ElementTree.parse(BOOK / "offline" / "favicon.svg"), (14, 14), 4.75)
    FigureCanvasAgg(figure).print_png(path)


def draw_tiles(ax, svg, corner, scale) -> None:
    """The rounded squares of a drawing, by its fill and opacity."""
    for rect in svg.iter(f"{SVG}rect"):
        color = rect.get("fill", "#5b8fc4")
        alpha = float(rect.get("opacity", 1))
        ax.add_patch(box(rect, corner, scale, fc=color, ec="none", alpha=alpha))


def box(rect, corner, scale, **style) -> FancyBboxPatch:
    names = "x", "y", "width", "height", "rx"
    x, y, width, height, radius = (scale * float(rect.get(name)) for name in names)
    return FancyBboxPatch((corner[0] + x, corner[1] + y), width, height,
                          f"round,pad=0,rounding_size={radius}", **style)  # fmt: skip


def draw_loop(ax, svg, corner, scale) -> None:
    """Boxes, arrows and words of loop.svg."""
    def place(x, y):
        return corner[0] + scale * float(x), corner[1] + scale * float(y)

    for rect in svg.iter(f"{SVG}rect"):
        learned = rect.get("class") == "learned"
        ax.add_patch(box(rect, corner, scale, fc="#e2eaf2" if learned else "white",
                         ec=BLUE if learned else LINE, lw=2.6 if learned else 2))  # fmt: skip
    for path in svg.iter(f"{SVG}path"):
        if move := re.fullmatch(r"M([\d.]+) ([\d.]+)([hvV])(-?[\d.]+)", path.get("d")):
            x, y, kind, length = float(move[1]), float(move[2]), move[3], float(move[4])
            end = {"h": (x + length, y), "v": (x, y + length), "V": (x, length)}[kind]
            color = WARM if path.get("class") == "back" else INK
            ax.annotate("", place(*end), place(x, y),
                        arrowprops={"arrowstyle": "-|>,head_width=0.32,head_length=0.6", "lw": 2,
                                    "color": color, "shrinkA": 0, "shrinkB": 1})  # fmt: skip
    for text in svg.iter(f"{SVG}text"):
        meta = text.get("class") == "meta"
        ax.text(*place(text.get("x"), text.get("y")), words(text), fontsize=19.5,
                weight="bold" if text.get("class") == "strong" else "normal",
                ha="left" if meta else "center", color=WARM if meta else INK)  # fmt: skip


def words(text) -> str:
    """The words of a text element, those in italics as a formula."""
    whole = text.text or ""
    for span in text:
        formula = span.text.replace("ϕ", r"\phi ")
        whole += f"${formula}$" + (span.tail or "")
    return whole


def add_tags(app, pagename, templatename, context, doctree):
    if doctree is None:  # the search page and its like
        return
    first = pagename == app.config.root_doc
    title = app.config.html_title if first else app.env.titles[pagename].astext()
    page = app.builder.get_target_uri(pagename)
    context["metatags"] += tags(app.config.html_baseurl, app.config.html_title, page, title,
                                description(doctree))  # fmt: skip
    icon = context["pathto"]("_static/touch-icon.png", 1)
    context["metatags"] += f'<link rel="apple-touch-icon" href="{icon}"/>\n'


def entrance(page: str, title: str, head: str) -> str:
    """index.html, which leads on to the first page; whoever shares the bare address shares this."""
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{html.escape(title)}</title>
{head}<meta http-equiv="refresh" content="0; url={page}">
<p><a href="{page}">{html.escape(title)}</a></p>
</html>
"""


def write_files(app, exception):
    if exception is None and app.builder.name == "html":
        out, home, title = Path(app.outdir), app.config.html_baseurl, app.config.html_title
        (out / "404.html").write_text(not_found(home, title), encoding="utf-8")
        first, text = app.config.root_doc, description(app.env.get_doctree(app.config.root_doc))
        page = app.builder.get_target_uri(first)
        head = tags(home, title, page, title, text)
        (out / "index.html").write_text(entrance(page, title, head), encoding="utf-8")
        draw_card(out / "_static" / "card.png", title)
        draw_icon(out / "_static" / "touch-icon.png")


def setup(app):
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
