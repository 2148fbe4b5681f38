"""A handler that has changed: another version is built beside the one that is seen, and takes its place."""

import itertools

import pytest
from conftest import answer, stop_after
from follower_scenes import HUNDREDS, ONCE, TOTALS, count_hundreds, count_once, finish

from persist_effects import InvalidRequest, ReadModel, Suspended, Truncated, follow, followers, kv, log, start
from persist_effects.following import dropping
from persist_effects.following.whole import HANDING_OVER_SECONDS
from persist_effects.requests import KvPut, KvWait, Transact


def fill(store, count, stream="a"):
    for number in range(count):
        store.run(log.append(stream, "counted", number))


def as_version(number, handler=None, **more):
    handlers = {1: count_once, 2: count_hundreds}
    return follow(TOTALS, "a", handler or handlers[number], version=number, **more)


def seen(store):
    return {key: entry.value for key, entry in store.run(TOTALS.entries())}


def test_a_higher_version_starts_with_the_first_event_and_takes_the_place_of_the_one_before(store):
    fill(store, 3)
    assert store.run(as_version(1)) == 3
    assert seen(store)[ONCE] == 3
    assert store.run(as_version(2)) == 3
    assert seen(store) == {HUNDREDS: 300, "known/1": 1, "known/2": 1, "known/3": 1}
    found = store.run(followers.registered("totals"))
    assert (found.version, found.position, found.building) == (2, 3, None)
    assert store.run(kv.keys("follow")) == ["follow/totals"]


def test_the_version_before_answers_and_goes_on_while_another_is_built(store):
    fill(store, 3)
    store.run(as_version(1))
    step = start(as_version(2))
    while store.run(kv.keys("model/totals/2/")) == []:
        step = answer(step, store)
    assert seen(store)[ONCE] == 3
    fill(store, 1)
    store.run(as_version(1))
    assert seen(store)[ONCE] == 4
    found = store.run(followers.registered("totals"))
    assert (found.version, found.building.version, found.building.target) == (1, 2, 3)
    finish(step, store)
    assert seen(store)[HUNDREDS] == 400


def test_a_follower_without_a_read_model_builds_another_version_too(store):
    fill(store, 2)

    def put_under(prefix):
        return lambda event: [KvPut(f"{prefix}/{event.seq}", event.data)]

    store.run(follow("mails", "a", put_under("old")))
    fill(store, 1)
    store.run(follow("mails", "a", put_under("new"), version=2))
    assert store.run(kv.keys("old/")) == ["old/1", "old/2"]
    assert store.run(kv.keys("new/")) == ["new/1", "new/2", "new/3"]


def test_the_first_version_that_follows_need_not_be_1(store):
    fill(store, 2)
    store.run(as_version(2))
    assert store.run(followers.registered("totals")).version == 2
    assert seen(store)[HUNDREDS] == 200


def test_another_version_may_follow_other_events(store):
    fill(store, 2)
    fill(store, 3, stream="b")
    store.run(follow("mails", "a", lambda event: []))
    store.run(follow("mails", "b", lambda event: [KvPut(f"seen/{event.seq}", 1)], types=["counted"], version=2))
    assert len(store.run(kv.keys("seen/"))) == 3
    found = store.run(followers.registered("mails"))
    assert (found.prefix, found.types) == ("b", ["counted"])


def test_a_version_that_goes_back_is_refused_and_changes_nothing(store):
    fill(store, 2)
    store.run(as_version(2))
    before = store.run(kv.entries())
    with pytest.raises(InvalidRequest, match=r"follower 'totals' has version 2, .* with version 1, which is older"):
        store.run(as_version(1))
    assert store.run(kv.entries()) == before


def test_a_version_below_the_one_that_is_being_built_is_refused_unless_it_is_the_one_that_is_seen(store):
    fill(store, 2)
    store.run(as_version(1))
    assert not stop_after(as_version(3, count_hundreds), store, 6)
    with pytest.raises(InvalidRequest, match=r"'totals' is being built with version 3, and was asked .* version 2"):
        store.run(as_version(2))
    assert store.run(as_version(1)) == 2
    store.run(as_version(3, count_hundreds))
    assert seen(store)[HUNDREDS] == 200


def test_a_version_that_is_being_built_gives_way_to_a_higher_one_and_nothing_is_left_of_it(store):
    fill(store, 3)
    store.run(as_version(1))
    step = start(as_version(2))
    while store.run(kv.keys("model/totals/2/")) == []:
        step = answer(step, store)
    store.run(as_version(3, count_once))
    with pytest.raises(InvalidRequest, match="has version 3"):
        finish(step, store)
    assert seen(store)[ONCE] == 3
    assert {key.split("/")[2] for key in store.run(kv.keys("model/totals/"))} == {"3"}


@pytest.mark.parametrize("version", [0, -1, 1.0, True, "2", None])
def test_what_is_no_version_is_refused(store, version):
    with pytest.raises(InvalidRequest, match="version is"):
        store.run(follow("mails", "a", lambda event: [], version=version))


def test_a_read_model_where_there_was_none_needs_another_version(store):
    fill(store, 1)
    store.run(follow("totals", "a", lambda event: []))
    with pytest.raises(
        InvalidRequest, match=r"has no read model, and was asked to follow with a read model: .* version=2"
    ):
        store.run(as_version(1))
    store.run(as_version(2))
    assert seen(store)[HUNDREDS] == 100


def test_a_version_whose_first_events_were_truncated_is_refused_and_the_one_before_goes_on_answering(store):
    fill(store, 3)
    store.run(as_version(1))
    store.run(log.truncate_through("a", 2))
    with pytest.raises(Truncated):
        store.run(as_version(2))
    assert seen(store)[ONCE] == 3
    store.run(as_version(2, skip_truncated=True))
    assert seen(store)[HUNDREDS] == 100
    assert store.run(followers.registered("totals")).missed == 2


@pytest.mark.parametrize("kept", [{}, {"prefix": "a"}])
def test_a_follower_as_it_was_kept_before_there_were_versions_is_version_1(store, kept):
    fill(store, 3)
    store.run(kv.put("follow/mails", {"position": 2, **kept}))
    store.run(follow("mails", "a", lambda event: [KvPut(f"old/{event.seq}", 1)]))
    assert store.run(kv.keys("old/")) == ["old/3"]
    store.run(follow("mails", "a", lambda event: [KvPut(f"new/{event.seq}", 1)], version=2))
    assert len(store.run(kv.keys("new/"))) == 3


def test_a_version_killed_at_any_request_goes_on_and_is_whole(open_new):
    for count in itertools.count():
        with open_new() as store:
            fill(store, 3)
            store.run(as_version(1))
            has_ended = stop_after(as_version(2), store, count)
            found = seen(store)
            assert found.get(ONCE, 0) == 3 or found[HUNDREDS] == 300, count
            store.run(as_version(2))
            assert seen(store) == {HUNDREDS: 300, "known/1": 1, "known/2": 1, "known/3": 1}, count
            assert len(store.run(kv.keys("model/"))) == 4, count
            if has_ended:
                break
    assert count > 10


def test_who_is_asked_to_wait_goes_on_where_nobody_takes_over(store):
    """As where the release with the new version was taken back in that moment."""
    fill(store, 2)
    store.run(as_version(1))
    fill(store, 1)
    kept = store.run(kv.entry("follow/totals"))
    store.run(kv.put("follow/totals", {**kept.value, "hands_over": True}))
    asked = []
    step = start(as_version(1))
    while isinstance(step, Suspended):
        asked.append(step.request)
        if isinstance(step.request, KvWait):
            assert step.request.timeout == HANDING_OVER_SECONDS
            step = step.resume(step.request.after)
        else:
            step = answer(step, store)
    assert any(isinstance(request, KvWait) for request in asked)
    assert seen(store)[ONCE] == 3
    assert "hands_over" not in store.run(kv.get("follow/totals"))


def test_the_version_before_is_asked_to_wait_where_it_is_always_ahead(store):
    fill(store, 2)
    store.run(as_version(1))
    step = start(as_version(2))
    overtaken = 0
    while isinstance(step, Suspended):
        is_take_over = (
            isinstance(step.request, Transact)
            and len(step.request.writes) == 2
            and (step.request.writes[1].op == "persist/kv-delete")
        )
        if is_take_over and overtaken < 1:
            overtaken += 1
            fill(store, 1)
            store.run(as_version(1))
        step = answer(step, store)
    assert overtaken == 1
    assert seen(store)[HUNDREDS] == 300


def test_many_keys_of_the_version_before_are_deleted_by_small_transactions(store):
    fill(store, 250)
    store.run(as_version(1, batch=1))
    largest = 0
    step = start(as_version(2))
    while isinstance(step, Suspended):
        if isinstance(step.request, Transact):
            largest = max(largest, len(step.request.writes))
        step = answer(step, store)
    assert largest <= dropping.DROPPED_AT_ONCE
    assert len(store.run(kv.keys("model/totals/"))) == 251


# Reading


def test_the_handle_reads_the_version_that_is_seen(store):
    fill(store, 2)
    store.run(as_version(1))
    assert store.run(TOTALS.get(ONCE)) == 2
    assert store.run(TOTALS.get("nothing")) is None
    assert store.run(TOTALS.get_or("nothing", 7)) == 7
    assert store.run(TOTALS.has(ONCE))
    assert not store.run(TOTALS.has("nothing"))
    assert store.run(TOTALS.entry(ONCE)).value == 2
    assert store.run(TOTALS.keys("seen/")) == ["seen/1", "seen/2"]
    assert [entry.value for _, entry in store.run(TOTALS.entries("seen/"))] == [1, 1]
    assert repr(TOTALS) == "ReadModel('totals')"


def test_a_read_model_of_a_follower_that_never_was_is_empty(store):
    assert store.run(TOTALS.entries()) == []
    assert store.run(TOTALS.get("count")) is None


def test_a_reader_whose_version_goes_while_it_reads_asks_the_next_one(store):
    fill(store, 2)
    store.run(as_version(1))
    step = start(TOTALS.keys())
    step = answer(step, store)
    store.run(as_version(2))
    assert finish(step, store) == [HUNDREDS, "known/1", "known/2"]


@pytest.mark.parametrize(("name", "words"), [("", "is empty"), ("a/b", "'a/b' has a slash"), (5, "is an int")])
def test_a_read_model_whose_name_cannot_be_part_of_keys_is_refused(name, words):
    with pytest.raises(InvalidRequest, match=words):
        ReadModel(name)


def test_two_followers_whose_names_begin_alike_keep_their_keys_apart(store):
    fill(store, 2)
    for name in ("a", "a/1", "a/1/2"):
        store.run(follow(name, "a", lambda event: []))
    store.run(follow("a", "a", lambda event: [], version=2))
    store.run(followers.forget("a"))
    assert store.run(followers.names()) == ["a/1", "a/1/2"]
    assert store.run(followers.registered("a/1")).position == 2
