"""A checkpoint: how far a follower, or a partition of a group, has come. It is moved only by who knows it as it is.

So whoever is late writes nothing: a transaction of its carries the revision that the checkpoint had, and meets a
conflict. A group's also carries that of the follower itself, so that all its members learn of what is changed there.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from persist_effects import kv
from persist_effects.following.records import (
    Aside,
    Partition,
    Reached,
    Record,
    aside_key,
    asides_prefix,
    head_key,
    kept_in,
    parts_prefix,
    plain,
    record_in,
)
from persist_effects.machine import Effect, perform
from persist_effects.requests import Check, Conflict, KvPut, Transact, Write

P = TypeVar("P", bound=Reached)

CHECKPOINT = 0
"""Which of the writes of a follower's transaction is its checkpoint."""


class Checkpoint(Generic[P]):
    """What is kept under a key, as it was read or written last, and the revision that says so; 0: nothing is yet.

    Args:
        name: The follower's name.
        generation: The number of its way through the events.
        key: Where it is kept.
        record: What is kept.
        revision: Of what is kept.
        checks: What must still be so when it is moved.
        covers: Whether a stream is one of its own; unless given, each is.
    """

    def __init__(
        self,
        name: str,
        generation: int,
        key: str,
        record: P,
        revision: int,
        *,
        checks: tuple[Check, ...] = (),
        covers: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.name = name
        self.generation = generation
        self.key = key
        self.position = record.position
        """Through which position events took effect."""
        self.revision = revision
        self._checks = checks
        self._covers = covers
        self._asides: dict[str, tuple[Aside, int]] | None = None
        # By stream: the first event that was left where it was counted what was dropped.
        self._counted: dict[str, int] = {}
        self._keep(record)

    def _keep(self, record: P) -> None:
        self._record = record
        # It is put again and again, and nothing but the position changes.
        self._plain = plain(record)

    @property
    def record(self) -> P:
        """What is kept."""
        return msgspec.structs.replace(self._record, position=self.position)

    @property
    def has_asides(self) -> bool:
        """Whether events of any stream were set aside."""
        return bool(self._record.aside)

    def advance(self, position: int, writes: Sequence[Write] = (), **changes: Any) -> Effect[list[Any] | Conflict]:
        """Move it, in one transaction with these writes, whose answers follow its own.

        A conflict: nothing is written, and it is to be read again.
        """
        assert position >= self.position, "events would take effect again"
        record = msgspec.structs.replace(self._record, **changes) if changes else None
        put = KvPut(
            self.key, {**(self._plain if record is None else plain(record)), "position": position}, self.revision
        )
        answers = yield from perform(Transact((put, *writes), self._checks))
        if not isinstance(answers, Conflict):
            self.position, self.revision = position, answers[CHECKPOINT]
            if record is not None:
                self._keep(record)
        return answers

    def has_counted(self, stream: str, first_left: int) -> bool:
        """Whether it is counted what a stream has lost before this event."""
        return self._counted.get(stream) == first_left

    def count_missed(self, stream: str, first_left: int) -> None:
        """Say that a stream's events before this one were dropped unseen, as far as they are not counted yet.

        It is kept when the checkpoint is moved next.
        """
        more = first_left - self._counted.get(stream, 1)
        self._counted[stream] = first_left
        self._keep(msgspec.structs.replace(self._record, missed=self._record.missed + more))

    # What was set aside

    def asides(self) -> Effect[dict[str, tuple[Aside, int]]]:
        """By stream: what was set aside of it, and the revision that says so. Read once, and noted from then on."""
        if self._asides is None and not self.has_asides:
            self._asides = {}
        if self._asides is None:
            found = yield from asides_of(self.name, self.generation)
            self._asides = {stream: aside for stream, aside in found.items() if self._covers(stream)}
        return self._asides

    def note_aside(self, aside: Aside, revision: int) -> None:
        """Something was set aside, or more of it: this is what is kept, and the revision that says so."""
        if self._asides is not None:
            self._asides[aside.stream] = aside, revision

    def note_no_aside(self, stream: str) -> None:
        """Of a stream nothing is set aside any more."""
        if self._asides is not None:
            self._asides.pop(stream, None)

    def aside_key(self, stream: str) -> str:
        """Where it is kept what was set aside of a stream."""
        return aside_key(self.name, self.generation, stream)


def head_of(name: str) -> Effect[tuple[Record, int] | None]:
    """What is kept of a follower, as the version whose effects are seen, and its revision; None: there is none.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(head_of("totals")) is None
    True
    """
    found = yield from kv.entry(head_key(name))
    record = record_in(found, name)
    return None if record is None or found is None else (record, found.revision)


def asides_of(name: str, generation: int) -> Effect[dict[str, tuple[Aside, int]]]:
    """By stream: what a generation of a follower has set aside of it, and the revision that says so.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(asides_of("totals", 1))
    {}
    """
    prefix = asides_prefix(name, generation)
    found: dict[str, tuple[Aside, int]] = {}
    for key, entry in (yield from kv.entries(prefix)):
        if "/" not in key[len(prefix) :]:  # else it is of a follower whose name starts as this one's key
            aside = kept_in(entry, Aside, key)
            found[aside.stream] = aside, entry.revision
    return found


def parts_of(name: str, generation: int) -> Effect[dict[int, tuple[Partition, int]]]:
    """By number: the partitions of a generation that were ever had, and the revisions that say so.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(parts_of("totals", 1))
    {}
    """
    prefix = parts_prefix(name, generation)
    return {
        int(key[len(prefix) :]): (kept_in(entry, Partition, key), entry.revision)
        for key, entry in (yield from kv.entries(prefix))
    }


def extent(name: str, record: Record) -> Effect[tuple[int, int]]:
    """Through which position all of a follower's events took effect, and through which any did.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(extent("totals", Record(position=7)))
    (7, 7)
    """
    if not record.partitions:
        return record.position, record.position
    parts = yield from parts_of(name, record.generation)
    positions = [part.position for part, _ in parts.values()]
    begins = [] if len(positions) == record.partitions else [record.position]
    return min([*positions, *begins]), max([*positions, record.position])
