"""The order nearest to a failing one that passes: what had to come before what.

One step of a failing order is put elsewhere, as near to its place as will do, and the rest stays in order. The first
such order in which nothing is wrong tells more of a failure than all its steps.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from interpreters.explore.report import INVARIANT_BROKEN
from interpreters.explore.schedule.case import Case
from interpreters.explore.schedule.recorded import RecordedStep
from interpreters.explore.schedule.replayed import Replayed, on_from_last, replay
from interpreters.explore.schedule.telling import told_end, told_request
from interpreters.explore.schedule.world import Move
from interpreters.explore.words import are_alike

_TRIED = 300
"""How many orders are tried at the most: a millisecond each on a memory store."""

_STEPS_TRIED = 20_000
"""How many steps all of them have together: half a second's worth."""


class Neighbour(NamedTuple):
    """An order that passes: the step of the failing one that comes elsewhere in it, and the step that it has passed."""

    step: RecordedStep
    other: RecordedStep
    comes: str
    run: Replayed


def told_nearest(case: Case, run: Replayed, is_over: Callable[[], bool]) -> tuple[str, ...]:
    """In a few lines: what has to come before what for an order to pass, and what is then answered otherwise.

    Args:
        case: The programs of the order.
        run: The order that fails.
        is_over: Whether the time is over.

    Returns:
        The lines; none where no order was found that passes, or a program crashes in the one that fails.
    """
    found = _nearest(case, run, is_over)
    if found is None:
        return ()
    names, step, other = case.names, found.step, found.other
    first = f"{_told_step(names, step)} comes {found.comes} {_told_step(names, other)}"
    return (first, *_told_difference(names, run.trace, found.run.trace))


def _nearest(case: Case, run: Replayed, is_over: Callable[[], bool]) -> Neighbour | None:
    count = len(case.programs)
    if run.problem is not None and run.problem.kind == INVARIANT_BROKEN:
        # It ends there, and what would have come later may have to come before.
        run = replay(case._replace(invariant=None, check=None), run.moves)
    # Where a move is more steps than one, or none, the steps do not stand at the places of the moves.
    if any(move >= count for move in run.moves) or len(run.trace) != len(run.moves):
        return None
    tried: set[tuple[Move, ...]] = {run.moves}
    for source, target in _shifts(run.moves):
        moves = [*run.moves]
        moves.insert(target, moves.pop(source))
        if tuple(moves) in tried:
            continue
        if len(tried) > _TRIED or len(tried) * len(moves) > _STEPS_TRIED or is_over():
            return None
        tried.add(tuple(moves))
        again = replay(case, (), _following(moves))
        if again.problem is None and not again.refused:
            comes = "before" if target < source else "after"
            return Neighbour(run.trace[source], run.trace[target], comes, again)
    return None


def _shifts(moves: Sequence[Move]) -> Iterator[tuple[int, int]]:
    """From where to where a step may be moved: the least far first, and of those the latest in the order."""
    size = len(moves)
    for distance in range(1, size):
        for place in range(size - distance - 1, -1, -1):
            later = place + distance
            if moves[place] != moves[later]:
                yield later, place
                yield place, later


def _following(moves: Sequence[Move]) -> Callable[[int, tuple[int, ...]], int]:
    """Whose turn it is where these moves are made as far as they can be: who has ended, or waits, is passed over."""
    wanted = iter(moves)

    def then(last: int, ready: tuple[int, ...]) -> int:
        found = next((move for move in wanted if move in ready), None)
        return on_from_last(last, ready) if found is None else found

    return then


def _told_step(names: Sequence[str], step: RecordedStep) -> str:
    return f"{names[step.index]} #{step.ordinal} {told_request(step)}"


def _told_difference(
    names: Sequence[str], failing: Sequence[RecordedStep], passing: Sequence[RecordedStep]
) -> Iterator[str]:
    """The first step that is answered otherwise, in what is told: not by a time alone."""
    answered = {(step.index, step.ordinal): step for step in passing}
    for step in failing:
        other = answered.get((step.index, step.ordinal))
        if other is None or not are_alike(step.request, other.request):
            continue
        if not are_alike(step.outcome, other.outcome) and told_end(step) != told_end(other):
            yield f"then {names[step.index]} #{step.ordinal} {told_request(step)}{told_end(other)}"
            yield f"and not{told_end(step)}"
            return
