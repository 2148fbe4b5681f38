"""An obvious model of a store, and a machine that compares a store with it.

The model is plain lists and dicts, every question answered by looking at everything. It knows what a store must
answer but for the numbers that each store chooses, positions and revisions: those are `PENDING` until the store's own
answer fills them in. The machine makes sequences of requests that Hypothesis chooses and, where one fails, makes short.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Literal

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from interpreters.conformance.facts.base import ask
from interpreters.conformance.facts.comparing import agree, spoil
from interpreters.conformance.strategies import drafts, names, values
from interpreters.runtime.store import Store
from persist_effects.capabilities import Capabilities
from persist_effects.event import INT64_MAX, Draft, Event
from persist_effects.requests import (
    BEGIN_SEQ_MAX,
    Append,
    Appended,
    Begin,
    Check,
    Conflict,
    Entry,
    ExpectRevision,
    ExpectSeq,
    Hole,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    KvWait,
    LastSeq,
    Page,
    Read,
    ReadAll,
    Sql,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
    Write,
)

PENDING = -1
"""A position or revision that the store has not given yet. No caller can expect it."""


class Numbered(msgspec.Struct, frozen=True):
    """The sequence numbers that an append must be answered with."""

    first_seq: int
    last_seq: int


class Model:
    """What a store must hold after the writes it was given.

    >>> from persist_effects.event import Draft
    >>> model = Model()
    >>> model.write(Append("a", (Draft("made", "tea"), Draft("made", "rice"))))
    Numbered(first_seq=1, last_seq=2)
    >>> model.write(TruncateThrough("a", 9)), model.last_seq("a")
    (2, 2)
    """

    def __init__(self) -> None:
        self.log: list[Event] = []
        """Every event ever appended, dropped ones too, in the order of positions."""
        self.dropped: dict[str, int] = {}
        """For each stream, through which sequence number its events were dropped."""
        self.begun: dict[str, int] = {}
        """For each stream that was begun so, after which sequence number; its place in the log is that of an event."""
        self.entries: dict[str, Entry] = {}
        self.newest_revision = 0

    def copy(self) -> "Model":
        """A model to try writes on."""
        other = Model()
        other.log, other.dropped, other.entries = list(self.log), dict(self.dropped), dict(self.entries)
        other.begun = dict(self.begun)
        other.newest_revision = self.newest_revision
        return other

    # Writes

    def transact(self, writes: Sequence[Write], checks: Sequence[Check] = ()) -> "tuple[Model, list[Any]] | Conflict":
        """The model after these writes, with their answers; or the first conflict. This model stays as it is."""
        for check in checks:
            if isinstance(check, ExpectSeq):
                conflict = _conflict("stream", check.stream, check.expected, self.last_seq(check.stream), None)
            else:
                conflict = _conflict("key", check.key, check.expected, self.revision(check.key), None)
            if conflict is not None:
                return conflict
        after = self.copy()
        answers = []
        for index, write in enumerate(writes):
            answer = after.write(write, index)
            if isinstance(answer, Conflict):
                return answer
            answers.append(answer)
        return after, answers

    def write(self, write: Write, index: int = 0) -> Any:
        """Apply one write, and return its answer or a `Conflict`. ``index`` is its place in a transaction."""
        if isinstance(write, Append):
            return self._append(write, index)
        if isinstance(write, TruncateThrough):
            return self._truncate(write)
        if isinstance(write, Begin):
            return self._begin(write, index)
        assert not isinstance(write, Sql), "of tables, the model knows nothing"
        conflict = _conflict("key", write.key, write.expected, self.revision(write.key), index)
        if conflict is not None:
            return conflict
        if isinstance(write, KvDelete):
            return self.entries.pop(write.key, None) is not None
        self.entries[write.key] = Entry(deepcopy(write.value), PENDING)
        return PENDING

    def _append(self, write: Append, index: int) -> Numbered | Conflict:
        last = self.last_seq(write.stream)
        conflict = _conflict("stream", write.stream, write.expected, last, index)
        if conflict is not None:
            return conflict
        for seq, draft in enumerate(write.events, last + 1):
            at = PENDING if draft.at is None else draft.at
            data, meta = deepcopy(draft.data), deepcopy(draft.meta)
            self.log.append(Event(write.stream, seq, draft.type, at, data, PENDING, meta))
        return Numbered(last + 1, last + len(write.events))

    def _begin(self, write: Begin, index: int) -> int | Conflict:
        conflict = _conflict("stream", write.stream, 0, self.last_seq(write.stream), index)
        if conflict is not None:
            return conflict
        # As if one event, of the last sequence number that is missing, had been appended and dropped.
        self.log.append(Event(write.stream, write.seq, "begun", PENDING, None, PENDING))
        self.begun[write.stream] = self.dropped[write.stream] = write.seq
        return PENDING

    def _truncate(self, write: TruncateThrough) -> int:
        before = self.dropped.get(write.stream, 0)
        through = min(write.seq, self.last_seq(write.stream))
        if through <= before:
            return 0
        self.dropped[write.stream] = through
        return through - before

    # Reads

    def last_seq(self, stream: str) -> int:
        """The highest sequence number of the stream, 0 if it was never used."""
        return max((event.seq for event in self.log if event.stream == stream), default=0)

    def newest_position(self, prefix: str = "") -> int:
        """The position of the newest event ever appended under the prefix, 0 if there was none."""
        return max((event.position for event in self.log if event.stream.startswith(prefix)), default=0)

    def revision(self, key: str) -> int:
        """The revision of a key, 0 if it is absent."""
        return self.entries[key].revision if key in self.entries else 0

    def streams(self) -> list[str]:
        """The names of all streams ever appended to, sorted."""
        return sorted({event.stream for event in self.log})

    def left(self) -> list[Event]:
        """The events that were not dropped."""
        return [event for event in self.log if event.seq > self.dropped.get(event.stream, 0)]

    # What a page must be. A page may be short, so it is judged by how far it says that it has come.

    def check_page_of_stream(self, request: Read, page: Page) -> None:
        """Raise AssertionError unless the page is a right answer to this request."""
        head = self.last_seq(request.stream)
        high = max(request.after, head if request.until is None else min(request.until, head))
        wanted = [event for event in self.left() if event.stream == request.stream]
        if request.backwards:
            wanted = [event for event in reversed(wanted) if page.next < event.seq <= high]
            start, end = high, request.after
        else:
            wanted = [event for event in wanted if request.after < event.seq <= page.next]
            start, end = request.after, high
        through = self.dropped.get(request.stream, 0)
        hole = Hole(request.stream, through + 1) if request.after < min(through, high) else None
        _check_page(request, page, wanted, start, end)
        agree(f"the head after {request}", page.head, head)
        agree(f"the hole in {request}", page.hole, hole)

    def check_page_of_all(self, request: ReadAll, page: Page) -> None:
        """Raise AssertionError unless the page is a right answer to this request."""
        head = self.newest_position()
        high = max(request.after, request.last_position(head))
        if request.backwards:
            low, start, end = page.next, high, request.after
        else:
            low, high, start, end = request.after, page.next, request.after, high
        wanted = [
            event
            for event in self.left()
            if low < event.position <= high
            and event.stream.startswith(request.prefix)
            and (request.types is None or event.type in request.types)
        ]
        _check_page(request, page, wanted[::-1] if request.backwards else wanted, start, end)
        agree(f"the head after {request}", page.head, head)
        self._check_hole_of_all(request, page.hole, head)

    def _check_hole_of_all(self, request: ReadAll, hole: Hole | None, head: int) -> None:
        until = request.last_position(head)
        gone = [
            event
            for event in self.log
            if event.stream.startswith(request.prefix)
            and event.position > request.after
            and event.seq <= self.dropped.get(event.stream, 0)
        ]
        holes: list[Hole | None] = [Hole(event.stream, self.dropped[event.stream] + 1) for event in gone]
        # A store need not know whether all of them stood past the end of the range.
        if not holes or until <= request.after or all(event.position > until for event in gone):
            holes.append(None)
        assert hole in holes, f"the hole in {request}: found {hole}, wanted one of {holes}"


# Few names, so that requests meet; some are neighbours of others, and one time in ten there is any other name.
_NAMES = st.integers(0, 9).flatmap(lambda tenth: names() if tenth == 9 else st.sampled_from(["a", "a/b", "a_b", "aXb"]))
_PREFIXES = st.integers(0, 9).flatmap(lambda tenth: names() if tenth == 9 else st.sampled_from(["", "a", "a/", "a_"]))
_SEQS = st.integers(0, 8) | st.just(INT64_MAX)
_BEGINNINGS = st.integers(1, 8) | st.just(BEGIN_SEQ_MAX)
_LIMITS = st.integers(1, 4) | st.just(1_000)
_DRAFTS = st.lists(drafts(), min_size=1, max_size=3)

# What a write expects is chosen before it is known what is there, so it is chosen by its kind.
_EXPECTATIONS = st.sampled_from(
    ["nothing", "nothing", "what is there", "what is there", "what was there", "that it is new", "too much"]
)
_WRITES = st.one_of(
    st.tuples(st.just("append"), _NAMES, _EXPECTATIONS, _DRAFTS),
    st.tuples(st.just("put"), _NAMES, _EXPECTATIONS, values()),
    st.tuples(st.just("delete"), _NAMES, _EXPECTATIONS, st.none()),
    st.tuples(st.just("truncate"), _NAMES, st.just("nothing"), _SEQS),
    st.tuples(st.just("begin"), _NAMES, st.just("nothing"), _BEGINNINGS),
)
_CHECKS = st.tuples(st.sampled_from([ExpectSeq, ExpectRevision]), _NAMES, _EXPECTATIONS)


class StoreMachine(RuleBasedStateMachine):
    """Makes the same requests of a store and of the model, and compares every answer.

    What was given to the store, and what was read from it, is spoiled after use, so that a store which shares its
    values with its callers is found out.
    """

    def __init__(
        self, open_store: Callable[[], Store], reopen: Callable[[Store], Store], capabilities: Capabilities
    ) -> None:
        super().__init__()
        self.capabilities = capabilities
        self.model = Model()
        self._reopen = reopen
        self._store = open_store()
        self._revisions: dict[str, list[int]] = {}

    def teardown(self) -> None:
        """Close the store at the end of a sequence."""
        self._store.close()

    # Writes

    @rule(stream=_NAMES, drafts=_DRAFTS, expects=_EXPECTATIONS)
    def append(self, stream: str, drafts: list[Draft], expects: str) -> None:
        """Append some events."""
        self._write(Append(stream, tuple(drafts), self._expected_seq(stream, expects)))

    @rule(stream=_NAMES, seq=_SEQS)
    def truncate(self, stream: str, seq: int) -> None:
        """Drop some events, or all, or more than there are."""
        self._write(TruncateThrough(stream, seq))

    @rule(stream=_NAMES, seq=_BEGINNINGS)
    def begin(self, stream: str, seq: int) -> None:
        """Begin a stream after a sequence number."""
        self._write(Begin(stream, seq))

    @rule(key=_NAMES, value=values(), expects=_EXPECTATIONS)
    def put(self, key: str, value: Any, expects: str) -> None:
        """Put a value."""
        self._write(KvPut(key, value, self._expected_revision(key, expects)))

    @rule(key=_NAMES, expects=_EXPECTATIONS)
    def delete(self, key: str, expects: str) -> None:
        """Delete a key."""
        self._write(KvDelete(key, self._expected_revision(key, expects)))

    @precondition(lambda self: self.capabilities.transact)
    @rule(writes=st.lists(_WRITES, min_size=1, max_size=4), checks=st.lists(_CHECKS, max_size=2))
    def transact(self, writes: list[tuple[str, str, str, Any]], checks: list[tuple[type, str, str]]) -> None:
        """Make several writes as one."""
        made = tuple(self._make_write(*write) for write in writes)
        request = Transact(made, tuple(self._make_check(*check) for check in checks))
        given = deepcopy(request)
        answers = ask(self._store, given)
        for write in given.writes:
            _spoil_given(write)
        self._settle(request, answers, self.model.transact(request.writes, request.checks), request.writes)

    # Reads

    @rule(stream=_NAMES, after=_SEQS, until=st.none() | _SEQS, limit=_LIMITS, backwards=st.booleans())
    def read(self, stream: str, after: int, until: int | None, limit: int, backwards: bool) -> None:
        """Read a page of a stream."""
        request = Read(stream, after, until, limit, backwards)
        page = ask(self._store, request)
        self.model.check_page_of_stream(request, page)
        _spoil_events(page.events)

    @rule(
        behind=st.integers(0, 12),
        prefix=_PREFIXES,
        types=st.none() | st.lists(st.sampled_from(["made", "paid", "a%"]), max_size=2).map(tuple),
        limit=_LIMITS,
        short_of=st.none() | st.integers(0, 4),
        backwards=st.booleans(),
    )
    def read_all(
        self,
        behind: int,
        prefix: str,
        types: tuple[str, ...] | None,
        limit: int,
        *,
        short_of: int | None,
        backwards: bool,
    ) -> None:
        """Read a page of all streams, from so many events before the end, or from the start, up to so many."""
        log = self.model.log
        after = log[-behind].position if 0 < behind <= len(log) else 0
        until = None if short_of is None else log[-1 - short_of].position if short_of < len(log) else 0
        request = ReadAll(after, prefix, types, limit, until, backwards)
        page = ask(self._store, request)
        self.model.check_page_of_all(request, page)
        _spoil_events(page.events)

    @rule(prefix=_PREFIXES, after=st.just("") | _NAMES, limit=_LIMITS)
    def list_names(self, prefix: str, after: str, limit: int) -> None:
        """List a page of streams and one of keys."""
        for request, everything in (
            (Streams(prefix, after, limit), self.model.streams()),
            (KvKeys(prefix, after, limit), sorted(self.model.entries)),
        ):
            wanted = [name for name in everything if name.startswith(prefix) and name > after][:limit]
            agree(f"the answer to {request}", ask(self._store, request), wanted)
        entries = KvEntries(prefix, after, limit)
        found = ask(self._store, entries)
        # The keys are those of the last page that was listed.
        agree(f"the keys of {entries}", [key for key, _ in found], wanted)
        agree(f"the entries of {entries}", [entry for _, entry in found], [self.model.entries[key] for key in wanted])
        for _, entry in found:
            spoil(entry.value)

    @rule()
    def look_at_everything(self) -> None:
        """Read every stream, every key and every counter whole."""
        for stream in self.model.streams():
            agree(
                f"the last sequence number of {stream!r}",
                ask(self._store, LastSeq(stream)),
                self.model.last_seq(stream),
            )
            self.read(stream, 0, None, 1_000, backwards=False)
        self.read_all(0, "", None, 1_000, short_of=None, backwards=False)
        self.list_names("", "", 1_000)
        for key in self.model.entries:
            self.get(key)

    @rule(key=_NAMES)
    def get(self, key: str) -> None:
        """Get a key, and ask whether it is there."""
        entry = ask(self._store, KvGet(key))
        agree(f"the entry under {key!r}", entry, self.model.entries.get(key))
        agree(f"whether {key!r} is there", ask(self._store, KvHas(key)), key in self.model.entries)
        spoil(entry.value if entry else None)

    @precondition(lambda self: self.capabilities.wait)
    @rule(prefix=_PREFIXES)
    def wait(self, prefix: str) -> None:
        """Ask for the newest position under a prefix."""
        found = ask(self._store, Wait(0, prefix))
        agree(f"the newest position under {prefix!r}", found, self.model.newest_position(prefix))
        revision, newest = ask(self._store, KvWait(0, prefix)), self.model.newest_revision
        there = (entry.revision for key, entry in self.model.entries.items() if key.startswith(prefix))
        least = max(there, default=0) if prefix else newest
        assert revision >= least, f"the newest revision under {prefix!r}: found {revision}, wanted {least} or higher"
        # Whoever was told it goes on from there, so that the next change must have a higher one.
        self.model.newest_revision = max(newest, revision)

    @precondition(lambda self: self.capabilities.reopen)
    @rule()
    def reopen(self) -> None:
        """Close the store and open it again: nothing changes."""
        self._store = self._reopen(self._store)

    # What is expected

    def _expected_seq(self, stream: str, expects: str) -> int | None:
        last = self.model.last_seq(stream)
        return {"nothing": None, "what is there": last, "what was there": max(last - 1, 0), "that it is new": 0}.get(
            expects, INT64_MAX
        )

    def _expected_revision(self, key: str, expects: str) -> int | None:
        now = self.model.revision(key)
        return {
            "nothing": None,
            "what is there": now,
            "what was there": max((old for old in self._revisions.get(key, []) if old != now), default=0),
            "that it is new": 0,
        }.get(expects, INT64_MAX)

    def _make_write(self, kind: str, name: str, expects: str, content: Any) -> Write:
        if kind == "append":
            return Append(name, tuple(content), self._expected_seq(name, expects))
        if kind == "truncate":
            return TruncateThrough(name, content)
        if kind == "begin":
            return Begin(name, content)
        revision = self._expected_revision(name, expects)
        return KvPut(name, content, revision) if kind == "put" else KvDelete(name, revision)

    def _make_check(self, kind: type, name: str, expects: str) -> Check:
        if kind is ExpectSeq:
            return ExpectSeq(name, self._expected_seq(name, expects) or 0)
        return ExpectRevision(name, self._expected_revision(name, expects) or 0)

    # How answers are compared, and what the store alone could choose is learned

    def _write(self, write: Write) -> None:
        given = deepcopy(write)
        answer = ask(self._store, given)
        _spoil_given(given)
        self._settle(
            write, answer if isinstance(answer, Conflict) else [answer], self.model.transact((write,)), (write,)
        )

    def _settle(
        self, request: object, found: Any, wanted: tuple[Model, list[Any]] | Conflict, writes: tuple[Write, ...]
    ) -> None:
        if isinstance(wanted, Conflict):
            self._agree_on_conflict(request, found, wanted)
            self._look_at(writes)
            return
        assert isinstance(found, list), f"{request}: found {found}, wanted answers"
        agree(f"the number of answers to {request}", len(found), len(writes))
        model, answers = wanted
        for write, answer, expected in zip(writes, found, answers, strict=True):
            if isinstance(write, Append):
                self._note_append(model, write, answer, expected)
            elif isinstance(write, KvPut):
                self._note_put(model, write, answer)
            elif isinstance(write, Begin):
                self._note_beginning(model, write, answer)
            else:
                agree(f"the answer to {write}", answer, expected)
                # The deletion of a key that was there takes a revision too.
                model.newest_revision += isinstance(write, KvDelete) and answer
        self.model = model
        for write, answer in zip(writes, found, strict=True):
            if isinstance(write, Append):
                self._learn_positions(write.stream, answer.first_seq, answer.last_seq)

    def _look_at(self, writes: tuple[Write, ...]) -> None:
        """What these writes would have changed is as it was."""
        for write in writes:
            if isinstance(write, KvPut | KvDelete):
                self.get(write.key)
            elif not isinstance(write, Sql):
                self.read(write.stream, 0, None, 1_000, backwards=False)

    def _agree_on_conflict(self, request: object, found: object, wanted: Conflict) -> None:
        assert isinstance(found, Conflict), f"{request}: found {found}, wanted {wanted}"
        if wanted.actual == PENDING:
            # An earlier write of the same transaction put this key: the store alone knows its revision.
            assert found.actual > self.model.newest_revision, f"{request}: {found} repeats a revision"
            wanted = msgspec.structs.replace(wanted, actual=found.actual)
        agree(f"the answer to {request}", found, wanted)

    def _note_put(self, model: Model, write: KvPut, revision: object) -> None:
        assert type(revision) is int, f"{write}: found {revision}, wanted a revision"
        assert revision > model.newest_revision, f"{write}: {revision} is no higher than {model.newest_revision}"
        model.newest_revision = revision
        self._revisions.setdefault(write.key, []).append(revision)
        if write.key in model.entries:
            # A later write of the same transaction may have put the key again; then its answer comes last.
            model.entries[write.key] = Entry(model.entries[write.key].value, revision)

    def _note_beginning(self, model: Model, write: Begin, position: object) -> None:
        assert type(position) is int, f"{write}: found {position}, wanted a position"
        newest = model.newest_position()
        assert position > newest, f"{write}: {position} is no higher than {newest}"
        index = _index_of(model, write.stream, write.seq)
        model.log[index] = msgspec.structs.replace(model.log[index], position=position)

    def _note_append(self, model: Model, write: Append, found: object, wanted: Numbered) -> None:
        assert isinstance(found, Appended), f"{write}: found {found}, wanted {wanted}"
        agree(f"the numbers given to {write}", Numbered(found.first_seq, found.last_seq), wanted)
        newest = model.newest_position()
        least = newest + len(write.events)
        assert found.position >= least, f"{write}: the last position is {found.position}, wanted {least} or higher"
        for number, draft in enumerate(write.events):
            index = _index_of(model, write.stream, wanted.first_seq + number)
            is_last = number == len(write.events) - 1
            # Until the others are read: positions are integers that grow, so they are no lower than this.
            position = found.position if is_last else newest + number + 1
            at = found.at if draft.at is None else draft.at
            model.log[index] = msgspec.structs.replace(model.log[index], position=position, at=at)

    def _learn_positions(self, stream: str, first: int, last: int) -> None:
        after = first - 1
        while after < last:
            request = Read(stream, after, last)
            page = ask(self._store, request)
            for event in page.events:
                index = _index_of(self.model, event.stream, event.seq)
                self.model.log[index] = msgspec.structs.replace(self.model.log[index], position=event.position)
            self.model.check_page_of_stream(request, page)
            _spoil_events(page.events)
            after = page.next
        positions = [event.position for event in self.model.log]
        assert positions == sorted(set(positions)), f"positions do not grow in the order of the appends: {positions}"


def _check_page(request: Read | ReadAll, page: Page, wanted: list[Event], start: int, end: int) -> None:
    agree(f"the events of {request}", page.events, wanted)
    assert len(page.events) <= request.limit, f"{request} gave {len(page.events)} events"
    low, high = min(start, end), max(start, end)
    assert low <= page.next <= high, f"{request} moved to {page.next}, which is not from {low} to {high}"
    assert page.next == end or page.next != start, f"{request} says that there is more, but did not move on"


def _conflict(
    kind: Literal["stream", "key"], name: str, expected: int | None, actual: int, write: int | None
) -> Conflict | None:
    return None if expected is None or expected == actual else Conflict(kind, name, expected, actual, write)


def _index_of(model: Model, stream: str, seq: int) -> int:
    for index, event in enumerate(model.log):
        if event.stream == stream and event.seq == seq:
            return index
    raise AssertionError(f"stream {stream!r} was never given the sequence number {seq}")


def _spoil_given(write: Write) -> None:
    if isinstance(write, KvPut):
        spoil(write.value)
    elif isinstance(write, Append):
        for draft in write.events:
            spoil(draft.data)
            spoil(draft.meta)


def _spoil_events(events: list[Event]) -> None:
    for event in events:
        spoil(event.data)
        spoil(event.meta)
