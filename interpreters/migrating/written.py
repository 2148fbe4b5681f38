"""What was written through a mirror: what is to be brought after it, and what of the log is somebody else's."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from persist_effects.errors import InvalidRequest
from persist_effects.event import Event
from persist_effects.requests import (
    Advance,
    Answered,
    Append,
    Appended,
    Begin,
    Conflict,
    Entry,
    KvDelete,
    KvPut,
    Outcome,
    Sql,
    Transact,
    TruncateThrough,
    Write,
)


class WrittenThrough:
    """What one of two stores has acknowledged through a mirror, since a position and a revision of it.

    Any thread may note. Where it is not known whether something was written, it is nobody else's.

    Args:
        position: What is at or below it was there before.
        revision: Likewise.
    """

    def __init__(self, position: int, revision: int) -> None:
        self._position = position
        self._revision = revision
        self._lock = threading.Lock()
        # What is to be brought after them, beside the events.
        self._streams: set[str] = set()
        self._keys: set[str] = set()
        # Events that were acknowledged and not seen in the log yet, and those that were seen there alone.
        self._unseen: defaultdict[str, set[int]] = defaultdict(set)
        self._unknown: dict[tuple[str, int], Event] = {}
        # Streams that were begun or truncated; of keys the newest revision, and those that were deleted.
        self._changed: set[str] = set()
        self._revisions: dict[str, int] = {}
        self._deleted: set[str] = set()
        self._doubtful_streams: set[str] = set()
        self._doubtful_keys: set[str] = set()

    def note(self, request: Write | Transact | Advance, outcome: Outcome) -> None:
        """Note what came of a write.

        Args:
            request: The write.
            outcome: Its outcome.
        """
        if isinstance(request, Advance) or (isinstance(outcome, Answered) and isinstance(outcome.value, Conflict)):
            return
        writes = request.writes if isinstance(request, Transact) else (request,)
        with self._lock:
            if isinstance(outcome, Answered):
                answers = outcome.value if isinstance(request, Transact) else (outcome.value,)
                for write, answer in zip(writes, answers, strict=True):
                    self._note_answer(write, answer)
            elif not isinstance(outcome.error, InvalidRequest):
                for write in writes:
                    self._note_doubt(write)

    def _note_answer(self, write: Write, answer: Any) -> None:
        match write, answer:
            case Append(), Appended():
                for seq in range(answer.first_seq, answer.last_seq + 1):
                    if self._unknown.pop((write.stream, seq), None) is None:
                        self._unseen[write.stream].add(seq)
            case ((TruncateThrough() | Begin()), _):
                self._streams.add(write.stream)
                self._changed.add(write.stream)
            case KvPut(), int():
                self._keys.add(write.key)
                self._revisions[write.key] = max(answer, self._revisions.get(write.key, 0))
            case KvDelete(), _:
                self._keys.add(write.key)
                self._deleted.add(write.key)
            case _:
                raise AssertionError(f"{answer!r} is no answer to {write!r}")

    def _note_doubt(self, write: Write) -> None:
        if isinstance(write, KvPut | KvDelete):
            self._keys.add(write.key)
            self._doubtful_keys.add(write.key)
        elif not isinstance(write, Sql):
            self._streams.add(write.stream)
            self._doubtful_streams.add(write.stream)

    def saw(self, events: Sequence[Event]) -> None:
        """Note what stands in the log.

        Args:
            events: Some events, each of which is given once.
        """
        with self._lock:
            for event in events:
                unseen = self._unseen[event.stream]
                if event.seq in unseen:
                    unseen.discard(event.seq)
                elif event.position > self._position:
                    self._unknown[event.stream, event.seq] = event

    # What is to be brought after them

    def take(self) -> tuple[set[str], set[str]]:
        """The streams that were begun or truncated, and the keys that were changed, since they were taken last."""
        with self._lock:
            taken = self._streams, self._keys
            self._streams, self._keys = set(), set()
        return taken

    def mark(self, streams: Iterable[str], keys: Iterable[str]) -> None:
        """Have these taken, too.

        Args:
            streams: Streams.
            keys: Keys.
        """
        with self._lock:
            self._streams.update(streams)
            self._keys.update(keys)

    # What others have written

    def past_it(self, streams: Iterable[str], keys: Mapping[str, Entry | None]) -> str | None:
        """Who has written past the mirror. Nothing is on its way.

        Args:
            streams: Streams that were not as they were to be.
            keys: Keys that were not as they were to be, and what they hold.

        Returns:
            What, in words; None: nobody.
        """
        with self._lock:
            for (stream, seq), event in self._unknown.items():
                if stream not in self._doubtful_streams:
                    return f"event {seq} of stream {stream!r}, of type {event.type!r} at position {event.position}"
            for name in streams:
                if name not in self._changed | self._doubtful_streams:
                    return f"stream {name!r}, which was begun or truncated"
            for key, entry in keys.items():
                if not self._is_ours(key, entry):
                    return f"key {key!r}, which was {'deleted' if entry is None else 'put'}"
        return None

    def _is_ours(self, key: str, entry: Entry | None) -> bool:
        if key in self._doubtful_keys:
            return True
        if entry is None:
            return key in self._deleted
        return entry.revision <= self._revision or entry.revision == self._revisions.get(key)
