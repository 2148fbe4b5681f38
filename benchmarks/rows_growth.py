"""What a question with the same answer costs in stores of a thousand to a million streams and keys.

A row's figure is how many times dearer it gets from one size to the next, but for the logarithm, at the worst.
``python -m benchmarks.rows_growth [--size N] [--only NAME] [--kind KIND]`` prints what each costs at each size.
"""

import argparse
import atexit
import itertools
import math
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.built_stores import fill
from benchmarks.ground import lasting_directory, open_file_store
from benchmarks.rows_postgres import server
from benchmarks.table import Bound, Row, cost_ns
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.stores.served import RemoteStore, serve
from persist_effects import Draft
from persist_effects.requests import (
    PAGE_SIZE,
    Append,
    KvEntries,
    KvGet,
    KvKeys,
    KvPut,
    KvWait,
    LastSeq,
    Read,
    ReadAll,
    Request,
    Streams,
    TruncateThrough,
    Wait,
)

DEARER = 1.5
"""How many times dearer a question may get from one size to the next, but for the logarithm."""

STEPS = (100, 10)
"""From the smallest size to the next, and from that to the largest."""

FEW = 10
"""So many streams, of so many events each, and so many keys are under the prefix that is asked for."""

TOGETHER = 1_000
"""How many writes are one commit while a store is filled."""


# Stores


def writes(size: int) -> Iterator[Request[Any]]:
    """What a store of a size is filled with: many streams and keys, among which those that are asked for lie spread."""
    parts = range(FEW * FEW)
    for part in parts:
        for number in range(part * size // len(parts), (part + 1) * size // len(parts)):
            yield Append(f"s/{number:08}", (Draft("made", number),))
            yield KvPut(f"k/{number:08}", number)
            if number % 100 == 0:
                yield Append(f"cut/{number:08}", (Draft("made", number),))
                yield TruncateThrough(f"cut/{number:08}", 1)
        yield Append(f"few/{part % FEW}", (Draft("rare", part),))
        yield KvPut(f"few/{part % FEW}", part)
    for start in range(0, size, TOGETHER):
        drafts = tuple(Draft("made", number) for number in range(start, min(start + TOGETHER, size)))
        yield Append(f"batches/{start // TOGETHER % FEW}", drafts)


@cache
def memory_store(size: int) -> Store:
    store = open_store("memory:")
    fill(store, writes(size))
    return store


@cache
def file_store(size: int) -> Store:
    store = open_file_store(lasting_directory() / f"growth-{size}", sync="os")
    atexit.register(store.close)
    fill(store, writes(size))
    return store


@cache
def served_store(size: int) -> Store:
    """The file store, asked through a socket."""
    here, there = socket.socketpair()
    thread = threading.Thread(target=serve, args=(file_store(size).interpreter, there), daemon=True)
    thread.start()
    store = Store(RemoteStore(here))
    atexit.register(store.close)
    return store


@cache
def sqlite_store(size: int) -> Store:
    store = open_store(f"sqlite:{lasting_directory()}/growth-{size}.db", sync="os")
    atexit.register(store.close)
    fill(store, writes(size))
    return store


@cache
def postgres_store(size: int) -> Store:
    store = open_store(server().url(f"growth_{size}"))
    fill(store, writes(size))
    return store


class Kind(NamedTuple):
    """A kind of store, and the largest of them that is filled for a row."""

    of_size: Callable[[int], Store]
    largest: int = 1_000_000


KINDS = {
    "memory": Kind(memory_store),
    "file": Kind(file_store),
    "served": Kind(served_store),
    "sqlite": Kind(sqlite_store, 100_000),
    "postgresql": Kind(postgres_store, 100_000),
}


# Questions


_fresh = itertools.count()
"""Numbers that no name has had yet."""

Ask = Callable[[Request[Any]], Any]


def _append_and_list(ask: Ask, _: int) -> None:
    name = f"s/{next(_fresh) * 7919 % 10**8:08}/new"
    ask(Append(name, (Draft("made", None),)))
    assert len(ask(Streams(name[:-4], "", 10))) <= 10


def _put_and_list(ask: Ask, _: int) -> None:
    name = f"k/{next(_fresh) * 7919 % 10**8:08}/new"
    ask(KvPut(name, None))
    assert ask(KvKeys(name[:-1], "", 10)) == [name]


def _append_and_wait(ask: Ask, _: int) -> None:
    position = ask(Append("own/few", (Draft("made", None),))).position
    assert ask(Wait(position - 1, "own/f", 0)) == position


def _put_and_wait(ask: Ask, _: int) -> None:
    revision = ask(KvPut("own/few", None))
    assert ask(KvWait(revision - 1, "own/f", 0)) == revision


def _truncate(ask: Ask, _: int) -> None:
    last_seq = ask(Append("cut/own", (Draft("made", None),))).last_seq
    assert ask(TruncateThrough("cut/own", last_seq)) == 1


def _few_of(events: Sequence[Any]) -> None:
    assert len([event for event in events if event.type == "rare"]) == FEW * FEW


def _tail(ask: Ask, _: int) -> None:
    head = ask(ReadAll(0, limit=1)).head
    assert len(ask(ReadAll(head - 10)).events) <= 10


OF_A_TYPE = "100 events of a type, of all streams"
OF_NEARLY_ALL = "a wait by a prefix of nearly all"
IN_THE_MIDDLE = "all streams, from the middle on"
AT_THE_END = "all streams, the newest"

NOT_OF = {
    "memory": {OF_A_TYPE},
    "sqlite": {OF_A_TYPE, OF_NEARLY_ALL, IN_THE_MIDDLE, AT_THE_END},
    "postgresql": {OF_A_TYPE},
}
"""The memory store looks at each event, which it has at hand, and the databases at each row.

SQLite keeps 2 MB of a file in memory: in a larger one each row is some pages to be read. Who waits from the beginning
on for streams of which none was appended to for long has it look at each of them.
"""


QUESTIONS: dict[str, Callable[[Ask, int], None]] = {
    "the last sequence number": lambda ask, _: _is(ask(LastSeq("few/3")), FEW),
    "a stream of 10 events": lambda ask, _: _is(len(ask(Read("few/3")).events), FEW),
    "10 streams of all, by prefix": lambda ask, _: _few_of(ask(ReadAll(0, "few/", None, 1_000)).events),
    "1 stream of all, by prefix": lambda ask, _: _is(len(ask(ReadAll(0, "few/3")).events), FEW),
    "10 streams of all, backwards": lambda ask, _: _few_of(ask(ReadAll(0, "few/", None, 1_000, backwards=True)).events),
    "10 streams of all, by prefix and type": lambda ask, _: _few_of(ask(ReadAll(0, "few/", ("rare",), 1_000)).events),
    OF_A_TYPE: lambda ask, _: _few_of(ask(ReadAll(0, "", ("rare",), 1_000)).events),
    "all streams, by a common prefix": lambda ask, _: _is(len(ask(ReadAll(0, "s/")).events), PAGE_SIZE),
    IN_THE_MIDDLE: lambda ask, size: _is(len(ask(ReadAll(size, limit=10)).events), 10),
    AT_THE_END: _tail,
    "a page of a stream of long commits": lambda ask, _: _is(len(ask(Read("batches/0", 7)).events), PAGE_SIZE),
    "a page of all of long commits": lambda ask, size: _is(
        len(ask(ReadAll(size + size // 100 + 200)).events), PAGE_SIZE
    ),
    "10 streams' names": lambda ask, _: _is(len(ask(Streams("few/", "", 20))) >= FEW, True),
    "10 names, near the end": lambda ask, size: _is(len(ask(Streams("s/", f"s/{size * 9 // 10:08}", 10))), 10),
    "names after a new one": _append_and_list,
    "a wait by prefix after an append": _append_and_wait,
    OF_NEARLY_ALL: lambda ask, size: _is(ask(Wait(0, "s/", 0)) >= size, True),
    "an append": lambda ask, _: _is(ask(Append("own", (Draft("made", None),))).first_seq > 0, True),
    "a truncation": _truncate,
    "a key": lambda ask, _: _is(ask(KvGet("few/3")).value, FEW * FEW - FEW + 3),
    "a put": lambda ask, _: _is(ask(KvPut("own", None)) > 0, True),
    "10 entries": lambda ask, _: _is(len(ask(KvEntries("few/", "", 10))), FEW),
    "10 keys, near the end": lambda ask, size: _is(len(ask(KvKeys("k/", f"k/{size * 9 // 10:08}", 10))), 10),
    "10 entries, near the end": lambda ask, size: _is(len(ask(KvEntries("k/", f"k/{size * 9 // 10:08}", 10))), 10),
    "keys after a new one": _put_and_list,
    "a wait for a key after a put": _put_and_wait,
    "a wait for nearly all keys": lambda ask, size: _is(ask(KvWait(0, "k/", 0)) >= size, True),
}


def _is(found: Any, wanted: Any) -> None:
    assert found == wanted, f"{found}, not {wanted}"


def cost_of(question: Callable[[Ask, int], None], store: Store, size: int) -> float:
    """What a question costs, in nanoseconds: the least of some lots, since whatever disturbs one makes it dearer."""
    handlers = store.interpreter.handlers

    def ask(request: Request[Any]) -> Any:
        return handlers[type(request)](request)

    question(ask, size)
    (once,) = _costs(lambda: question(ask, size), 1, 1)
    return min(_costs(lambda: question(ask, size), max(1, min(50, int(5e6 / once))), 9))


def _costs(work: Callable[[], None], times: int, lots: int) -> list[float]:
    def lot() -> None:
        for _ in range(times):
            work()

    return [cost_ns(times, lot) for _ in range(lots)]


# Rows


class Sizes(NamedTuple):
    """Stores of one kind in all sizes, the smallest first."""

    stores: list[tuple[int, Store]]


def sizes_up_to(largest: int) -> list[int]:
    """The sizes: the largest, and those before it by the steps, but not less than a thousand."""
    sizes = [max(1_000, largest)]
    for step in reversed(STEPS):
        sizes.insert(0, max(1_000, sizes[0] // step))
    return sizes


@contextmanager
def stores_of(kind: str, largest: int) -> Iterator[Sizes]:
    yield Sizes([(size, KINDS[kind].of_size(size)) for size in sizes_up_to(largest)])


def worst_step(question: Callable[[Ask, int], None], sizes: Sizes) -> float:
    """How many times dearer a question gets from one size to the next, at the worst, but for the logarithm."""
    costs = [(size, cost_of(question, store, size)) for size, store in sizes.stores]
    return max(
        dearer / cheaper / (math.log(larger) / math.log(smaller))
        for (smaller, cheaper), (larger, dearer) in itertools.pairwise(costs)
    )


ROWS = tuple(
    Row(
        name=f"growth: {name}, {kind}: dearer from one size to the next, but for the logarithm",
        unit="times",
        bound=Bound.AT_MOST,
        must=1.0,
        operations=of_kind.largest,
        prepare=partial(stores_of, kind),
        ours=partial(worst_step, question),
        peer=lambda _: DEARER,
        rounds=3,
    )
    for kind, of_kind in KINDS.items()
    for name, question in QUESTIONS.items()
    if name not in NOT_OF.get(kind, ())
)


def main() -> None:
    """Print what each question costs at each size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows_growth")
    parser.add_argument("--size", type=int, default=1_000_000, help="the largest size")
    parser.add_argument("--only", default="", help="questions whose names hold this text")
    parser.add_argument("--kind", choices=KINDS, help="stores of this kind alone")
    options = parser.parse_args()
    sizes = sizes_up_to(options.size)
    kinds = [options.kind] if options.kind else [*KINDS]
    table = Table("question", *(f"{kind} {size:,}" for kind in kinds for size in sizes), title="microseconds")
    for name, question in QUESTIONS.items():
        if options.only in name:
            costs = [cost_of(question, KINDS[kind].of_size(size), size) for kind in kinds for size in sizes]
            table.add_row(name, *(f"{cost / 1e3:,.1f}" for cost in costs))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
