"""The command that prints events as they come: tail."""

import sys
from typing import Annotated, Any

import typer

from interpreters.cli.exits import exit_codes, noting_interrupt
from interpreters.cli.inputs import AnyUrl, AsJson, reading_any
from interpreters.cli.lines import painter, print_event
from interpreters.cli.typed import As, TypeOrSchema
from persist_effects import log
from persist_effects.event import Event
from persist_effects.machine import perform
from persist_effects.requests import PAGE_SIZE, PAGE_SIZE_MAX, Wait

_WAIT_SECONDS = 0.2
"""How long `tail` waits before it looks whether Ctrl-C was pressed."""


def tail(
    url: AnyUrl,
    *,
    after: Annotated[int, typer.Option(min=0, help="Begin after this position.")] = 0,
    last: Annotated[
        int | None, typer.Option("--last", "-n", min=0, max=PAGE_SIZE_MAX, help="Begin with the newest, so many.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Only streams whose names begin with this.")] = "",
    types: Annotated[str | None, typer.Option(help="Only these types of events, with commas between them.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Wait for more at the end.")] = True,
    type_name: TypeOrSchema = None,
    as_json: AsJson = False,
) -> None:
    """Print events in the order of their positions, and go on as they come. With --json, as `export` writes them."""
    with exit_codes(as_json), noting_interrupt() as is_interrupted, reading_any(url) as store:
        look, paint = As(type_name), painter()
        wanted = types.split(",") if types else None
        position = after if last is None else _before_newest(store, last, after, prefix, wanted)
        left = limit
        while not is_interrupted():
            page = store.run(log.page_all(position, prefix, wanted, limit=_at_most(PAGE_SIZE, left)))
            for event in page.events:
                print_event(event, look, paint, as_json)
            if left is not None:
                left -= len(page.events)
                if left == 0:
                    return
            position = page.next
            if position < page.head:
                continue
            sys.stdout.flush()
            if not follow:
                return
            store.run(perform(Wait(position, prefix, _WAIT_SECONDS)))
        raise KeyboardInterrupt


def _at_most(count: int, left: int | None) -> int:
    return count if left is None else min(count, left)


def _before_newest(store: Any, count: int, after: int, prefix: str, types: list[str] | None) -> int:
    """The position behind which so many events of those asked for stand, or where there are fewer, ``after``."""
    if count == 0:
        head: int = store.run(log.head())
        return max(after, head)
    found: list[Event] = store.run(log.read_all(after, prefix, types, limit=count, backwards=True))
    return found[-1].position - 1 if found else after
