"""Folding events: the same state in one go, from every split, from every snapshot, and after compaction."""

import weakref

import pytest
from conftest import answer
from hypothesis import given, settings
from hypothesis import strategies as st

from interpreters import open_store
from persist_effects import (
    Done,
    Draft,
    InvalidRequest,
    State,
    Suspended,
    Truncated,
    compaction,
    log,
    machine,
    snapshot,
    start,
)
from persist_effects.projection import project, project_all, project_all_resume, project_resume
from persist_effects.requests import PAGE_SIZE, PAGE_SIZE_MAX, Append, Page, Read, ReadAll, TruncateThrough

same_each_time = settings(derandomize=True, deadline=None, database=None)
amounts = st.lists(st.integers(-100, 100), max_size=20)


def fold(value, event):
    """A step that keeps everything which could go wrong: order, sums, and each event seen once."""
    return {"sum": (value["sum"] * 31 + event.data) % 1_000_003, "seen": [*value["seen"], [event.stream, event.seq]]}


def remainder(value, event):
    """A step whose state stays small and still depends on the order."""
    return (value * 31 + event.data) % 1_000_003


SEED = {"sum": 0, "seen": []}


def fill(store, stream, numbers):
    if numbers:
        store.run(log.append_many(stream, [Draft("counted", number) for number in numbers]))


def append_in_pages(store, stream, count):
    for first in range(0, count, PAGE_SIZE_MAX):
        fill(store, stream, list(range(first, min(count, first + PAGE_SIZE_MAX))))


def reduced(events, step, seed):
    """The fold, written a second time, without pages and programs."""
    value = seed
    for event in events:
        value = step(value, event)
    return value


# One fold, however it is cut


def check_every_way_to_fold(store, numbers, cuts, step, seed):
    """``cuts`` are up to three sequence numbers: where to split, where to snapshot, through where to compact."""
    split, kept, compacted = cuts
    stream = "account/1"
    fill(store, stream, numbers)
    whole = store.run(project(stream, step, seed))
    events = store.run(log.read(stream))
    assert whole == State(reduced(events, step, seed), len(numbers))

    at_split = State(reduced(events[:split], step, seed), split)
    assert store.run(project_resume(stream, step, at_split)) == whole

    store.run(snapshot.write("kept", State(reduced(events[:kept], step, seed), kept), stream=stream))
    assert store.run(snapshot.replay("kept", stream, step, seed)) == whole

    # Compacted while it was shorter is the same as a snapshot there, and its events dropped.
    store.run(snapshot.write("short", State(reduced(events[:compacted], step, seed), compacted), stream=stream))
    store.run(log.truncate_through(stream, compacted))
    assert store.run(snapshot.replay("short", stream, step, seed)) == whole

    assert store.run(compaction.compact("short", stream, step, seed)) == whole
    assert store.run(log.read(stream)) == []
    assert store.run(snapshot.replay("short", stream, step, seed)) == whole
    assert store.run(project_resume(stream, step, whole)) == whole


@given(st.data(), amounts)
@same_each_time
def test_a_projection_is_the_same_from_any_split_from_any_snapshot_and_after_compaction(open_new, data, numbers):
    cuts = data.draw(st.tuples(*[st.integers(0, len(numbers))] * 3))
    with open_new() as store:
        check_every_way_to_fold(store, numbers, cuts, fold, SEED)


@given(st.data(), st.integers(PAGE_SIZE - 1, 2 * PAGE_SIZE + 1))
@settings(same_each_time, max_examples=6)
def test_a_projection_over_several_pages_is_the_same_however_it_is_cut(open_new, data, count):
    near_a_page = st.sampled_from([0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, count]).filter(
        lambda cut: cut <= count
    )
    cuts = data.draw(st.tuples(near_a_page, st.integers(0, count), near_a_page))
    with open_new() as store:
        check_every_way_to_fold(store, list(range(count)), cuts, remainder, 7)


@given(st.lists(st.tuples(amounts, amounts), max_size=5))
@same_each_time
def test_appending_and_compacting_in_turns_gives_what_folding_everything_gives(open_new, rounds):
    with open_new() as compacted, open_new() as whole:
        for before, after in rounds:
            fill(compacted, "a", before)
            compacted.run(compaction.compact("kept", "a", fold, SEED))
            fill(compacted, "a", after)
            fill(whole, "a", before + after)
        expected = whole.run(project("a", fold, SEED))
        assert compacted.run(snapshot.replay("kept", "a", fold, SEED)) == expected
        assert compacted.run(compaction.compact("kept", "a", fold, SEED)) == expected


# The same for all streams under a prefix

streams = st.sampled_from(["orders/1", "orders/2", "orders/", "order", "orders0", "a", "ordersé"])


@given(st.data(), st.lists(st.tuples(streams, st.integers(-9, 9)), max_size=20))
@same_each_time
def test_a_projection_of_all_streams_is_the_same_from_any_position(open_new, data, written):
    with open_new() as store:
        for stream, number in written:
            fill(store, stream, [number])
        whole = store.run(project_all("orders/", fold, SEED))
        own = [event for event in store.run(log.page_all()).events if event.stream.startswith("orders/")]
        assert whole.value == reduced(own, fold, SEED)
        assert [stream for stream, _ in whole.value["seen"]] == [s for s, _ in written if s.startswith("orders/")]
        assert whole.seq == store.run(log.page_all()).head

        split = data.draw(st.integers(0, whole.seq))
        at_split = State(reduced([event for event in own if event.position <= split], fold, SEED), split)
        assert store.run(project_all_resume("orders/", fold, at_split)) == whole


@given(st.lists(st.tuples(streams, st.integers(-9, 9)), max_size=8), st.lists(st.tuples(streams, st.integers(-9, 9))))
@same_each_time
def test_a_projection_of_all_streams_goes_on_after_what_it_covers_was_dropped(open_new, before, after):
    with open_new() as store, open_new() as untouched:
        for stream, number in before:
            fill(store, stream, [number])
        covered = store.run(project_all("orders", fold, SEED))
        for stream in store.run(log.streams("orders")):
            store.run(log.truncate_through(stream, store.run(log.last_seq(stream))))
        for stream, number in after:
            fill(store, stream, [number])
        for stream, number in before + after:
            fill(untouched, stream, [number])
        expected = untouched.run(project_all("orders", fold, SEED))
        assert store.run(project_all_resume("orders", fold, covered)) == expected


@pytest.mark.parametrize("count", [PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE])
def test_a_projection_of_all_streams_crosses_pages_and_neighbours(store, count):
    for number in range(0, count, 100):
        numbers = list(range(number, min(count, number + 100)))
        fill(store, f"orders/{number % 300}", numbers)
        fill(store, "neighbour", numbers)
    state = store.run(project_all("orders/", lambda seen, event: [*seen, event.data], []))
    assert state.value == list(range(count))
    assert store.run(project_all_resume("orders/", fold, State(SEED, state.seq))) == State(SEED, state.seq)


# Empty and refused


def test_a_stream_without_events_amounts_to_the_seed(store):
    assert store.run(project("a", fold, SEED)) == State(SEED, 0)
    assert store.run(project_all("a", fold, SEED)) == State(SEED, 0)


def test_a_state_ahead_of_the_stream_is_refused(store):
    fill(store, "a", [1, 2])
    with pytest.raises(InvalidRequest, match="a state at sequence 3 is ahead of stream 'a', which ends at 2"):
        store.run(project_resume("a", fold, State(SEED, 3)))
    with pytest.raises(InvalidRequest, match="a state at sequence 1 is ahead of stream 'b', which ends at 0"):
        store.run(project_resume("b", fold, State(SEED, 1)))


def test_a_state_ahead_of_the_store_is_refused(store):
    fill(store, "a", [1, 2])
    with pytest.raises(InvalidRequest, match="a state at position 3 is ahead of the store, which ends at 2"):
        store.run(project_all_resume("", fold, State(SEED, 3)))


def test_a_state_at_a_negative_sequence_is_refused(store):
    with pytest.raises(InvalidRequest, match="after is -1"):
        store.run(project_resume("a", fold, State(SEED, -1)))


def test_an_error_in_a_step_ends_the_projection_and_harms_nothing(store):
    fill(store, "a", [1, 0, 2])
    with pytest.raises(ZeroDivisionError):
        store.run(project("a", lambda value, event: value / event.data, 1))
    assert store.run(project("a", lambda value, event: value + event.data, 1)) == State(4, 3)


# Holes


@pytest.mark.parametrize(("through", "first_left"), [(1, 2), (4, 5), (5, 6)])
def test_a_fold_over_dropped_events_is_refused_by_stream_and_first_sequence_left(store, through, first_left):
    fill(store, "a", [1, 2, 3, 4, 5])
    store.run(log.truncate_through("a", through))
    for program in (project("a", fold, SEED), project_all("", fold, SEED), project_all("a", fold, SEED)):
        with pytest.raises(Truncated) as raised:
            store.run(program)
        assert (raised.value.stream, raised.value.first_left) == ("a", first_left)
    assert f"stream 'a' was truncated: the first event left is {first_left}," in str(raised.value)


def test_a_state_that_covers_what_was_dropped_goes_on(store):
    fill(store, "a", [1, 2, 3, 4, 5])
    whole = store.run(project("a", remainder, 0))
    states = {seq: State(reduced(store.run(log.read("a"))[:seq], remainder, 0), seq) for seq in range(6)}
    store.run(log.truncate_through("a", 3))
    for seq, state in states.items():
        for resume in (lambda s: project_resume("a", remainder, s), lambda s: project_all_resume("", remainder, s)):
            if seq < 3:
                with pytest.raises(Truncated):
                    store.run(resume(state))
            else:
                assert store.run(resume(state)) == whole


def test_dropped_events_of_a_stream_outside_of_the_prefix_are_no_hole(store):
    for stream in ("orders/1", "order", "orders0", "a"):
        fill(store, stream, [1, 2])
    for stream in ("order", "orders0", "a"):
        store.run(log.truncate_through(stream, 1))
    assert store.run(project_all("orders/", remainder, 0)) == store.run(project_all("orders/1", remainder, 0))
    store.run(log.truncate_through("orders/1", 1))
    with pytest.raises(Truncated) as raised:
        store.run(project_all("orders/", remainder, 0))
    assert (raised.value.stream, raised.value.first_left) == ("orders/1", 2)


@pytest.mark.parametrize("all_streams", [False, True])
@pytest.mark.parametrize(
    ("through", "is_refused"), [(1, False), (PAGE_SIZE, False), (PAGE_SIZE + 1, True), (2 * PAGE_SIZE + 500, True)]
)
def test_events_dropped_between_two_pages_are_found_only_where_they_are_needed(store, all_streams, through, is_refused):
    append_in_pages(store, "a", 2 * PAGE_SIZE + 500)
    make = (lambda: project_all("a", remainder, 0)) if all_streams else (lambda: project("a", remainder, 0))
    whole = store.run(make())
    step = answer(start(make()), store)
    store.run(log.truncate_through("a", through))
    if is_refused:
        with pytest.raises(Truncated) as raised:
            answer(step, store)
        assert (raised.value.stream, raised.value.first_left) == ("a", through + 1)
        return
    while isinstance(step, Suspended):
        step = answer(step, store)
    assert step.value == whole


def test_events_appended_during_a_fold_are_folded_once(store):
    append_in_pages(store, "a", PAGE_SIZE + 1)
    step = answer(start(project("a", lambda seen, event: [*seen, event.data], [])), store)
    fill(store, "a", [PAGE_SIZE + 1])
    step = answer(step, store)
    assert step.value == State(list(range(PAGE_SIZE + 2)), PAGE_SIZE + 2)


# Memory


class OnePageAlive:
    """Rows that answer as the store does, and assert at each read that every page given before is gone."""

    def __init__(self, store):
        self.pages = []
        self.rows = {kind: self.watched(store.handlers[kind]) for kind in (Read, ReadAll)}

    def watched(self, handler):
        def answer_watched(request):
            alive = [number for number, page in enumerate(self.pages) if page() is not None]
            assert not alive, f"pages {alive} are alive while page {len(self.pages)} is read"
            page = handler(request)
            assert isinstance(page, Page)
            self.pages.append(weakref.ref(page))
            return page

        return answer_watched


folds = pytest.mark.parametrize(
    "make",
    [
        lambda: project("a/1", remainder, 0),
        lambda: project_all("a/", remainder, 0),
        lambda: snapshot.replay("kept", "a/1", remainder, 0),
        lambda: compaction.compact("kept", "a/1", remainder, 0),
    ],
    ids=["project", "project_all", "replay", "compact"],
)


@folds
def test_a_fold_driven_by_the_machine_holds_one_page_at_most(store, make):
    append_in_pages(store, "a/1", 3 * PAGE_SIZE + 1)
    watch = OnePageAlive(store)
    state = machine.run(make(), {**store.handlers, **watch.rows})
    assert state.seq == 3 * PAGE_SIZE + 1
    assert len(watch.pages) == 4


@folds
def test_a_fold_run_by_a_store_holds_one_page_at_most(store, make):
    append_in_pages(store, "a/1", 3 * PAGE_SIZE + 1)
    watch = OnePageAlive(store)
    # The rows in front of the others' hold the same data.
    with open_store("memory:", effects={**store.handlers, **watch.rows}) as watching:
        assert watching.run(make()).seq == 3 * PAGE_SIZE + 1
    assert len(watch.pages) == 4


def test_a_fold_driven_by_hand_asks_for_one_page_at_a_time(store):
    append_in_pages(store, "a", PAGE_SIZE + 1)
    step = start(project("a", remainder, 0))
    assert step.request == Read("a", after=0)
    step = answer(step, store)
    assert step.request == Read("a", after=PAGE_SIZE)
    assert isinstance(answer(step, store), Done)


@given(st.data())
@settings(same_each_time, max_examples=60)
def test_whatever_is_appended_and_dropped_during_a_fold_it_is_right_or_refused(open_new, data):
    """Pages of three events, and at each request another writer that appends or truncates."""
    with open_new() as store:
        fill(store, "a", [1, 2, 3, 4])
        written, refused = [1, 2, 3, 4], None
        step = start(project("a", lambda seen, event: [*seen, event.data], []))
        try:
            while isinstance(step, Suspended):
                change = data.draw(st.sampled_from(["append", "truncate", "nothing"]))
                if change == "append" and len(written) < 12:
                    written.append(len(written) + 1)
                    machine.run(log.append("a", "counted", written[-1]), {Append: store.handlers[Append]})
                elif change == "truncate":
                    seq = data.draw(st.integers(0, len(written)))
                    machine.run(
                        log.truncate_through("a", seq, unseen="drop"),
                        {TruncateThrough: store.handlers[TruncateThrough]},
                    )
                request = step.request
                step = step.resume(store.handlers[Read](Read(request.stream, request.after, limit=3)))
        except Truncated as error:
            refused = error
        if refused is None:
            assert step.value == State(written, len(written))
        else:
            first_left = store.run(log.last_seq("a")) + 1 - len(store.run(log.read("a")))
            assert (refused.stream, refused.first_left) == ("a", first_left)
