"""Look at every page of the built book with a real browser, without a network.

    pip install playwright axe-playwright-python     # and a Chromium, or: playwright install chromium
    python tests/browser/check.py _build/html [--shots FOLDER] [--only TEXT] [--chromium PATH]

Each page is opened from a local server, wide and at the width of a phone, light and dark, with all
other requests refused. It fails if maths is not rendered, a file is missing, an image lacks a real
description, the page scrolls sideways on a phone, a table or an equation is cut there, the console
shows an error, or axe-core finds a serious or critical violation of WCAG. A developer's tool: no test
of `pytest tests`.
"""

import argparse
import functools
import re
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

WIDTHS = {"wide": 1280, "phone": 390}
# Errors of others, without a visible effect.
KNOWN_ERRORS = [
    "THEBE_JS_URL' has already been declared",  # the theme loads sphinx-thebe's constant twice
    "reading 'Queue'",  # ipywidgets looks for MathJax 2 to typeset its labels
]
KNOWN_MISSING = "@jupyter-widgets/html-manager/dist/"  # the icon fonts of ipywidgets
AXE_CONTEXT = {"exclude": [[".jupyter-widgets"]]}  # the handles of its sliders have no name

# Collects what is wrong in the page itself, as sentences.
INSPECT = r"""
() => {
  const problems = [];
  const article = document.querySelector("article") || document.body;
  for (const node of article.querySelectorAll(".math"))
    if (!node.querySelector("mjx-container")) problems.push(`maths not rendered: ${node.textContent.slice(0, 60)}`);
  for (const node of article.querySelectorAll("mjx-merror, [data-mjx-error]"))
    problems.push(`maths with an error: ${node.textContent.slice(0, 60)}`);
  const words = article.cloneNode(true);
  words.querySelectorAll("pre, code, script, style, mjx-container").forEach(node => node.remove());
  const raw = words.textContent.match(/\$\$|\\\(|\\\[|\\begin\{|\\frac|```|\{(?:cite|eq|numref|glue)[:}]/);
  if (raw) problems.push(`raw source in the text: ${words.textContent.substr(Math.max(0, raw.index - 20), 60)}`);
  for (const image of document.images) {
    const name = image.getAttribute("src").slice(0, 60);
    if (!image.complete || !image.naturalWidth) problems.push(`image not loaded: ${name}`);
    const alt = image.getAttribute("alt");
    if (!alt || /\.(png|svg|jpe?g|gif)$|^\.\.\/|_images\//.test(alt)) problems.push(`image without description: ${name}, alt ${alt}`);
  }
  const excess = document.documentElement.scrollWidth - window.innerWidth;
  if (excess > 0) {
    const wide = [...article.querySelectorAll("*")].filter(n => n.getBoundingClientRect().right > window.innerWidth + 1);
    problems.push(`scrolls sideways by ${excess} px, from ${wide.map(n => n.tagName + "." + n.className).slice(0, 3)}`);
  }
  for (const node of article.querySelectorAll("table, mjx-container, pre, img, svg")) {
    if (node.getBoundingClientRect().right <= window.innerWidth + 1) continue;
    let box = node;
    while (box !== document.body && !/auto|scroll/.test(getComputedStyle(box).overflowX)) box = box.parentElement;
    if (box === document.body || box.getBoundingClientRect().right > window.innerWidth + 1)
      problems.push(`cut at the right: ${node.tagName} ${node.textContent.slice(0, 60)}`);
  }
  return problems;
}
"""


class QuietHandler(SimpleHTTPRequestHandler):
    def translate_path(self, path):  # 404.html and the icon ask for whole paths, as on the site
        return super().translate_path(path.removeprefix("/gtn-book"))

    def log_message(self, *_):
        pass


def pages(folder: Path) -> list[str]:
    """Every page of the book, without the ones that Sphinx makes by itself."""
    generated = {"genindex.html", "search.html"}
    found = (path.relative_to(folder) for path in folder.rglob("*.html"))
    return sorted(
        path.as_posix() for path in found
        if path.as_posix() not in generated and not path.parts[0].startswith("_")
    )  # fmt: skip


def look(context, base: str, name: str, shot: Path | None) -> list[str]:
    """Open one page and return what is wrong with it."""
    problems = []
    page = context.new_page()

    def refuse(route):
        problems.append(f"asks the network for {route.request.url}")
        route.abort()

    def error(text: str):
        if "Failed to load resource" not in text and not any(known in text for known in KNOWN_ERRORS):
            problems.append(f"console: {text[:150]}")

    def response(answer):
        if answer.status >= 400 and KNOWN_MISSING not in answer.url:
            problems.append(f"{answer.status} for {answer.url.removeprefix(base)}")

    page.route(lambda url: not url.startswith((base, "data:", "blob:")), refuse)
    page.on("response", response)
    page.on("pageerror", lambda e: error(str(e)))
    page.on("console", lambda message: message.type == "error" and error(message.text))
    page.goto(base + name, wait_until="load")
    if page.locator("article .math").count():
        page.evaluate("window.MathJax?.startup?.promise")
    page.wait_for_timeout(300)
    problems += page.evaluate(INSPECT)
    for violation in Axe().run(page, AXE_CONTEXT, {"preload": False}).response["violations"]:
        if violation["impact"] in ("serious", "critical"):
            places = [node["html"][:100] for node in violation["nodes"][:3]]
            problems.append(f"axe {violation['id']} ({len(violation['nodes'])}): {places}")
    if shot:
        page.screenshot(path=shot, full_page=True)
    page.close()
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", type=Path, help="folder for screenshots")
    parser.add_argument("--only", default="", help="only pages whose name contains this")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="browser to use")
    options = parser.parse_args()
    names = [name for name in pages(options.folder) if re.search(options.only, name)]
    if not names:
        print(f"no pages in {options.folder}")
        return 1
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    handler = functools.partial(QuietHandler, directory=str(options.folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base, failed = f"http://127.0.0.1:{server.server_port}/", 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        for mode in ("light", "dark"):
            for label, width in WIDTHS.items():
                context = browser.new_context(viewport={"width": width, "height": 900})
                context.add_init_script(f"for (k of ['mode', 'theme']) localStorage.setItem(k, '{mode}')")
                for name in names:
                    stem = name.removesuffix(".html").replace("/", "_")
                    shot = options.shots and options.shots / f"{stem}-{label}-{mode}.png"
                    for problem in dict.fromkeys(look(context, base, name, shot)):
                        failed += 1
                        print(f"{name} ({label}, {mode}): {problem}")
                context.close()
        browser.close()
    server.shutdown()
    print(f"{len(names)} pages, {len(names) * 4} views, {failed} problems")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
