"""What is known of followers: all of them at once, what they set aside and why, and who has which partitions."""

import pytest
from conftest import stop_after

from persist_effects import Draft, Group, InvalidRequest, ReadModel, Truncated, follow, followers, kv, log
from persist_effects.requests import PAGE_SIZE, KvPut


def refusing(*streams):
    """A handler that fails for the events of some streams, and says the event's number."""

    def handle(event):
        if event.stream in streams:
            raise ValueError(f"no address in {event.seq}")
        return [KvPut(f"mailed/{event.stream}", event.seq)]

    return handle


def mails(store, *streams, **options):
    store.run(follow("mails", "orders/", refusing(*streams), on_error="set-aside", **options))


@pytest.fixture
def filled(store):
    for number in range(3):
        for stream in ("orders/1", "orders/2", "orders/3"):
            store.run(log.append(stream, "placed", number, at=10 * number))
    return store


def test_all_followers_are_told_of_at_once_sorted_by_name(filled):
    for name in ("b", "a/1", "a"):
        filled.run(follow(name, "orders/", lambda event: []))
    found = filled.run(followers.all_registered())
    assert [one.name for one in found] == ["a", "a/1", "b"]
    assert found == [filled.run(followers.registered(one.name)) for one in found]


def test_where_there_is_no_follower_none_is_told_of(store):
    store.run(kv.put("follower", 1))
    assert store.run(followers.all_registered()) == []


def test_a_key_that_is_not_a_checkpoint_is_named(filled):
    filled.run(kv.put("follow/other", "mine"))
    with pytest.raises(InvalidRequest, match="'follow/other' holds 'mine', which is not a checkpoint"):
        filled.run(followers.all_registered())


def test_what_was_set_aside_is_told_with_the_error_that_its_first_event_met(filled):
    mails(filled, "orders/3", "orders/1")
    first, second = filled.run(followers.set_aside("mails"))
    assert (first.stream, first.first, first.through, first.position) == ("orders/1", 1, 3, 1)
    assert (first.type, first.error, first.tried) == ("placed", "ValueError: no address in 1", 1)
    assert second.stream == "orders/3"


def test_after_a_retry_the_error_of_the_event_is_told_that_failed_then(filled):
    mails(filled, "orders/1")

    def only_the_second(event):
        if event.stream == "orders/1" and event.seq == 2:
            raise KeyError("street")
        return []

    filled.run(followers.retry("mails"))
    filled.run(follow("mails", "orders/", only_the_second, on_error="set-aside"))
    (found,) = filled.run(followers.set_aside("mails"))
    assert (found.first, found.through, found.error) == (2, 3, "KeyError: 'street'")


def test_what_a_first_event_met_is_found_behind_pages_of_what_is_done_with(filled):
    mails(filled, "orders/1")
    done = {"stream": "orders/9", "seq": 1, "position": 1, "type": "placed", "error": "KeyError: 'street'", "tried": 1}
    filled.run(log.append_many("set-aside/mails", [Draft("set-aside", done)] * (2 * PAGE_SIZE)))
    (found,) = filled.run(followers.set_aside("mails"))
    assert (found.stream, found.error) == ("orders/1", "ValueError: no address in 1")


def test_where_what_told_of_it_was_truncated_the_events_are_told_without_the_error(filled):
    mails(filled, "orders/1", "orders/2")
    filled.run(log.truncate_through("set-aside/mails", 1))
    first, second = filled.run(followers.set_aside("mails"))
    assert (first.stream, first.first, first.through, first.error, first.at) == ("orders/1", 1, 3, None, None)
    assert second.error == "ValueError: no address in 1"


def test_of_a_follower_that_is_not_there_nothing_is_told(store):
    with pytest.raises(InvalidRequest, match="there is no follower 'mails': there is none"):
        store.run(followers.set_aside("mails"))


@pytest.mark.parametrize("group", [None, Group(partitions=2)])
def test_a_retry_is_awaited_until_those_that_follow_have_tried(filled, group):
    mails(filled, "orders/1", group=group)
    assert not filled.run(followers.registered("mails")).awaits_retry
    filled.run(followers.retry("mails"))
    assert filled.run(followers.registered("mails")).awaits_retry
    mails(filled, "orders/1", group=group)
    assert not filled.run(followers.registered("mails")).awaits_retry


def test_the_partitions_of_a_group_are_told_by_member(filled):
    # Given up in its middle, as a process that is killed, so that it leaves nothing.
    filled.run(log.append_many("orders/4", [Draft("placed", number) for number in range(100)]))
    program = follow("mails", "orders/", lambda event: [], group=Group(partitions=3), member="w1", timeout=60)
    assert not stop_after(program, filled, 40)
    found = filled.run(followers.registered("mails"))
    assert found.members == ["w1"]
    assert found.shares == {"w1": [0, 1, 2]}


def test_the_partitions_that_nobody_has_are_told_too(filled):
    mails(filled, group=Group(partitions=3))
    found = filled.run(followers.registered("mails"))
    assert (found.members, found.shares) == ([], {"": [0, 1, 2]})


def test_what_is_no_group_has_no_partitions(filled):
    mails(filled)
    assert filled.run(followers.registered("mails")).shares == {}


TOTALS = ReadModel("totals")


def add(event, totals):
    return [totals.put(f"{event.stream}/{event.seq}", event.data)]


def test_what_needs_dropped_events_is_not_begun_to_be_built_and_the_follower_goes_on(filled):
    filled.run(follow(TOTALS, "orders/", add))
    filled.run(log.truncate_through("orders/2", 1))
    with pytest.raises(Truncated, match="'orders/2' was truncated: the first event left is 2"):
        filled.run(followers.rebuild("totals"))
    filled.run(log.append("orders/1", "placed", 7))
    filled.run(follow(TOTALS, "orders/", add))
    assert filled.run(TOTALS.get("orders/1/4")) == 7


def test_what_was_dropped_is_left_out_of_what_is_built_if_that_is_said(filled):
    filled.run(follow(TOTALS, "orders/", add))
    filled.run(log.truncate_through("orders/2", 1))
    filled.run(followers.rebuild("totals", skip_truncated=True))
    filled.run(follow(TOTALS, "orders/", add, skip_truncated=True))
    assert len(filled.run(TOTALS.keys())) == 8


@pytest.mark.parametrize("group", [None, Group(partitions=2)])
@pytest.mark.parametrize("built", range(0, 60, 7))
def test_what_is_built_is_cancelled_at_any_time_and_nothing_of_it_is_left(filled, group, built):
    filled.run(follow(TOTALS, "orders/", add, group=group))
    filled.run(followers.rebuild("totals"))
    stop_after(follow(TOTALS, "orders/", add, group=group), filled, built)
    was_built = filled.run(followers.registered("totals")).building is not None
    assert filled.run(followers.cancel("totals")) == was_built
    assert filled.run(followers.registered("totals")).building is None
    filled.run(log.append("orders/1", "placed", 7))
    # Who was stopped in its middle is taken for dead once its lease is over.
    filled.run(follow(TOTALS, "orders/", add, group=group, timeout=0 if group is None else 0.2))
    assert filled.run(kv.get("follow-next/totals")) is None
    assert len(filled.run(TOTALS.keys())) >= 9
    assert len(filled.run(kv.keys("model/totals/"))) == len(filled.run(TOTALS.keys()))


def test_who_builds_while_it_is_cancelled_goes_on_with_what_is_seen(filled):
    filled.run(follow(TOTALS, "orders/", add))
    filled.run(followers.rebuild("totals"))
    cancelled = []

    def add_and_cancel(event, totals):
        if event.position == 5 and not cancelled:
            cancelled.append((yield from followers.cancel("totals")))
        return [totals.put(f"{event.stream}/{event.seq}", event.data)]

    filled.run(follow(TOTALS, "orders/", add_and_cancel))
    assert cancelled == [True]
    filled.run(log.append("orders/1", "placed", 7))
    filled.run(follow(TOTALS, "orders/", add))
    assert len(filled.run(TOTALS.keys())) == len(filled.run(kv.keys("model/totals/"))) == 10
