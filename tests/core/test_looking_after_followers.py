"""What is known of followers: all of them at once, what they set aside and why, and who has which partitions."""

import pytest
from conftest import stop_after

from persist_effects import Draft, Group, InvalidRequest, follow, followers, kv, log
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
