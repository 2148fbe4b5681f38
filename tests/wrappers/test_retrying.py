"""A store that is unavailable for a while, asked again."""

import os
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from faltering import Batching, Faltering, Lost, Submitting
from served_stores import serving

from interpreters import Store, open_store
from interpreters.stores.memory import MemoryStore
from interpreters.threads.gates import Gate
from interpreters.wrappers import Retrying, wrapped
from persist_effects import (
    Append,
    Conflict,
    Draft,
    InvalidRequest,
    Retry,
    StoreClosed,
    StoreLocked,
    StoreUnavailable,
    UncertainOutcome,
    all_of,
    kv,
    log,
)
from persist_effects.requests import LastSeq, Wait

SOON = Retry(times=5, wait_seconds=0.0)
NEVER_AGAIN = Retry(times=5, wait_seconds=3600.0, longest_seconds=3600.0)
BACKENDS = ["asyncio", "trio"]
KINDS = [Faltering, Batching, Submitting]


def retrying(inner: MemoryStore, retry: Retry = SOON, **options: Any) -> Store:
    return Store(Retrying(inner, retry, **options))


class Ticking:
    """A clock that goes on by a second each time that it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_asks_again_until_the_store_is_back(kind):
    inner = kind(times=3)
    with retrying(inner) as store:
        assert store.run(log.append("orders/1", "placed", 1)).seq == 1
    assert inner.refused == {"orders/1": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_programs_that_run_together_ask_again_what_was_refused_and_nothing_else(kind):
    inner = kind(times=2)
    inner.refused["steady"] = 2
    with retrying(inner) as store:
        assert [
            event.seq for event in store.run_many(log.append(name, "placed", 1) for name in ("a", "steady", "b"))
        ] == [
            1,
            1,
            1,
        ]
    assert [request.stream for request in inner.asked].count("steady") == 1
    assert inner.refused == {"a": 2, "b": 2, "steady": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_one_request_are_asked_again_alone(kind):
    inner = kind(times=1)
    with retrying(inner) as store:
        first, second = store.run(all_of(log.append("a", "placed", 1), log.append("b", "placed", 2)))
        assert (first.seq, second.seq) == (1, 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_tasks_ask_again_until_the_store_is_back(kind, backend):
    inner = kind(times=2)

    async def work(store: Store) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(store.arun, log.append(f"orders/{number}", "placed", number))

    with retrying(inner) as store:
        anyio.run(work, store, backend=backend)
        assert len(store.run(log.streams())) == 20
    assert set(inner.refused.values()) == {2}


def test_what_is_refused_when_it_is_submitted_is_submitted_again():
    inner = Lost(times=0)
    with retrying(inner) as store:
        assert [event.seq for event in store.run_many(log.append(name, "placed", 1) for name in ("a", "b"))] == [1, 1]


def test_what_is_due_together_is_submitted_together():
    inner = Submitting(times=1)
    with retrying(inner, Retry(times=1, wait_seconds=0.2)) as store:
        store.run_many(log.append(f"orders/{number}", "placed", number) for number in range(1000))
    assert inner.submitted[0] == 1000
    assert sum(inner.submitted) == 2000
    assert len(inner.submitted) < 500


@pytest.mark.parametrize("kind", KINDS)
def test_an_uncertain_outcome_is_not_asked_again(kind):
    inner = kind(error=UncertainOutcome)
    with retrying(inner) as store:
        with pytest.raises(UncertainOutcome):
            store.run(log.append("orders/1", "placed", 1))
        (outcome,) = store.run_many([log.append("orders/2", "placed", 1)], return_exceptions=True)
        assert isinstance(outcome, UncertainOutcome)
    assert inner.refused == {"orders/1": 1, "orders/2": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_conflict_is_an_answer(kind):
    inner = kind(times=0)
    with retrying(inner) as store:
        assert isinstance(store.run(log.append_expect("orders/1", 7, "placed", 1)), Conflict)
        (conflict,) = store.run_many([log.append_expect("orders/1", 7, "placed", 1)])
        assert isinstance(conflict, Conflict)
    assert len(inner.asked) == 2


def test_a_store_that_another_one_has_locked_is_asked_again():
    with retrying(Faltering(times=2, error=StoreLocked)) as store:
        assert store.run(kv.put("color", "red")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_given_up_after_so_many_times_and_says_so(kind):
    inner = kind(times=100)
    with retrying(inner, Retry(times=3, wait_seconds=0.0), seconds=lambda: 7.0) as store:
        with pytest.raises(StoreUnavailable) as raised:
            store.run(kv.put("color", "red"))
        (outcome,) = store.run_many([kv.put("size", 1)], return_exceptions=True)
    for error in (raised.value, outcome):
        assert str(error) == "the server is being started again"
        assert error.__notes__ == ["asked 4 times in 0.0 seconds, and given up"]
    assert inner.refused == {"color": 4, "size": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_given_up_when_patience_is_over(kind):
    inner = kind(times=100)
    with retrying(inner, Retry(times=100, wait_seconds=0.0), patience_seconds=6, seconds=Ticking()) as store:
        with pytest.raises(StoreUnavailable):
            store.run(kv.put("color", "red"))
        assert 2 <= inner.refused["color"] <= 7
        (outcome,) = store.run_many([kv.put("size", 1)], return_exceptions=True)
        assert isinstance(outcome, StoreUnavailable)
        assert 2 <= inner.refused["size"] <= 7


def test_waits_grow_to_the_longest_and_are_made_different_by_a_seed(monkeypatch):
    def waits_of(seed: int) -> list[float]:
        slept: list[float] = []
        inner = Faltering(times=6)
        wrapper = Retrying(
            inner,
            Retry(times=6, wait_seconds=1.0, longest_seconds=8.0),
            patience_seconds=1000,
            jitter=random.Random(seed).random,
        )
        monkeypatch.setattr(wrapper._way._sleepers, "sleep", lambda request: slept.append(request.seconds))
        assert Store(wrapper).run(kv.put("color", "red")) == 1
        return slept

    first = waits_of(7)
    assert first == waits_of(7) != waits_of(8)
    for seconds, whole in zip(first, (1, 2, 4, 8, 8, 8), strict=True):
        assert whole / 2 <= seconds < whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["run", "run_many", "arun"])
def test_closing_the_store_ends_the_waiting(kind, how):
    inner = kind(times=100)
    refused = Gate()
    inner.on_refusal = refused.open
    store = retrying(inner, NEVER_AGAIN, patience_seconds=1e9)
    told: list[object] = []

    def ask() -> None:
        program = kv.put("color", "red")
        try:
            if how == "run":
                store.run(program)
            elif how == "run_many":
                told.extend(store.run_many([program], return_exceptions=True))
            else:
                anyio.run(store.arun, program)
        except StoreUnavailable as error:
            told.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert refused.wait(60)
    store.close()
    thread.join(60)
    assert [type(error) for error in told] == [StoreClosed]
    assert inner.refused == {"color": 1}


def test_what_comes_once_the_store_is_closed_is_told_so_at_once():
    inner = Submitting(times=100)
    wrapper = Retrying(inner, NEVER_AGAIN)
    wrapper.close()
    told: list[Any] = []
    wrapper.submit([LastSeq("a")], lambda index, outcome: told.append(outcome.error))
    assert [type(error) for error in told] == [StoreClosed]


@pytest.mark.parametrize("how", ["run", "arun"])
def test_a_program_goes_on_when_its_server_was_started_again(how):
    with ExitStack() as ends:
        kept = ends.enter_context(open_store("memory:"))
        place = Path(ends.enter_context(TemporaryDirectory(prefix="persist-effects-"))) / "sock"
        server = ExitStack()
        url = server.enter_context(serving(kept, place))
        refusals: list[int] = []

        def at_a_refusal() -> float:
            refusals.append(len(refusals))
            if len(refusals) == 1:
                ends.enter_context(serving(kept, place))
            return 0.0

        def patiently(inner: Any) -> Retrying:
            return Retrying(inner, Retry(times=100, wait_seconds=0.01), jitter=at_a_refusal)

        store = ends.enter_context(wrapped(open_store(f"{url}?timeout=2"), patiently))
        assert store.run(log.append("orders/1", "placed", 1)).seq == 1
        server.close()
        program = log.read("orders/1")
        events = store.run(program) if how == "run" else anyio.run(store.arun, program)
        assert [event.data for event in events] == [1]
        assert refusals


def test_no_thread_outlives_a_closed_store():
    inner = Submitting(times=1)
    with retrying(inner) as store:
        store.run_many([kv.put("color", "red")])
        assert [thread for thread in threading.enumerate() if thread.name == "persist-effects retrying"]
    assert not [thread for thread in threading.enumerate() if thread.name == "persist-effects retrying"]


def test_of_a_wait_that_is_asked_again_the_rest_is_waited_for():
    inner = Faltering(times=2, kinds=frozenset({Wait}))
    with retrying(inner, seconds=Ticking()) as store:
        assert store.run(log.wait(5, timeout=0.0)) == 0
        inner.asked.clear()
        inner.refused.clear()
        store.run(log.append("orders/1", "placed", 1))
        assert store.run(log.wait(0, timeout=100.0)) == 1
    timeouts = [request.timeout for request in inner.asked if isinstance(request, Wait)]
    assert timeouts[0] == 100.0 > timeouts[1] > timeouts[2] > 80


class Lossy(Submitting):
    """Tells who waits of each loss of its connection, of which there is one right after the first wait began."""

    def __init__(self) -> None:
        super().__init__(times=0)
        self.watches: list[Callable[[], None]] = []

    def watch(self, request: Any, notify: Callable[[], None]) -> Callable[[], None]:
        self.watches.append(notify)
        if len(self.watches) == 1:
            notify()
            return lambda: None
        end = super().watch(request, notify)
        if len(self.watches) == 2:
            self.handlers[Append](Append("orders/1", (Draft("placed", 1),)))
        return end


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_task_that_waits_is_not_woken_by_a_loss_but_by_what_it_waits_for(backend):
    inner = Lossy()
    with retrying(inner) as store:
        assert anyio.run(store.arun, log.wait(0, timeout=3600.0), backend=backend) == 1
    assert len(inner.watches) == 2


class Unwatchable(Batching):
    """Cannot watch, for now."""

    def watch(self, request: Any, notify: Callable[[], None]) -> Callable[[], None]:
        raise StoreUnavailable("nothing is watched now")


def test_a_wait_that_cannot_be_watched_is_asked_at_once():
    with retrying(Unwatchable(times=0)) as store:
        store.run(log.append("orders/1", "placed", 1))
        assert anyio.run(store.arun, log.wait(0, timeout=3600.0)) == 1


def test_a_child_of_a_fork_asks_again_in_a_thread_of_its_own():
    inner = Submitting(times=1)
    with retrying(inner) as store:
        store.run_many([kv.put("color", "red")])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if store.run_many([kv.put("size", 1)]) == [2] else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert store.run_many([kv.put("size", 1)]) == [2]


def test_a_store_that_retries_blocks_whatever_is_inside():
    wrapper = Retrying(MemoryStore())
    assert wrapper.blocking is True
    assert wrapper.quick == frozenset()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retry": 3}, "retry is an int, 3: give a Retry, such as Retry(times=10, wait_seconds=0.05)"),
        ({"patience_seconds": -1}, "patience_seconds is an int, -1: give a number from 0 on"),
        ({"patience_seconds": float("nan")}, "patience_seconds is a float, nan: give a number from 0 on"),
        ({"jitter": 7}, "jitter is an int, 7: give a function that returns a number"),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    with pytest.raises(InvalidRequest) as raised:
        Retrying(MemoryStore(), **options)
    assert str(raised.value) == words


def test_a_store_with_wrappers_keeps_its_effects_and_its_blobs_and_is_closed_whole(tmp_path):
    from persist_effects import Request, blob, perform

    class Roll(Request[int], frozen=True, tag="retrying/roll"):
        sides: int

    for url in ("memory:", f"file:{tmp_path}/file", f"sqlite:{tmp_path}/sqlite"):
        inside = open_store(url, effects={Roll: lambda request: request.sides})
        with wrapped(inside, Retrying) as store:
            assert store.run(perform(Roll(6))) == 6
            ref = store.run(blob.put(b"tea"))
            assert store.run(blob.get(ref)) == b"tea" == inside.run(blob.get(ref))
            assert store.open_blob(ref).read() == b"tea"
        with pytest.raises(StoreClosed):
            inside.run(kv.has("color"))


def test_what_is_no_wrapper_is_refused():
    with open_store("memory:") as store:
        with pytest.raises(InvalidRequest, match=r"a wrapper is a str, 'Retrying'.*give a class or function"):
            wrapped(store, "Retrying")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="what a wrapper returned is None"):
            wrapped(store, lambda inner: None)  # type: ignore[arg-type,return-value]
        with pytest.raises(InvalidRequest, match=r"what is wrapped is a Store: write wrapped\(store, ...\)"):
            Retrying(store)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="give an open store"):
            wrapped(store.interpreter, Retrying)  # type: ignore[arg-type]
