"""What some writes come to as messages that are written together: a pure function of what is known of their names.

The messages of a commit are consecutive, so the number of each is known as soon as that of the last one is. First stand
the checks of what is not written, then for each write its events, then its keys, then its marks.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from interpreters.stores.group import WriteRequest
from interpreters.stores.nats.jetstream import EXPECTED, EXPECTED_OF, ROLLUP, Outgoing
from interpreters.stores.nats.records import Noted, beginning_body, event_body, mark_body, value_body
from interpreters.stores.nats.subjects import EVENTS, GUARDS, KEYS, MARKS, Subjects
from persist_effects import codec
from persist_effects.errors import TooLarge
from persist_effects.event import Event
from persist_effects.planning import Change, Limits, plan
from persist_effects.requests import (
    Advance,
    Append,
    Appended,
    Begin,
    Conflict,
    ExpectSeq,
    KvDelete,
    KvPut,
    Transact,
    TruncateThrough,
    Write,
)

DELETION_SECONDS = 86_400
"""How long a deleted key takes any space. Until then everybody knows when that was, afterwards only about."""


class SubjectHead(NamedTuple):
    """What is known of a subject: the number of its last message (0: none), and what that says.

    ``value`` is the sequence number of a stream, or through which a mark has dropped events; of a key it is its
    revision, 0 where it is absent.
    """

    number: int = 0
    value: int = 0


class Named(NamedTuple):
    """A subject that a write depends on, by its kind and its name."""

    kind: str
    name: str


def writes_of(request: WriteRequest) -> tuple[Write | Advance, ...]:
    """The writes of a transaction, or the one that stands alone."""
    return request.writes if isinstance(request, Transact) else (request,)


def named_by(request: WriteRequest) -> Iterator[Named]:
    """What must be known before a write can be planned.

    Args:
        request: The write.

    Returns:
        The names, perhaps some of them more than once.
    """
    if isinstance(request, Transact):
        for check in request.checks:
            yield Named(EVENTS, check.stream) if isinstance(check, ExpectSeq) else Named(KEYS, check.key)
    for write in writes_of(request):
        if isinstance(write, KvPut | KvDelete):
            yield Named(KEYS, write.key)
        elif isinstance(write, Append | TruncateThrough | Begin):
            yield Named(EVENTS, write.stream)
            if not isinstance(write, Append):
                yield Named(MARKS, write.stream)


class Known:
    """What is known before a write, as planning asks for it. Positions and revisions begin at 0: they are ordinals."""

    position = 0
    revision = 0

    def __init__(self, heads: dict[Named, SubjectHead]) -> None:
        self._heads = heads

    def last_seq(self, stream: str) -> int:
        """The high-water mark of a stream."""
        return self._heads[Named(EVENTS, stream)].value

    def dropped(self, stream: str) -> int:
        """Through which of its events a stream was truncated."""
        return self._heads[Named(MARKS, stream)].value

    def revision_of(self, key: str) -> int:
        """The revision of a key."""
        return self._heads[Named(KEYS, key)].value


class RequestPart(NamedTuple):
    """One request of a commit: what it is answered, once the number of the commit's last message is known."""

    answer: Any
    kinds: Any
    first_event: int
    first_key: int


class NatsCommit:
    """The messages of some requests, which are written all or none.

    Args:
        subjects: The store's.
        limits: What it takes.
        heads: What is known of all names that the requests have.
        newest: No revision that was given is above this one.

    >>> from persist_effects.event import Draft
    >>> named = Named(EVENTS, "orders/1")
    >>> commit = NatsCommit(Subjects("app"), limits_of(1_000, 1_000), {named: SubjectHead(7, 3)})
    >>> commit.add(Append("orders/1", (Draft("placed", 12),)), now=0)
    >>> [(message.subject, message.headers) for message in commit.messages()]
    [('app.e.orders.1', {'Nats-Expected-Last-Subject-Sequence': '7'})]
    >>> commit.answers(9)
    [Appended(first_seq=4, last_seq=4, position=9, at=0)]
    """

    def __init__(self, subjects: Subjects, limits: Limits, heads: dict[Named, SubjectHead], newest: int = 0) -> None:
        self._subjects = subjects
        self._newest = newest
        self._limits = limits
        self._heads = dict(heads)
        self._before = heads
        # The first message of each name that is written, and what stands in all of them.
        self._written: dict[Named, int] = {}
        self._guarded: dict[Named, None] = {}
        self._bodies: list[tuple[Named, bytes]] = []
        self._parts: list[RequestPart] = []
        self._marked: dict[str, int] = {}
        self.size_bytes = 0
        self.dropped: dict[str, int] = {}
        """Through which events streams are truncated."""

    def add(
        self, request: WriteRequest, now: int, position_of: Callable[[str, int], int] | None = None
    ) -> Conflict | None:
        """Plan one request more, on top of those before it.

        Args:
            request: The request, which `may_join` those before it.
            now: The time, in microseconds since 1970, UTC.
            position_of: The position of an event that was there before, by its stream and number.

        Returns:
            A conflict, with which nothing of it is written.

        Raises:
            InvalidRequest: If something in it cannot be stored.
        """
        answer, change = plan(request, Known(self._heads), now, self._limits)
        if change is None:
            assert isinstance(answer, Conflict)
            return self._told(answer, request)
        first_event = len(self._bodies)
        first_key = first_event + change.position
        notes = _Notes(request, first_event, first_key)
        self._put_events(change, notes)
        self._put_keys(change, notes)
        self._put_marks(change, position_of, first_event)
        self._guard(request)
        kinds = [_kind_of(write) for write in request.writes] if isinstance(request, Transact) else _kind_of(request)
        self._parts.append(RequestPart(answer, kinds, first_event, first_key))
        return None

    def _told(self, conflict: Conflict, request: WriteRequest) -> Conflict:
        """A conflict with a revision that the request itself would have given: it is above all that there were."""
        if conflict.kind == "stream" or not conflict.write or not isinstance(request, Transact):
            return conflict
        before = request.writes[: conflict.write]
        if not conflict.actual or all(getattr(write, "key", None) != conflict.name for write in before):
            return conflict
        return msgspec.structs.replace(conflict, actual=self._newest + conflict.actual)

    def may_join(self, request: WriteRequest) -> bool:
        """Whether a request can be planned on top of those before it: keys and marks have numbers only afterwards."""
        return not any(named.kind != EVENTS and named in self._written for named in named_by(request))

    def __len__(self) -> int:
        return len(self._guarded) + len(self._bodies)

    def _put(self, named: Named, body: bytes) -> None:
        self._written.setdefault(named, len(self._bodies))
        self._bodies.append((named, body))
        self.size_bytes += len(body)

    def _put_events(self, change: Change, notes: "_Notes") -> None:
        by_position: dict[int, tuple[str, bytes]] = {
            position: (name, beginning_body(seq)) for name, (seq, position) in change.begun.items()
        }
        last = {name: seq for name, (seq, _) in change.begun.items()}
        for events, encoded in change.runs:
            for event, own in zip(events, encoded, strict=True):
                noted = notes.of_event(event.position) if event.position == change.position else None
                body = event_body(event.seq, event.type, event.at, own, noted)
                by_position[event.position] = event.stream, body
                last[event.stream] = event.seq
        for _, (name, body) in sorted(by_position.items()):
            self._put(Named(EVENTS, name), body)
        for name, seq in last.items():
            self._heads[Named(EVENTS, name)] = SubjectHead(-1, seq)

    def _put_keys(self, change: Change, notes: "_Notes") -> None:
        by_revision = {
            revision: (key, value_body(value, notes.of_key(revision) if revision == change.revision else None))
            for key, (value, revision) in change.puts.items()
        }
        by_revision |= {revision: (key, b"") for key, revision in change.deleted.items()}
        for revision in range(1, change.revision + 1):
            # What was put and then put again by the same commit was never there for anybody, but took a revision.
            key, body = by_revision.get(revision, ("", b""))
            self._put(Named(KEYS, key) if key else Named(GUARDS, f"{revision}"), body)

    def _put_marks(self, change: Change, position_of: Callable[[str, int], int] | None, first_event: int) -> None:
        positions = {
            (event.stream, event.seq): first_event + event.position - 1 for events, _ in change.runs for event in events
        }
        for name, (seq, position) in change.begun.items():
            if name not in change.drops:
                self._put(Named(MARKS, name), mark_body(seq, first_event + position - 1 - len(self._bodies)))
                self._marked[name] = seq
        for name, seq in change.drops.items():
            own = positions.get((name, seq))
            if own is not None:
                position = own - len(self._bodies)
            else:
                assert position_of is not None
                position = position_of(name, seq)
            self._put(Named(MARKS, name), mark_body(seq, position))
            self.dropped[name] = self._marked[name] = seq

    def _guard(self, request: WriteRequest) -> None:
        for named in named_by(request):
            if named not in self._written:
                self._guarded[named] = None

    def messages(self) -> list[Outgoing]:
        """The messages, in order."""
        guards = [named for named in self._guarded if named not in self._written] if self._bodies else []
        found = [
            Outgoing(
                self._subjects.of(GUARDS, f"{index}"),
                b"",
                {EXPECTED: f"{self._before[named].number}", EXPECTED_OF: self._subject_of(named), **ROLLUP},
            )
            for index, named in enumerate(guards)
        ]
        for index, (named, body) in enumerate(self._bodies):
            headers: dict[str, str] = {}
            if self._written[named] == index and named.kind != GUARDS:
                headers[EXPECTED] = f"{self._before[named].number}"
                if named.kind != EVENTS:
                    headers |= ROLLUP
                if named.kind == KEYS and not body:
                    headers["Nats-TTL"] = f"{DELETION_SECONDS}s"
            found.append(Outgoing(self._subject_of(named), body, headers))
        return found

    def _subject_of(self, named: Named) -> str:
        return self._subjects.of(named.kind, named.name)

    def answers(self, last: int, told: Callable[[int], int] = int) -> list[Any]:
        """What the requests are answered.

        Args:
            last: The number of the last message.
            told: What a message's number is told as.

        Returns:
            The answers, in the order of the requests.
        """
        first = told(last) - len(self._bodies) + 1
        return [_answered(part, first) for part in self._parts]

    def heads(self, last: int, told: Callable[[int], int] = int) -> dict[Named, SubjectHead]:
        """What is known of the names that were written.

        Args:
            last: The number of the last message.
            told: What a message's number is told as.

        Returns:
            Their heads.
        """
        first = last - len(self._bodies) + 1
        numbers = {named: first + index for index, (named, _) in enumerate(self._bodies)}
        known = {}
        for named, number in numbers.items():
            if named.kind == EVENTS:
                known[named] = SubjectHead(number, self._heads[named].value)
            elif named.kind == KEYS:
                known[named] = SubjectHead(number, told(number) if self._bodies[number - first][1] else 0)
            elif named.kind == MARKS:
                known[named] = SubjectHead(number, self._marked[named.name])
        return known


class _Notes:
    """How the last write of a transaction that notes finds the numbers of the answers that it keeps."""

    def __init__(self, request: WriteRequest, first_event: int, first_key: int) -> None:
        self._last: Any = None
        if isinstance(request, Transact) and request.noting:
            *others, self._last = request.writes
            self._kinds = "".join(map(_kind_of, others))
        self._between = first_key - first_event

    def of_event(self, ordinal: int) -> Noted | None:
        return Noted(ordinal - 1, ordinal - 1 - self._between, self._kinds) if type(self._last) is Append else None

    def of_key(self, ordinal: int) -> Noted | None:
        return Noted(ordinal - 1 + self._between, ordinal - 1, self._kinds) if type(self._last) is KvPut else None


def limits_of(payload_bytes: int, message_bytes: int) -> Limits:
    """What a store takes.

    Args:
        payload_bytes: How large one value may be.
        message_bytes: How large the body of one message may be.

    Returns:
        The limits, for a commit.
    """

    def encoded(events: list[Event], limit_bytes: int) -> list[tuple[bytes, bytes | None]]:
        found = [codec.encode_apart(event.stream, event, limit_bytes) for event in events]
        for event, (data, meta) in zip(events, found, strict=True):
            size = len(data) + len(meta or b"")
            if size > message_bytes:
                what = f"the data and meta of an event of stream {event.stream!r}, in one message of these servers,"
                raise TooLarge(what, size, message_bytes)
        return found

    return Limits(payload_bytes, encoded)


def _kind_of(write: WriteRequest) -> str:
    """From which message the number in a write's answer counts: e from the first event, k from the first key."""
    return "e" if isinstance(write, Append | Begin) else "k" if isinstance(write, KvPut) else "-"


def _answered(part: RequestPart, first: int) -> Any:
    before = {"e": first + part.first_event - 1, "k": first + part.first_key - 1, "-": 0}
    if isinstance(part.kinds, str):
        return _counted(part.answer, before[part.kinds])
    return [_counted(answer, before[kind]) for answer, kind in zip(part.answer, part.kinds, strict=True)]


def _counted(answer: Any, before: int) -> Any:
    if not before:
        return answer
    if isinstance(answer, Appended):
        return Appended(answer.first_seq, answer.last_seq, before + answer.position, answer.at)
    return before + answer
