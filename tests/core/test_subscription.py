"""Reacting to events: a hub's callbacks after a publish, and followers, for whom each event takes effect once."""

import itertools
import threading
import weakref

import anyio
import pytest
from conftest import answer, interleavings, stop_after
from steady import steady

from interpreters import Store, open_store
from interpreters.explore import explore, explore_effects
from persist_effects import (
    Conflict,
    Draft,
    Hub,
    InvalidRequest,
    StoreUnavailable,
    Suspended,
    Truncated,
    UncertainOutcome,
    follow,
    kv,
    log,
    projection,
    publish,
    run,
    snapshot,
    start,
)
from persist_effects.errors import describe_type
from persist_effects.following import whole
from persist_effects.requests import PAGE_SIZE, PAGE_SIZE_MAX, Append, KvGet, KvPut, Page, Read, ReadAll, Transact, Wait

LONG_SECONDS = 60.0
"""A timeout that no test reaches."""


def fill(store, stream, numbers, type="counted"):
    for number in numbers:
        store.run(log.append(stream, type, number))


def add_up(event):
    """A handler that reads, and expects what it read: a sum, and how often each event took effect."""
    found = yield from kv.entry("sum")
    before, revision = ({"sum": 0, "seen": []}, 0) if found is None else (found.value, found.revision)
    after = {"sum": before["sum"] + event.data, "seen": [*before["seen"], event.position]}
    return [KvPut("sum", after, revision)]


def copy(event):
    """A handler that appends: what took effect twice would stand there twice."""
    return [Append("copies", (Draft("copied", [event.stream, event.seq, event.data]),))]


def copies(store):
    return [event.data for event in store.run(log.read("copies"))]


def finish(step, store):
    while isinstance(step, Suspended):
        step = answer(step, store)
    return step.value


def stopping(step, store):
    """The error by which a follower ends that finds it cannot go on; None: it goes on to its end."""
    try:
        finish(step, store)
    except InvalidRequest as error:
        return error
    return None


# The hub


def note(event, name):
    before = yield from kv.get_or("notes", [])
    yield from kv.put("notes", [*before, [name, event.seq]])


def test_callbacks_run_in_the_order_of_subscription_after_the_append(store):
    hub = Hub()
    for name in ("first", "second", "third"):
        hub.subscribe("a", lambda event, name=name: note(event, name))
    event = store.run(publish(hub, "a", "counted", 1, at=7, meta={"by": "test"}))
    assert [event] == store.run(log.read("a"))
    assert (event.at, event.meta) == (7, {"by": "test"})
    assert store.run(kv.get("notes")) == [["first", 1], ["second", 1], ["third", 1]]


def test_callbacks_get_only_the_events_of_their_stream(store):
    hub = Hub()
    hub.subscribe("a", lambda event: note(event, event.stream))
    for stream in ("a/1", "b", "a"):
        store.run(publish(hub, stream, "counted", 1))
    assert store.run(kv.get("notes")) == [["a", 1]]


def test_a_plain_append_bypasses_the_callbacks(store):
    hub = Hub()
    hub.subscribe("a", lambda event: note(event, "called"))
    store.run(log.append("a", "counted", 1))
    assert not store.run(kv.has("notes"))


def test_a_callback_taken_out_runs_no_more(store):
    hub = Hub()

    def first(event):
        return note(event, "first")

    def second(event):
        return note(event, "second")

    for callback in (first, second, first):
        hub.subscribe("a", callback)
    assert hub.callbacks("a") == (first, second, first)
    assert hub.unsubscribe("a", first)
    assert not hub.unsubscribe("a", first)
    assert not hub.unsubscribe("b", second)
    store.run(publish(hub, "a", "counted", 1))
    assert store.run(kv.get("notes")) == [["second", 1]]
    assert hub.callbacks("b") == ()


def test_callbacks_may_publish_and_subscribe(store):
    hub = Hub()

    def forward(event):
        hub.subscribe("a", lambda later: note(later, "late"))
        return (yield from publish(hub, "b", "counted", event.data))

    hub.subscribe("a", forward)
    hub.subscribe("b", lambda event: note(event, "b"))
    store.run(publish(hub, "a", "counted", 1))
    assert store.run(kv.get("notes")) == [["b", 1]], "whoever subscribes during a publish comes in at the next"
    store.run(publish(hub, "a", "counted", 2))
    assert store.run(kv.get("notes")) == [["b", 1], ["b", 2], ["late", 2]]


def test_an_error_in_a_callback_leaves_the_event_appended_and_says_so(store):
    hub = Hub()

    def fail(event):
        yield from kv.put("seen", event.seq)
        raise LookupError("no such account")

    hub.subscribe("a", fail)
    hub.subscribe("a", lambda event: note(event, "after"))
    with pytest.raises(LookupError, match="no such account") as raised:
        store.run(publish(hub, "a", "counted", 1))
    assert raised.value.__notes__ == ["raised by a callback of 'a', after event 1 was appended"]
    assert len(store.run(log.read("a"))) == store.run(kv.get("seen")) == 1
    assert not store.run(kv.has("notes"))


def test_what_is_no_callback_or_no_stream_is_refused():
    with pytest.raises(InvalidRequest, match="a callback is a str, 'callback': give a generator function of one event"):
        Hub().subscribe("a", "callback")
    with pytest.raises(InvalidRequest, match="stream name is empty"):
        Hub().subscribe("", print)


# Following


def test_a_follower_handles_each_event_under_its_prefix_in_order_and_goes_on_from_its_checkpoint(store):
    fill(store, "a/1", [1, 2])
    fill(store, "b", [3])
    fill(store, "a/2", [4])
    assert store.run(follow("copier", "a/", copy)) == 4
    assert copies(store) == [["a/1", 1, 1], ["a/1", 2, 2], ["a/2", 1, 4]]
    store.run(follow("copier", "a/", copy))
    fill(store, "a/1", [5])
    store.run(follow("copier", "a/", copy))
    assert copies(store)[3:] == [["a/1", 3, 5]]


def test_followers_of_different_names_go_their_own_ways(store):
    fill(store, "a", [1])
    for name in ("one", "two", "one"):
        store.run(follow(name, "a", copy))
    assert copies(store) == [["a", 1, 1]] * 2
    assert store.run(kv.keys()) == ["follow/one", "follow/two"]


def test_following_an_empty_store_returns_position_0_and_writes_nothing(store):
    assert store.run(follow("copier", "", copy)) == 0
    assert store.run(kv.keys()) == []


def test_a_follower_of_some_types_passes_over_the_others(store):
    for number in range(6):
        store.run(log.append("a", "even" if number % 2 == 0 else "odd", number))
    assert store.run(follow("evens", "a", copy, types=["even"])) == 6
    assert [data for _, _, data in copies(store)] == [0, 2, 4]
    assert store.run(follow("none", "a", copy, types=[])) == store.run(log.page_all()).head
    assert len(copies(store)) == 3
    store.run(follow("both", "a", add_up, types=iter(("even", "odd"))))
    assert store.run(kv.get("sum"))["sum"] == 15


@pytest.mark.parametrize("batch", [1, 2, 3, 7, PAGE_SIZE_MAX])
def test_batches_take_effect_in_order_with_one_transaction_each(store, batch):
    fill(store, "a", range(7))
    transactions = []

    def watched(request):
        transactions.append(len(request.writes) - 1)
        return store.handlers[Transact](request)

    run(follow("copier", "a", copy, batch=batch), {**store.handlers, Transact: watched})
    assert [data for _, _, data in copies(store)] == list(range(7))
    assert len(transactions) == -(-7 // batch)
    assert sum(transactions) == 7


def test_a_follower_that_another_one_was_quicker_than_goes_on_with_whole_batches(store):
    fill(store, "a", range(40))
    transactions = []

    def watched(request):
        if len(transactions) == 1:
            store.run(kv.put("follow/copier", {"position": 15, "prefix": "a"}))
        transactions.append(len(request.writes) - 1)
        return store.handlers[Transact](request)

    run(follow("copier", "a", copy, batch=10), {**store.handlers, Transact: watched})
    # The second one is in conflict with the other, and those behind it go from where that one has come to.
    assert transactions == [10, 10, 10, 10, 5]


@pytest.mark.parametrize("batch", [1, 999, 1_000])
def test_a_follower_crosses_pages(store, batch):
    count = 2 * PAGE_SIZE + 1
    store.run(log.append_many("a", [Draft("counted", number) for number in range(count)]))
    seen = []
    assert store.run(follow("seer", "", lambda event: seen.append(event.data) or [], batch=batch)) == count
    assert seen == list(range(count))


@pytest.mark.parametrize("batch", [0, -1, PAGE_SIZE_MAX + 1, True, 1.0])
def test_a_batch_that_is_no_size_is_refused(store, batch):
    with pytest.raises(InvalidRequest, match="batch is"):
        store.run(follow("copier", "", copy, batch=batch))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "follower name is empty"),
        (5, "follower name is an int, 5: give a str"),
        (None, "follower name is None"),
        ("a\x00b", r"follower name 'a\\x00b' has the control character"),
        ("x" * 513, "follower name 'x+ takes 513 bytes"),
        ("x" * 512, "follower's checkpoint key 'follow/x+ takes 519 bytes"),
    ],
)
def test_a_follower_whose_name_cannot_be_a_key_is_refused(store, name, reason):
    with pytest.raises(InvalidRequest, match=reason):
        store.run(follow(name, "", copy))


gives = pytest.mark.parametrize("said", [None, KvPut("a", 1), "ab", {"a": 1}, 5], ids=steady)


@gives
@pytest.mark.parametrize("reads_first", [False, True])
def test_a_handler_that_gives_no_list_of_writes_is_named_with_the_position(store, said, reads_first):
    def read_first(event):
        yield from kv.get("a")
        return said if event.data == 2 else []

    def handler(event):
        return read_first(event) if reads_first else said if event.data == 2 else []

    fill(store, "a", [1, 2])
    with pytest.raises(InvalidRequest) as raised:
        store.run(follow("wrong", "a", handler))
    assert str(raised.value) == (
        f"the handler of follower 'wrong' gave {describe_type(said)} for the event at position 2: "
        "give a list of writes, an empty one where there are none"
    )
    assert store.run(kv.keys()) == ["follow/wrong"]
    assert store.run(kv.get("follow/wrong")) == {"position": 1, "prefix": "a"}


# The checkpoint


@pytest.mark.parametrize(
    "junk",
    [None, 5, "junk", b"\xff", [1], {}, {"position": None}, {"position": "1"}, {"position": 1.0}, {"position": True}],
    ids=steady,
)
def test_a_checkpoint_that_is_none_is_refused_and_left_alone(store, junk):
    fill(store, "a", [1])
    store.run(kv.put("follow/copier", junk))
    with pytest.raises(InvalidRequest, match=r"key 'follow/copier' holds .*, which is not a checkpoint of a follower"):
        store.run(follow("copier", "a", copy))
    assert store.run(kv.get("follow/copier")) == junk
    assert copies(store) == []


@pytest.mark.parametrize("position", [-1, 2**63, 2**64 - 1])
def test_a_checkpoint_at_no_position_is_refused(store, position):
    store.run(kv.put("follow/copier", {"position": position}))
    with pytest.raises(InvalidRequest):
        store.run(follow("copier", "a", copy))


@pytest.mark.parametrize("prefix", ["", "a", "other"])
def test_a_checkpoint_past_the_stores_end_is_refused(store, prefix):
    fill(store, "a", [1, 2])
    store.run(kv.put("follow/copier", {"position": 500}))
    with pytest.raises(InvalidRequest, match=r"follower 'copier' has its checkpoint at position 500, but .* ends at 2"):
        store.run(follow("copier", prefix, copy))
    store.run(kv.delete("follow/copier"))
    assert store.run(follow("copier", "a", copy)) >= 2
    assert copies(store) == [["a", 1, 1], ["a", 2, 2]]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("types", [None, ["counted"]])
def test_a_follower_whose_checkpoint_is_deleted_at_any_request_stops_and_the_next_one_begins_anew(
    open_new, batch, types
):
    """It has nothing to go on from, and must not let all events take effect again by itself."""
    told = 0
    for count in itertools.count():
        with open_new() as store:
            fill(store, "a", [1, 2, 3])
            step = start(follow("copier", "a", copy, batch=batch, types=types))
            for _ in range(count):
                step = answer(step, store) if isinstance(step, Suspended) else step
            if not isinstance(step, Suspended):
                break
            before = len(copies(store))
            store.run(kv.delete("follow/copier"))
            stopped = stopping(step, store)
            if stopped is not None:
                told += 1
                assert "'copier' was forgotten, or its checkpoint deleted, while it followed" in str(stopped)
                assert len(copies(store)) == before
            store.run(follow("copier", "a", copy, batch=batch, types=types))
            assert [data for _, _, data in copies(store)] in (
                [1, 2, 3],
                [*range(1, before + 1), 1, 2, 3],
            ), count
    assert told > 0
    assert count > 3


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (("a", None), ("b", None), "one of the prefix 'a', and was asked to follow the prefix 'b'"),
        (("a", None), ("", None), "one of the prefix 'a', and was asked to follow the prefix ''"),
        (("a", None), ("a", ["counted"]), "the prefix 'a', and was asked to follow the prefix 'a' of the types ['coun"),
        (
            ("", ["counted"]),
            ("", ["counted", "more"]),
            "of the types ['counted'], and was asked to follow the prefix ''",
        ),
        (("", ["counted"]), ("", None), "one of the prefix '' of the types ['counted'], and was asked to follow the"),
    ],
    ids=steady,
)
def test_a_followers_name_with_another_prefix_or_other_types_is_refused(store, first, second, words):
    seen = []

    def note_position(event):
        seen.append(event.position)
        return []

    for stream in ("a", "b"):
        fill(store, stream, [1])
    store.run(follow("copier", first[0], note_position, types=first[1]))
    kept, before = store.run(kv.entry("follow/copier")), list(seen)
    with pytest.raises(InvalidRequest) as raised:
        store.run(follow("copier", second[0], note_position, types=second[1]))
    assert words in str(raised.value)
    assert (store.run(kv.entry("follow/copier")), seen) == (kept, before)
    # As the error says: who has changed on purpose goes on from there.
    store.run(kv.put("follow/copier", {"position": kept.value["position"]}))
    store.run(follow("copier", second[0], note_position, types=second[1]))


def test_the_order_of_a_followers_types_means_nothing(store):
    fill(store, "a", [1, 2])
    store.run(follow("copier", "a", copy, types=["counted", "more"]))
    store.run(follow("copier", "a", copy, types=iter(("more", "counted", "more"))))
    assert copies(store) == [["a", 1, 1], ["a", 2, 2]]


@pytest.mark.parametrize(("prefix", "types"), [("a", None), ("", None), ("a", ["counted"])])
def test_a_checkpoint_kept_before_it_said_whose_it_is_is_gone_on_from(store, prefix, types):
    seen = []
    fill(store, "a", [1, 2, 3])
    store.run(kv.put("follow/copier", {"position": 2}))
    store.run(follow("copier", prefix, lambda event: seen.append(event.position) or [], types=types))
    assert seen == [3]


def test_a_follower_of_everything_keeps_its_checkpoint_as_it_always_did(store):
    fill(store, "a", [1, 2, 3])
    store.run(follow("copier", "", lambda event: []))
    assert store.run(kv.get("follow/copier")) == {"position": 3}


# Over what is not followed


def watched(store):
    """The store's rows, and the reads and transactions that are asked of them."""
    asked = []

    def watch(kind):
        def answered(request):
            asked.append(request)
            return store.handlers[kind](request)

        return answered

    return {**store.handlers, **{kind: watch(kind) for kind in (ReadAll, Transact)}}, asked


def test_a_follower_moves_its_checkpoint_over_many_events_of_other_streams_and_does_not_read_past_them_again(store):
    fill(store, "a", [1])
    store.run(log.append_many("b", [Draft("counted", number) for number in range(2_000)]))
    rows, asked = watched(store)
    assert run(follow("copier", "a", copy), rows) == 2_001
    assert len(asked) == 3, "the event, and then the checkpoint alone"
    assert store.run(kv.get("follow/copier")) == {"position": 2_001, "prefix": "a"}
    asked.clear()
    for _ in range(3):
        run(follow("copier", "a", copy), rows)
    assert asked == [ReadAll(2_001, "a")] * 3, "nothing has moved, and nothing is written"


def test_a_follower_does_not_write_for_each_few_events_of_other_streams(store):
    fill(store, "a", [1])
    store.run(follow("copier", "a", copy))
    rows, asked = watched(store)
    for number in range(30):
        fill(store, "b", [number])
        run(follow("copier", "a", copy), rows)
        run(follow("typed", "a", copy, types=["other"]), rows)
    assert [request.writes for request in asked if isinstance(request, Transact)] == [
        (KvPut("follow/typed", {"position": 3, "prefix": "a", "types": ["other"]}, 0),)
    ], "once over an event of another type under the prefix, which may be truncated then"


def test_a_follower_that_waits_has_moved_its_checkpoint_over_other_types_before(store):
    fill(store, "a", [1], type="unwanted")
    step = start(follow("once", "a", copy, types=["wanted"], timeout=5))
    while not isinstance(step.request, Wait):
        step = answer(step, store)
    assert store.run(kv.get("follow/once")) == {"position": 1, "prefix": "a", "types": ["wanted"]}


def test_a_follower_whose_checkpoint_is_deleted_while_it_moves_it_by_itself_stops(store):
    fill(store, "a", [7])
    store.run(log.append_many("b", [Draft("counted", number) for number in range(1_000)]))
    step = start(follow("copier", "a", copy))
    while not (isinstance(step.request, Transact) and len(step.request.writes) == 1):
        step = answer(step, store)
    store.run(kv.delete("follow/copier"))
    with pytest.raises(InvalidRequest, match="was forgotten, or its checkpoint deleted"):
        finish(step, store)
    assert copies(store) == [["a", 1, 7]]


class ShortPages:
    """An interpreter that gives pages of few positions, as a store may that bounds what it reads for one."""

    def __init__(self, store, length):
        def read(request):
            page = store.handlers[ReadAll](request)
            until = min(request.after + length, page.head)
            events = [event for event in page.events if event.position <= until]
            return Page(events, max(until, request.after), page.head, page.hole)

        self.handlers = {**store.handlers, ReadAll: read}


def test_a_follower_given_up_in_a_long_way_goes_on_from_where_it_was(store):
    store.run(log.append_many("b", [Draft("counted", number) for number in range(5_000)]))
    fill(store, "a", [7])
    rows = ShortPages(store, 400).handlers
    reached = [0]
    while not copies(store):
        step, left = start(follow("copier", "a", copy)), 8
        while isinstance(step, Suspended) and left:
            step, left = step.resume(rows[type(step.request)](step.request)), left - 1
        reached.append(store.run(kv.get_or("follow/copier", {"position": 0}))["position"])
        assert reached[-1] > reached[-2], "each time it comes further"
    assert copies(store) == [["a", 1, 7]]


def test_an_error_in_a_handler_leaves_the_event_to_be_handled_again(store):
    fill(store, "a", [1, 2, 3])
    failing = True

    def handler(event):
        if failing and event.data == 2:
            raise LookupError("not now")
        return copy(event)

    with pytest.raises(LookupError, match="not now"):
        store.run(follow("copier", "a", handler))
    assert copies(store) == [["a", 1, 1]]
    failing = False
    store.run(follow("copier", "a", handler))
    assert copies(store) == [["a", seq, seq] for seq in (1, 2, 3)]


# Each event once

NUMBERS = [5, 7, 11, 13, 17]
handlers = pytest.mark.parametrize("handler", [copy, add_up])


def effects(store, handler):
    """The data of each time that an event took effect."""
    if handler is copy:
        return [data for _, _, data in copies(store)]
    found = store.run(kv.get_or("sum", {"sum": 0, "seen": []}))
    by_position = {event.position: event.data for event in store.run(log.read("a"))}
    numbers = [by_position[position] for position in found["seen"]]
    assert found["sum"] == sum(numbers)
    return numbers


def batches_for(handler):
    # Handlers of one batch do not see each other's writes, so one that adds up needs a batch of its own.
    return (1, 2, 5) if handler is copy else (1,)


@handlers
def test_a_follower_interrupted_at_any_request_gives_each_event_effect_once(open_new, handler):
    for batch in batches_for(handler):
        for count in itertools.count():
            with open_new() as store:
                fill(store, "a", NUMBERS)
                ended = stop_after(follow("once", "a", handler, batch=batch), store, count)
                assert effects(store, handler) == NUMBERS[: len(effects(store, handler))], count
                store.run(follow("once", "a", handler, batch=batch))
                assert effects(store, handler) == NUMBERS, count
            if ended:
                break
        assert count > 2


@handlers
def test_a_follower_interrupted_again_and_again_gives_each_event_effect_once(open_new, handler):
    for patience in (4, 5, 6, 9):
        with open_new() as store:
            fill(store, "a", NUMBERS)
            for _ in range(20):
                stop_after(follow("once", "a", handler), store, patience)
            assert effects(store, handler) == NUMBERS, patience


@handlers
@pytest.mark.parametrize("is_carried_out", [False, True])
@pytest.mark.parametrize("error", [UncertainOutcome("lost"), StoreUnavailable("lost"), KeyboardInterrupt()])
def test_a_follower_that_meets_an_error_at_any_request_gives_each_event_effect_once(
    open_new, handler, is_carried_out, error
):
    for count in itertools.count():
        with open_new() as store:
            fill(store, "a", NUMBERS)
            step = start(follow("once", "a", handler))
            for _ in range(count):
                step = answer(step, store) if isinstance(step, Suspended) else step
            if not isinstance(step, Suspended):
                break
            if is_carried_out:
                store.handlers[type(step.request)](step.request)
            with pytest.raises(type(error)):
                step.throw(error)
            store.run(follow("once", "a", handler))
            assert effects(store, handler) == NUMBERS, count


@handlers
def test_two_followers_of_one_name_give_each_event_effect_once_in_every_order(open_new, handler):
    def begin(store):
        fill(store, "a", NUMBERS[:1])
        return [follow("once", "a", handler), follow("once", "a", handler)]

    tried = 0
    for order, store, ends in interleavings(open_new, begin):
        assert effects(store, handler) == NUMBERS[:1], order
        assert not any(isinstance(end, Exception) for end in ends), order
        tried += 1
    assert tried >= 20


def test_two_followers_of_one_name_share_two_events_in_every_order(open_new):
    def begin(store):
        fill(store, "a", NUMBERS[:2])
        # The first one has begun, so that the number of orders stays small.
        stop_after(follow("once", "a", copy), store, 3)
        return [follow("once", "a", copy), follow("once", "a", copy, batch=2)]

    for order, store, ends in interleavings(open_new, begin):
        assert effects(store, copy) == NUMBERS[:2], order
        assert not any(isinstance(end, Exception) for end in ends), order


def test_an_event_appended_while_a_follower_runs_is_found_now_or_next_time(open_new):
    def begin(store):
        fill(store, "a", [1])
        return [follow("once", "a", copy), log.append("a", "counted", 2), log.append("b", "counted", 3)]

    for order, store, _ in interleavings(open_new, begin):
        store.run(follow("once", "a", copy))
        assert copies(store) == [["a", 1, 1], ["a", 2, 2]], order


FEW = 3
"""In place of a thousand, over how many positions a checkpoint is moved by itself: so that orders stay few."""


def memory():
    return open_store("memory:", clock=lambda: 7)


def follow_a():
    yield from follow("once", "a", copy)


def follow_a_of_types():
    yield from follow("once", "a", copy, types=["counted"])


def follow_a_in_batches():
    yield from follow("once", "a", copy, batch=2)


def append_others():
    yield from log.append_many("b", [Draft("counted", number) for number in range(FEW)])


def append_to_a():
    # Started anew after a crash, it does nothing twice.
    yield from log.append_expect("a", 1, "counted", 2)


def filled_among_others():
    store = memory()
    for stream, number in (("b", 1), ("a", 1), ("b", 2), ("b", 3), ("b", 4)):
        store.run(log.append(stream, "counted", number))
    return store


def each_taken_effect_once(*_):
    yield from follow("once", "a", copy)
    yield from copied_each_once()


def each_of_types_taken_effect_once(*_):
    yield from follow("once", "a", copy, types=["counted"])
    yield from copied_each_once()


def copied_each_once():
    seen = [event.data[2] for event in (yield from log.read("copies"))]
    wanted = [event.data for event in (yield from log.read("a"))]
    assert seen == wanted, f"{wanted} were appended, and {seen} took effect"


@pytest.mark.parametrize(
    "programs",
    [
        [follow_a, follow_a],
        [follow_a, follow_a_in_batches, append_to_a],
        [follow_a, append_others, append_to_a],
    ],
    ids=lambda programs: " ".join(program.__name__ for program in programs),
)
def test_followers_that_move_their_checkpoint_by_itself_miss_nothing(monkeypatch, programs):
    monkeypatch.setattr(whole, "FAR_POSITIONS", FEW)
    report = explore(programs, filled_among_others, each_taken_effect_once, bound=2, crashes=len(programs) == 2)
    assert report.verdict == "passed", report


def test_followers_of_types_that_move_their_checkpoint_by_itself_miss_nothing(monkeypatch):
    monkeypatch.setattr(whole, "FAR_POSITIONS", FEW)
    programs = [follow_a_of_types, follow_a_of_types]
    report = explore(programs, filled_among_others, each_of_types_taken_effect_once, bound=3, crashes=True)
    assert report.verdict == "passed", report


@pytest.mark.parametrize(
    ("program", "check"),
    [(follow_a, each_taken_effect_once), (follow_a_of_types, each_of_types_taken_effect_once)],
)
def test_a_follower_that_moves_its_checkpoint_by_itself_meets_any_fault_and_misses_nothing(monkeypatch, program, check):
    monkeypatch.setattr(whole, "FAR_POSITIONS", FEW)
    report = explore_effects([program, append_to_a, program], filled_among_others, check)
    assert report.verdict == "passed", report


# Conflicts


def test_a_handler_that_reads_and_expects_goes_on_after_another_writer_came_first(open_new):
    def begin(store):
        fill(store, "a", [5])
        store.run(kv.put("sum", {"sum": 100, "seen": []}))
        return [follow("once", "a", add_up), kv.update("sum", lambda old: {**old, "sum": old["sum"] + 1000})]

    for order, store, ends in interleavings(open_new, begin):
        assert ends[0] == 1, order
        assert store.run(kv.get("sum")) == {"sum": 1105, "seen": [1]}, order


def test_a_handler_that_appends_where_it_expects_goes_on_after_another_writer_came_first(open_new):
    def answer_order(event):
        last = yield from log.last_seq("replies")
        return [Append("replies", (Draft("answered", event.seq),), last)]

    def begin(store):
        fill(store, "a", [5])
        return [follow("once", "a", answer_order), log.append("replies", "other", 0), log.append("replies", "other", 1)]

    for order, store, ends in interleavings(open_new, begin):
        assert ends[0] >= 1, order
        assert sorted(event.type for event in store.run(log.read("replies"))) == ["answered", "other", "other"], order


@pytest.mark.parametrize("count", [150, 2_000])
def test_a_follower_beside_a_faster_one_of_its_name_loses_every_race_and_is_not_blamed(store, count):
    def fast(event):
        return [KvPut("n", event.seq), *copy(event)]

    def slow(event):
        for _ in range(5):
            yield from kv.get("x")
        return [KvPut("n", event.seq), *copy(event)]

    store.run(log.append_many("a", [Draft("counted", number) for number in range(count)]))
    store.run_many([follow("f", "a", fast), follow("f", "a", slow), follow("f", "a", slow, batch=7)])
    assert [data for _, _, data in copies(store)] == list(range(count))
    assert store.run(kv.get("n")) == count


def test_a_follower_whose_last_attempt_lost_to_another_of_its_name_goes_on(store):
    """It has met other conflicts for these events; then another follower lets them take effect."""
    store.run(kv.put("taken", 1))
    fill(store, "a", [5, 6])

    def handler(event):
        return [KvPut("taken", event.data, 0)] if event.data == 5 else copy(event)

    step = start(follow("once", "a", handler))
    lost = 0
    while lost < 99:
        lost += isinstance(step.request, Transact)
        step = answer(step, store)
    while not isinstance(step.request, Transact):
        step = answer(step, store)
    store.run(kv.put("follow/once", {"position": 1}))
    finish(step, store)
    assert copies(store) == [["a", 2, 6]]


def test_a_handler_that_moves_its_own_checkpoint_back_is_reported(store):
    fill(store, "a", [5, 6])

    def begin_anew(event):
        yield from kv.put("follow/stuck", {"position": 0})
        return []

    with pytest.raises(InvalidRequest, match="follower 'stuck' cannot go on"):
        store.run(follow("stuck", "a", begin_anew))


def test_a_handler_that_never_can_succeed_is_reported(store):
    fill(store, "a", [5, 6])
    store.run(kv.put("taken", "by another"))
    with pytest.raises(InvalidRequest) as raised:
        store.run(follow("stuck", "a", lambda event: [KvPut("taken", event.data, 0)]))
    assert "follower 'stuck' cannot go on" in str(raised.value)
    assert "events at positions 1 to 1" in str(raised.value)
    assert str(Conflict("key", "taken", 0, 1, 1)) in str(raised.value)
    assert store.run(kv.get("taken")) == "by another"
    assert not store.run(kv.has("follow/stuck"))


def test_a_handler_that_conflicts_with_its_own_writes_is_reported(store):
    fill(store, "a", [5])
    with pytest.raises(InvalidRequest, match="follower 'stuck' cannot go on"):
        store.run(follow("stuck", "a", lambda event: [KvPut("once", 1, 0), KvPut("once", 2, 0)]))
    assert store.run(kv.keys()) == []


def test_a_handler_that_writes_by_itself_is_reported_after_a_bounded_number_of_attempts(store):
    attempts = []

    def write_and_expect(event):
        attempts.append(event.position)
        revision = yield from kv.put("sum", event.data)
        return [KvPut("sum", 2, revision - 1)]

    fill(store, "a", [5, 6])
    with pytest.raises(InvalidRequest, match=r"follower 'stuck' cannot go on: .* at positions 1 to 1 met a conflict"):
        store.run(follow("stuck", "a", write_and_expect, batch=2))
    # Two events at once, then the first of them alone.
    assert attempts[:2] == [1, 2]
    assert set(attempts[2:]) == {1}
    assert len(attempts) <= 200
    assert not store.run(kv.has("follow/stuck"))


def test_the_attempts_are_counted_anew_for_each_event(store):
    left = {}

    def succeed_late(event):
        left[event.position] = left.get(event.position, 60) - 1
        return [KvPut(f"done/{event.seq}", 1, 1_000_000 if left[event.position] else 0)]

    fill(store, "a", range(4))
    assert store.run(follow("late", "a", succeed_late)) == 4
    assert len(store.run(kv.keys("done/"))) == 4


@pytest.mark.parametrize("batch", [2, 3, 5, PAGE_SIZE_MAX])
def test_events_of_a_batch_that_expect_one_key_are_handled_one_by_one(store, batch):
    fill(store, "a", NUMBERS)
    store.run(follow("adder", "a", add_up, batch=batch))
    assert store.run(kv.get("sum")) == {"sum": sum(NUMBERS), "seen": [1, 2, 3, 4, 5]}


# Waiting


@pytest.mark.parametrize("timeout", [LONG_SECONDS, float("inf")])
def test_a_follower_that_waits_is_woken_by_a_publish_from_another_thread(store, timeout):
    waiting, followed = threading.Event(), threading.Event()

    def wait(request):
        waiting.set()
        return store.handlers[Wait](request)

    def handler(event):
        followed.set()
        if event.data == "stop":
            raise StopAsyncIteration
        return copy(event)

    def keep_following():
        with pytest.raises(StopAsyncIteration):
            run(follow("once", "a", handler, timeout=timeout), {**store.handlers, Wait: wait})

    thread = threading.Thread(target=keep_following)
    thread.start()
    for number in range(3):
        assert waiting.wait(LONG_SECONDS)
        waiting.clear()
        store.run(publish(Hub(), "b", "counted", number))
        store.run(publish(Hub(), "a", "counted", number))
        assert followed.wait(LONG_SECONDS)
        followed.clear()
    store.run(publish(Hub(), "a", "counted", "stop"))
    thread.join(LONG_SECONDS)
    assert not thread.is_alive()
    assert [data for _, _, data in copies(store)] == [0, 1, 2]


def test_a_follower_asks_to_wait_only_when_it_is_caught_up(store):
    fill(store, "a", [1])
    fill(store, "b", [2])
    step = start(follow("once", "a", copy, timeout=5))
    while not isinstance(step.request, Wait):
        step = answer(step, store)
    assert step.request == Wait(2, "a", 5)
    # An event of another stream may wake it in vain, and it goes on to wait.
    fill(store, "a", [3])
    position = store.run(log.page_all()).head
    step = step.resume(position)
    assert isinstance(step.request, ReadAll)
    while not isinstance(step.request, Wait):
        step = answer(step, store)
    assert copies(store) == [["a", 1, 1], ["a", 2, 3]]
    assert step.resume(position).value == step.request.after


# Truncation


def test_a_follower_is_refused_where_events_that_it_has_not_seen_were_dropped(store):
    fill(store, "a", [1, 2, 3])
    fill(store, "b", [4])
    store.run(log.truncate_through("a", 2))
    with pytest.raises(Truncated) as raised:
        store.run(follow("late", "", copy))
    assert (raised.value.stream, raised.value.first_left) == ("a", 3)
    assert copies(store) == []
    assert store.run(follow("other", "b", copy)) == 4


def test_a_follower_that_skips_what_was_dropped_handles_what_is_left(store):
    fill(store, "a", [1, 2, 3])
    store.run(log.truncate_through("a", 2))
    store.run(follow("late", "a", copy, skip_truncated=True))
    store.run(log.truncate_through("a", 3))
    store.run(follow("late", "a", copy, skip_truncated=True))
    assert copies(store) == [["a", 3, 3]]


def test_a_follower_that_has_seen_what_was_dropped_goes_on(store):
    fill(store, "a", [1, 2, 3])
    store.run(follow("once", "a", copy))
    store.run(log.truncate_through("a", 3))
    fill(store, "a", [4])
    store.run(follow("once", "a", copy))
    assert [data for _, _, data in copies(store)] == [1, 2, 3, 4]


def test_events_dropped_while_a_follower_runs_are_found_at_its_next_page(store):
    store.run(log.append_many("a", [Draft("counted", number) for number in range(PAGE_SIZE + 2)]))
    step = start(follow("once", "a", lambda event: [], batch=PAGE_SIZE))
    while not isinstance(step.request, Transact):
        step = answer(step, store)
    store.run(log.truncate_through("a", PAGE_SIZE + 1))
    asked = []

    def go_on():
        nonlocal step
        while isinstance(step, Suspended):
            asked.append(step.request)
            step = answer(step, store)

    with pytest.raises(Truncated) as raised:
        go_on()
    assert (raised.value.stream, raised.value.first_left) == ("a", PAGE_SIZE + 2)
    # Another follower of its name may have seen them: it looks at its checkpoint before it gives up.
    assert asked[-2:] == [ReadAll(PAGE_SIZE, "a"), KvGet("follow/once")]
    assert store.run(kv.get("follow/once")) == {"position": PAGE_SIZE, "prefix": "a"}


def test_a_follower_goes_on_where_another_of_its_name_has_seen_what_was_dropped(store):
    fill(store, "a", [1, 2, 3])
    step = start(follow("once", "a", copy))
    while not isinstance(step.request, ReadAll):
        step = answer(step, store)
    store.run(follow("once", "a", copy))
    store.run(log.truncate_through("a", 2))
    fill(store, "a", [4])
    finish(step, store)
    assert [data for _, _, data in copies(store)] == [1, 2, 3, 4]


def test_a_follower_is_not_refused_for_what_another_of_its_name_has_handled_and_dropped(open_new):
    def follow_and_drop():
        yield from follow("once", "a", copy)
        yield from log.truncate_through("a", 1)

    def begin(store):
        fill(store, "a", [5])
        return [follow("once", "a", copy), follow_and_drop()]

    for order, store, ends in interleavings(open_new, begin):
        assert not any(isinstance(end, Exception) for end in ends), (order, ends)
        assert [data for _, _, data in copies(store)] == [5], order


def test_events_of_types_that_a_follower_passed_over_may_be_dropped(store):
    fill(store, "a", [1], type="wanted")
    fill(store, "a", [2, 3], type="unwanted")
    store.run(follow("once", "a", copy, types=["wanted"]))
    store.run(log.truncate_through("a", 3))
    fill(store, "a", [4], type="wanted")
    store.run(follow("once", "a", copy, types=["wanted"]))
    assert [data for _, _, data in copies(store)] == [1, 4]


# Memory


class OnePageAlive:
    """An interpreter that answers as another does, and asserts at each read that every page given before is gone."""

    blocking = False

    def __init__(self, interpreter):
        self.pages = []
        rows = {kind: self._watched(interpreter.handlers[kind]) for kind in (Read, ReadAll)}
        self.handlers = {**interpreter.handlers, **rows}
        self.watch = interpreter.watch

    def _watched(self, handler):
        def answer_watched(request):
            alive = [number for number, page in enumerate(self.pages) if page() is not None]
            assert not alive, f"pages {alive} are alive while page {len(self.pages)} is read"
            page = handler(request)
            assert isinstance(page, Page)
            self.pages.append(weakref.ref(page))
            return page

        return answer_watched

    def close(self):
        pass


def total(value, event):
    return value + event.data


def awaited(handler):
    async def answer_awaited(request):
        return handler(request)

    return answer_awaited


RUNNERS = {
    "run": lambda store, program: store.run(program),
    "run_many": lambda store, program: store.run_many([program]),
    "asyncio": lambda store, program: anyio.run(store.arun, program, backend="asyncio"),
    "trio": lambda store, program: anyio.run(store.arun, program, backend="trio"),
}


@pytest.mark.parametrize(
    "make",
    [
        lambda: projection.project("a", total, 0),
        lambda: projection.project_all("a", total, 0),
        lambda: snapshot.replay("kept", "a", total, 0),
        lambda: follow("once", "a", lambda event: [], batch=PAGE_SIZE),
        lambda: follow("once", "a", lambda event: [], batch=7),
    ],
    ids=["project", "project_all", "replay", "follow", "follow in parts"],
)
@pytest.mark.parametrize(
    ("runner", "is_awaited"),
    [("run", False), ("run_many", False), ("asyncio", False), ("asyncio", True), ("trio", False), ("trio", True)],
)
def test_one_page_is_alive_at_a_time(store, make, runner, is_awaited):
    store.run(log.append_many("a", [Draft("counted", 1)] * (3 * PAGE_SIZE + 1)))
    watch = OnePageAlive(store.interpreter)
    effects = {kind: awaited(watch.handlers[kind]) for kind in (Read, ReadAll)} if is_awaited else {}
    with Store(watch, effects=effects) as watching:
        RUNNERS[runner](watching, make())
    assert len(watch.pages) >= 4
    assert watch.pages[-1]() is None


# What is refused at once


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: follow("f", "", lambda event: [], types="placed"), "types is a str, 'placed': give a list of event"),
        (lambda: follow("f", "", 5), "the handler of follower 'f' is an int, 5: give a function of one event"),
    ],
)
def test_what_a_follower_cannot_use_is_refused_before_it_reads(program, message):
    with pytest.raises(InvalidRequest, match=message):
        next(program())


@pytest.mark.parametrize("said", [None, 5, KvPut("a", 1)], ids=steady)
def test_a_callback_that_gives_no_program_is_refused_with_its_stream(store, said):
    hub = Hub()
    hub.subscribe("orders/1", lambda event: said)
    with pytest.raises(
        InvalidRequest, match=r"a callback of stream 'orders/1' gave .*, which is not a program"
    ) as caught:
        store.run(publish(hub, "orders/1", "placed", 1))
    assert "after event 1 was appended" in caught.value.__notes__[0]
