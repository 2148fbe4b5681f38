"""Going through the interleavings in order: depth first, each on a new store, from the start.

At each step it is a program's turn. The first interleaving lets each program go to its end; the next one differs as
late as possible, and so on. What programs ask in the part that two have in common must be the same, else they are not
deterministic.

**Reduction.** Steps that touch different things may change places (`interpreters.schedule.footprint`), and orders that
differ only in such steps lead to the same state. A state is known by the clocks of the steps that led to it, and one
that was reached before is not gone on from. So of equal interleavings one is checked. Where switches are bounded, a
state counts as reached before only if that took no more switches, and the same program had the turn.
"""

from collections.abc import Iterator
from typing import Any

from interpreters.crash.effect_faults import WRITES, is_own
from interpreters.crash.effect_runs import Problem
from interpreters.schedule.case import Case, Found
from interpreters.schedule.footprint import Causes
from interpreters.schedule.requests import Sleep
from interpreters.schedule.world import Move, Task, World

FAULTS = ("switch", "crash-before", "crash-during")

Place = tuple[int, int, str]
"""A program, the number of its request, and what happened there: one of the `FAULTS`."""


class _Node:
    """A state on the way, the move that is tried there, and those that are not tried yet."""

    __slots__ = (
        "after", "can_stay", "event", "failed", "has_crashed", "last", "move", "place", "request", "runs", "switches",
        "untried",
    )  # fmt: skip

    def __init__(self, last: int, switches: int, *, has_crashed: bool) -> None:
        self.last = last
        self.switches = switches
        self.has_crashed = has_crashed
        self.can_stay = False
        self.move: Move = 0
        self.untried: list[Move] = []
        self.request: Any = None
        self.place: Place | None = None
        self.event: tuple[int, int, tuple[int, ...]] = (0, 0, ())
        self.after: tuple[int, ...] = ()
        self.runs = 0
        self.failed = 0


class Ordered:
    """All interleavings of a case with at most ``bound`` switches away from programs that could go on."""

    def __init__(self, case: Case, *, bound: int | None, reduce: bool, crashes: bool, has_order: bool = False) -> None:
        self.checked = self.equal = self.failed = 0
        self.most_switches = 0
        self.is_finished = False
        self.is_cut = False
        """Whether the bound kept any interleaving out."""
        self.sees_positions = False
        self.places: dict[Place, list[int]] = {}
        """How many interleavings had a switch or a crash at each place, and how many of them failed."""
        self.requests: dict[tuple[int, int], Any] = {}
        """What each program first asked at each place."""
        self._case = case
        self._count = len(case.programs)
        self._bound = bound
        self._crashes = crashes
        self._path: list[_Node] = []
        self._causes = Causes(self._count, has_order=has_order) if reduce else None
        self._histories: dict[tuple[int, tuple[int, ...], int], int] = {}
        self._reached: dict[tuple[int, ...], int] = {}

    def failures(self, limit: int | None = None) -> Iterator[Found]:
        """Check them, at most so many, and give those that fail."""
        while not self.is_finished and (limit is None or self.checked + self.equal < limit):
            problem = self._run()
            if self.needs_order:
                return
            if problem is not None:
                self.failed += 1
                yield Found(tuple(node.move for node in self._path), self._switches(), problem)
                if problem.kind in ("hangs", "not deterministic"):
                    break
            self._go_back()
        while self._path:
            self._count_in(self._path.pop())

    def _switches(self) -> int:
        node = self._path[-1] if self._path else None
        return 0 if node is None else node.switches + self._is_switch(node)

    def _is_switch(self, node: _Node) -> bool:
        return node.can_stay and node.move % self._count != node.last

    @property
    def needs_order(self) -> bool:
        """Whether what is equal was judged as if the order of all streams did not count, and it does."""
        return self.sees_positions and self._causes is not None and not self._causes.has_order

    # One interleaving

    def _run(self) -> Problem | None:
        world, store = self._case.begin()
        try:
            problem, is_new = self._go(world)
            if not is_new:
                self.equal += 1
                return None
            if problem is None:
                problem = self._case.judge(world)
            self.checked += 1
            if self._path:
                self._path[-1].runs += 1
                self._path[-1].failed += problem is not None
                self.most_switches = max(self.most_switches, self._switches())
            return problem
        finally:
            self.sees_positions |= world.sees_positions
            if world.live:
                world.close()
            store.close()

    def _go(self, world: World) -> tuple[Problem | None, bool]:
        """Make the moves of an interleaving. Returns what is wrong already, and whether its end is a new one."""
        path, tasks, play, count = self._path, world.tasks, world.play, self._count
        for node in path[:-1]:
            move = node.move
            if tasks[move % count].request != node.request:
                problem = _difference(tasks[move % count], node)
                if problem is not None:
                    return problem, True
            play(move)
        node_now = path[-1] if path else self._next_node(world)
        while node_now is not None:
            if len(path) > self._case.requests_limit:
                return self._case.hang(), True
            self._note(node_now, world)
            play(node_now.move)
            if self._causes is not None and self._was_reached(node_now):
                return None, False
            node_now = self._next_node(world)
        return None, True

    def _next_node(self, world: World) -> _Node | None:
        """The state where the world stands now, with the moves that it has; None where it has none."""
        ready = world.ready()
        if not ready:
            return None
        path = self._path
        if path:
            before = path[-1]
            switches = before.switches + self._is_switch(before)
            node = _Node(
                before.move % self._count, switches, has_crashed=before.has_crashed or before.move >= self._count
            )
        else:
            node = _Node(0, 0, has_crashed=False)
            node.can_stay = False
        last = node.last
        node.can_stay = bool(path) and last in ready
        if node.can_stay:
            node.move = last
            untried = [index for index in reversed(ready) if index != last]
        else:
            node.move = ready[0]
            untried = [*reversed(ready[1:])]
        if self._crashes and not node.has_crashed:
            untried = [*reversed([*self._crashes_at(world, ready)]), *untried]
        if self._bound is not None and node.can_stay and node.switches >= self._bound:
            kept = [move for move in untried if move % self._count == last]
            self.is_cut |= len(kept) < len(untried)
            untried = kept
        node.untried = untried
        path.append(node)
        return node

    def _crashes_at(self, world: World, ready: tuple[int, ...]) -> Iterator[Move]:
        for index in world.live:
            task = world.tasks[index]
            if task.asked > 1:  # else it would only begin again
                yield index + self._count
            if index in ready and may_change(task.request):
                yield index + 2 * self._count

    def _note(self, node: _Node, world: World) -> None:
        index = node.move % self._count
        task = world.tasks[index]
        node.request = task.request
        crash = node.move // self._count
        node.place = None
        if crash or self._is_switch(node):
            stopped = task if crash else world.tasks[node.last]
            node.place = stopped.index, stopped.asked, FAULTS[crash]
            self.requests.setdefault((stopped.index, stopped.asked), stopped.request)
        if self._causes is not None:
            self._note_causes(node, index, crash, self._causes, world)

    def _note_causes(self, node: _Node, index: int, crash: int, causes: Causes, world: World) -> None:
        is_split = world.is_in_operation(world.tasks[index])
        touched = causes.nothing if crash == 1 else causes.footprint(Sleep(0) if is_split else node.request)
        path = self._path
        clock = causes.clock(index, touched, (before.event for before in path[:-1]))
        node.event = index, touched, clock
        before = path[-2].after if len(path) > 1 else (-1,) * self._count
        step = before[index], clock, crash
        number = self._histories.setdefault(step, len(self._histories))
        node.after = (*before[:index], number, *before[index + 1 :])

    def _was_reached(self, node: _Node) -> bool:
        state, switches = node.after, 0
        if self._bound is not None:
            state = (*state, node.move % self._count)
            switches = node.switches + self._is_switch(node)
        fewest = self._reached.get(state)
        if fewest is not None and fewest <= switches:
            return True
        self._reached[state] = switches
        return False

    # From one to the next

    def _go_back(self) -> None:
        """To the last state that has a move which was not tried."""
        path = self._path
        while path:
            node = path[-1]
            if node.untried:
                self._count_in(node, path[-2] if len(path) > 1 else None)
                node.move = node.untried.pop()
                return
            path.pop()
            self._count_in(node, path[-1] if path else None)
        self.is_finished = True

    def _count_in(self, node: _Node, parent: _Node | None = None) -> None:
        parent = parent or (self._path[-1] if self._path and self._path[-1] is not node else None)
        if node.place is not None:
            counts = self.places.setdefault(node.place, [0, 0])
            counts[0] += node.runs
            counts[1] += node.failed
        if parent is not None:
            parent.runs += node.runs
            parent.failed += node.failed
        node.runs = node.failed = 0


def may_change(request: Any) -> bool:
    """Whether a request may leave anything behind."""
    return isinstance(request, WRITES) or (is_own(request) and not isinstance(request, Sleep))


def _difference(task: Task, node: _Node) -> Problem | None:
    if repr(task.request) == repr(node.request):  # as of floats that are no numbers
        return None
    return Problem(
        "not deterministic",
        "a program asks the same where everything before was the same",
        f"it asks {task.request!r:.100} in one run, and {node.request!r:.100} in another",
    )
