"""One interleaving again, step by step, with all that is to be told of it."""

from collections.abc import Sequence
from typing import NamedTuple

from interpreters.explore.report import Problem
from interpreters.explore.schedule.case import Case, FoundOrder, told_outcomes
from interpreters.explore.schedule.recorded import RecordedStep, RecordedWorld
from interpreters.explore.schedule.world import Move
from interpreters.explore.virtual import rows_but_of_time
from persist_effects.requests import Outcome


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


def replay(case: Case, moves: Sequence[Move], *, is_backwards: bool = False) -> Replayed:
    """Make these moves; then let each program go on to its end, the one that had the last turn first.

    The others follow in their order, or backwards.
    """
    made: list[Move] = []
    try:
        return _replayed(case, moves, made, is_backwards=is_backwards)
    except BaseException as error:
        case.note_end(error, made if len(made) > len(moves) else moves)
        raise


def _replayed(case: Case, moves: Sequence[Move], made: list[Move], *, is_backwards: bool) -> Replayed:
    store = case.store_factory()
    try:
        world = RecordedWorld(case.programs, rows_but_of_time(store))
        return _gone_through(case, world, moves, made, is_backwards=is_backwards)
    finally:
        store.close()


def _gone_through(
    case: Case, world: RecordedWorld, moves: Sequence[Move], made: list[Move], *, is_backwards: bool
) -> Replayed:
    switches = 0
    problem = None
    refused = ""
    count, last = len(case.programs), -1
    try:
        while ready := world.ready():
            if len(made) > case.requests_limit:
                problem = case.hang()
                break
            following = last if last in ready else ready[-1 if is_backwards else 0]
            move = moves[len(made)] if len(made) < len(moves) else following
            if refused := _refusal(case, world, move, len(made) + 1):
                break
            switches += last in ready and move % count != last
            last = move % count
            made.append(move)
            world.play(move)
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
