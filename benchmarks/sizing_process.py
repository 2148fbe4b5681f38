"""What a store costs a fresh process: `python -m benchmarks.sizing_process`, which is told by a line what to open.

It prints the figures as JSON. What every store takes (modules, threads, buffers) is left out of the memory: an empty
store of the same kind is opened and asked the same before.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import median
from typing import Any

import msgspec

from benchmarks.built_stores import fill
from benchmarks.index_memory import own_memory_bytes
from benchmarks.orders import order
from benchmarks.sizing_places import patiently_opened
from benchmarks.table import seconds
from interpreters.opening import open_store
from interpreters.runtime.store import Store
from persist_effects import Draft, kv, log
from persist_effects.machine import perform
from persist_effects.requests import PAGE_SIZE_MAX, Append, KvKeys, KvPut, Streams

STREAM_COUNT = 1_000
"""Over how many streams the events are spread, where it is events that there are more and more of."""

PLACES = 1_000
"""From how many places of a store something is read, so that what is loaded when it is first used is counted too."""

TIMES = 100
"""How often what takes a moment is asked; the figure is the median."""


class Asked(msgspec.Struct, frozen=True):
    """What a process is told to look at.

    Args:
        url: The store's URL.
        empty_url: That of an empty store of the same kind.
        curve: What there are so many of: events, streams or keys.
        size: How many.
        fills: Whether it makes them itself, because nobody else can.
    """

    url: str
    empty_url: str
    curve: str
    size: int
    fills: bool = False


def writes(curve: str, size: int) -> Iterator[Append | KvPut]:
    """What a store of a size is filled with: each write is one event of about 125 bytes, or one key with such a value.

    >>> [write.stream for write in writes("streams", 2)], [write.key for write in writes("keys", 1)]
    (['orders/00000000', 'orders/00000001'], ['orders/00000000'])
    """
    for number in range(size):
        name = name_of(number % STREAM_COUNT if curve == "events" else number)
        if curve == "keys":
            yield KvPut(name, order(number))
        else:
            yield Append(name, (Draft("placed", order(number)),))


def name_of(number: int) -> str:
    """What a stream or a key is called."""
    return f"orders/{number:08}"


def first_names(store: Store, curve: str, prefix: str, limit: int, after: str = "") -> list[str]:
    """A page of the names of keys or of streams."""
    request = KvKeys(prefix, after, limit) if curve == "keys" else Streams(prefix, after, limit)
    return store.run(perform(request))


def names(store: Store, curve: str) -> Iterator[str]:
    """All names of keys or of streams, a page at a time."""
    after = ""
    while page := first_names(store, curve, "orders/", PAGE_SIZE_MAX, after):
        yield from page
        after = page[-1]


def read_one(store: Store, curve: str, name: str) -> None:
    """One event, or one key."""
    found = store.run(kv.get(name)) if curve == "keys" else store.run(log.read(name, limit=1))
    assert found, name


def count_of_all(store: Store, curve: str) -> int:
    """How many names there are, or events, by reading all of them."""
    if curve != "events":
        return sum(1 for _ in names(store, curve))
    position = count = 0
    while (page := store.run(log.page_all(position, "orders/", limit=PAGE_SIZE_MAX))).events:
        count, position = count + len(page.events), page.next
    return count


def figures_of(asked: Asked) -> dict[str, float]:
    """The figures of a store in this process."""
    with patiently_opened(asked.empty_url) as store:
        store.run(kv.put(name_of(0), 1))
        store.run(log.append(name_of(0), "placed", None))
        store.wait_for_order()
        look_all_over(store, asked.curve)
    before = own_memory_bytes()
    opened: list[Store] = []
    name = name_of(0)

    def open_and_ask() -> None:
        opened.append(open_store(asked.url))
        if asked.fills:
            fill(opened[0], writes(asked.curve, asked.size))
        read_one(opened[0], asked.curve, name)

    found = {"open_seconds": seconds(open_and_ask)}
    with opened[0] as store:
        store.wait_for_order()
        found["first_list_seconds"] = seconds(lambda: first_names(store, asked.curve, "orders/0", 10))
        look_all_over(store, asked.curve)
        found["process_bytes"] = max(1, own_memory_bytes() - before)
        found |= asked_again_and_again(store, asked)
    if asked.fills:
        found.pop("open_seconds")
    return found


def look_all_over(store: Store, curve: str) -> None:
    """Read from places spread over all that there is."""
    count = sum(1 for _ in names(store, curve))
    for name in islice(names(store, curve), 0, None, max(1, count // PLACES)):
        read_one(store, curve, name)


def questions(store: Store, curve: str, size: int) -> dict[str, Callable[[], Any]]:
    """What takes a moment each, by the names of the figures."""
    middle = name_of(size // 2)[:-1]
    position = store.run(log.head()) // 2
    is_keys = curve == "keys"
    found: dict[str, Callable[[], Any]] = {
        "write_ms": lambda: store.run(kv.put("own", 1) if is_keys else log.append("own", "placed", order(1))),
        "read_ms": lambda: read_one(store, curve, name_of(0)),
        "list_ms": lambda: first_names(store, curve, middle, 10),
    }
    if not is_keys:
        found["page_ms"] = lambda: store.run(log.page_all(position, limit=100))
    return found


def median_ms(ask: Callable[[], Any], times: int = TIMES) -> float:
    """What something takes that is asked some times."""
    return median(seconds(ask) for _ in range(times)) * 1e3


def asked_again_and_again(store: Store, asked: Asked) -> dict[str, float]:
    """What single questions take, and what reading everything takes."""
    found = {name: median_ms(ask) for name, ask in questions(store, asked.curve, asked.size).items()}
    counts: list[int] = []
    found["all_seconds"] = seconds(lambda: counts.append(count_of_all(store, asked.curve)))
    assert counts == [asked.size], f"{counts[0]} of {asked.size} are there"
    return found


def main() -> None:
    """Read a line, and answer with one."""
    asked = msgspec.json.decode(sys.stdin.readline(), type=Asked)
    print(msgspec.json.encode(figures_of(asked)).decode())


if __name__ == "__main__":
    main()
