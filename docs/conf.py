"""How `make docs` makes the site: of the pages as they are, and of docstrings. It needs no network."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from persist_effects import __version__  # noqa: E402

project = "persist-effects"
version = release = __version__
html_title = f"persist-effects {__version__}"

# Sphinx reads from the root of the repository, so that a link from page to page is the same here and there.
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**.md", "interpreters/**.md"]
# docs/errors leads to pages that the package ships, and links to it are followed to where these are.
exclude_patterns = ["var", ".*", "docs/errors"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Each name that these export must be in the reference.
public_packages = [
    "persist_effects",
    "interpreters",
    "interpreters.conformance",
    "interpreters.disk",
    "interpreters.explore",
    "interpreters.explore.files",
    "interpreters.flow_testing",
    "interpreters.stores.served",
    "interpreters.wrappers",
    "interpreters.wrappers.encryption",
]

# A name in single backticks is a link where it leads to something, and code elsewhere.
default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80

# What the types of signatures may name although no page of ours tells of it: types of others, type variables,
# and these of ours, which users are given or hand on without looking inside.
HANDED_ON = (
    "Aside|Await|BegunFlow|BlobHome|BlobsBeside|Bound|Compacted|CrashFiles|Door|Due|FlowCode|FlowEnded|FlowOutcome|"
    "HasHandlers|Held|Kept|ModelTables|ModelVersion|OpenFlow|RecordedWorld|Replay|ServingLimits|Sleepers|SqlVersion|"
    "Traced|Trouble|UnknownRequest|_Made"
)
nitpick_ignore_regex = [
    ("py:class", rf"(persist_effects|interpreters)\..*\.({HANDED_ON})"),
    ("py:class", r"msgspec\.UnsetType|RenderableType|Mask"),
    ("py:obj", ".*"),
    ("py:class", rf"({'|'.join(sys.stdlib_module_names)})\..*"),
    ("py:class", r".*\.([A-Z]|\w+T)(_co)?"),
]

html_theme = "furo"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_extra_path = ["site/index.html"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
