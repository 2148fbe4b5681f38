"""One interleaving again, step by step, with all that is to be told of it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from interpreters.explore.report import Problem
from interpreters.explore.schedule.case import Case, FoundOrder, LastStep, told_outcomes
from interpreters.explore.schedule.recorded import RecordedStep, RecordedWorld
from interpreters.explore.schedule.world import Move
from interpreters.explore.virtual import rows_but_of_time
from persist_effects.requests import Outcome

Then = Callable[[int, tuple[int, ...]], int]
"""Whose turn it is, of who had the last one, -1 for nobody, and who can go on."""


def on_from_last(last: int, ready: tuple[int, ...]) -> int:
    """Each goes on to its end, the one that had the last turn first.

    >>> on_from_last(1, (0, 1)), on_from_last(-1, (0, 1))
    (1, 0)
    """
    return last if last in ready else ready[0]


def on_from_last_backwards(last: int, ready: tuple[int, ...]) -> int:
    """The same, where the others follow from the last to the first."""
    return last if last in ready else ready[-1]


def in_turn(last: int, ready: tuple[int, ...]) -> int:
    """Each makes one request, and then it is the next one's turn.

    >>> in_turn(0, (0, 2)), in_turn(2, (0, 2))
    (2, 0)
    """
    return next((index for index in ready if index > last), ready[0])


class Replayed(NamedTuple):
    """What became of an interleaving. ``refused`` says why its moves could not all be made, if they could not."""

    moves: tuple[Move, ...]
    switches: int
    trace: list[RecordedStep]
    outcomes: list[str]
    problem: Problem | None
    refused: str = ""
    ends: tuple[Outcome | None, ...] = ()
    """How each program ended, None where it has not."""

    @property
    def found(self) -> FoundOrder | None:
        """What is wrong with it."""
        return None if self.problem is None else FoundOrder(self.moves, self.switches, self.problem)


def replay(
    case: Case, moves: Sequence[Move], then: Then = on_from_last, kind: type[RecordedWorld] = RecordedWorld
) -> Replayed:
    """Make these moves; then whose turn it is, ``then`` says, until all have ended. ``kind``: what is kept of it."""
    made: list[Move] = []
    try:
        return _replayed(case, moves, made, then, kind)
    except BaseException as error:
        case.note_end(error, made if len(made) > len(moves) else moves)
        raise


def _replayed(case: Case, moves: Sequence[Move], made: list[Move], then: Then, kind: type[RecordedWorld]) -> Replayed:
    store = case.store_factory()
    try:
        world = kind(case.programs, rows_but_of_time(store))
        return _gone_through(case, world, moves, made, then)
    finally:
        store.close()


def _gone_through(case: Case, world: RecordedWorld, moves: Sequence[Move], made: list[Move], then: Then) -> Replayed:
    switches = 0
    problem = case.broken(world, None)
    refused = ""
    count, last = len(case.programs), -1
    try:
        while problem is None and (ready := world.ready()):
            if len(made) > case.requests_limit:
                problem = case.hang()
                break
            move = moves[len(made)] if len(made) < len(moves) else then(last, ready)
            if refused := _refusal(case, world, move, len(made) + 1):
                break
            switches += last in ready and move % count != last
            last = move % count
            made.append(move)
            task = world.tasks[last]
            step = LastStep(last, task.asked, task.request)
            world.play(move)
            problem = case.broken(world, step)
        if len(made) < len(moves) and not refused and problem is None:
            refused = f"all programs have come to their ends after {len(made)} turns"
        if problem is None and not refused:
            problem = case.judge(world)
        ends = tuple(task.outcome for task in world.tasks)
        return Replayed(tuple(made), switches, world.trace, told_outcomes(case.names, world), problem, refused, ends)
    finally:
        world.close()


def _refusal(case: Case, world: RecordedWorld, move: Move, turn: int) -> str:
    """Why this move cannot be made now; nothing where it can."""
    count = len(case.programs)
    index = move % count
    name = case.names[index]
    if index not in world.live:
        return f"at turn {turn}, {name} has ended"
    if index not in world.ready() and not count <= move < 2 * count:
        return f"at turn {turn}, {name} waits for {world.tasks[index].request!r:.100}"
    return ""
