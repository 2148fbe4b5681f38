"""One order of programs, drawn by a seed: the same in every process."""

import pytest
from conftest import printed_under_hash_seeds

from interpreters import Store, open_store
from interpreters.explore import Sleep, simulate
from interpreters.stores.memory import MemoryStore
from persist_effects import InvalidRequest, Request, kv, log, perform
from persist_effects.requests import Answered, Failed, KvPut, Wait

SEEDS = 10_000


def memory():
    return MemoryStore(clock=lambda: 0)


def count():
    return (yield from kv.update("counter", lambda number: number + 1, 0))


def append_some():
    for color in ("red", "blue"):
        yield from log.append("colors", "seen", {"color": color, "tags": {"b": 1, "a": [1.5, None]}})


def follow_along():
    position, seen = 0, []
    while len(seen) < 2:
        position = yield from perform(Wait(position, "colors", 10.0))
        seen = yield from log.read("colors")
    return [event.data["color"] for event in seen]


PROGRAMS = {"count": count, "count again": count, "append": append_some, "follow": follow_along}


def test_a_seed_gives_one_trace_and_another_seed_may_give_another():
    one, again, *others = (simulate(PROGRAMS, memory(), seed) for seed in (1, 1, 2, 3, 4, 5))
    assert one.trace == again.trace
    assert one.digest == again.digest
    assert str(one) == str(again)
    assert len({one.digest, *(other.digest for other in others)}) >= 4
    assert all(run.ended == "all" for run in others)


def test_the_outcomes_stand_in_the_order_of_the_programs():
    done = simulate(PROGRAMS, memory(), seed=0)
    assert done.names == tuple(PROGRAMS)
    assert sorted(outcome.value for outcome in done.outcomes[:2]) == [1, 2]
    assert done.outcomes[3] == Answered(["red", "blue"])


def test_the_trace_has_each_request_with_its_program_and_its_outcome():
    done = simulate({"one": lambda: kv.put("a", 1)}, memory(), seed=0)
    assert done.trace == [("one", KvPut("a", 1), Answered(1))]


def test_the_store_stays_open_and_holds_what_was_written():
    store = open_store("memory:")
    simulate([count] * 5, store, seed=9)
    assert store.run(kv.get("counter")) == 5


# Time


def test_a_sleep_takes_no_time_and_the_earliest_ends_first():
    order = []

    def sleep(seconds):
        def go():
            yield from perform(Sleep(seconds))
            order.append(seconds)
            yield from kv.put("a", seconds)

        return go

    done = simulate([sleep(3_600), sleep(1), sleep(60.5), sleep(0)], memory(), seed=4)
    assert order == [0, 1, 60.5, 3_600]
    assert done.seconds == 3_600


def test_a_wait_without_an_event_ends_at_its_timeout():
    def wait():
        return (yield from perform(Wait(0, "colors", 5.0)))

    def write_elsewhere():
        yield from perform(Sleep(2))
        yield from log.append("numbers", "seen", 1)

    done = simulate([wait, write_elsewhere], memory(), seed=0)
    assert done.outcomes[0] == Answered(0)
    assert done.seconds == 5


def test_a_wait_ends_with_the_event_that_it_waits_for():
    def wait():
        return (yield from perform(Wait(0, "colors", 5.0)))

    def write_late():
        yield from perform(Sleep(2))
        yield from append_some()

    done = simulate([wait, write_late], memory(), seed=0)
    assert done.outcomes[0].value in (1, 2)
    assert done.seconds == 2


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1", True, None])
def test_a_sleep_of_no_length_is_refused(seconds):
    with pytest.raises(InvalidRequest, match="give seconds, 0 or more"):
        Sleep(seconds)


# How it may end


def test_programs_that_wait_for_ever_end_in_a_deadlock_and_their_outcomes_are_none():
    cleaned_up = []

    def wait():
        try:
            yield from perform(Wait(0, "never", float("inf")))
        finally:
            cleaned_up.append(1)

    done = simulate([wait, count], memory(), seed=0)
    assert (done.ended, done.outcomes) == ("deadlock", (None, Answered(1)))
    assert cleaned_up == [1]


def test_programs_that_ask_for_ever_are_stopped():
    def ask():
        while True:
            yield from kv.get("a")

    done = simulate([ask, count], memory(), seed=0, requests_limit=100)
    assert (done.ended, len(done.trace), done.outcomes[0]) == ("hangs", 100, None)


def test_an_error_of_a_program_is_its_outcome_and_the_others_go_on():
    def fail():
        yield from kv.get("a")
        raise ValueError("no")

    done = simulate([fail, count], memory(), seed=0)
    assert isinstance(done.outcomes[0], Failed)
    assert done.outcomes[1] == Answered(1)
    assert done.ended == "all"


def test_what_no_store_answers_and_what_is_no_request_are_told_in_the_program():
    def yield_anything():
        yield 7

    class Roll(Request[int], frozen=True, tag="game/roll"):
        sides: int

    def roll():
        return (yield from perform(Roll(6)))

    nothing, anything, rolled = (
        simulate([program], store, seed=0).outcomes[0]
        for program, store in (
            (roll, memory()),
            (yield_anything, memory()),
            (roll, Store(memory(), effects={Roll: lambda request: request.sides})),
        )
    )
    assert type(nothing.error).__name__ == "UnhandledEffect"
    assert type(anything.error).__name__ == "NotARequest"
    assert rolled == Answered(6)


class Show(Request[object], frozen=True, tag="game/show"):
    """A request of the user's own, with fields and answers of any sort."""

    cards: object


@pytest.mark.parametrize("answer", [{1, 2}, object(), "\ud800", 2**80])
def test_anything_that_is_asked_and_answered_has_a_digest(answer):
    def show():
        yield from perform(Show({"b", "a"}))
        yield from kv.put("a", "\ud800")

    def digest():
        return simulate([show], Store(memory(), effects={Show: lambda request: answer}), seed=0).digest

    assert digest() == digest()


def test_what_is_no_request_has_a_digest_too():
    def yield_anything():
        yield 7

    assert len(simulate([yield_anything], memory(), seed=0).digest) == 64


# The same everywhere

_SCRIPT = f"""
import hashlib
from test_schedule_simulate import *
digest = hashlib.sha256()
for seed in range({SEEDS}):
    digest.update(simulate([count, append_some], memory(), seed).digest.encode())
for seed in range(200):
    digest.update(simulate(PROGRAMS, memory(), seed).digest.encode())
print(digest.hexdigest())
"""


@pytest.mark.exploration
def test_ten_thousand_seeds_give_the_same_traces_under_another_hash_seed():
    one, other = printed_under_hash_seeds(_SCRIPT, 0, 12345)
    assert one == other
    assert len(one) == 65


# Bad input


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"programs": [count()]}, "is the generator 'count': give the function, not the generator"),
        ({"programs": []}, "there are no programs"),
        ({"store": memory}, "store is the function"),
        ({"store": "memory:"}, "give an object with `handlers` and `close()`"),
        ({"seed": "x"}, "seed is a str, 'x'"),
        ({"seed": -1}, "seed is -1"),
        ({"requests_limit": 0}, "requests_limit is 0"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_bad_input_is_refused_before_anything_runs(arguments, why):
    def must_not_run():
        raise AssertionError("it ran")
        yield

    given = {"programs": [must_not_run], "store": memory(), "seed": 0, **arguments}
    with pytest.raises(InvalidRequest) as refused:
        simulate(**given)
    assert why in str(refused.value)
