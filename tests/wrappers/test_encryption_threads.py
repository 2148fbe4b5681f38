"""Keys in memory that many threads share, and a store inside that answers later."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from encrypted_stores import Pair, customer_of

from interpreters import Store
from interpreters.stores.memory import MemoryStore
from interpreters.wrappers.encryption import Encrypted, forget
from interpreters.wrappers.encryption.ring import KeyRing
from persist_effects import StoreClosed, StoreUnavailable, SubjectForgotten, is_erased, kv, log
from persist_effects.machine import outcome_of
from persist_effects.requests import Append, Outcome, Read, Request

OWN_THREADS = "persist-effects keys"


class Submitted(MemoryStore):
    """Takes what is submitted, and answers in the thread that submits it."""

    blocking = True

    def __init__(self) -> None:
        super().__init__()
        self.is_broken = False
        self.submitted_in: list[str] = []

    def submit(self, requests: Sequence[Request[Any]], done: Callable[[int, Outcome], None]) -> None:
        self.submitted_in.append(threading.current_thread().name)
        if self.is_broken:
            raise StoreUnavailable("nothing is submitted any more")
        for index, request in enumerate(requests):
            done(index, outcome_of(request, self.handlers))


class Watched(MemoryStore):
    """A key store that notes who asks it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_in: set[str] = set()
        self.handlers = {kind: self._noted(row) for kind, row in self.handlers.items()}

    def _noted(self, row: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def answer(request: Any) -> Any:
            self.asked_in.add(threading.current_thread().name.rpartition("_")[0])
            return row(request)

        return answer


def submitted() -> tuple[Store, Submitted, Watched]:
    inner, keys = Submitted(), Watched()
    encrypted = Encrypted(inner, keys, subject_of=customer_of, seconds=lambda: 0.0)
    keys.asked_in.clear()
    return Store(encrypted, effects=encrypted.effects), inner, keys


def test_threads_that_write_read_and_forget_find_nothing_of_the_forgotten():
    pair = Pair()
    names = [f"customers/{number}" for number in range(16)]
    for name in names:
        pair.run(log.append(name, "named", name))

    def work(number: int) -> int:
        name = names[number % len(names)]
        written = 0
        for turn in range(50):
            try:
                pair.run(log.append(name, "named", turn))
                written += 1
            except SubjectForgotten:
                assert number % 2
            if turn == 25 and number % 2:
                pair.run(forget(f"customer/{number % len(names)}"))
                assert all(map(is_erased, pair.run(log.read(name))))
        return written

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(work, range(len(names))))
    for number, name in enumerate(names):
        events = pair.run(log.read(name))
        assert len(events) == written[number] + 1
        assert all(is_erased(event) == bool(number % 2) for event in events)


def test_keys_are_looked_up_by_threads_that_may_wait_and_what_is_in_memory_at_once():
    store, inner, keys = submitted()
    with store:
        assert [event.seq for event in store.run_many(log.append(f"customers/{n}", "named", n) for n in (1, 2, 1))] == [
            1,
            1,
            2,
        ]
        assert keys.asked_in == {OWN_THREADS}
        keys.asked_in.clear()
        store.run_many(log.append(f"customers/{n}", "named", n) for n in (1, 2))
        assert keys.asked_in == set()
        assert inner.submitted_in[-1] == threading.current_thread().name
        first, second = store.run_many([log.read("customers/1"), log.read("customers/2")])
        assert [event.data for event in (*first, *second)] == [1, 1, 1, 2, 2]
        assert keys.asked_in == {OWN_THREADS}


def test_what_submitting_itself_raises_is_the_outcome_of_what_waited_for_a_key():
    store, inner, _ = submitted()
    with store:
        inner.is_broken = True
        outcomes = store.run_many(
            [log.append("customers/1", "named", 1), kv.put("customers/2/x", 1)], return_exceptions=True
        )
        assert [str(outcome) for outcome in outcomes] == ["nothing is submitted any more"] * 2


def test_a_store_that_was_closed_says_so_to_what_waits_for_a_key():
    store, *_ = submitted()
    store.run_many([log.append("customers/1", "named", 1)])
    store.interpreter.close()
    (outcome,) = store.run_many([log.append("customers/2", "named", 2)], return_exceptions=True)
    assert isinstance(outcome, StoreClosed)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(OWN_THREADS)]


def test_a_refusal_for_one_is_no_refusal_for_those_submitted_with_it():
    store, *_ = submitted()
    with store:
        store.run(log.append("customers/1", "named", 1))
        store.run(forget("customer/1"))
        outcomes = store.run_many(
            [
                log.append("customers/1", "named", 1),
                log.append("prices", "set", 5),
                log.append("customers/2", "named", 2),
            ],
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], SubjectForgotten)
        assert [event.data for event in outcomes[1:]] == [5, 2]


def test_a_child_of_a_fork_looks_keys_up_by_threads_of_its_own():
    store, *_ = submitted()
    with store:
        store.run_many([log.append("customers/1", "named", 1)])
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                (event,) = store.run_many([log.append("customers/2", "named", "of the child")])
                os.write(writing, event.data.encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            assert told.read() == "of the child"
        assert os.waitpid(child, 0)[1] == 0
        assert [event.seq for event in store.run_many([log.append("customers/2", "named", 2)])] == [1]


def test_what_needs_a_key_is_quick_only_where_the_key_store_is():
    class Remote(MemoryStore):
        def __init__(self, *slow: type) -> None:
            super().__init__()
            self.quick = self.quick - set(slow)

    inner = MemoryStore()
    assert Encrypted(inner, Remote(), subject_of=customer_of).quick == inner.quick
    from persist_effects.requests import KvGet, LastSeq, Transact

    writes_wait = Encrypted(inner, Remote(Transact), subject_of=customer_of).quick
    assert (Append in writes_wait, Read in writes_wait, LastSeq in writes_wait) == (False, True, True)
    all_wait = Encrypted(inner, Remote(KvGet), subject_of=customer_of).quick
    assert (Append in all_wait, Read in all_wait, LastSeq in all_wait) == (False, False, True)


@pytest.mark.parametrize("sort", ["newest", "by_id"])
def test_keys_in_memory_are_bounded(monkeypatch, sort):
    from interpreters.wrappers.encryption import ring

    monkeypatch.setattr(ring, "KEPT_KEYS", 10)
    pair = Pair()
    for number in range(35):
        pair.run(log.append(f"customers/{number}", "named", number))
    assert [event.data for event in pair.run(log.read_all())] == [*range(35)]
    keys: KeyRing = pair.store.interpreter._ring
    assert 0 < len(getattr(keys._kept, sort)) <= 10
