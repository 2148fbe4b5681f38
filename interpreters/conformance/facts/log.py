# ruff: noqa: D102 - a fact's name is its sentence; a docstring says why where that is not plain.
"""Facts of writing to the log: appending, expecting, truncating, and listing streams."""

from interpreters.conformance.facts.base import Facts, append, ask, data_of, put, read_everything, read_whole
from interpreters.runtime.store import Store
from persist_effects.event import INT64_MAX, Draft
from persist_effects.requests import Append, Appended, Conflict, LastSeq, Read, ReadAll, Streams, TruncateThrough


class AppendFacts(Facts):
    """What an append gives, and what an expectation guards."""

    def test_the_first_event_of_a_stream_has_sequence_number_1(self, store: Store) -> None:
        appended = append(store, "a", "tea")
        assert (appended.first_seq, appended.last_seq) == (1, 1)

    def test_each_stream_counts_by_itself_without_gaps(self, store: Store) -> None:
        for seq in (1, 2, 3):
            assert append(store, "a", "tea").last_seq == seq
            assert append(store, "b", "tea").last_seq == seq

    def test_an_append_between_others_leaves_no_gap_where_it_conflicted(self, store: Store) -> None:
        append(store, "a", "tea")
        ask(store, Append("a", (Draft("made", "lost"),), 7))
        put(store, "a", "a key is not an event")
        assert append(store, "a", "rice").last_seq == 2

    def test_drafts_of_one_append_are_numbered_in_their_order(self, store: Store) -> None:
        append(store, "a", "tea")
        appended = append(store, "a", "rice", "salt", "oil")
        assert (appended.first_seq, appended.last_seq) == (2, 4)
        assert [(event.seq, event.data) for event in read_whole(store, "a")[1:]] == [
            (2, "rice"),
            (3, "salt"),
            (4, "oil"),
        ]

    def test_an_append_answers_with_the_position_of_its_last_event(self, store: Store) -> None:
        appended = append(store, "a", "tea", "rice")
        assert appended.position == read_whole(store, "a")[-1].position

    def test_positions_start_at_1_or_higher_and_grow_over_all_streams(self, store: Store) -> None:
        given = [append(store, stream, "tea").position for stream in ("b", "a", "b", "c")]
        assert given[0] >= 1
        assert given == sorted(set(given))

    def test_positions_grow_within_one_append(self, store: Store) -> None:
        append(store, "a", "tea", "rice", "salt")
        positions = [event.position for event in read_whole(store, "a")]
        assert positions == sorted(set(positions))

    def test_an_event_is_read_as_it_was_appended(self, store: Store) -> None:
        ask(store, Append("orders/1", (Draft("placed", {"items": ["tea"]}, 1_700_000_000_000_000, {"by": "Ada"}),)))
        (event,) = read_whole(store, "orders/1")
        assert (event.stream, event.seq, event.type) == ("orders/1", 1, "placed")
        assert (event.at, event.data, event.meta) == (1_700_000_000_000_000, {"items": ["tea"]}, {"by": "Ada"})

    def test_an_event_without_meta_has_none(self, store: Store) -> None:
        append(store, "a", "tea")
        assert read_whole(store, "a")[0].meta is None

    def test_empty_meta_stays_an_empty_dict(self, store: Store) -> None:
        ask(store, Append("a", (Draft("made", "tea", None, {}),)))
        assert read_whole(store, "a")[0].meta == {}

    def test_an_event_without_a_time_has_the_one_that_the_append_answered_with(self, store: Store) -> None:
        appended = append(store, "a", "tea", "rice")
        assert type(appended.at) is int
        assert [event.at for event in read_whole(store, "a")] == [appended.at, appended.at]

    def test_an_event_keeps_the_time_it_came_with(self, store: Store) -> None:
        """The time 0 is a time, and events from before 1970 exist."""
        times = [0, -1, INT64_MAX, -INT64_MAX]
        ask(store, Append("a", tuple(Draft("made", "tea", at) for at in times)))
        assert [event.at for event in read_whole(store, "a")] == times

    def test_an_append_that_expects_the_last_sequence_number_is_made(self, store: Store) -> None:
        append(store, "a", "tea", expected=0)
        append(store, "a", "rice", "salt", expected=1)
        assert append(store, "a", "oil", expected=3).last_seq == 4

    def test_an_append_with_a_wrong_expectation_is_a_conflict_that_names_both(self, store: Store) -> None:
        append(store, "a", "tea", "rice")
        for wrong in (0, 1, 3, INT64_MAX):
            conflict = ask(store, Append("a", (Draft("made", "lost"),), wrong))
            assert conflict == Conflict("stream", "a", expected=wrong, actual=2)

    def test_an_append_that_conflicts_writes_nothing(self, store: Store) -> None:
        head = append(store, "a", "tea").position
        ask(store, Append("a", (Draft("made", "lost"), Draft("made", "lost")), 0))
        assert data_of(read_whole(store, "a")) == ["tea"]
        assert data_of(read_everything(store)) == ["tea"]
        assert ask(store, LastSeq("a")) == 1
        assert ask(store, ReadAll()).head == head

    def test_a_conflict_on_an_unknown_stream_does_not_create_it(self, store: Store) -> None:
        assert ask(store, Append("a", (Draft("made", "lost"),), 1)) == Conflict("stream", "a", expected=1, actual=0)
        assert ask(store, Streams()) == []

    def test_the_last_sequence_number_of_an_unknown_stream_is_0(self, store: Store) -> None:
        append(store, "a/b", "tea")
        assert ask(store, LastSeq("a")) == 0

    def test_an_append_of_many_drafts_is_one_append(self, store: Store) -> None:
        """More than a statement's parameters or a batch's messages in common engines."""
        appended = append(store, "a", *range(3_000))
        assert (appended.first_seq, appended.last_seq) == (1, 3_000)
        assert data_of(read_whole(store, "a")) == list(range(3_000))


class TruncateFacts(Facts):
    """What truncation drops, and all that it must not."""

    def test_truncation_drops_the_events_through_a_sequence_number(self, store: Store) -> None:
        append(store, "a", "tea", "rice", "salt")
        assert ask(store, TruncateThrough("a", 2)) == 2
        assert [(event.seq, event.data) for event in read_whole(store, "a")] == [(3, "salt")]

    def test_truncated_events_leave_the_order_of_all_streams_too(self, store: Store) -> None:
        append(store, "a", "tea", "rice")
        append(store, "b", "salt")
        ask(store, TruncateThrough("a", 1))
        assert data_of(read_everything(store)) == ["rice", "salt"]

    def test_the_events_left_keep_their_sequence_numbers_and_positions(self, store: Store) -> None:
        append(store, "a", "tea", "rice", "salt")
        before = read_whole(store, "a")
        ask(store, TruncateThrough("a", 1))
        assert read_whole(store, "a") == before[1:]

    def test_truncating_again_drops_nothing_more(self, store: Store) -> None:
        append(store, "a", "tea", "rice", "salt")
        assert ask(store, TruncateThrough("a", 2)) == 2
        assert ask(store, TruncateThrough("a", 2)) == 0
        assert ask(store, TruncateThrough("a", 1)) == 0
        assert ask(store, TruncateThrough("a", 3)) == 1

    def test_truncating_through_0_drops_nothing(self, store: Store) -> None:
        append(store, "a", "tea")
        assert ask(store, TruncateThrough("a", 0)) == 0
        assert data_of(read_whole(store, "a")) == ["tea"]

    def test_truncation_beyond_the_end_drops_what_there_is_and_not_what_will_come(self, store: Store) -> None:
        append(store, "a", "tea", "rice")
        assert ask(store, TruncateThrough("a", INT64_MAX)) == 2
        assert append(store, "a", "salt").last_seq == 3
        assert data_of(read_whole(store, "a")) == ["salt"]

    def test_truncating_an_unknown_stream_drops_nothing_and_does_not_create_it(self, store: Store) -> None:
        assert ask(store, TruncateThrough("a", 5)) == 0
        assert ask(store, Streams()) == []
        assert append(store, "a", "tea").first_seq == 1

    def test_truncation_leaves_other_streams_alone(self, store: Store) -> None:
        for stream in ("a", "a/b", "A", "b"):
            append(store, stream, "tea", "rice")
        assert ask(store, TruncateThrough("a", 2)) == 2
        for stream in ("a/b", "A", "b"):
            assert data_of(read_whole(store, stream)) == ["tea", "rice"]

    def test_truncation_never_lowers_the_last_sequence_number(self, store: Store) -> None:
        append(store, "a", "tea", "rice")
        ask(store, TruncateThrough("a", 2))
        assert ask(store, LastSeq("a")) == 2

    def test_a_truncated_stream_goes_on_counting(self, store: Store) -> None:
        """A sequence number given twice would make two events pass for one: in folds, checkpoints and caches."""
        append(store, "a", "tea", "rice")
        ask(store, TruncateThrough("a", 2))
        assert append(store, "a", "salt").first_seq == 3

    def test_an_append_after_a_truncation_expects_the_high_water_mark(self, store: Store) -> None:
        append(store, "a", "tea", "rice")
        ask(store, TruncateThrough("a", 2))
        assert ask(store, Append("a", (Draft("made", "lost"),), 0)) == Conflict("stream", "a", expected=0, actual=2)
        assert append(store, "a", "salt", expected=2).first_seq == 3

    def test_positions_go_on_growing_after_a_truncation(self, store: Store) -> None:
        before = append(store, "a", "tea").position
        ask(store, TruncateThrough("a", 1))
        assert ask(store, ReadAll()).head == before
        assert append(store, "b", "rice").position > before

    def test_a_truncated_stream_is_still_listed(self, store: Store) -> None:
        append(store, "a", "tea")
        ask(store, TruncateThrough("a", 1))
        assert ask(store, Streams()) == ["a"]

    def test_a_stream_may_be_truncated_and_appended_to_many_times(self, store: Store) -> None:
        for seq in range(1, 21):
            assert append(store, "a", seq).last_seq == seq
            assert ask(store, TruncateThrough("a", seq - 1)) == (0 if seq == 1 else 1)
            assert [event.seq for event in ask(store, Read("a")).events] == [seq]


class StreamsFacts(Facts):
    """How the names of streams are listed."""

    def test_an_empty_store_has_no_streams(self, store: Store) -> None:
        put(store, "a", "a key is not a stream")
        assert ask(store, Streams()) == []

    def test_streams_are_listed_once_sorted_by_code_point(self, store: Store) -> None:
        for stream in ("b", "a/b", "a", "B", "é", "a-b", "a", "\U0001f600", "\uff5e", "b"):
            append(store, stream, "tea")
        assert ask(store, Streams()) == ["B", "a", "a-b", "a/b", "b", "é", "\uff5e", "\U0001f600"]

    def test_streams_are_listed_by_prefix(self, store: Store) -> None:
        for stream in ("orders", "orders/", "orders/1", "orders/2", "orders-old", "Orders/3", "order"):
            append(store, stream, "tea")
        assert ask(store, Streams("orders/")) == ["orders/", "orders/1", "orders/2"]
        assert ask(store, Streams("orders/1/")) == []

    def test_streams_are_listed_page_by_page(self, store: Store) -> None:
        for stream in ("a", "b/1", "b/2", "b/3", "c"):
            append(store, stream, "tea")
        assert ask(store, Streams("b/", limit=2)) == ["b/1", "b/2"]
        assert ask(store, Streams("b/", after="b/2", limit=2)) == ["b/3"]
        assert ask(store, Streams("b/", after="b/3", limit=2)) == []

    def test_a_listing_of_streams_goes_on_past_a_name_that_is_none_of_them(self, store: Store) -> None:
        for stream in ("b/1", "b/3"):
            append(store, stream, "tea")
        assert ask(store, Streams("b/", after="b/2")) == ["b/3"]
        assert ask(store, Streams("b/", after="a")) == ["b/1", "b/3"]
        assert ask(store, Streams("b/", after="c")) == []

    def test_an_append_to_a_listed_store_is_listed_next_time(self, store: Store) -> None:
        append(store, "b", "tea")
        assert ask(store, Streams()) == ["b"]
        appended = append(store, "a", "tea")
        assert isinstance(appended, Appended)
        assert ask(store, Streams()) == ["a", "b"]
