"""How much a program may ask of its store."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from faltering import Batching, Submitting

from interpreters import Store
from interpreters.stores.memory import MemoryStore
from interpreters.wrappers import OverBudget, budget, wrapped
from persist_effects import Append, Conflict, Draft, InvalidRequest, KvDelete, KvPut, kv, log, now, transact

KINDS = [MemoryStore, Batching, Submitting]
PLACED = Append("orders/1", (Draft("placed", 1), Draft("paid", 2)))


def limited(kind: type[Any] = MemoryStore, **limits: int) -> Store:
    return wrapped(Store(kind() if kind is MemoryStore else kind(0)), budget(**limits))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_within_the_budget_goes_through_and_the_next_one_is_named(kind):
    store = limited(kind, appends=3, commits=4)
    for number in range(3):
        store.run(log.append(f"orders/{number}", "placed", number))
    with pytest.raises(OverBudget) as raised:
        store.run(log.append("orders/3", "placed", 3))
    assert str(raised.value) == (
        "over the budget of appends=3: Append(stream='orders/3', events=(Draft(type='placed', data=3, at=None, "
        "meta=None),), expected=None) was asked for, and not done: have the program do with less, or give it a larger "
        "budget(appends=…)"
    )
    assert isinstance(raised.value, AssertionError)
    assert store.run(log.streams()) == ["orders/0", "orders/1", "orders/2"]


@pytest.mark.parametrize("kind", KINDS)
def test_of_programs_together_only_those_over_the_budget_are_refused(kind):
    store = limited(kind, commits=2)
    outcomes = store.run_many([kv.put(key, 1) for key in ("a", "b", "c")], return_exceptions=True)
    assert outcomes[:2] == [1, 2]
    assert isinstance(outcomes[2], OverBudget)
    assert store.run(kv.keys()) == ["a", "b"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_refused_too(kind):
    store = limited(kind, puts=0)
    with pytest.raises(OverBudget, match="over the budget of puts=0"):
        anyio.run(store.arun, kv.put("a", 1))


@pytest.mark.parametrize(
    ("limits", "is_over"),
    [
        ({"appends": 1}, False),
        ({"appends": 0}, True),
        ({"events": 2}, False),
        ({"events": 1}, True),
        ({"puts": 1, "deletes": 1, "commits": 1, "requests": 1, "reads": 0}, False),
        ({"puts": 0}, True),
        ({"deletes": 0}, True),
        ({"commits": 0}, True),
        ({"requests": 0}, True),
    ],
)
def test_a_transaction_is_one_commit_of_several_writes(limits, is_over):
    program = transact(PLACED, KvPut("color", "red"), KvDelete("size"))
    inside = Store(MemoryStore())
    store = wrapped(inside, budget(**limits))
    if is_over:
        with pytest.raises(OverBudget):
            store.run(program)
        assert inside.run(log.streams()) == []
    else:
        assert len(store.run(program)) == 3


def test_what_meets_a_conflict_has_been_asked_for():
    store = limited(appends=1)
    assert isinstance(store.run(log.append_expect("orders/1", 7, "placed", 1)), Conflict)
    with pytest.raises(OverBudget):
        store.run(log.append("orders/1", "placed", 1))


def test_waits_and_the_time_take_nothing():
    store = limited(requests=0)
    assert store.run(log.wait(0, timeout=0.0)) == 0
    assert store.run(now()) > 0
    with pytest.raises(OverBudget, match="over the budget of requests=0"):
        store.run(kv.has("a"))
    with pytest.raises(OverBudget, match="over the budget of reads=0"):
        limited(reads=0).run(kv.has("a"))


def test_each_store_has_a_budget_of_its_own():
    once = budget(commits=1)
    for _ in range(2):
        assert wrapped(Store(MemoryStore()), once).run(kv.put("a", 1)) == 1


def test_threads_share_a_budget():
    store = limited(commits=100)

    def put(number: int) -> bool:
        try:
            store.run(kv.put(f"key/{number}", number))
        except OverBudget:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(put, range(400))) == 100
    assert len(store.run(kv.keys())) == 100


def test_its_error_survives_the_way_to_another_process():
    error = OverBudget("KvHas(key='a')", "reads", 0)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (OverBudget, str(error))


def test_a_budget_that_limits_nothing_is_refused():
    with pytest.raises(InvalidRequest, match="a budget without a limit: give one"):
        budget()
    with pytest.raises(InvalidRequest, match="a budget's commits is an int, -1: give an int from 0 on"):
        budget(commits=-1)
    with pytest.raises(InvalidRequest, match="a budget's reads is a bool, True: give an int from 0 on"):
        budget(reads=True)
