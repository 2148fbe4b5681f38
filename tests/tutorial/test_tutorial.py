"""The tutorial is followed word for word in an empty directory, and does what it says."""

import os
import sys
from pathlib import Path

import pytest
import walkthrough
from places import ROOT
from walkthrough import PAGES, Shell, Typed, follow_pages, ordinary_environment, steps

BIN = Path(sys.executable).parent


@pytest.fixture
def shell(tmp_path):
    """A shell that finds the environment of these tests."""
    with Shell(tmp_path, ordinary_environment(PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")) as opened:
        yield opened


# Making an environment takes longer than all else; `make package` does that too.
IN_THIS_ENVIRONMENT = {"python3 -m venv .venv": "true", ". .venv/bin/activate": "true", "pip install": "true"}


def test_the_tutorial_followed_word_for_word_does_what_it_says(shell):
    assert follow_pages(PAGES, shell, IN_THIS_ENVIRONMENT) == []


@pytest.mark.packaging
def test_the_tutorial_followed_with_its_installation_does_what_it_says(tmp_path):
    with Shell(tmp_path, ordinary_environment()) as shell:
        assert follow_pages(PAGES, shell, {"PATH-OF-CLONE": str(ROOT)}) == []
