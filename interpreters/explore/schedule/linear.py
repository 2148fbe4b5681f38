"""Whether a store's operations, as they overlapped, could have been done one after the other.

A history is linearizable if each operation can be given one moment between its request and its answer, so that a store
which does them in the order of these moments gives the same answers (Herlihy and Wing, 1990). The memory store is asked
what those answers are. An operation whose outcome is uncertain, or of which nobody heard because its program was gone,
may have taken effect at any time after its request, or not at all.

Positions and revisions are the store's own choice: what counts is that equal ones stay equal.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from interpreters.explore.report import Problem
from interpreters.explore.schedule.history import operations_in, settled
from interpreters.explore.schedule.recorded import RecordedStep
from interpreters.explore.schedule.rows import Rows
from interpreters.explore.schedule.world import World
from persist_effects.event import Draft
from persist_effects.kv import entries
from persist_effects.log import last_seq, read_all, streams
from persist_effects.machine import Effect, Handlers
from persist_effects.requests import Append, Begin, KvPut


class Filling(NamedTuple):
    """What a store holds: the writes that fill an empty one likewise."""

    writes: tuple[Any, ...]


def contents_of(handlers: Handlers) -> Filling:
    """Read everything that a store holds.

    >>> from interpreters.stores.memory import MemoryStore
    >>> store = MemoryStore()
    >>> _ = store.handlers[KvPut](KvPut("color", "red"))
    >>> contents_of(store.handlers).writes
    (KvPut(key='color', value='red', expected=None),)
    """
    return Filling(tuple(World((), handlers).run_alone(_writes())))


def _writes() -> Effect[list[Any]]:
    left = yield from read_all()
    writes: list[Any] = []
    for stream in (yield from streams()):
        first = next((event.seq for event in left if event.stream == stream), (yield from last_seq(stream)) + 1)
        if first > 1:
            writes.append(Begin(stream, first - 1))
    writes += (Append(event.stream, (Draft(event.type, event.data, event.at, event.meta),)) for event in left)
    found = yield from entries()
    found.sort(key=lambda pair: pair[1].revision)
    return [*writes, *(KvPut(key, entry.value) for key, entry in found)]


def linear_problem(trace: Sequence[RecordedStep], contents: Filling, names: Sequence[str]) -> Problem | None:
    """What is wrong with a history, None if it can be put in a row.

    Args:
        trace: The steps. Some thousands are no trouble where few of them overlap: split others by what they touch.
        contents: What the store held before.
        names: What those are called that took the steps.

    Returns:
        The problem, also where no order was found in as many tries as are made.
    """
    rows = Rows(settled(operations_in(trace), contents.writes), contents.writes)
    if rows.find():
        return None
    none = "no order was found, and more were not tried:" if rows.is_given_up else "no order does:"
    return Problem(
        "not linearizable",
        "some order of the operations, each between its request and its answer, explains all answers",
        "\n".join([none, *rows.told_history(names), *rows.told_best(names)]),
    )
