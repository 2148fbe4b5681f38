"""How fast interleavings are explored: each one runs from the start, on a store of its own."""

from collections.abc import Callable
from typing import Any

from benchmarks.table import Bound, Row, rate
from interpreters.explore.schedule.case import Case
from interpreters.explore.schedule.ordered import Ordered
from interpreters.stores.memory import MemoryStore
from persist_effects import kv
from persist_effects.machine import Effect

INTERLEAVINGS = 70
"""Of two programs of four requests each: eight turns, of which four are the first one's."""

MUST_A_SECOND = 25_000


def put_twice(value: int) -> Callable[[], Effect[Any]]:
    """A program of four requests, which touch one key."""

    def go() -> Effect[Any]:
        yield from kv.get("a")
        yield from kv.put("a", value)
        yield from kv.get("a")
        yield from kv.put("a", value + 1)

    return go


def new_store() -> MemoryStore:
    return MemoryStore(clock=lambda: 0)


CASE = Case(("first", "second"), (put_twice(1), put_twice(3)), new_store, None, requests_limit=100)


def explore_again_and_again(count: int) -> None:
    """Go through all interleavings, so often that there are this many."""
    for _ in range(count // INTERLEAVINGS):
        search = Ordered(CASE, bound=None, reduce=False, crashes=False)
        assert not list(search.failures())
        assert search.checked == INTERLEAVINGS


ROWS = (
    Row(
        name="interleavings of two programs of four requests each, against 25,000 a second",
        unit="interleavings/s",
        bound=Bound.AT_LEAST,
        must=1.0,
        operations=INTERLEAVINGS * 50,
        rounds=21,
        ours=lambda count: rate(count, lambda: explore_again_and_again(count)),
        peer=lambda count: MUST_A_SECOND,
    ),
)
