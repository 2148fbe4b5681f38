"""Interleavings drawn by a seed, where there are too many to go through: half at random, half by priorities.

A random one takes any program that can go on, at each step. One by priorities gives each program a rank, always takes
the highest that can go on, and at a few steps drawn beforehand puts that one last: probabilistic concurrency testing
(Burckhardt and others, 2010), which finds bugs of few switches with a probability that does not shrink with the
number of interleavings.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from interpreters.explore.schedule.case import Case, FoundOrder, LastStep
from interpreters.explore.schedule.ordered import may_change
from interpreters.explore.schedule.world import Move, World

_CHANGES_MAX = 3

Choose = Callable[[int, Sequence[int]], int]
"""Which program has the turn, of the step's number and the programs that can go on."""


class Sampled:
    """So many interleavings of a case, drawn by a seed."""

    def __init__(self, case: Case, seed: int, *, crashes: bool) -> None:
        self.checked = self.failed = self.most_switches = 0
        self._case = case
        self._crashes = crashes
        self._random = Random(seed)  # noqa: S311 - a sample, no secret
        self._longest = 1

    def failures(self, count: int, is_over: Callable[[], bool]) -> Iterator[FoundOrder]:
        """Check so many, or until the time is over, and give those that fail."""
        for number in range(count):
            if is_over():
                return
            choose = self._by_priorities() if number % 2 else self._at_random()
            crash_at = self._random.randrange(self._longest + 1) if self._crashes else None
            found = self._run(choose, crash_at)
            self.checked += 1
            if found is not None:
                self.failed += 1
                yield found

    def _at_random(self) -> Choose:
        return lambda number, ready: self._random.choice(ready)

    def _by_priorities(self) -> Choose:
        count = len(self._case.programs)
        ranks = self._random.sample(range(count), count)
        changes = {self._random.randrange(self._longest) for _ in range(self._random.randint(0, _CHANGES_MAX))}

        def choose(number: int, ready: Sequence[int]) -> int:
            highest = max(ready, key=ranks.__getitem__)
            if number in changes:
                ranks[highest] = min(ranks) - 1
                highest = max(ready, key=ranks.__getitem__)
            return highest

        return choose

    def _run(self, choose: Choose, crash_at: int | None) -> FoundOrder | None:
        moves: list[Move] = []
        try:
            return self._run_on_new_store(choose, crash_at, moves)
        except BaseException as error:
            self._case.note_end(error, moves)
            raise

    def _run_on_new_store(self, choose: Choose, crash_at: int | None, moves: list[Move]) -> FoundOrder | None:
        world, store = self._case.begin()
        switches, last = 0, -1
        try:
            while ready := world.ready():
                if len(moves) == self._case.requests_limit:
                    return FoundOrder(tuple(moves), switches, self._case.hang())
                move = choose(len(moves), ready)
                switches += last in ready and move != last
                last = move
                if len(moves) == crash_at:
                    move = self._as_crash(move, world)
                moves.append(move)
                task = world.tasks[last]
                step = LastStep(last, task.asked, task.request)
                world.play(move)
                broken = self._case.broken(world, step)
                if broken is not None:
                    return FoundOrder(tuple(moves), switches, broken)
            problem = self._case.judge(world)
            return None if problem is None else FoundOrder(tuple(moves), switches, problem)
        finally:
            self._longest = max(self._longest, len(moves))
            self.most_switches = max(self.most_switches, switches)
            world.close()
            store.close()

    def _as_crash(self, move: int, world: World) -> Move:
        is_carried_out = may_change(world.tasks[move].request) and self._random.random() < 0.5
        return move + (2 if is_carried_out else 1) * len(self._case.programs)
