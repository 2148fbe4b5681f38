"""Answering the requests that write nothing, by statements on one connection, in one transaction."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import isqrt
from operator import itemgetter
from typing import Any, NamedTuple, overload

from interpreters.stores.merging import merged
from interpreters.stores.names import range_of
from interpreters.stores.ranges import page_range
from interpreters.stores.sqlite.database import queries
from persist_effects import codec
from persist_effects.requests import (
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

FEW = 1
"""So many streams are merged without a look at the log: to look at as many events as a page has takes less time than to
look for the places of two."""

_BLOCK = 64
"""How many rows of a stream are read at once where several are merged."""


class Head(NamedTuple):
    """What there is of a stream: nothing where ``id`` is 0."""

    id: int
    dropped: int
    dropped_position: int
    last_seq: int


_NO_STREAM = Head(0, 0, 0, 0)


class _Row(NamedTuple):
    position: int
    type: str
    event: bytes


class Reading:
    """The answers that a connection gives, as of the beginning of its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._queries = queries()

    def answer(self, request: Request[Any]) -> Any:
        """The answer to a request that writes nothing."""
        return _ANSWERS[type(request)](self, request)

    # Heads

    def heads(self) -> tuple[int, int]:
        """The newest position and the newest revision."""
        position, revision = self._execute(self._queries.heads).fetchone()
        return position, revision

    def head(self, stream: str) -> Head:
        """What there is of a stream."""
        found = self._execute(self._queries.stream, (stream,)).fetchone()
        return _NO_STREAM if found is None else Head(*found)

    def revision_of(self, key: str) -> int:
        """The revision of a key, 0 if it is absent."""
        found = self._execute(self._queries.revision, (key,)).fetchone()
        return 0 if found is None else int(found[0])

    def position_of(self, stream: int, seq: int) -> int:
        """The position of an event that is there."""
        (position,) = self._execute(self._queries.position_of, (stream, seq)).fetchone()
        return int(position)

    def newest(self, request: Wait | KvWait) -> int:
        """The newest position, or revision, under the prefix of a wait."""
        if type(request) is KvWait:
            return self._newest_revision(request)
        if not request.prefix:
            position, _ = self.heads()
            return position
        prefix = request.prefix
        rows = self._execute(self._queries.newest_names, (request.after, LOOKED_AT))
        found: int | None = next((position for position, name in rows if name.startswith(prefix)), None)
        if found is None:
            return self._number(self._queries.newest_under, range_of(prefix))
        return max(found, self._number(self._queries.newest_dropped, range_of(prefix)))

    def _newest_revision(self, request: KvWait) -> int:
        if not request.prefix:
            return self.heads()[1]
        names = range_of(request.prefix)
        deleted = self._number(self._queries.newest_deletion_under, names)
        rows = self._execute(self._queries.newest_keys, (max(request.after, deleted), LOOKED_AT))
        found: int | None = next((revision for revision, key in rows if key.startswith(request.prefix)), None)
        if found is None and deleted <= request.after:
            found = self._number(self._queries.newest_put_under, names)
        return max(deleted, found or 0)

    def changed_since(self, position: int, revision: int) -> tuple[dict[str, int], dict[str, int]]:
        """The streams and the keys that were changed since, and the newest number of each; of many, the newest ones."""
        streams: dict[str, int] = {}
        for newest, name in self._execute(self._queries.newest_names, (position, -1)):
            streams.setdefault(name, newest)
        keys: dict[str, int] = {}
        for query in (self._queries.newest_keys, self._queries.newest_deletions):
            for newest, key in self._execute(query, (revision, -1)):
                keys[key] = max(newest, keys.get(key, 0))
        return streams, keys

    def _number(self, query: str, parameters: Sequence[Any]) -> int:
        (number,) = self._execute(query, parameters).fetchone()
        return int(number)

    # Streams

    def _last_seq(self, request: LastSeq) -> int:
        return self.head(request.stream).last_seq

    def _read(self, request: Read) -> Page:
        head = self.head(request.stream)
        if not head.id:
            return Page([], request.after, 0)
        low, high, next_seq, hole = page_range(request, head.dropped, head.last_seq)
        rows = self._execute(self._queries.events_of_stream, (head.id, low, high)).fetchall()
        events = [codec.decode_event(event) for (event,) in rows]
        if request.backwards:
            events.reverse()
        return Page(events, next_seq, head.last_seq, hole)

    def _names(self, request: Streams) -> list[str]:
        return [name for (name,) in self._page_of(self._queries.names, request)]

    # All streams

    def _read_all(self, request: ReadAll) -> Page:
        head, _ = self.heads()
        until = max(request.last_position(head), request.after)
        found = list(islice(self._wanted(request, until), request.limit + 1)) if until > request.after else []
        next_position = request.after if request.backwards else until
        if len(found) > request.limit:
            del found[request.limit :]
            next_position = found[-1][0] - 1 if request.backwards else found[-1][0]
        hole = self._hole(request) if until > request.after else None
        return Page([codec.decode_event(event) for _, event in found], next_position, head, hole)

    def _wanted(self, request: ReadAll, until: int) -> Iterator[tuple[int, bytes]]:
        """The events that are asked for, in order, with their positions; perhaps more than a page."""
        if request.prefix:
            return self._under_prefix(request, until)
        suffix = "_backwards" if request.backwards else ""
        parameters = {"after": request.after, "until": until, "limit": request.limit + 1}
        if request.types is None:
            return iter(self._execute(getattr(self._queries, f"page_of_all{suffix}"), parameters).fetchall())
        query = getattr(self._queries, f"page_of_types{suffix}")
        return iter(self._execute(query, {**parameters, "types": json.dumps(request.types)}).fetchall())

    def _under_prefix(self, request: ReadAll, until: int) -> Iterator[tuple[int, bytes]]:
        after, types = request.after, request.types
        names = range_of(request.prefix)
        # As in `interpreters.stores.merging`: where many streams match, the log is looked at for a while first. Whether
        # they are enough for that is asked only where the first look has not found a whole page.
        looked_at, places = 0, request.limit + 1
        if self._number(self._queries.count_under, (*names, FEW + 1)) > FEW:
            query = self._queries.rows_of_all_backwards if request.backwards else self._queries.rows_of_all
            while looked_at < places:
                block = min(places - looked_at, max(looked_at, request.limit + 1))
                rows = self._execute(query, (after, until, block)).fetchall()
                for position, name, event_type, event in rows:
                    if name.startswith(request.prefix) and (types is None or event_type in types):
                        yield position, event
                if len(rows) < block:
                    return
                # From there on.
                after, until = (after, rows[-1][0] - 1) if request.backwards else (rows[-1][0], until)
                if not looked_at:
                    places = self._places_to_scan(request, names)
                looked_at += block
        first, end = names
        found = self._execute(self._queries.streams_under, {"first": first, "end": end, "after": after}).fetchall()
        sequences = [_StreamRows(self._execute, *one) for one in found]
        backwards = bool(request.backwards)
        for row in merged(sequences, itemgetter(0), after, until, backwards=backwards):
            if types is None or row.type in types:
                yield row.position, row.event

    def _places_to_scan(self, request: ReadAll, names: tuple[str, str]) -> int:
        places = isqrt(2 * request.limit * self._number(self._queries.count_streams, ()))
        return places if self._number(self._queries.count_under, (*names, places + 1)) > places else 0

    def _hole(self, request: ReadAll) -> Hole | None:
        found = self._execute(self._queries.hole, (*range_of(request.prefix), request.after)).fetchone()
        return None if found is None else Hole(found[0], found[1] + 1)

    # Keys

    def _get(self, request: KvGet) -> Entry | None:
        found = self._execute(self._queries.entry, (request.key,)).fetchone()
        return None if found is None else Entry(codec.decode(found[1]), found[0])

    def _has(self, request: KvHas) -> bool:
        return self.revision_of(request.key) > 0

    def _keys(self, request: KvKeys) -> list[str]:
        return [key for (key,) in self._page_of(self._queries.keys, request)]

    def _entries(self, request: KvEntries) -> list[tuple[str, Entry]]:
        rows = self._page_of(self._queries.entries, request)
        return [(key, Entry(codec.decode(value), revision)) for key, value, revision in rows]

    def _page_of(self, query: str, request: Streams | KvKeys | KvEntries) -> Iterable[Any]:
        first, end = range_of(request.prefix)
        bounds = {"first": first, "end": end, "after": request.after, "limit": request.limit}
        return self._execute(query, bounds).fetchall()


class _StreamRows(Sequence[_Row]):
    """The rows of one stream by their places in it, read in blocks as they are asked for."""

    def __init__(self, execute: Any, stream: int, first_seq: int, last_seq: int) -> None:
        self._execute = execute
        self._stream = stream
        self._first_seq = first_seq
        self._count = last_seq + 1 - first_seq
        self._rows: dict[int, _Row] = {}
        self._last = -2

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> _Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_Row]: ...
    def __getitem__(self, index: int | slice) -> _Row | Sequence[_Row]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        row = self._rows.get(index)
        if row is None:
            # Whoever looks for a place reads single rows; whoever goes on from one row to the next, blocks.
            step = index - self._last
            query = queries().rows_of_stream_backwards if step == -1 else queries().rows_of_stream
            limit = _BLOCK if abs(step) == 1 else 1
            rows = self._execute(query, (self._stream, self._first_seq + index, limit)).fetchall()
            self._rows = {seq - self._first_seq: _Row(*rest) for seq, *rest in rows}
            row = self._rows[index]
        self._last = index
        return row


_ANSWERS: dict[type[Request[Any]], Any] = {
    Read: Reading._read,
    ReadAll: Reading._read_all,
    LastSeq: Reading._last_seq,
    Streams: Reading._names,
    KvGet: Reading._get,
    KvHas: Reading._has,
    KvKeys: Reading._keys,
    KvEntries: Reading._entries,
}
