"""What commands print: answers as lines or as JSON on stdout, progress on stderr."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import typer
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
