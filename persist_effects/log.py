"""The event log: append to streams, read them back. Every function is a program.

Readers return what is there: after a truncation, events that it dropped are missing from the front. The folds in
`persist_effects.projection` raise `Truncated` instead.
"""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

from persist_effects.codec import fresh
from persist_effects.contexts import leaves_contexts_alone
from persist_effects.errors import InvalidRequest, StoreUnavailable, Truncated, UncertainOutcome
from persist_effects.event import Draft, Event, check_integer, check_items, check_name
from persist_effects.following.retention import Unseen, droppable
from persist_effects.listing import all_names
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import (
    PAGE_SIZE,
    PAGE_SIZE_MAX,
    Advance,
    Append,
    Appended,
    Begin,
    Conflict,
    Entry,
    KvGet,
    KvPut,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
)

_SETTLING_ATTEMPTS = 8


@program
@leaves_contexts_alone
def append(
    stream: str, type: str, data: Any, *, at: int | None = None, meta: dict[str, Any] | None = None
) -> Effect[Event]:
    """Append one event and return it.

    Args:
        stream: The stream's name.
        type: The event's type.
        data: What happened: a value that can be stored.
        at: Its time, in microseconds since 1970, UTC. The store's clock gives one unless it is given.
        meta: What is kept beside the data, such as who did it.

    Returns:
        The event, as readers will find it.

    Raises:
        InvalidRequest: If something in it cannot be stored, before anything is written.
        TooLarge: If the data or the meta is over the store's limit, likewise.

    >>> from interpreters import open_store
    >>> event = open_store("memory:").run(append("orders/1", "placed", {"total": 12}))
    >>> event.seq, event.type, event.data
    (1, 'placed', {'total': 12})
    """
    draft = Draft(type, data, at, meta)
    appended = yield from perform(Append(stream, (draft,)))
    assert isinstance(appended, Appended), "an append that expects nothing has no conflict"
    return _event(stream, draft, appended)


@program
@leaves_contexts_alone
def append_expect(
    stream: str, expected: int, type: str, data: Any, *, at: int | None = None, meta: dict[str, Any] | None = None
) -> Effect[Event | Conflict]:
    """Append one event only if a sequence number is the stream's last one.

    Args:
        stream: The stream's name.
        expected: The last sequence number, as the caller knows it; 0: the stream was never used.
        type: The event's type.
        data: What happened: a value that can be stored.
        at: Its time, in microseconds since 1970, UTC. The store's clock gives one unless it is given.
        meta: What is kept beside the data, such as who did it.

    Returns:
        The event; or a `Conflict`, with both numbers, where another one is the last. Nothing is written then.

    Raises:
        InvalidRequest: If something in it cannot be stored, before anything is written.
        TooLarge: If the data or the meta is over the store's limit, likewise.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(append_expect("orders/1", 4, "paid", None))
    Conflict(kind='stream', name='orders/1', expected=4, actual=0, write=0)
    """
    draft = Draft(type, data, at, meta)
    answer = yield from perform(Append(stream, (draft,), expected))
    return answer if isinstance(answer, Conflict) else _event(stream, draft, answer)


@program
def append_many(stream: str, drafts: Iterable[Draft], *, expected: int | None = None) -> Effect[Appended | Conflict]:
    """Append several events, all or none.

    Args:
        stream: The stream's name.
        drafts: The events, at least one.
        expected: If it is given, they are appended only if this is the stream's last sequence number.

    Returns:
        The sequence numbers that they got; or a `Conflict` where another one is the last.

    Raises:
        InvalidRequest: If something in it cannot be stored, before anything is written.
        TooLarge: If the data or the meta is over the store's limit, likewise.

    >>> from interpreters import open_store
    >>> appended = open_store("memory:").run(append_many("orders/1", [Draft("placed", 1), Draft("paid", 2)]))
    >>> appended.first_seq, appended.last_seq
    (1, 2)
    """
    return (yield from perform(Append(stream, check_items("drafts", drafts, "a list of Drafts"), expected)))


@program
def append_once(
    stream: str, key: str, type: str, data: Any, *, at: int | None = None, meta: dict[str, Any] | None = None
) -> Effect[Event]:
    """Append one event under a key of the caller's: performed again with the same key, it returns the first event.

    So it may be repeated after a crash and after an `UncertainOutcome`, which it settles itself where the store
    comes back. The key is kept, as long as the store, in kv under ``once/``.

    Args:
        stream: The stream's name.
        key: What makes it the same event, such as the number of a payment. It counts within the stream.
        type: The event's type.
        data: What happened: a value that can be stored.
        at: Its time, in microseconds since 1970, UTC. The store's clock gives one unless it is given.
        meta: What is kept beside the data, such as who did it.

    Returns:
        The event that was appended first under this key.

    Raises:
        Truncated: If it was appended before and has since been dropped.
        UncertainOutcome: If the store has not come back after some attempts.
        InvalidRequest: If something in it cannot be stored, before anything is written.
        TooLarge: If the data or the meta is over the store's limit, likewise.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> [store.run(append_once("orders/1", "payment 77", "paid", 5)).seq for _ in range(2)]
    [1, 1]
    """
    check_name("stream name", stream)
    check_name("once key", key)
    unsettled: list[UncertainOutcome] = []
    try:
        return (yield from _appended_once(stream, key, Draft(type, data, at, meta), unsettled))
    except StoreUnavailable as error:
        if not unsettled:
            raise
        # Of the last attempt nothing is there, but what came before may be.
        raise UncertainOutcome(*unsettled[0].args) from error


def _appended_once(stream: str, key: str, draft: Draft, unsettled: list[UncertainOutcome]) -> Effect[Event]:
    """What `append_once` does, and which attempts had an outcome that nobody knows."""
    mark = _once_mark(stream, key)
    # It expects only that the mark is new, so that no other writer is in its way; the note says which event it is.
    once = Transact((Append(stream, (draft,)), KvPut(mark, {"stream": stream, "key": key}, 0)), noting=True)
    while True:
        try:
            answers = yield from perform(once)
        except UncertainOutcome as error:
            unsettled.append(error)
            if len(unsettled) == _SETTLING_ATTEMPTS:
                raise
        else:
            if not isinstance(answers, Conflict):
                return _event(stream, draft, answers[0])
        entry = yield from perform(KvGet(mark))
        if entry is None:
            continue
        seq = _seq_in(entry, mark, stream, key)
        try:
            return (yield from _event_at(stream, seq))
        except Truncated as error:
            error.add_note(f"it was appended under the key {key!r} before, as event {seq}")
            raise


@program
def read(
    stream: str, *, after: int = 0, until: int | None = None, limit: int | None = None, backwards: bool = False
) -> Effect[list[Event]]:
    """The events of a stream, to the end. They are in memory together.

    To fold a long stream, use `persist_effects.projection.project`.

    Args:
        stream: The stream's name.
        after: Only events past this sequence number.
        until: Only events up to and with this sequence number.
        limit: At most so many; None for all of them.
        backwards: The newest of them first.

    Returns:
        The events. What truncation dropped is left out.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(append_many("numbers", [Draft("counted", n) for n in range(10)]))
    >>> [event.data for event in store.run(read("numbers", after=2, limit=3))]
    [2, 3, 4]
    """
    if limit is not None:
        check_integer("limit", limit, 1)
    events: list[Event] = []
    while True:
        wanted = PAGE_SIZE if limit is None else min(limit - len(events), PAGE_SIZE_MAX)
        page = yield from perform(Read(stream, after, until, wanted, backwards))
        events += page.events
        if backwards:
            until, more = page.next, page.next > after
        else:
            after, more = page.next, page.next < (page.head if until is None else min(until, page.head))
        if not more or len(events) == limit:
            return events


@program
def read_from(stream: str, seq: int, *, limit: int | None = None) -> Effect[list[Event]]:
    """The events of a stream from a sequence number on, that one included.

    Args:
        stream: The stream's name.
        seq: The first sequence number, from 1 on.
        limit: At most so many; None for all of them.

    Returns:
        The events, oldest first.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(append_many("numbers", [Draft("counted", n) for n in range(5)]))
    >>> [event.seq for event in store.run(read_from("numbers", 4))]
    [4, 5]
    """
    check_integer("seq", seq, 1)
    return (yield from read(stream, after=seq - 1, limit=limit))


@program
def read_range(stream: str, first: int, last: int) -> Effect[list[Event]]:
    """The events of a stream between two sequence numbers, both included.

    Args:
        stream: The stream's name.
        first: The first sequence number, from 1 on.
        last: The last one.

    Returns:
        The events, oldest first.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(append_many("numbers", [Draft("counted", n) for n in range(5)]))
    >>> [event.seq for event in store.run(read_range("numbers", 2, 3))]
    [2, 3]
    """
    check_integer("first", first, 1)
    return (yield from read(stream, after=first - 1, until=last))


@program
def read_back(stream: str, limit: int) -> Effect[list[Event]]:
    """The newest events of a stream, newest first.

    Args:
        stream: The stream's name.
        limit: At most so many.

    Returns:
        The events.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(append_many("numbers", [Draft("counted", n) for n in range(5)]))
    >>> [event.seq for event in store.run(read_back("numbers", 2))]
    [5, 4]
    """
    return (yield from read(stream, limit=limit, backwards=True))


@program
def read_all(
    after: int = 0,
    prefix: str = "",
    types: Iterable[str] | None = None,
    *,
    until: int | None = None,
    limit: int | None = None,
    backwards: bool = False,
) -> Effect[list[Event]]:
    """The events of all streams under a prefix, in the order of positions, to the end. They are in memory together.

    Args:
        after: Only events past this position.
        prefix: Only of streams whose names start so.
        types: Only events of these types.
        until: Only events up to and with this position.
        limit: At most so many; None for all of them.
        backwards: The newest of them first.

    Returns:
        The events. What truncation dropped is left out: `page_all` tells of it.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> for stream in ("a/1", "b/1", "a/2"):
    ...     _ = store.run(append(stream, "made", None))
    >>> [event.stream for event in store.run(read_all(prefix="a/"))]
    ['a/1', 'a/2']
    >>> [event.stream for event in store.run(read_all(limit=2, backwards=True))]
    ['a/2', 'b/1']
    """
    if limit is not None:
        check_integer("limit", limit, 1)
    wanted_types = None if types is None else check_items("types", types, "a list of event types")
    events: list[Event] = []
    while True:
        wanted = PAGE_SIZE if limit is None else min(limit - len(events), PAGE_SIZE_MAX)
        request = ReadAll(after, prefix, wanted_types, wanted, until, backwards)
        page = yield from perform(request)
        events += page.events
        if backwards:
            until, more = page.next, page.next > after
        else:
            after, more = page.next, page.next < request.last_position(page.head)
        if not more or len(events) == limit:
            return events


@program
def page_all(
    after: int = 0,
    prefix: str = "",
    types: Iterable[str] | None = None,
    *,
    until: int | None = None,
    limit: int = PAGE_SIZE,
    backwards: bool = False,
) -> Effect[Page]:
    """A page of the events of all streams under a prefix, in the order of positions.

    Go on with ``after=page.next`` while that is below ``page.head``; backwards, with ``until=page.next`` while that is
    above ``after``.

    Args:
        after: Only events past this position.
        prefix: Only of streams whose names start so.
        types: Only events of these types.
        until: Only events up to and with this position.
        limit: How many events the page has at the most.
        backwards: The newest of them first.

    Returns:
        The page. It says where truncation dropped events of the range.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> for stream in ("a/1", "b/1", "a/2"):
    ...     _ = store.run(append(stream, "made", None))
    >>> page = store.run(page_all(limit=2))
    >>> [event.stream for event in page.events], page.next, page.head
    (['a/1', 'b/1'], 2, 3)
    """
    wanted_types = None if types is None else check_items("types", types, "a list of event types")
    return (yield from perform(ReadAll(after, prefix, wanted_types, limit, until, backwards)))


@program
def head(prefix: str = "") -> Effect[int]:
    """The position of the newest event under a prefix that can be read, 0 if there is none.

    Args:
        prefix: Of streams whose names start so. Of all of them, it is the position that the store gave last, also
            where its event was dropped.

    Returns:
        The position, from which `wait` and `page_all` go on.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(append("a", "made", None)), store.run(append("b", "made", None))
    >>> store.run(head()), store.run(head("a"))
    (2, 1)
    """
    page = yield from perform(ReadAll(0, prefix, limit=1, backwards=True))
    if not prefix:
        return page.head
    return page.events[0].position if page.events else 0


@program
@leaves_contexts_alone
def wait(after: int, prefix: str = "", timeout: float = math.inf) -> Effect[int]:
    """Wait until a stream under a prefix has an event past a position.

    Args:
        after: The position.
        prefix: Of streams whose names start so.
        timeout: For how many seconds at the most; without end unless it is given.

    Returns:
        The position of the newest event ever appended under the prefix, also when the time was over before.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(append("a", "made", None))
    >>> store.run(wait(0)), store.run(wait(1, timeout=0))
    (1, 1)
    """
    return (yield from perform(Wait(after, prefix, timeout)))


@program
@leaves_contexts_alone
def last_seq(stream: str) -> Effect[int]:
    """The sequence number last given in a stream. Truncation does not lower it.

    Args:
        stream: The stream's name.

    Returns:
        The number, 0 if the stream was never used.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(last_seq("orders/1"))
    0
    """
    return (yield from perform(LastSeq(stream)))


@program
def streams(prefix: str = "") -> Effect[list[str]]:
    """The names of all streams ever used under a prefix.

    Args:
        prefix: How they start.

    Returns:
        The names, sorted by code point.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(append("b", "made", 1)), store.run(append("a", "made", 1))
    >>> store.run(streams())
    ['a', 'b']
    """
    return (yield from all_names(Streams, prefix))


@program
def truncate_through(stream: str, seq: int, *, unseen: Unseen = "refuse") -> Effect[int]:
    """Drop the events of a stream up to and with a sequence number. The sequence goes on as before.

    Followers are known from their first checkpoint on, until `persist_effects.followers.forget`. One that has not seen
    what was dropped would meet `Truncated`, so by default nothing is dropped that any of them has yet to see. One that
    begins meanwhile is not known.

    Args:
        stream: The stream's name.
        seq: The sequence number. One past the last drops all there are, and none to come.
        unseen: What becomes of events that a follower has not seen: "refuse" raises, and drops nothing; "keep" drops
            only those before them; "drop" asks for no follower.

    Returns:
        How many events were dropped.

    Raises:
        FollowersBehind: If a follower has not seen them, with "refuse".

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(append_many("numbers", [Draft("counted", n) for n in range(5)]))
    >>> store.run(truncate_through("numbers", 3)), store.run(last_seq("numbers"))
    (3, 5)
    """
    through = yield from droppable(stream, seq, unseen)
    return (yield from perform(TruncateThrough(stream, through)))


@program
def drop(stream: str, *, unseen: Unseen = "refuse") -> Effect[int]:
    """Drop all events that a stream has. Its name stays, and its sequence goes on: no number is given twice.

    The events can be read no more. When their bytes are gone from the disk is the store's affair: ``persist-effects
    compact`` makes it so.

    Args:
        stream: The stream's name.
        unseen: What becomes of events that a follower has not seen, as for `truncate_through`.

    Returns:
        How many events were dropped.

    Raises:
        FollowersBehind: If a follower has not seen them, with "refuse".

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> _ = store.run(append_many("customers/7", [Draft("moved", "here"), Draft("moved", "there")]))
    >>> store.run(drop("customers/7")), store.run(append("customers/7", "came back", None)).seq
    (2, 3)
    """
    return (yield from truncate_through(stream, (yield from perform(LastSeq(stream))), unseen=unseen))


@program
@leaves_contexts_alone
def begin(stream: str, seq: int) -> Effect[int | Conflict]:
    """Begin a stream that was never used after a sequence number, as if so many events had been appended and dropped.

    So a stream that comes from somewhere else goes on with the numbers that it had there.

    Args:
        stream: The stream's name.
        seq: The sequence number that is taken for the last one given, from 1 on.

    Returns:
        A position, at which a reader of all streams is told that events are missing; or a `Conflict` where the stream
        was used before.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> store.run(begin("orders/1", 41)), store.run(append("orders/1", "paid", None)).seq
    (1, 42)
    >>> store.run(begin("orders/1", 41))
    Conflict(kind='stream', name='orders/1', expected=0, actual=42, write=0)
    """
    return (yield from perform(Begin(stream, seq)))


@program
@leaves_contexts_alone
def advance(position: int = 0, revision: int = 0) -> Effect[None]:
    """Have the store give from now on only positions and revisions above these, as if so many had been given before.

    So what comes from another store goes on above all numbers that were known there.

    Args:
        position: The highest position that is known elsewhere.
        revision: The highest revision that is known elsewhere.

    >>> from interpreters import open_store
    >>> store = open_store("memory:")
    >>> store.run(advance(position=1_000))
    >>> store.run(append("orders/1", "paid", None)).position
    1001
    """
    yield from perform(Advance(position, revision))


def _event(stream: str, draft: Draft, appended: Appended) -> Event:
    """The single event that was appended, as a reader will find it."""
    at, meta = draft.at, draft.meta
    if at is None:
        at = appended.at
    if meta is not None:
        meta = fresh(meta)
    return Event(stream, appended.last_seq, draft.type, at, fresh(draft.data), appended.position, meta)


def _event_at(stream: str, seq: int) -> Effect[Event]:
    page = yield from perform(Read(stream, seq - 1, seq))
    if not page.events:
        raise Truncated(stream, page.hole.first_left if page.hole else page.head + 1)
    return page.events[0]


def _seq_in(entry: Entry, mark: str, stream: str, key: str) -> int:
    """Which event the mark of `append_once` says was appended."""
    noted = entry.value if isinstance(entry.value, dict) else {}
    match noted:
        case {"answers": [{"first_seq": seq}]}:
            pass
        case _:
            # Marks were written so before transactions could note their answers.
            seq = noted.get("seq")
    if (noted.get("stream"), noted.get("key")) != (stream, key) or type(seq) is not int or seq < 1:
        raise InvalidRequest(
            f"key {mark!r} holds {entry.value!r:.80}, which is not the mark of {key!r} in stream {stream!r}: "
            "whether it was appended is not known: look at the stream, and delete the key if it was not"
        )
    return seq


def _once_mark(stream: str, key: str) -> str:
    # A digest, because a stream's name and the key may together be longer than a key may be, and because no
    # separator is safe: both may contain any.
    digest = hashlib.sha256(f"{len(stream)}/{stream}{key}".encode()).hexdigest()
    return f"once/{digest}"
