"""What recording a program costs, and how fast a trace is replayed, against fixed limits."""

import gc
from collections.abc import Callable
from typing import Any

from benchmarks.rows_machine import HANDLERS, performing
from benchmarks.table import Bound, Row, rate, seconds
from persist_effects import Request, kv, run
from persist_effects.machine import Effect
from persist_effects.requests import Entry, KvGet, KvPut
from persist_effects.trace import Trace, record, replay

Handlers = dict[type[Request[Any]], Callable[[Any], Any]]


def putting_and_getting(count: int) -> Effect[None]:
    for number in range(count // 2):
        yield from kv.put("color", number)
        yield from kv.get("color")


def dict_handlers() -> Handlers:
    entries: dict[str, Entry] = {}

    def put(request: KvPut) -> int:
        revision = 1 if request.key not in entries else entries[request.key].revision + 1
        entries[request.key] = Entry(request.value, revision)
        return revision

    return {KvPut: put, KvGet: lambda request: entries.get(request.key)}


def recording_microseconds(program: Callable[[int], Effect[None]], handlers: Handlers, count: int) -> float:
    """What a request takes longer when it is recorded."""
    recorded = seconds(lambda: record(program(count), handlers))
    bare = seconds(lambda: run(program(count), handlers))
    return max(0.0, recorded - bare) / count * 1e6


def replays_a_second(program: Callable[[int], Effect[None]], handlers: Handlers, count: int) -> float:
    """How many requests of a trace are replayed in a second, once its answers were read."""
    _, trace = record(program(count), handlers)
    replay(program(count), trace)
    gc.collect()
    return rate(count, lambda: replay(program(count), trace))


def first_replays_a_second(program: Callable[[int], Effect[None]], handlers: Handlers, count: int) -> float:
    """The same of a trace that was just decoded, whose answers are read on the way."""
    _, trace = record(program(count), handlers)
    again = Trace.decode(trace.encode())
    gc.collect()
    return rate(count, lambda: replay(program(count), again))


PROGRAMS = (
    ("a typed request", performing, lambda: HANDLERS),
    ("kv.put and kv.get", putting_and_getting, dict_handlers),
)

ROWS = (
    *(
        Row(
            name=f"record {name}: what is added to a request, against 1 µs",
            unit="µs",
            bound=Bound.AT_MOST,
            must=1.0,
            operations=100_000,
            rounds=9,
            ours=lambda count, program=program, handlers=handlers: recording_microseconds(program, handlers(), count),
            peer=lambda count: 1.0,
        )
        for name, program, handlers in PROGRAMS
    ),
    *(
        Row(
            name=f"replay {name}{which}, against a million a second",
            unit="requests/s",
            bound=Bound.AT_LEAST,
            must=must,
            operations=100_000,
            rounds=9,
            ours=lambda count, program=program, handlers=handlers, rate=rate: rate(program, handlers(), count),
            peer=lambda count: 1e6,
        )
        for which, rate, must in (("", replays_a_second, 1.0), (" for the first time", first_replays_a_second, None))
        for name, program, handlers in PROGRAMS
    ),
)
