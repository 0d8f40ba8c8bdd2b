"""What the site has beyond its pages: the page for lost readers, the card, the tags."""

import importlib.util
import re
import struct
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOME = "https://example.org/deep/book/"

pytest.importorskip("docutils")
spec = importlib.util.spec_from_file_location("website", ROOT / "book" / "website.py")
website = importlib.util.module_from_spec(spec)
spec.loader.exec_module(website)


def paragraphs(*texts):
    from docutils import nodes, utils

    document, section = utils.new_document("page"), nodes.section()
    document += section
    for text in texts:
        paragraph = nodes.paragraph()
        for i, part in enumerate(text.split("$")):
            paragraph += nodes.math("", part) if i % 2 else nodes.Text(part)
        section += paragraph
    return document


def size(path):
    return struct.unpack(">II", path.read_bytes()[16:24])


def test_the_page_for_lost_readers_works_at_any_depth():
    page = website.not_found(HOME, "Pixels & lessons")
    assert "Pixels &amp; lessons" in page and "$" not in page
    targets = re.findall(r'(?:href|src|action)="([^"]*)"', page)
    assert HOME in targets and HOME + "search.html" in targets
    assert all(target.startswith((HOME, "data:")) for target in targets)


def test_the_card_and_the_icon_have_the_sizes_that_sites_ask_for(tmp_path):
    website.draw_card(tmp_path / "card.png", "Learned training data")
    website.draw_icon(tmp_path / "icon.png")
    assert size(tmp_path / "card.png") == (1200, 630)
    assert size(tmp_path / "icon.png") == (180, 180)


LONG = "A sentence that is long enough to say what the page is about."


@pytest.mark.parametrize("texts, expected", [
    ((LONG,), LONG),
    (("In this chapter we will", LONG), LONG),
    ((f"{LONG} And one with $x^2$. More.",), LONG),
    ((LONG + " More words." * 30,), LONG + " More words." * 11),
    (("Too short.",), ""),
])  # fmt: skip
def test_a_page_is_described_by_its_first_sentences(texts, expected):
    assert website.description(paragraphs(*texts)) == expected


def test_tags_are_whole_addresses_and_escaped():
    head = website.tags(HOME, "The book", "a/b.html", 'On "x"', LONG)
    assert f'<meta property="og:url" content="{HOME}a/b.html"/>' in head
    assert f'<meta property="og:image" content="{HOME}_static/card.png"/>' in head
    assert "On &quot;x&quot;" in head


def test_the_address_of_the_site_is_written_in_one_place():
    home = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["html"]["baseurl"]
    assert re.fullmatch(r"https://\S+/", home)
    for path in (ROOT / "book").rglob("*.*"):
        if path.suffix in (".html", ".md", ".py", ".svg", ".css"):
            assert home not in path.read_text(encoding="utf-8"), path
