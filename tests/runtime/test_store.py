"""Opening a store, and running programs on it from threads and from tasks of asyncio and trio."""

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import Future

import anyio
import anyio.to_thread
import pytest

from interpreters import Store, open_store
from interpreters.runtime import tasks
from interpreters.stores.memory import MemoryStore
from interpreters.stores.waiting import Watchers
from interpreters.threads import gates
from persist_effects import (
    AlreadyUsed,
    Conflict,
    InvalidRequest,
    NotAProgram,
    Request,
    StoreClosed,
    StoreUnavailable,
    UnhandledEffect,
    all_of,
    kv,
    log,
    perform,
)
from persist_effects.machine import outcome_of
from persist_effects.requests import KvPut, Wait

LONG_SECONDS = 60.0
"""A timeout that no test reaches: what is waited for happens, or the test fails."""

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Ask(Request[str], frozen=True, tag="test/ask"):
    question: str


def greet():
    name = yield from perform(Ask("name?"))
    yield from kv.put("name", name)
    return f"hello {name}"


def wait_for_event(after, prefix="", timeout=LONG_SECONDS):
    return (yield from perform(Wait(after, prefix, timeout)))


@pytest.mark.parametrize("url", ["memory", "", "oracle://x", "MEMORY:", "/store"])
def test_a_url_that_names_no_store_is_refused(url):
    with pytest.raises(InvalidRequest, match="names no store: a store's URL starts with one of memory:"):
        open_store(url)


def test_a_memory_store_has_no_path_and_no_unknown_options():
    with pytest.raises(InvalidRequest, match="'memory:x' names no store: write 'memory:'"):
        open_store("memory:x")
    with pytest.raises(InvalidRequest, match="a memory store has no option 'sync': it takes clock, random_bytes"):
        open_store("memory:", sync="os")


def test_a_closed_store_runs_nothing():
    with open_store("memory:") as store:
        pass
    store.close()
    for use in (store.run, store.start, lambda program: store.run_many([program])):
        with pytest.raises(StoreClosed, match="this store was closed: open it again to run programs"):
            use(kv.get("a"))
    with pytest.raises(StoreClosed):
        anyio.run(store.arun, kv.get("a"))


def test_whoever_asked_for_it_is_told_once_that_the_store_closes_and_at_once_where_it_has():
    store, told = open_store("memory:"), []
    store.on_close(lambda: told.append("first"))
    store.on_close(lambda: told.append("taken back"))()
    store.close()
    store.close()
    store.on_close(lambda: told.append("late"))
    assert told == ["first", "late"]


def test_closing_a_store_closes_its_interpreter_and_its_blobs_once():
    class Closing(MemoryStore):
        closed = 0

        def close(self):
            self.closed += 1

    interpreter, blobs = Closing(), Closing()
    with Store(interpreter, blobs=blobs) as store:
        store.close()
    assert (interpreter.closed, blobs.closed) == (1, 1)


def test_the_clock_is_the_interpreters(store):
    with open_store("memory:", clock=lambda: 1_700_000_000_000_000) as at_that_time:
        assert at_that_time.run(log.append("s", "made", 1)).at == 1_700_000_000_000_000
        assert at_that_time.run(log.append("s", "made", 1, at=5)).at == 5


def test_the_users_effects_stand_beside_the_stores():
    with open_store("memory:", effects={Ask: lambda request: "Ada"}) as store:
        assert store.run(greet()) == "hello Ada"
        assert store.run(kv.get("name")) == "Ada"


def test_a_users_row_takes_the_place_of_the_stores():
    with open_store("memory:", effects={KvPut: lambda request: 99}) as store:
        assert store.run(kv.put("a", 1)) == 99


def test_an_effect_without_a_row_is_refused_by_name(store):
    with pytest.raises(UnhandledEffect, match="no handler answers 'test/ask'"):
        store.run(greet())


def test_start_answers_what_the_store_can_and_leaves_the_rest_to_the_host(store):
    step = store.start(greet())
    assert step.request == Ask("name?")
    assert step.resume("Ada").value == "hello Ada"
    assert store.run(kv.get("name")) == "Ada"


# Many programs in one thread


def test_run_many_gives_the_values_in_order(store):
    assert store.run_many([]) == []
    assert store.run_many(log.append("s", "made", n) for n in range(3)) == store.run(log.read("s"))


def test_run_many_goes_in_rounds_so_that_programs_race(store):
    def place(name):
        last = yield from log.last_seq("orders")
        return (yield from log.append_expect("orders", last, "placed", name))

    first, second = store.run_many([place("a"), place("b")])
    assert first.seq == 1
    assert second == Conflict("stream", "orders", 0, 1)


def test_run_many_checks_all_programs_before_it_starts_any(store):
    good = kv.put("a", 1)
    with pytest.raises(NotAProgram):
        store.run_many([good, kv.put])
    with pytest.raises(AlreadyUsed):
        store.run_many([good, good])
    assert store.run(good) == 1


def test_run_many_lets_the_others_end_when_one_raises(store):
    with pytest.raises(ExceptionGroup, match="1 of 3 programs failed") as caught:
        store.run_many([kv.put("a", 1), kv.put("", 2), kv.put("c", 3)])
    assert isinstance(caught.value.exceptions[0], InvalidRequest)
    assert store.run(kv.keys()) == ["a", "c"]


def test_run_many_can_return_the_errors_among_the_values(store):
    values = store.run_many([kv.has("a"), kv.put("", 2)], return_exceptions=True)
    assert values[0] is False
    assert isinstance(values[1], InvalidRequest)


def test_run_many_lets_a_program_wait_for_what_another_one_appends(store):
    assert store.run_many([wait_for_event(0, "b/"), log.append("a/1", "made", 1), log.append("b/1", "made", 1)])[0] == 2


def test_run_many_ends_when_all_of_its_programs_wait_in_vain(store):
    assert store.run_many([wait_for_event(0, timeout=0.0), wait_for_event(0, timeout=0.001)]) == [0, 0]


def test_run_many_is_woken_by_another_thread(store):
    def waited_for(request):
        appender.start()
        return "asked"

    def wait_once_started():
        yield from perform(Ask("started?"))
        return (yield from wait_for_event(0))

    appender = threading.Thread(target=lambda: store.run(log.append("s", "made", 1)))
    with Store(store.interpreter, effects={Ask: waited_for}) as waiting:
        assert waiting.run_many([wait_once_started()]) == [1]
    appender.join()


def test_an_interrupted_run_many_closes_its_programs(store):
    closed = []

    def tidy():
        try:
            yield from perform(Ask("x"))
        finally:
            closed.append(True)

    def interrupted(request):
        raise KeyboardInterrupt

    with Store(store.interpreter, effects={Ask: interrupted}) as interruptible, pytest.raises(KeyboardInterrupt):
        interruptible.run_many([tidy(), tidy()])
    assert closed == [True, True]


# Threads


def test_threads_share_a_store_and_lose_nothing(store):
    def write(number):
        for n in range(100):
            store.run(log.append("shared", "made", [number, n]))
            store.run(kv.update("count", lambda count: count + 1, 0))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = store.run(log.read("shared"))
    assert [event.seq for event in events] == list(range(1, 801))
    assert store.run(kv.get("count")) == 800
    for number in range(8):
        assert [event.data[1] for event in events if event.data[0] == number] == list(range(100))


def test_a_waiting_thread_is_woken_by_an_append(store):
    answers = []
    waiter = threading.Thread(target=lambda: answers.append(store.run(wait_for_event(0, "orders/"))))
    waiter.start()
    store.run(log.append("other", "made", 1))
    store.run(log.append("orders/1", "placed", 1))
    waiter.join()
    assert answers == [2]


def test_a_wait_at_its_timeout_answers_with_the_newest_position(store):
    store.run(log.append("s", "made", 1))
    assert store.run(wait_for_event(1, timeout=0.001)) == 1
    assert store.run(wait_for_event(0, "none/", timeout=0.001)) == 0


# Tasks


@backends
def test_many_tasks_share_a_store(store, backend):
    results = []

    async def one(n):
        results.append(await store.arun(kv.update("count", lambda count: count + 1, 0)))

    async def main():
        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(one, n)

    anyio.run(main, backend=backend)
    assert sorted(results) == list(range(1, 51))


@backends
def test_async_and_plain_rows_both_answer(backend):
    class Tell(Request[int], frozen=True, tag="test/tell"):
        text: str

    async def answer_ask(request):
        await anyio.lowlevel.checkpoint()
        return "Ada"

    def both():
        name = yield from perform(Ask("name?"))
        return name, (yield from perform(Tell(name)))

    threads = []

    def answer_tell(request):
        threads.append(threading.current_thread())
        return len(request.text)

    with open_store("memory:", effects={Ask: answer_ask, Tell: answer_tell}) as store:
        assert anyio.run(store.arun, both(), backend=backend) == ("Ada", 3)
        with pytest.raises(InvalidRequest, match=r"'test/ask' is an async function: .*await store.arun"):
            store.run(both())
    assert threads[0] is not threading.current_thread(), "a plain row may block, so it has no place in the loop"


@backends
def test_a_task_that_waits_is_woken_by_another_task_and_by_a_thread(store, backend):
    answers = []

    async def waiter(after):
        answers.append(await store.arun(wait_for_event(after)))

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiter, 0)
            await anyio.wait_all_tasks_blocked()
            await store.arun(log.append("s", "made", 1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiter, 1)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(lambda: store.run(log.append("s", "made", 2)))

    anyio.run(main, backend=backend)
    assert answers == [1, 2]


@backends
def test_a_thousand_tasks_wait_without_a_thread_each(store, backend):
    answers = []

    async def waiter():
        answers.append(await store.arun(wait_for_event(0)))

    async def main():
        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(waiter)
            await anyio.wait_all_tasks_blocked()
            threads.append(threading.active_count())
            await store.arun(log.append("s", "made", 1))

    threads = []
    before = threading.active_count()
    anyio.run(main, backend=backend)
    assert answers == [1] * 1000
    assert threads[0] <= before + 2


@backends
def test_a_task_at_its_timeout_goes_on(store, backend):
    assert anyio.run(store.arun, wait_for_event(0, timeout=0.001), backend=backend) == 0


@backends
def test_all_of_works_in_a_task(store, backend):
    async def answer(request):
        return request.question

    with Store(store.interpreter, effects={Ask: answer}) as asking:
        values = anyio.run(asking.arun, all_of(kv.put("a", 1), Ask("x"), kv.has("b")), backend=backend)
    assert values == (1, "x", False)


@backends
def test_a_cancelled_task_cleans_up_through_its_program(store, backend):
    def holding():
        yield from kv.put("lock", "held")
        try:
            yield from wait_for_event(0)
        finally:
            yield from kv.delete("lock")

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.arun, holding())
            await anyio.wait_all_tasks_blocked()
            held.append(store.run(kv.has("lock")))
            tasks.cancel_scope.cancel()

    held = []
    anyio.run(main, backend=backend)
    assert held == [True]
    assert store.run(kv.has("lock")) is False


@backends
def test_an_unhandled_effect_and_a_handlers_error_are_raised_in_the_task(store, backend):
    with pytest.raises(UnhandledEffect):
        anyio.run(store.arun, greet(), backend=backend)

    async def refuse(request):
        raise LookupError("nobody")

    def careful():
        try:
            yield from perform(Ask("?"))
        except LookupError as error:
            return str(error)

    with Store(store.interpreter, effects={Ask: refuse}) as asking:
        assert anyio.run(asking.arun, careful(), backend=backend) == "nobody"


# What is given up, and what may not be awaited


def holding(key, then):
    """Holds a lock while another program runs, which may be nested deeply."""

    def held():
        try:
            return (yield from then)
        finally:
            yield from kv.delete(key)

    yield from kv.put(key, "held")
    return (yield from held())


def test_an_interrupted_run_many_lets_each_program_clean_up_by_requests(store):
    def interrupted(request):
        raise KeyboardInterrupt

    def clumsy():
        try:
            yield from wait_for_event(0)
        finally:
            raise LookupError("no key")

    with Store(MemoryStore(), effects={Ask: interrupted}) as interruptible:
        with pytest.raises(KeyboardInterrupt) as caught:
            interruptible.run_many(
                [holding("a", perform(Ask("x"))), holding("b", wait_for_event(0)), clumsy(), kv.put("done", True)]
            )
        assert interruptible.run(kv.keys()) == ["done"]
    assert caught.value.__notes__ == ["a program that was given up for this raised in turn: LookupError: no key"]


def test_a_program_beside_one_that_failed_cleans_up_in_the_store(store):
    with pytest.raises(UnhandledEffect):
        store.run(all_of(holding("a", all_of(wait_for_event(0, timeout=0.0), log.last_seq("s"))), greet()))
    assert store.run(kv.keys()) == []


@backends
def test_a_program_beside_one_that_failed_cleans_up_in_a_task(store, backend):
    def failing():
        yield from kv.has("a")
        raise LookupError("lost")

    def endless():
        while True:
            yield from kv.has("a")

    with pytest.raises(LookupError, match="lost"):
        anyio.run(store.arun, all_of(holding("a", endless()), failing()), backend=backend)
    assert store.run(kv.keys()) == []


def run_until_cancelled(backend, make_program):
    """Run a program whose first request, `Ask`, cancels its task; and return the store, which is open."""
    scopes = []

    async def cancel(request):
        scopes[0].cancel()

    store = open_store("memory:", effects={Ask: cancel})

    async def main():
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await store.arun(make_program())
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    return store


@backends
@pytest.mark.parametrize("request_of_a_round", [lambda: kv.has("a"), lambda: all_of(kv.has("a"), kv.has("b"))])
def test_a_program_that_never_waits_gives_way_to_a_cancellation(backend, request_of_a_round):
    def endless():
        yield from perform(Ask("cancel me"))
        while True:
            yield from request_of_a_round()

    with run_until_cancelled(backend, lambda: holding("lock", endless())) as store:
        assert store.run(kv.keys()) == []


@backends
def test_a_program_that_never_waits_gives_way_to_other_tasks(store, backend):
    def until_another_task_says_so():
        while not (yield from kv.has("enough")):
            pass

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.arun, until_another_task_says_so())
            tasks.start_soon(store.arun, kv.put("enough", True))

    anyio.run(main, backend=backend)


@backends
def test_cleaning_up_after_a_cancellation_may_take_more_than_one_turn(backend):
    def busy():
        try:
            yield from perform(Ask("cancel me"))
            yield from wait_for_event(0)
        finally:
            for number in range(200):
                yield from kv.put("cleaned", number)

    with run_until_cancelled(backend, busy) as store:
        assert store.run(kv.get("cleaned")) == 199


class Held(MemoryStore):
    """A store on the way to which requests are held up, together, until they are let through."""

    blocking = True

    def __init__(self):
        super().__init__()
        self.begun = threading.Event()
        self.let_through = threading.Event()

    def answer_all(self, requests):
        self.begun.set()
        assert self.let_through.wait(LONG_SECONDS)
        return [outcome_of(request, self.handlers) for request in requests]


def test_a_task_cancelled_while_its_write_is_on_its_way_leaves_the_others_theirs():
    async def main(store, held):
        tasks = [asyncio.create_task(store.arun(kv.put(f"key/{number}", number))) for number in range(5)]
        await asyncio.to_thread(held.begun.wait, LONG_SECONDS)
        for _ in range(2):
            # The first is the one that asked first; and whoever is impatient cancels twice.
            tasks[0].cancel()
            tasks[3].cancel()
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks), "a write that has begun is not abandoned"
        held.let_through.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    held = Held()
    with Store(held) as store:
        outcomes = asyncio.run(main(store, held))
        assert [type(outcome).__name__ for outcome in outcomes] == [
            "CancelledError",
            *["int"] * 2,
            "CancelledError",
            "int",
        ]
        assert store.run(kv.keys()) == [f"key/{number}" for number in range(5)]


def test_a_program_whose_task_was_cancelled_has_its_answer_and_is_cancelled_at_its_next_request():
    def program():
        try:
            answers.append((yield from all_of(kv.put("lock", "held"), kv.has("lock"))))
            yield from kv.put("never", "written")
        finally:
            answers.append((yield from kv.delete("lock")))

    async def main(store, held):
        task = asyncio.create_task(store.arun(program()))
        await asyncio.to_thread(held.begun.wait, LONG_SECONDS)
        task.cancel()
        held.let_through.set()
        await task

    answers = []
    held = Held()
    with Store(held) as store:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main(store, held))
        assert answers == [(1, True), True]
        assert store.run(kv.keys()) == []


@backends
def test_a_program_that_a_cancelled_scope_finds_finished_returns_its_value(backend):
    async def main(store, held):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_when_begun, tasks.cancel_scope, held)
            values.append(await store.arun(kv.put("color", "red")))

    async def cancel_when_begun(scope, held):
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(held.begun.wait, LONG_SECONDS)
        scope.cancel()
        held.let_through.set()

    values = []
    held = Held()
    with Store(held) as store:
        anyio.run(main, store, held, backend=backend)
    assert values == [1]


def test_a_scope_that_ends_while_a_write_is_on_its_way_hides_no_cancellation_of_the_task():
    async def main(store, held):
        async def work():
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await store.arun(kv.put("color", "red"))
            await anyio.sleep_forever()

        task = asyncio.create_task(work())
        await asyncio.to_thread(held.begun.wait, LONG_SECONDS)
        scopes[0].cancel()
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        held.let_through.set()
        await task

    scopes = []
    held = Held()
    with Store(held) as store, pytest.raises(asyncio.CancelledError):
        asyncio.run(main(store, held))


def test_a_cancellation_that_comes_with_the_first_part_of_all_of_does_not_wait_for_the_others():
    async def never(request):
        await anyio.sleep_forever()

    async def main(store, held):
        task = asyncio.create_task(store.arun(all_of(kv.put("color", "red"), Ask("for ever"))))
        await asyncio.to_thread(held.begun.wait, LONG_SECONDS)
        task.cancel()
        held.let_through.set()
        await task

    held = Held()
    with Store(held, effects={Ask: never}) as store:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main(store, held))
        assert store.run(kv.get("color")) == "red"


def test_a_row_that_meets_the_cancellation_of_another_task_leaves_its_program_to_be_cancelled():
    async def of_another(request):
        if request.question == "cancel me":
            scopes[-1].cancel()
            return
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    def careful():
        try:
            yield from perform(Ask("?"))
        except asyncio.CancelledError:
            yield from kv.put("seen", True)
        yield from perform(Ask("cancel me"))
        while True:
            yield from kv.has("seen")

    async def main(store):
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await store.arun(careful())
        return scope.cancelled_caught

    scopes = []
    for interpreter in (MemoryStore(), let_through()):
        with Store(interpreter, effects={Ask: of_another}) as store:
            assert asyncio.run(main(store))
            assert store.run(kv.get("seen"))


def let_through():
    held = Held()
    held.let_through.set()
    return held


@backends
def test_a_wait_in_a_finally_block_is_carried_out(backend):
    def patient():
        try:
            yield from perform(Ask("cancel me"))
            yield from wait_for_event(0)
        finally:
            heads.append((yield from wait_for_event(0, timeout=0.01)))

    heads = []
    run_until_cancelled(backend, patient).close()
    assert heads == [0]


def test_a_task_that_is_thrown_away_closes_its_program_and_asks_for_nothing():
    def program():
        try:
            yield from perform(Ask("?"))
        except GeneratorExit:
            ends.append("closed")
            raise

    async def main(store):
        coroutine = store.arun(program())
        assert coroutine.send(None) is not None
        kept.append(coroutine)

    async def never(request):
        await asyncio.get_running_loop().create_future()

    kept, ends = [], []
    with Store(let_through(), effects={Ask: never}) as store:
        asyncio.run(main(store))
        kept.pop().close()
    assert ends == ["closed"]


@backends
def test_where_no_thread_can_be_started_the_request_fails_and_the_next_one_is_carried_out(backend, monkeypatch):
    def refuse(thread):
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    async def main(store):
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StoreUnavailable, match="no thread could be started to ask the store: can't start new"):
            await store.arun(kv.put("color", "red"))
        return await store.arun(kv.put("color", "green"))

    with Store(let_through()) as store:
        assert anyio.run(main, store, backend=backend) == 1


def interrupt_once(monkeypatch, owner, name, *, is_after):
    """Have a function raise KeyboardInterrupt the first time that it is called, before or after its work."""
    original = getattr(owner, name)

    def interrupted(*arguments):
        monkeypatch.undo()
        if is_after:
            original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(threading.Thread, "start"), (tasks._Loop, "_send"), (tasks._Loop, "_arrived"), (tasks._Worker, "do")],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_an_interrupt_that_ends_the_event_loop_leaves_no_task_waiting(owner, name, is_after, monkeypatch):
    async def main(store):
        interrupt_once(monkeypatch, owner, name, is_after=is_after)
        await asyncio.gather(*(store.arun(kv.update("count", lambda count: count + 1, 0)) for _ in range(5)))

    def run_loop():
        try:
            ended.set_result(asyncio.run(main(store)))
        except BaseException as error:
            ended.set_exception(error)

    ended = Future()
    with Store(let_through()) as store:
        # In another thread, where asyncio does not make a cancellation of Ctrl-C.
        threading.Thread(target=run_loop, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            ended.result(LONG_SECONDS)
        assert store.run(kv.put("color", "red")) > 0


OUTLIVES = """
import sys, threading, anyio
from interpreters import Store
from persist_effects import kv
from test_store import let_through

ready = threading.Event()

async def main(store):
    # From Python 3.12 on no thread begins once the main thread has ended, so the store's has begun before.
    await store.arun(kv.put("color", "green"))
    ready.set()
    while threading.main_thread().is_alive():
        await anyio.lowlevel.checkpoint()
    print(await store.arun(kv.put("color", "red")), flush=True)

threading.Thread(target=lambda: anyio.run(main, Store(let_through()), backend=sys.argv[1])).start()
ready.wait()
"""


@backends
def test_a_loop_in_a_thread_that_outlives_the_main_thread_goes_on(backend):
    done = subprocess.run(
        [sys.executable, "-c", OUTLIVES, backend],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        timeout=LONG_SECONDS,
    )
    assert done.stdout == "2\n"


@backends
def test_many_waits_on_a_store_that_must_be_asked_again_and_again_keep_nobody_from_a_thread(backend):
    """As a reader of another process's store: there each wait takes a thread."""

    class WithoutWatch:
        def __init__(self, inner):
            self.handlers, self.close, self.answer_all = inner.handlers, inner.close, inner.answer_all

    async def main(store):
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(store.arun, wait_for_event(0))
            await anyio.wait_all_tasks_blocked()
            values.append(await store.arun(perform(Ask("?"))))
            await store.arun(log.append("s", "made", None))

    values = []
    with Store(WithoutWatch(let_through()), effects={Ask: lambda request: "answered"}) as store:
        anyio.run(main, store, backend=backend)
    assert values == ["answered"]


async def answer_later(request):
    await anyio.lowlevel.checkpoint()
    return request.question


class CallableLater:
    async def __call__(self, request):
        return await answer_later(request)


@pytest.mark.parametrize("row", [lambda request: answer_later(request), CallableLater(), answer_later])
def test_a_row_whose_answer_must_be_awaited_serves_tasks_and_is_refused_elsewhere(row):
    with open_store("memory:", effects={Ask: row}) as store:
        for backend in ("asyncio", "trio"):
            assert anyio.run(store.arun, greet(), backend=backend) == "hello name?"
            together = all_of(Ask("x"), all_of(Ask("y"), kv.has("name")))
            assert anyio.run(store.arun, together, backend=backend) == ("x", ("y", True))
        for use in (store.run, store.start, lambda program: store.run_many([program, greet()])):
            with pytest.raises((InvalidRequest, ExceptionGroup)) as caught:
                use(greet())
            errors = caught.value.exceptions if isinstance(caught.value, ExceptionGroup) else [caught.value]
            for error in errors:
                assert "the handler of 'test/ask' is an async function: run this program with `await" in str(error)


# Closing


def test_programs_that_wait_when_their_store_is_closed_are_told_so(store):
    heard = []

    def wait_and_hear():
        try:
            yield from wait_for_event(0)
        except StoreClosed as error:
            heard.append(str(error))
            raise

    is_asking = threading.Event()

    def ready(request):
        is_asking.set()
        return "ready"

    def ready_then_wait():
        yield from perform(Ask("ready?"))
        yield from wait_and_hear()

    def wait_in_a_thread():
        with pytest.raises(ExceptionGroup, match="2 of 2 programs failed"):
            waiting.run_many([ready_then_wait(), wait_and_hear()])

    waiting = Store(store.interpreter, effects={Ask: ready})
    waiter = threading.Thread(target=wait_in_a_thread)
    waiter.start()
    is_asking.wait()
    store.close()
    waiter.join()
    assert heard == ["this memory store was closed, and what it held is gone: open a new one"] * 2


@backends
def test_a_task_that_waits_when_its_store_is_closed_is_told_so(store, backend):
    async def wait():
        with pytest.raises(StoreClosed):
            await store.arun(wait_for_event(0))

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            store.close()

    anyio.run(main, backend=backend)


# At the door


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: open_store(5), "a store's URL is an int, 5: give a str"),
        (lambda: open_store(None), "a store's URL is None: give a str"),
        (lambda: Store("memory:"), "a store's interpreter is a str, 'memory:': give an object with `handlers`"),
        (lambda: Store(MemoryStore), "a store's interpreter is a type"),
        (lambda: Store(MemoryStore(), blobs={}), r"a store's blob store is a dict, \{\}: give an object with"),
        (lambda: open_store("memory:", payload_limit_bytes="1"), "payload_limit_bytes is a str, '1': give an integer"),
        (lambda: open_store("memory:", payload_limit_bytes=0), "payload_limit_bytes is 0: give an integer from 1"),
        (lambda: open_store("memory:", clock=5), "clock is an int, 5: give a function"),
        (lambda: open_store("memory:", effects=[Ask]), "effects is a list, .*: give a dict"),
        (lambda: open_store("memory:", effects={"ask": len}), "a key of effects is a str, 'ask': give a subclass of"),
        (lambda: open_store("memory:", effects={int: len}), "a key of effects is a type, <class 'int'>: give a sub"),
        (lambda: open_store("memory:", effects={Ask: "Ada"}), "the row for Ask is a str, 'Ada': give a function"),
    ],
)
def test_what_a_store_cannot_be_made_of_is_refused_at_the_door(make, message):
    with pytest.raises(InvalidRequest, match=message):
        make()


# What was to be told and was lost


@pytest.fixture
def lossy(request, tmp_path, monkeypatch):
    """A store in which what is told to whoever waits is lost, as if an interrupt came before it."""
    monkeypatch.setattr(gates, "LOOK_AGAIN_SECONDS", 0.001)
    with open_store("memory:" if request.param == "memory" else f"file:{tmp_path / 'store'}") as opened:
        monkeypatch.setattr(Watchers, "take", lambda watchers, kind, newest: [])
        yield opened


@pytest.mark.parametrize("lossy", ["memory", "file"], indirect=True)
def test_a_thread_that_was_not_told_of_an_event_finds_it_all_the_same(lossy):
    newest: Future[int] = Future()
    watches = threading.Event()
    watch = lossy.interpreter.watch

    def watch_and_say_so(*arguments):
        try:
            return watch(*arguments)
        finally:
            watches.set()

    lossy.interpreter.watch = watch_and_say_so
    thread = threading.Thread(target=lambda: newest.set_result(lossy.run(wait_for_event(0, "a"))))
    thread.start()
    watches.wait(LONG_SECONDS)
    lossy.run(log.append("a", "made", 1))
    assert newest.result(LONG_SECONDS) == 1
    thread.join(LONG_SECONDS)


@pytest.mark.parametrize("lossy", ["memory", "file"], indirect=True)
@backends
def test_a_task_that_was_not_told_of_an_event_finds_it_all_the_same(lossy, backend):
    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting)
            while not lossy.interpreter._watchers:
                await anyio.lowlevel.checkpoint()
            await lossy.arun(log.append("a", "made", 1))

    async def waiting():
        newest.append(await lossy.arun(wait_for_event(0, "a")))

    newest = []
    anyio.run(main, backend=backend)
    assert newest == [1]


def test_event_loops_of_many_threads_share_a_store_and_lose_nothing(tmp_path):
    threads, each = 8, 25
    with open_store(f"file:{tmp_path / 'store'}?sync=os") as store:
        together = threading.Barrier(threads)
        found: list[object] = []

        async def main(number):
            return await asyncio.gather(*[store.arun(log.append(f"s/{number}", "made", i)) for i in range(each)])

        def work(number):
            # All of them make the first loop of their thread, and two more after it.
            together.wait(LONG_SECONDS)
            found.extend([event.seq for event in asyncio.run(main(number))] for _ in range(3))

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(LONG_SECONDS)
        assert len(found) == 3 * threads
        assert all(sorted(seqs) == list(range(min(seqs), min(seqs) + each)) for seqs in found)
        assert [store.run(log.last_seq(f"s/{number}")) for number in range(threads)] == [3 * each] * threads
        assert len(store._task_runners) == 1
