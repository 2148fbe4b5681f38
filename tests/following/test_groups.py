"""Members of a group: who has which partition, what becomes of it where one dies, and what keeps a late one out."""

import math
from collections import Counter

import anyio
import pytest
from conftest import answer
from follower_scenes import copied_of, copy, finish
from steady import steady

from interpreters import open_store
from interpreters.explore import simulate
from persist_effects import (
    Group,
    InvalidRequest,
    ReadModel,
    Retry,
    Suspended,
    clock,
    follow,
    followers,
    kv,
    log,
    start,
)
from persist_effects.clock import sleep
from persist_effects.following.records import hash_of
from persist_effects.requests import Now, Transact, Wait

GROUP = Group(partitions=4, lease_seconds=8.0)


def fill(store, streams=8, events=3):
    for number in range(streams * events):
        store.run(log.append(f"s/{number % streams}", "counted", number))


def assert_each_once(store, streams=8):
    found = {}
    for stream, seq in copied_of(store):
        found.setdefault(stream, []).append(seq)
    for number in range(streams):
        name = f"s/{number}"
        assert found[name] == list(range(1, store.run(log.last_seq(name)) + 1))


def owners(store, name="crew"):
    generation = 1
    return {
        key.rsplit("/", 1)[1]: entry.value.get("owner", "")
        for key, entry in store.run(kv.entries(f"follow-part/{name}/{generation}/"))
    }


def member(name, *, handler=copy, timeout=0.0, **options):
    return follow("crew", "s/", handler, group=GROUP, member=name, timeout=timeout, **options)


def drive(step, store, until):
    """Let a member go on until it stands at a request that is wanted."""
    while isinstance(step, Suspended) and not until(step.request):
        step = answer(step, store)
    return step


def run_on(step, rows):
    """Let a program go on to its end, answered by these rows."""
    while isinstance(step, Suspended):
        step = step.resume(rows[type(step.request)](step.request))


# Sharing


def test_one_member_has_all_partitions_and_leaves_nothing_behind_but_checkpoints(store):
    fill(store)
    assert store.run(member("a")) == 24
    assert_each_once(store)
    assert set(owners(store).values()) == {""}
    assert store.run(kv.keys("follow-member/")) == []
    found = store.run(followers.registered("crew"))
    assert (found.partitions, found.position, found.members) == (4, 24, [])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_members_share_the_partitions_as_evenly_as_may_be(store, count):
    fill(store)
    took = Counter()

    def handler(name):
        def handle(event):
            took[name] += 1
            return copy(event)

        return handle

    names = [f"m{number}" for number in range(count)]
    seen = {}

    def look():
        yield from sleep(2 * GROUP.lease_seconds)
        for index, owner in (yield from kv.entries("follow-part/crew/1/")):
            seen[index] = owner.value.get("owner")

    programs = [lambda name=name: member(name, handler=handler(name), timeout=30) for name in names]
    simulated = simulate([*programs, look], store, seed=count)
    assert simulated.ended == "all", simulated
    assert_each_once(store)
    shares = Counter(seen.values())
    assert sorted(shares.values()) == sorted((4 // count + (place < 4 % count)) or 0 for place in range(min(count, 4)))


@pytest.mark.parametrize("seed", range(8))
def test_members_that_come_and_go_under_load_give_each_event_effect_once(store, seed):
    fill(store, events=1)

    def write():
        for number in range(40):
            yield from log.append(f"s/{number % 8}", "counted", number)
            yield from sleep(0.5)

    def late(name, seconds, timeout):
        def work():
            yield from sleep(seconds)
            yield from member(name, timeout=timeout)

        return work

    programs = [write, late("a", 0, 3), late("b", 2, 5), late("c", 4, 1), late("d", 9, 2), late("e", 12, 30)]
    simulated = simulate(programs, store, seed=seed)
    assert simulated.ended == "all", simulated
    assert [outcome for outcome in simulated.outcomes if not hasattr(outcome, "value")] == []
    assert_each_once(store)


def test_members_that_are_killed_lose_their_partitions_within_a_lease(store):
    """And events go on: the longest that one has waited is told by its times."""
    waited = []

    def handler(event):
        waited.append((yield from clock.now()) - event.at)
        return copy(event)

    def write():
        for number in range(60):
            yield from log.append(f"s/{number % 8}", "counted", number, at=(yield from clock.now()))
            yield from sleep(0.5)

    def killed():
        """It follows for a while, and is gone without a word."""
        step = start(member("a", handler=handler, timeout=math.inf))
        for _ in range(120):
            step = step.resume((yield step.request))
        step.close()

    def other():
        yield from member("b", handler=handler, timeout=25)

    simulated = simulate([write, killed, other], store, seed=3)
    assert simulated.ended == "all", simulated
    assert_each_once(store)
    # Beats are compared with the clock of whoever looks: a lease, and the half second between events.
    assert max(waited) / 1_000_000 <= GROUP.lease_seconds + 0.5
    assert max(waited) / 1_000_000 > GROUP.beat_seconds, "somebody was waited for"


# The fence


def test_a_member_that_was_thought_dead_writes_nothing_and_goes_on_as_who_it_is(store):
    fill(store, streams=2, events=2)
    step = drive(start(member("a")), store, lambda request: isinstance(request, Transact) and len(request.writes) > 1)
    late = step.request
    # Another one takes its sign of life away, and its partitions over.
    store.run(kv.delete("follow-member/crew/a"))
    store.run(member("b"))
    before = copied_of(store)
    conflict = store.handlers[Transact](late)
    assert type(conflict).__name__ == "Conflict"
    assert copied_of(store) == before
    step = step.resume(conflict)
    drive(step, store, lambda request: False)
    assert_each_once(store, streams=2)


def test_whoever_begins_with_the_name_of_a_member_that_lives_takes_its_place(store):
    fill(store, streams=2, events=2)
    step = drive(start(member("a", timeout=math.inf)), store, lambda request: isinstance(request, Wait))
    other = drive(start(member("a", timeout=math.inf)), store, lambda request: isinstance(request, Wait))
    assert isinstance(other, Suspended)
    later = store.run(clock.now()) + 10_000_000
    step = step.resume(0)
    rows = {**store.handlers, Now: lambda request: later}
    with pytest.raises(InvalidRequest, match="member 'a' of follower 'crew' has begun a second time"):
        run_on(step, rows)
    other.close()


def test_a_member_that_is_interrupted_gives_its_partitions_back(store):
    fill(store)
    step = drive(start(member("a", timeout=math.inf)), store, lambda request: isinstance(request, Wait))
    assert set(owners(store).values()) == {"a"}
    step = step.throw(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        finish(step, store)
    assert set(owners(store).values()) == {""}
    assert store.run(kv.keys("follow-member/")) == []


def test_a_member_whose_handler_fails_names_the_event_and_gives_its_partitions_back(store):
    fill(store)

    def handler(event):
        raise LookupError("no")

    with pytest.raises(LookupError) as raised:
        store.run(member("a", handler=handler))
    assert "event 1 of stream 's/" in raised.value.__notes__[0]
    assert set(owners(store).values()) == {""}


def test_a_member_whose_handler_fails_after_others_of_one_look_gives_back_what_took_effect(store):
    fill(store, streams=1, events=5)

    def handler(event):
        if event.seq == 3:
            raise LookupError("not yet")
        return copy(event)

    with pytest.raises(LookupError):
        store.run(member("a", handler=handler))
    store.run(member("b"))
    assert_each_once(store, streams=1)


@pytest.mark.parametrize("handled", [1, 2, 3, 4])
def test_a_member_that_is_interrupted_in_its_handler_gives_back_what_took_effect(store, handled):
    fill(store, streams=1, events=5)

    def handler(event):
        if event.seq > handled:
            raise KeyboardInterrupt
        return copy(event)

    with pytest.raises(KeyboardInterrupt):
        store.run(member("a", handler=handler))
    store.run(member("b"))
    assert_each_once(store, streams=1)


# Together with the rest


def test_what_a_member_sets_aside_is_tried_again_by_whoever_has_the_partition_then(store):
    fill(store, streams=4, events=2)

    def fails(event):
        if event.stream in {"s/1", "s/2"}:
            raise ValueError(event.stream)
        return copy(event)

    store.run(member("a", handler=fails, on_error="set-aside"))
    assert {aside.stream for aside in store.run(followers.registered("crew")).aside} == {"s/1", "s/2"}
    assert store.run(followers.retry("crew")) == 2
    store.run(member("b", on_error="set-aside"))
    assert_each_once(store, streams=4)
    assert store.run(followers.registered("crew")).aside == []


def test_a_member_that_waits_to_ask_again_gives_signs_of_life_meanwhile(store):
    fill(store, streams=1, events=1)
    tries = []

    def handler(event):
        tries.append(event.seq)
        if len(tries) == 1:
            raise LookupError("not yet")
        return copy(event)

    def work():
        yield from member("a", handler=handler, retry=Retry(times=1, wait_seconds=60))

    def other():
        yield from sleep(1)
        yield from member("b", timeout=30)

    simulated = simulate([work, other], store, seed=1)
    assert simulated.ended == "all", simulated
    assert len(tries) == 2, "its partition was not taken from it"
    assert copied_of(store) == [["s/0", 1]]


def test_a_group_builds_another_version_of_its_read_model_beside_the_one_before(store):
    fill(store, streams=4, events=3)

    def count(event, model):
        return [model.put(f"{event.stream}/{event.seq}", event.data)]

    def count_twice(event, model):
        return [model.put(f"{event.stream}/{event.seq}", 2 * event.data)]

    def work(name, version, handler, timeout=0.0):
        return lambda: follow(
            ReadModel("model"), "s/", handler, group=GROUP, member=name, version=version, timeout=timeout
        )

    store.run(work("a", 1, count)())
    whole = []

    def look():
        for _ in range(30):
            entries = yield from ReadModel("model").entries()
            whole.append(sorted(entry.value for _, entry in entries))
            yield from sleep(0.2)

    simulated = simulate(
        [work("a", 1, count, 20), work("b", 2, count_twice, 20), work("c", 2, count_twice, 20), look], store, seed=5
    )
    assert all(values in (list(range(12)), [2 * number for number in range(12)]) for values in whole)
    assert whole[-1] == [2 * number for number in range(12)]
    told = [outcome.error for outcome in simulated.outcomes if hasattr(outcome, "error")]
    assert [str(error)[:32] for error in told] == ["follower 'model' has version 2, "]
    assert {key.split("/")[2] for key in store.run(kv.keys("model/"))} == {"2"}
    assert {key.split("/")[2] for key in store.run(kv.keys("follow-part/"))} == {"2"}


def test_a_group_notices_while_it_waits_that_a_rebuild_is_wanted(store):
    fill(store, streams=2, events=2)
    model = ReadModel("model")
    filled = []

    def count(event, model):
        filled.append(event.position)
        return [model.put(f"{event.position}", 1)]

    def work():
        yield from follow(model, "s/", count, group=GROUP, member="a", timeout=60)

    def ask():
        yield from sleep(20)
        yield from followers.rebuild("model")
        yield from sleep(10)
        return (yield from followers.registered("model")).building

    simulated = simulate([work, ask], store, seed=1)
    assert simulated.outcomes[1].value is None, "it was built within seconds"
    assert sorted(filled) == sorted([1, 2, 3, 4] * 2)


def test_a_follower_notices_while_it_waits_that_what_it_set_aside_is_to_be_tried_again(store):
    fill(store, streams=1, events=2)
    allowed = []

    def handler(event):
        if not allowed:
            raise LookupError("not yet")
        return copy(event)

    def work():
        yield from follow("mails", "s/", handler, on_error="set-aside", timeout=60)

    def ask():
        yield from sleep(20)
        allowed.append(True)
        yield from followers.retry("mails")
        yield from sleep(10)
        return len((yield from log.read("copies")))

    assert simulate([work, ask], store, seed=1).outcomes[1].value == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_members_are_tasks_as_well(backend):
    with open_store("memory:") as store:
        fill(store)

        async def work():
            async with anyio.create_task_group() as tasks:
                for name in ("a", "b", "c"):
                    tasks.start_soon(store.arun, member(name))

        anyio.run(work, backend=backend)
        store.run(member("last"))
        assert_each_once(store)


def test_a_member_needs_no_name_of_its_own(store):
    fill(store)
    store.run(follow("crew", "s/", copy, group=GROUP))
    assert_each_once(store)


def test_the_partition_of_a_stream_is_the_same_everywhere_and_for_ever():
    assert [hash_of(f"s/{number}") % 16 for number in range(8)] == [5, 13, 6, 0, 9, 4, 3, 6]


# What is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"partitions": 0}, "partitions is"),
        ({"partitions": 4_097}, "partitions is"),
        ({"partitions": 2.0}, "partitions is"),
        ({"lease_seconds": 0}, "lease_seconds is 0: give a number from 0.05 on"),
        ({"lease_seconds": math.inf}, "lease_seconds is inf"),
        ({"lease_seconds": "long"}, "lease_seconds is 'long'"),
    ],
    ids=steady,
)
def test_a_group_that_makes_no_sense_is_refused(fields, words):
    with pytest.raises(InvalidRequest, match=words):
        Group(**fields)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": 4}, "group is an int, 4: give a Group"),
        ({"member": "a"}, "member 'a' of follower 'crew' needs a group"),
        ({"group": GROUP, "member": ""}, "member name is empty"),
        ({"group": GROUP, "member": 5}, "member name is an int"),
        ({"group": GROUP, "member": "x" * 500}, "member's key"),
    ],
    ids=steady,
)
def test_what_cannot_be_a_member_is_refused_before_anything_is_read(options, words):
    with pytest.raises(InvalidRequest, match=words):
        next(follow("crew", "s/", copy, **options))


def test_a_group_whose_name_has_a_slash_is_refused():
    with pytest.raises(InvalidRequest, match="'a/b' has a slash"):
        next(follow("a/b", "s/", copy, group=GROUP))


def test_members_that_disagree_on_the_number_of_partitions_are_refused(store):
    fill(store)
    store.run(member("a"))
    before = store.run(kv.entries())
    with pytest.raises(InvalidRequest, match="follower 'crew' has 4 partitions, and was asked to follow with 8"):
        store.run(follow("crew", "s/", copy, group=Group(8), member="b"))
    with pytest.raises(InvalidRequest, match="has 4 partitions, and was asked to follow with no partitions"):
        store.run(follow("crew", "s/", copy))
    assert store.run(kv.entries()) == before
    store.run(follow("crew", "s/", lambda event: [], group=Group(8), member="b", version=2))
    assert store.run(followers.registered("crew")).partitions == 8


def test_a_follower_that_was_none_becomes_a_group_by_another_version(store):
    fill(store)
    store.run(follow("crew", "s/", copy))
    with pytest.raises(InvalidRequest, match="has no partitions, and was asked to follow with 4 partitions"):
        store.run(member("a"))
