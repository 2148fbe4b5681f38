"""Every effect of the store as a frozen record, typed by its answer.

``Request[A]`` is answered with an ``A``. A request is checked where it is built, so that one which breaks a rule
raises `InvalidRequest` in the program that wrote it and never reaches an interpreter. Values are checked where they
become bytes, in `persist_effects.codec`. You define your own effects in the same way:

>>> class FetchPrice(Request[int], frozen=True, tag="shop/fetch-price"):
...     sku: str
>>> FetchPrice("tea").op
'shop/fetch-price'
"""

import math
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar, cast

import msgspec

from persist_effects.errors import InvalidRequest, NotAProgram, describe, describe_type, repr_of
from persist_effects.event import Draft, Event, check_integer, check_name, check_prefix
from persist_effects.programs import refused
from persist_effects.sql_text import check_parameters
from persist_effects.type_variables import HeldT_co

AnswerT_co = TypeVar("AnswerT_co", covariant=True)

PAGE_SIZE = 256
"""How many events or names a page holds unless asked otherwise: under a hundred kilobytes of usual events.

Folds are fastest there: the garbage collector has to look again and again at the events of a longer page.
"""

PAGE_SIZE_MAX = 10_000

ADVANCE_MAX = 2**62
"""The highest position, or revision, above which a store may be told to go on: as many are left for it to give."""

BEGIN_SEQ_MAX = 2**62
"""The highest sequence number after which a stream may begin: as many are left for its events."""


class Request(msgspec.Struct, Generic[AnswerT_co], frozen=True, tag_field="op"):
    """A request that a program yields and an interpreter answers with an ``AnswerT_co``."""

    @property
    def op(self) -> str:
        """The name under which this effect travels, such as ``"persist/append"``."""
        return str(self.__struct_config__.tag)

    if not TYPE_CHECKING:  # so that type checkers go on to refuse it where it is written

        def __iter__(self) -> NoReturn:
            """Refuse ``yield from request``, and say what was meant."""
            raise NotAProgram(f"{repr_of(self, 120)} is a request, no program: write `yield from perform(request)`")


# Answers


class Conflict(msgspec.Struct, frozen=True, tag=True):
    """What was expected is not what is there: nothing was written. A value, never an exception.

    ``expected`` and ``actual`` are sequence numbers of the stream ``name``, or revisions of the key (0: absent), as
    ``kind`` says. ``write`` is the index, from 0, of the write within its transaction, None for a check. A write by
    itself is a transaction of one, so that its index is 0.
    """

    kind: Literal["stream", "key"]
    name: str
    expected: int
    actual: int
    write: int | None = 0


class Appended(msgspec.Struct, frozen=True, tag=True):
    """The events have the sequence numbers ``first_seq`` to ``last_seq``. ``position`` is that of the last one.

    ``at`` is what the store's clock read: the time of each event whose draft named none.
    """

    first_seq: int
    last_seq: int
    position: int
    at: int

    @property
    def first_position(self) -> int:
        """The position of the first event: those of one append have consecutive positions.

        >>> Appended(first_seq=4, last_seq=6, position=12, at=0).first_position
        10
        """
        return self.position - (self.last_seq - self.first_seq)


class Hole(msgspec.Struct, frozen=True):
    """Of the events asked for, some of ``stream`` were truncated; ``first_left`` is the first one left."""

    stream: str
    first_left: int


class Page(msgspec.Struct, frozen=True, weakref=True):
    """Some events, in order, and how to go on.

    ``next``: every event asked for up to here was given: go on with ``after=next`` (with ``until=next`` when
    reading backwards). ``head``: the last sequence number of the stream, or the last position of the store. There is
    more while ``next`` is below ``head`` (or below ``until``; backwards, while it is above ``after``). A page may
    be shorter than its limit. ``hole``: truncation dropped events from the range that was asked for.
    """

    events: list[Event]
    next: int
    head: int
    hole: Hole | None = None


class Entry(msgspec.Struct, Generic[HeldT_co], frozen=True):
    """A key's value and its revision. Revisions only grow, over all keys, also when a key is deleted."""

    value: HeldT_co
    revision: int


class BlobRef(msgspec.Struct, frozen=True):
    """What logs and keys hold instead of large bytes: their CIDv1, their size and their MIME type."""

    cid: str
    size: int
    mime: str


# The event log


class StoreWrite(Request[AnswerT_co], frozen=True):
    """A write that may stand in a transaction, where its answer is never a `Conflict`: that is the transaction's."""


class Append(StoreWrite[Appended | Conflict], frozen=True, gc=False, tag="persist/append"):
    """Append drafts to a stream, all or none; with ``expected``, only if that is its last sequence number."""

    stream: str
    events: tuple[Draft, ...]
    expected: int | None = None

    def __post_init__(self) -> None:
        check_name("stream name", self.stream)
        if type(self.events) is not tuple or not self.events:
            raise InvalidRequest(
                f"append to {self.stream!r} needs a tuple of at least one Draft, and got {describe(self.events)}: "
                f"write Append({self.stream!r}, (Draft(type, data),)), or in a program log.append({self.stream!r}, "
                "type, data)"
            )
        for draft in self.events:
            if type(draft) is not Draft:
                raise InvalidRequest(
                    f"append to {self.stream!r} got {describe_type(draft)}: give a Draft, as Draft(type, data)"
                )
        if self.expected is not None:
            check_integer("expected sequence number", self.expected)


class Read(Request[Page], frozen=True, gc=False, tag="persist/read"):
    """A page of the events of a stream with ``after < seq <= until``; backwards, the newest of them first."""

    stream: str
    after: int = 0
    until: int | None = None
    limit: int = PAGE_SIZE
    backwards: bool = False

    def __post_init__(self) -> None:
        check_name("stream name", self.stream)
        check_integer("after", self.after)
        if self.until is not None:
            check_integer("until", self.until)
        check_integer("limit", self.limit, 1, PAGE_SIZE_MAX)
        if type(self.backwards) is not bool:
            raise InvalidRequest(f"backwards is {describe_type(self.backwards)}: give a bool")


class ReadAll(Request[Page], frozen=True, gc=False, tag="persist/read-all"):
    """A page of the events of all streams whose names start with ``prefix``, with ``after < position <= until``.

    They come in the order of positions; backwards, the newest of them first. ``types`` keeps only events of these
    types. A reader that has moved past a position never finds a new event below it. Where events of a stream were
    dropped past ``after``, the page has a hole, perhaps also where they all stood past ``until``.
    """

    after: int = 0
    prefix: str = ""
    types: tuple[str, ...] | None = None
    limit: int = PAGE_SIZE
    # Not encoded unless they are set, so that a request is recorded as it always was.
    until: int | msgspec.UnsetType | None = msgspec.UNSET
    backwards: bool | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        check_integer("after", self.after)
        check_prefix("stream prefix", self.prefix)
        if self.types is not None:
            if type(self.types) is not tuple:
                raise InvalidRequest(f"types is {describe_type(self.types)}: give a tuple of event types, or None")
            for event_type in self.types:
                check_name("event type", event_type)
        check_integer("limit", self.limit, 1, PAGE_SIZE_MAX)
        if self.until is None:
            msgspec.structs.force_setattr(self, "until", msgspec.UNSET)
        elif self.until is not msgspec.UNSET:
            check_integer("until", self.until)
        _unset_unless_true(self, "backwards")

    def last_position(self, head: int) -> int:
        """The highest position that is asked for, where the store's newest event has the position ``head``.

        >>> ReadAll(until=3).last_position(9), ReadAll().last_position(9)
        (3, 9)
        """
        return head if self.until is msgspec.UNSET else min(cast(int, self.until), head)


class LastSeq(Request[int], frozen=True, gc=False, tag="persist/last-seq"):
    """The high-water mark of a stream: the sequence number last given, which truncation never lowers."""

    stream: str

    def __post_init__(self) -> None:
        check_name("stream name", self.stream)


class TruncateThrough(StoreWrite[int], frozen=True, gc=False, tag="persist/truncate-through"):
    """Drop the events of a stream up to and with ``seq``. Answered with how many were dropped."""

    stream: str
    seq: int

    def __post_init__(self) -> None:
        check_name("stream name", self.stream)
        check_integer("seq", self.seq)


class Begin(StoreWrite[int | Conflict], frozen=True, gc=False, tag="persist/begin"):
    """Begin a stream that was never used after ``seq``, as if so many events had been appended to it and truncated.

    Answered with a position that is not an event's, at which a reader of all streams meets the hole; or with a
    `Conflict`, which expected 0, where the stream was used before.
    """

    stream: str
    seq: int

    def __post_init__(self) -> None:
        check_name("stream name", self.stream)
        check_integer("seq", self.seq, 1, BEGIN_SEQ_MAX)


class Advance(Request[None], frozen=True, gc=False, tag="persist/advance"):
    """Give from now on only positions and revisions above these, as if so many had been given before.

    So what comes from another store meets no number here that it knew there: what expects one conflicts, and whoever
    goes on from a position misses nothing. Numbers below those given so far change nothing.
    """

    position: int = 0
    revision: int = 0

    def __post_init__(self) -> None:
        check_integer("position", self.position, 0, ADVANCE_MAX)
        check_integer("revision", self.revision, 0, ADVANCE_MAX)


class Streams(Request[list[str]], frozen=True, gc=False, tag="persist/streams"):
    """Names of streams that were ever used, sorted, past ``after``. Fewer than ``limit``: there are no more."""

    prefix: str = ""
    after: str = ""
    limit: int = PAGE_SIZE

    def __post_init__(self) -> None:
        check_prefix("stream prefix", self.prefix)
        check_prefix("after", self.after)
        check_integer("limit", self.limit, 1, PAGE_SIZE_MAX)


class Wait(Request[int], frozen=True, gc=False, tag="persist/wait"):
    """Wait until a stream whose name starts with ``prefix`` has an event past ``after``, at most ``timeout`` seconds.

    Answered with the position of the newest event ever appended under the prefix (0: none), at the timeout too.
    """

    after: int
    prefix: str = ""
    timeout: float = 0.0

    def __post_init__(self) -> None:
        check_integer("after", self.after)
        check_prefix("stream prefix", self.prefix)
        check_seconds("timeout", self.timeout)


# Keys and values


class KvGet(Request[Entry | None], frozen=True, gc=False, tag="persist/kv-get"):
    """The entry under a key, or None."""

    key: str

    def __post_init__(self) -> None:
        check_name("key", self.key)


class KvHas(Request[bool], frozen=True, gc=False, tag="persist/kv-has"):
    """Whether there is an entry under a key."""

    key: str

    def __post_init__(self) -> None:
        check_name("key", self.key)


class KvPut(StoreWrite[int | Conflict], frozen=True, gc=False, tag="persist/kv-put"):
    """Put a value under a key, with ``expected`` only if that is its revision (0: it must be absent).

    Answered with the new revision.
    """

    key: str
    value: Any
    expected: int | None = None

    def __post_init__(self) -> None:
        check_name("key", self.key)
        if self.expected is not None:
            check_integer("expected revision", self.expected)


class KvDelete(StoreWrite[bool | Conflict], frozen=True, gc=False, tag="persist/kv-delete"):
    """Delete a key, with ``expected`` only if that is its revision. Answered with whether it was there."""

    key: str
    expected: int | None = None

    def __post_init__(self) -> None:
        check_name("key", self.key)
        if self.expected is not None:
            check_integer("expected revision", self.expected)


class KvKeys(Request[list[str]], frozen=True, gc=False, tag="persist/kv-keys"):
    """Keys that start with ``prefix``, sorted by code point, past ``after``. Fewer than ``limit``: no more."""

    prefix: str = ""
    after: str = ""
    limit: int = PAGE_SIZE

    def __post_init__(self) -> None:
        check_prefix("key prefix", self.prefix)
        check_prefix("after", self.after)
        check_integer("limit", self.limit, 1, PAGE_SIZE_MAX)


class KvEntries(Request[list[tuple[str, Entry]]], frozen=True, gc=False, tag="persist/kv-entries"):
    """Keys that start with ``prefix``, past ``after``, with their entries, sorted by code point.

    Fewer than ``limit``: no more. All are as they were at one moment.
    """

    prefix: str = ""
    after: str = ""
    limit: int = PAGE_SIZE

    def __post_init__(self) -> None:
        check_prefix("key prefix", self.prefix)
        check_prefix("after", self.after)
        check_integer("limit", self.limit, 1, PAGE_SIZE_MAX)


class KvWait(Request[int], frozen=True, gc=False, tag="persist/kv-wait"):
    """Wait until a key that starts with ``prefix`` was changed after a revision, at most ``timeout`` seconds.

    Answered with the newest revision under the prefix, that of a deletion too (0: none), at the timeout too. Whoever
    is told a revision misses no change at or below it. A store that has forgotten deletions may answer too high, never
    too low.
    """

    after: int
    prefix: str = ""
    timeout: float = 0.0

    def __post_init__(self) -> None:
        check_integer("after", self.after)
        check_prefix("key prefix", self.prefix)
        check_seconds("timeout", self.timeout)


# ModelTables beside the log


class Sql(StoreWrite[int], frozen=True, gc=False, tag="persist/sql"):
    """Carry out one SQL statement in the transaction, with ``params`` for each ``:name``. Answered with how many rows.

    Only stores on SQLite and PostgreSQL do so, in tables beside their own, as `Capabilities.sql` says; all others
    refuse it before anything is written. A parameter is written ``:name`` on both, and its value is None, a bool, an
    int of 64 bits, a float, a str or bytes. A statement that fails raises `SqlFailed`, and nothing of its transaction
    is written.

    >>> Sql("UPDATE orders SET total = :total WHERE id = :id", {"id": "o-1", "total": 12}).params["total"]
    12
    >>> Sql("UPDATE orders SET total = :total", {})
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: SQL 'UPDATE orders SET total = :total': it has no value for :total
    """

    statement: str
    params: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if type(self.statement) is not str:
            raise InvalidRequest(f"an SQL statement is {describe(self.statement)}: give a str")
        check_parameters(self.statement, self.params)


# Several writes, all or nothing

Write = Append | TruncateThrough | Begin | KvPut | KvDelete | Sql


class ExpectSeq(msgspec.Struct, frozen=True, gc=False, tag="expect-seq", tag_field="op"):
    """A check of a transaction: the last sequence number of a stream must be this."""

    stream: str
    expected: int

    def __post_init__(self) -> None:
        check_name("stream name", self.stream)
        check_integer("expected sequence number", self.expected)


class ExpectRevision(msgspec.Struct, frozen=True, gc=False, tag="expect-revision", tag_field="op"):
    """A check of a transaction: the revision of a key must be this (0: absent)."""

    key: str
    expected: int

    def __post_init__(self) -> None:
        check_name("key", self.key)
        check_integer("expected revision", self.expected)


Check = ExpectSeq | ExpectRevision

ANSWERS = "answers"
"""Under which name the last write of a transaction that notes keeps the answers of those before it."""

_WRITES = (Append, TruncateThrough, Begin, KvPut, KvDelete, Sql)
_CHECKS = (ExpectSeq, ExpectRevision)


class Transact(Request[list[Any] | Conflict], frozen=True, gc=False, tag="persist/transact"):
    """Several writes, all or nothing: the list of their answers, or the first `Conflict`.

    First the checks are made, in order, on what was there before; then the writes, in order, each of which
    sees the ones before it.

    With ``noting``, the last write, an append of one draft or a put of a dict, also keeps the answers of all writes
    before it: under ``"answers"`` in the draft's meta, or in the dict. They are plain values there, an `Appended` a
    dict of its fields. A limit on payloads counts their numbers at nine bytes each.
    """

    writes: tuple[Write, ...]
    checks: tuple[Check, ...] = ()
    # Not encoded unless it is set, so that a request is recorded as it always was.
    noting: bool | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if type(self.writes) is not tuple or not self.writes:
            raise InvalidRequest("a transaction needs a tuple of at least one write")
        for write in self.writes:
            if type(write) not in _WRITES:
                refused(*self.writes)
                raise InvalidRequest(
                    f"a transaction got {_told(write)} among its writes: "
                    f"give Append, TruncateThrough, Begin, KvPut, KvDelete or Sql{_instead_of_write(write)}"
                )
        if type(self.checks) is not tuple:
            raise InvalidRequest(f"checks is {describe_type(self.checks)}: give a tuple")
        for check in self.checks:
            if type(check) not in _CHECKS:
                raise InvalidRequest(
                    f"a transaction got {describe_type(check)} among its checks: give ExpectSeq or ExpectRevision"
                )
        _unset_unless_true(self, "noting")
        if self.noting:
            self._check_noting()

    def _check_noting(self) -> None:
        last = self.writes[-1]
        if has_sql(self):
            raise InvalidRequest(
                "a transaction that notes has no Sql: how many rows it changes is known only afterwards"
            )
        if isinstance(last, Append) and len(last.events) == 1:
            where, holder = "the meta of its last draft", last.events[0].meta
            holder = {} if holder is None else holder
        elif isinstance(last, KvPut):
            where, holder = f"the value of key {last.key!r}", last.value
        else:
            raise InvalidRequest(
                f"a transaction that notes ends with {last.op}: its last write must be an Append of one draft, or a "
                "KvPut of a dict"
            )
        if type(holder) is not dict:
            raise InvalidRequest(f"a transaction that notes keeps answers in {where}, {describe(holder)}: give a dict")
        if ANSWERS in holder:
            raise InvalidRequest(
                f"a transaction that notes keeps answers in {where}, where {ANSWERS!r} is already: use another name"
            )


def has_sql(request: Request[Any]) -> bool:
    """Whether a request is an SQL statement, or has one among its writes.

    >>> has_sql(Transact((KvPut("color", "red"), Sql("DELETE FROM orders"))))
    True
    """
    return isinstance(request, Sql) or (isinstance(request, Transact) and Sql in map(type, request.writes))


def _unset_unless_true(request: Request[Any], name: str) -> None:
    """Check a field that is a bool, and is encoded only where it is True."""
    given = getattr(request, name)
    if given is msgspec.UNSET:
        return
    if type(given) is not bool:
        raise InvalidRequest(f"{name} is {describe_type(given)}: give a bool")
    if not given:
        msgspec.structs.force_setattr(request, name, msgspec.UNSET)


def check_seconds(name: str, seconds: float) -> None:
    """Refuse what is not a number of seconds, 0 or more.

    >>> check_seconds("timeout", 0.5)
    """
    if type(seconds) not in (int, float) or math.isnan(seconds) or seconds < 0:
        raise InvalidRequest(f"{name} is {repr_of(seconds)}: give seconds, 0 or more")


def _told(write: object) -> str:
    return f"the program {write.__name__!r}" if isinstance(write, GeneratorType) else describe_type(write)


def _instead_of_write(found: object) -> str:
    if isinstance(found, list | tuple):
        return ", each as an argument of its own: transact(*writes)"
    if isinstance(found, GeneratorType):
        return "; a transaction is made of requests, such as KvPut(key, value) in the place of kv.put(key, value)"
    return ""


# Blobs


class BlobPut(Request[BlobRef], frozen=True, gc=False, tag="blob/put"):
    """Store bytes under the hash of their content. Putting the same bytes again changes nothing."""

    data: bytes
    mime: str = "application/octet-stream"

    def __post_init__(self) -> None:
        if type(self.data) is not bytes:
            raise InvalidRequest(f"a blob's data is {describe_type(self.data)}: give bytes")
        check_name("MIME type", self.mime)


class BlobGet(Request[bytes], frozen=True, gc=False, tag="blob/get"):
    """The bytes under a content identifier. Raises `BlobNotFound` in the program where there are none."""

    cid: str

    def __post_init__(self) -> None:
        check_name("content identifier", self.cid)


class BlobHas(Request[bool], frozen=True, gc=False, tag="blob/has"):
    """Whether the blob store has bytes under a content identifier."""

    cid: str

    def __post_init__(self) -> None:
        check_name("content identifier", self.cid)


# Time, and names that nobody else has


class Now(Request[int], frozen=True, gc=False, tag="persist/now"):
    """The time by the store's clock, in microseconds since 1970, UTC: the clock that stamps events."""


class NewId(Request[str], frozen=True, gc=False, tag="persist/new-id"):
    """A fresh identifier, a UUID of version 7 as text: those of a later millisecond sort behind those of an earlier."""


class Sleep(Request[None], frozen=True, gc=False, tag="persist/sleep"):
    """Go on after so many seconds, or where the store is closed before: then it raises `StoreClosed`.

    It is answered by what runs the program, so it takes no thread in an event loop, and no time in a simulation.

    >>> Sleep(-1)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: seconds is -1: give seconds, 0 or more
    """

    seconds: float

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)


# Several requests at once


class Answered(msgspec.Struct, frozen=True):
    """A request's answer, as a part of the answer to `AllOf`."""

    value: Any


class Failed(msgspec.Struct, frozen=True):
    """The error that a request met, as a part of the answer to `AllOf`."""

    error: Exception


Outcome = Answered | Failed


class AllOf(Request[list[Outcome]], frozen=True, tag="persist/all-of"):
    """Perform several requests at once; answered with their outcomes in the same order.

    Where a handler table has no row for it, the machine answers the parts one by one. Programs use
    `persist_effects.machine.all_of`.
    """

    requests: tuple[Request[Any], ...]


StoreRequest = (
    Append
    | Read
    | ReadAll
    | LastSeq
    | TruncateThrough
    | Begin
    | Advance
    | Streams
    | Wait
    | KvGet
    | KvHas
    | KvPut
    | KvDelete
    | KvKeys
    | KvEntries
    | KvWait
    | Sql
    | Transact
    | BlobPut
    | BlobGet
    | BlobHas
    | Now
    | NewId
)
"""Every request that can travel to a store in another process."""


class At(Request[Any], frozen=True, tag="persist/at"):
    """Ask another store than the one that runs the program: the one that is called ``target``.

    Rows for it are made of stores by `persist_effects.targets.rows_at`. Answered as the request is there.
    """

    target: str
    request: StoreRequest

    def __post_init__(self) -> None:
        check_name("target", self.target)


WRITES: frozenset[type[Request[Any]]] = frozenset({*_WRITES, Transact, Advance})
"""What changes the log or the keys. Several that wait may share a commit."""

READS: frozenset[type[Request[Any]]] = frozenset({Read, ReadAll, LastSeq, Streams, KvGet, KvHas, KvKeys, KvEntries})
"""What is answered from the log and the keys at once, and changes nothing."""

WAITS: frozenset[type[Request[Any]]] = frozenset({Wait, KvWait})
"""What is answered once something comes, or its time is over. A store may offer to watch it."""

TIMES: frozenset[type[Request[Any]]] = frozenset({Now, NewId, Sleep})
"""What touches nothing that is stored. Every `Store` answers it, whatever its interpreter has rows for."""


def at_once(request: Wait | KvWait) -> Wait | KvWait:
    """The same question, without waiting.

    >>> at_once(Wait(3, "orders/", timeout=60))
    Wait(after=3, prefix='orders/', timeout=0.0)
    """
    return type(request)(request.after, request.prefix)


CHANGES = WRITES | {BlobPut}
"""What may have been carried out where no answer came."""
