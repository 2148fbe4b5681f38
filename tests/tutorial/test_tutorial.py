"""The tutorial is followed word for word in an empty directory, and does what it says."""

import itertools
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


@pytest.mark.exploration
def test_the_tutorial_followed_word_for_word_does_what_it_says(shell):
    assert follow_pages(PAGES, shell, IN_THIS_ENVIRONMENT) == []


@pytest.mark.packaging
def test_the_tutorial_followed_with_its_installation_does_what_it_says(tmp_path):
    with Shell(tmp_path, ordinary_environment()) as shell:
        assert follow_pages(PAGES, shell, {"PATH-OF-CLONE": str(ROOT)}) == []


# The walk itself finds what is wrong


def followed(tmp_path, shell, *texts):
    """What went otherwise than some pages say."""
    pages = [tmp_path / f"{number}-page.md" for number, _ in enumerate(texts)]
    for page, text in zip(pages, texts, strict=True):
        page.write_text(text)
    return follow_pages(pages, shell, IN_THIS_ENVIRONMENT)


def test_an_output_that_is_planted_in_the_tutorial_is_found_with_its_page_and_line(tmp_path, shell):
    text = (walkthrough.TUTORIAL / "1-a-program.md").read_text()
    shown = "$ python desk.py file:books dune ben\nsomebody has it\n"
    assert text.count(shown) == 1
    (found,) = followed(tmp_path, shell, text.replace(shown, shown.replace("somebody has it", "lent")))
    line = text[: text.index(shown)].count("\n") + 1
    assert found == (
        f"0-page.md:{line}: $ python desk.py file:books dune ben\n"
        "shown: lent\n\nprinted, exit code 0: somebody has it\n"
    )


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("```sh\ntrue\nfalse\n```\n", 3),
        ("```console\n$ echo one\none\n$ false\n```\n", 4),
        ("```console\n$ true\n$ echo one\n```\n", 3),
        ("```console\n$ echo one; false\none\ntwo\n```\n", 2),
        ("text\n\n```console\n$ echo one\n```\n", 4),
    ],
    ids=["fails", "fails in silence", "prints unseen", "prints less", "prints more"],
)
def test_a_command_that_does_otherwise_than_a_page_says_is_found(tmp_path, shell, page, line):
    (found,) = followed(tmp_path, shell, page)
    assert found.startswith(f"0-page.md:{line}: $ ")


@pytest.mark.parametrize(
    "page",
    [
        "```console\n$ echo one\none\n$ echo 'two three'\ntwo ...\n```\n",
        "```console\n$ cat missing\ncat: missing: No such file or directory\n```\n",
        "```sh\nmkdir inner\ncd inner\n```\n```python\n# a.py\nprint(1)\n```\n```console\n$ python a.py\n1\n```\n",
    ],
    ids=["what differs", "a failure that is shown", "one shell, in which a directory stays"],
)
def test_what_a_page_shows_as_it_is_passes(tmp_path, shell, page):
    assert followed(tmp_path, shell, page) == []


def test_a_block_goes_where_its_first_line_says(tmp_path, shell):
    one = "```python\n# a.py\nimport os\nA = 1\n\n\n@str\ndef f():\n    return 1\n\n\nB = 2\n```\n"
    others = (
        "```python\n# a.py, in the place of its imports\nimport sys\n```\n"
        "```python\n# a.py, in the place of f\ndef f():\n    return 3\n```\n"
        "```python\n# a.py, in the place of A\nA = 4\n```\n"
        "```python\n# a.py, at the end\nC = 5\n```\n"
    )
    assert followed(tmp_path, shell, one, others) == []
    assert (tmp_path / "a.py").read_text() == (
        "# a.py\nimport sys\nA = 4\n\n\ndef f():\n    return 3\n\n\nB = 2\n\n\nC = 5\n"
    )


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("```python\nprint(1)\n```\n", "0-page.md:2: say in the first line which file it is"),
        ("```python\n# a.py, in the place of f\n```\n", "0-page.md:2: there is no f in a.py"),
        ("```toml\na = 1\n```\n", "0-page.md:2: a block of toml, which nobody follows"),
        ("```console\nls\n```\n", "0-page.md:2: begin with a command"),
        ("```sh\nexit 3\n```\n", "exit 3: the shell ended"),
    ],
    ids=["no file", "no such name", "another language", "no command", "an end"],
)
def test_a_page_that_nobody_can_follow_is_refused(tmp_path, shell, page, told):
    with pytest.raises(AssertionError, match=f"^{told}"):
        followed(tmp_path, shell, page)


def test_each_page_has_steps_and_leads_to_the_next():
    for page, after in itertools.pairwise(PAGES):
        assert any(isinstance(step, Typed) for step in steps(page))
        assert f"]({after.name})" in page.read_text().splitlines()[-1]
