"""Lines of what stands in a store: of names, events, keys and values, for people, with colours, or for scripts."""

import sys
from collections.abc import Callable, Iterable, Sequence
from shlex import quote
from typing import Any, TypeVar

import msgspec
import typer
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from interpreters import jsonl
from interpreters.cli.output import printable, time_of
from interpreters.cli.typed import As
from persist_effects.event import Event
from persist_effects.json_values import to_json

T = TypeVar("T")

Paint = Callable[[str, str], str]
"""Gives a text the style that rich knows by a name, such as ``"bold"``."""


def painter() -> Paint:
    """What colours a text where stdout is a terminal, as rich finds out, and elsewhere leaves it as it is.

    >>> painter()("red", "bold")
    'red'
    """
    console = Console()
    if console.color_system is None or console.no_color:
        return lambda text, style: text
    return lambda text, style: Style.parse(style).render(text, color_system=ColorSystem.STANDARD)


def print_json(answer: Any) -> None:
    """Print one line of JSON."""
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")


def print_pages(
    pages: Iterable[Sequence[T]], limit: int | None, print_one: Callable[[T], None], go_on: Callable[[T], str]
) -> None:
    """Print what stands on pages, of which one is in memory at a time; and where there is more, how to go on.

    Args:
        pages: The pages, each asked for when it is come to.
        limit: How many are printed at the most; None: all of them. Only where a page has more is it known that there
            is more.
        print_one: Prints one.
        go_on: The options that go on behind one.

    >>> print_pages([["a", "b"], ["c"]], None, print, str)
    a
    b
    c
    """
    count = 0
    last: T | None = None
    for page in pages:
        for each in page:
            if count == limit and last is not None:
                sys.stdout.flush()
                typer.echo(f"there is more: go on with {go_on(last)}", err=True)
                return
            print_one(each)
            count, last = count + 1, each


def option(name: str, value: object) -> str:
    """An option as a shell takes it.

    >>> option("--after", "to do")
    "--after 'to do'"
    """
    return f"{name} {quote(printable(str(value)))}"


def told(value: Any) -> str:
    r"""A value in one line, as JSON can say it.

    >>> told({"total": 12}), told("\x9b31m")
    ('{"total":12}', '"\\x9b31m"')
    """
    return printable(msgspec.json.encode(to_json(value)).decode())


def line_of_event(event: Event, look: As, paint: Paint, *, is_alone: bool = False) -> str:
    """One line for people; ``is_alone``, of a stream whose name they know.

    >>> line_of_event(Event("orders/1", 3, "placed", 0, {"total": 12}, 17), As(), painter())
    '17 1970-01-01T00:00:00+00:00 orders/1 3 placed {"total":12}'
    """
    data = look.told_event(event) if look.is_typed else told(event.data)
    time, kind = paint(time_of(event.at), "dim"), paint(printable(event.type), "green")
    meta = "" if event.meta is None else f" {paint('meta', 'dim')} {told(event.meta)}"
    if is_alone:
        return f"{paint(str(event.seq), 'bold')} {time} {kind} {data}{meta}"
    stream = paint(printable(event.stream), "cyan")
    return f"{paint(str(event.position), 'bold')} {time} {stream} {event.seq} {kind} {data}{meta}"


def print_event(event: Event, look: As, paint: Paint, as_json: bool, *, is_alone: bool = False) -> None:
    """Print an event as a line for people, or as `export` writes it."""
    if as_json:
        sys.stdout.write(jsonl.event_line(look.plain_event(event)).decode())
    else:
        sys.stdout.write(line_of_event(event, look, paint, is_alone=is_alone) + "\n")
