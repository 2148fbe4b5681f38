"""A history in parts that do not touch each other, and which of its uncertain operations are like others.

Linearizability is local: a history has an order if the operations on each stream and key have one, as long as no
operation touches several (Herlihy and Wing, 1990). Those that do, transactions and listings, join what they touch.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from interpreters.explore.schedule.footprint import Footprint, Touched, footprint_of, orders_seen_by
from interpreters.explore.schedule.history import NEVER, Operation, encoded, values_shown, writes_in
from persist_effects.requests import Append, KvDelete, KvPut, Transact

_ALIKE_BYTES = 1024
"""Up to which size two values are stored alike, whatever a store's limit is."""


class HistoryPart(NamedTuple):
    """Operations, and the writes of which the store was made that they may touch."""

    history: tuple[Operation, ...]
    before: tuple[Any, ...]

    def joined(self, other: "HistoryPart") -> "HistoryPart":
        """Both as one. The writes before touch different places, so any order of them is the same."""
        history = sorted([*self.history, *other.history], key=lambda operation: operation.began)
        return HistoryPart(tuple(history), (*self.before, *other.before))


def parts_of(history: Sequence[Operation], before: Sequence[Any]) -> list[HistoryPart]:
    """Split a history so that no two parts touch the same place, and no order over all places joins them.

    Args:
        history: The operations.
        before: The writes of which the store was made.
    """
    requests = [*before, *(operation.step.request for operation in history)]
    orders = frozenset[Touched]().union(*map(orders_seen_by, requests))
    groups = _Groups(footprint_of(request, orders=orders) for request in requests)
    parts: dict[int, tuple[list[Operation], list[Any]]] = defaultdict(lambda: ([], []))
    for index, write in enumerate(before):
        parts[groups.of(index)][1].append(write)
    for index, operation in enumerate(history, len(before)):
        parts[groups.of(index)][0].append(operation)
    return [HistoryPart(tuple(operations), tuple(writes)) for operations, writes in parts.values() if operations]


class _Groups:
    """Which footprints have something to do with each other, be it through others."""

    def __init__(self, footprints: Iterable[Footprint | None]) -> None:
        given = list(footprints)
        self._above = list(range(len(given)))
        first: dict[Touched, int] = {}
        for index, footprint in enumerate(given):
            for place in () if footprint is None else footprint.reads | footprint.writes:
                self._join(index, first.setdefault(place, index))
        for index, footprint in enumerate(given):
            if footprint is None:
                for other in range(len(given)):
                    self._join(index, other)
                continue
            for kind, prefix in footprint.prefixes:
                for place, other in first.items():
                    if place[0] == kind and place[1].startswith(prefix):
                        self._join(index, other)
                # Two listings of nothing that is written need not be joined.

    def of(self, index: int) -> int:
        """The number of the group of a footprint, by its place among those given."""
        while self._above[index] != index:
            self._above[index] = index = self._above[self._above[index]]
        return index

    def _join(self, one: int, other: int) -> None:
        self._above[self.of(one)] = self.of(other)


def likenesses(history: Sequence[Operation]) -> dict[int, Hashable]:
    """What each operation is like that need not have been done, by its place in the history.

    Those of which nothing but what no answer shows tells them apart are alike: an order that takes a later one may as
    well take an earlier one in its place.

    Args:
        history: The operations.
    """
    spare = [index for index, operation in enumerate(history) if operation.ended == NEVER]
    shown = values_shown(history) if spare else frozenset[tuple[Touched, bytes]]()
    return {index: _likeness(history[index].step.request, index, shown) for index in spare}


def _likeness(request: Any, index: int, shown: frozenset[tuple[Touched, bytes]]) -> Hashable:
    if isinstance(request, Transact) and request.noting:
        return index

    def of_value(place: Touched, value: Any) -> Hashable:
        data = encoded(value)
        if not 0 < len(data) <= _ALIKE_BYTES:
            return index
        return data if (place, data) in shown else b""

    parts: list[Hashable] = [request.op]
    for write in writes_in(request):
        match write:
            case KvPut():
                parts.append(("put", write.key, write.expected, of_value(("key", write.key), write.value)))
            case KvDelete():
                parts.append(("delete", write.key, write.expected))
            case Append():
                drafts = (
                    (draft.type, of_value(("stream", write.stream), draft.data), draft.at, encoded(draft.meta))
                    for draft in write.events
                )
                parts.append(("append", write.stream, write.expected, *drafts))
            case _:
                return index
    checks = request.checks if isinstance(request, Transact) else ()
    return (*parts, *(msgspec.json.encode(check) for check in checks))
