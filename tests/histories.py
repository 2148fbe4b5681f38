"""Histories that were not recorded by the explorer: of threads, of processes, or written down by a test."""

from types import SimpleNamespace
from typing import Any

from interpreters.explore.schedule.linear import Filling, linear_problem
from interpreters.explore.schedule.numbers import SameNumbers
from interpreters.stores.memory import MemoryStore
from persist_effects import UncertainOutcome, machine
from persist_effects.requests import (
    CHANGES,
    Appended,
    Conflict,
    Entry,
    Failed,
    KvGet,
    KvPut,
    LastSeq,
    Outcome,
    Page,
    Read,
)

UNKNOWN = Failed(UncertainOutcome("the server was killed"))


def step(times: tuple[int, int], request: Any, outcome: Outcome | None, who: tuple[int, int] = (0, 0)) -> Any:
    """What was asked and answered between two times, as the check of linearizability takes it.

    Args:
        times: When it began and ended.
        request: What was asked.
        outcome: What came of it.
        who: The number of the one that asked, and how many it had asked before.
    """
    return SimpleNamespace(
        number=times[0], ended=times[1], request=request, outcome=outcome, index=who[0], ordinal=who[1], fault=None,
        is_inner=False,
    )  # fmt: skip


def problem_of(steps: list[Any], who: str = "writer") -> str | None:
    """What is wrong with a history on a store that was empty, in words; None if nothing is."""
    steps.sort(key=lambda each: each.number)
    names = [f"{who} {index}" for index in range(1 + max((each.index for each in steps), default=0))]
    problem = linear_problem(steps, Filling(()), names)
    return None if problem is None else f"{problem.kind}: {problem.found}"


def is_in_any_order(steps):
    """Whether some order explains a history: all of them are tried, each on a store of its own."""
    counted = [one for one in steps if one.outcome is not UNKNOWN or type(one.request) in CHANGES]

    def goes_on(row, left):
        if row and not is_explained(row):
            return False
        if all(one.outcome is UNKNOWN for one in left):
            return True
        first_end = min(one.ended for one in left if one.outcome is not UNKNOWN)
        return any(
            goes_on([*row, one], [other for other in left if other is not one])
            for one in left
            if one.number <= first_end
        )

    return goes_on([], counted)


def is_explained(row):
    store, same = MemoryStore(clock=lambda: 0), SameNumbers()
    for one in row:
        wanted = machine.outcome_of(same.translated(one.request), store.handlers)
        if one.outcome is not UNKNOWN and not same.are_same(one.request, one.outcome, wanted):
            return False
    return True


def learn(known: dict[str, int], request: Any, answer: Any) -> None:
    """Keep what an answer says of what is there: the last sequence number of a stream, the revision of a key."""
    match answer:
        case Conflict(name=name, actual=actual):
            known[name] = actual
        case Appended(last_seq=last_seq):
            known[request.stream] = last_seq
        case Page(head=head) if isinstance(request, Read):
            known[request.stream] = head
        case Entry(revision=revision):
            known[request.key] = revision
        case None if isinstance(request, KvGet):
            known[request.key] = 0
        case int(number) if isinstance(request, KvPut):
            known[request.key] = number
        case int(number) if isinstance(request, LastSeq):
            known[request.stream] = number
