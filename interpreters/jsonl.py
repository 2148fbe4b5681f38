"""A whole store as JSON Lines, on any store, and back into an empty one. Every value comes back the same, to the bit.

The first line says what the file is; then come the events in the order of their positions, the streams, the
keys, and a last line that counts them, so that a file that was cut is refused::

    {"format": "persist-effects", "version": 1}
    {"event": ["orders/1", 3, "placed", 1700000000000000, {"total": 12}, null], "position": 17}
    {"stream": "orders/1", "dropped": 2, "last_seq": 3}
    {"key": "color", "value": "red", "revision": 4}
    {"end": {"events": 1, "streams": 1, "keys": 1}}

An event is its stream, sequence number, type, time, data and meta. ``dropped`` is the sequence number through which
a stream was truncated. Values stand as `persist_effects.json_values` writes them.

What requests cannot choose is given anew on import: positions (their order is kept) and revisions. A truncated
stream gets events of the type ``truncated`` in the place of those that were dropped, which are then truncated.

Export gives the events up to the position that was the newest when it began; keys and streams as they are when it
comes to them. Of a store that is written meanwhile, export a backup, or a store opened with ``mode=r``
when nothing is written.
"""

from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import msgspec

from interpreters.store import Store
from persist_effects import log
from persist_effects.codec import encode
from persist_effects.errors import InvalidRequest, Truncated
from persist_effects.event import Draft, Event
from persist_effects.json_values import from_json, to_json
from persist_effects.machine import Effect, all_of, perform
from persist_effects.requests import Append, Entry, KvGet, KvKeys, KvPut, Read, Streams, Transact, Write

FORMAT, VERSION = "persist-effects", 1

Progress = Callable[[int, int], None]
"""Told now and then how many events were done, and how many there are: 0 where that is not known."""

_BATCH_LINES = 256
_BATCH_BYTES = 1024 * 1024
_PLACEHOLDERS = 1000
_NO_LIMIT_BYTES = 2**63
_encode_line = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder().decode


class Counts(msgspec.Struct):
    """How many of each there are."""

    events: int = 0
    streams: int = 0
    keys: int = 0


# Export


def export(store: Store, out: BinaryIO, progress: Progress | None = None) -> Counts:
    """Write all that a store holds as lines to a binary file.

    Raises `Truncated` where events were dropped before they were read.

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
    _write(out, {"format": FORMAT, "version": VERSION})
    head = store.run(log.read_all(limit=1)).head
    position = 0
    while position < head:
        page = store.run(log.read_all(position))
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
    after = ""
    while keys := store.run(perform(KvKeys("", after))):
        entries: tuple[Entry | None, ...] = store.run(all_of(*(KvGet(key) for key in keys)))
        for key, entry in zip(keys, entries, strict=True):
            if entry is not None:
                _write(out, {"key": key, "value": to_json(entry.value), "revision": entry.revision})
                counts.keys += 1
        after = keys[-1]


def _write(out: BinaryIO, line: dict[str, Any]) -> None:
    out.write(_encode_line(line) + b"\n")


# Import


def import_(store: Store, lines: Iterable[bytes], progress: Progress | None = None) -> Counts:
    """Write what `export` wrote into an empty store. A binary file gives its lines.

    Raises `InvalidRequest` for a store that is not empty, before anything is written, and for a line that is wrong, by
    its number; the store then holds what came before it, and is to be thrown away.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> import_(store, [b'{"format":"persist-effects","version":1}', b'{"key":"color","value":"red"}'])
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: line 2: the file ends without its last line, {"end": ...}: it was cut
    """
    store.run(_check_empty())
    importer = _Importer(store, progress)
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            importer.take(line)
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequest(f"line {number}: {error}") from error
    if not importer.has_ended:
        raise InvalidRequest(f'line {number}: the file ends without its last line, {{"end": ...}}: it was cut')
    return importer.counts


def _check_empty() -> Effect[None]:
    streams = yield from perform(Streams(limit=1))
    keys = yield from perform(KvKeys(limit=1))
    if streams or keys:
        found = f"stream {streams[0]!r}" if streams else f"key {keys[0]!r}"
        raise InvalidRequest(f"the store has {found}: import into an empty store")


class _Importer:
    """Takes lines in order. Writes wait until there are some for one transaction."""

    def __init__(self, store: Store, progress: Progress | None) -> None:
        self._store = store
        self._progress = progress
        self._last_seqs: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._appends: list[tuple[str, list[Draft]]] = []
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
        fields = _decode_line(line)
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
        taker(fields)
        self._waiting_lines += 1
        self._waiting_bytes += len(line)
        if self._waiting_lines >= _BATCH_LINES or self._waiting_bytes >= _BATCH_BYTES:
            self._flush()

    def _take_beginning(self, fields: dict[str, Any]) -> None:
        if fields.get("format") != FORMAT:
            raise InvalidRequest(f'expected {{"format": "{FORMAT}", "version": {VERSION}}}')
        if fields.get("version") != VERSION:
            raise InvalidRequest(f"the file has version {fields.get('version')!r}, this program reads {VERSION}")
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
            raise InvalidRequest(f"stream {stream!r}: expected {expected}, found {seq!r}")
        if last_seq is None and seq > 1:
            self._truncate(stream, seq - 1)
        self._last_seqs[stream] = seq
        if not self._appends or self._appends[-1][0] != stream:
            self._appends.append((stream, []))
        self._appends[-1][1].append(draft)
        self.counts.events += 1

    def _take_stream(self, fields: dict[str, Any]) -> None:
        stream, dropped, last_seq = fields["stream"], fields.get("dropped"), fields.get("last_seq")
        if type(dropped) is not int or type(last_seq) is not int or not 0 <= dropped <= last_seq:
            raise InvalidRequest(f"expected 0 <= dropped <= last_seq, found {dropped!r} and {last_seq!r}")
        Read(stream)
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
            self._store.run(log.truncate_through(stream, dropped))
        self.counts.streams += 1

    def _take_key(self, fields: dict[str, Any]) -> None:
        if "value" not in fields:
            raise InvalidRequest("the key has no value")
        self._puts.append(KvPut(fields["key"], _storable(fields["value"], "value")))
        self.counts.keys += 1

    def _take_end(self, fields: dict[str, Any]) -> None:
        self._flush()
        if fields["end"] != msgspec.to_builtins(self.counts):
            found = msgspec.to_builtins(self.counts)
            raise InvalidRequest(f"expected {fields['end']!r}, found {found!r}: lines are missing, or there twice")
        self.has_ended = True

    def _truncate(self, stream: str, seq: int) -> None:
        """Make a stream that has lost its events through ``seq``."""
        self._flush()
        draft = Draft("truncated", None, at=0)
        for start in range(0, seq, _PLACEHOLDERS):
            self._store.run(log.append_many(stream, [draft] * min(_PLACEHOLDERS, seq - start)))
        self._store.run(log.truncate_through(stream, seq))
        self._dropped[stream] = seq

    def _flush(self) -> None:
        """Write what waits, all in one transaction."""
        appends = [Append(stream, tuple(drafts)) for stream, drafts in self._appends]
        writes: tuple[Write, ...] = (*appends, *self._puts)
        if writes:
            try:
                self._store.run(perform(Transact(writes)))
            except InvalidRequest as error:
                raise InvalidRequest(f"in this line or one of {self._waiting_lines} before it: {error}") from error
            if self._progress is not None:
                self._progress(self.counts.events, 0)
        self._appends, self._puts = [], []
        self._waiting_lines = self._waiting_bytes = 0


def _storable(plain: Any, what: str) -> Any:
    """A value from a line, refused here if no store would take it, where the line's number is still known."""
    value = from_json(plain)
    encode(value, what, _NO_LIMIT_BYTES)
    return value
