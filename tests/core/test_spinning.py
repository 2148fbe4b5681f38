"""Programs that go on asking whatever they are told: every loop that drives one ends, and can be interrupted."""

from contextlib import ExitStack

import anyio
import pytest

from interpreters import Store, open_store
from interpreters.explore import explore, explore_crashes, explore_effects, simulate
from interpreters.explore.limits import Hangs, limited
from interpreters.explore.report import ENDLESS
from interpreters.stores.file.upkeep.two_disks import on_target, two_disks
from persist_effects import Diverged, Request, Spinning, all_of, kv, log
from persist_effects.machine import Suspended, Together, next_request, perform, run, start, unwind
from persist_effects.requests import AllOf, Answered, Failed, KvHas
from persist_effects.spinning import INTERRUPTS_LIMIT, REFUSALS_LIMIT
from persist_effects.testing import given, perform_sequence
from persist_effects.trace import record, replay


class Ask(Request[str], frozen=True, tag="spinning/ask"):
    question: str


class Other(Request[str], frozen=True, tag="spinning/other"):
    pass


def asks_again():
    yield from kv.has("first")
    while True:
        try:
            return (yield from perform(Ask("one")))
        except Exception:
            continue


def yields_no_request():
    yield from kv.has("first")
    while True:
        try:
            yield 7
        except Exception:
            continue


def yields_another_each_time():
    yield from kv.has("first")
    while True:
        try:
            yield object()
        except Exception:
            continue


def asks_with_what_is_not_equal_to_itself():
    yield from kv.has("first")
    while True:
        try:
            yield from perform(Ask(float("nan")))
        except Exception:
            continue


def retries_in_a_finally():
    try:
        yield from kv.has("first")
        yield from perform(Other())
    finally:
        while True:
            try:
                yield from perform(Ask("one"))
                break
            except Exception:
                continue


def catches_everything():
    yield from kv.has("first")
    while True:
        try:
            return (yield from perform(Ask("one")))
        except GeneratorExit:
            raise
        except BaseException:
            continue


def runs_with_one_that_spins():
    return (yield from all_of(kv.has("second"), asks_again()))


BAD_PROGRAMS = [
    asks_again,
    yields_no_request,
    yields_another_each_time,
    asks_with_what_is_not_equal_to_itself,
    retries_in_a_finally,
    catches_everything,
    runs_with_one_that_spins,
]


def by_hand(make):
    step = start(make())
    while isinstance(step, Suspended):
        if isinstance(step.request, AllOf):
            step = step.resume([Answered(False), Failed(LookupError())][: len(step.request.requests)])
        elif isinstance(step.request, KvHas):
            step = step.resume(False)
        else:
            step = step.throw(unhandled(step.request))


def unhandled(request):
    with pytest.raises(Exception, match="no handler answers") as caught:
        run(perform(request), {})
    return caught.value


def over_another_disk(make):
    run(on_target(make()), two_disks({}, {KvHas: lambda request: False, Ask: refuse}))


def refuse(request):
    raise unhandled(request)


def together(make):
    programs = Together([make(), make()])
    while programs.requests:
        programs.resume(
            [Answered(False) if isinstance(one, KvHas) else Failed(unhandled(one)) for one in programs.requests]
        )
    raise programs.outcomes[0].error


def in_tasks(make):
    with open_store("memory:") as store:
        anyio.run(store.arun, make())


def in_rounds(make):
    with open_store("memory:") as store:
        outcomes = store.run_many([make(), make()], return_exceptions=True)
    raise outcomes[1]


def in_a_store(make):
    with open_store("memory:") as store:
        store.run(make())


def recorded(make):
    outcome, _ = record(make, open_store("memory:").handlers)
    raise outcome.error


def told_in_a_test(make):
    given().when(make, {KvHas: lambda request: False})._value()


DRIVERS = [in_a_store, in_rounds, in_tasks, recorded]


@pytest.mark.parametrize("make", BAD_PROGRAMS)
@pytest.mark.parametrize("drive", DRIVERS)
def test_a_program_that_is_refused_again_and_again_is_given_up_with_its_name_and_line(drive, make):
    with pytest.raises(Spinning) as caught:
        drive(make)
    error = caught.value
    assert error.times == REFUSALS_LIMIT
    assert "the program" in str(error)
    assert f"test_spinning.py:{line_of(error)} in" in error.source
    assert str(error).startswith(f"the program {error.program!r} would go on for ever: 1,000 times in a row")


def line_of(error):
    return int(error.source.split("test_spinning.py:")[1].split()[0])


@pytest.mark.parametrize("make", [make for make in BAD_PROGRAMS if make is not runs_with_one_that_spins])
@pytest.mark.parametrize("drive", [by_hand, together])
def test_one_that_is_driven_by_hand_is_given_up_too(drive, make):
    with pytest.raises(Spinning):
        drive(make)


@pytest.mark.parametrize("make", BAD_PROGRAMS)
def test_a_test_that_gives_a_program_up_says_what_it_found_and_ends(make):
    with pytest.raises(AssertionError, match="request 0 is another than expected"):
        perform_sequence([(KvHas("other"), True)], make)
    with pytest.raises(AssertionError, match="Spinning"):
        told_in_a_test(make)


@pytest.mark.parametrize("make", BAD_PROGRAMS)
def test_a_replay_that_diverges_ends(make):
    _, trace = record(kv.has("other"), {KvHas: lambda request: True})
    with pytest.raises(Diverged, match="at request 0"):
        replay(make, trace)


@pytest.mark.parametrize("make", BAD_PROGRAMS)
def test_a_replay_in_which_a_program_yields_what_is_no_request_ends(make):
    _, trace = record(kv.has("first"), {KvHas: lambda request: True})
    with pytest.raises((Diverged, Spinning)):
        replay(make, trace)


@pytest.mark.parametrize("make", BAD_PROGRAMS)
def test_explorations_end_and_say_that_it_hangs_or_raises(make):
    for report in (
        explore([make, make], lambda: open_store("memory:"), requests_limit=30),
        explore_effects(make, lambda: open_store("memory:"), passes, requests_limit=30),
        explore_crashes(make, passes, depth=1, requests_limit=100),
    ):
        assert report.verdict in ("failed", *ENDLESS, "raises"), report
        assert report.failures[0].kind in (*ENDLESS, "raises"), report


def passes(*_):
    yield from log.last_seq("s")


@pytest.mark.parametrize("make", [make for make in BAD_PROGRAMS if make is not runs_with_one_that_spins])
def test_what_is_run_on_a_second_disk_or_with_a_limit_ends(make):
    with pytest.raises(Spinning):
        over_another_disk(make)
    with pytest.raises((Hangs, Spinning)):
        run(limited(make(), 20), {KvHas: lambda request: False})


def test_a_simulation_ends():
    with open_store("memory:") as store:
        assert simulate([asks_again], store, 0, requests_limit=30).ended == "hangs"
        (outcome,) = simulate([yields_no_request], store, 0, requests_limit=30).outcomes
    assert isinstance(outcome.error, Spinning)


def test_next_request_ends():
    program = yields_no_request()
    next(program)
    with pytest.raises(Spinning):
        next_request(program, program.send(False))


# What is not spinning


def test_a_program_may_pass_over_many_different_refusals():
    def probe():
        refused = 0
        for number in range(3 * REFUSALS_LIMIT):
            try:
                yield from perform(Ask(str(number)))
            except Exception:
                refused += 1
        return refused

    assert run(probe(), {}) == 3 * REFUSALS_LIMIT
    assert open_store("memory:").run_many([probe(), probe()]) == [3 * REFUSALS_LIMIT] * 2


def test_what_was_refused_before_a_request_that_was_answered_does_not_count():
    def tell_if_somebody_listens():
        for _ in range(3 * REFUSALS_LIMIT):
            try:
                yield from perform(Ask("ready"))
            except Exception:
                yield from kv.has("k")
        return "done"

    store = open_store("memory:")
    assert store.run(tell_if_somebody_listens()) == "done"
    assert store.run_many([tell_if_somebody_listens()]) == ["done"]
    assert anyio.run(store.arun, tell_if_somebody_listens()) == "done"


def test_a_store_that_is_away_for_long_may_be_asked_until_it_is_back():
    failures = iter([OSError("away")] * 3 * REFUSALS_LIMIT)

    def answer(request):
        for error in failures:
            raise error
        return "back"

    assert run(retried(), {Ask: answer}) == "back"


def retried():
    while True:
        try:
            return (yield from perform(Ask("one")))
        except OSError:
            continue


# Interrupts


class Interrupted:
    """A row that is interrupted each time it is asked."""

    def __init__(self, kind=KeyboardInterrupt):
        self.times = 0
        self.kind = kind

    def __call__(self, request):
        self.times += 1
        raise self.kind


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["run", "start", "run_many", "all_of", "record", "given"])
def test_an_interrupt_gets_through_to_whoever_waits_though_the_program_catches_it_each_time(name, kind):
    row = Interrupted(kind)
    with ExitStack() as stack:
        store = stack.enter_context(open_store("memory:", effects={Ask: row}))
        drive = {
            "run": lambda: store.run(catches_everything()),
            "start": lambda: store.start(catches_everything()),
            "run_many": lambda: store.run_many([catches_everything()]),
            "all_of": lambda: store.run(all_of(catches_everything())),
            "record": lambda: record(catches_everything, store),
            "given": lambda: given().when(catches_everything, store.handlers),
        }[name]
        with pytest.raises(kind):
            drive()
    assert row.times <= 2 * INTERRUPTS_LIMIT + 3


def test_an_interrupt_thrown_in_by_hand_gets_through_too():
    step = start(catches_everything(), {KvHas: lambda request: True})
    for _ in range(INTERRUPTS_LIMIT):
        step = step.throw(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        step.throw(KeyboardInterrupt())


def test_cancellations_get_through_to_the_task_though_the_program_catches_them_each_time():
    class Cancelled(BaseException):
        pass

    row = Interrupted(Cancelled)

    async def answer(request):
        return row(request)

    with open_store("memory:", effects={Ask: answer}) as store, pytest.raises(Cancelled):
        anyio.run(store.arun, catches_everything())
    assert row.times == INTERRUPTS_LIMIT + 1


def test_an_interrupt_while_a_program_is_given_up_is_not_swallowed():
    row = Interrupted()
    program = retries_in_a_finally()
    next(program)
    with pytest.raises(KeyboardInterrupt):
        unwind(program, ValueError("the first"), {Ask: row})
    assert row.times == 1


def test_an_interrupt_in_the_cleaning_up_of_one_gives_up_the_others_and_is_raised():
    told = []

    class Breaking:
        handlers = {KvHas: lambda request: True}  # noqa: RUF012 - a table for this test alone

        def answer_all(self, requests):
            raise RuntimeError("the driver itself failed")

        def close(self):
            pass

    def tidy(name):
        try:
            yield from kv.has("k")
        finally:
            yield from perform(Ask(name))

    def answer(request):
        told.append(request.question)
        if request.question == "one":
            raise KeyboardInterrupt

    store = Store(Breaking(), effects={Ask: answer})
    with pytest.raises(KeyboardInterrupt):
        store.run_many([tidy("one"), tidy("two")])
    assert told == ["one", "two"]


def test_a_table_that_cannot_be_asked_ends_the_run():
    class Odd(dict):
        def __missing__(self, kind):
            raise MemoryError("the driver itself failed")

    with pytest.raises(MemoryError):
        run(asks_again(), Odd({KvHas: lambda request: True}))
    with pytest.raises(MemoryError):
        start(asks_again(), Odd({KvHas: lambda request: True}))
