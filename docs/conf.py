"""Sphinx: docs/ as a site that needs no network; `make docs` builds it. Every page is plain Markdown too."""

import re
from pathlib import Path

project = author = "golfcore"
copyright = "the golfcore developers, Apache-2.0"
extensions = ["myst_parser"]
smartquotes = False  # "--" is an option
myst_heading_anchors = 4  # the anchors that GitHub gives
html_theme = "furo"
html_title = "golfcore"
html_copy_source = html_show_sourcelink = False
pygments_style = "default"
highlight_language = "text"


def read(app, docname, source):
    """Show the documents that lie beside docs/ as pages, and lead links to them there."""
    if docname in ("changelog", "contributing"):
        text = Path(app.srcdir).parent.joinpath(f"{docname.upper()}.md").read_text()
        source[0] = re.sub(r"\]\((?!\w+:|#)", "](../", text).replace("](../docs/", "](")
    source[0] = re.sub(r"\]\((?:\.\./)+(CHANGELOG|CONTRIBUTING)\.md", lambda m: f"](/{m[1].lower()}.md", source[0])


def setup(app):
    app.connect("source-read", read)
