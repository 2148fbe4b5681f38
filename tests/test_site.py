"""The site of `make docs` is strict: a link that leads nowhere fails it, and a public name that no page tells of."""

import io
import re
import sys
from pathlib import Path

import pytest
from places import ROOT
from sphinx.application import Sphinx
from test_walls import EXPORTS

DOCS = ROOT / "docs"
REFERENCE = "\n".join(page.read_text("utf-8") for page in sorted((DOCS / "reference").glob("*.md")))


def warnings_of(directory: Path, pages: dict[str, str], **config: object) -> str:
    """What Sphinx warns of where it makes a site of some pages, with our extensions and settings."""
    sys.path.insert(0, str(DOCS))
    settings: dict[str, object] = {}
    exec((DOCS / "conf.py").read_text("utf-8"), {"__file__": str(DOCS / "conf.py")}, settings)
    for path, text in pages.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    return ""
