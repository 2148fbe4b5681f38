"""What commands print: answers as lines or as JSON on stdout, progress on stderr."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@contextlib.contextmanager
def progress(what: str, as_json: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total or None)


def print_answer(answer: Any, as_json: bool, lines_of: Callable[[Any], list[str]]) -> None:
    """Print an answer as JSON, or as the lines that people read."""
    lines = [msgspec.json.encode(answer).decode()] if as_json else lines_of(answer)
    typer.echo("\n".join(lines))


def lines_of_numbers(numbers: dict[str, Any]) -> list[str]:
    """Each number after its name."""
    return [f"{name}: {number}" for name, number in numbers.items()]


def lines_of_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under a head, each column as wide as it must be.

    >>> lines_of_table(["NAME", "BEHIND"], [["totals", "3"], ["日本", "12"]])
    ['NAME    BEHIND', 'totals  3', '日本    12']
    """
    widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(map(_padded, row, widths)).rstrip() for row in (head, *rows)]


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def time_of(at: int) -> str:
    """When it was, as people read it; what no calendar has, as the number that it is.

    >>> time_of(0), time_of(2**63 - 1)
    ('1970-01-01T00:00:00+00:00', '9223372036854775807')
    """
    try:
        return (EPOCH + timedelta(microseconds=at)).isoformat()
    except OverflowError:
        return str(at)


def printable(text: str) -> str:
    r"""A text that may come from anywhere, in one line, and without what would steer a terminal.

    >>> printable("no\n\x1b[31mroute")
    'no\\n\\x1b[31mroute'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
