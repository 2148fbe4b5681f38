"""Two stores of which one was copied into the other, compared, also while both are written."""

from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from interpreters.jsonl import Counts, Progress, entries_of
from interpreters.runtime.store import Store
from persist_effects import kv, log
from persist_effects.errors import CorruptStore
from persist_effects.event import Event
from persist_effects.machine import Effect, all_of, perform
from persist_effects.requests import Entry, Read

STATE = "migration/state"
"""The key in the new store that says how far the copying is."""

PAGE = 1_000

TOGETHER = 250
"""Of how many streams the bounds are asked at once."""

Bounds = tuple[int, int]
"""Through which sequence number a stream was dropped, and its last one."""


class Comparison:
    """Two stores, of which one was copied into the other.

    Args:
        old: The one.
        new: The other.
        value_of: What a key, of which the old one has an entry, is to hold in the new one.
        progress: Told now and then how far it is.
    """

    def __init__(self, old: Store, new: Store, value_of: Callable[[str, Entry], Any], progress: Progress) -> None:
        self._old = old
        self._new = new
        self._value_of = value_of
        self._progress = progress
        self.counts = Counts()
        """How many were compared."""

    def events(self, through: int | None = None) -> None:
        """Compare the events, and their order over all streams. What either has dropped is passed over.

        Args:
            through: Up to which position of the old one; None: all.

        Raises:
            CorruptStore: Where they differ.
        """
        ours, theirs = _events_of(self._old, through), _events_of(self._new)
        head = self._old.run(log.head())
        expected, found = next(ours, None), next(theirs, None)
        while expected is not None:
            if found is not None and plain(found) == plain(expected):
                self.counts.events += 1
                if not self.counts.events % PAGE:
                    self._progress(expected.position, head)
                expected, found = next(ours, None), next(theirs, None)
            elif self._is_dropped(expected):
                expected = next(ours, None)
            elif found is not None and self._is_dropped(found):
                found = next(theirs, None)
            else:
                raise CorruptStore(_first_difference(expected, found))
        while found is not None and through is None:
            if not self._is_dropped(found):
                raise CorruptStore(
                    f"the new store has event {found.seq} of stream {found.stream!r}, the old one has not"
                )
            found = next(theirs, None)

    def _is_dropped(self, event: Event) -> bool:
        """Whether one of the two has dropped it, perhaps since it was read from the other."""
        stores = (self._old, self._new)
        return event.seq <= max(store.run(bounds_of(event.stream))[0] for store in stores)

    def streams(self) -> dict[str, str]:
        """Compare which streams there are, from where to where.

        Returns:
            Of those that differ, in what.
        """
        expected, found = self._old.run(log.streams()), self._new.run(log.streams())
        differences = {name: f"stream {name!r} is in one store only" for name in sorted(set(expected) ^ set(found))}
        for names, bounds, others in bounds_in(self._old, self._new, expected):
            for name, ours, theirs in zip(names, bounds, others, strict=True):
                difference = differences.get(name) or _difference_of(name, ours, theirs)
                if difference is not None:
                    differences[name] = difference
                self.counts.streams += 1
            self._progress(self.counts.streams, len(expected))
        return differences

    def stream(self, name: str) -> str | None:
        """In what a stream differs, or None."""
        return _difference_of(name, self._old.run(bounds_of(name)), self._new.run(bounds_of(name)))

    def are_dropped_apart(self, name: str) -> bool:
        """Whether a stream was dropped, or begun, further in one of the two."""
        return self._old.run(bounds_of(name))[0] != self._new.run(bounds_of(name))[0]

    def keys(self) -> dict[str, str]:
        """Compare the keys and their values.

        Returns:
            Of those that differ, in what.
        """
        differences = {}
        for key, expected, found in _side_by_side(self._old, self._new):
            if key == STATE:
                continue
            difference = self._difference(key, expected, found)
            if difference is not None:
                differences[key] = difference
            self.counts.keys += expected is not None
        return differences

    def key(self, name: str) -> str | None:
        """In what a key differs, or None."""
        return self._difference(name, self._old.run(kv.entry(name)), self._new.run(kv.entry(name)))

    def _difference(self, key: str, expected: Entry | None, found: Entry | None) -> str | None:
        if expected is None:
            return None if found is None else f"the new store has key {key!r}, which the old one has not"
        value = self._value_of(key, expected)
        if found is not None and msgspec.msgpack.encode(found.value) == msgspec.msgpack.encode(value):
            return None
        shown = "nothing" if found is None else f"{found.value!r:.100}"
        return f"key {key!r}: expected {value!r:.100}, found {shown}"


def bounds_of(stream: str) -> Effect[Bounds]:
    """Through which sequence number a stream was dropped, and its last one."""
    page = yield from perform(Read(stream, limit=1))
    return (0 if page.hole is None else page.hole.first_left - 1), page.head


def bounds_in(
    old: Store, new: Store, names: Sequence[str]
) -> Iterator[tuple[Sequence[str], Sequence[Bounds], Sequence[Bounds]]]:
    """Some names of streams at a time, with the bounds of each in the one store and in the other.

    They are asked together: where each question goes to a server and back, one after the other takes long.
    """
    for start in range(0, len(names), TOGETHER):
        part = names[start : start + TOGETHER]
        ours, theirs = (store.run(all_of(*map(bounds_of, part))) for store in (old, new))
        yield part, ours, theirs


def _difference_of(name: str, ours: Bounds, theirs: Bounds) -> str | None:
    return None if ours == theirs else f"stream {name!r}: expected (dropped, last) {ours}, found {theirs}"


def plain(event: Event) -> tuple[Any, ...]:
    """What of an event is the same in both stores."""
    return event.stream, event.seq, event.type, event.at, msgspec.msgpack.encode(event.data), event.meta


def _events_of(store: Store, through: int | None = None) -> Iterator[Event]:
    """All events of a store, page by page."""
    after = 0
    while True:
        page = store.run(log.page_all(after=after, limit=PAGE))
        for event in page.events:
            if through is not None and event.position > through:
                return
            yield event
        if page.next >= page.head:
            return
        after = page.next


def _side_by_side(old: Store, new: Store) -> Iterator[tuple[str, Entry | None, Entry | None]]:
    """Each key of two stores, in order, with its entry in the one and in the other."""
    ours = ((key, 0, entry) for key, entry in entries_of(old))
    theirs = ((key, 1, entry) for key, entry in entries_of(new))
    for key, found in groupby(merge(ours, theirs), itemgetter(0)):
        entries = {side: entry for _, side, entry in found}
        yield key, entries.get(0), entries.get(1)


def _first_difference(expected: Event, found: Event | None) -> str:
    shown = "nothing" if found is None else f"{plain(found)!r:.200}"
    return f"expected event {expected.seq} of stream {expected.stream!r}, {plain(expected)!r:.200}, found {shown}"
