"""Going through the interleavings in order: depth first, each on a new store, from the start.

At each step it is a program's turn. The first interleaving lets each program go to its end; the next one differs as
late as possible, and so on. What programs ask in the part that two have in common must be the same, else they are not
deterministic.

**Reduction.** Steps that touch different things may change places (`footprint`), and orders that
differ only in such steps lead to the same state. So of equal interleavings one is checked, in one of two ways.

*Races.* Two steps of different programs that touch the same thing, with nothing between that had to come between, are
a race. Another interleaving is gone through only where some race comes the other way round: `races` beside this
module. A program whose move was tried is asleep from there on, until another one touches what it would touch, since
what begins with it was checked. So who only reads, and who touches nothing that others do, costs nothing.

*States.* Where switches are bounded, or programs crash, a race may not be turned round as it stands. A state is then
known by the clocks of the steps that led to it, and one that was reached before is not gone on from; where switches
are bounded, only if that took no more switches, and the same program had the turn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from interpreters.explore.faults import is_own
from interpreters.explore.pace import never_over
from interpreters.explore.report import NOT_DETERMINISTIC, Problem
from interpreters.explore.schedule.case import Case, FoundOrder, LastStep
from interpreters.explore.schedule.footprint import WATCHED, Touched
from interpreters.explore.schedule.kept import KeptStore, can_be_told_again
from interpreters.explore.schedule.races import CausedStep, Causes, firsts_without
from interpreters.explore.schedule.replayed import Then, in_turn, on_from_last_backwards
from interpreters.explore.schedule.sameness import told_difference
from interpreters.explore.schedule.world import Move, Task, World
from interpreters.explore.words import are_alike, named
from persist_effects.requests import CHANGES, TIMES, Outcome, Sleep

FAULTS = ("switch", "crash-before", "crash-during")


class Turn(NamedTuple):
    """Whose turn it is, and which programs other orders begin with at the same place, that are gone through before."""

    move: Move
    before: tuple[int, ...]


OrderBeginning = tuple[Turn, ...]
"""How the orders begin that are gone through."""

SwitchPlace = tuple[int, int, str]
"""A program, the number of its request, and what happened there: one of the `FAULTS`."""


class _Node:
    """A state on the way, the move that is tried there, and those that are not tried yet."""

    __slots__ = (
        "after", "answer", "asker", "asleep", "broken", "can_stay", "event", "failed", "has_crashed", "last", "mark",
        "move", "place", "ready", "request", "runs", "spent", "standing", "switches", "untried",
    )  # fmt: skip

    def __init__(self, last: int, switches: int, *, can_stay: bool, has_crashed: bool) -> None:
        self.last = last
        self.switches = switches
        self.can_stay = can_stay
        self.has_crashed = has_crashed
        self.runs = 0
        self.failed = 0
        # What follows is filled in when the moves are known, and when one is tried.
        self.move: Move
        self.untried: list[Move]
        self.mark: int
        """Where a store that is kept stands before the move."""
        self.standing: list[Any]
        self.asker: int
        self.request: Any
        self.spent: int
        self.place: SwitchPlace | None
        self.event: CausedStep
        self.ready: tuple[int, ...]
        self.asleep: dict[int, int] = {}
        """The programs whose moves need not be tried here, each with the number of its request's footprint."""
        self.after: tuple[int, ...]
        self.answer: Any
        self.broken: Problem | None = None
        """What the invariant says of the state that the move leads to."""


class Ordered:
    """All interleavings of a case with at most ``bound`` switches away from programs that could go on."""

    def __init__(
        self,
        case: Case,
        *,
        bound: int | None,
        reduce: bool,
        crashes: bool,
        orders: frozenset[Touched] = frozenset(),
        beginning: OrderBeginning = (),
    ) -> None:
        self.checked = self.equal = self.failed = 0
        self.most_switches = 0
        self.is_finished = False
        self.not_reached = ""
        """What was not gone through, where not all was, as far as that is known."""
        self.is_cut = False
        """Whether the bound kept any interleaving out."""
        self.orders_seen: frozenset[Touched] = frozenset()
        """Which orders, of all streams or of all keys, anything has asked for."""
        self.places: dict[SwitchPlace, list[int]] = {}
        """How many interleavings had a switch or a crash at each place, and how many of them failed."""
        self.labels: dict[tuple[int, int], str] = {}
        """What each program first asked at each place, in words."""
        self._case = case
        self._count = len(case.programs)
        self._bound = bound
        self._beginning = beginning
        self._crashes = crashes
        self._path: list[_Node] = []
        self._tail: list[Move] = []
        self._is_watched = case.invariant is not None
        counting = orders | {WATCHED} if self._is_watched else orders
        self._causes = Causes(self._count, orders=counting) if reduce else None
        self._is_by_races = reduce and bound is None and not crashes
        self._kept = case.kept_store() if reduce else None
        """The store of all orders. What it has answered is known of each node where orders are reduced."""
        self._histories: dict[tuple[int, tuple[int, ...], int], int] = {}
        self._touched: dict[tuple[int, int], int] = {}
        """By program and history: the number of the footprint of what it asks then."""
        self._reached: dict[tuple[int, ...], int] = {}
        self._known: dict[int, tuple[Any, Any]] = {}
        """By history and program: what it was answered at the end of it, and where it stood then."""

    def failures(self, limit: int | None = None, is_over: Callable[[], bool] = never_over) -> Iterator[FoundOrder]:
        """Check them, at most so many, until the time is over, but one at the least, and give those that fail."""
        if self._is_by_races and not self._beginning:
            found = [*self.failures_in_other_orders()]
            self.failed += len(found)
            yield from found
            if self.lacks_order:
                return
        while not self.is_finished and (limit is None or self.checked + self.equal < limit):
            if self.checked and is_over():
                break
            problem = self._run()
            if self.lacks_order:
                return
            if problem is not None:
                self.failed += 1
                yield self._found(problem)
                if problem.kind in ("hangs", NOT_DETERMINISTIC):
                    break
            self._go_back()
        self._note_not_reached()
        while self._path:
            self._count_in(self._path.pop())

    def _found(self, problem: Problem) -> FoundOrder:
        """The order that was gone through; up to where its invariant was broken, if that is what is wrong."""
        path, tail = self._path, self._tail
        place = next((place for place, node in enumerate(path, 1) if node.broken is problem), None)
        if place is not None:
            path, tail = path[:place], []
        return FoundOrder((*(node.move for node in path), *tail), path[-1].spent if path else 0, problem)

    def _note_not_reached(self) -> None:
        if self.is_finished or not self._path:
            return
        first = self._path[0]
        untried = {move % self._count for move in first.untried}
        if self._is_by_races:
            # More of them may be needed than is known by now.
            untried = {index for index in first.ready if index != first.move and index not in first.asleep}
        begin = ", ".join(self._case.names[index] for index in sorted(untried))
        parts = [f"orders that begin with {begin}"] if begin else []
        places = sum(len(node.untried) for node in self._path[1:])
        if places:
            parts.append(f"{places:,} or more moves on the way of the last order, and what follows them")
        self.not_reached = "; ".join(parts)

    @property
    def lacks_order(self) -> bool:
        """Whether what is equal was judged as if the order of all streams, or keys, did not count, and it does."""
        return self._causes is not None and not self.orders_seen <= self._causes.orders

    def failures_in_other_orders(self) -> Iterator[FoundOrder]:
        """Failures where a program stands elsewhere after the same answers, in orders that may equal the first one.

        They are not counted: without a race there is one interleaving, which has nothing to be compared with.
        """
        for then in (in_turn, on_from_last_backwards):
            problem = self._difference_in_another_order(then)
            if self.lacks_order:
                self._path.clear()
                return
            if problem is not None:
                self.is_finished = True
                yield FoundOrder(tuple(node.move for node in self._path), self._path[-1].spent, problem)
            self._path.clear()
            if problem is not None:
                return

    def _difference_in_another_order(self, then: Then) -> Problem | None:
        world, store = self._case.begin()
        try:
            while len(self._path) < self._case.requests_limit and (node := self._next_node(world)) is not None:
                node.move = then(node.last, node.ready)
                self._note(node, world)
                world.play(node.move)
                problem = self._difference_from_known(node, world.tasks[node.asker])
                if problem is not None:
                    return problem
            return None
        except BaseException as error:
            self._case.note_end(error, tuple(node.move for node in self._path))
            raise
        finally:
            self.orders_seen |= world.orders_seen
            world.close()
            store.close()

    # One interleaving

    def _run(self) -> Problem | None:
        self._tail = []
        try:
            return self._run_on_new_store() if self._kept is None else self._run_on_kept_store(self._kept)
        except BaseException as error:
            self._case.note_end(error, (*(node.move for node in self._path), *self._tail))
            raise

    def _run_on_new_store(self) -> Problem | None:
        world, store = self._case.begin()
        try:
            return self._run_in(world)
        finally:
            store.close()

    def _run_on_kept_store(self, kept: KeptStore) -> Problem | None:
        return self._run_in(World(self._case.programs, kept.new_rows()))

    def _run_in(self, world: World) -> Problem | None:
        try:
            problem, is_new = self._go(world)
            if not is_new:
                self.equal += 1
                return None
            if problem is None and self._is_watched:
                problem = next((node.broken for node in self._path if node.broken is not None), None)
            if problem is None:
                problem = self._case.judge(world)
            self.checked += 1
            if self._path:
                end = self._path[-1]
                end.runs += 1
                end.failed += problem is not None
                self.most_switches = max(self.most_switches, end.spent)
            return problem
        finally:
            self.orders_seen |= world.orders_seen
            if world.live:
                world.close()

    def _go(self, world: World) -> tuple[Problem | None, bool]:
        """Make the moves of an interleaving. Returns what is wrong already, and whether its end is a new one."""
        path, limit = self._path, self._case.requests_limit
        problem = self._go_to_last(world)
        if problem is not None:
            return problem, True
        node = path[-1] if path else self._next_node(world)
        while node is not None:
            self._note(node, world)
            if self._is_watched:
                # What follows is gone through also where it is broken, for the races in it.
                last = LastStep(node.asker, world.tasks[node.asker].asked, node.request)
                world.play(node.move)
                node.broken = self._case.broken(world, last)
            else:
                world.play(node.move)
            if self._causes is not None:
                problem = self._difference_from_known(node, world.tasks[node.asker])
                if problem is not None:
                    return problem, True
                if not self._is_by_races and self._was_reached(node):
                    return None, False
            if len(path) + len(self._tail) > limit:
                return self._case.hang(), True
            node = self._next_node(world)
        if self._is_by_races and world.live:
            if world.ready():
                return None, False  # all that could go on are asleep
            self._note_races_of_waiting(world)
        return (self._case.hang() if len(self._tail) > limit else None), True

    def _go_to_last(self, world: World) -> Problem | None:
        """Make the moves that this interleaving has in common with the one before."""
        tasks, step_here, count = world.tasks, world.step_here, self._count
        kept, is_told = self._kept, self._kept is not None
        for node in self._path[:-1]:
            move = node.move
            task = tasks[move % count]
            if task.request != node.request and not are_alike(task.request, node.request):
                return self._difference(task, node.request)
            if kept is not None and is_told:
                if move < count and can_be_told_again(task, node.request, node.answer):
                    task.run_in(world.tell_here, task, node.answer)
                    continue
                # From here on the store is asked again, for it is not known in between.
                kept.rewind(node.mark)
                is_told = False
            if move < count:
                task.run_in(step_here, task)
            else:
                world.play(move)
            node.answer = task.answer
        if kept is not None and is_told:
            kept.rewind(self._path[-1].mark if self._path else 0)
        return self._difference_at_last(tasks)

    def _difference_at_last(self, tasks: Sequence[Task]) -> Problem | None:
        """Another move is tried there, so all programs must stand where they stood before."""
        if not self._path:
            return None
        standing = [task.request for task in tasks]
        before = self._path[-1].standing
        if standing != before:
            for task, request in zip(tasks, before, strict=True):
                if not are_alike(task.request, request):
                    return self._difference(task, request)
        return None

    def _difference(self, task: Task, before: Any, when: str = "the first time") -> Problem:
        stands = task.outcome if task.outcome is not None and isinstance(before, Outcome) else task.request
        number = task.asked + (task.request is None)
        return told_difference(self._case.names[task.index], number, before, stands, when)

    def _next_node(self, world: World) -> _Node | None:
        """The state where the world stands now, with the moves that it has; None where it has no choice any more."""
        ready = world.ready()
        if not ready:
            return None
        path, count = self._path, self._count
        if path:
            before = path[-1]
            last = before.move % count
            has_crashed = before.has_crashed or before.move >= count
            node = _Node(last, before.spent, can_stay=last in ready, has_crashed=has_crashed)
        else:
            node = _Node(-1, 0, can_stay=False, has_crashed=False)
        may_crash = self._crashes and not node.has_crashed
        if self._causes is None and len(world.live) == 1 and not may_crash and not self._is_watched:
            task = world.tasks[ready[0]]
            task.run_in(self._go_to_end, world, task)
            return None
        node.standing = [task.request for task in world.tasks]
        node.ready = ready
        if self._is_by_races:
            return self._node_by_races(node, world)
        if len(path) < len(self._beginning):
            node.move, node.untried = self._beginning[len(path)].move, []
            path.append(node)
            return node
        node.move = node.last if node.can_stay else ready[0]
        node.untried = [index for index in reversed(ready) if index != node.move]
        if may_crash:
            node.untried = [*reversed([*self._crashes_at(world, ready)]), *node.untried]
        if self._bound is not None and node.can_stay and node.switches >= self._bound:
            self._forbid_switches(node)
        path.append(node)
        return node

    def _node_by_races(self, node: _Node, world: World) -> _Node | None:
        """The state with one move to try, None where all are asleep. Races that are found later add others."""
        path, causes = self._path, self._causes
        assert causes is not None, "races are found by the causes"
        if path:
            touched = path[-1].event[1]
            node.asleep = {index: at for index, at in path[-1].asleep.items() if not causes.are_dependent(at, touched)}
        awake: Sequence[int] = [index for index in node.ready if index not in node.asleep]
        if len(path) < len(self._beginning):
            move, before = self._beginning[len(path)]
            for index in before:
                node.asleep.setdefault(index, self._touched_by(world.tasks[index], causes, world))
            awake = [move] if move in awake else []
        if not awake:
            return None
        node.move = node.last if node.last in awake else awake[0]
        node.untried = []
        path.append(node)
        return node

    def _note_races_of_waiting(self, world: World) -> None:
        """The same for programs that wait for ever here: earlier, what they wait for may have been there."""
        causes = self._causes
        assert causes is not None, "races are found by the causes"
        events = [node.event for node in self._path]
        for index in world.live:
            touched = self._touched_by(world.tasks[index], causes, world)
            clock, racing = causes.clock(index, touched, events)
            self._note_races((index, touched, clock), racing, events)

    def _note_races(self, event: CausedStep, racing: Iterable[int], before: Sequence[CausedStep]) -> None:
        """See to it that each race of a step comes the other way round, too."""
        for place in racing:
            if place < len(self._beginning):
                continue  # other beginnings have them the other way round
            node = self._path[place]
            firsts = firsts_without(place, before, event)
            # What waits for a step cannot come before it.
            able = [index for index in firsts if index in node.ready]
            if able and not any(
                index == node.move or index in node.untried or index in node.asleep for index in firsts
            ):
                node.untried.append(able[0])

    def _go_to_end(self, world: World, task: Task) -> None:
        """Let the program that is left go on alone, in its own context."""
        tail, limit, index = self._tail, self._case.requests_limit, task.index
        while world.ready() and len(tail) <= limit:
            tail.append(index)
            world.step_here(task)

    def _forbid_switches(self, node: _Node) -> None:
        kept = [move for move in node.untried if move % self._count == node.last]
        self.is_cut = self.is_cut or len(kept) < len(node.untried)
        node.untried = kept

    def _crashes_at(self, world: World, ready: tuple[int, ...]) -> Iterator[Move]:
        for index in world.live:
            task = world.tasks[index]
            if task.asked > 1:  # else it would only begin again
                yield index + self._count
            if index in ready and may_change(task.request):
                yield index + 2 * self._count

    def _note(self, node: _Node, world: World) -> None:
        """Fill in what is to be known of the move that is tried."""
        if self._kept is not None:
            node.mark = self._kept.mark()
        crash, index = divmod(node.move, self._count)
        task = world.tasks[index]
        node.asker, node.request = index, task.request
        is_switch = node.can_stay and index != node.last
        node.spent = node.switches + is_switch
        node.place = None
        if crash or is_switch:
            stopped = task if crash else world.tasks[node.last]
            node.place = stopped.index, stopped.asked, FAULTS[crash]
            if (stopped.index, stopped.asked) not in self.labels:
                self.labels[stopped.index, stopped.asked] = named(stopped.request)
        if self._causes is not None:
            self._note_causes(node, index, crash, self._causes, world)

    def _note_causes(self, node: _Node, index: int, crash: int, causes: Causes, world: World) -> None:
        path = self._path
        before = path[-2].after if len(path) > 1 else (-1,) * self._count
        # A program asks the same after the same history, or is told of.
        place = index, before[index]
        touched = self._touched.get(place)
        if touched is None:
            touched = self._touched[place] = self._touched_by(world.tasks[index], causes, world)
        if crash == 1:
            touched = causes.nothing
        events = [before.event for before in path[:-1]]
        clock, racing = causes.clock(index, touched, events)
        node.event = index, touched, clock
        if self._is_by_races:
            self._note_races(node.event, racing, events)
        step = before[index], clock, crash
        number = self._histories.setdefault(step, len(self._histories))
        node.after = (*before[:index], number, *before[index + 1 :])

    def _touched_by(self, task: Task, causes: Causes, world: World) -> int:
        """The number of the footprint of the request at which a program stands."""
        request = task.request
        # Of the steps of an operation nothing is known, nor of time where the user answers for it.
        is_unknown = world.is_in_operation(task) or (type(request) in TIMES and type(request) in world.handlers)
        return causes.footprint(Sleep(0) if is_unknown else request)

    def _difference_from_known(self, node: _Node, task: Task) -> Problem | None:
        """Whether a program stands elsewhere than where it stood after the same history, in another order."""
        index, known = task.index, self._known
        stands = task.request if task.outcome is None else task.outcome
        node.answer = task.answer
        key = node.after[index] * self._count + index
        if key not in known:
            known[key] = task.answer, stands
            return None
        before_this = known[key][1]
        if are_alike(before_this, stands):
            return None
        for before in self._path:
            # Equal orders differ in positions and revisions, and any two runs in times.
            if before.asker == index and not are_alike(
                known[before.after[index] * self._count + index][0], before.answer
            ):
                return None
        return self._difference(task, before_this, "after the same answers in another order")

    def _was_reached(self, node: _Node) -> bool:
        state, switches = node.after, 0
        if self._bound is not None:
            state, switches = (*state, node.move % self._count), node.spent
        fewest = self._reached.get(state)
        if fewest is not None and fewest <= switches:
            return True
        self._reached[state] = switches
        return False

    # From one to the next

    def _go_back(self) -> None:
        """To the last state that has a move which was not tried."""
        path = self._path
        while len(path) > len(self._beginning):
            node = path.pop()
            self._count_in(node)
            if self._is_by_races:
                node.asleep[node.asker] = node.event[1]
            if node.untried:
                node.move = node.untried.pop()
                path.append(node)
                return
        self.is_finished = True

    def _count_in(self, node: _Node) -> None:
        """Add the interleavings that had this move to its place, and to those of the state before."""
        if node.place is not None:
            counts = self.places.setdefault(node.place, [0, 0])
            counts[0] += node.runs
            counts[1] += node.failed
        if self._path:
            before = self._path[-1]
            before.runs += node.runs
            before.failed += node.failed
        node.runs = node.failed = 0


def may_change(request: Any) -> bool:
    """Whether a request may leave anything behind."""
    return type(request) in CHANGES or is_own(request)
