"""A whole store as JSON Lines, on any store, and back into an empty one. Every value comes back the same, to the bit.

The first line says what the file is; then come the events in the order of their positions, the streams, the
keys, and a last line that counts them, so that a file that was cut is refused::

    {"format": "persist-effects", "version": 1, "head": 17}
    {"event": ["orders/1", 3, "placed", 1700000000000000, {"total": 12}, null], "position": 17}
    {"stream": "orders/1", "dropped": 2, "last_seq": 3}
    {"key": "color", "value": "red", "revision": 4}
    {"end": {"events": 1, "streams": 1, "keys": 1}}

An event is its stream, sequence number, type, time, data and meta. ``dropped`` is the sequence number through which
a stream was truncated. Values stand as `persist_effects.json_values` writes them.

What requests cannot choose is given anew on import: positions (their order is kept) and revisions. A truncated
stream begins after the events that were dropped, which takes one position.

Positions that the store holds itself are translated: the checkpoint of a follower comes to stand behind the events
that it stood behind. ``head`` is the position of the newest event that the store ever had: who had passed that has
seen all. Where events were dropped ahead of a follower, or just behind it, it may meet their places, and say so by
`Truncated`; it never passes over an event, and never gets one twice. A snapshot that names no stream may be of all
streams, and then holds a position too: where that is another one now, it is refused.

Export gives the events up to the position that was the newest when it began; keys and streams as they are when it
comes to them. Of a store that is written meanwhile, export a backup, or a store opened with ``mode=r``
when nothing is written.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import msgspec

from interpreters.runtime.store import Store
from persist_effects import log
from persist_effects.codec import encode
from persist_effects.errors import InvalidRequest, Truncated, repr_of
from persist_effects.event import Draft, Event, check_integer, check_items
from persist_effects.following.records import positions_in
from persist_effects.json_values import decode_line, from_json, to_json
from persist_effects.machine import perform
from persist_effects.requests import (
    Append,
    Appended,
    Conflict,
    Entry,
    KvEntries,
    KvKeys,
    KvPut,
    Read,
    Streams,
    Transact,
    Write,
)

FORMAT, VERSION = "persist-effects", 1

Progress = Callable[[int, int], None]
"""Told now and then how many events were done, and how many there are: 0 where that is not known."""

_BATCH_LINES = 256
_BATCH_BYTES = 1024 * 1024
_NO_LIMIT_BYTES = 2**63
_FIELDS = {
    "event": ("event", "position"),
    "stream": ("stream", "dropped", "last_seq"),
    "key": ("key", "value", "revision"),
    "end": ("end",),
}
_encode_line = msgspec.json.Encoder().encode


class Counts(msgspec.Struct):
    """How many of each there are."""

    events: int = 0
    streams: int = 0
    keys: int = 0


# Export


def export(store: Store, out: BinaryIO, progress: Progress | None = None) -> Counts:
    """Write all that a store holds as lines to a binary file.

    Args:
        store: The store.
        out: The file.
        progress: Told now and then how many events were done, and how many there are.

    Returns:
        How many events, streams and keys were written.

    Raises:
        Truncated: If events were dropped before they were read.
        StoreUnavailable: If the store cannot be asked, or does not show all that it has acknowledged.

    >>> import io
    >>> from interpreters import open_store
    >>> store, out = open_store("memory:"), io.BytesIO()
    >>> _ = store.run(log.append("orders/1", "placed", {"total": 12}, at=0))
    >>> export(store, out).events
    1
    >>> print(out.getvalue().decode().splitlines()[1])
    {"event":["orders/1",1,"placed",0,{"total":12},null],"position":1}
    """
    counts = Counts()
    seen: dict[str, int] = {}
    store.wait_for_order()
    head = store.run(log.head())
    _write(out, {"format": FORMAT, "version": VERSION, "head": head})
    position = 0
    while position < head:
        page = store.run(log.page_all(position))
        for event in page.events:
            if event.position <= head:
                _check_next(event, seen)
                out.write(event_line(event))
                counts.events += 1
        position = page.next
        if progress is not None:
            progress(min(position, head), head)
    _export_streams(store, out, seen, counts)
    _export_keys(store, out, counts)
    _write(out, {"end": msgspec.to_builtins(counts)})
    return counts


def event_line(event: Event) -> bytes:
    r"""The line of an event.

    Args:
        event: The event.

    Returns:
        The line, with its end.

    >>> event_line(Event("orders/1", 1, "placed", 0, {"total": 12}, 7))
    b'{"event":["orders/1",1,"placed",0,{"total":12},null],"position":7}\n'
    """
    fields = [event.stream, event.seq, event.type, to_json(event.at), to_json(event.data), to_json(event.meta)]
    return _encode_line({"event": fields, "position": event.position}) + b"\n"


def _check_next(event: Event, seen: dict[str, int]) -> None:
    before = seen.get(event.stream)
    if before is not None and event.seq != before + 1:
        raise Truncated(event.stream, event.seq)
    seen[event.stream] = event.seq


def _export_streams(store: Store, out: BinaryIO, seen: dict[str, int], counts: Counts) -> None:
    after = ""
    while names := store.run(perform(Streams("", after))):
        for name in names:
            page = store.run(perform(Read(name, limit=1)))
            dropped = page.hole.first_left - 1 if page.hole is not None else 0
            # What was appended since the export began is not in it.
            last_seq = seen.get(name, dropped)
            if last_seq:
                _write(out, {"stream": name, "dropped": min(dropped, last_seq), "last_seq": last_seq})
                counts.streams += 1
        after = names[-1]


def _export_keys(store: Store, out: BinaryIO, counts: Counts) -> None:
    for key, entry in entries_of(store):
        _write(out, {"key": key, "value": to_json(entry.value), "revision": entry.revision})
        counts.keys += 1


def entries_of(store: Store) -> Iterator[tuple[str, Entry]]:
    """All entries of a store in the order of their keys, of which a page is in memory at a time.

    Args:
        store: The store.

    Returns:
        Each key and its entry.
    """
    after = ""
    while page := store.run(perform(KvEntries("", after))):
        yield from page
        after = page[-1][0]


def _write(out: BinaryIO, line: dict[str, Any]) -> None:
    out.write(_encode_line(line) + b"\n")


# Import


def import_(
    store: Store, lines: Iterable[bytes], progress: Progress | None = None, *, skip: Collection[str] = ()
) -> Counts:
    """Write what `export` wrote into an empty store.

    Args:
        store: The store.
        lines: The lines. A binary file gives its own.
        progress: Told now and then how many events were done.
        skip: Keys to leave out.

    Returns:
        How many events, streams and keys were written.

    Raises:
        InvalidRequest: If the store is not empty, before anything is written. If a line is wrong, by its number: the
            store then holds what came before it, and is to be thrown away.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> import_(store, [b'{"format":"persist-effects","version":1}', b'{"key":"color","value":"red"}'])
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: line 2: the file ends without its last line, {"end": ...}: it was cut
    """
    check_empty(store, "the store", "import into an empty store")
    importer = _Importer(store, progress, check_items("skip", skip, "a list of keys"))
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            importer.take(line)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"line {number}: {error}") from error
    if not importer.has_ended:
        raise InvalidRequest(f'line {number}: the file ends without its last line, {{"end": ...}}: it was cut')
    return importer.counts


def check_empty(store: Store, called: str, advice: str) -> None:
    """Refuse a store in which anything stands.

    Args:
        store: The store that is to be filled.
        called: What the error calls it.
        advice: What to do where there is something.

    Raises:
        InvalidRequest: If it has a stream or a key.
    """
    for what, request in (("stream", Streams(limit=1)), ("key", KvKeys(limit=1))):
        for name in store.run(perform(request)):
            raise InvalidRequest(f"{called} has {what} {name!r}: {advice}")


class _Positions:
    """Which position each event had, and which it has now. Both only grow, so runs of them are kept."""

    def __init__(self) -> None:
        self.head: int | None = None
        """Where the store that was exported ended, if that is told."""
        self.last = 0
        self._before = array("q")
        self._now = array("q")
        self._counts = array("q")

    def add(self, before: int, now: int) -> None:
        """Take note of the next event."""
        if self._counts and (before, now) == (self.last + 1, self._now[-1] + self._counts[-1]):
            self._counts[-1] += 1
        else:
            self._before.append(before)
            self._now.append(now)
            self._counts.append(1)
        self.last = before

    def translated(self, position: int, newest: int) -> int:
        """Where who stood at a position stands now; ``newest`` is where the store ends now.

        That is behind the newest event at or below it, and right before the next one where nothing lies between.
        """
        if self.head is not None and position >= self.head:
            return newest
        run = bisect_right(self._before, position) - 1
        if run + 1 < len(self._before) and position == self._before[run + 1] - 1:
            return self._now[run + 1] - 1
        if run < 0:
            return 0
        return self._now[run] + min(position - self._before[run], self._counts[run] - 1)


class _Importer:
    """Takes lines in order. Writes wait until there are some for one transaction."""

    def __init__(self, store: Store, progress: Progress | None, skip: Collection[str]) -> None:
        self._store = store
        self._progress = progress
        self._skip = frozenset(skip)
        self._positions = _Positions()
        # The positions that the events which wait had, and the streams that had their line.
        self._waiting_positions: list[int] = []
        self._last_position = 0
        self._are_positions_told = True
        self._told_streams: set[str] = set()
        self._last_seqs: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._appends: list[tuple[str, int, list[Draft]]] = []
        self._puts: list[KvPut] = []
        self._waiting_lines = 0
        self._waiting_bytes = 0
        self._has_begun = False
        self.has_ended = False
        self.counts = Counts()
        self._takers: dict[str, Callable[[dict[str, Any]], None]] = {
            "event": self._take_event,
            "stream": self._take_stream,
            "key": self._take_key,
            "end": self._take_end,
        }

    def take(self, line: bytes) -> None:
        """Take the next line."""
        fields = decode_line(line)
        if not isinstance(fields, dict):
            raise InvalidRequest("expected a JSON object")
        if not self._has_begun:
            self._take_beginning(fields)
            return
        if self.has_ended:
            raise InvalidRequest("there is more after the last line")
        kind = next(iter(fields), "")
        taker = self._takers.get(kind)
        if taker is None:
            raise InvalidRequest(f"expected an object that begins with one of {', '.join(self._takers)}, not {kind!r}")
        for name in fields.keys() - _FIELDS[kind]:
            raise InvalidRequest(f"the line has {name!r}: beside {kind!r} stand only {', '.join(_FIELDS[kind])}")
        taker(fields)
        self._waiting_lines += 1
        self._waiting_bytes += len(line)
        if self._waiting_lines >= _BATCH_LINES or self._waiting_bytes >= _BATCH_BYTES:
            self._flush()

    def _take_beginning(self, fields: dict[str, Any]) -> None:
        if fields.get("format") != FORMAT:
            raise InvalidRequest(f'expected {{"format": "{FORMAT}", "version": {VERSION}}}')
        if fields.get("version") != VERSION:
            raise InvalidRequest(f"the file has version {repr_of(fields.get('version'))}, this program reads {VERSION}")
        head = fields.get("head")
        if head is not None:
            check_integer("head", head)
        self._positions.head = head
        self._has_begun = True

    def _take_event(self, fields: dict[str, Any]) -> None:
        parts = fields["event"]
        if not isinstance(parts, list) or len(parts) != 6:
            raise InvalidRequest("an event is [stream, seq, type, at, data, meta]")
        stream, seq, event_type, at, data, meta = parts
        draft = Draft(event_type, _storable(data, "data"), from_json(at), _storable(meta, "meta"))
        if draft.at is None:
            raise InvalidRequest("the event has no time")
        Append(stream, (draft,))
        last_seq = self._last_seqs.get(stream)
        if type(seq) is not int or seq < 1 or (last_seq is not None and seq != last_seq + 1):
            expected = "a sequence number from 1" if last_seq is None else last_seq + 1
            raise InvalidRequest(f"stream {stream!r}: expected {expected}, found {repr_of(seq)}")
        if last_seq is None and seq > 1:
            self._truncate(stream, seq - 1)
        self._take_position(fields)
        self._last_seqs[stream] = seq
        if not self._appends or self._appends[-1][0] != stream:
            self._appends.append((stream, seq - 1, []))
        self._appends[-1][2].append(draft)
        self.counts.events += 1

    def _take_position(self, fields: dict[str, Any]) -> None:
        """Take note of where an event stood. Without that it can be imported, but no follower beside it."""
        position = fields.get("position")
        if position is None:
            self._are_positions_told = False
            return
        check_integer("position", position, self._last_position + 1)
        self._last_position = position
        self._waiting_positions.append(position)

    def _take_stream(self, fields: dict[str, Any]) -> None:
        stream, dropped, last_seq = fields["stream"], fields.get("dropped"), fields.get("last_seq")
        if type(dropped) is not int or type(last_seq) is not int or not 0 <= dropped <= last_seq:
            found = f"{repr_of(dropped)} and {repr_of(last_seq)}"
            raise InvalidRequest(f"expected 0 <= dropped <= last_seq, found {found}")
        Read(stream)
        if stream in self._told_streams:
            raise InvalidRequest(f"stream {stream!r} has two lines")
        self._told_streams.add(stream)
        if stream not in self._last_seqs and dropped == last_seq > 0:
            self._truncate(stream, dropped)
            self._last_seqs[stream] = dropped
        if self._last_seqs.get(stream) != last_seq:
            raise InvalidRequest(
                f"stream {stream!r}: expected events up to {last_seq}, found {self._last_seqs.get(stream, 0)}"
            )
        if dropped > self._dropped.get(stream, 0):
            # It was truncated while it was exported.
            self._flush()
            self._store.run(log.truncate_through(stream, dropped, unseen="drop"))
        self.counts.streams += 1

    def _take_key(self, fields: dict[str, Any]) -> None:
        if "value" not in fields:
            raise InvalidRequest("the key has no value")
        value = _storable(fields["value"], "value")
        # It must not be there, so that a key with two lines is found.
        put = KvPut(fields["key"], value, 0)
        self.counts.keys += 1
        if put.key not in self._skip:
            # First, because it may write what waits, the keys among it.
            value = self._with_positions_of_now(put.key, value)
            self._puts.append(KvPut(put.key, value, 0))

    def _with_positions_of_now(self, key: str, value: Any) -> Any:
        """A key's value, in which positions that this package has put there are those of the store that is written."""
        if key.startswith("snapshot/"):
            self._check_snapshot(key, value)
        positions = {name: before for name, before in positions_in(key, value).items() if before >= 1}
        now = {name: self._position_now(key, before) for name, before in positions.items()}
        return {**value, **now} if now else value

    def _check_snapshot(self, key: str, value: Any) -> None:
        """Refuse what may hold a position that cannot be told from a sequence number."""
        if not isinstance(value, dict) or value.get("stream") is not None:
            return
        before = value.get("seq")
        if type(before) is int and before >= 1 and self._position_now(key, before) != before:
            raise InvalidRequest(
                f"key {key!r} is a snapshot up to {before} that names no stream: if it is of all streams, that is a "
                f"position, and another one here. Where it is of one stream, write it again in the old store with "
                f"`stream=...`, and export again; where its events are all there, leave it out: skip=[{key!r}]"
            )

    def _position_now(self, key: str, before: int) -> int:
        if not self._are_positions_told:
            raise InvalidRequest(
                f"key {key!r} holds position {before}, and the lines of the events do not say theirs, so it cannot be "
                f"translated: export again, or leave it out: skip=[{key!r}]"
            )
        if self._appends:
            self._flush()
        self._store.wait_for_order()
        return self._positions.translated(before, self._store.run(log.head()))

    def _take_end(self, fields: dict[str, Any]) -> None:
        self._flush()
        if fields["end"] != msgspec.to_builtins(self.counts):
            found = msgspec.to_builtins(self.counts)
            expected = repr_of(fields["end"])
            raise InvalidRequest(f"expected {expected}, found {found!r}: lines are missing, or there twice")
        self.has_ended = True

    def _truncate(self, stream: str, seq: int) -> None:
        """Make a stream that has lost its events through ``seq``."""
        self._flush()
        _check_alone(self._store.run(log.begin(stream, seq)))
        self._dropped[stream] = seq

    def _flush(self) -> None:
        """Write what waits, all in one transaction."""
        appends = [Append(stream, tuple(drafts), last) for stream, last, drafts in self._appends]
        writes: tuple[Write, ...] = (*appends, *self._puts)
        if writes:
            try:
                answers = _check_alone(self._store.run(perform(Transact(writes))))
            except InvalidRequest as error:
                raise InvalidRequest(f"in this line or one of {self._waiting_lines} before it: {error}") from error
            self._take_positions(answers[: len(appends)])
            if self._progress is not None:
                self._progress(self.counts.events, 0)
        self._appends, self._puts, self._waiting_positions = [], [], []
        self._waiting_lines = self._waiting_bytes = 0

    def _take_positions(self, answers: Sequence[Appended]) -> None:
        if self._are_positions_told:
            # The events of one append have consecutive positions.
            now = [
                answer.position - answer.last_seq + seq
                for answer in answers
                for seq in range(answer.first_seq, answer.last_seq + 1)
            ]
            for before, after in zip(self._waiting_positions, now, strict=True):
                self._positions.add(before, after)


def _check_alone(answer: Any) -> Any:
    """Refuse what conflicts: the store was empty, so either a line stands twice, or another program writes to it."""
    if isinstance(answer, Conflict):
        raise InvalidRequest(
            f"{answer.name!r} is at {answer.actual}, expected {answer.expected}: it has two lines, or another "
            "program writes to this store: import into a store of its own"
        )
    return answer


def _storable(plain: Any, what: str) -> Any:
    """A value from a line, refused here if no store would take it, where the line's number is still known."""
    value = from_json(plain)
    encode(value, what, _NO_LIMIT_BYTES)
    return value
