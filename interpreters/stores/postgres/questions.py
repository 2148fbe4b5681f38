"""Answering the requests that write nothing: each is one question to the server."""

from collections.abc import Callable
from typing import Any, LiteralString

from psycopg.types.numeric import Int4, Int8

from interpreters.stores.names import range_of
from interpreters.stores.postgres.batches import filled_in
from interpreters.stores.postgres.server import QUERIES
from interpreters.stores.ranges import page_range
from persist_effects import codec
from persist_effects.event import INT64_MAX, Event
from persist_effects.requests import (
    ANSWERS,
    Entry,
    Hole,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvWait,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Request,
    Streams,
    Wait,
)

LOOKED_AT = 1_000
"""How many of the newest changes are looked at for one under a prefix, before all that is under it is."""

_decode = codec.decode

Ask = Callable[..., list[Any]]


class Questions:
    """The answers that a server gives.

    Args:
        ask: Gives the rows for a question and its parameters.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def answer(self, request: Request[Any]) -> Any:
        """The answer to a request that writes nothing."""
        return _ANSWERS[type(request)](self, request)

    # Streams

    def _last_seq(self, request: LastSeq) -> int:
        rows = self._ask(QUERIES.last_seq, (request.stream,))
        return rows[0][0] if rows else 0

    def _read(self, request: Read) -> Page:
        query = QUERIES.read_backwards if request.backwards else QUERIES.read
        parameters = {
            "stream": request.stream,
            "after": Int8(request.after),
            "until": Int8(INT64_MAX if request.until is None else request.until),
            "limit": Int8(request.limit),
        }
        rows = self._ask(query, parameters)
        if not rows:
            return Page([], request.after, 0)
        dropped, head = rows[0][:2]
        _, _, next_seq, hole = page_range(request, dropped, head)
        events = [_event(position, request.stream, *rest) for _, _, position, *rest in rows if position is not None]
        return Page(events, next_seq, head, hole)

    def _names(self, request: Streams) -> list[str]:
        return [name for (name,) in self._page_of(QUERIES.streams, request)]

    # All streams

    def _read_all(self, request: ReadAll) -> Page:
        name_from, name_to = range_of(request.prefix)
        kind = "prefix" if request.prefix else "all" if request.types is None else "types"
        parameters = {
            "name_from": name_from,
            "name_to": name_to,
            "after": Int8(request.after),
            "until": Int8(request.last_position(INT64_MAX)),
            "limit": Int4(request.limit + 1),
            "types": None if request.types is None else list(request.types),
        }
        rows = self._ask(getattr(QUERIES, f"page_of_{kind}{'_backwards' if request.backwards else ''}"), parameters)
        head, shortened, dropped, *_ = rows[0]
        until = max(request.last_position(head), request.after)
        events = [_event(*row) for row in rows[1 : request.limit + 1]]
        next_position = request.after if request.backwards else until
        if len(rows) - 1 > request.limit:
            next_position = events[-1].position - 1 if request.backwards else events[-1].position
        hole = None if shortened is None or until <= request.after else Hole(shortened, dropped + 1)
        return Page(events, next_position, head, hole)

    # Keys

    def _get(self, request: KvGet) -> Entry | None:
        rows = self._ask(QUERIES.entry, (request.key,))
        return _entry(*rows[0]) if rows else None

    def _has(self, request: KvHas) -> bool:
        return bool(self._ask(QUERIES.revision, (request.key,)))

    def _keys(self, request: KvKeys) -> list[str]:
        return [key for (key,) in self._page_of(QUERIES.keys, request)]

    def _entries(self, request: KvEntries) -> list[tuple[str, Entry]]:
        return [(key, _entry(*rest)) for key, *rest in self._page_of(QUERIES.entries, request)]

    def _page_of(self, query: LiteralString, request: Streams | KvKeys | KvEntries) -> list[Any]:
        return self._ask(query, (*range_of(request.prefix), request.after, Int8(request.limit)))

    # Waiting

    def newest(self, request: Wait | KvWait) -> int:
        """The newest settled position, or revision, under the prefix of a wait."""
        parameters = (*range_of(request.prefix), Int8(request.after), Int4(LOOKED_AT))
        if type(request) is KvWait:
            rows = self._ask(QUERIES.newest_revision, parameters)
        elif request.prefix:
            rows = self._ask(QUERIES.newest_position, parameters)
        else:
            rows = self._ask(QUERIES.newest_of_all)
        return int(rows[0][0])

    def transactions(self) -> tuple[int, int]:
        """Below which number all transactions are over, and from which on none has begun."""
        ((over, begun),) = self._ask(QUERIES.transactions)
        return over, begun

    def held_back_by(self) -> str:
        """The transaction that holds readers back, in words."""
        rows = self._ask(QUERIES.held_back_by)
        return "{}, for {} s".format(*rows[0]) if rows else "one that this role may not see, or that has just ended"

    def changed_since(self, settled: int) -> tuple[dict[str, int], dict[str, int], int, int]:
        """What was settled since: streams and keys, with the newest number of each.

        Args:
            settled: How far all is known.

        Returns:
            The streams, the keys, how far that goes, and the newest number of all, which perhaps is not settled yet.
        """
        found: dict[str, dict[str, int]] = {"stream": {}, "key": {}, "settled": {}, "newest": {}}
        for kind, name, number in self._ask(QUERIES.changed, {"after": Int8(settled - 1)}):
            found[kind][name] = number
        return found["stream"], found["key"], found["settled"][""], found["newest"][""]


def _event(*row: Any) -> Event:
    position, stream, seq, event_type, at, data, meta, noted = row
    if meta is None:
        return Event(stream, seq, event_type, at, _decode(data), position)
    decoded = _decode(meta)
    if noted is not None:
        decoded = filled_in(decoded, ANSWERS, noted)
    return Event(stream, seq, event_type, at, _decode(data), position, decoded)


def _entry(revision: int, value: bytes, noted: Any) -> Entry:
    decoded = codec.decode(value)
    return Entry(decoded if noted is None else filled_in(decoded, ANSWERS, noted), revision)


_ANSWERS: dict[type[Request[Any]], Any] = {
    Read: Questions._read,
    ReadAll: Questions._read_all,
    LastSeq: Questions._last_seq,
    Streams: Questions._names,
    KvGet: Questions._get,
    KvHas: Questions._has,
    KvKeys: Questions._keys,
    KvEntries: Questions._entries,
}
