"""Histories that were not recorded by the explorer: of threads, of processes, or written down by a test."""

from types import SimpleNamespace
from typing import Any

from interpreters.explore.schedule.linear import Filling, linear_problem
from persist_effects.requests import Appended, Conflict, Entry, KvGet, KvPut, LastSeq, Outcome, Page


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


def learn(known: dict[str, int], request: Any, answer: Any) -> None:
    """Keep what an answer says of what is there: the last sequence number of a stream, the revision of a key."""
    match answer:
        case Conflict(name=name, actual=actual):
            known[name] = actual
        case Appended(last_seq=last_seq):
            known[request.stream] = last_seq
        case Page(head=head):
            known[request.stream] = head
        case Entry(revision=revision):
            known[request.key] = revision
        case None if isinstance(request, KvGet):
            known[request.key] = 0
        case int(number) if isinstance(request, KvPut):
            known[request.key] = number
        case int(number) if isinstance(request, LastSeq):
            known[request.stream] = number
