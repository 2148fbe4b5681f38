"""Whether two runs of the same are the same: what programs ask, what they are answered, and how they end.

A program is a function of its answers, so two runs of one order on fresh stores ask the same and end alike. Where they
do not, something other than the store was changed by one run and seen by the next: an object of Python's that programs
share, a clock, or a random number. What the store answers may differ in its numbers and times: positions and revisions
are the store's own choice.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from interpreters.explore.faults import is_own
from interpreters.explore.report import NOT_DETERMINISTIC, Problem
from interpreters.explore.schedule.case import Case, FoundOrder
from interpreters.explore.schedule.numbers import SameNumbers
from interpreters.explore.schedule.recorded import RecordedStep
from interpreters.explore.schedule.replayed import (
    Replayed,
    Then,
    on_from_last,
    on_from_last_backwards,
    replay,
)
from interpreters.explore.words import are_alike, told, told_error, told_outcome
from persist_effects.requests import Answered, Failed, Outcome

NOT_FRESH = "let store_factory make a new store in each call, filled in the same way"

_ASKS_THE_SAME = "a program asks the same where everything before was the same"
_ENDS_ALIKE = "a program ends alike where everything before was the same"
_IS_ANSWERED_ALIKE = "a fresh store answers the same where everything before was the same"


class Trial(NamedTuple):
    """An order of the programs, and its first run."""

    then: Then
    run: Replayed


def trials(case: Case) -> list[Trial]:
    """The first runs: the programs one after the other, from the last to the first and from the first to the last.

    The last comes first because it is what most often looks at what others have left.
    """
    directions = (on_from_last_backwards, on_from_last) if len(case.programs) > 1 else (on_from_last,)
    return [Trial(then, replay(case, (), then)) for then in directions]


def difference_now(case: Case, firsts: Sequence[Trial]) -> FoundOrder | None:
    """Run the trials again. What they differ in from the first time, if in anything."""
    for trial in firsts:
        again = replay(case, (), trial.then)
        problem = difference_of(case, trial.run, again)
        if problem is not None:
            return FoundOrder(trial.run.moves, trial.run.switches, problem)
    return None


def difference_of(case: Case, one: Replayed, other: Replayed) -> Problem | None:
    """What two runs of one order differ in: nothing, if the programs are deterministic and the stores are fresh."""
    numbers = SameNumbers()
    last = -1
    for before, now in zip_longest(one.trace, other.trace):
        asked = _difference_in_request(case, before, now, last)
        if asked is not None:
            return asked
        answered = _difference_in_answer(case, before, now, numbers)
        if answered is not None:
            return answered
        last = before.index if before is not None else last
    for index, (first, second) in enumerate(zip(one.ends, other.ends, strict=True)):
        if not are_alike(first, second) and _are_answered_alike(one, other, index):
            found = f"{case.names[index]} {_told_end(first)} the first time, and now it {_told_end(second)}"
            return Problem(NOT_DETERMINISTIC, _ENDS_ALIKE, found)
    return None


def is_about_stores(problem: Problem) -> bool:
    """Whether it is not the programs that differ, but the stores."""
    return problem.kind == NOT_DETERMINISTIC and problem.expected == _IS_ANSWERED_ALIKE


def told_difference(name: str, number: int, before: Any, now: Any, when: str) -> Problem:
    """The problem of a program that stood elsewhere before: at another request, or at its end."""
    found = f"{name}, at its request #{number}: it {_told_stand(before)} {when}, and {_told_stand(now)} now"
    return Problem(NOT_DETERMINISTIC, _ASKS_THE_SAME, found)


def _difference_in_request(
    case: Case, before: RecordedStep | None, now: RecordedStep | None, last: int
) -> Problem | None:
    if before is not None and now is not None and before.index == now.index and are_alike(before.request, now.request):
        return None
    # Where different programs ask, it is the one that had the turn before which goes on in one run alone.
    known = now if before is None or (now is not None and now.index == last) else before
    assert known is not None, "one of the two is there"
    stands = [step.request if step is not None and step.index == known.index else None for step in (before, now)]
    return told_difference(case.names[known.index], known.ordinal, stands[0], stands[1], "the first time")


def _difference_in_answer(
    case: Case, before: RecordedStep | None, now: RecordedStep | None, numbers: SameNumbers
) -> Problem | None:
    assert before is not None, "what was asked is the same"
    assert now is not None, "what was asked is the same"
    first, second = before.outcome, now.outcome
    if before.fault or is_own(before.request) or first is None or second is None:
        return None
    if isinstance(first, Failed) and isinstance(second, Failed):
        # Their words may name a file of the one store, or of the other.
        return None
    if numbers.are_same(before.request, first, second):
        return None
    words = [told_outcome(before.request, outcome).removeprefix(" ") or "nothing" for outcome in (first, second)]
    found = (
        f"{case.names[before.index]}, at its request #{before.ordinal} {told(before.request)}: "
        f"{words[0]} the first time, and now {words[1]}"
    )
    return Problem(NOT_DETERMINISTIC, _IS_ANSWERED_ALIKE, found)


def _are_answered_alike(one: Replayed, other: Replayed, index: int) -> bool:
    """Whether a program was answered the same in both runs, times and numbers too."""
    outcomes = [[step.outcome for step in run.trace if step.index == index] for run in (one, other)]
    return all(map(are_alike, *outcomes))


def _told_stand(stands: Any) -> str:
    if stands is None:
        return "asked nothing more"
    return _told_end(stands) if isinstance(stands, Answered | Failed) else f"asked {stands!r:.160}"


def _told_end(outcome: Outcome | None) -> str:
    match outcome:
        case Answered(value=value):
            return f"returned {value!r:.160}"
        case Failed(error=error):
            return f"raised {told_error(error)}"
        case None:
            return "did not end"
