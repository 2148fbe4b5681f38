"""Truncation and compaction beside followers: what one of them has yet to see is kept, refused, or dropped."""

import pytest
from follower_scenes import TOTALS, copy, count_hundreds, count_once, fails_on

from persist_effects import (
    FollowersBehind,
    Group,
    InvalidRequest,
    Truncated,
    compaction,
    follow,
    followers,
    kv,
    log,
    projection,
    snapshot,
)
from persist_effects.projection import State


def fill(store, stream, count):
    for number in range(count):
        store.run(log.append(stream, "counted", number))


def left(store, stream):
    return [event.seq for event in store.run(log.read(stream))]


def total(value, event):
    return value + event.data


def seen_then(store, seen, more):
    """A stream ``a`` of which a follower has seen so many events."""
    fill(store, "a", seen)
    store.run(follow("mails", "a", copy))
    fill(store, "a", more)


def test_a_truncation_of_what_a_follower_has_not_seen_is_refused_and_names_it(store):
    seen_then(store, 3, 2)
    store.run(follow("other", "a", lambda event: []))
    with pytest.raises(FollowersBehind) as raised:
        store.run(log.truncate_through("a", 4))
    error = raised.value
    assert (error.stream, error.seq, error.seen, error.followers) == ("a", 4, 3, ["mails"])
    assert str(error).startswith(
        "stream 'a' was to be truncated through event 4, and has been seen only through event 3 by follower 'mails': "
    )
    assert left(store, "a") == [1, 2, 3, 4, 5]


def test_what_all_followers_have_seen_is_truncated(store):
    seen_then(store, 3, 2)
    assert store.run(log.truncate_through("a", 3)) == 3
    assert store.run(log.truncate_through("a", 5, unseen="keep")) == 0
    assert left(store, "a") == [4, 5]


@pytest.mark.parametrize("wanted", range(8))
@pytest.mark.parametrize("seen", range(1, 6))
def test_truncation_that_keeps_stops_at_the_slowest_follower(store, seen, wanted):
    seen_then(store, seen, 6 - seen)
    store.run(log.truncate_through("a", wanted, unseen="keep"))
    assert left(store, "a") == list(range(min(seen, wanted) + 1, 7))


def test_followers_of_other_streams_hold_back_nothing(store):
    fill(store, "a", 2)
    fill(store, "b", 1)
    store.run(follow("others", "b", copy))
    assert store.run(log.truncate_through("a", 2)) == 2


def test_truncation_that_asks_for_no_follower_drops_and_the_follower_meets_the_hole(store):
    seen_then(store, 1, 2)
    assert store.run(log.truncate_through("a", 2, unseen="drop")) == 2
    with pytest.raises(Truncated):
        store.run(follow("mails", "a", copy))


def test_an_abandoned_follower_is_forgotten_and_holds_back_nothing_any_more(store):
    seen_then(store, 1, 2)
    store.run(followers.forget("mails"))
    assert store.run(log.truncate_through("a", 3)) == 3


def test_a_version_that_is_built_holds_back_what_it_has_yet_to_see(store):
    fill(store, "a", 3)
    store.run(follow(TOTALS, "a", count_once))
    store.run(followers.rebuild("totals"))
    with pytest.raises(FollowersBehind, match="only through event 0 by follower 'totals'"):
        store.run(log.truncate_through("a", 1))
    store.run(follow(TOTALS, "a", count_once))
    assert store.run(log.truncate_through("a", 3)) == 3
    fill(store, "a", 1)
    with pytest.raises(Truncated):
        store.run(follow(TOTALS, "a", count_hundreds, version=2))


def test_what_was_set_aside_is_held_back(store):
    fill(store, "a", 3)
    store.run(follow("mails", "a", fails_on(1), on_error="set-aside"))
    with pytest.raises(FollowersBehind, match="only through event 1"):
        store.run(log.truncate_through("a", 3))
    assert store.run(log.truncate_through("a", 3, unseen="keep")) == 1


def test_a_group_holds_back_what_its_slowest_partition_has_yet_to_see(store):
    for stream in ("s/1", "s/2"):
        fill(store, stream, 2)
    store.run(follow("crew", "s/", copy, group=Group(2)))
    for stream in ("s/1", "s/2"):
        assert store.run(log.truncate_through(stream, 1)) == 1
    fill(store, "s/1", 1)
    with pytest.raises(FollowersBehind, match="'crew'"):
        store.run(log.truncate_through("s/1", 3))


def test_what_tells_of_events_that_were_set_aside_is_held_back_by_nobody_who_does_not_follow_it(store):
    fill(store, "a", 1)
    store.run(follow("mails", "", fails_on(0), on_error="set-aside"))
    assert store.run(log.drop("set-aside/mails")) == 1


def test_compaction_keeps_what_a_follower_has_not_seen(store):
    seen_then(store, 3, 2)
    assert store.run(compaction.compact("sum", "a", total, 0)) == State(0 + 1 + 2 + 0 + 1, 5)
    assert left(store, "a") == [4, 5]
    store.run(follow("mails", "a", copy))
    store.run(compaction.compact("sum", "a", total, 0))
    assert left(store, "a") == []
    assert store.run(snapshot.read("sum")).seq == 5


def test_compaction_that_refuses_or_drops_does_as_it_says(store):
    seen_then(store, 1, 2)
    with pytest.raises(FollowersBehind):
        store.run(compaction.compact("sum", "a", total, 0, unseen="refuse"))
    assert left(store, "a") == [1, 2, 3]
    assert not store.run(kv.has("snapshot/sum"))
    store.run(compaction.maybe_compact("sum", "a", total, 0, 1, unseen="drop"))
    assert left(store, "a") == []


@pytest.mark.parametrize("unseen", ["ignore", None, True])
def test_what_is_to_become_of_unseen_events_must_be_known(store, unseen):
    with pytest.raises(InvalidRequest, match=r"unseen is .*: give one of keep, refuse, drop"):
        store.run(log.truncate_through("a", 1, unseen=unseen))


def test_a_dropped_stream_goes_on_with_its_numbers(store):
    fill(store, "a", 3)
    assert store.run(log.drop("a")) == 3
    assert store.run(log.read("a")) == []
    assert store.run(log.append("a", "counted", 7)).seq == 4
    assert store.run(log.drop("never")) == 0


# Folds that pass over what was truncated


def test_a_fold_that_passes_over_truncated_events_says_how_many(store):
    fill(store, "a", 5)
    store.run(log.truncate_through("a", 2))
    with pytest.raises(Truncated):
        store.run(projection.project("a", total, 0))
    state = store.run(projection.project("a", total, 0, skip_truncated=True))
    assert state == State(2 + 3 + 4, 5, missed=2)
    store.run(log.append("a", "counted", 5))
    store.run(log.append("a", "counted", 6))
    store.run(log.truncate_through("a", 6))
    again = store.run(projection.project_resume("a", total, state, skip_truncated=True))
    assert again == State(2 + 3 + 4 + 6, 7, missed=3)


def test_a_fold_of_a_stream_of_which_nothing_is_left_says_how_much_that_was(store):
    fill(store, "a", 5)
    store.run(log.drop("a"))
    assert store.run(projection.project("a", total, 0, skip_truncated=True)) == State(0, 5, missed=5)


def test_a_fold_over_all_streams_counts_what_each_has_lost(store):
    for stream, count in (("a", 3), ("a/1", 4), ("b", 2), ("c", 2)):
        fill(store, stream, count)
    for stream, seq in (("a", 1), ("a/1", 4), ("c", 1)):
        store.run(log.truncate_through(stream, seq))
    state = store.run(projection.project_all("", lambda count, event: count + 1, 0, skip_truncated=True))
    assert (state.value, state.missed) == (3 + 4 + 2 + 2 - 6, 6)
    with pytest.raises(Truncated):
        store.run(projection.project_all("", lambda count, event: count + 1, 0))
    # What was dropped before a state is not missed after it.
    again = store.run(projection.project_all_resume("", lambda count, event: count + 1, state, skip_truncated=True))
    assert again == state


def test_a_snapshot_keeps_how_much_was_missed(store):
    fill(store, "a", 4)
    store.run(log.truncate_through("a", 3))
    with pytest.raises(Truncated):
        store.run(snapshot.checkpoint("sum", "a", total, 0))
    kept = store.run(snapshot.checkpoint("sum", "a", total, 0, skip_truncated=True))
    assert kept == State(3, 4, missed=3)
    assert store.run(snapshot.read("sum")) == kept
    fill(store, "a", 1)
    assert store.run(snapshot.replay("sum", "a", total, 0)) == State(3, 5, missed=3)


def test_a_follower_that_passes_over_truncated_events_counts_them(store):
    for stream in ("a/1", "a/2"):
        fill(store, stream, 3)
    store.run(log.truncate_through("a/1", 2))
    store.run(log.drop("a/2"))
    store.run(follow("mails", "a/", copy, skip_truncated=True))
    assert store.run(followers.registered("mails")).missed == 5
    fill(store, "a/1", 2)
    store.run(log.truncate_through("a/1", 4, unseen="drop"))
    store.run(follow("mails", "a/", copy, skip_truncated=True))
    # At the most: the three of this stream that it had seen before are counted too, since nobody knows of each.
    assert store.run(followers.registered("mails")).missed == 5 + 4


def test_members_of_a_group_refuse_or_count_what_was_dropped_before_they_have_seen_it(store):
    for stream in ("s/1", "s/2", "s/3"):
        fill(store, stream, 3)
    store.run(log.truncate_through("s/2", 2))
    with pytest.raises(Truncated) as raised:
        store.run(follow("crew", "s/", copy, group=Group(2)))
    assert (raised.value.stream, raised.value.first_left) == ("s/2", 3)
    store.run(follow("crew", "s/", copy, group=Group(2), skip_truncated=True))
    assert store.run(followers.registered("crew")).missed == 2
