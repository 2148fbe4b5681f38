"""The event log's functions: appending, appending once, reading by bounds and pages."""

import pytest
from conftest import interleavings, stop_after
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import to_builtins
from steady import steady

from persist_effects import (
    Conflict,
    Done,
    Draft,
    Event,
    InvalidRequest,
    StoreUnavailable,
    TooLarge,
    Truncated,
    UncertainOutcome,
    kv,
    log,
    run,
    start,
)
from persist_effects.projection import project
from persist_effects.requests import PAGE_SIZE, PAGE_SIZE_MAX, KvGet, Read, Streams, Transact


def fill(store, stream, count):
    for first in range(0, count, 5_000):
        drafts = [Draft("counted", number) for number in range(first, min(count, first + 5_000))]
        store.run(log.append_many(stream, drafts))


def data_of(events):
    return [event.data for event in events]


# Appending


def test_an_appended_event_is_returned_as_a_reader_finds_it(store):
    data, meta = {"items": ["tea", b"x"], "n": None}, {"by": ["test"]}
    event = store.run(log.append("a", "placed", data, at=-5, meta=meta))
    data["items"].append("later")
    meta["by"].append("later")
    assert event == Event("a", 1, "placed", -5, {"items": ["tea", b"x"], "n": None}, 1, {"by": ["test"]})
    assert store.run(log.read("a")) == [event]
    event.data["items"].clear()
    assert store.run(log.read("a"))[0].data["items"] == ["tea", b"x"]


def test_the_stores_clock_gives_the_time_that_the_caller_does_not(store):
    first = store.run(log.append("a", "placed", 1))
    zero = store.run(log.append("a", "placed", 2, at=0))
    store.run(log.append_many("a", [Draft("placed", 3, at=7), Draft("placed", 4)]))
    read = store.run(log.read("a"))
    assert read[:2] == [first, zero]
    assert first.at > 1_700_000_000_000_000
    assert (zero.at, read[2].at) == (0, 7)
    assert read[3].at >= first.at
    assert first.meta is None


@pytest.mark.parametrize("at", [2**63, -(2**63), 1.5, "now", True])
def test_a_time_that_is_no_integer_of_microseconds_is_refused(store, at):
    for program in (log.append("a", "placed", 1, at=at), log.append_once("a", "k", "placed", 1, at=at)):
        with pytest.raises(InvalidRequest, match="event time"):
            store.run(program)


@pytest.mark.parametrize("meta", [[], "x", 5])
def test_meta_that_is_no_dict_is_refused(store, meta):
    with pytest.raises(InvalidRequest, match="event meta is a"):
        store.run(log.append("a", "placed", 1, meta=meta))


def test_an_append_that_expects_another_sequence_changes_nothing(store):
    assert store.run(log.append_expect("a", 0, "placed", 1)).seq == 1
    assert store.run(log.append_expect("a", 0, "placed", 2)) == Conflict("stream", "a", 0, 1)
    assert store.run(log.append_expect("a", 2, "placed", 2)) == Conflict("stream", "a", 2, 1)
    second = store.run(log.append_expect("a", 1, "placed", 2, at=5, meta={"by": "test"}))
    assert store.run(log.read("a", after=1)) == [second]


def test_many_drafts_are_appended_all_or_none(store):
    appended = store.run(log.append_many("a", (Draft("counted", n) for n in range(3)), expected=0))
    assert (appended.first_seq, appended.last_seq, appended.position) == (1, 3, 3)
    assert store.run(log.append_many("a", [Draft("counted", 9)], expected=2)) == Conflict("stream", "a", 2, 3)
    with pytest.raises(InvalidRequest, match="is a set, which cannot be stored"):
        store.run(log.append_many("a", [Draft("counted", 4), Draft("counted", {5})]))
    with pytest.raises(InvalidRequest, match="needs a tuple of at least one Draft"):
        store.run(log.append_many("a", []))
    with pytest.raises(InvalidRequest, match="got a dict: give a Draft"):
        store.run(log.append_many("a", [{"type": "counted"}]))
    assert data_of(store.run(log.read("a"))) == [0, 1, 2]


def test_an_event_over_the_limit_is_refused(store):
    for program in (
        log.append("a", "placed", bytes(8 * 1024 * 1024)),
        log.append("a", "placed", 1, meta={"x": bytes(8 * 1024 * 1024)}),
        log.append_once("a", "k", "placed", bytes(8 * 1024 * 1024)),
    ):
        with pytest.raises(TooLarge):
            store.run(program)
    assert store.run(log.streams()) == store.run(kv.keys()) == []


@pytest.mark.parametrize("stream", ["", "a\n", "x" * 513, "\udc00", None, b"a"])
def test_a_stream_that_is_no_name_is_refused_by_every_function(stream):
    for program in (
        log.append(stream, "placed", 1),
        log.append_expect(stream, 0, "placed", 1),
        log.append_many(stream, [Draft("placed", 1)]),
        log.append_once(stream, "k", "placed", 1),
        log.read(stream),
        log.read_from(stream, 1),
        log.read_range(stream, 1, 2),
        log.read_back(stream, 1),
        log.last_seq(stream),
        log.truncate_through(stream, 1),
    ):
        with pytest.raises(InvalidRequest, match="stream name"):
            start(program)


# Once


def test_the_same_key_twice_is_one_event(store):
    first = store.run(log.append_once("a", "k", "paid", 5, at=7, meta={"by": "test"}))
    store.run(log.append("a", "other", 0))
    again = store.run(log.append_once("a", "k", "paid", "whatever is given now"))
    assert again == first == store.run(log.read("a", limit=1))[0]
    assert store.run(log.last_seq("a")) == 2


def test_different_keys_and_different_streams_are_different_events(store):
    for stream in ("a", "b"):
        for key in ("k", "l"):
            store.run(log.append_once(stream, key, "paid", [stream, key]))
    assert data_of(store.run(log.read("a")) + store.run(log.read("b"))) == [[s, k] for s in "ab" for k in "kl"]


names = st.text(st.sampled_from("ab/1"), min_size=1, max_size=5)


@given(st.lists(st.tuples(names, names), unique=True, min_size=2, max_size=12))
@settings(derandomize=True, deadline=None, database=None, max_examples=50)
def test_stream_and_key_pairs_that_look_alike_do_not_collide(open_new, pairs):
    with open_new() as store:
        for stream, key in [("a/b", "c"), ("a", "b/c"), ("a", "/bc"), ("a/", "bc"), ("1/a", "b"), *pairs]:
            event = store.run(log.append_once(stream, key, "paid", [stream, key]))
            assert (event.stream, event.data) == (stream, [stream, key])


def test_the_longest_stream_and_key_are_appended_once(store):
    stream, key = "é" * 256, "ü" * 256
    assert [store.run(log.append_once(stream, key, "paid", 5)).seq for _ in range(2)] == [1, 1]


@pytest.mark.parametrize("key", ["", "a\x00", "x" * 513, None, 7, b"k"])
def test_a_once_key_that_is_no_name_is_refused(store, key):
    with pytest.raises(InvalidRequest, match="once key"):
        store.run(log.append_once("a", key, "paid", 5))


@pytest.mark.parametrize(
    "junk",
    [None, 7, [1], {}, {"seq": 1}, {"stream": "a", "key": "other", "seq": 1}, {"stream": "a", "key": "k", "seq": "1"}],
    ids=steady,
)
def test_what_is_not_the_mark_of_a_once_key_is_refused_and_left_alone(store, junk):
    store.run(log.append_once("a", "k", "paid", 5))
    (mark,) = store.run(kv.keys("once/"))
    store.run(kv.put(mark, junk))
    with pytest.raises(InvalidRequest, match=r"key 'once/.*' holds .*, which is not the mark of 'k' in stream 'a'"):
        store.run(log.append_once("a", "k", "paid", 5))
    assert (store.run(kv.get(mark)), store.run(log.last_seq("a"))) == (junk, 1)


def test_a_mark_kept_by_an_earlier_release_is_read(store):
    store.run(log.append("a", "paid", 5))
    mark = "once/d2a23b187340a381c5bb0609fc3fc1ac0b452d815f48f7fa7db9ee6201b341fa"
    store.run(kv.put(mark, {"stream": "a", "key": "k", "seq": 1}))
    assert store.run(log.append_once("a", "k", "paid", 6)).data == 5


def test_an_event_appended_once_and_dropped_since_is_refused(store):
    store.run(log.append_once("a", "k", "paid", 5))
    store.run(log.append("a", "other", 0))
    store.run(log.truncate_through("a", 1))
    with pytest.raises(Truncated) as raised:
        store.run(log.append_once("a", "k", "paid", 5))
    assert (raised.value.stream, raised.value.first_left) == ("a", 2)
    assert raised.value.__notes__ == ["it was appended under the key 'k' before, as event 1"]
    store.run(log.truncate_through("a", 2))
    with pytest.raises(Truncated) as raised:
        store.run(log.append_once("a", "k", "paid", 5))
    assert raised.value.first_left == 3
    assert store.run(log.last_seq("a")) == 2


class Losing:
    """A row for transactions that loses the store: before or after carrying them out, as often as it is told."""

    def __init__(self, store, is_carried_out, times):
        self.store, self.is_carried_out, self.left, self.met = store, is_carried_out, times, 0

    @property
    def rows(self):
        return {**self.store.handlers, Transact: self}

    def __call__(self, request):
        self.met += 1
        if self.left == 0:
            return self.store.handlers[Transact](request)
        self.left -= 1
        if self.is_carried_out:
            self.store.handlers[Transact](request)
        raise UncertainOutcome("the connection was lost in the middle of the commit")


@pytest.mark.parametrize("is_carried_out", [False, True])
@pytest.mark.parametrize("times", [1, 2, 7])
def test_append_once_settles_an_uncertain_outcome(store, is_carried_out, times):
    losing = Losing(store, is_carried_out, times)
    event = run(log.append_once("a", "k", "paid", 5), losing.rows)
    assert store.run(log.read("a")) == [event]
    assert losing.met == (1 if is_carried_out else times + 1)
    assert store.run(log.append_once("a", "k", "paid", 5)) == event


def test_an_outcome_that_stays_uncertain_is_raised_and_settled_by_the_next_call(store):
    losing = Losing(store, is_carried_out=False, times=1_000_000)
    with pytest.raises(UncertainOutcome, match="the connection was lost"):
        run(log.append_once("a", "k", "paid", 5), losing.rows)
    assert 1 < losing.met < 100
    assert store.run(log.read("a")) == []
    assert store.run(log.append_once("a", "k", "paid", 5)).seq == 1


def test_an_unavailable_store_is_not_asked_again(store):
    def unavailable(request):
        raise StoreUnavailable("not now")

    with pytest.raises(StoreUnavailable, match="not now"):
        run(log.append_once("a", "k", "paid", 5), {**store.handlers, Transact: unavailable})
    assert store.run(log.streams()) == []
    store.run(log.append_once("a", "k", "paid", 5))
    with pytest.raises(StoreUnavailable, match="not now"):
        run(log.append_once("a", "k", "paid", 5), {**store.handlers, KvGet: unavailable})


@pytest.mark.parametrize("is_carried_out", [False, True])
@pytest.mark.parametrize("lost", [KvGet, Transact])
def test_a_store_that_is_gone_after_an_uncertain_attempt_leaves_the_outcome_uncertain(store, is_carried_out, lost):
    losing = Losing(store, is_carried_out, times=1)

    def gone(request):
        if losing.met and losing.left == 0:
            raise StoreUnavailable("not now")
        return losing(request)

    rows = {**losing.rows, Transact: gone} if lost is Transact else {**losing.rows, KvGet: gone}
    if lost is Transact and is_carried_out:
        assert run(log.append_once("a", "k", "paid", 5), rows).seq == 1
        return
    # Never `StoreUnavailable`, which says that nothing was written.
    with pytest.raises(UncertainOutcome, match="the connection was lost"):
        run(log.append_once("a", "k", "paid", 5), rows)
    assert data_of(store.run(log.read("a"))) == [5] * is_carried_out


def test_append_once_interrupted_at_any_request_and_performed_again_is_one_event(open_new):
    for count in range(6):
        with open_new() as store:
            stop_after(log.append_once("a", "k", "paid", 5), store, count)
            store.run(log.append_once("a", "k", "paid", 5))
            assert data_of(store.run(log.read("a"))) == [5], count


def test_two_of_the_same_key_are_one_event_in_every_order(open_new):
    def begin(store):
        return [log.append_once("a", "k", "paid", data) for data in ("first", "second")]

    tried = 0
    for order, store, ends in interleavings(open_new, begin):
        assert ends[0] == ends[1], order
        assert store.run(log.read("a")) == [ends[0]], order
        tried += 1
    assert tried == 2, "one request, and of the second one what it asks then"


def test_a_fresh_key_takes_one_round_trip_on_a_busy_stream_too(store):
    step = start(log.append_once("a", "k", "paid", 5))
    store.run(log.append("a", "paid", "of another writer"))
    answers = store.handlers[Transact](step.request)
    step = step.resume(answers)
    assert isinstance(step, Done)
    assert store.run(log.read_back("a", 1)) == [step.value]
    (mark,) = store.run(kv.keys("once/"))
    noted = store.run(kv.get(mark))
    assert noted == {"stream": "a", "key": "k", "answers": [to_builtins(answers[0])]}


def test_two_keys_and_a_plain_append_are_three_events_in_every_order(open_new):
    def begin(store):
        return [
            log.append_once("a", "k", "paid", "k"),
            log.append_once("a", "l", "paid", "l"),
            log.append("a", "paid", "plain"),
        ]

    for order, store, ends in interleavings(open_new, begin):
        assert sorted(ends, key=lambda event: event.seq) == store.run(log.read("a")), order
        assert [event.data for event in ends] == ["k", "l", "plain"], order


# Reading by bounds, against a list


@given(st.data(), st.integers(0, 8), st.integers(0, 8))
@settings(derandomize=True, deadline=None, database=None, max_examples=300)
def test_every_reader_gives_what_slicing_a_list_gives(open_new, data, count, dropped):
    bound = st.integers(0, 10)
    after, limit = data.draw(bound), data.draw(st.none() | st.integers(1, 10))
    until, backwards = data.draw(st.none() | bound), data.draw(st.booleans())
    with open_new() as store:
        fill(store, "a", count)
        fill(store, "neighbour", 3)
        store.run(log.truncate_through("a", dropped))
        left = [seq for seq in range(1, count + 1) if seq > dropped]

        def seqs(program):
            return [event.seq for event in store.run(program)]

        wanted = [seq for seq in left if after < seq and (until is None or seq <= until)]
        ordered = wanted[::-1] if backwards else wanted
        assert seqs(log.read("a", after=after, until=until, limit=limit, backwards=backwards)) == ordered[:limit]
        assert seqs(log.read_from("a", after + 1, limit=limit)) == [seq for seq in left if seq > after][:limit]
        last = 9 if until is None else until
        assert seqs(log.read_range("a", after + 1, last)) == [seq for seq in left if after < seq <= last]
        assert seqs(log.read_back("a", limit or 1)) == left[::-1][: limit or 1]
        assert store.run(log.last_seq("a")) == count


OVER_PAGES = 2 * PAGE_SIZE_MAX + 1


@pytest.fixture(scope="module")
def long_store(open_new):
    with open_new() as store:
        fill(store, "a", OVER_PAGES)
        yield store


@pytest.mark.parametrize(
    ("bounds", "numbers"),
    [
        ({}, range(OVER_PAGES)),
        ({"backwards": True}, range(OVER_PAGES - 1, -1, -1)),
        ({"limit": 1}, range(1)),
        ({"limit": PAGE_SIZE}, range(PAGE_SIZE)),
        ({"limit": PAGE_SIZE + 1}, range(PAGE_SIZE + 1)),
        ({"limit": PAGE_SIZE_MAX + 1}, range(PAGE_SIZE_MAX + 1)),
        ({"limit": OVER_PAGES + 1}, range(OVER_PAGES)),
        ({"limit": PAGE_SIZE_MAX + 1, "backwards": True}, range(OVER_PAGES - 1, PAGE_SIZE_MAX - 1, -1)),
        ({"after": 3, "until": PAGE_SIZE + 3}, range(3, PAGE_SIZE + 3)),
        ({"after": 3, "until": PAGE_SIZE + 4}, range(3, PAGE_SIZE + 4)),
        ({"after": 3, "until": PAGE_SIZE + 4, "backwards": True}, range(PAGE_SIZE + 3, 2, -1)),
        ({"after": OVER_PAGES - 1}, range(OVER_PAGES - 1, OVER_PAGES)),
    ],
    ids=steady,
)
def test_readers_cross_pages(long_store, bounds, numbers):
    assert data_of(long_store.run(log.read("a", **bounds))) == list(numbers)


def test_a_limit_is_not_read_past(long_store):
    asked = []

    def watched(request):
        asked.append(request.limit)
        return long_store.handlers[Read](request)

    run(log.read("a", limit=PAGE_SIZE_MAX + 5), {**long_store.handlers, Read: watched})
    run(log.read_back("a", 3), {**long_store.handlers, Read: watched})
    assert asked == [PAGE_SIZE_MAX, 5, 3]


@pytest.mark.parametrize("limit", [0, -1, 1.0, True])
def test_a_limit_that_is_none_is_refused(store, limit):
    for program in (
        log.read("a", limit=limit),
        log.read_back("a", limit),
        log.read_all(limit=limit),
        log.page_all(limit=limit),
    ):
        with pytest.raises(InvalidRequest, match="limit is"):
            store.run(program)


@pytest.mark.parametrize("seq", [0, -1, 1.0, "1"])
def test_a_first_sequence_that_is_none_is_refused(store, seq):
    for program in (log.read_from("a", seq), log.read_range("a", seq, 5)):
        with pytest.raises(InvalidRequest, match=r"(seq|first) is"):
            store.run(program)


def test_a_stream_without_events_reads_as_empty(store):
    fill(store, "b", 3)
    for program in (
        log.read("a"),
        log.read("a", backwards=True),
        log.read("a", after=7, until=3),
        log.read_from("a", 5),
        log.read_range("a", 5, 2),
        log.read_back("a", 5),
    ):
        assert store.run(program) == []
    assert store.run(log.last_seq("a")) == 0
    assert store.run(log.truncate_through("a", 5)) == 0
    assert store.run(log.streams()) == ["b"]


# All streams


def test_all_streams_are_read_in_the_order_of_positions_by_prefix_and_type(store):
    for stream, event_type in [("a/1", "x"), ("b", "x"), ("a/2", "y"), ("a/1", "y"), ("a", "x")]:
        store.run(log.append(stream, event_type, None))

    def positions(*arguments, **options):
        page = store.run(log.page_all(*arguments, **options))
        assert page.head == 5
        return [event.position for event in page.events]

    assert positions() == [1, 2, 3, 4, 5]
    assert positions(2) == [3, 4, 5]
    assert positions(prefix="a/") == [1, 3, 4]
    assert positions(prefix="a") == [1, 3, 4, 5]
    assert positions(1, "a/", ["y"]) == [3, 4]
    assert positions(types=iter(["x", "y"])) == [1, 2, 3, 4, 5]
    assert positions(types=[]) == []
    assert positions(limit=2) == [1, 2]
    assert positions(9) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_of_all_streams_join_to_the_whole(store, limit):
    for number in range(20):
        store.run(log.append(f"{'ab'[number % 2]}/{number % 3}", "counted", number))
    for prefix in ("", "a/", "a/1", "c"):
        joined, after = [], 0
        while True:
            page = store.run(log.page_all(after, prefix, limit=limit))
            assert len(page.events) <= limit
            joined += page.events
            after = page.next
            if page.next >= page.head:
                break
        assert joined == store.run(log.read_all(prefix=prefix))


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_of_all_streams_join_to_the_whole_backwards_too(store, limit):
    for number in range(20):
        store.run(log.append_many(f"{'ab'[number % 2]}/{number % 3}", [Draft("counted", number)] * (1 + number % 3)))
    for prefix in ("", "a/", "a/1", "c"):
        joined, until = [], None
        while until is None or until > 0:
            page = store.run(log.page_all(0, prefix, until=until, limit=limit, backwards=True))
            assert len(page.events) <= limit
            joined += page.events
            until = page.next
        assert joined == store.run(log.read_all(prefix=prefix))[::-1]


@pytest.mark.parametrize("count", [0, 1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE])
def test_reading_all_streams_goes_on_to_the_end_over_all_pages(store, count):
    fill(store, "a", count)
    fill(store, "b", 1)
    everything = store.run(log.read_all())
    assert [event.position for event in everything] == list(range(1, count + 2))
    assert store.run(log.read_all(backwards=True)) == everything[::-1]
    for limit in (1, PAGE_SIZE, PAGE_SIZE + 1):
        assert store.run(log.read_all(limit=limit)) == everything[:limit]
        assert store.run(log.read_all(limit=limit, backwards=True)) == everything[::-1][:limit]
    for after, until in ((0, 0), (0, 1), (3, max(count - 1, 0)), (count // 2, count + 9)):
        wanted = everything[after : max(after, until)]
        assert store.run(log.read_all(after, until=until)) == wanted
        assert store.run(log.read_all(after, until=until, backwards=True)) == wanted[::-1]
    assert data_of(store.run(log.read_all(prefix="b"))) == [0]
    assert store.run(log.read_all(types=["unheard of"], backwards=True)) == []


def test_the_head_is_the_newest_position_that_can_be_read(store):
    assert (store.run(log.head()), store.run(log.head("a"))) == (0, 0)
    fill(store, "a", 2)
    fill(store, "b", 1)
    assert [store.run(log.head(prefix)) for prefix in ("", "a", "b", "c")] == [3, 2, 3, 0]
    store.run(log.truncate_through("b", 1))
    store.run(log.truncate_through("a", 1))
    assert [store.run(log.head(prefix)) for prefix in ("", "a", "b")] == [3, 2, 0]


def test_a_wait_that_is_not_to_last_gives_the_newest_position(store):
    fill(store, "a", 2)
    fill(store, "b", 1)
    assert [store.run(log.wait(0, prefix, timeout=0)) for prefix in ("", "a", "c")] == [3, 2, 0]
    assert store.run(log.wait(2)) == 3


# Beginning


def test_a_stream_begins_after_a_number_and_goes_on_from_it(store):
    assert store.run(log.begin("a", 41)) == 1
    assert store.run(log.append("a", "made", 1)).seq == 42
    assert store.run(log.begin("a", 41)) == Conflict("stream", "a", expected=0, actual=42)
    assert [event.seq for event in store.run(log.read("a"))] == [42]
    with pytest.raises(Truncated, match="42"):
        store.run(project("a", lambda count, event: count + 1, 0))


@pytest.mark.parametrize("seq", [0, -1, 2**62 + 1, True, "1", None])
def test_a_beginning_after_no_number_is_refused(seq):
    with pytest.raises(InvalidRequest, match="seq is"):
        run(log.begin("a", seq), {})


@pytest.mark.parametrize("count", [PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE])
def test_streams_over_a_page_are_all_listed_once_and_sorted(store, count):
    names = [f"s/{number:05}" for number in range(count)]
    for name in reversed(names):
        store.run(log.append(name, "made", None))
    store.run(log.append("t", "made", None))
    store.run(log.truncate_through(names[0], 1))
    pages = []

    def watched(request):
        pages.append(store.handlers[Streams](request))
        return pages[-1]

    assert run(log.streams("s/"), {**store.handlers, Streams: watched}) == names
    assert max(len(page) for page in pages) <= PAGE_SIZE
    assert store.run(log.streams("t")) == ["t"]
    assert store.run(log.streams("u")) == []


# Truncating


def test_truncation_drops_the_front_and_never_lowers_the_sequence(store):
    fill(store, "a", 5)
    assert [store.run(log.truncate_through("a", seq)) for seq in (0, 2, 2, 1, 3, 99, 99)] == [0, 2, 0, 0, 1, 2, 0]
    assert store.run(log.read("a")) == store.run(log.page_all()).events == []
    assert store.run(log.last_seq("a")) == 5
    assert store.run(log.append_expect("a", 5, "counted", 5)).seq == 6
    assert store.run(log.streams()) == ["a"]
