"""Number a chapter by its file name: notebooks/03_… is Chapter 3, with Figure 3.1 and equation (3.1).

Sphinx would number what the table of contents lists as 1, 2, 3, …, and so renumber every chapter
that follows one still to be written. When none is missing, `numbered: 1` in _toc.yml does the same.
"""

import re

from sphinx import addnodes
from sphinx.environment.collectors.toctree import TocTreeCollector


def assign_section_numbers(self, env):
    """Set what Sphinx's own function of this name sets, for the titles of the chapters only."""
    before, env.toc_secnumbers = env.toc_secnumbers, {}
    for name in sorted(env.found_docs):
        if chapter := re.match(r"notebooks/(\d+)_", name):
            number = (int(chapter[1]),)
            entries = [p[0] for p in env.tocs[name].findall(addnodes.compact_paragraph)]
            for entry in entries:
                entry["secnumber"] = number if entry["anchorname"] == "" else None
            env.toc_secnumbers[name] = {entry["anchorname"]: None for entry in entries} | {"": number}
            env.titles[name]["secnumber"] = number
    return [name for name in env.toc_secnumbers if env.toc_secnumbers[name] != before.get(name)]


def setup(app):
    TocTreeCollector.assign_section_numbers = assign_section_numbers
    return {"parallel_read_safe": True, "parallel_write_safe": True}
