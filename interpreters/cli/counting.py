"""Counting what stands in a store of any kind. The events of a stream are counted without reading all of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from interpreters.stores.compacting import Told
from persist_effects import kv, log
from persist_effects.machine import all_of, perform
from persist_effects.requests import PAGE_SIZE, PAGE_SIZE_MAX, KvKeys, Read, Request, Streams

T = TypeVar("T")

_AT_ONCE = 32
"""Of how many streams an event is in memory at once."""


class StreamCount(msgspec.Struct, frozen=True):
    """How many events a stream has, and the last number that it gave."""

    stream: str
    events: int
    last_seq: int


def pages_by_name(
    store: Any,
    ask: Callable[[str], Request[list[T]]],
    name_of: Callable[[T], str],
    after: str = "",
    size: int = PAGE_SIZE,
) -> Iterator[list[T]]:
    """What a store lists by names, of which one page is in memory at a time.

    Args:
        store: The open store.
        ask: Makes the request for the page behind a name, of ``size``.
        name_of: The name of one that is listed.
        after: Behind which name to begin.
        size: How many a page has that is not the last.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = [store.run(kv.put(key, None)) for key in "abc"]
    >>> list(pages_by_name(store, lambda after: KvKeys("", after, 2), str, size=2))
    [['a', 'b'], ['c']]
    """
    while page := store.run(perform(ask(after))):
        yield page
        if len(page) < size:
            return
        after = name_of(page[-1])


def count_streams(store: Any, names: Sequence[str]) -> list[StreamCount]:
    """Count the events of some streams.

    Args:
        store: The open store.
        names: Their names.

    Returns:
        The counts, in order. What was truncated does not count.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = [store.run(log.append("orders/1", "placed", n)) for n in range(3)]
    >>> _ = store.run(log.truncate_through("orders/1", 1))
    >>> count_streams(store, ["orders/1"])
    [StreamCount(stream='orders/1', events=2, last_seq=3)]
    """
    found: list[StreamCount] = []
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        # The first event that is left says how many were dropped.
        pages = store.run(all_of(*(perform(Read(name, limit=1)) for name in some)))
        for name, page in zip(some, pages, strict=True):
            dropped = 0 if page.hole is None else page.hole.first_left - 1
            found.append(StreamCount(name, page.head - dropped, page.head))
    return found


def count_store(store: Any, progress: Told | None = None) -> dict[str, int]:
    """Count what stands in a store. A page of names is in memory at a time.

    Args:
        store: The open store.
        progress: Told now and then how many streams and keys were counted.

    Returns:
        The counts, by name, with the newest position and revision.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(log.append("orders/1", "placed", 12)), store.run(kv.put("color", "red"))
    >>> count_store(store)
    {'streams': 1, 'events': 1, 'keys': 1, 'position': 1, 'revision': 1}
    """
    streams = events = keys = 0
    for names in pages_by_name(store, lambda after: Streams("", after, PAGE_SIZE), str):
        streams += len(names)
        events += sum(one.events for one in count_streams(store, names))
        if progress is not None:
            progress(streams, 0)
    for names in pages_by_name(store, lambda after: KvKeys("", after, PAGE_SIZE_MAX), str, size=PAGE_SIZE_MAX):
        keys += len(names)
        if progress is not None:
            progress(streams + keys, 0)
    numbers = {"position": store.run(log.head()), "revision": store.run(kv.wait(0, timeout=0))}
    return {"streams": streams, "events": events, "keys": keys, **numbers}
