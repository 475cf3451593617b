"""How Sphinx builds the documentation: ``sphinx-build -W -b html docs docs/_build/html``.

The pages are Markdown, to be read in the repository as well. A link that leaves docs/ leads to the
repository on the site, since the site has the pages of docs/ only.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import trio_uring  # noqa: E402

_PROJECT = (ROOT / "pyproject.toml").read_text()
_SOURCE = re.search(r'^Source = "(.*)"$', _PROJECT, re.MULTILINE)
assert _SOURCE is not None
SOURCE = _SOURCE[1]
_OUTSIDE = re.compile(r"(?<!!)(\[(?:[^\]\[]|!\[[^\]]*\]\([^)]*\))*\])\(\.\./([^)\s]*)\)")
"""A link to what is outside of docs/. A picture, which Sphinx copies, is none."""

project = "trio-uring"
author = "The trio-uring authors"
copyright = author  # noqa: A001  # Sphinx's name for it
release = version = trio_uring.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
    "sphinxcontrib_trio",
]
exclude_patterns = ["_build"]

# The names of Trio and of the standard library become links where the network may be used. Lint must not
# fail for want of it, so they are not links unless this is asked for (.readthedocs.yaml).
if os.environ.get("TRIO_URING_INTERSPHINX") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
    }

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
default_role = "py:obj"
highlight_language = "none"
smartquotes = False  # they would make one dash of the two before an option
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True

html_theme = "sphinx_rtd_theme"
html_title = f"trio-uring {version}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]


def lead_to_the_repository(_: Sphinx, __: str, content: list[str]) -> None:
    """Changes links that leave docs/."""
    content[0] = _OUTSIDE.sub(rf"\1({SOURCE}/blob/HEAD/\2)", content[0])


def setup(app: Sphinx) -> None:
    app.connect("source-read", lead_to_the_repository)
