"""The command that writes a small project to begin with, and runs it: programs, their tests, their crash test."""

import contextlib
import errno
import importlib.resources
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from interpreters.cli.exits import exit_codes, exit_if_damaged, noting_interrupt
from interpreters.cli.inputs import AsJson
from interpreters.cli.output import print_answer, printable, progress
from interpreters.disk.files import ORDINARY, make_directories, new_file, refuse_home
from persist_effects.errors import InvalidRequest

FILES = ("README.md", "accounts.py", "pytest.ini", "test_accounts.py")
"""What is written. Each stands in ``quickstart_files`` beside this module, with ``.txt`` behind its name, so that no
tool takes it for a part of this package."""

NEXT = (
    "persist-effects streams file:store",
    "persist-effects read file:store accounts/ada",
    "persist-effects keys file:store --values",
)
"""What looks at the store that the project fills, and comes with the extra that this command needs itself."""

_DIRECTORY_MODE = 0o755

_NAMES_TOLD = 5

_WRONG_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT}

_NO_PYTEST = (
    "the tests were not run, as pytest is not installed. Its extra: pip install 'persist-effects[testing]'",
    "then, in the directory: pytest",
)

RunState = Literal["passed", "failed", "not run"]


class Quickstart(msgspec.Struct, frozen=True):
    """What was written where, and how it ran."""

    directory: str
    files: tuple[str, ...]
    program: RunState = "not run"
    tests: RunState = "not run"
    next: tuple[str, ...] = NEXT
    """Commands to go on with, in the directory."""


def quickstart(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Empty, or not there yet.")] = Path(),
    *,
    no_run: Annotated[bool, typer.Option("--no-run", help="Only write the files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a small project into an empty directory, and run it: programs, their tests, their crash test.

    It needs no clone and no network. Exit code 1: the program, or its tests, failed here.
    """
    with exit_codes(as_json):
        with _refusing_where_it_cannot_be(directory):
            _check_is_free(directory)
        with _telling_what_is_left(directory):
            with _refusing_where_it_cannot_be(directory):
                _write(directory)
            answer = Quickstart(str(directory), FILES)
            if not as_json:
                typer.echo(f"wrote {', '.join(FILES)} in {printable(str(directory.absolute()))}")
            if not no_run:
                answer = _run(answer, as_json)
            print_answer(answer, as_json, lambda answer: _lines_of_next(answer, no_run))
        exit_if_damaged("failed" in {answer.program, answer.tests})


def _check_is_free(directory: Path) -> None:
    """Refuse what is not an empty directory, before anything is written."""
    refuse_home(directory)
    place = printable(str(directory.absolute()))
    if not os.path.lexists(directory):
        return
    if not directory.is_dir():
        raise InvalidRequest(f"{place} is not a directory: give one that is empty, or not there yet")
    names = sorted(path.name for path in directory.iterdir())
    if names:
        more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
        told = printable(", ".join(names[:_NAMES_TOLD])) + more
        raise InvalidRequest(
            f"{place} is not empty, there is {told}: give a directory that is empty, or one that is not there yet"
        )


@contextlib.contextmanager
def _refusing_where_it_cannot_be(directory: Path) -> Iterator[None]:
    """Say of a place without rights, or below a file, what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _WRONG_PLACE:
            raise
        place = printable(str(directory.absolute()))
        raise InvalidRequest(f"{place} cannot be written, {error}: give a directory where you may write") from error


@contextlib.contextmanager
def _telling_what_is_left(directory: Path) -> Iterator[None]:
    """Where Ctrl-C or the disk ends it, say what stays, if anything does."""
    was_there = os.path.lexists(directory)
    try:
        yield
    except BaseException:
        names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
        if names or (directory.is_dir() and not was_there):
            told = f"{directory.absolute()} is left, with {', '.join(names) or 'nothing in it'}"
            typer.echo(f"persist-effects: {printable(told)}", err=True)
        raise


def _write(directory: Path) -> None:
    """Write all files. Ctrl-C ends it between two of them."""
    source = importlib.resources.files("interpreters.cli") / "quickstart_files"
    with noting_interrupt() as is_interrupted:
        make_directories(str(directory.absolute()), _DIRECTORY_MODE)
        for name in FILES:
            if is_interrupted():
                raise KeyboardInterrupt
            with new_file(directory / name, ORDINARY) as file:
                file.write((source / f"{name}.txt").read_bytes())
    if is_interrupted():
        raise KeyboardInterrupt


def _run(answer: Quickstart, as_json: bool) -> Quickstart:
    """Run the program, and its tests where pytest is there."""
    program = _run_one(answer.directory, ["accounts.py"], "python accounts.py", as_json)
    if program == "failed" or importlib.util.find_spec("pytest") is None:
        return msgspec.structs.replace(answer, program=program)
    tests = _run_one(answer.directory, ["-m", "pytest"], "pytest", as_json)
    return msgspec.structs.replace(answer, program=program, tests=tests)


def _run_one(directory: str, arguments: list[str], told: str, as_json: bool) -> RunState:
    if not as_json:
        typer.echo(f"\n$ {told}")
    with progress(told, as_json):
        done = subprocess.run(  # noqa: S603 - this Python, and files of our own
            [sys.executable, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    # With --json too it is to be seen why one failed.
    if not as_json or done.returncode:
        typer.echo(done.stdout, nl=False, err=as_json)
    return "failed" if done.returncode else "passed"


def _lines_of_next(answer: Quickstart, no_run: bool) -> list[str]:
    """What to do now.

    >>> _lines_of_next(Quickstart("app", FILES, "passed", "passed"), no_run=False)[:3]
    ['', 'go on:', '  cd app']
    """
    if "failed" in {answer.program, answer.tests}:
        return ["", "that failed here: the output above says why"]
    is_without_pytest = answer.program == "passed" and answer.tests == "not run"
    lines = ["", *_NO_PYTEST * is_without_pytest, "go on:"]
    if answer.directory != ".":
        lines.append(f"  cd {shlex.quote(answer.directory)}")
    if no_run:
        lines += ["  python accounts.py", "  pytest"]
    return [
        *lines,
        *(f"  {command}" for command in answer.next),
        "  README.md says what to change, and which test fails",
    ]
