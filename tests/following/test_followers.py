"""Looking after followers: which there are, how far each is behind, rebuilding, resetting, retrying, forgetting."""

import itertools

import pytest
from conftest import answer, stop_after
from follower_scenes import TOTALS, copied_of, copy, count_hundreds, count_once, fails_on, finish

from persist_effects import Group, InvalidRequest, Suspended, follow, followers, kv, log, start
from persist_effects.followers import Built, Lag
from persist_effects.requests import KvEntries, KvPut, Wait


def fill(store, count, stream="a", **options):
    for number in range(count):
        store.run(log.append(stream, "counted", number, **options))


COMMANDS = {
    "registered": followers.registered,
    "lag": followers.lag,
    "rebuild": followers.rebuild,
    "reset": followers.reset,
    "retry": followers.retry,
    "forget": followers.forget,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_follower_that_never_was_is_told_with_those_that_there_are(store, command):
    with pytest.raises(InvalidRequest, match="there is no follower 'mail': there is none"):
        store.run(COMMANDS[command]("mail"))
    fill(store, 1)
    store.run(follow("mails", "a", copy))
    store.run(follow("totals", "a", lambda event: []))
    before = store.run(kv.entries())
    with pytest.raises(InvalidRequest, match="there is no follower 'mail': there are 'mails', 'totals'"):
        store.run(COMMANDS[command]("mail"))
    assert store.run(kv.entries()) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["", 5, "a\x00b"])
def test_what_cannot_be_a_followers_name_is_refused(store, command, name):
    with pytest.raises(InvalidRequest, match="follower name"):
        store.run(COMMANDS[command](name))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_key_that_holds_something_else_is_named(store, command):
    store.run(kv.put("follow/mails", "mine"))
    with pytest.raises(InvalidRequest, match="key 'follow/mails' holds 'mine', which is not a checkpoint"):
        store.run(COMMANDS[command]("mails"))
    assert store.run(kv.get("follow/mails")) == "mine"


def test_all_is_told_of_a_follower(store):
    fill(store, 3)
    store.run(follow("mails", "a", fails_on(1), types=["counted"], on_error="set-aside"))
    found = store.run(followers.registered("mails"))
    assert (found.name, found.prefix, found.types, found.version) == ("mails", "a", ["counted"], 1)
    assert (found.position, found.has_model, found.partitions, found.members) == (3, False, 0, [])
    assert [aside.stream for aside in found.aside] == ["a"]
    assert (found.skipped, found.missed, found.building, found.is_forgotten) == (0, 0, None, False)


def test_how_far_a_follower_is_behind_counts_only_what_it_follows(store):
    fill(store, 2, at=5)
    store.run(follow("mails", "a", copy))
    fill(store, 3, stream="b", at=6)
    assert store.run(followers.lag("mails")) == Lag("mails", 2, 7, 0, None)
    fill(store, 2, at=8)
    found = store.run(followers.lag("mails"))
    assert (found.unseen, found.since) == (2, 8)


def test_how_far_a_group_is_behind_is_counted_by_partition(store):
    group = Group(partitions=2)
    for stream in ("s/2", "s/1", "s/2"):
        fill(store, 1, stream=stream)

    def only_the_second(event):
        if event.stream == "s/1":
            raise LookupError("not yet")
        return []

    with pytest.raises(LookupError):
        store.run(follow("crew", "s/", only_the_second, group=group, member="a"))
    assert store.run(followers.lag("crew")).unseen == 1


def test_what_a_follower_set_aside_and_what_tells_of_it_does_not_put_it_behind(store):
    fill(store, 2)
    store.run(follow("mails", "", fails_on(0, 1), on_error="set-aside"))
    assert store.run(followers.lag("mails")).unseen == 0


# Rebuilding


def test_a_rebuild_fills_the_model_anew_beside_the_one_that_answers(store):
    fill(store, 3)
    store.run(follow(TOTALS, "a", count_once))
    store.run(kv.put("model/totals/1/count", 77))
    store.run(followers.rebuild("totals"))
    assert store.run(TOTALS.get("count")) == 77
    assert store.run(followers.registered("totals")).building == Built(1, 0, 3)
    store.run(follow(TOTALS, "a", count_once))
    assert store.run(TOTALS.get("count")) == 3
    assert {key.split("/")[2] for key in store.run(kv.keys("model/"))} == {"2"}


def test_a_rebuild_is_refused_without_a_read_model_and_while_another_is_built(store):
    fill(store, 1)
    store.run(follow("mails", "a", copy))
    with pytest.raises(InvalidRequest, match="'mails' has no read model that could be built beside another"):
        store.run(followers.rebuild("mails"))
    store.run(follow(TOTALS, "a", count_once))
    store.run(followers.rebuild("totals"))
    with pytest.raises(InvalidRequest, match="'totals' is being built anew already"):
        store.run(followers.rebuild("totals"))


def test_a_higher_version_takes_the_place_of_a_rebuild_that_has_begun(store):
    fill(store, 2)
    store.run(follow(TOTALS, "a", count_once))
    store.run(followers.rebuild("totals"))
    store.run(follow(TOTALS, "a", count_hundreds, version=2))
    assert store.run(TOTALS.get("hundreds")) == 200
    assert len(store.run(kv.keys("model/"))) == 3


# Resetting


def test_a_reset_has_events_take_effect_again_and_forgets_what_was_set_aside(store):
    fill(store, 3)
    store.run(follow("mails", "a", fails_on(1), on_error="set-aside"))
    store.run(followers.reset("mails"))
    store.run(follow("mails", "a", copy, on_error="set-aside"))
    assert copied_of(store) == [["a", 1], ["a", 1], ["a", 2], ["a", 3]]
    assert store.run(kv.keys("follow")) == ["follow/mails"]


def test_a_reset_to_a_position_begins_past_it(store):
    fill(store, 3)
    store.run(follow("mails", "a", copy))
    store.run(followers.reset("mails", 2))
    store.run(follow("mails", "a", copy))
    assert copied_of(store)[3:] == [["a", 3]]


def test_a_group_is_reset_with_all_its_partitions(store):
    group = Group(partitions=2)
    for stream in ("s/1", "s/2"):
        fill(store, 2, stream=stream)
    store.run(follow("crew", "s/", copy, group=group, member="a"))
    store.run(followers.reset("crew", 2))
    assert store.run(followers.lag("crew")).unseen == 2
    store.run(follow("crew", "s/", copy, group=group, member="a"))
    assert copied_of(store)[4:] == [["s/2", 1], ["s/2", 2]]
    assert len(store.run(kv.keys("follow-part/"))) == 2


def test_a_reset_that_makes_no_sense_is_refused(store):
    fill(store, 2)
    store.run(follow("mails", "a", copy))
    with pytest.raises(InvalidRequest, match="position is 9, and the store ends at"):
        store.run(followers.reset("mails", 9))
    with pytest.raises(InvalidRequest, match="position is"):
        store.run(followers.reset("mails", -1))
    store.run(follow(TOTALS, "a", count_once))
    with pytest.raises(InvalidRequest, match="'totals' has a read model, in which events would count twice"):
        store.run(followers.reset("totals"))


def test_a_reset_while_it_follows_has_it_begin_anew(store):
    fill(store, 3)
    asked = []

    def handler(event):
        asked.append(event.seq)
        if len(asked) == 2:
            yield from followers.reset("mails")
        return [KvPut("last", event.seq)]

    store.run(follow("mails", "a", handler))
    assert asked == [1, 2, 1, 2, 3]


# Forgetting


@pytest.mark.parametrize("version", [1, 2])
def test_a_forgotten_follower_is_gone_with_all_that_was_its_own(store, version):
    fill(store, 3)
    store.run(follow(TOTALS, "a", count_once))
    if version == 2:
        store.run(followers.rebuild("totals"))
    store.run(kv.put("mine", 1))
    store.run(followers.forget("totals"))
    assert store.run(kv.keys()) == ["mine"]
    store.run(follow(TOTALS, "a", count_once))
    assert store.run(TOTALS.get("count")) == 3


def test_a_forgotten_group_is_gone(store):
    fill(store, 2, stream="s/1")
    store.run(follow("crew", "s/", fails_on(0), group=Group(2), on_error="set-aside"))
    store.run(followers.forget("crew"))
    assert store.run(kv.keys()) == []


def test_a_forgetting_that_was_interrupted_is_done_again_and_nobody_follows_meanwhile(open_new):
    for count in itertools.count():
        with open_new() as store:
            fill(store, 3)
            store.run(follow(TOTALS, "a", count_once))
            store.run(follow("mails", "a", lambda event: []))
            if stop_after(followers.forget("totals"), store, count):
                break
            if store.run(kv.has("follow/totals")) and store.run(followers.registered("totals")).is_forgotten:
                with pytest.raises(InvalidRequest, match="'totals' is being forgotten"):
                    store.run(follow(TOTALS, "a", count_once))
                with pytest.raises(InvalidRequest, match="'totals' is being forgotten"):
                    store.run(followers.rebuild("totals"))
            store.run(followers.forget("totals"))
            assert store.run(kv.keys()) == ["follow/mails"], count
    assert count > 4


def test_a_follower_that_follows_while_it_is_forgotten_is_told(store):
    fill(store, 3)

    def handler(event):
        if event.seq == 2:
            yield from kv.put("follow/mails", {"position": 1, "prefix": "a", "is_forgotten": True})
        return []

    with pytest.raises(InvalidRequest, match="'mails' is being forgotten"):
        store.run(follow("mails", "a", handler))


def test_trying_again_where_nothing_was_set_aside_changes_nothing(store):
    fill(store, 1)
    store.run(follow("mails", "a", copy))
    before = store.run(kv.entries())
    assert store.run(followers.retry("mails")) == 0
    assert store.run(kv.entries()) == before


@pytest.mark.parametrize("group", [None, Group(partitions=2)])
def test_a_follower_that_is_forgotten_while_it_waits_stops_and_lets_nothing_take_effect_again(store, group):
    fill(store, 3)
    step = start(follow("mails", "a", copy, timeout=60, group=group))
    while not isinstance(step.request, Wait):
        step = answer(step, store)
    store.run(followers.forget("mails"))
    fill(store, 1)
    with pytest.raises(InvalidRequest, match="'mails' was forgotten, or its checkpoint deleted, while it followed"):
        finish(step, store)
    assert copied_of(store) == [["a", 1], ["a", 2], ["a", 3]]


def test_what_setting_a_stream_aside_costs_does_not_grow_with_how_many_were_set_aside(open_new):
    def keys_read(streams):
        with open_new() as store:
            for number in range(streams):
                fill(store, 2, stream=f"a/{number}")
            read, step = 0, start(follow("mails", "a/", fails_on(0), on_error="set-aside"))
            while isinstance(step, Suspended):
                answers = store.handlers[type(step.request)](step.request)
                read += len(answers) if isinstance(step.request, KvEntries) else 0
                step = step.resume(answers)
            return read

    assert keys_read(80) <= 2 * keys_read(40)
