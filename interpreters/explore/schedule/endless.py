"""What programs do that ask for ever: they poll, or they undo what each other has done, or they just go on.

The last steps are looked at: where they repeat, a program asks the same and meets the same sort of answer each time.

====================  =====================================================================================
kind                  what is repeated
====================  =====================================================================================
polls without end     nothing in it changes the store, so nothing in it will ever be answered otherwise
livelock              several programs change the store, and none comes to its end
hangs                 one program changes the store; or nothing is repeated
====================  =====================================================================================
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from interpreters.explore.report import LIVELOCK, POLLS, Problem
from interpreters.explore.schedule.case import Case, FoundOrder
from interpreters.explore.schedule.ordered import may_change
from interpreters.explore.schedule.recorded import RecordedStep
from interpreters.explore.schedule.replayed import Replayed, replay
from interpreters.explore.schedule.telling import sourced_steps
from interpreters.explore.words import MARK, named
from persist_effects.requests import Answered, Conflict, Outcome

_LONGEST_CYCLE = 40
"""How many steps a cycle has at the most: a few programs, each of which tries in a few requests."""

_TIMES = 3
"""How often steps have to repeat to be a cycle."""

_LINES_TOLD = 6
"""How many steps are told of what came before a cycle, and twice as many of one, or of what has none."""


class Cycle(NamedTuple):
    """Steps that are repeated: the number of the first one, and how many they are."""

    begins: int
    size: int


def cycle_in(trace: Sequence[RecordedStep]) -> Cycle | None:
    """The shortest cycle in which a trace ends."""
    keys = [_key(step) for step in trace]
    for size in range(1, min(_LONGEST_CYCLE, len(keys) // _TIMES) + 1):
        begins = len(keys) - size
        while begins and keys[begins - 1] == keys[begins - 1 + size]:
            begins -= 1
        if len(keys) - begins >= _TIMES * size:
            return Cycle(begins, size)
    return None


def told_as_endless(case: Case, found: FoundOrder) -> FoundOrder:
    """An order in which programs ask for ever, told as what it is, by as few moves as show the same."""
    problem = _problem(case, replay(case, found.moves), found.problem)
    count = 0
    while count < len(found.moves):
        run = replay(case, found.moves[:count])
        is_endless = run.problem is not None and run.problem.kind == found.problem.kind
        if is_endless and _problem(case, run, found.problem) == problem:
            return found._replace(moves=found.moves[:count], problem=problem)
        count = 2 * count or 1
    return found._replace(problem=problem)


def lines_of_endless(case: Case, trace: Sequence[RecordedStep]) -> list[tuple[str, str]]:
    """The steps before a cycle, and the cycle once; where there is none, the last steps. With who asked where."""
    cycle = cycle_in(trace)
    if cycle is None:
        return _shortened([*sourced_steps(case.names, trace[-2 * _LINES_TOLD :])], len(trace) - 2 * _LINES_TOLD)
    before = trace[max(0, cycle.begins - _LINES_TOLD) : cycle.begins]
    lines = [*_shortened([*sourced_steps(case.names, before)], cycle.begins - _LINES_TOLD)]
    times = (len(trace) - cycle.begins) // cycle.size
    lines.append((f"{MARK}again and again, {times:,} times:", ""))
    once = trace[cycle.begins : cycle.begins + cycle.size]
    lines += sourced_steps(case.names, once[: 2 * _LINES_TOLD])
    more = len(once) - 2 * _LINES_TOLD
    return [*lines, *([(f"… {more:,} steps", "")] if more > 0 else [])]


def _shortened(lines: list[tuple[str, str]], left_out: int) -> list[tuple[str, str]]:
    return [(f"… {left_out:,} steps", ""), *lines] if left_out > 0 else lines


def _problem(case: Case, run: Replayed, problem: Problem) -> Problem:
    cycle = cycle_in(run.trace)
    if cycle is None:
        return problem
    once = run.trace[cycle.begins : cycle.begins + cycle.size]
    names = [case.names[index] for index in sorted({step.index for step in once})]
    if any(_has_changed(step) for step in once):
        if len(names) == 1:
            return problem._replace(found=_told_asking(case, once) + _told_held_up(case, run, once))
        asking = f"{', '.join(names[:-1])} and {names[-1]} go on asking the same, and none comes to its end"
        return Problem(LIVELOCK, "programs that try again come to their ends", asking)
    return Problem(POLLS, problem.expected, _told_asking(case, once) + _told_held_up(case, run, once))


def _told_asking(case: Case, once: Sequence[RecordedStep]) -> str:
    told = []
    for index in sorted({step.index for step in once}):
        asked = list(dict.fromkeys(named(step.request) for step in once if step.index == index))
        more = f" and {len(asked) - 3} more" if len(asked) > 3 else ""
        told.append(f"{case.names[index]} asks {', '.join(asked[:3])}{more} again and again")
    return "; ".join(told)


def _told_held_up(case: Case, run: Replayed, once: Sequence[RecordedStep]) -> str:
    """Who could have gone on, or waits."""
    going = {step.index for step in once}
    others = [case.names[index] for index, end in enumerate(run.ends) if end is None and index not in going]
    if not others:
        return ""
    return f", while {', '.join(others)} {'is' if len(others) == 1 else 'are'} held up"


def _key(step: RecordedStep) -> tuple[Any, ...]:
    return step.index, step.fault, named(step.request), _sort_of(step.outcome)


def _sort_of(outcome: Outcome | None) -> Any:
    """What sort of answer it is. Its numbers are others each time."""
    match outcome:
        case Answered(value=bool() | None as value):
            return value
        case Answered(value=value):
            return type(value)
        case None:
            return "none"
        case _:
            return type(outcome.error)


def _has_changed(step: RecordedStep) -> bool:
    if not isinstance(step.outcome, Answered) or isinstance(step.outcome.value, Conflict):
        return False
    # What was not there is not deleted, and says so.
    return step.outcome.value is not False and may_change(step.request)
