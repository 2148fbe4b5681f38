"""What makes `make docs` fail, tried on sites of three pages; and what of the true one is seen without making it."""

import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from places import ROOT
from test_walls import EXPORTS

DOCS = ROOT / "docs"
STRICTLY = re.findall(r"sphinx-build (.*) -c docs", (ROOT / "Makefile").read_text("utf-8"))

SITE = {
    "index.md": "# A site\n\n:::{toctree}\n:glob:\n\nhow-to/*\n*/index\nreference\n:::\n",
    "errors/index.md": "# Errors\n\nWhat may go wrong.\n",
    "errors/Faded.md": "# Faded\n",
    "how-to/paint.md": "# Paint\n\n## Hues\n\n[up](#hues) [code](../planted.py)\n[there](../reference.md#planted)\n",
    "reference.md": "# Reference\n\n## planted\n\n```{eval-rst}\n.. automodule:: planted\n   :members:\n```\n",
    "planted.py": '__all__ = ["paint"]\n\n\ndef paint(color: str) -> str:\n    """Give a color: `paint`."""\n',
}


def make_site(directory: Path, changed: dict[str, str]) -> tuple[int, str]:
    """Make a site as `make docs` does, of `SITE` with some pages changed; its exit code and what it said."""
    for place, text in {**SITE, **changed}.items():
        (directory / place).parent.mkdir(parents=True, exist_ok=True)
        (directory / place).write_text(text)
    command = [sys.executable, "-m", "sphinx", *shlex.split(STRICTLY[0]), "-b", "dummy", "-c", DOCS, directory]
    settings = ("root_doc=index", "include_patterns=**.md", "public_packages=planted")
    done = subprocess.run(
        [*command, directory / "made", *(part for each in settings for part in ("-D", each))],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(directory)},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_site_whose_links_lead_somewhere_and_whose_names_are_told_is_made(tmp_path):
    assert make_site(tmp_path, {}) == (0, "")


WRONG = {
    "[a](gone.md)": "'gone.md'",
    "[a](#gone)": "'gone'",
    "[a](../reference.md#gone)": "local id not found in doc 'reference': 'gone'",
    "[a](../gone.py)": "'../gone.py'",
    "![a](gone.svg)": "image file not readable: how-to/gone.svg",
    "{py:func}`gone`": "py:func reference target not found: gone",
}


def test_a_link_that_leads_nowhere_a_lost_page_and_an_untold_name_are_each_said(tmp_path):
    code, said = make_site(
        tmp_path,
        {
            "how-to/paint.md": "# How to paint\n\n" + "\n\n".join(WRONG),
            "lost.md": "# A page that nobody lists\n",
            "planted.py": SITE["planted.py"].replace('"paint"', '"paint", "untold"') + "\n\ndef untold(): ...\n",
        },
    )
    assert code != 0
    for line in (
        *WRONG.values(),
        "lost.md: WARNING: document isn't included in any toctree",
        "planted.untold is public and not in the reference",
    ):
        assert line in said
    assert said.count("WARNING") == len(WRONG) + 2


def test_the_site_looks_for_the_names_of_each_package_that_exports_some():
    assert runpy.run_path(str(DOCS / "conf.py"))["public_packages"] == [module.__name__ for module in EXPORTS]


# Made of types, and told by a line below their definition.
ALIASES = {"Effect", "Handlers"}


def undocumented(module: ModuleType, names: str) -> list[str]:
    things = {name: getattr(module, name) for name in names.split() if name not in ALIASES}
    return [name for name, thing in things.items() if not own_docstring(thing)]


def own_docstring(thing: Any) -> str | None:
    return vars(thing).get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)


@pytest.mark.parametrize("module", EXPORTS, ids=lambda module: module.__name__)
def test_every_public_name_has_a_docstring_of_its_own(module):
    assert undocumented(module, EXPORTS[module]) == []


def test_a_public_name_without_a_docstring_is_found():
    planted = ModuleType("planted")
    planted.Told, planted.Untold = type("Told", (), {"__doc__": "Told."}), type("Untold", (ValueError,), {})
    assert undocumented(planted, "Told Untold") == ["Untold"]
