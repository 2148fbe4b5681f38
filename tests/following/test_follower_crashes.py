"""Followers on a disk whose power fails at every request: each event takes effect once, and versions are whole."""

import pytest
from follower_scenes import (
    GROUP,
    HUNDREDS,
    TOTALS,
    check_copied,
    copy,
    count_hundreds,
    count_once,
    fails_on,
    seen_whole,
)

from interpreters.explore import explore_crashes
from persist_effects import Draft, follow, followers, kv, log
from persist_effects.following.checkpoint import Checkpoint
from persist_effects.machine import perform
from persist_effects.requests import Transact


def fill(*streams):
    for stream in streams:
        if not (yield from log.last_seq(stream)):
            yield from log.append_many(stream, [Draft("counted", 1), Draft("counted", 2)])


def build_another_version():
    yield from fill("a")
    if (yield from kv.get_or("follow/totals", {})).get("version", 1) == 1:
        yield from follow(TOTALS, "a", count_once)
    yield from follow(TOTALS, "a", count_hundreds, version=2)


def a_whole_version_is_seen(acked, maybe):
    # Before the first version has come to its end, it is seen as it grows.
    yield from seen_whole()
    yield from build_another_version()
    assert (yield from TOTALS.get(HUNDREDS)) == 200
    assert len((yield from kv.keys("model/"))) == 3
    assert (yield from kv.keys("follow")) == ["follow/totals"]


def set_aside_and_try_again():
    yield from fill("a", "b")
    yield from follow("mails", "", fails_on(1), on_error="set-aside")
    yield from followers.retry("mails")
    yield from follow("mails", "", copy, on_error="set-aside")


def what_was_set_aside_takes_effect_once(acked, maybe):
    yield from fill("a", "b")
    yield from follow("mails", "", copy, on_error="set-aside")
    yield from followers.retry("mails")
    yield from follow("mails", "", copy, on_error="set-aside")
    yield from check_copied(["a", "b"])
    assert (yield from followers.registered("mails")).aside == []


def work_as_a_member():
    yield from fill("s/1", "s/2")
    yield from follow("crew", "s/", copy, group=GROUP, member="a")


def each_event_of_the_group_took_effect_once(acked, maybe):
    for key in (yield from kv.keys("follow-member/")):
        yield from kv.delete(key)
    yield from fill("s/1", "s/2")
    yield from follow("crew", "s/", copy, group=GROUP, member="b")
    yield from check_copied(["s/1", "s/2"])


def forget_one():
    yield from fill("a")
    yield from follow(TOTALS, "a", count_once)
    yield from followers.forget("totals")


def what_was_forgotten_is_gone(acked, maybe):
    if (yield from kv.has("follow/totals")):
        yield from followers.forget("totals")
    assert (yield from kv.keys()) == []


WORKLOADS = {
    build_another_version: a_whole_version_is_seen,
    set_aside_and_try_again: what_was_set_aside_takes_effect_once,
    work_as_a_member: each_event_of_the_group_took_effect_once,
    forget_one: what_was_forgotten_is_gone,
}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.__name__)
def test_whenever_the_power_fails_each_event_takes_effect_once(workload):
    report = explore_crashes(workload, WORKLOADS[workload], depth=1)
    assert report.verdict == "passed", report


def test_a_checkpoint_that_is_written_apart_from_the_effects_is_found(monkeypatch):
    honest = Checkpoint.advance

    def advance(self, position, writes=(), **changes):
        answers = yield from honest(self, position, (), **changes)
        if writes:
            yield from perform(Transact(tuple(writes)))
        return answers

    monkeypatch.setattr(Checkpoint, "advance", advance)
    report = explore_crashes(work_as_a_member, each_event_of_the_group_took_effect_once, depth=1)
    assert report.verdict == "failed", report
