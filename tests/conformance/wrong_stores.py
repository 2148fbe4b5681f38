"""Wrong stores, as a table: each is the memory store with one fault, of a kind that real stores have had.

A suite that no wrong store fails proves nothing. A row says in a sentence what its store does, names a fact that must
catch it, and plants the fault. Where a store gains a request, its wrong stores come into the group that fits, or into a
group of its own.
"""

import os
import threading
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

from msgspec import structs

from interpreters.clocks import uuid7
from interpreters.stores.memory import MemoryStore
from interpreters.stores.waiting import Watchers
from interpreters.threads.gates import Gate
from persist_effects.errors import InvalidRequest, StoreClosed, StoreUnavailable, TooLarge
from persist_effects.event import Draft, Event
from persist_effects.machine import Handler, Handlers
from persist_effects.requests import (
    Advance,
    Append,
    Appended,
    Begin,
    Conflict,
    Entry,
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
    NewId,
    Now,
    Page,
    Read,
    ReadAll,
    Request,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
    at_once,
)


class Planted:
    """The memory store, with some rows of its table replaced by a plant."""

    def __init__(self, plant: "Plant") -> None:
        self.healthy = MemoryStore()
        self.rows: Handlers = self.healthy.handlers
        self.closing: Callable[[], None] = self.healthy.close
        self.reopening: Callable[[], None] = lambda: None
        self.gate = Gate()
        """Opened at the end of the test, so that no thread of a wrong wait outlives it."""
        self.handlers: Handlers = {**self.rows, **plant(self)}

    def close(self) -> None:
        self.closing()

    def ask(self, request: Request[Any]) -> Any:
        """What the healthy store answers."""
        return self.rows[type(request)](request)


Plant = Callable[[Planted], Handlers]
"""Makes the rows that are wrong, for one store."""


class Wrong(NamedTuple):
    """A wrong store: what it does, in a sentence; a fact that it breaks, without ``test_``; and its fault."""

    sentence: str
    fact: str
    plant: Plant


replaced = structs.replace


def answered(kind: type[Request[Any]], change: Callable[[Any, Any], Any]) -> Plant:
    """A store that changes its right answers, conflicts left out: by a function of the request and the answer."""

    def plant(store: Planted) -> Handlers:
        def row(request: Any) -> Any:
            answer = store.ask(request)
            return answer if isinstance(answer, Conflict) else change(request, answer)

        return {kind: row}

    return plant


def conflicted(kind: type[Request[Any]], change: Callable[[Conflict], Any]) -> Plant:
    """A store that changes its conflicts."""

    def plant(store: Planted) -> Handlers:
        def row(request: Any) -> Any:
            answer = store.ask(request)
            return change(answer) if isinstance(answer, Conflict) else answer

        return {kind: row}

    return plant


def asked(kind: type[Request[Any]], change: Callable[[Any], Any]) -> Plant:
    """A store that takes a request for another one."""
    return lambda store: {kind: lambda request: store.ask(change(request))}


def row(kind: type[Request[Any]], answer: Callable[[Planted, Any], Any]) -> Plant:
    """A store with a row of its own, a function of the store and the request."""
    return lambda store: {kind: lambda request: answer(store, request)}


def both(*plants: Plant) -> Plant:
    """A store with the rows of several plants."""
    return lambda store: {kind: row for plant in plants for kind, row in plant(store).items()}


def of_events(change: Callable[[Event], Event]) -> Plant:
    """A store that changes each event that is read."""

    def changed(request: Any, page: Page) -> Page:
        return replaced(page, events=[change(event) for event in page.events])

    return both(answered(Read, changed), answered(ReadAll, changed))


def of_drafts(change: Callable[[Draft], Draft]) -> Plant:
    """A store that changes each event before it is written."""
    return asked(Append, lambda request: replaced(request, events=tuple(change(draft) for draft in request.events)))


def of_values(change: Callable[[Any], Any]) -> Plant:
    """A store that keeps another value than it was given, at every depth, in events and under keys."""

    def deep(value: Any) -> Any:
        if isinstance(value, list):
            value = [deep(item) for item in value]
        elif isinstance(value, dict):
            value = {key: deep(item) for key, item in value.items()}
        return change(value)

    return both(
        of_drafts(lambda draft: replaced(draft, data=deep(draft.data), meta=draft.meta and deep(draft.meta))),
        asked(KvPut, lambda request: replaced(request, value=deep(request.value))),
    )


def of_names(change: Callable[[str], str]) -> Plant:
    """A store that takes a name for another one, everywhere."""

    def stream(request: Any) -> Any:
        return replaced(request, stream=change(request.stream))

    def key(request: Any) -> Any:
        return replaced(request, key=change(request.key))

    streams = [asked(kind, stream) for kind in (Append, Read, LastSeq, TruncateThrough)]
    return both(*streams, *(asked(kind, key) for kind in (KvGet, KvHas, KvPut, KvDelete)))


def of_bounds(kind: type[Request[Any]], field: str, by: int, least: int = 0) -> Plant:
    """A store that is off by so much in a number that it is asked with."""

    def moved(request: Any) -> Any:
        number = getattr(request, field)
        return request if number is None else replaced(request, **{field: max(number + by, least)})

    return asked(kind, moved)


# The log: numbers, expectations, times


def _append_in_parts(store: Planted, request: Append) -> Any:
    last = store.ask(LastSeq(request.stream))
    if request.expected not in {None, last}:
        return store.ask(request)
    answers = [store.ask(Append(request.stream, (draft,))) for draft in request.events]
    return replaced(answers[-1], first_seq=last + 1, at=answers[0].at)


def _seq_lost_by_a_conflict(store: Planted, request: Append) -> Any:
    answer = store.ask(request)
    stream = store.healthy._streams.get(request.stream)
    if isinstance(answer, Conflict) and stream is not None:
        stream.dropped += 1
    return answer


def _created_by_a_conflict(store: Planted, request: Append) -> Any:
    answer = store.ask(request)
    if isinstance(answer, Conflict) and request.stream not in store.healthy._streams:
        store.ask(replaced(request, expected=None))
        store.ask(TruncateThrough(request.stream, request.expected or 1))
    return answer


def _head_moved_by_a_conflict(store: Planted, request: Append) -> Any:
    answer = store.ask(request)
    if isinstance(answer, Conflict):
        store.healthy._position += 1
    return answer


def _with_times_of_their_own(store: Planted, request: Append) -> Any:
    answer = store.ask(request)
    if isinstance(answer, Conflict):
        return answer
    return replaced(answer, at=answer.at + 1) if any(draft.at is None for draft in request.events) else answer


APPENDING = [
    Wrong(
        "numbers the events of a stream from 0 on in its answers",
        "the_first_event_of_a_stream_has_sequence_number_1",
        answered(Append, lambda _, answer: replaced(answer, first_seq=answer.first_seq - 1)),
    ),
    Wrong(
        "answers an append with the last sequence number plus one, as the end of a range",
        "the_first_event_of_a_stream_has_sequence_number_1",
        answered(Append, lambda _, answer: replaced(answer, last_seq=answer.last_seq + 1)),
    ),
    Wrong(
        "answers an append of several drafts with the number of the first as the last",
        "drafts_of_one_append_are_numbered_in_their_order",
        answered(Append, lambda _, answer: replaced(answer, last_seq=answer.first_seq)),
    ),
    Wrong(
        "appends several drafts in the reverse order",
        "drafts_of_one_append_are_numbered_in_their_order",
        asked(Append, lambda request: replaced(request, events=request.events[::-1])),
    ),
    Wrong(
        "drops the drafts of an append past the thousandth",
        "an_append_of_many_drafts_is_one_append",
        asked(Append, lambda request: replaced(request, events=request.events[:1_000])),
    ),
    Wrong(
        "writes the drafts of an append one by one, also those before one that is refused",
        "what_cannot_be_stored_is_refused_and_nothing_is_written",
        row(Append, _append_in_parts),
    ),
    Wrong(
        "answers an append with the position of its first event",
        "an_append_answers_with_the_position_of_its_last_event",
        answered(
            Append,
            lambda request, answer: replaced(answer, position=answer.position - len(request.events) + 1),
        ),
    ),
    Wrong(
        "counts positions from 0",
        "positions_start_at_1_or_higher_and_grow_over_all_streams",
        both(
            answered(Append, lambda _, answer: replaced(answer, position=answer.position - 1)),
            of_events(lambda event: replaced(event, position=event.position - 1)),
        ),
    ),
    Wrong(
        "counts positions for each stream by itself",
        "positions_start_at_1_or_higher_and_grow_over_all_streams",
        both(
            answered(Append, lambda _, answer: replaced(answer, position=answer.last_seq)),
            of_events(lambda event: replaced(event, position=event.seq)),
        ),
    ),
    Wrong(
        "ignores what an append expects",
        "an_append_with_a_wrong_expectation_is_a_conflict_that_names_both",
        asked(Append, lambda request: replaced(request, expected=None)),
    ),
    Wrong(
        "takes an expected 0 for no expectation",
        "an_append_with_a_wrong_expectation_is_a_conflict_that_names_both",
        asked(Append, lambda request: replaced(request, expected=request.expected or None)),
    ),
    Wrong(
        "compares the expected sequence number with the next one",
        "an_append_that_expects_the_last_sequence_number_is_made",
        of_bounds(Append, "expected", -1),
    ),
    Wrong(
        "lets an append pass that expects more than there is",
        "an_append_with_a_wrong_expectation_is_a_conflict_that_names_both",
        lambda store: asked(
            Append,
            lambda request: (
                request
                if request.expected is None
                else replaced(request, expected=min(request.expected, store.ask(LastSeq(request.stream))))
            ),
        )(store),
    ),
    Wrong(
        "swaps what was expected and what is there in a conflict of an append",
        "an_append_with_a_wrong_expectation_is_a_conflict_that_names_both",
        conflicted(Append, lambda conflict: replaced(conflict, expected=conflict.actual, actual=conflict.expected)),
    ),
    Wrong(
        "tells the next sequence number in a conflict of an append",
        "an_append_with_a_wrong_expectation_is_a_conflict_that_names_both",
        conflicted(Append, lambda conflict: replaced(conflict, actual=conflict.actual + 1)),
    ),
    Wrong(
        "takes a sequence number for an append that conflicts",
        "an_append_between_others_leaves_no_gap_where_it_conflicted",
        row(Append, _seq_lost_by_a_conflict),
    ),
    Wrong(
        "creates a stream for an append that conflicts",
        "a_conflict_on_an_unknown_stream_does_not_create_it",
        row(Append, _created_by_a_conflict),
    ),
    Wrong(
        "moves the head for an append that conflicts",
        "an_append_that_conflicts_writes_nothing",
        row(Append, _head_moved_by_a_conflict),
    ),
    Wrong(
        "puts its own time in the place of an event's",
        "an_event_keeps_the_time_it_came_with",
        of_drafts(lambda draft: replaced(draft, at=None)),
    ),
    Wrong(
        "takes the time 0 for no time",
        "an_event_keeps_the_time_it_came_with",
        of_drafts(lambda draft: replaced(draft, at=draft.at or None)),
    ),
    Wrong(
        "knows no time before 1970",
        "an_event_keeps_the_time_it_came_with",
        of_drafts(lambda draft: draft if draft.at is None else replaced(draft, at=max(draft.at, 0))),
    ),
    Wrong(
        "keeps times in milliseconds",
        "an_event_keeps_the_time_it_came_with",
        of_events(lambda event: replaced(event, at=event.at // 1_000 * 1_000)),
    ),
    Wrong(
        "reads the clock again for the answer to an append",
        "an_event_without_a_time_has_the_one_that_the_append_answered_with",
        row(Append, _with_times_of_their_own),
    ),
    Wrong(
        "loses the meta of events",
        "an_event_is_read_as_it_was_appended",
        of_drafts(lambda draft: replaced(draft, meta=None)),
    ),
    Wrong(
        "gives an event without meta an empty one",
        "an_event_without_meta_has_none",
        of_events(lambda event: replaced(event, meta=event.meta or {})),
    ),
    Wrong(
        "loses a meta that is empty",
        "empty_meta_stays_an_empty_dict",
        of_events(lambda event: replaced(event, meta=event.meta or None)),
    ),
]


# Reading one stream


def _next_of(page: Page, number: int) -> Page:
    return replaced(page, next=number)


def _oldest_first(request: Read, page: Page) -> Page:
    return replaced(page, events=sorted(page.events, key=lambda event: event.seq))


def _oldest_backwards(store: Planted, request: Read) -> Page:
    page: Page = store.ask(replaced(request, backwards=False))
    if not request.backwards:
        return page
    return replaced(page, events=page.events[::-1], next=request.after)


def _hole_unless(is_lost: Callable[[Any, Page], bool]) -> Callable[[Any, Page], Page]:
    return lambda request, page: replaced(page, hole=None) if is_lost(request, page) else page


def _with_moved_hole(by: int) -> Callable[[Any, Page], Page]:
    def moved(request: Any, page: Page) -> Page:
        hole = page.hole
        return page if hole is None else replaced(page, hole=replaced(hole, first_left=hole.first_left + by))

    return moved


def _hole_wherever_the_reader_is(store: Planted, request: Read) -> Page:
    page: Page = store.ask(request)
    stream = store.healthy._streams.get(request.stream)
    return replaced(page, hole=Hole(stream.name, stream.dropped + 1)) if stream and stream.dropped else page


def _head_of_the_events_left(request: Read, page: Page) -> Page:
    return page if page.events else replaced(page, head=0)


READING = [
    Wrong(
        "gives the event at `after` again",
        "after_and_until_bound_what_is_read",
        of_bounds(Read, "after", -1),
    ),
    Wrong("skips an event after `after`", "after_and_until_bound_what_is_read", of_bounds(Read, "after", +1, 2)),
    Wrong("leaves out the event at `until`", "after_and_until_bound_what_is_read", of_bounds(Read, "until", -1)),
    Wrong("gives the event past `until`", "after_and_until_bound_what_is_read", of_bounds(Read, "until", +1)),
    Wrong(
        "ignores `until`",
        "after_and_until_bound_what_is_read",
        asked(Read, lambda request: replaced(request, until=None)),
    ),
    Wrong(
        "ignores `until` when it is 0",
        "an_empty_range_reads_as_an_empty_page",
        asked(Read, lambda request: replaced(request, until=request.until or None)),
    ),
    Wrong(
        "ignores `after` when reading backwards",
        "after_and_until_bound_what_is_read",
        asked(Read, lambda request: replaced(request, after=0) if request.backwards else request),
    ),
    Wrong("gives one event more than the limit", "a_page_holds_no_more_than_its_limit", of_bounds(Read, "limit", +1)),
    Wrong(
        "gives one event less than the limit, also of one",
        "pages_go_on_where_the_last_one_ended",
        answered(
            Read,
            lambda request, page: (
                page
                if len(page.events) < request.limit or request.backwards
                else replaced(page, events=page.events[:-1], next=max(page.next - 1, request.after))
            ),
        ),
    ),
    Wrong(
        "gives the events backwards in the order of sequence numbers",
        "after_and_until_bound_what_is_read",
        answered(Read, _oldest_first),
    ),
    Wrong(
        "gives the oldest events when the newest were asked for backwards",
        "pages_go_on_backwards_with_until",
        row(Read, _oldest_backwards),
    ),
    Wrong(
        "gives the events of a stream newest first",
        "a_stream_is_read_in_the_order_of_its_sequence_numbers",
        answered(Read, lambda _, page: replaced(page, events=page.events[::-1])),
    ),
    Wrong(
        "tells the head as the end of a page that was cut",
        "a_page_moves_on_to_the_last_event_it_gave",
        answered(Read, lambda request, page: page if request.backwards else _next_of(page, page.head)),
    ),
    Wrong(
        "moves one past the last event of a page",
        "a_page_moves_on_to_the_last_event_it_gave",
        answered(Read, lambda _, page: _next_of(page, page.next + 1) if page.events else page),
    ),
    Wrong(
        "stays at the last event that it gave, short of what was asked for",
        "the_last_page_has_moved_to_the_end_of_what_was_asked_for",
        answered(
            Read,
            lambda request, page: _next_of(page, page.events[-1].seq) if page.events and request.backwards else page,
        ),
    ),
    Wrong(
        "moves to an `until` that is beyond the end",
        "the_end_of_the_stream_does_not_run_ahead_of_its_reader",
        answered(
            Read,
            lambda request, page: page if request.backwards else _next_of(page, max(page.next, request.until or 0)),
        ),
    ),
    Wrong(
        "takes a reader past the end back to the end",
        "past_the_end_there_is_nothing_and_the_reader_stays",
        answered(Read, lambda _, page: _next_of(page, min(page.next, page.head))),
    ),
    Wrong(
        "tells the number of events in the page as the head of the stream",
        "a_page_moves_on_to_the_last_event_it_gave",
        answered(Read, lambda _, page: replaced(page, head=len(page.events))),
    ),
    Wrong(
        "tells the head of a stream that was truncated whole as 0",
        "a_stream_truncated_whole_reads_as_a_hole_up_to_its_head",
        answered(Read, _head_of_the_events_left),
    ),
    Wrong(
        "tells no hole in a stream",
        "a_read_over_truncated_events_names_the_hole",
        answered(Read, _hole_unless(lambda request, page: True)),
    ),
    Wrong(
        "tells no hole when reading backwards",
        "a_read_over_truncated_events_names_the_hole",
        answered(Read, _hole_unless(lambda request, page: request.backwards)),
    ),
    Wrong(
        "tells no hole where no event is left to give",
        "a_read_of_truncated_events_alone_names_the_hole",
        answered(Read, _hole_unless(lambda request, page: not page.events)),
    ),
    Wrong(
        "tells no hole to a reader who has moved past its first event",
        "a_read_over_truncated_events_names_the_hole",
        answered(Read, _hole_unless(lambda request, page: request.after > 0)),
    ),
    Wrong(
        "tells the last event that was dropped as the first one left",
        "a_read_over_truncated_events_names_the_hole",
        answered(Read, _with_moved_hole(-1)),
    ),
    Wrong(
        "tells a hole to a reader who is past it",
        "a_read_past_the_truncated_events_has_no_hole",
        row(Read, _hole_wherever_the_reader_is),
    ),
    Wrong(
        "tells the last sequence number of a stream as that of the next event",
        "an_append_that_conflicts_writes_nothing",
        answered(LastSeq, lambda _, last: last + 1 if last else last),
    ),
    Wrong(
        "answers None for the last sequence number of an unknown stream",
        "the_last_sequence_number_of_an_unknown_stream_is_0",
        answered(LastSeq, lambda _, last: last or None),
    ),
]


# Reading all streams


def _ordered_by_stream(request: ReadAll, page: Page) -> Page:
    return replaced(page, events=sorted(page.events, key=lambda event: (event.stream, event.seq)))


def _filtered_after_the_limit(store: Planted, request: ReadAll) -> Page:
    page: Page = store.ask(replaced(request, prefix="", types=None))
    wanted = [
        event
        for event in page.events
        if event.stream.startswith(request.prefix) and (request.types is None or event.type in request.types)
    ]
    end = wanted[-1].position if wanted and page.next < page.head else page.head
    return replaced(page, events=wanted, next=end)


def _of_types(is_wanted: Callable[[str, tuple[str, ...]], bool]) -> Plant:
    def answer(store: Planted, request: ReadAll) -> Page:
        page: Page = store.ask(replaced(request, types=None))
        if request.types is None:
            return page
        types = request.types
        return replaced(page, events=[event for event in page.events if is_wanted(event.type, types)])

    return row(ReadAll, answer)


def _of_prefix(is_under: Callable[[str, str], bool]) -> Plant:
    """A store that judges prefixes its own way, in every listing."""

    def read_all(store: Planted, request: ReadAll) -> Page:
        page: Page = store.ask(replaced(request, prefix=""))
        return replaced(page, events=[event for event in page.events if is_under(event.stream, request.prefix)])

    def listed(store: Planted, request: Any) -> list[str]:
        names = store.ask(replaced(request, prefix="", limit=1_000))
        return [name for name in names if is_under(name, request.prefix)][: request.limit]

    return both(row(ReadAll, read_all), row(Streams, listed), row(KvKeys, listed))


def _like(name: str, prefix: str) -> bool:
    return len(name) >= len(prefix) and all(
        wanted in {letter, "_"} for letter, wanted in zip(name, prefix, strict=False)
    )


def _still_with_dropped(store: Planted) -> Handlers:
    kept: list[Event] = []

    def truncate(request: TruncateThrough) -> int:
        kept.extend(store.ask(Read(request.stream, until=request.seq, limit=1_000)).events)
        answer: int = store.ask(request)
        return answer

    def read_all(request: ReadAll) -> Page:
        page: Page = store.ask(request)
        late = [event for event in kept if event.position > request.after and event.stream.startswith(request.prefix)]
        return replaced(page, events=sorted([*late, *page.events], key=lambda event: event.position)[: request.limit])

    return {TruncateThrough: truncate, ReadAll: read_all}


READING_ALL = [
    Wrong(
        "gives the event at `after` again, over all streams",
        "reading_goes_on_past_any_position",
        of_bounds(ReadAll, "after", -1),
    ),
    Wrong(
        "skips an event after `after`, over all streams",
        "reading_goes_on_past_any_position",
        asked(ReadAll, lambda request: replaced(request, after=request.after + (0 < request.after < 9))),
    ),
    Wrong(
        "gives one event more than the limit, over all streams",
        "a_page_holds_no_more_than_its_limit",
        of_bounds(ReadAll, "limit", +1),
    ),
    Wrong(
        "gives all events ordered by stream",
        "all_streams_are_read_in_the_order_in_which_they_were_written",
        answered(ReadAll, _ordered_by_stream),
    ),
    Wrong(
        "gives all events newest first",
        "all_streams_are_read_in_the_order_in_which_they_were_written",
        answered(ReadAll, lambda _, page: replaced(page, events=page.events[::-1])),
    ),
    Wrong(
        "counts unwanted events towards a limit, and stays where it has found none",
        "a_limit_counts_the_events_that_are_wanted",
        row(ReadAll, _filtered_after_the_limit),
    ),
    Wrong(
        "tells the head as the end of a page of all streams that was cut",
        "pages_of_all_streams_go_on_where_the_last_one_ended",
        answered(ReadAll, lambda request, page: _next_of(page, max(page.head, request.after))),
    ),
    Wrong(
        "moves one past the last event of a page of all streams",
        "pages_of_all_streams_go_on_where_the_last_one_ended",
        answered(ReadAll, lambda _, page: _next_of(page, page.next + 1) if page.next < page.head else page),
    ),
    Wrong(
        "moves a reader only to the last event that it wanted",
        "a_reader_that_wants_little_still_moves_to_the_head",
        answered(
            ReadAll,
            lambda request, page: _next_of(page, page.events[-1].position if page.events else request.after),
        ),
    ),
    Wrong(
        "takes a reader past the head back to the head",
        "past_the_head_there_is_nothing_and_the_reader_stays",
        answered(ReadAll, lambda _, page: _next_of(page, min(page.next, page.head))),
    ),
    Wrong(
        "tells the newest position under the prefix as the head",
        "the_head_is_the_position_of_the_newest_event",
        answered(
            ReadAll,
            lambda request, page: (
                replaced(page, head=page.events[-1].position) if request.prefix and page.events else page
            ),
        ),
    ),
    Wrong(
        "tells the position that will be given next as the head",
        "an_empty_store_reads_as_an_empty_page",
        answered(ReadAll, lambda _, page: replaced(page, head=page.head + 1)),
    ),
    Wrong(
        "takes a prefix for a path, so that `a/` also finds `a` and `a_b`",
        "a_prefix_keeps_other_streams_out",
        asked(ReadAll, lambda request: replaced(request, prefix=request.prefix.rstrip("/"))),
    ),
    Wrong(
        "ignores the prefix",
        "a_prefix_keeps_other_streams_out",
        asked(ReadAll, lambda request: replaced(request, prefix="")),
    ),
    Wrong(
        "finds under a prefix only the stream of that name",
        "a_prefix_keeps_other_streams_out",
        _of_prefix(lambda name, prefix: not prefix or name == prefix),
    ),
    Wrong(
        "finds prefixes in the midst of names",
        "a_prefix_keeps_other_streams_out",
        _of_prefix(lambda name, prefix: prefix in name),
    ),
    Wrong(
        "folds the case of prefixes",
        "a_prefix_keeps_other_streams_out",
        _of_prefix(lambda name, prefix: name.casefold().startswith(prefix.casefold())),
    ),
    Wrong(
        "takes `_` in a prefix for any letter, as LIKE does",
        "every_prefix_finds_what_starts_with_it_and_nothing_else",
        _of_prefix(_like),
    ),
    Wrong(
        "takes a prefix for the start of a range that ends one letter on, which loses the last letter there is",
        "every_prefix_finds_what_starts_with_it_and_nothing_else",
        _of_prefix(
            lambda name, prefix: not prefix or prefix <= name < prefix[:-1] + chr(min(ord(prefix[-1]) + 1, 0x10FFFF))
        ),
    ),
    Wrong("ignores the types", "types_keep_other_events_out", _of_types(lambda kind, types: True)),
    Wrong(
        "takes an empty tuple of types for all types",
        "types_keep_other_events_out",
        _of_types(lambda kind, types: not types or kind in types),
    ),
    Wrong(
        "takes types for prefixes of types",
        "types_keep_other_events_out",
        _of_types(lambda kind, types: kind.startswith(types)),
    ),
    Wrong(
        "folds the case of types",
        "types_keep_other_events_out",
        _of_types(lambda kind, types: kind.lower() in {wanted.lower() for wanted in types}),
    ),
    Wrong(
        "knows only the first of several types",
        "types_keep_other_events_out",
        _of_types(lambda kind, types: kind in types[:1]),
    ),
    Wrong(
        "tells no hole over all streams",
        "a_read_over_truncated_events_of_a_stream_names_the_hole",
        answered(ReadAll, _hole_unless(lambda request, page: True)),
    ),
    Wrong(
        "tells no hole over all streams where there is a prefix",
        "a_read_over_truncated_events_of_a_stream_names_the_hole",
        answered(ReadAll, _hole_unless(lambda request, page: bool(request.prefix))),
    ),
    Wrong(
        "tells no hole over all streams to a reader who has begun",
        "a_reader_past_the_truncated_events_or_of_other_streams_has_no_hole",
        answered(ReadAll, _hole_unless(lambda request, page: request.after > 0)),
    ),
    Wrong(
        "tells the last event that was dropped as the first one left, over all streams",
        "a_read_over_truncated_events_of_a_stream_names_the_hole",
        answered(ReadAll, _with_moved_hole(-1)),
    ),
    Wrong(
        "tells a hole to a reader of all streams who is just past it",
        "a_reader_past_the_truncated_events_or_of_other_streams_has_no_hole",
        lambda store: answered(
            ReadAll,
            lambda request, page: replaced(
                page, hole=store.ask(replaced(request, after=max(request.after - 1, 0))).hole
            ),
        )(store),
    ),
    Wrong(
        "tells a hole in a stream that is not under the prefix",
        "a_reader_past_the_truncated_events_or_of_other_streams_has_no_hole",
        lambda store: answered(
            ReadAll, lambda request, page: replaced(page, hole=store.ask(replaced(request, prefix="")).hole)
        )(store),
    ),
    Wrong(
        "still has truncated events in the order of all streams",
        "truncated_events_leave_the_order_of_all_streams_too",
        _still_with_dropped,
    ),
    Wrong(
        "gives an event another time among all than in its stream",
        "an_event_is_the_same_in_its_stream_and_among_all",
        answered(
            ReadAll, lambda _, page: replaced(page, events=[replaced(event, at=event.at + 1) for event in page.events])
        ),
    ),
]


# Truncation


def _reuses_seqs(store: Planted, request: TruncateThrough) -> int:
    dropped: int = store.ask(request)
    stream = store.healthy._streams.get(request.stream)
    if stream is not None and not stream.events:
        store.healthy._log = [logged for logged in store.healthy._log if logged.stream is not stream]
        stream.dropped = 0
    return dropped


def _reuses_positions(store: Planted, request: TruncateThrough) -> int:
    dropped: int = store.ask(request)
    healthy = store.healthy
    left = [logged.position for logged in healthy._log if logged.seq > logged.stream.dropped]
    healthy._position = max(left, default=0)
    return dropped


def _truncates_what_will_come(store: Planted) -> Handlers:
    through: dict[str, int] = {}

    def truncate(request: TruncateThrough) -> int:
        dropped: int = store.ask(request)
        through[request.stream] = max(request.seq, through.get(request.stream, 0))
        return dropped

    def append(request: Append) -> Any:
        answer = store.ask(request)
        store.ask(TruncateThrough(request.stream, through.get(request.stream, 0)))
        return answer

    return {TruncateThrough: truncate, Append: append}


def _truncates_neighbours(store: Planted, request: TruncateThrough) -> int:
    dropped: int = store.ask(request)
    for name in store.ask(Streams(request.stream)):
        store.ask(TruncateThrough(name, request.seq))
    return dropped


def _creates_by_truncating(store: Planted, request: TruncateThrough) -> int:
    if request.stream not in store.healthy._streams:
        store.ask(Append(request.stream, (Draft("placeholder", None),)))
        store.ask(TruncateThrough(request.stream, 1))
        return 0
    dropped: int = store.ask(request)
    return dropped


def _renumbers_by_truncating(store: Planted) -> Handlers:
    dropped: dict[str, int] = {}

    def truncate(request: TruncateThrough) -> int:
        count: int = store.ask(request)
        dropped[request.stream] = dropped.get(request.stream, 0) + count
        return count

    def read(request: Read) -> Page:
        page: Page = store.ask(request)
        less = dropped.get(request.stream, 0)
        return replaced(page, events=[replaced(event, seq=event.seq - less) for event in page.events])

    return {TruncateThrough: truncate, Read: read}


def _unlists_a_stream_truncated_whole(store: Planted, request: Streams) -> list[str]:
    return [name for name in store.ask(request) if store.ask(Read(name)).events]


TRUNCATING = [
    Wrong(
        "truncates up to, and without, the sequence number",
        "truncation_drops_the_events_through_a_sequence_number",
        of_bounds(TruncateThrough, "seq", -1),
    ),
    Wrong(
        "truncates one event more, so that 0 drops the first",
        "truncation_drops_the_events_through_a_sequence_number",
        of_bounds(TruncateThrough, "seq", +1),
    ),
    Wrong(
        "drops nothing, but says that it did",
        "truncation_drops_the_events_through_a_sequence_number",
        row(TruncateThrough, lambda store, request: min(request.seq, store.ask(LastSeq(request.stream)))),
    ),
    Wrong(
        "answers a truncation with the sequence number in the place of the count",
        "truncating_again_drops_nothing_more",
        answered(TruncateThrough, lambda request, dropped: request.seq),
    ),
    Wrong(
        "counts what was dropped before once more",
        "truncating_again_drops_nothing_more",
        row(TruncateThrough, lambda store, request: max(store.ask(request), min(2, request.seq))),
    ),
    Wrong(
        "truncates what will come, too, where there was less than it was told to drop",
        "truncation_beyond_the_end_drops_what_there_is_and_not_what_will_come",
        _truncates_what_will_come,
    ),
    Wrong(
        "truncates the streams whose names start with the name, too",
        "truncation_leaves_other_streams_alone",
        row(TruncateThrough, _truncates_neighbours),
    ),
    Wrong(
        "creates a stream by truncating it",
        "truncating_an_unknown_stream_drops_nothing_and_does_not_create_it",
        row(TruncateThrough, _creates_by_truncating),
    ),
    Wrong(
        "numbers the events anew that a truncation left",
        "the_events_left_keep_their_sequence_numbers_and_positions",
        _renumbers_by_truncating,
    ),
    Wrong(
        "counts a stream by the events that are left of it",
        "truncation_never_lowers_the_last_sequence_number",
        row(LastSeq, lambda store, request: len(store.ask(Read(request.stream)).events)),
    ),
    Wrong(
        "starts a stream again from 1 once it was truncated whole",
        "a_truncated_stream_goes_on_counting",
        row(TruncateThrough, _reuses_seqs),
    ),
    Wrong(
        "gives the positions of truncated events again",
        "positions_go_on_growing_after_a_truncation",
        row(TruncateThrough, _reuses_positions),
    ),
    Wrong(
        "lists a stream no more that was truncated whole",
        "a_truncated_stream_is_still_listed",
        row(Streams, _unlists_a_stream_truncated_whole),
    ),
]


# Listings


def _in_the_order_of_writing(store: Planted) -> Handlers:
    return {
        Streams: lambda request: _listed(request, list(store.healthy._streams)),
        KvKeys: lambda request: _listed(request, list(store.healthy._entries)),
    }


def _listed(request: Any, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(request.prefix) and name > request.after][: request.limit]


def _sorted_by(key: Callable[[str], Any]) -> Plant:
    def answer(store: Planted, request: Any) -> list[str]:
        every = store.ask(replaced(request, prefix="", after="", limit=1_000))
        return _listed(request, sorted(every, key=key))

    return both(row(Streams, answer), row(KvKeys, answer))


def _from_a_cache(kind: type[Request[Any]]) -> Plant:
    def plant(store: Planted) -> Handlers:
        cache: dict[Any, list[str]] = {}
        return {kind: lambda request: cache.setdefault(request, store.ask(request))}

    return plant


def _after_inclusive(store: Planted, request: Any) -> list[str]:
    every = store.ask(replaced(request, after="", limit=1_000))
    return [name for name in every if name >= request.after][: request.limit]


def _counts_tombstones(store: Planted) -> Handlers:
    ever: set[str] = set()

    def put(request: KvPut) -> Any:
        ever.add(request.key)
        return store.ask(request)

    def keys(request: KvKeys) -> list[str]:
        return [key for key in _listed(request, sorted(ever)) if store.ask(KvHas(key))]

    return {KvPut: put, KvKeys: keys}


def _lists_a_key_for_each_put(store: Planted) -> Handlers:
    puts: list[str] = []

    def put(request: KvPut) -> Any:
        puts.append(request.key)
        return store.ask(request)

    return {
        KvPut: put,
        KvKeys: lambda request: [key for key in _listed(request, sorted(puts)) if store.ask(KvHas(key))],
    }


LISTING = [
    Wrong(
        "lists names in the order in which they came",
        "streams_are_listed_once_sorted_by_code_point",
        _in_the_order_of_writing,
    ),
    Wrong(
        "sorts names without regard to case",
        "streams_are_listed_once_sorted_by_code_point",
        _sorted_by(lambda name: (name.casefold(), name)),
    ),
    Wrong(
        "sorts names by UTF-16 units",
        "streams_are_listed_once_sorted_by_code_point",
        _sorted_by(lambda name: name.encode("utf-16-be")),
    ),
    Wrong(
        "lists one stream more than the limit",
        "streams_are_listed_page_by_page",
        of_bounds(Streams, "limit", +1),
    ),
    Wrong(
        "lists one stream less than the limit", "streams_are_listed_page_by_page", of_bounds(Streams, "limit", -1, 1)
    ),
    Wrong("lists one key more than the limit", "keys_are_listed_page_by_page", of_bounds(KvKeys, "limit", +1)),
    Wrong("lists one key less than the limit", "keys_are_listed_page_by_page", of_bounds(KvKeys, "limit", -1, 1)),
    Wrong("lists the stream at `after` again", "streams_are_listed_page_by_page", row(Streams, _after_inclusive)),
    Wrong("lists the key at `after` again", "keys_are_listed_page_by_page", row(KvKeys, _after_inclusive)),
    Wrong(
        "lists keys in the reverse order",
        "keys_are_listed_once_sorted_by_code_point",
        answered(KvKeys, lambda _, names: names[::-1]),
    ),
    Wrong(
        "lists streams among the keys",
        "an_empty_store_has_no_keys",
        row(KvKeys, lambda store, request: sorted({*store.ask(request), *store.ask(Streams(*_page_of(request)))})),
    ),
    Wrong(
        "lists keys among the streams",
        "an_empty_store_has_no_streams",
        row(Streams, lambda store, request: sorted({*store.ask(request), *store.ask(KvKeys(*_page_of(request)))})),
    ),
    Wrong(
        "lists what was there when it was first asked",
        "an_append_to_a_listed_store_is_listed_next_time",
        _from_a_cache(Streams),
    ),
    Wrong(
        "lists keys after the first listing as they were then, and gives every reader the same list",
        "a_key_put_again_is_listed_once",
        _from_a_cache(KvKeys),
    ),
    Wrong(
        "counts deleted keys towards a page",
        "deleted_keys_do_not_count_towards_a_page",
        _counts_tombstones,
    ),
    Wrong("lists a key once for each put", "a_key_put_again_is_listed_once", _lists_a_key_for_each_put),
]


def _page_of(request: Any) -> tuple[str, str, int]:
    return request.prefix, request.after, request.limit


# Keys and values


def _counts_revisions_for_each_key(store: Planted) -> Handlers:
    counts: dict[str, int] = {}

    def put(request: KvPut) -> Any:
        answer = store.ask(request)
        if isinstance(answer, Conflict):
            return answer
        counts[request.key] = counts.get(request.key, 0) + 1
        return counts[request.key]

    def get(request: KvGet) -> Any:
        entry = store.ask(request)
        return None if entry is None else Entry(entry.value, counts[request.key])

    return {KvPut: put, KvGet: get}


def _keeps_the_revision_of_the_same_value(store: Planted, request: KvPut) -> Any:
    entry = store.ask(KvGet(request.key))
    same = entry is not None and request.expected in {None, entry.revision} and entry.value == request.value
    return entry.revision if same else store.ask(request)


def _deletes_by_none(store: Planted) -> Handlers:
    gone: set[str] = set()

    def put(request: KvPut) -> Any:
        gone.discard(request.key)
        return store.ask(request)

    def delete(request: KvDelete) -> Any:
        entry = store.ask(KvGet(request.key))
        was_there = entry is not None and request.key not in gone
        if was_there and request.expected in {None, entry.revision}:
            store.ask(KvPut(request.key, None))
            gone.add(request.key)
            return True
        return store.ask(request)

    return {
        KvPut: put,
        KvDelete: delete,
        KvGet: lambda request: None if request.key in gone else store.ask(request),
        KvHas: lambda request: request.key not in gone and store.ask(request),
        KvKeys: lambda request: [key for key in store.ask(request) if key not in gone],
    }


def _reuses_revisions(store: Planted, request: KvDelete) -> Any:
    answer = store.ask(request)
    stored = store.healthy._entries.values()
    store.healthy._revision = max((revision for _, revision in stored), default=0)
    return answer


def _clears_by_deleting(store: Planted, request: KvDelete) -> Any:
    answer = store.ask(request)
    for key in store.ask(KvKeys(request.key)):
        store.ask(KvDelete(key))
    return answer


def _expecting_less(store: Planted, request: Any) -> Any:
    entry = store.ask(KvGet(request.key))
    is_older = entry is not None and request.expected is not None and 0 < request.expected < entry.revision
    return store.ask(replaced(request, expected=None) if is_older else request)


def _writes_before_it_looks(store: Planted, request: KvPut) -> Any:
    answer = store.ask(request)
    if isinstance(answer, Conflict):
        store.ask(replaced(request, expected=None))
    return answer


KEYS = [
    Wrong(
        "answers a put with the revision before",
        "a_value_put_is_there_with_the_revision_that_was_answered",
        answered(KvPut, lambda _, revision: revision - 1),
    ),
    Wrong(
        "gives an entry the revision that comes next",
        "a_value_put_is_there_with_the_revision_that_was_answered",
        answered(KvGet, lambda _, entry: entry and Entry(entry.value, entry.revision + 1)),
    ),
    Wrong(
        "answers a put with True",
        "a_value_put_is_there_with_the_revision_that_was_answered",
        answered(KvPut, lambda _, revision: True),
    ),
    Wrong(
        "counts revisions for each key by itself",
        "revisions_grow_over_all_keys",
        _counts_revisions_for_each_key,
    ),
    Wrong(
        "takes no revision for a value that is there already",
        "putting_the_same_value_again_is_a_new_revision",
        row(KvPut, _keeps_the_revision_of_the_same_value),
    ),
    Wrong(
        "gives the revision again of a key that was deleted",
        "a_key_deleted_and_put_again_never_repeats_a_revision",
        row(KvDelete, _reuses_revisions),
    ),
    Wrong(
        "takes the value None for an absent key",
        "none_is_a_value",
        answered(KvGet, lambda _, entry: entry if entry and entry.value is not None else None),
    ),
    Wrong(
        "says of a key with an empty value that it is not there",
        "none_is_a_value",
        row(KvHas, lambda store, request: bool((entry := store.ask(KvGet(request.key))) and entry.value)),
    ),
    Wrong(
        "keeps the first value that was put",
        "a_value_put_again_replaces_the_first",
        row(
            KvPut,
            lambda store, request: store.ask(
                request if (entry := store.ask(KvGet(request.key))) is None else replaced(request, value=entry.value)
            ),
        ),
    ),
    Wrong(
        "ignores what a put expects",
        "a_put_with_a_wrong_expectation_is_a_conflict_that_names_both",
        asked(KvPut, lambda request: replaced(request, expected=None)),
    ),
    Wrong(
        "takes an expected revision 0 for no expectation",
        "a_put_with_a_wrong_expectation_is_a_conflict_that_names_both",
        asked(KvPut, lambda request: replaced(request, expected=request.expected or None)),
    ),
    Wrong(
        "compares the expected revision with the next one",
        "a_put_that_expects_the_revision_is_made",
        of_bounds(KvPut, "expected", -1),
    ),
    Wrong(
        "lets a put pass that expects an older revision",
        "a_put_with_a_wrong_expectation_is_a_conflict_that_names_both",
        row(KvPut, _expecting_less),
    ),
    Wrong(
        "swaps what was expected and what is there in a conflict of a put",
        "a_put_with_a_wrong_expectation_is_a_conflict_that_names_both",
        conflicted(KvPut, lambda conflict: replaced(conflict, expected=conflict.actual, actual=conflict.expected)),
    ),
    Wrong(
        "says conflict, and puts the value nevertheless",
        "a_put_with_a_wrong_expectation_is_a_conflict_that_names_both",
        row(KvPut, _writes_before_it_looks),
    ),
    Wrong(
        "raises no conflict for a key that is absent",
        "an_absent_key_conflicts_with_revision_0",
        row(
            KvPut,
            lambda store, request: store.ask(
                request if store.ask(KvHas(request.key)) else replaced(request, expected=None)
            ),
        ),
    ),
    Wrong(
        "ignores what a deletion expects",
        "an_absent_key_conflicts_with_revision_0",
        asked(KvDelete, lambda request: replaced(request, expected=None)),
    ),
    Wrong(
        "compares the revision that a deletion expects with the next one",
        "a_delete_that_expects_the_revision_is_made",
        of_bounds(KvDelete, "expected", -1),
    ),
    Wrong(
        "lets a deletion pass that expects an older revision",
        "a_delete_with_a_wrong_expectation_is_a_conflict_and_deletes_nothing",
        row(KvDelete, _expecting_less),
    ),
    Wrong(
        "says of every deletion that the key was there",
        "deleting_an_absent_key_says_that_it_was_not_there",
        answered(KvDelete, lambda _, was_there: True),
    ),
    Wrong(
        "deletes the keys that start with the key, too",
        "a_key_leaves_its_neighbours_alone",
        row(KvDelete, _clears_by_deleting),
    ),
    Wrong(
        "deletes a key by putting None, and still compares with the revision of that",
        "an_absent_key_conflicts_with_revision_0",
        _deletes_by_none,
    ),
    Wrong(
        "still has a deleted key for who asks whether it is there",
        "a_deleted_key_is_gone",
        lambda store: {
            KvPut: (ever := _Remembering(store)).put,
            KvHas: lambda request: request.key in ever.keys,
        },
    ),
    Wrong(
        "keeps streams and keys under one name",
        "streams_and_keys_of_one_name_do_not_meet",
        row(
            KvPut,
            lambda store, request: (
                store.ask(Append(request.key, (Draft("made", 0),), 2**62))
                if request.expected == 0 and store.ask(LastSeq(request.key))
                else store.ask(request)
            ),
        ),
    ),
]


class _Remembering:
    """Every key that was ever put."""

    def __init__(self, store: Planted) -> None:
        self.keys: set[str] = set()
        self._store = store

    def put(self, request: KvPut) -> Any:
        self.keys.add(request.key)
        return self._store.ask(request)


# Names


def _gives_folded_names_back(conflict: Conflict) -> Conflict:
    field = "name" if hasattr(conflict, "name") else "stream_or_key"
    return replaced(conflict, **{field: getattr(conflict, field).strip().lower()})


NAMES = [
    Wrong("folds the case of names", "a_key_leaves_its_neighbours_alone", of_names(str.casefold)),
    Wrong(
        "normalises names to NFC",
        "a_stream_may_have_any_valid_name_and_meets_no_other",
        of_names(lambda name: unicodedata.normalize("NFC", name)),
    ),
    Wrong(
        "trims names",
        "a_stream_may_have_any_valid_name_and_meets_no_other",
        of_names(lambda name: name.strip() or name),
    ),
    Wrong(
        "cuts names at 255 bytes",
        "a_stream_may_have_any_valid_name_and_meets_no_other",
        of_names(lambda name: name.encode()[:255].decode(errors="ignore")),
    ),
    Wrong(
        "takes a dot in a name for a slash",
        "a_stream_may_have_any_valid_name_and_meets_no_other",
        of_names(lambda name: name.replace(".", "/")),
    ),
    Wrong(
        "resolves names as paths",
        "a_stream_may_have_any_valid_name_and_meets_no_other",
        of_names(lambda name: name.rstrip("/") or name),
    ),
    Wrong(
        "keeps names in Latin letters with question marks for the others",
        "a_stream_may_have_any_valid_name_and_meets_no_other",
        of_names(lambda name: name.encode("latin-1", "replace").decode("latin-1")),
    ),
    Wrong(
        "trims event types",
        "an_event_type_may_have_any_valid_name_and_meets_no_other",
        of_drafts(lambda draft: replaced(draft, type=draft.type.strip() or "none")),
    ),
    Wrong(
        "folds the case of the name that a conflict gives back",
        "a_conflict_gives_the_name_back_as_it_was",
        conflicted(Append, _gives_folded_names_back),
    ),
]


# Values


def _every(kind: type, change: Callable[[Any], Any]) -> Plant:
    return of_values(lambda value: change(value) if type(value) is kind else value)


def _shares_its_values(store: Planted) -> Handlers:
    cache: dict[int, Any] = {}

    def put(request: KvPut) -> Any:
        answer = store.ask(request)
        if isinstance(answer, int):
            cache[answer] = request.value
        return answer

    def transact(request: Transact) -> Any:
        answers = store.ask(request)
        if isinstance(answers, list):
            for write, answer in zip(request.writes, answers, strict=True):
                if isinstance(write, KvPut):
                    cache[answer] = write.value
        return answers

    def get(request: KvGet) -> Entry | None:
        entry: Entry | None = store.ask(request)
        return None if entry is None else Entry(cache[entry.revision], entry.revision)

    return {KvPut: put, Transact: transact, KvGet: get}


def _caches_what_was_read(store: Planted) -> Handlers:
    cache: dict[int, Event] = {}

    def cached(request: Any) -> Page:
        page: Page = store.ask(request)
        return replaced(page, events=[cache.setdefault(event.position, event) for event in page.events])

    return {Read: cached, ReadAll: cached}


def _shares_its_meta(store: Planted) -> Handlers:
    given: dict[tuple[str, int], Any] = {}

    def append(request: Append) -> Any:
        answer = store.ask(request)
        if isinstance(answer, Appended):
            for seq, draft in enumerate(request.events, answer.first_seq):
                given[request.stream, seq] = draft.meta
        return answer

    def read(request: Read) -> Page:
        page: Page = store.ask(request)
        events = [replaced(event, meta=given.get((event.stream, event.seq), event.meta)) for event in page.events]
        return replaced(page, events=events)

    return {Append: append, Read: read}


def _with_a_limit_off_by(by: int) -> Plant:
    def plant(store: Planted) -> Handlers:
        store.healthy._payload_limit_bytes += by
        return {}

    return plant


def _cuts_what_is_too_large(store: Planted, request: KvPut) -> Any:
    try:
        return store.ask(request)
    except TooLarge:
        return store.ask(replaced(request, value=request.value[:1_000]))


VALUES = [
    Wrong(
        "keeps True as 1",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(bool, int),
    ),
    Wrong(
        "keeps a whole number with a point as an integer",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(float, lambda number: int(number) if number.is_integer() else number),
    ),
    Wrong(
        "keeps integers as doubles, as JSON in a browser does",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(int, lambda number: min(int(float(number)), 2**64 - 1)),
    ),
    Wrong(
        "keeps integers of 64 bits with a sign, so that larger ones turn negative",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(int, lambda number: number - 2**64 if number >= 2**63 else number),
    ),
    Wrong(
        "keeps a negative zero as zero",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(float, lambda number: number + 0.0),
    ),
    Wrong(
        "keeps NaN as None",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(float, lambda number: None if number != number else number),  # noqa: PLR0124 - what NaN is
    ),
    Wrong(
        "keeps bytes as text",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(bytes, lambda data: data.decode("latin-1")),
    ),
    Wrong(
        "ends text at a NUL",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(str, lambda text: text.split("\x00")[0]),
    ),
    Wrong(
        "normalises text",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(str, lambda text: unicodedata.normalize("NFC", text)),
    ),
    Wrong(
        "sorts the keys of a dict",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(dict, lambda items: dict(sorted(items.items()))),
    ),
    Wrong(
        "keeps an empty list as None",
        "every_kind_of_value_is_read_back_the_same_from_an_event",
        _every(list, lambda items: items or None),
    ),
    Wrong(
        "keeps a tuple as a list in the place of refusing it",
        "what_cannot_be_stored_is_refused_and_nothing_is_written",
        _every(tuple, list),
    ),
    Wrong(
        "keeps a bytearray as bytes in the place of refusing it",
        "what_cannot_be_stored_is_refused_and_nothing_is_written",
        _every(bytearray, bytes),
    ),
    Wrong(
        "keeps keys of a dict that are no text as text",
        "what_cannot_be_stored_is_refused_and_nothing_is_written",
        _every(dict, lambda items: {str(key): item for key, item in items.items()}),
    ),
    Wrong(
        "keeps the caller's own object in a cache, and gives it to every reader",
        "changing_what_was_given_to_the_store_changes_nothing_stored",
        _shares_its_values,
    ),
    Wrong(
        "keeps the caller's own meta",
        "changing_what_was_given_to_the_store_changes_nothing_stored",
        _shares_its_meta,
    ),
    Wrong(
        "gives every reader the same events from a cache",
        "changing_what_was_read_changes_nothing_stored",
        _caches_what_was_read,
    ),
    Wrong(
        "refuses a payload of just the limit",
        "a_payload_at_the_limit_is_stored",
        _with_a_limit_off_by(-1),
    ),
    Wrong(
        "takes a payload one byte over the limit",
        "a_payload_over_the_limit_is_refused_and_nothing_is_written",
        _with_a_limit_off_by(+1),
    ),
    Wrong(
        "cuts a value that is too large",
        "a_payload_over_the_limit_is_refused_and_nothing_is_written",
        row(KvPut, _cuts_what_is_too_large),
    ),
]


# Transactions


def _transacts_in_part(store: Planted, request: Transact) -> Any:
    conflict = _by_checks_alone(store, request)
    if conflict is not None:
        return conflict
    answers = []
    for write in request.writes:
        answer = store.ask(write)
        if isinstance(answer, Conflict):
            return answer
        answers.append(answer)
    return answers


def _by_checks_alone(store: Planted, request: Transact) -> Conflict | None:
    """The conflict of the checks, found by a transaction that changes nothing."""
    answer = store.ask(Transact((TruncateThrough("nothing", 0),), request.checks))
    return answer if isinstance(answer, Conflict) else None


def _checks_what_is_there_then(store: Planted, request: Transact) -> Any:
    """Each check becomes what the first write to the same name expects, where there is one: after the others."""
    seqs = {check.stream: check.expected for check in request.checks if isinstance(check, ExpectSeq)}
    answers = store.ask(replaced(request, checks=()))
    for stream, expected in seqs.items():
        last = store.ask(LastSeq(stream))
        if last != expected:
            return store.ask(Append(stream, (Draft("made", 0),), expected))
    return answers


def _with_writes(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Plant:
    return asked(Transact, lambda request: replaced(request, writes=change(request.writes)))


def _last_conflict(store: Planted, request: Transact) -> Any:
    answer = store.ask(request)
    if not isinstance(answer, Conflict) or request.checks:
        return answer
    backwards = store.ask(replaced(request, writes=request.writes[::-1]))
    return backwards if isinstance(backwards, Conflict) else answer


def _loses_a_revision_by_a_conflict(store: Planted, request: Transact) -> Any:
    answer = store.ask(request)
    if isinstance(answer, Conflict):
        for write in request.writes:
            entry = store.ask(KvGet(write.key)) if isinstance(write, KvPut) else None
            if entry is not None:
                store.ask(KvPut(write.key, entry.value))
    return answer


def _keeps_the_appends_of_a_conflict(store: Planted, request: Transact) -> Any:
    answer = store.ask(request)
    if isinstance(answer, Conflict):
        for write in request.writes:
            if isinstance(write, Append) and write.expected is None:
                store.ask(write)
                break
    return answer


def _conflict_before_refusal(store: Planted, request: Transact) -> Any:
    """Stops at the first conflict, so that what comes after it is never looked at."""
    conflict = _by_checks_alone(store, request)
    if conflict is not None:
        return conflict
    for end in range(1, len(request.writes)):
        part = Transact(request.writes[:end])
        try:
            answer = store.ask(Transact((*part.writes, KvPut("never", 0, 2**62))))
        except (InvalidRequest, TooLarge):
            break
        if answer != store.ask(Transact((KvPut("never", 0, 2**62),))):
            return answer
    return store.ask(request)


def _append_conflicts_first(store: Planted, request: Append) -> Any:
    empty = replaced(request, events=(Draft("made", None),))
    last = store.ask(LastSeq(request.stream))
    return store.ask(empty if request.expected not in {None, last} else request)


def _put_conflicts_first(store: Planted, request: KvPut) -> Any:
    entry = store.ask(KvGet(request.key))
    revision = entry.revision if entry else 0
    return store.ask(replaced(request, value=None) if request.expected not in {None, revision} else request)


TRANSACTING = [
    Wrong(
        "makes the writes of a transaction one by one, and stops at the first that conflicts",
        "a_transaction_that_conflicts_writes_nothing",
        row(Transact, _transacts_in_part),
    ),
    Wrong(
        "keeps the first append of a transaction that conflicts",
        "a_transaction_that_conflicts_writes_nothing",
        row(Transact, _keeps_the_appends_of_a_conflict),
    ),
    Wrong(
        "gives a key a new revision by a transaction that conflicts",
        "a_write_that_contradicts_one_before_it_is_a_conflict",
        row(Transact, _loses_a_revision_by_a_conflict),
    ),
    Wrong(
        "ignores the checks of a transaction",
        "a_check_that_fails_writes_nothing",
        asked(Transact, lambda request: replaced(request, checks=())),
    ),
    Wrong(
        "makes only the first check of a transaction",
        "checks_are_made_before_all_writes_and_on_what_was_there_before",
        asked(Transact, lambda request: replaced(request, checks=request.checks[:1])),
    ),
    Wrong(
        "makes the checks of streams on what the writes left",
        "a_check_that_fails_writes_nothing",
        row(Transact, _checks_what_is_there_then),
    ),
    Wrong(
        "makes the writes of a transaction in the reverse order",
        "positions_and_revisions_grow_in_the_order_of_the_writes",
        both(
            _with_writes(lambda writes: writes[::-1]),
            lambda store: {
                Transact: lambda request: (
                    answers[::-1]
                    if isinstance(answers := store.ask(replaced(request, writes=request.writes[::-1])), list)
                    else answers
                )
            },
        ),
    ),
    Wrong(
        "answers the writes of a transaction in the reverse order",
        "a_transaction_makes_all_its_writes_and_answers_each",
        answered(Transact, lambda _, answers: answers[::-1]),
    ),
    Wrong(
        "answers only the last write of a transaction",
        "a_transaction_makes_all_its_writes_and_answers_each",
        answered(Transact, lambda _, answers: answers[-1:]),
    ),
    Wrong(
        "makes only the first two writes of a transaction",
        "a_transaction_makes_all_its_writes_and_answers_each",
        _with_writes(lambda writes: writes[:2]),
    ),
    Wrong(
        "makes one write of several to one key: the last",
        "a_write_that_contradicts_one_before_it_is_a_conflict",
        _with_writes(
            lambda writes: tuple(
                write
                for write, later in zip(writes, [*writes[1:], None], strict=True)
                if not (isinstance(write, KvPut) and isinstance(later, KvPut) and write.key == later.key)
            )
        ),
    ),
    Wrong(
        "answers a transaction with the last conflict",
        "the_first_conflict_is_the_answer",
        row(Transact, _last_conflict),
    ),
    Wrong(
        "tells a conflict of an append before it refuses what cannot be stored",
        "what_cannot_be_stored_is_refused_also_where_it_would_conflict",
        row(Append, _append_conflicts_first),
    ),
    Wrong(
        "tells a conflict of a put before it refuses what cannot be stored",
        "what_cannot_be_stored_is_refused_also_where_it_would_conflict",
        row(KvPut, _put_conflicts_first),
    ),
    Wrong(
        "tells a conflict of a transaction before it refuses what comes later and cannot be stored",
        "a_value_that_cannot_be_stored_is_refused_also_after_a_conflict",
        row(Transact, _conflict_before_refusal),
    ),
]


# Reading all streams up to a position, and backwards


def _newest_of_the_oldest(store: Planted, request: ReadAll) -> Page:
    if not request.backwards:
        page: Page = store.ask(request)
        return page
    page = store.ask(replaced(request, backwards=False))
    return replaced(page, events=page.events[::-1], next=request.after)


def _page_backwards(change: Callable[[ReadAll, Page], Page]) -> Plant:
    return answered(ReadAll, lambda request, page: change(request, page) if request.backwards else page)


def _without_hole_where(is_so: Callable[[ReadAll], object]) -> Plant:
    return answered(ReadAll, lambda request, page: replaced(page, hole=None) if is_so(request) else page)


BACKWARDS = [
    Wrong(
        "reads all streams forwards when it is asked for the newest events",
        "all_streams_are_read_backwards_the_newest_event_first",
        asked(ReadAll, lambda request: replaced(request, backwards=False)),
    ),
    Wrong(
        "gives a page of all streams backwards in the order of positions",
        "all_streams_are_read_backwards_the_newest_event_first",
        _page_backwards(lambda _, page: replaced(page, events=page.events[::-1])),
    ),
    Wrong(
        "gives the oldest events of all when the newest were asked for",
        "pages_backwards_go_on_where_the_last_one_ended",
        row(ReadAll, _newest_of_the_oldest),
    ),
    Wrong(
        "tells the position of the last event that it gave backwards, so that it is given again",
        "pages_backwards_go_on_where_the_last_one_ended",
        _page_backwards(lambda request, page: _next_of(page, page.next + 1) if page.next > request.after else page),
    ),
    Wrong(
        "leaves one event out between two pages backwards",
        "pages_backwards_go_on_where_the_last_one_ended",
        _page_backwards(lambda request, page: _next_of(page, max(page.next - 1, request.after))),
    ),
    Wrong(
        "reads backwards to the beginning, past the position that it was to stop at",
        "pages_backwards_go_on_where_the_last_one_ended",
        asked(ReadAll, lambda request: replaced(request, after=0) if request.backwards else request),
    ),
    Wrong(
        "leaves the event at `until` out of all streams",
        "until_is_the_last_position_that_is_read",
        asked(
            ReadAll, lambda request: replaced(request, until=max(request.until - 1, 0)) if request.until else request
        ),
    ),
    Wrong(
        "does not know `until` of all streams",
        "until_is_the_last_position_that_is_read",
        asked(ReadAll, lambda request: replaced(request, until=None)),
    ),
    Wrong(
        "moves a reader of all streams to the head, past its `until`",
        "until_is_the_last_position_that_is_read",
        answered(ReadAll, lambda request, page: page if request.backwards else _next_of(page, page.head)),
    ),
    Wrong(
        "moves a reader to an `until` that is ahead of all events",
        "until_is_the_last_position_that_is_read",
        answered(
            ReadAll,
            lambda request, page: page if request.backwards else _next_of(page, max(page.next, request.until or 0)),
        ),
    ),
    Wrong(
        "takes a reader of an empty range back to its `until`",
        "an_empty_range_of_positions_reads_as_an_empty_page",
        answered(ReadAll, lambda request, page: _next_of(page, min(page.next, request.last_position(page.head)))),
    ),
    Wrong(
        "tells no hole of all streams backwards",
        "a_range_of_which_events_were_truncated_names_the_hole",
        _without_hole_where(lambda request: request.backwards),
    ),
    Wrong(
        "tells no hole of all streams up to a position",
        "a_range_of_which_events_were_truncated_names_the_hole",
        _without_hole_where(lambda request: request.until),
    ),
]


# Beginning


def _begins_one_later(store: Planted, request: Begin) -> Any:
    return store.ask(replaced(request, seq=request.seq + 1))


def _begins_where_it_is_used(store: Planted, request: Begin) -> Any:
    answer = store.ask(request)
    return store.ask(ReadAll()).head if isinstance(answer, Conflict) else answer


def _begins_by_placeholders(store: Planted, request: Begin) -> Any:
    drafts = tuple(Draft("placeholder", None) for _ in range(min(request.seq, 100)))
    answer = store.ask(Append(request.stream, drafts, 0))
    return answer if isinstance(answer, Conflict) else answer.position


def _tells_no_hole_of_what_has_begun(store: Planted) -> Handlers:
    begun: set[str] = set()

    def begin(request: Begin) -> Any:
        begun.add(request.stream)
        return store.ask(request)

    def read(request: Any) -> Page:
        page: Page = store.ask(request)
        return replaced(page, hole=None) if page.hole and page.hole.stream in begun else page

    return {Begin: begin, Read: read, ReadAll: read}


def _begins_at_the_position_before(store: Planted) -> Handlers:
    def begin(request: Begin) -> Any:
        answer = store.ask(request)
        if not isinstance(answer, Conflict):
            healthy = store.healthy
            stream = healthy._streams[request.stream]
            healthy._position = stream.last_position = stream.dropped_position = answer - 1
            answer -= 1
        return answer

    return {Begin: begin}


def _begins_in_spite_of_a_conflict(store: Planted, request: Transact) -> Any:
    answers = store.ask(request)
    if isinstance(answers, Conflict):
        for write in request.writes:
            if isinstance(write, Begin):
                store.ask(write)
    return answers


def _advances_the_other_number(store: Planted, request: Advance) -> None:
    store.ask(Advance(request.revision, request.position))


def _advances_by_an_event(store: Planted, request: Advance) -> None:
    store.ask(request)
    store.ask(Append("advance", (Draft("advanced", None),)))


def _advances_one_too_little(store: Planted, request: Advance) -> None:
    store.ask(Advance(max(request.position - 1, 0), max(request.revision - 1, 0)))


ADVANCING = [
    Wrong(
        "says that it goes on above, and does not",
        "what_is_written_after_an_advance_has_numbers_above_it",
        row(Advance, lambda store, request: None),
    ),
    Wrong(
        "takes a position for a revision",
        "what_is_written_after_an_advance_has_numbers_above_it",
        row(Advance, _advances_the_other_number),
    ),
    Wrong(
        "goes on with the number that was told, not above it",
        "what_is_written_after_an_advance_has_numbers_above_it",
        row(Advance, _advances_one_too_little),
    ),
    Wrong(
        "goes on above by an event of its own",
        "an_advance_changes_nothing_that_is_there",
        row(Advance, _advances_by_an_event),
    ),
]


BEGINNING = [
    Wrong(
        "begins a stream one event later",
        "a_stream_begins_after_a_sequence_number",
        row(Begin, _begins_one_later),
    ),
    Wrong(
        "says that it began a stream, and does not",
        "a_stream_begins_after_a_sequence_number",
        row(Begin, lambda store, request: store.ask(ReadAll()).head + 1),
    ),
    Wrong(
        "begins a stream by events that can be read",
        "a_stream_that_has_begun_reads_as_one_that_was_truncated",
        row(Begin, _begins_by_placeholders),
    ),
    Wrong(
        "tells no hole where a stream begins later",
        "a_stream_that_has_begun_reads_as_one_that_was_truncated",
        _tells_no_hole_of_what_has_begun,
    ),
    Wrong(
        "says that it began a stream that was used",
        "a_stream_that_was_used_does_not_begin_again",
        row(Begin, _begins_where_it_is_used),
    ),
    Wrong(
        "tells a conflict of a beginning that expects what is there",
        "a_stream_that_was_used_does_not_begin_again",
        conflicted(Begin, lambda conflict: replaced(conflict, expected=conflict.actual)),
    ),
    Wrong(
        "begins a stream at a position that a reader may have passed",
        "a_reader_of_all_streams_is_told_of_what_is_missing",
        _begins_at_the_position_before,
    ),
    Wrong(
        "begins streams in a transaction that conflicts",
        "a_transaction_that_conflicts_begins_nothing",
        row(Transact, _begins_in_spite_of_a_conflict),
    ),
]


# Entries


def _entries_of_two_moments(store: Planted, request: KvEntries) -> Any:
    first = store.healthy.__dict__.setdefault("_first_entries", {})
    return [(key, first.setdefault(key, entry)) for key, entry in store.ask(request)]


ENTRIES = [
    Wrong(
        "gives entries of keys outside of the prefix",
        "entries_are_the_keys_of_a_page_with_their_values_and_revisions",
        asked(KvEntries, lambda request: replaced(request, prefix=request.prefix.rstrip("/"))),
    ),
    Wrong(
        "gives one entry more than the limit",
        "entries_are_the_keys_of_a_page_with_their_values_and_revisions",
        asked(KvEntries, lambda request: replaced(request, limit=request.limit + 1)),
    ),
    Wrong(
        "gives the entry of the last page's last key again",
        "entries_are_the_keys_of_a_page_with_their_values_and_revisions",
        asked(KvEntries, lambda request: replaced(request, after=request.after[:-1])),
    ),
    Wrong(
        "gives entries in the order of their revisions",
        "entries_are_the_keys_of_a_page_with_their_values_and_revisions",
        answered(KvEntries, lambda _, found: sorted(found, key=lambda pair: pair[1].revision)),
    ),
    Wrong(
        "gives each key's value without its revision",
        "entries_are_the_keys_of_a_page_with_their_values_and_revisions",
        answered(KvEntries, lambda _, found: [(key, entry.value) for key, entry in found]),
    ),
    Wrong(
        "gives the entries that it gave before",
        "the_store_agrees_with_the_model_over_any_sequence_of_requests",
        row(KvEntries, _entries_of_two_moments),
    ),
    Wrong(
        "leaves keys out of the entries whose value is None",
        "entries_are_the_newest_ones",
        answered(KvEntries, lambda _, found: [pair for pair in found if pair[1].value is not None]),
    ),
]


# Waiting


@contextmanager
def _watching(store: Planted, request: Wait) -> Iterator[Gate]:
    gate = Gate()
    cancel = store.healthy.watch(request, gate.open)
    try:
        yield gate
    finally:
        cancel()


def _newest(store: Planted, request: Wait | KvWait) -> int:
    newest: int = store.ask(at_once(request))
    return newest


def _never_woken(store: Planted, request: Wait | KvWait) -> int:
    if _newest(store, request) <= request.after:
        store.gate.wait(request.timeout)
    return _newest(store, request)


def _never_woken_by_closing(store: Planted) -> Handlers:
    is_closed = False
    open_rows = dict(store.rows)

    def close() -> None:
        nonlocal is_closed
        is_closed = True

    def refusing(row: Handler) -> Handler:
        def refuse_or_answer(request: Any) -> Any:
            if is_closed:
                raise StoreClosed("closed")
            return row(request)

        return refuse_or_answer

    def wait(request: Wait) -> Any:
        answer = open_rows[Wait](request)
        if is_closed:
            raise StoreClosed("closed")
        return answer

    store.closing = close
    return {**{kind: refusing(row) for kind, row in open_rows.items()}, Wait: refusing(wait)}


def _never_woken_by(kind: type[Request[Any]]) -> Plant:
    """A store whose writes of one kind tell nobody."""

    def plant(store: Planted) -> Handlers:
        def write(request: Any) -> Any:
            healthy = store.healthy
            watchers, healthy._watchers = healthy._watchers, Watchers()
            try:
                return store.ask(request)
            finally:
                watchers._watching.update(healthy._watchers._watching)
                healthy._watchers = watchers

        def wait(request: Wait) -> int:
            with _watching(store, request) as gate:
                gate.wait(request.timeout)
            return _newest(store, request)

        return {kind: write, Wait: wait}

    return plant


def _woken_by_whatever_comes(store: Planted, request: Wait) -> int:
    if request.timeout > 0 and _newest(store, request) <= request.after:
        with _watching(store, Wait(store.ask(Wait(0)), "")) as gate:
            gate.wait(request.timeout)
    return _newest(store, request)


def _waits_for_what_is_new(store: Planted, request: Wait) -> int:
    if request.timeout > 0:
        newest = _newest(store, request)
        with _watching(store, replaced(request, after=max(newest, request.after))) as gate:
            gate.wait(min(request.timeout, 2.0))
    return _newest(store, request)


def _wakes_one(store: Planted) -> Handlers:
    """Waiters stand in a queue, and an append lets through only the first of them. Two that are near may come first."""
    queue: list[tuple[str, Gate]] = []
    come = threading.Condition()
    have_waited: list[Wait] = []

    def wait(request: Wait) -> int:
        if request.timeout > 0 and _newest(store, request) <= request.after:
            gate = Gate()
            with come:
                queue.append((request.prefix, gate))
                have_waited.append(request)
                come.notify_all()
            if _newest(store, request) <= request.after:
                gate.wait(request.timeout)
        return _newest(store, request)

    def append(request: Append) -> Any:
        with come:
            come.wait_for(lambda: not have_waited or len(queue) > 1, timeout=0.05)
        answer = store.ask(request)
        for place in queue:
            if request.stream.startswith(place[0]):
                queue.remove(place)
                place[1].open()
                break
        return answer

    def close() -> None:
        store.healthy.close()
        for _, gate in queue:
            gate.open()

    store.closing = close
    return {Wait: wait, Append: append}


def _remembers_only_what_is_left(store: Planted, request: Wait) -> int:
    answer = store.ask(request)
    events = store.ask(ReadAll(prefix=request.prefix)).events
    return min(answer, events[-1].position) if events else 0


def _shows_late(store: Planted) -> Handlers:
    """Who asks for the order of all streams just after a wait does not find the newest event in it."""
    told: list[int] = []

    def wait(request: Wait) -> int:
        newest: int = store.ask(request)
        told.append(newest)
        return newest

    def read_all(request: ReadAll) -> Page:
        page: Page = store.ask(request)
        if not told or not page.events or page.events[-1].position != told.pop():
            return page
        before = page.events[-1].position - 1
        return replaced(page, events=page.events[:-1], next=max(before, request.after), head=before)

    return {Wait: wait, ReadAll: read_all}


WAITING = [
    Wrong(
        "never wakes a wait by an append",
        "a_waiting_thread_is_woken_by_an_append",
        row(Wait, _never_woken),
    ),
    Wrong(
        "never wakes a wait by a transaction",
        "a_waiting_thread_is_woken_by_a_transaction",
        _never_woken_by(Transact),
    ),
    Wrong(
        "never wakes a wait by closing",
        "a_waiting_thread_is_told_that_the_store_was_closed",
        _never_woken_by_closing,
    ),
    Wrong(
        "wakes one of those who wait for the same",
        "all_who_wait_for_the_same_are_woken",
        _wakes_one,
    ),
    Wrong(
        "does not block where the timeout is infinite",
        "a_wait_without_end_is_not_over_before_its_event",
        asked(Wait, lambda request: replaced(request, timeout=0) if request.timeout == float("inf") else request),
    ),
    Wrong(
        "does not block at all",
        "a_wait_without_end_is_not_over_before_its_event",
        asked(Wait, lambda request: replaced(request, timeout=0)),
    ),
    Wrong(
        "ends a wait with the next append, whatever its stream",
        "a_wait_without_end_is_not_over_before_its_event",
        row(Wait, _woken_by_whatever_comes),
    ),
    Wrong(
        "waits for what is new, also where there is something past `after` already",
        "a_wait_for_what_is_there_already_returns_at_once",
        row(Wait, _waits_for_what_is_new),
    ),
    Wrong(
        "ignores the prefix of a wait",
        "a_wait_with_a_prefix_does_not_see_its_neighbours",
        asked(Wait, lambda request: replaced(request, prefix="")),
    ),
    Wrong(
        "takes the prefix of a wait for a path",
        "a_wait_with_a_prefix_does_not_see_its_neighbours",
        asked(Wait, lambda request: replaced(request, prefix=request.prefix.rstrip("/"))),
    ),
    Wrong(
        "answers a wait with `after` plus one",
        "a_wait_for_what_is_there_already_returns_at_once",
        answered(Wait, lambda request, newest: min(newest, request.after + 1)),
    ),
    Wrong(
        "answers a wait at its timeout with `after`",
        "a_wait_gives_the_newest_position_at_its_timeout",
        answered(Wait, lambda request, newest: max(newest, request.after)),
    ),
    Wrong(
        "answers a wait with the position that comes next",
        "a_wait_gives_the_newest_position_at_its_timeout",
        answered(Wait, lambda _, newest: newest + 1),
    ),
    Wrong(
        "forgets the newest position once its event was truncated",
        "the_newest_position_is_remembered_after_its_event_was_truncated",
        row(Wait, _remembers_only_what_is_left),
    ),
    Wrong(
        "answers a wait with what the order of all streams does not show yet",
        "what_a_wait_answers_can_be_read",
        _shows_late,
    ),
]


# Waiting for changes of keys


def _only_of_what_is_there(store: Planted, request: KvWait) -> int:
    """A store that has forgotten deletions, and answers too low."""
    store.ask(request)
    return max((entry.revision for _, entry in store.ask(KvEntries(request.prefix))), default=0)


def _deaf_to(kind: type[Request[Any]]) -> Plant:
    """A store whose writes of one kind wake nobody who waits for keys."""

    def plant(store: Planted) -> Handlers:
        return {kind: _never_woken_by(kind)(store)[kind]}

    return plant


KV_WAITING = [
    Wrong(
        "does not wake who waits for a key",
        "a_waiting_thread_is_woken_by_a_change",
        row(KvWait, _never_woken),
    ),
    Wrong(
        "wakes who waits for a key by no deletion",
        "a_waiting_thread_is_woken_by_a_change",
        _deaf_to(KvDelete),
    ),
    Wrong(
        "wakes who waits for a key by no transaction",
        "a_transaction_wakes_those_who_wait_for_its_keys",
        _deaf_to(Transact),
    ),
    Wrong(
        "does not block who waits for a key without end",
        "whoever_goes_on_from_what_was_told_misses_no_change",
        row(KvWait, lambda store, request: store.ask(replaced(request, timeout=0.0))),
    ),
    Wrong(
        "takes a deletion for no change of a key",
        "the_deletion_of_a_key_is_a_change_under_its_prefix",
        row(KvWait, _only_of_what_is_there),
    ),
    Wrong(
        "takes positions for revisions",
        "a_wait_for_a_change_gives_the_newest_revision_at_its_timeout",
        row(KvWait, lambda store, request: store.ask(Wait(request.after, request.prefix, request.timeout))),
    ),
    Wrong(
        "tells a revision that will be given to the next change",
        "a_wait_for_a_change_gives_the_newest_revision_at_its_timeout",
        answered(KvWait, lambda _, newest: newest + 1),
    ),
    Wrong(
        "tells who waits for a key under a prefix of that prefix alone",
        "a_change_is_told_under_each_prefix_of_its_key",
        asked(KvWait, lambda request: replaced(request, prefix=request.prefix + "/" if request.prefix else "")),
    ),
]


# Time

TIME = [
    Wrong(
        "tells the seconds where microseconds are asked for",
        "the_clock_that_is_told_is_the_one_that_stamps_events",
        row(Now, lambda store, request: store.healthy.clock() // 1_000_000),
    ),
    Wrong(
        "tells another clock than the one that stamps events",
        "the_clock_that_is_told_is_the_one_that_stamps_events",
        row(Now, lambda store, request: store.healthy.clock() + 3_600_000_000),
    ),
    Wrong(
        "makes identifiers of another version",
        "an_identifier_is_a_uuid_of_version_7_in_its_usual_text_form",
        row(NewId, lambda store, request: str(uuid.uuid4())),
    ),
    Wrong(
        "makes identifiers of the time of another zone",
        "an_identifier_is_a_uuid_of_version_7_in_its_usual_text_form",
        row(NewId, lambda store, request: uuid7(store.healthy.clock() + 3_600_000_000, os.urandom(10))),
    ),
    Wrong(
        "gives identifiers without hyphens",
        "an_identifier_is_a_uuid_of_version_7_in_its_usual_text_form",
        row(NewId, lambda store, request: uuid7(store.healthy.clock(), os.urandom(10)).replace("-", "")),
    ),
    Wrong(
        "makes identifiers of the time alone",
        "no_two_identifiers_are_the_same",
        row(NewId, lambda store, request: uuid7(store.healthy.clock() // 1_000_000 * 1_000_000, bytes(10))),
    ),
]


# Closing


def _with_closing(close: Callable[[Planted], None]) -> Plant:
    def plant(store: Planted) -> Handlers:
        store.closing = lambda: close(store)
        return {}

    return plant


def _answers_when_closed(*kinds: type[Request[Any]]) -> Plant:
    def plant(store: Planted) -> Handlers:
        kept: dict[Any, Any] = {}

        def answer(request: Any) -> Any:
            try:
                kept[request] = store.ask(request)
            except StoreClosed:
                return kept.get(request)
            return kept[request]

        return dict.fromkeys(kinds, answer)

    return plant


def _says(error: Callable[[str], Exception]) -> Plant:
    def plant(store: Planted) -> Handlers:
        def answer(request: Any) -> Any:
            try:
                return store.ask(request)
            except StoreClosed as closed:
                raise error("connection is closed") from closed

        return dict.fromkeys(store.rows, answer)

    return plant


CLOSING = [
    Wrong("goes on after it was closed", "a_closed_store_answers_nothing", _with_closing(lambda store: None)),
    Wrong(
        "answers reads from a cache after it was closed",
        "a_closed_store_answers_nothing",
        _answers_when_closed(KvGet, Read),
    ),
    Wrong(
        "takes writes in silence after it was closed",
        "a_closed_store_answers_nothing",
        _answers_when_closed(Append, KvPut, TruncateThrough, KvDelete),
    ),
    Wrong(
        "answers a wait without a timeout after it was closed",
        "a_closed_store_answers_nothing",
        _answers_when_closed(Wait),
    ),
    Wrong("raises its driver's error after it was closed", "a_closed_store_answers_nothing", _says(RuntimeError)),
    Wrong(
        "says after it was closed that it is unavailable, as if trying again could help",
        "a_closed_store_answers_nothing",
        _says(StoreUnavailable),
    ),
]


# Threads


class _Meeting:
    """Where two threads meet in the midst of what should be one step. One that comes alone goes on soon.

    The main thread is always alone.
    """

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2)

    def let_another_in(self) -> None:
        if threading.current_thread() is threading.main_thread():
            return
        try:
            self._barrier.wait(0.01)
        except threading.BrokenBarrierError:
            self._barrier.reset()


def _compares_before_it_locks(store: Planted) -> Handlers:
    meeting = _Meeting()

    def append(request: Append) -> Any:
        if request.expected is None or request.expected != store.ask(LastSeq(request.stream)):
            return store.ask(request)
        meeting.let_another_in()
        return store.ask(replaced(request, expected=None))

    return {Append: append}


def _compares_revisions_before_it_locks(store: Planted) -> Handlers:
    meeting = _Meeting()

    def put(request: KvPut) -> Any:
        entry = store.ask(KvGet(request.key))
        if request.expected is None or request.expected != (entry.revision if entry else 0):
            return store.ask(request)
        meeting.let_another_in()
        return store.ask(replaced(request, expected=None))

    return {KvPut: put}


def _numbers_before_it_locks(store: Planted) -> Handlers:
    meeting = _Meeting()

    def append(request: Append) -> Any:
        first = store.ask(LastSeq(request.stream)) + 1
        meeting.let_another_in()
        answer = store.ask(request)
        if isinstance(answer, Conflict):
            return answer
        return replaced(answer, first_seq=first, last_seq=first + len(request.events) - 1)

    return {Append: append}


def _shows_positions_out_of_order(store: Planted) -> Handlers:
    """Every other append is held back from readers of all streams until some later ones were read."""
    looks = count()

    def read_all(request: ReadAll) -> Page:
        page: Page = store.ask(request)
        events = [event for event in page.events if event.position % 2 or next(looks) % 5 == 4]
        return replaced(page, events=events)

    return {ReadAll: read_all}


def _shows_parts(store: Planted) -> Handlers:
    """Makes the events of an append visible one by one."""
    meeting = _Meeting()

    def append(request: Append) -> Any:
        last = store.ask(LastSeq(request.stream))
        if request.expected not in {None, last}:
            return store.ask(request)
        answers = []
        for draft in request.events:
            answers.append(store.ask(Append(request.stream, (draft,))))
            if len(request.events) == 2:
                meeting.let_another_in()
        return replaced(answers[-1], first_seq=answers[0].first_seq, at=answers[0].at)

    return {Append: append}


def _shows_transactions_in_part(store: Planted) -> Handlers:
    meeting = _Meeting()

    def transact(request: Transact) -> Any:
        appends = [write for write in request.writes if isinstance(write, Append)]
        if len(appends) != len(request.writes) or request.checks or any(write.expected for write in appends):
            return store.ask(request)
        answers = [store.ask(appends[0])]
        for write in appends[1:]:
            meeting.let_another_in()
            answers.append(store.ask(write))
        return answers

    return {Transact: transact}


RACING = [
    Wrong(
        "compares what an append expects before it locks the stream",
        "of_writers_that_expect_the_same_one_wins",
        _compares_before_it_locks,
    ),
    Wrong(
        "compares what a put expects before it locks the key",
        "racing_updates_of_a_key_lose_nothing",
        _compares_revisions_before_it_locks,
    ),
    Wrong(
        "takes a sequence number before it locks the stream",
        "racing_appends_leave_no_gap_in_a_stream",
        _numbers_before_it_locks,
    ),
    Wrong(
        "lets readers of all streams move past a position that is not shown yet",
        "a_reader_that_moved_past_a_position_never_finds_a_new_event_below_it",
        _shows_positions_out_of_order,
    ),
    Wrong(
        "shows the events of one append one by one",
        "another_thread_never_sees_a_part_of_an_append",
        _shows_parts,
    ),
    Wrong(
        "shows the writes of one transaction one by one",
        "another_thread_never_sees_a_part_of_a_transaction",
        _shows_transactions_in_part,
    ),
]


# Opening again


def _reopened(change: Callable[[MemoryStore], None]) -> Plant:
    def plant(store: Planted) -> Handlers:
        store.reopening = lambda: change(store.healthy)
        return {}

    return plant


def _forget_streams_without_events(healthy: MemoryStore) -> None:
    for name in [name for name, stream in healthy._streams.items() if not stream.events]:
        del healthy._streams[name]


def _count_positions_by_events(healthy: MemoryStore) -> None:
    healthy._position = sum(len(stream.events) for stream in healthy._streams.values())


def _count_revisions_by_entries(healthy: MemoryStore) -> None:
    healthy._revision = max((revision for _, revision in healthy._entries.values()), default=0)


def _forget_holes(healthy: MemoryStore) -> None:
    for name in list(healthy._truncated):
        healthy._truncated_names.note(name)
        del healthy._truncated[name]


def _lose_the_last_event(healthy: MemoryStore) -> None:
    if healthy._log:
        last = healthy._log.pop()
        last.stream.events.pop()


def _bring_deleted_keys_back(store: Planted) -> Handlers:
    deleted: dict[str, tuple[bytes, int]] = {}

    def delete(request: KvDelete) -> Any:
        before = store.healthy._entries.get(request.key)
        answer = store.ask(request)
        if answer is True and before is not None:
            deleted[request.key] = before
        return answer

    store.reopening = lambda: store.healthy._entries.update(deleted)
    return {KvDelete: delete}


REOPENING = [
    Wrong(
        "loses the last event by being opened again",
        "everything_is_there_after_reopening",
        _reopened(_lose_the_last_event),
    ),
    Wrong(
        "loses keys and values by being opened again",
        "everything_is_there_after_reopening",
        _reopened(lambda healthy: healthy._entries.clear()),
    ),
    Wrong(
        "counts the streams anew, once opened again, that were truncated whole",
        "a_stream_truncated_whole_goes_on_counting_after_reopening",
        _reopened(_forget_streams_without_events),
    ),
    Wrong(
        "counts positions, once opened again, by the events that are left",
        "a_stream_truncated_whole_goes_on_counting_after_reopening",
        _reopened(_count_positions_by_events),
    ),
    Wrong(
        "forgets the holes in the order of all streams by being opened again",
        "a_stream_truncated_whole_goes_on_counting_after_reopening",
        _reopened(_forget_holes),
    ),
    Wrong(
        "gives the revision of a deleted key again, once opened again",
        "the_revision_of_a_deleted_key_is_never_given_again_after_reopening",
        _reopened(_count_revisions_by_entries),
    ),
    Wrong(
        "brings deleted keys back by being opened again",
        "the_revision_of_a_deleted_key_is_never_given_again_after_reopening",
        _bring_deleted_keys_back,
    ),
]


WRONG_STORES: list[Wrong] = [
    *APPENDING,
    *READING,
    *READING_ALL,
    *BACKWARDS,
    *BEGINNING,
    *ADVANCING,
    *TRUNCATING,
    *LISTING,
    *KEYS,
    *ENTRIES,
    *NAMES,
    *VALUES,
    *TRANSACTING,
    *WAITING,
    *KV_WAITING,
    *TIME,
    *CLOSING,
    *RACING,
    *REOPENING,
]
