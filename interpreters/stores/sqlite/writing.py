"""Carrying out the writes of one transaction: each is planned on what those before it have left, and then applied."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from interpreters.stores.group import WriteRequest
from interpreters.stores.sqlite.database import queries
from interpreters.stores.sqlite.foreign import Foreign, Undone
from interpreters.stores.sqlite.guard import Guard
from interpreters.stores.sqlite.reading import Head, Reading
from interpreters.stores.waiting import DELETIONS_KEPT
from persist_effects.planning import Begun, Change, Limits, plan
from persist_effects.requests import Answered, Failed, Outcome

KEPT_HEADS = 10_000
"""Of how many streams, and of how many keys, the heads are kept from one transaction to the next."""


class KnownHeads:
    """What planning asks, from the database where it is not known yet. Of use as long as nobody else has written."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.position, self.revision = reading.heads()
        self._streams: dict[str, Head] = {}
        self._revisions: dict[str, int] = {}

    def stream(self, name: str) -> Head:
        """What there is of a stream."""
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = self._reading.head(name)
        return found

    def last_seq(self, stream: str) -> int:
        """The high-water mark of a stream."""
        return self.stream(stream).last_seq

    def dropped(self, stream: str) -> int:
        """Through which sequence number the events of a stream were dropped."""
        return self.stream(stream).dropped

    def revision_of(self, key: str) -> int:
        """The revision of a key, 0 if it is absent."""
        found = self._revisions.get(key)
        if found is None:
            found = self._revisions[key] = self._reading.revision_of(key)
        return found

    def note(self, name: str, head: Head) -> None:
        """Say what there is of a stream now."""
        self._streams[name] = head

    def took(self, change: Change) -> None:
        """Take in what a change has done to the numbers."""
        self.position, self.revision = change.position, change.revision
        self._revisions |= change.revisions

    def make_room(self) -> None:
        """Forget all where it has become much."""
        if len(self._streams) > KEPT_HEADS:
            self._streams.clear()
        if len(self._revisions) > KEPT_HEADS:
            self._revisions.clear()


ROW_BYTES = 512
"""What is reckoned that a row of a program's statement adds to the write-ahead log: more than most rows take, and less
than the page that each of them may touch. It says when the log is moved into the file."""


class Writing:
    """The writes of one transaction."""

    def __init__(
        self, connection: sqlite3.Connection, heads: KnownHeads, now: int, limits: Limits, guard: Guard
    ) -> None:
        self._foreign = Foreign(connection, guard)
        self._execute = connection.execute
        self._execute_many = connection.executemany
        self._queries = queries()
        self._reading = Reading(connection)
        self._heads = heads
        self._now = now
        self._limits = limits
        self.written_bytes = 0

    def carry_out(self, requests: Sequence[WriteRequest], failed: Mapping[int, Failed]) -> list[Outcome]:
        """The outcomes of these writes, in order. Raises what SQLite, or a lack of memory, ends them by.

        Args:
            requests: The writes.
            failed: Those that are not to be tried again, by their indexes.

        Raises:
            Undone: Where one of them has undone the others, which are to be carried out without it.
        """
        outcomes: list[Outcome] = []
        for index, request in enumerate(requests):
            if index in failed:
                outcomes.append(failed[index])
                continue
            try:
                answer, change = plan(request, self._heads, self._now, self._limits)
                if change is not None and change.statements:
                    # First of all: what they fail by leaves nothing else of the program to be undone.
                    answer = self._carried_out(index, answer, change)
            except (MemoryError, sqlite3.Error, Undone):
                raise
            except Exception as error:
                outcomes.append(Failed(error))
                continue
            if change is not None and not change.is_empty:
                self._apply(change)
            outcomes.append(Answered(answer))
        return outcomes

    def _carried_out(self, program: int, answer: Any, change: Change) -> Any:
        changed = self._foreign.carry_out(program, change.statements)
        self.written_bytes += ROW_BYTES * sum(changed.values())
        if not isinstance(answer, list):
            return changed[0]
        return [changed.get(index, one) for index, one in enumerate(answer)]

    def _apply(self, change: Change) -> None:
        for name, begun in change.begun.items():
            self._begin(name, begun)
        for events, encoded in change.runs:
            self._append(events, encoded)
        for name, seq in change.drops.items():
            self._drop(name, seq)
        if change.begun or change.drops or change.advances:
            self._execute(self._queries.keep_position, (change.position,))
        if change.advances:
            self._execute(self._queries.keep_revision, (change.revision,))
        for key, (value, revision) in change.puts.items():
            self._execute(self._queries.put_entry, (revision, key, value))
            self.written_bytes += len(value)
        for key, revision in change.deleted.items():
            self._execute(self._queries.delete_entry, (key,))
            self._execute(self._queries.add_deletion, (revision, key))
        if change.deleted:
            self._execute(self._queries.forget_deletions, (DELETIONS_KEPT,))
            self._execute(self._queries.drop_forgotten)
        self._heads.took(change)

    def _begin(self, name: str, begun: Begun) -> None:
        seq, position = begun
        cursor = self._execute(self._queries.add_stream, (name, seq, position))
        assert cursor.lastrowid is not None
        self._heads.note(name, Head(cursor.lastrowid, seq, position, seq))

    def _append(self, events: Sequence[Any], encoded: Sequence[bytes]) -> None:
        name = events[0].stream
        head = self._heads.stream(name)
        if not head.id:
            cursor = self._execute(self._queries.add_stream, (name, 0, 0))
            assert cursor.lastrowid is not None
            head = Head(cursor.lastrowid, 0, 0, 0)
        rows = [
            (event.position, head.id, event.seq, event.type, body) for event, body in zip(events, encoded, strict=True)
        ]
        if len(rows) == 1:
            self._execute(self._queries.append_event, rows[0])
        else:
            self._execute_many(self._queries.append_event, rows)
        self.written_bytes += sum(map(len, encoded))
        self._heads.note(name, head._replace(last_seq=events[-1].seq))

    def _drop(self, name: str, seq: int) -> None:
        head = self._heads.stream(name)
        position = self._reading.position_of(head.id, seq)
        self._execute(self._queries.drop_events, (head.id, seq))
        self._execute(self._queries.shorten_stream, (seq, position, head.id))
        self._heads.note(name, head._replace(dropped=seq, dropped_position=position))
