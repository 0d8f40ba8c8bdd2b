"""What the site has beyond its pages: its address, the page for lost readers, the icon."""

import re
import struct
from pathlib import Path
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
SPHINX, HOME = CONFIG["sphinx"]["config"], CONFIG["html"]["baseurl"]


def test_links_and_lost_readers_are_led_to_the_address_of_the_site():
    assert re.fullmatch(r"https://\S+/", HOME)
    assert SPHINX["ogp_site_url"] == HOME and SPHINX["ogp_site_name"] == CONFIG["title"]
    assert SPHINX["notfound_urls_prefix"] == urlsplit(HOME).path
    assert {"sphinxext.opengraph", "notfound.extension"} <= set(CONFIG["sphinx"]["extra_extensions"])


def test_the_icon_for_home_screens_is_a_square_that_the_pages_name():
    (tag,) = SPHINX["ogp_custom_meta_tags"]
    href = re.search(r'rel="apple-touch-icon" href="([^"]+)"', tag)[1]
    icon = ROOT / SPHINX["html_static_path"][0] / href.removeprefix(urlsplit(HOME).path + "_static/")
    width, height = struct.unpack(">II", icon.read_bytes()[16:24])
    assert width == height >= 180
    for image in ("image", "image_mini"):
        assert (ROOT / SPHINX["ogp_social_cards"][image]).is_file()


def test_the_address_of_the_site_is_written_in_one_place():
    assert (ROOT / "_config.yml").read_text(encoding="utf-8").count(HOME) == 1
    for path in [ROOT / "index.md", *(ROOT / "book").rglob("*.*")]:
        if path.suffix in (".html", ".md", ".svg", ".css"):
            assert HOME not in path.read_text(encoding="utf-8"), path
