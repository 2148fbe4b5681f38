"""The tutorial, as a newcomer follows it: each file is written, each command typed into one shell, in a new directory.

A block of Python says in its first line which file it is, ``# library.py``, or where in that file it belongs:
``# library.py, at the end``, ``# library.py, in the place of lend`` or ``... of its imports``. What a ``console`` block
shows below a command must be what the command prints, with ``...`` for what differs from run to run. The commands of an
``sh`` block print what they like, and must succeed.
"""

import ast
import doctest
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from places import ROOT

TUTORIAL = ROOT / "docs" / "tutorial"
PAGES = [TUTORIAL / "first-application.md", *sorted(TUTORIAL.glob("[0-9]-*.md"))]
"""In the order in which they are read."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w.]+)(?:, (at the end|in the place of (?:its )?\w+))?")
_MARK = "walkthrough: done"
_ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_SECONDS = 300
"""How long a walk may take, so that a command that hangs ends it."""


class Written(NamedTuple):
    """A block that is a file, or belongs somewhere in one."""

    where: str
    name: str
    place: str | None
    text: str

    def new_text(self, before: str) -> str:
        """What the file then holds, that held this before."""
        if self.place is None:
            return self.text
        body = self.text.partition("\n")[2]
        if self.place == "at the end":
            return f"{before}\n\n{body}"
        name = self.place.removeprefix("in the place of ")
        nodes = [node for node in ast.parse(before).body if _is_meant(node, name)]
        assert nodes, f"{self.where}: there is no {name} in {self.name}"
        first = min(line.lineno for line in (nodes[0], *getattr(nodes[0], "decorator_list", ())))
        lines = before.splitlines(keepends=True)
        return "".join([*lines[: first - 1], body, *lines[nodes[-1].end_lineno :]])


def _is_meant(node: ast.stmt, name: str) -> bool:
    if name == "its imports":
        return isinstance(node, ast.Import | ast.ImportFrom)
    targets = [ast.unparse(target) for target in getattr(node, "targets", ())]
    return name in (getattr(node, "name", None), *targets)


class Typed(NamedTuple):
    """A command, and what the page shows that it prints; None where it shows nothing of it."""

    where: str
    command: str
    shown: str | None


def steps(page: Path) -> Iterator[Written | Typed]:
    """What a page has its reader do, in order."""
    text = page.read_text("utf-8")
    for found in _BLOCK.finditer(text):
        language, code = found.groups()
        line = text.count("\n", 0, found.start()) + 2
        where = f"{page.name}:{line}"
        if language == "python":
            first = _FILE.fullmatch(code.partition("\n")[0])
            assert first is not None, f"{where}: say in the first line which file it is, as `# library.py`"
            yield Written(where, first[1], first[2], code)
        elif language == "sh":
            yield from (Typed(f"{page.name}:{line + n}", each, None) for n, each in enumerate(code.splitlines()))
        else:
            assert language == "console", f"{where}: a block of {language}, which nobody follows"
            yield from _typed(page.name, line, code)


def _typed(page: str, line: int, code: str) -> Iterator[Typed]:
    parts = re.split(r"^\$ (.*)\n", code, flags=re.MULTILINE)
    assert parts[0] == "", f"{page}:{line}: begin with a command, `$ ...`"
    for command, shown in zip(parts[1::2], parts[2::2], strict=True):
        yield Typed(f"{page}:{line}", command, shown)
        line += 1 + shown.count("\n")


class Shell:
    """One shell, into which commands are typed, so that a directory and an environment stay as they are set."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["timeout", str(_SECONDS), "bash", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.directory = directory

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *_: object) -> None:
        # A shell without more to read ends by itself.
        self._process.communicate()

    def run(self, command: str) -> tuple[str, int]:
        """What a command prints, and its exit code. Notes the directory in which it leaves the shell."""
        self._process.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s %s %s\\n' '{_MARK}' $? \"$PWD\"\n")
        self._process.stdin.flush()
        lines = []
        for line in self._process.stdout:
            if line.startswith(_MARK):
                status, _, directory = line.removeprefix(_MARK).strip().partition(" ")
                self.directory = Path(directory)
                return "".join(lines).removesuffix("\n"), int(status)
            lines.append(line)
        raise AssertionError(f"{command}: the shell ended, after\n{''.join(lines)}")


def ordinary_environment(**more: str) -> dict[str, str]:
    """That of a newcomer: nothing of ours, or of pytest's, is set."""
    ours = ("PYTEST", "PYTHON", "PERSIST", "COV_", "COLUMNS", "FORCE_COLOR")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(ours)}, **more}


def follow_pages(pages: list[Path], shell: Shell, instead: dict[str, str]) -> list[str]:
    """Do what the pages say. Gives what went otherwise than they say, by page and line.

    ``instead`` has for words of commands what stands for them here.
    """
    wrong = []
    for page in pages:
        for step in steps(page):
            if isinstance(step, Written):
                path = shell.directory / step.name
                path.write_text(step.new_text(path.read_text() if path.exists() else ""))
                continue
            command = step.command
            for word, other in instead.items():
                command = command.replace(word, other)
            printed, status = shell.run(command)
            if not _is_as_shown(step.shown, printed, status):
                shown = "success" if not step.shown else step.shown
                wrong.append(f"{step.where}: $ {step.command}\nshown: {shown}\nprinted, exit code {status}: {printed}")
    return wrong


def _is_as_shown(shown: str | None, printed: str, status: int) -> bool:
    # Of a command that fails, a page shows why.
    if not shown:
        return status == 0 and (shown is None or printed == "")
    return doctest.OutputChecker().check_output(shown, printed, _ALIKE)
