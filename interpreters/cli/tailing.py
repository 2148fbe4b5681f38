"""The command that prints events as they come: tail."""

import sys
from typing import Annotated

import msgspec
import typer

from interpreters import jsonl
from interpreters.cli.exits import exit_codes, noting_interrupt
from interpreters.cli.inputs import AsJson, Url, reading
from interpreters.cli.output import time_of
from persist_effects import log
from persist_effects.event import Event
from persist_effects.json_values import to_json
from persist_effects.machine import perform
from persist_effects.requests import Wait

_WAIT_SECONDS = 0.2
"""How long `tail` waits before it looks whether Ctrl-C was pressed."""


def tail(
    url: Url,
    *,
    after: Annotated[int, typer.Option(min=0, help="Begin after this position.")] = 0,
    prefix: Annotated[str, typer.Option(help="Only streams whose names begin with this.")] = "",
    types: Annotated[str | None, typer.Option(help="Only these types of events, with commas between them.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for more at the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Print events in the order of their positions, and go on as they come. With --json, as `export` writes them."""
    with exit_codes(as_json), noting_interrupt() as is_interrupted, reading(url) as store:
        position = after
        wanted = types.split(",") if types else None
        while not is_interrupted():
            page = store.run(log.page_all(position, prefix, wanted))
            for event in page.events:
                typer.echo(jsonl.event_line(event).decode().rstrip("\n") if as_json else _line_of_event(event))
            position = page.next
            if position < page.head:
                continue
            sys.stdout.flush()
            if not follow:
                return
            store.run(perform(Wait(position, prefix, _WAIT_SECONDS)))
        raise KeyboardInterrupt


def _line_of_event(event: Event) -> str:
    """One line for people.

    >>> _line_of_event(Event("orders/1", 3, "placed", 0, {"total": 12}, 17))
    '17 1970-01-01T00:00:00+00:00 orders/1 3 placed {"total":12}'
    """
    data = msgspec.json.encode(to_json(event.data)).decode()
    return f"{event.position} {time_of(event.at)} {event.stream} {event.seq} {event.type} {data}"
