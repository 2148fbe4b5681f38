"""Under pytest: the tokens of failures, kept beside the tests, so that a failure comes back at once in the next run.

A part of the plugin. Each test has a file of its own, so that the workers of pytest-xdist never write the same one, and
branches merge. A line is one token, with what failed. The file is gone once the whole exploration has passed.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from interpreters.disk.files import ORDINARY, Directory, write_whole
from interpreters.explore.report import Report
from persist_effects.errors import InvalidRequest

FOLDER = ".persist-effects-failures"
"""Where they are kept, in the directory of the test."""

_TOKENS_KEPT = 10
"""How many tokens of a test are kept: each is run before everything else, and a report has no more failures."""


class KeptFailure(msgspec.Struct, frozen=True, order=True):
    """A line of the file: the token, and what was wrong, for people."""

    token: str
    kind: str = ""


class KeptLines(NamedTuple):
    """What a file holds, and how many of its lines are not of this kind."""

    failures: list[KeptFailure]
    unreadable: int


def read_failures(path: Path) -> KeptLines:
    """The failures that a file keeps; none where there is no such file.

    >>> read_failures(Path("nowhere/test_it.jsonl"))
    KeptLines(failures=[], unreadable=0)
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return KeptLines([], 0)
    failures: list[KeptFailure] = []
    for line in lines:
        try:
            failures.append(msgspec.json.decode(line, type=KeptFailure))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return KeptLines(sorted(set(failures)), len(lines) - len(failures))


def keep_failures(path: Path, failures: Iterable[KeptFailure]) -> None:
    """Put these in the place of what a file keeps, in order, each token once; nothing where that is there already."""
    kept = sorted({failure.token: failure for failure in failures}.values())[:_TOKENS_KEPT]
    data = b"".join(msgspec.json.encode(failure) + b"\n" for failure in kept)
    if not path.exists() or path.read_bytes() != data:
        write_whole(path, data, ORDINARY)


def forget_failures(path: Path) -> None:
    """Remove the file."""
    Directory.at(os.fspath(path.parent)).remove(path.name)


def failures_in(report: Report) -> list[KeptFailure]:
    """What is to be kept of a report."""
    return [KeptFailure(failure.token, failure.kind) for failure in report.failures]


class Explored(NamedTuple):
    """What came of a test: its report, and what is to be said of the tokens that were kept, if anything."""

    report: Report
    told: list[str]


def explored_with_kept(explore: Callable[[str | None], Report], path: Path) -> Explored:
    """Explore, what failed before first.

    Args:
        explore: Explores all, or the state of a token.
        path: The test's file.

    Returns:
        The report of the first kept token that fails again; else that of everything.
    """
    found = read_failures(path)
    told = [f"{path}: {found.unreadable} lines are not kept failures: dropped"] if found.unreadable else []
    passed: list[KeptFailure] = []
    for kept in found.failures:
        try:
            report = explore(kept.token)
        except InvalidRequest as error:
            told.append(f"dropped {kept.token}, which fits these programs no more: {error}")
            continue
        if report.verdict != "passed":
            return Explored(report, [*told, f"failed before, and again: {kept.token}. The rest was not explored"])
        passed.append(kept)
    report = explore(None)
    if report.verdict != "passed":
        keep_failures(path, [*failures_in(report), *passed])
    elif path.exists():
        forget_failures(path)
        told += [f"passes now, and is forgotten: {kept.token}" for kept in passed]
    return Explored(report, told)
