"""What type checkers must find out about programs: this file is checked by mypy and pyright, not run."""

from typing import Any, assert_type

from interpreters import Store, open_store
from interpreters.explore import CrashStore
from persist_effects import (
    BlobRef,
    Conflict,
    Done,
    Draft,
    Effect,
    Entry,
    Event,
    Page,
    Request,
    State,
    Suspended,
    all_of,
    blob,
    decide,
    kv,
    log,
    new_id,
    now,
    perform,
    program,
    projection,
    sleep,
    start,
)
from persist_effects.requests import Append, Appended, KvHas, LastSeq, Now, Outcome, Write
from persist_effects.testing import perform_sequence
from persist_effects.trace import Continuation, Trace, record, replay, resume_at


class FetchPrice(Request[int], frozen=True, tag="shop/fetch-price"):
    """A user's own effect, answered with cents."""

    sku: str


def asked_of_time() -> Effect[None]:
    """What is asked of time is answered by plain values."""
    assert_type((yield from now()), int)
    assert_type((yield from new_id()), str)
    assert_type((yield from sleep(1)), None)
    assert_type((yield from perform(Now())), int)


def decided(total: int, event: Event) -> int:
    return total + int(event.data)


def or_why_not(total: int) -> list[Write] | str:
    return [Append("s", (Draft("made", total),))] if total else "nothing"


def decisions() -> Effect[None]:
    """A decision gives the answers of its writes, a conflict of one of them, or what the command refuses with."""
    assert_type((yield from decide(["s"], decided, 0, or_why_not)), list[Any] | Conflict | str)


def facets() -> Effect[str]:
    """Each facet's program gives its own type."""
    assert_type((yield from log.append("s", "made", 1)), Event)
    assert_type((yield from log.append_expect("s", 0, "made", 1)), Event | Conflict)
    assert_type((yield from log.append_many("s", [])), Appended | Conflict)
    assert_type((yield from log.read("s")), list[Event])
    assert_type((yield from log.read_all()), list[Event])
    assert_type((yield from log.page_all()), Page)
    assert_type((yield from log.head()), int)
    assert_type((yield from log.wait(0)), int)
    assert_type((yield from log.begin("s", 7)), int | Conflict)
    assert_type((yield from kv.put("k", 1)), int)
    assert_type((yield from kv.put_expect("k", 0, 1)), int | Conflict)
    assert_type((yield from kv.entry("k")), Entry | None)
    assert_type((yield from kv.has("k")), bool)
    assert_type((yield from kv.entries()), list[tuple[str, Entry]])
    assert_type((yield from kv.wait(0)), int)
    assert_type((yield from blob.put(b"")), BlobRef)
    return "done"


def requests() -> Effect[int]:
    """A request's answer is typed by the request."""
    assert_type((yield from perform(KvHas("k"))), bool)
    price = yield from perform(FetchPrice("tea"))
    assert_type(price, int)
    return price


def together() -> Effect[None]:
    """`all_of` keeps each program's type."""
    assert_type((yield from all_of(requests(), facets())), tuple[int, str])
    assert_type((yield from all_of(LastSeq("s"), kv.has("k"), facets())), tuple[int, bool, str])


def folds() -> Effect[State[int]]:
    """A fold's state has the seed's type."""

    def count(value: int, event: Event) -> int:
        return value + event.seq

    state = yield from projection.project("s", count, 0)
    assert_type(state.value, int)
    return state


@program
def pay(order: str, cents: int = 0, *, note: str = "") -> Effect[int]:
    """A marked function keeps its signature."""
    return (yield from kv.put(order, [cents, note]))


class Shop:
    """Methods may be marked too."""

    @program
    def pay(self, order: str) -> Effect[int]:
        """Pay."""
        return (yield from pay(order, note="shop"))


def marked() -> Effect[None]:
    """What is marked is typed as before, arguments too."""
    assert_type((yield from pay("order 7", 5, note="now")), int)
    assert_type((yield from Shop().pay("order 7")), int)
    pay(7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pay("order 7", notes="")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def stepping(store: Store) -> None:
    """Steps and runs give the program's type."""
    assert_type(store.run(requests()), int)
    assert_type(store.run_many([facets()]), list[str])
    step = start(requests())
    assert_type(step, Suspended[int] | Done[int])
    if isinstance(step, Done):
        assert_type(step.value, int)


def traces(store: Store) -> None:
    """A replay, and what is resumed, have the program's type."""
    outcome, trace = record(facets, store.handlers)
    assert_type(outcome, Outcome)
    assert_type(trace, Trace)
    assert_type(replay(facets(), trace), str)
    assert_type(replay(facets, trace), str)
    assert_type(resume_at(facets, trace, 0), Suspended[str])
    assert_type(Continuation(facets, trace, 0).resume(None), Suspended[str] | Done[str])
    assert_type(perform_sequence([(KvHas("k"), True)], requests()), int)


async def in_a_task() -> None:
    """A task gets the program's type too."""
    with open_store("memory:") as store:
        assert_type(await store.arun(folds()), State[int])


def with_a_plug() -> CrashStore:
    """The store of ``crash:`` has a plug, also after a restart; any other is a `Store`."""
    store = open_store("crash:", seed=7)
    assert_type(store, CrashStore)
    store.crash("nothing", at="sync")
    store.fail("sync", OSError(5))
    assert_type(open_store("crash:?seed=7"), Store)
    return store.restart()
