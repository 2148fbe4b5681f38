"""Events whose handler fails: the follower stops, skips them, or sets them aside; what is tried again, and when."""

import itertools

import pytest
from conftest import answer, stop_after
from follower_scenes import copied_of, copy, fails_on
from steady import steady

from interpreters import open_store
from interpreters.explore import simulate
from persist_effects import (
    CorruptStore,
    InvalidRequest,
    Request,
    Retry,
    StoreUnavailable,
    Suspended,
    TooLarge,
    Truncated,
    UncertainOutcome,
    UnhandledEffect,
    clock,
    follow,
    followers,
    kv,
    log,
    perform,
    start,
)
from persist_effects.requests import Answered, KvPut, Sleep


def fill(store, *events):
    for stream, number in events:
        store.run(log.append(stream, "counted", number))


def told(store):
    return [event.data for event in store.run(log.read("set-aside/mails"))]


# Stopping


@pytest.mark.parametrize("batch", [1, 3])
def test_a_follower_that_stops_says_which_event_of_which_stream_and_how_to_go_on(store, batch):
    fill(store, ("a/1", 1), ("a/2", 2), ("a/1", 3))
    with pytest.raises(ValueError, match="cannot take 2") as raised:
        store.run(follow("mails", "a/", fails_on(2), batch=batch))
    (note,) = raised.value.__notes__
    assert note == (
        "raised by the handler of follower 'mails' for event 1 of stream 'a/2', type 'counted', position 2. The "
        "follower stopped before it: mend the handler and follow again, or go past such events by "
        "on_error='set-aside' or 'skip'"
    )
    # What came before it in its batch took effect.
    assert copied_of(store) == [["a/1", 1]]
    assert store.run(kv.get("follow/mails"))["position"] == 1


def test_a_handler_whose_writes_are_refused_has_failed_for_its_event(store):
    fill(store, ("a", 1), ("a", 2), ("a", 3))

    def handler(event):
        return [KvPut("much", "x" * 9_000_000)] if event.data == 2 else copy(event)

    with pytest.raises(TooLarge) as raised:
        store.run(follow("mails", "a", handler, batch=3))
    assert "event 2 of stream 'a'" in raised.value.__notes__[0]
    assert copied_of(store) == [["a", 1]]
    store.run(follow("mails", "a", handler, on_error="skip", batch=3))
    assert copied_of(store) == [["a", 1], ["a", 3]]


def test_an_event_that_meets_too_many_conflicts_may_be_set_aside_as_any_other(store):
    store.run(kv.put("taken", 1))
    fill(store, ("a", 1), ("b", 2))
    store.run(
        follow(
            "mails", "", lambda event: [KvPut("taken", 2, 0)] if event.data == 1 else copy(event), on_error="set-aside"
        )
    )
    assert copied_of(store)[0] == ["b", 1]
    (one,) = told(store)
    assert (one["stream"], one["tried"]) == ("a", 1)
    assert "met a conflict 100 times" in one["error"]


class Unknown(Request[int], frozen=True, tag="test/unknown"):
    pass


@pytest.mark.parametrize("on_error", ["stop", "skip", "set-aside"])
@pytest.mark.parametrize(
    "error", [StoreUnavailable("gone"), UncertainOutcome("lost"), CorruptStore("damaged")], ids=steady
)
def test_what_no_event_is_to_blame_for_is_raised_as_it_is(store, on_error, error):
    fill(store, ("a", 1))

    def handler(event):
        yield from kv.get("x")
        raise error

    with pytest.raises(type(error)) as raised:
        store.run(follow("mails", "a", handler, on_error=on_error, retry=Retry(times=3)))
    assert not getattr(raised.value, "__notes__", [])
    assert not store.run(kv.has("follow/mails"))


def test_a_request_that_nobody_answers_is_nobodys_poison(store):
    fill(store, ("a", 1))

    def handler(event):
        yield from perform(Unknown())
        return []

    with pytest.raises(UnhandledEffect):
        store.run(follow("mails", "a", handler, on_error="skip"))


# Skipping


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_follower_that_skips_goes_past_the_event_and_counts_it(store, batch):
    fill(store, ("a", 1), ("a", 2), ("a", 3), ("a", 2))
    store.run(follow("mails", "a", fails_on(2), on_error="skip", batch=batch))
    assert copied_of(store) == [["a", 1], ["a", 3]]
    assert store.run(followers.registered("mails")).skipped == 2
    store.run(follow("mails", "a", copy))
    assert copied_of(store) == [["a", 1], ["a", 3]]


# Setting aside


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_what_is_set_aside_is_told_of_and_later_events_of_its_stream_wait_for_it(store, batch):
    fill(store, ("a/1", 1), ("a/2", 2), ("a/1", 3), ("a/2", 4), ("a/1", 5))
    store.run(follow("mails", "a/", fails_on(1), on_error="set-aside", batch=batch))
    assert copied_of(store) == [["a/2", 1], ["a/2", 2]]
    assert told(store) == [
        {"stream": "a/1", "seq": 1, "position": 1, "type": "counted", "error": "ValueError: cannot take 1", "tried": 1}
    ]
    fill(store, ("a/1", 6))
    store.run(follow("mails", "a/", copy, on_error="set-aside", batch=batch))
    (aside,) = store.run(followers.registered("mails")).aside
    assert (aside.stream, aside.first, aside.through) == ("a/1", 1, 4)
    assert copied_of(store) == [["a/2", 1], ["a/2", 2]], "without a retry nothing is tried again"


def test_what_was_set_aside_takes_effect_in_order_once_it_is_tried_again(store):
    fill(store, ("a/1", 1), ("a/2", 2), ("a/1", 3), ("a/2", 4))
    store.run(follow("mails", "a/", fails_on(1, 4), on_error="set-aside"))
    assert store.run(followers.retry("mails")) == 2
    store.run(follow("mails", "a/", copy, on_error="set-aside"))
    assert copied_of(store) == [["a/2", 1], ["a/1", 1], ["a/1", 2], ["a/2", 2]]
    assert store.run(followers.registered("mails")).aside == []
    assert store.run(kv.keys("follow")) == ["follow/mails"]
    assert store.run(kv.get("follow/mails")) == {"position": 4, "prefix": "a/"}


def test_what_fails_again_stays_set_aside_with_what_follows_it_and_is_told_of_again(store):
    fill(store, ("a", 1), ("a", 2), ("a", 3))
    store.run(follow("mails", "a", fails_on(1), on_error="set-aside"))
    store.run(followers.retry("mails"))
    store.run(follow("mails", "a", fails_on(2), on_error="set-aside"))
    assert copied_of(store) == [["a", 1]]
    (aside,) = store.run(followers.registered("mails")).aside
    assert (aside.first, aside.through) == (2, 3)
    assert [(one["seq"], one["error"]) for one in told(store)] == [
        (1, "ValueError: cannot take 1"),
        (2, "ValueError: cannot take 2"),
    ]
    fill(store, ("a", 4))
    store.run(follow("mails", "a", copy, on_error="set-aside"))
    assert copied_of(store) == [["a", 1]]
    store.run(followers.retry("mails"))
    store.run(follow("mails", "a", copy, on_error="set-aside"))
    assert copied_of(store) == [["a", 1], ["a", 2], ["a", 3], ["a", 4]]


def test_what_is_refused_when_it_is_tried_again_stays_set_aside(store):
    fill(store, ("a", 1))
    store.run(follow("mails", "a", fails_on(1), on_error="set-aside"))
    store.run(followers.retry("mails"))
    store.run(follow("mails", "a", lambda event: [KvPut("much", "x" * 9_000_000)], on_error="set-aside"))
    assert len(store.run(followers.registered("mails")).aside) == 1
    assert told(store)[1]["error"].startswith("TooLarge: ")


def test_a_retry_interrupted_at_any_request_goes_on_and_each_event_takes_effect_once(open_new):
    for count in itertools.count():
        with open_new() as store:
            fill(store, ("a", 1), ("b", 5), ("a", 2), ("a", 3))
            store.run(follow("mails", "", fails_on(1), on_error="set-aside"))
            store.run(followers.retry("mails"))
            has_ended = stop_after(follow("mails", "", copy, on_error="set-aside"), store, count)
            if store.run(followers.registered("mails")).aside:
                store.run(followers.retry("mails"))
            store.run(follow("mails", "", copy, on_error="set-aside"))
            copied = [one for one in copied_of(store) if one[0] != "copies"]
            assert copied == [["b", 1], ["a", 1], ["a", 2], ["a", 3]], count
            if has_ended:
                break
    assert count > 5


def test_a_follower_of_everything_does_not_follow_what_tells_of_what_it_set_aside(store):
    fill(store, ("a", 1))
    seen = []

    def handler(event):
        seen.append(event.stream)
        raise ValueError("never")

    store.run(follow("mails", "", handler, on_error="set-aside"))
    store.run(follow("mails", "", handler, on_error="set-aside"))
    assert seen == ["a"]
    assert len(told(store)) == 1
    # Who wants to know of them follows them.
    store.run(follow("alarms", "set-aside/", lambda event: [KvPut("alarm", event.data["error"])]))
    assert store.run(kv.get("alarm")) == "ValueError: never"


def test_what_was_truncated_before_it_was_tried_again_is_refused_or_passed_over(store):
    fill(store, ("a", 1), ("a", 2), ("a", 3))
    store.run(follow("mails", "a", fails_on(1), on_error="set-aside"))
    store.run(log.truncate_through("a", 2, unseen="drop"))
    store.run(followers.retry("mails"))
    with pytest.raises(Truncated):
        store.run(follow("mails", "a", copy, on_error="set-aside"))
    store.run(follow("mails", "a", copy, on_error="set-aside", skip_truncated=True))
    assert copied_of(store) == [["a", 3]]
    assert store.run(followers.registered("mails")).aside == []


def test_a_stream_of_which_all_was_truncated_is_set_aside_no_more(store):
    fill(store, ("a", 1), ("a", 2))
    store.run(follow("mails", "a", fails_on(1), on_error="set-aside"))
    store.run(log.drop("a", unseen="drop"))
    store.run(followers.retry("mails"))
    store.run(follow("mails", "a", copy, on_error="set-aside", skip_truncated=True))
    assert store.run(followers.registered("mails")).aside == []


def test_only_events_of_the_types_that_are_followed_are_set_aside_and_tried_again(store):
    for event_type, number in (("wanted", 1), ("other", 2), ("wanted", 3), ("other", 4)):
        store.run(log.append("a", event_type, number))
    store.run(follow("mails", "a", fails_on(1), types=["wanted"], on_error="set-aside"))
    store.run(followers.retry("mails"))
    store.run(follow("mails", "a", copy, types=["wanted"], on_error="set-aside"))
    assert copied_of(store) == [["a", 1], ["a", 3]]


def test_a_long_error_is_cut_and_told(store):
    fill(store, ("a", 1))

    def handler(event):
        raise ValueError("x" * 100_000)

    store.run(follow("mails", "a", handler, on_error="set-aside"))
    assert len(told(store)[0]["error"]) == 2_000


# Trying again


def test_a_handler_is_asked_again_as_often_as_was_said_with_waits_that_are_requests(store):
    fill(store, ("a", 1))
    waits, asked = [], []

    def handler(event):
        asked.append(event.seq)
        if len(asked) < 4:
            raise LookupError("not yet")
        return copy(event)

    step = start(follow("mails", "a", handler, retry=Retry(times=3, wait_seconds=2, factor=3, longest_seconds=7)))
    while isinstance(step, Suspended):
        if isinstance(step.request, Sleep):
            waits.append(step.request.seconds)
            step = step.resume(None)
        else:
            step = answer(step, store)
    assert waits == [2.0, 6.0, 7.0]
    assert copied_of(store) == [["a", 1]]


@pytest.mark.parametrize("batch", [1, 3])
def test_after_the_last_try_comes_what_was_said_with_how_often_it_was_tried(store, batch):
    fill(store, ("a", 1), ("b", 2))
    program = follow("mails", "", fails_on(1), batch=batch, on_error="set-aside", retry=Retry(times=2, wait_seconds=0))
    store.run(program)
    assert [(one["stream"], one["tried"]) for one in told(store)] == [("a", 3)]
    fill(store, ("b", 1))
    with pytest.raises(ValueError, match="cannot take 1") as raised:
        store.run(follow("mails", "", fails_on(1), retry=Retry(times=1, wait_seconds=0)))
    assert raised.value.__notes__[0].startswith("raised 2 times by the handler of follower 'mails' for event 2")


def test_a_wait_of_a_month_takes_no_time_where_time_is_virtual():
    month = 30 * 86_400

    def handler(event):
        if (yield from clock.now()) < event.at + month * 1_000_000:
            raise LookupError("closed for the holidays")
        return copy(event)

    def work():
        yield from log.append("a", "counted", 1, at=(yield from clock.now()))
        yield from follow("mails", "a", handler, retry=Retry(times=1, wait_seconds=month, longest_seconds=month))
        return len((yield from log.read("copies")))

    with open_store("memory:") as store:
        (outcome,) = simulate([work], store, seed=1).outcomes
    assert outcome == Answered(1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"times": -1}, "times is"),
        ({"times": True}, "times is"),
        ({"wait_seconds": -1}, "wait_seconds is -1: give a number from 0 on"),
        ({"wait_seconds": float("nan")}, "wait_seconds is nan"),
        ({"factor": 0.5}, "factor is 0.5: give a number from 1 on"),
        ({"longest_seconds": "long"}, "longest_seconds is 'long'"),
        ({"wait_seconds": float("inf")}, "wait_seconds is inf"),
    ],
    ids=steady,
)
def test_a_retry_that_makes_no_sense_is_refused(fields, words):
    with pytest.raises(InvalidRequest, match=words):
        Retry(**fields)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_error": "ignore"}, "on_error is 'ignore': give one of stop, skip, set-aside"),
        ({"on_error": None}, "on_error is None"),
        ({"retry": 3}, "retry is an int, 3: give a Retry"),
        ({"retry": None}, "retry is None: give a Retry"),
    ],
    ids=steady,
)
def test_what_to_do_that_is_not_known_is_refused_before_anything_is_read(options, words):
    with pytest.raises(InvalidRequest, match=words):
        next(follow("mails", "a", copy, **options))
