"""Programs that follow side by side, and what must hold however their requests come."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from conftest import answer

from interpreters import Store, open_store
from interpreters.explore import explore
from interpreters.explore.report import Report
from interpreters.stores.memory import MemoryStore
from persist_effects import Append, Draft, Group, ReadModel, Suspended, follow, followers, kv, log
from persist_effects.errors import FollowersBehind, InvalidRequest
from persist_effects.requests import Failed, Now, ReadAll

TOTALS = ReadModel("totals")
GROUP = Group(partitions=2, lease_seconds=8.0)


class Scene(NamedTuple):
    """Programs, the store on which they meet, and the check in the end."""

    programs: list[Callable[[], Any]]
    store: Callable[[], Store]
    check: Callable[..., Any]
    bound: int = 2
    crashes: bool = False
    limit: int | None = None
    reduce: bool = True

    def explored(self) -> Report:
        return explore(
            self.programs,
            self.store,
            self.check,
            bound=self.bound,
            crashes=self.crashes,
            limit=self.limit,
            reduce=self.reduce,
            requests_limit=2_000,
        )


def filled(*events: tuple[str, int]) -> Store:
    """A store with these events, and nothing else, that gives pages of one event."""
    interpreter = MemoryStore(clock=lambda: 7)
    read_all = interpreter.handlers[ReadAll]
    store = Store(interpreter, effects={ReadAll: lambda asked: read_all(msgspec.structs.replace(asked, limit=1))})
    for stream, number in events:
        store.run(log.append(stream, "counted", number))
    return store


def copy(event):
    """A handler that appends: what took effect twice, or out of order, would stand there."""
    return [Append("copies", (Draft("copied", [event.stream, event.seq]),))]


def finish(step, store):
    """Let the store answer a program to its end. Returns its value, or raises its error."""
    while isinstance(step, Suspended):
        step = answer(step, store)
    return step.value


def check_copied(streams):
    """Each event of these streams has taken effect once, in its order."""
    copied = [event.data for event in (yield from log.read("copies"))]
    for stream in streams:
        wanted = list(range(1, (yield from log.last_seq(stream)) + 1))
        found = [seq for name, seq in copied if name == stream]
        assert found == wanted, f"of {stream}, {wanted} were appended, and {found} took effect"


def check_no_errors(outcomes, *allowed):
    """No program has raised, but for what may come."""
    for outcome in outcomes:
        if isinstance(outcome, Failed) and not isinstance(outcome.error, allowed):
            raise outcome.error


# Another version is built


ONCE, HUNDREDS = "count", "hundreds"


def count_once(event, model):
    """Version 1: how many events there were."""
    before = yield from model.get_or(ONCE, 0)
    return [model.put(ONCE, before + 1), model.put(f"seen/{event.position}", 1)]


def count_hundreds(event, model):
    """Version 2: the same by hundreds, and nothing is called as before."""
    before = yield from model.get_or(HUNDREDS, 0)
    return [model.put(HUNDREDS, before + 100), model.put(f"known/{event.position}", 1)]


def follow_as_version_1():
    yield from follow(TOTALS, "a", count_once)


def follow_as_version_2():
    yield from follow(TOTALS, "a", count_hundreds, version=2)


def append_another():
    yield from log.append_expect("a", 2, "counted", 3)


def look_twice():
    """What is seen is whole, and never older than what was seen before."""
    first = yield from seen_whole()
    second = yield from seen_whole()
    assert second >= first, f"{first} events were seen, and then {second}"
    return first, second


def seen_whole():
    """How many events are counted in what is seen, which is all of one version."""
    entries = {key: entry.value for key, entry in (yield from TOTALS.entries())}
    if HUNDREDS in entries:
        count, others = entries.pop(HUNDREDS) // 100, [key for key in entries if not key.startswith("known/")]
    else:
        count, others = entries.pop(ONCE, 0), [key for key in entries if not key.startswith("seen/")]
    assert not others, f"keys of two versions: {entries}"
    assert len(entries) == count, f"{count} events were counted, and {sorted(entries)} are there"
    return count


def go_on_as_version_1_and_look():
    """What comes meanwhile is seen too, and goes on being seen."""
    yield from append_another()
    try:
        yield from follow_as_version_1()
    except InvalidRequest:
        # Version 2 has taken its place.
        return 0, 0
    return (yield from look_twice())


def with_version_1():
    store = filled(("a", 1), ("b", 9), ("a", 2))
    store.run(follow_as_version_1())
    return store


def with_version_1_behind():
    store = filled(("a", 1))
    store.run(follow_as_version_1())
    store.run(log.append("a", "counted", 2))
    return store


def version_2_is_whole(outcomes):
    # The earlier release is told that it is the earlier one.
    check_no_errors(outcomes, InvalidRequest)
    yield from follow_as_version_2()
    last = yield from log.last_seq("a")
    assert (yield from TOTALS.get(HUNDREDS)) == 100 * last
    keys = yield from kv.keys("model/totals/")
    assert len(keys) == last + 1, f"something is left of the version before: {keys}"
    assert (yield from kv.keys("follow")) == ["follow/totals"]


def rebuild_totals():
    yield from followers.rebuild("totals")


def with_a_rebuild_begun():
    store = with_version_1()
    store.run(rebuild_totals())
    return store


def version_1_is_whole(outcomes):
    check_no_errors(outcomes, InvalidRequest)
    yield from follow_as_version_1()
    last = yield from log.last_seq("a")
    assert (yield from seen_whole()) == last
    assert len((yield from kv.keys("model/totals/"))) == last + 1


# Events that are set aside


def fails_on(*numbers):
    def handler(event):
        if event.data in numbers:
            raise ValueError(f"cannot take {event.data}")
        return copy(event)

    return handler


def set_aside_the_first():
    yield from follow("mails", "a", fails_on(1), on_error="set-aside")


def append_to_a():
    yield from log.append_expect("a", 2, "counted", 3)


def set_aside_nothing_more():
    """As after a release that can take it."""
    yield from follow("mails", "a", copy, on_error="set-aside")


def retry_mails():
    if (yield from kv.has("follow/mails")):
        yield from followers.retry("mails")


def two_streams():
    return filled(("a", 1), ("a/2", 5), ("a", 2))


def with_one_set_aside():
    store = two_streams()
    store.run(set_aside_the_first())
    return store


def all_is_copied_after_a_retry(outcomes):
    check_no_errors(outcomes)
    copied = [event.data for event in (yield from log.read("copies"))]
    assert ["a/2", 1] in copied, "another stream has waited for the one that was set aside"
    if (yield from kv.has("follow/mails")):
        yield from followers.retry("mails")
    yield from follow("mails", "a", copy, on_error="set-aside")
    yield from check_copied(["a", "a/2"])
    assert (yield from kv.keys("follow-aside/")) == []


def what_was_set_aside_waits(outcomes):
    """The handler cannot take it yet: nothing of the stream takes effect, and it is told of."""
    check_no_errors(outcomes)
    yield from set_aside_the_first()
    copied = [event.data for event in (yield from log.read("copies"))]
    assert [seq for stream, seq in copied if stream == "a"] == [], copied
    told = {(event.data["stream"], event.data["seq"]) for event in (yield from log.read("set-aside/mails"))}
    assert told == {("a", 1)}
    (aside,) = (yield from followers.registered("mails")).aside
    assert (aside.first, aside.through) == (1, (yield from log.last_seq("a")))


# Groups


def member(name, timeout=0.0):
    def follow_as_member():
        yield from follow("crew", "s/", copy, group=GROUP, member=name, timeout=timeout)

    follow_as_member.__name__ = f"member_{name}"
    return follow_as_member


def append_to_both():
    yield from log.append_expect("s/1", 1, "counted", 3)
    yield from log.append_expect("s/2", 1, "counted", 4)


def of_both_partitions():
    # One falls to each of two partitions.
    return filled(("s/1", 1), ("s/2", 2))


def a_group_has_copied_each_once(outcomes):
    check_no_errors(outcomes)
    # Those that were killed gave no sign of life since; whoever is the last waits that long.
    yield from follow("crew", "s/", copy, group=GROUP, member="last", timeout=3 * GROUP.lease_seconds)
    yield from check_copied(["s/1", "s/2"])
    assert (yield from kv.keys("follow-member/crew/last")) == []


CLOCK = "clock"


def time_that_is_kept():
    """A store whose clock is a key, so that time passes where a program puts it forward, also while others work."""

    def tell(_):
        return (yield from kv.get_or(CLOCK, 1_000_000))

    store = open_store("memory:", effects={Now: tell})
    for stream, number in (("s/1", 1), ("s/2", 2), ("s/1", 3)):
        store.run(log.append(stream, "counted", number))
    return store


def let_a_lease_pass():
    yield from kv.put(CLOCK, 1_000_000 + int(GROUP.lease_seconds * 1_000_000))


def a_late_member_has_written_nothing(outcomes):
    check_no_errors(outcomes)
    for key in (yield from kv.keys("follow-member/")):
        yield from kv.delete(key)
    yield from follow("crew", "s/", copy, group=GROUP, member="last")
    yield from check_copied(["s/1", "s/2"])


def two_beats_of_b():
    """A member that looks again and again, so that it sees whether another one gives a sign."""
    yield from follow("crew", "s/", copy, group=GROUP, member="b", timeout=2 * GROUP.beat_seconds)


# Truncation beside followers


def truncate_what_all_have_seen():
    try:
        yield from log.truncate_through("a", 2, unseen="refuse")
    except FollowersBehind:
        yield from log.truncate_through("a", 2, unseen="keep")


def follow_mails():
    yield from follow("mails", "a", copy, on_error="set-aside")


def registered_at_the_first():
    store = filled(("a", 1))
    store.run(follow_mails())
    store.run(log.append("a", "counted", 2))
    return store


def nothing_unseen_was_dropped(outcomes):
    check_no_errors(outcomes)
    yield from follow_mails()
    yield from check_copied(["a"])


def set_aside_is_not_dropped(outcomes):
    check_no_errors(outcomes)
    yield from followers.retry("mails")
    yield from follow_mails()
    yield from check_copied(["a", "a/2"])


def member_behind():
    """A group of which one partition is past what the other has not seen."""
    store = open_store("memory:")
    for stream in ("s/2", "s/1", "s/2"):
        store.run(log.append(stream, "counted", 1))

    def only_the_second(event):
        if event.stream == "s/1":
            raise LookupError("not yet")
        return copy(event)

    with contextlib.suppress(LookupError):
        store.run(follow("crew", "s/", only_the_second, group=GROUP, member="a"))
    assert copied_of(store) == [["s/2", 1], ["s/2", 2]]
    return store


def copied_of(store):
    """What has taken effect."""
    return [event.data for event in store.run(log.read("copies"))]


def truncate_both():
    for stream in ("s/1", "s/2"):
        yield from log.truncate_through(stream, 1, unseen="keep")


SCENES = {
    "a version is built beside readers": Scene([follow_as_version_2, look_twice], with_version_1, version_2_is_whole),
    "a version is built while the one before goes on": Scene(
        [go_on_as_version_1_and_look, follow_as_version_2], with_version_1_behind, version_2_is_whole, bound=3
    ),
    "a version is built while events come": Scene(
        [follow_as_version_1, follow_as_version_2, append_another], with_version_1_behind, version_2_is_whole, bound=1
    ),
    "a version is built by two": Scene(
        [follow_as_version_2, follow_as_version_2, look_twice], with_version_1, version_2_is_whole, bound=1
    ),
    "a version is built, and killed": Scene(
        [follow_as_version_2, look_twice], with_version_1, version_2_is_whole, bound=1, crashes=True
    ),
    "the same version is rebuilt": Scene(
        [follow_as_version_1, rebuild_totals, look_twice], with_version_1, version_1_is_whole
    ),
    "events are set aside": Scene(
        [set_aside_the_first, append_to_a, set_aside_the_first], two_streams, what_was_set_aside_waits
    ),
    "events are set aside, and it is killed": Scene(
        [set_aside_the_first, append_to_a], two_streams, what_was_set_aside_waits, crashes=True
    ),
    "what was set aside is tried again": Scene(
        [set_aside_nothing_more, retry_mails, append_to_a], with_one_set_aside, all_is_copied_after_a_retry
    ),
    "what was set aside is tried again, and it is killed": Scene(
        [retry_mails, set_aside_nothing_more], with_one_set_aside, all_is_copied_after_a_retry, bound=1, crashes=True
    ),
    "members come and go": Scene(
        [member("a"), member("b"), append_to_both], of_both_partitions, a_group_has_copied_each_once, bound=1
    ),
    "members are killed": Scene(
        [member("a"), member("b")], of_both_partitions, a_group_has_copied_each_once, bound=1, crashes=True
    ),
    "a member is late": Scene(
        [member("a"), two_beats_of_b, let_a_lease_pass],
        time_that_is_kept,
        a_late_member_has_written_nothing,
        bound=2,
        limit=2_000,
        reduce=False,
    ),
    "truncation beside a follower": Scene(
        [follow_mails, truncate_what_all_have_seen], registered_at_the_first, nothing_unseen_was_dropped
    ),
    "truncation beside a version that is built": Scene(
        [follow_as_version_1, truncate_what_all_have_seen], with_a_rebuild_begun, version_1_is_whole
    ),
    "truncation beside what was set aside": Scene(
        [truncate_what_all_have_seen], with_one_set_aside, set_aside_is_not_dropped
    ),
    "truncation beside a group": Scene([truncate_both], member_behind, a_group_has_copied_each_once),
}
"""By what happens."""
