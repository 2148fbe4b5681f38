"""Whatever ends a check or a program of an exploration, the state in which it ended is told."""

import asyncio
import itertools
import re

import pytest

from interpreters import Store
from interpreters.explore import explore, explore_crashes, simulate
from interpreters.explore.effects.explore import explore_effects
from interpreters.explore.limits import Ended
from interpreters.stores.memory import MemoryStore
from persist_effects import Request, kv, perform
from persist_effects.requests import Failed


def memory():
    return MemoryStore(clock=lambda: 0)


def put_one():
    yield from kv.put("k", 1)
    yield from kv.put("k", 2)


def put_three():
    yield from kv.put("k", 3)


def fail():
    pytest.fail("the test says so")


def leave():
    raise SystemExit(3)


def group():
    try:
        fail()
    except BaseException as error:
        raise BaseExceptionGroup("both", [error, ValueError("too")]) from None


def raising(kind):
    def end():
        raise kind("it ends")

    return end


FAILURES = {"Failed: the test says so": fail, "SystemExit: 3": leave, "BaseExceptionGroup: both": group}
ENDINGS = {
    "interrupt": raising(KeyboardInterrupt),
    "cancellation": raising(asyncio.CancelledError),
    "closing": raising(GeneratorExit),
    "skip": lambda: pytest.skip("not here"),
    "unknown": raising(BaseException),
}


def in_orders(end, **options):
    def check(outcomes):
        if (yield from kv.get("k")) == 3:
            end()

    return explore([put_one, put_three], memory, check, reduce=False, **options)


def in_drawn_orders(end, **options):
    def check(outcomes):
        if (yield from kv.get("k")) == 3:
            end()

    return explore([put_one, put_one, put_three], memory, check, **({"limit": 3} | options))


def in_effects(end, **options):
    def check(acked, maybe):
        if maybe and (yield from kv.get("k")) == 2:
            end()

    return explore_effects(put_one, memory, check, **options)


def in_crashes(end, **options):
    def check(acked, maybe):
        if acked and (yield from kv.get("k")) == 1:
            end()

    return explore_crashes(put_one, check, depth=1, **options)


EXPLORERS = {"orders": in_orders, "drawn orders": in_drawn_orders, "effects": in_effects, "crashes": in_crashes}


@pytest.mark.parametrize("where", EXPLORERS)
@pytest.mark.parametrize("told", FAILURES)
def test_a_check_that_fails_with_what_is_no_exception_is_reported_with_its_token(where, told):
    report = EXPLORERS[where](FAILURES[told])
    assert report.verdict == "failed"
    assert report.failures[0].found.startswith(told)
    again = EXPLORERS[where](FAILURES[told], repro=report.failures[0].token)
    assert again.failures[0].found.startswith(told)


@pytest.mark.parametrize("where", EXPLORERS)
@pytest.mark.parametrize("what", ENDINGS)
def test_what_ends_an_exploration_says_in_which_state_it_came_and_how_to_see_it_again(where, what):
    with pytest.raises(BaseException) as first:  # noqa: PT011 - which one is asked below
        EXPLORERS[where](ENDINGS[what])
    [told] = first.value.__notes__
    token = re.search('repro="(.*)"', told)[1]
    ended = []

    def end():
        ended.append(1)
        raise LookupError("here")

    # That state alone is run, and the check ends there.
    again = EXPLORERS[where](end, repro=token)
    assert ended
    assert again.checked == 1
    assert again.failures[0].found == "LookupError: here"


def ending_program(end):
    def go():
        yield from kv.put("k", 1)
        end()

    return go


def no_check(*found):
    yield from kv.get("k")


IN_PROGRAMS = {
    "orders": lambda program: explore([program, put_three], memory),
    "orders with a check": lambda program: explore([program, put_three], memory, no_check),
    "effects": lambda program: explore_effects(program, memory, no_check),
    "crashes": lambda program: explore_crashes(program, depth=1),
}


@pytest.mark.parametrize("where", IN_PROGRAMS)
def test_a_program_in_which_the_test_fails_is_reported_whatever_a_check_says(where):
    report = IN_PROGRAMS[where](ending_program(fail))
    assert report.failures[0].kind == "raises"
    assert report.failures[0].found.endswith("Failed: the test says so")


@pytest.mark.parametrize("where", [where for where in IN_PROGRAMS if where != "orders with a check"])
def test_a_program_that_leaves_the_process_is_reported(where):
    report = IN_PROGRAMS[where](ending_program(leave))
    assert report.failures[0].found.endswith("SystemExit: 3")


def test_a_check_is_given_the_error_of_a_program_that_leaves_the_process():
    def check(outcomes):
        yield from kv.get("k")
        assert isinstance(outcomes[0], Failed)
        assert isinstance(outcomes[0].error, Ended)
        assert outcomes[0].error.error.code == 3

    assert explore([ending_program(leave), put_three], memory, check).verdict == "passed"


@pytest.mark.parametrize("where", IN_PROGRAMS)
@pytest.mark.parametrize("what", ENDINGS)
def test_a_program_that_ends_an_exploration_leaves_a_note(where, what):
    with pytest.raises(BaseException) as ended:  # noqa: PT011 - which one is asked below
        IN_PROGRAMS[where](ending_program(ENDINGS[what]))
    assert len(ended.value.__notes__) == 1
    assert "this ended" in ended.value.__notes__[0]


class Ask(Request[int], frozen=True, tag="test/ask-at-the-end"):
    pass


def ask():
    yield from perform(Ask())


@pytest.mark.parametrize("told", FAILURES)
def test_a_row_of_the_users_fails_in_the_program_that_asked(told):
    def answered():
        return Store(memory(), effects={Ask: lambda request: FAILURES[told]()})

    for report in (explore([ask], answered), explore_effects(ask, answered, no_check)):
        assert report.verdict in ("raises", "failed")
        assert told in report.failures[0].found
    report = explore_crashes(ask, depth=1, effects=lambda: {Ask: lambda request: FAILURES[told]()})
    assert told in report.failures[0].found


def test_a_store_factory_that_raises_later_says_for_which_interleaving():
    made = itertools.count()

    def failing_factory():
        if next(made) == 9:
            raise OSError("no more stores")
        return memory()

    with pytest.raises(OSError, match="no more stores") as ended:
        explore([put_one, put_three], failing_factory, reduce=False)
    assert 'repro="s1:1"' in ended.value.__notes__[0]


def test_a_program_that_raises_or_hangs_only_after_a_fault_of_the_disk_is_reported():
    def give_up_with_own_words():
        try:
            yield from kv.put("k", 1)
        except Exception:
            raise LookupError("no store") from None

    report = explore_crashes(give_up_with_own_words, depth=1, faults=["EIO"])
    assert {failure.kind for failure in report.failures} == {"raises after a fault"}
    assert report.failures[0].found == "LookupError: no store"
    again = explore_crashes(give_up_with_own_words, depth=1, faults=["EIO"], repro=report.failures[0].token)
    assert again.failures[0].found == "LookupError: no store"

    def try_for_ever():
        while True:
            try:
                return (yield from kv.put("k", 1))
            except Exception:
                continue

    report = explore_crashes(try_for_ever, depth=1, faults=["EIO"], requests_limit=50)
    assert {failure.kind for failure in report.failures} == {"hangs after a fault"}


def test_a_simulated_program_in_which_the_test_fails_fails_it_and_says_with_which_seed():
    with pytest.raises(pytest.fail.Exception, match="the test says so") as failed:
        simulate([ending_program(fail), put_three], memory(), seed=7)
    assert "seed=7" in failed.value.__notes__[0]
    with pytest.raises(KeyboardInterrupt) as ended:
        simulate([ending_program(ENDINGS["interrupt"]), put_three], memory(), seed=7)
    assert "persist/kv-put k 1" in ended.value.__notes__[0]
    done = simulate([ending_program(leave)], memory(), seed=7)
    assert isinstance(done.outcomes[0].error, Ended)
