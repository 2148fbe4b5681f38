"""Time and fresh identifiers: what programs are answered, on whichever store, and what is refused."""

import itertools
import math
import uuid

import pytest

from interpreters import Store, open_store
from interpreters.runtime.interpreter import pass_on
from interpreters.stores.memory import MemoryStore
from persist_effects import InvalidRequest, StoreClosed, all_of, log, new_id, now, perform, run, sleep, trace
from persist_effects.requests import Answered, NewId, Now, Sleep

NOON = 1_700_000_000_000_000


def test_now_is_told_by_the_clock_that_stamps_events():
    ticks = itertools.count(NOON)
    with open_store("memory:", clock=lambda: next(ticks)) as store:
        before, event, after = store.run(all_of(now(), log.append("a", "made", None), now()))
    assert (before, event.at, after) == (NOON, NOON + 1, NOON + 2)


def test_an_identifier_is_a_uuid_of_version_7_with_the_time_of_the_store():
    with open_store("memory:", clock=lambda: NOON) as store:
        found = uuid.UUID(store.run(new_id()))
    assert (found.version, found.variant, found.int >> 80) == (7, uuid.RFC_4122, NOON // 1_000)


def test_identifiers_of_one_moment_differ():
    with open_store("memory:", clock=lambda: NOON) as store:
        assert len({store.run(new_id()) for _ in range(1_000)}) == 1_000


def test_identifiers_of_later_milliseconds_sort_behind():
    ticks = itertools.count(NOON, 1_000)
    with open_store("memory:", clock=lambda: next(ticks)) as store:
        found = [store.run(new_id()) for _ in range(100)]
    assert found == sorted(found)


def test_with_the_same_clock_and_random_source_the_same_identifiers_come():
    def first():
        with open_store("memory:", clock=lambda: NOON, random_bytes=bytes) as store:
            return store.run(new_id())

    assert first() == first() == "018bcfe5-6800-7000-8000-000000000000"


@pytest.mark.parametrize("moment", [-1, (2**48) * 1_000])
def test_a_time_that_no_identifier_holds_is_refused_with_both_numbers(moment):
    with open_store("memory:", clock=lambda: moment) as store, pytest.raises(InvalidRequest) as met:
        store.run(new_id())
    assert str(moment) in str(met.value)
    assert "give the store another clock" in str(met.value)


@pytest.mark.parametrize("seconds", [-1, math.nan, "1", None, True])
def test_a_sleep_of_what_is_not_a_number_of_seconds_is_refused_where_it_is_built(seconds):
    with pytest.raises(InvalidRequest, match="seconds is"):
        Sleep(seconds)


@pytest.mark.parametrize(("option", "given"), [("clock", 7), ("random_bytes", 7)])
@pytest.mark.parametrize("url", ["memory:", "sqlite:{}/a.db", "file:{}/a"])
def test_what_is_not_a_function_is_refused_before_anything_is_made(tmp_path, url, option, given):
    with pytest.raises(InvalidRequest, match=option):
        open_store(url.format(tmp_path), **{option: given})
    assert not list(tmp_path.iterdir())


def test_a_random_source_that_gives_too_few_bytes_is_refused():
    with open_store("memory:", random_bytes=lambda count: b"a") as store, pytest.raises(InvalidRequest) as met:
        store.run(new_id())
    assert "random_bytes(10)" in str(met.value)


def test_the_table_of_a_store_answers_without_it():
    with open_store("memory:", clock=lambda: NOON) as store:
        assert run(all_of(now(), sleep(0)), store.handlers) == (NOON, None)


def test_a_wrapper_tells_the_time_of_what_is_inside_it():
    class Wrapper:
        def __init__(self, inner):
            self.handlers, self.close = inner.handlers, inner.close
            pass_on(self, inner)

    with Store(Wrapper(MemoryStore(clock=lambda: NOON, random_bytes=bytes))) as store:
        assert store.run(all_of(now(), new_id())) == (NOON, "018bcfe5-6800-7000-8000-000000000000")


def test_a_closed_store_tells_no_time():
    store = open_store("memory:")
    rows = store.handlers
    store.close()
    for program in (now(), new_id(), sleep(0), sleep(60)):
        with pytest.raises(StoreClosed):
            run(program, rows)


class Bare:
    """An interpreter of somebody else's, which knows nothing of time."""

    def __init__(self):
        inner = MemoryStore()
        self.handlers, self.close = inner.handlers, inner.close


def test_an_interpreter_without_a_clock_gets_the_machines():
    with Store(Bare()) as store:
        before, made, after = store.run(now()), store.run(log.append("a", "made", 1)).at, store.run(now())
        assert before <= made <= after
        assert uuid.UUID(store.run(new_id())).version == 7


def test_a_row_of_the_interpreter_counts_before_the_default_and_one_of_the_user_before_both():
    interpreter = Bare()
    interpreter.handlers = {**interpreter.handlers, Now: lambda request: 1}
    assert Store(interpreter).run(now()) == 1
    assert Store(interpreter, effects={Now: lambda request: 2}).run(now()) == 2


def test_the_users_rows_for_time_take_the_place_of_the_stores():
    slept = []
    rows = {Now: lambda request: 7, NewId: lambda request: "id", Sleep: lambda request: slept.append(request.seconds)}
    with open_store("memory:", effects=rows) as store:
        assert store.run(all_of(now(), new_id(), sleep(60))) == (7, "id", None)
        assert store.run_many([sleep(70), now()]) == [None, 7]
    assert slept == [60, 70]


def test_a_replay_sees_the_time_and_the_identifiers_of_the_run_that_was_recorded():
    def name_it():
        made = yield from now()
        name = yield from new_id()
        yield from sleep(0.001)
        yield from all_of(sleep(0), now())
        return made, name

    with open_store("memory:") as store:
        outcome, recorded = trace.record(name_it, store)
    kept = trace.Trace.decode(recorded.encode())
    assert Answered(trace.replay(name_it, kept)) == outcome


def test_requests_for_time_are_records_that_read_back():
    from persist_effects import codec

    for request in (Now(), NewId(), Sleep(2.5)):
        assert codec.decode_request(codec.encode_request(request)) == request


def test_a_sleep_is_performed_as_any_request():
    with open_store("memory:") as store:
        assert store.run(perform(Sleep(0))) is None
