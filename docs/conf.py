"""How `make docs` makes the site: of the pages as they are, and of docstrings. It needs no network."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from persist_effects import __version__  # noqa: E402

project = "persist-effects"
version = release = __version__
html_title = f"persist-effects {__version__}"

# Sphinx reads from the root of the repository, so that a link from page to page is the same here and there.
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**.md", "interpreters/stores/file/FORMAT.md"]
exclude_patterns = ["var", ".*"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

html_theme = "furo"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_extra_path = ["site/index.html"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
