"""How fast interleavings are explored: each one runs from the start, on a store of its own."""

from collections.abc import Callable
from typing import Any

from benchmarks.table import Bound, Row, rate
from interpreters import open_store
from interpreters.explore.schedule.case import Case
from interpreters.explore.schedule.ordered import Ordered
from interpreters.stores.memory import MemoryStore
from persist_effects import kv, log
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


MUST_OF_REDUCED_A_SECOND = 3_000


def append_thrice() -> Effect[Any]:
    """A program of three appends, to two streams that others append to as well."""
    for stream in "aba":
        yield from log.append(stream, "made", 1)


FOUR_APPEND = Case(tuple("abcd"), (append_thrice,) * 4, lambda: open_store("memory:"), None, requests_limit=100)
"""Of which 27,480 orders differ."""


def explore_reduced(count: int) -> None:
    """Go through so many of the orders that differ."""
    search = Ordered(FOUR_APPEND, bound=None, reduce=True, crashes=False)
    assert not list(search.failures(count))
    assert search.checked + search.equal == count


ROWS = (
    Row(
        name="orders that differ, of four programs of three appends each, against 3,000 a second",
        unit="orders/s",
        bound=Bound.AT_LEAST,
        must=1.0,
        operations=3_000,
        rounds=7,
        ours=lambda count: rate(count, lambda: explore_reduced(count)),
        peer=lambda count: MUST_OF_REDUCED_A_SECOND,
    ),
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
