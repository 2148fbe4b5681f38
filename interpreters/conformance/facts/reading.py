# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of reading the log: a stream's pages both ways, the order of all streams, and holes.

A page may be shorter than its limit, so facts about many events go on where a page says. Only a handful of small ones
is counted on to come in one page.
"""

from interpreters.conformance.facts.base import (
    Facts,
    append,
    ask,
    ask_at_once,
    data_of,
    put,
    read_everything,
    read_whole,
)
from interpreters.runtime.store import Store
from persist_effects.event import INT64_MAX, Draft, Event
from persist_effects.requests import Append, Hole, Page, Read, ReadAll, TruncateThrough


class ReadFacts(Facts):
    """Reading one stream."""

    def test_an_unknown_stream_reads_as_an_empty_page(self, store: Store) -> None:
        append(store, "a/b", "tea")
        assert ask(store, Read("a")) == Page([], next=0, head=0)
        assert ask(store, Read("a", backwards=True)) == Page([], next=0, head=0)

    def test_a_stream_is_read_in_the_order_of_its_sequence_numbers(self, store: Store) -> None:
        for item in range(5):
            append(store, "a", item)
            append(store, "b", "tea")
        page = ask(store, Read("a"))
        assert [(event.seq, event.data) for event in page.events] == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
        assert (page.next, page.head, page.hole) == (5, 5, None)

    def test_after_and_until_bound_what_is_read(self, store: Store) -> None:
        append(store, "a", 1, 2, 3, 4, 5)
        assert data_of(ask(store, Read("a", after=2)).events) == [3, 4, 5]
        assert data_of(ask(store, Read("a", until=2)).events) == [1, 2]
        assert data_of(ask(store, Read("a", after=1, until=4)).events) == [2, 3, 4]
        assert data_of(ask(store, Read("a", after=1, until=4, backwards=True)).events) == [4, 3, 2]

    def test_a_page_holds_no_more_than_its_limit(self, store: Store) -> None:
        append(store, "a", 1, 2, 3, 4, 5)
        append(store, "b", 6)
        for limit in (1, 2, 5):
            assert len(ask(store, Read("a", limit=limit)).events) <= limit
            assert len(ask(store, Read("a", limit=limit, backwards=True)).events) <= limit
            assert len(ask(store, ReadAll(limit=limit)).events) <= limit

    def test_pages_go_on_where_the_last_one_ended(self, store: Store) -> None:
        append(store, "a", *range(10))
        for limit in (1, 3, 10, 11):
            assert data_of(read_whole(store, "a", limit)) == list(range(10))

    def test_pages_go_on_backwards_with_until(self, store: Store) -> None:
        append(store, "a", *range(10))
        for limit in (1, 3, 10, 11):
            assert data_of(_read_back(store, "a", limit)) == list(range(9, -1, -1))
            assert data_of(_read_back(store, "a", limit, after=4)) == [9, 8, 7, 6, 5, 4]

    def test_a_page_moves_on_to_the_last_event_it_gave(self, store: Store) -> None:
        append(store, "a", 1, 2, 3)
        first = ask(store, Read("a", limit=2))
        assert first.next == first.events[-1].seq
        assert first.head == 3

    def test_the_last_page_has_moved_to_the_end_of_what_was_asked_for(self, store: Store) -> None:
        append(store, "a", 1, 2, 3)
        assert ask(store, Read("a", until=2)).next == 2
        assert ask(store, Read("a", until=7)).next == 3
        assert ask(store, Read("a", after=1, backwards=True)).next == 1
        assert ask(store, Read("a", backwards=True)).next == 0

    def test_the_end_of_the_stream_does_not_run_ahead_of_its_reader(self, store: Store) -> None:
        """A reader that was told to go on too far ahead would miss what is appended next."""
        append(store, "a", 1)
        page = ask(store, Read("a", after=1, until=INT64_MAX))
        assert (page.events, page.next, page.head) == ([], 1, 1)
        append(store, "a", 2)
        assert data_of(ask(store, Read("a", after=page.next)).events) == [2]

    def test_past_the_end_there_is_nothing_and_the_reader_stays(self, store: Store) -> None:
        append(store, "a", 1, 2)
        for after in (2, 3, INT64_MAX):
            assert ask(store, Read("a", after=after)) == Page([], next=after, head=2)
            assert ask(store, Read("a", after=after, backwards=True)) == Page([], next=after, head=2)

    def test_an_empty_range_reads_as_an_empty_page(self, store: Store) -> None:
        append(store, "a", 1, 2, 3)
        for after, until in ((2, 2), (2, 1), (0, 0)):
            assert ask(store, Read("a", after, until)) == Page([], next=after, head=3)
            assert ask(store, Read("a", after, until, backwards=True)) == Page([], next=after, head=3)

    def test_a_read_over_truncated_events_names_the_hole(self, store: Store) -> None:
        """Else a fold would take what is left for all there was."""
        append(store, "a", 1, 2, 3, 4)
        ask(store, TruncateThrough("a", 2))
        for backwards in (False, True):
            for after in (0, 1):
                page = ask(store, Read("a", after, backwards=backwards))
                assert sorted(data_of(page.events)) == [3, 4]
                assert page.hole == Hole("a", first_left=3)

    def test_a_read_of_truncated_events_alone_names_the_hole(self, store: Store) -> None:
        append(store, "a", 1, 2, 3)
        ask(store, TruncateThrough("a", 2))
        for backwards in (False, True):
            page = ask(store, Read("a", until=1, backwards=backwards))
            assert (page.events, page.hole) == ([], Hole("a", first_left=3))

    def test_a_read_past_the_truncated_events_has_no_hole(self, store: Store) -> None:
        append(store, "a", 1, 2, 3)
        ask(store, TruncateThrough("a", 2))
        for backwards in (False, True):
            assert ask(store, Read("a", after=2, backwards=backwards)).hole is None
            assert ask(store, Read("a", until=0, backwards=backwards)).hole is None

    def test_a_stream_truncated_whole_reads_as_a_hole_up_to_its_head(self, store: Store) -> None:
        append(store, "a", 1, 2)
        ask(store, TruncateThrough("a", 2))
        assert ask(store, Read("a")) == Page([], next=2, head=2, hole=Hole("a", first_left=3))
        assert ask(store, Read("a", backwards=True)) == Page([], next=0, head=2, hole=Hole("a", first_left=3))
        assert ask(store, Read("a", after=2)) == Page([], next=2, head=2)


class ReadAllFacts(Facts):
    """Reading all streams in the order of positions."""

    def test_an_empty_store_reads_as_an_empty_page(self, store: Store) -> None:
        assert ask(store, ReadAll()) == Page([], next=0, head=0)

    def test_all_streams_are_read_in_the_order_in_which_they_were_written(self, store: Store) -> None:
        for item, stream in enumerate(("b", "a", "c", "a", "b")):
            append(store, stream, item)
        assert data_of(read_everything(store)) == [0, 1, 2, 3, 4]

    def test_an_event_is_the_same_in_its_stream_and_among_all(self, store: Store) -> None:
        ask(store, Append("a", (Draft("made", [1], 5, {"by": "Ada"}), Draft("paid", None))))
        append(store, "b", 3)
        assert read_everything(store) == read_whole(store, "a") + read_whole(store, "b")

    def test_the_head_is_the_position_of_the_newest_event(self, store: Store) -> None:
        append(store, "a", 1)
        newest = append(store, "b", 2, 3).position
        put(store, "key", "no event")
        page = ask(store, ReadAll(prefix="a"))
        assert page.head == newest

    def test_reading_goes_on_past_any_position(self, store: Store) -> None:
        for item, stream in enumerate(("b", "a", "c", "a", "b")):
            append(store, stream, item)
        everything = read_everything(store)
        for index, event in enumerate(everything):
            assert ask(store, ReadAll(event.position)).events == everything[index + 1 :]

    def test_pages_of_all_streams_go_on_where_the_last_one_ended(self, store: Store) -> None:
        for item in range(10):
            append(store, f"stream {item % 3}", item)
        for limit in (1, 3, 10, 11):
            assert data_of(read_everything(store, limit=limit)) == list(range(10))

    def test_a_reader_that_goes_on_at_once_misses_nothing(self, store: Store) -> None:
        """Also where the order lags, what a page shows has no gap: what comes later is behind it."""
        seen: list[Event] = []
        after = 0
        for item in range(12):
            append(store, f"stream {item % 3}", item, item)
            page = ask_at_once(store, ReadAll(after))
            seen += page.events
            after = page.next
        seen += ask(store, ReadAll(after)).events
        assert seen == read_everything(store)

    def test_past_the_head_there_is_nothing_and_the_reader_stays(self, store: Store) -> None:
        head = append(store, "a", 1).position
        assert ask(store, ReadAll(head)) == Page([], next=head, head=head)
        assert ask(store, ReadAll(INT64_MAX)) == Page([], next=INT64_MAX, head=head)

    def test_a_prefix_keeps_other_streams_out(self, store: Store) -> None:
        for stream in ("orders", "orders/", "orders/1", "orders/2", "orders-old", "Orders/3", "order", "my/orders/"):
            append(store, stream, stream)
        assert data_of(read_everything(store, "orders/")) == ["orders/", "orders/1", "orders/2"]
        assert data_of(read_everything(store, "orders/1/")) == []

    def test_types_keep_other_events_out(self, store: Store) -> None:
        ask(store, Append("a", (Draft("placed", 1), Draft("paid", 2), Draft("placed/late", 3), Draft("Paid", 4))))
        ask(store, Append("b", (Draft("paid", 5),)))
        assert data_of(ask(store, ReadAll(types=("paid",))).events) == [2, 5]
        assert data_of(ask(store, ReadAll(types=("paid", "placed"))).events) == [1, 2, 5]
        assert data_of(ask(store, ReadAll(types=("paid",), prefix="b")).events) == [5]
        assert ask(store, ReadAll(types=())).events == []

    def test_a_reader_that_wants_little_still_moves_to_the_head(self, store: Store) -> None:
        """Else it would search through the same unwanted events again each time."""
        append(store, "a", 1)
        head = append(store, "b", *range(20)).position
        for request in (ReadAll(prefix="a"), ReadAll(types=("unheard of",))):
            page = ask(store, request)
            assert (page.next, page.head) == (head, head)

    def test_a_limit_counts_the_events_that_are_wanted(self, store: Store) -> None:
        for item in range(6):
            append(store, f"{'a' if item % 2 else 'b'}/{item}", item)
        assert data_of(read_everything(store, "a/", limit=1)) == [1, 3, 5]

    def test_a_reader_that_stopped_finds_what_came_since(self, store: Store) -> None:
        append(store, "a", 1)
        page = ask(store, ReadAll(prefix="a"))
        append(store, "b", 2)
        append(store, "a", 3)
        assert data_of(ask(store, ReadAll(page.next, "a")).events) == [3]

    def test_a_read_over_truncated_events_of_a_stream_names_the_hole(self, store: Store) -> None:
        append(store, "b", 1)
        append(store, "a", 2, 3, 4)
        ask(store, TruncateThrough("a", 2))
        page = ask(store, ReadAll())
        assert data_of(page.events) == [1, 4]
        assert page.hole == Hole("a", first_left=3)
        assert ask(store, ReadAll(prefix="a")).hole == Hole("a", first_left=3)

    def test_a_reader_past_the_truncated_events_or_of_other_streams_has_no_hole(self, store: Store) -> None:
        append(store, "a", 1, 2, 3)
        append(store, "b", 4)
        second = read_whole(store, "a")[1].position
        ask(store, TruncateThrough("a", 2))
        assert ask(store, ReadAll(second)).hole is None
        assert ask(store, ReadAll(second - 1)).hole == Hole("a", first_left=3)
        assert ask(store, ReadAll(prefix="b")).hole is None

    def test_all_streams_are_read_backwards_the_newest_event_first(self, store: Store) -> None:
        for item, stream in enumerate(("b", "a", "c", "a", "b")):
            append(store, stream, item)
        page = ask(store, ReadAll(backwards=True))
        assert (data_of(page.events), page.next) == ([4, 3, 2, 1, 0], 0)
        assert data_of(ask(store, ReadAll(prefix="a", backwards=True)).events) == [3, 1]
        assert ask(store, ReadAll(types=("unheard of",), backwards=True)).events == []

    def test_pages_backwards_go_on_where_the_last_one_ended(self, store: Store) -> None:
        for item in range(10):
            append(store, f"{'a' if item % 3 else 'b'}/{item}", item, item)
        for prefix in ("", "a/"):
            forwards = read_everything(store, prefix)
            for limit in (1, 3, 20):
                assert _all_back(store, prefix, limit, 0) == forwards[::-1]
                assert _all_back(store, prefix, limit, forwards[3].position) == forwards[:3:-1]

    def test_until_is_the_last_position_that_is_read(self, store: Store) -> None:
        for item, stream in enumerate(("b", "a", "c", "a", "b")):
            append(store, stream, item)
        everything = read_everything(store)
        head = everything[-1].position
        for index, event in enumerate(everything):
            page = ask(store, ReadAll(until=event.position))
            assert (page.events, page.next, page.head) == (everything[: index + 1], event.position, head)
            page = ask(store, ReadAll(until=event.position, backwards=True))
            assert (page.events, page.next, page.head) == (everything[index::-1], 0, head)
        assert ask(store, ReadAll(until=INT64_MAX)).next == head

    def test_an_empty_range_of_positions_reads_as_an_empty_page(self, store: Store) -> None:
        append(store, "a", 1, 2, 3)
        head = append(store, "b", 4).position
        first = read_everything(store)[0].position
        ask(store, TruncateThrough("a", 3))
        for after, until in ((first, first), (head, first), (0, 0), (head + 1, head)):
            for backwards in (False, True):
                request = ReadAll(after, until=until, backwards=backwards)
                assert ask(store, request) == Page([], next=after, head=head)

    def test_a_range_of_which_events_were_truncated_names_the_hole(self, store: Store) -> None:
        append(store, "b", 1)
        append(store, "a", 2, 3, 4)
        last = append(store, "b", 5).position
        ask(store, TruncateThrough("a", 2))
        for backwards in (False, True):
            assert ask(store, ReadAll(until=last, backwards=backwards)).hole == Hole("a", first_left=3)
            assert ask(store, ReadAll(prefix="b", until=last, backwards=backwards)).hole is None


def _all_back(store: Store, prefix: str, limit: int, after: int) -> list[Event]:
    events: list[Event] = []
    until: int | None = None
    while until is None or until > after:
        page = ask(store, ReadAll(after, prefix, None, limit, until, backwards=True))
        assert len(page.events) <= limit
        assert after <= page.next < (page.head + 1 if until is None else until), "it did not move on"
        events += page.events
        until = page.next
    return events


def _read_back(store: Store, stream: str, limit: int, after: int = 0) -> list[Event]:
    events: list[Event] = []
    until = None
    while True:
        page = ask(store, Read(stream, after, until, limit, backwards=True))
        events += page.events
        if page.next <= after:
            return events
        assert until is None or page.next < until, "a page that is not the last one must move on"
        until = page.next
