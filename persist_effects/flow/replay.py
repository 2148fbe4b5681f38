"""The replay core: a flow's program, its branches, and the requests that they wait with. It performs nothing.

A flow is a program whose requests are answered twice: when it is run, and again, from its journal, each time that it is
taken up. So what it does next may follow from nothing but its answers and their order. The program stands at its
*frontier*, the requests that wait for an outcome; whoever drives it feeds one outcome at a time, live or from a
journal, and the frontier moves. The same outcomes in the same order always lead to the same frontier.

A request is known by its **path**: the ordinal of the step within its branch, behind the path of the branch. The third
step of a flow is ``(3,)``. Where that is two branches that go on together, the second step of the first of them is
``(3, 1, 2)``. A path is given when the request is yielded, never by what is in it.

What goes on together is asked with `Branches`, or with a plain `AllOf`, whose parts are branches of one step. Each is
resumed at its own outcome. Where a branch fails, or another has won, those that go on are cancelled: `Cancelled` is
raised where they wait, their requests are *withdrawn*, and what their ``finally`` blocks ask for is asked as ever.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from types import GeneratorType
from typing import Any, cast

from persist_effects.contexts import RunIn, own_contexts, runs_of
from persist_effects.errors import Cancelled, FlowContinued, NotAProgram
from persist_effects.flow.requests import Branches, Patched
from persist_effects.machine import Effect, check_fresh, check_returned, next_request, perform
from persist_effects.programs import refused
from persist_effects.requests import AllOf, Answered, Failed, Outcome, Request
from persist_effects.source import source_of
from persist_effects.spinning import give_up

Path = tuple[int, ...]
"""Where a step stands in its flow: ordinals from 1 on, of a step, of a branch of that step, of a step of that, …"""

FlowEnd = Answered | Failed | Cancelled | FlowContinued
"""How a program ended: its value, the error that it raised, that it was cancelled, or that it goes on as a new run."""

_ENDINGS = (Cancelled, FlowContinued)


class Branch:
    """A program of a flow: the flow's own, or one of several that go on together in a step of another."""

    __slots__ = ("group", "is_cancelled", "joined", "ordinal", "path", "place", "program", "request", "run_in")

    def __init__(self, program: Effect[Any], path: Path, run_in: RunIn, group: "_Group | None", place: int) -> None:
        self.program = program
        self.path = path
        self.run_in = run_in
        self.group = group
        """The step of another branch that this one is a part of."""
        self.place = place
        self.ordinal = 0
        self.request: Request[Any] | None = None
        """What it waits with."""
        self.joined: _Group | None = None
        """The branches that it waits for."""
        self.is_cancelled = False


class _Group:
    """Branches that go on together in one step, and what came of each."""

    __slots__ = ("branches", "ends", "is_cancelled", "left", "mode", "parent", "settled_by")

    def __init__(self, parent: Branch, mode: str, count: int) -> None:
        self.parent = parent
        self.mode = mode
        self.ends: list[FlowEnd | None] = [None] * count
        self.branches: list[Branch] = []
        self.left = count
        # Together with the program that waits for it.
        self.is_cancelled = False
        # The place of the branch that has won, or that was the first to fail.
        self.settled_by: int | None = None


class Replay:
    """A flow's program at its frontier.

    Args:
        program: A fresh program.
        patched: Decides whether a change is in force: see `persist_effects.flow.patched`.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import Answered
    >>> def both():
    ...     return (yield from kv.has("color")), (yield from kv.has("size"))
    >>> replay = Replay(both())
    >>> replay.begin()
    >>> replay.waiting[1,].request
    KvHas(key='color')
    >>> replay.feed((1,), Answered(True)), list(replay.waiting)
    (None, [(2,)])
    >>> replay.feed((2,), Answered(False)), replay.end
    (None, Answered(value=(True, False)))
    """

    __slots__ = ("_patched", "_ready", "_root", "asked", "end", "waiting", "withdrawn")

    def __init__(self, program: Effect[Any], patched: Callable[[str], bool] | None = None) -> None:
        check_fresh(program)
        self._root = Branch(program, (), own_contexts([program])[0], None, 0)
        self._patched = patched or (lambda change: True)
        # Branches that go on next, in that order, each with the call that makes it do so.
        self._ready: OrderedDict[Branch, tuple[Callable[[Any], Any], Any]] = OrderedDict()
        self.waiting: dict[Path, Branch] = {}
        """The frontier: what waits for an outcome, in the order in which it was asked."""
        self.asked: deque[Path] = deque()
        """Paths that were added to the frontier. Whoever drives the flow takes them out."""
        self.withdrawn: list[Path] = []
        """Paths that were taken from the frontier without an outcome. Whoever drives the flow takes them out."""
        self.end: FlowEnd | None = None
        """How the flow ended; None while it goes on."""

    def begin(self) -> None:
        """Run the program to its first frontier."""
        self._go_on(self._root, self._root.program.send, None)
        if self._ready:
            self._run()

    def feed(self, path: Path, outcome: Outcome) -> None:
        """Give the request at a path its outcome, and go on to the next frontier.

        Args:
            path: One of those that wait.
            outcome: Its answer, or the error that is raised there.

        Raises:
            KeyError: If none waits there.
        """
        if type(outcome) is Answered:
            self.answer(path, outcome.value)
            return
        branch = self.waiting.pop(path)
        branch.request = None
        self._go_on(branch, branch.program.throw, cast(Failed, outcome).error)
        if self._ready:
            self._run()

    def answer(self, path: Path, value: Any) -> None:
        """Give the request at a path its answer, and go on to the next frontier.

        Args:
            path: One of those that wait.
            value: Its answer.

        Raises:
            KeyError: If none waits there.
        """
        branch = self.waiting.pop(path)
        branch.request = None
        self._go_on(branch, branch.program.send, value)
        if self._ready:
            self._run()

    def cancel(self) -> None:
        """Cancel the flow: `Cancelled` is raised where it waits. Again, or once it has ended: nothing."""
        if self.end is None:
            self._cancel(self._root)
            self._run()

    @property
    def is_cancelled(self) -> bool:
        """Whether the flow as a whole was cancelled."""
        return self._root.is_cancelled

    def source(self, path: Path) -> str:
        """Where in its source the program waits at a path; that of the whole flow where none waits there."""
        branch = self.waiting.get(path)
        return source_of((branch or self._root).program)

    def close(self) -> None:
        """Let go of the program as if its process were gone: what its ``finally`` blocks ask for reaches nobody."""
        self._ready.clear()
        branches = [self._root]
        while branches:
            branch = branches.pop()
            if branch.joined is not None:
                branches.extend(branch.joined.branches)
            give_up(branch.program)
        self.waiting.clear()
        self.asked.clear()

    # Steps

    def _run(self) -> None:
        ready = self._ready
        while ready:
            branch, (go_on, value) = ready.popitem(last=False)
            self._go_on(branch, go_on, value)

    def _go_on(self, branch: Branch, go_on: Callable[[Any], Any], value: Any) -> None:
        """Run a branch until it waits, or ends."""
        program = branch.program
        try:
            request: Any = branch.run_in(go_on, value)
            while True:
                if not isinstance(request, Request):
                    request = branch.run_in(next_request, program, request)
                kind = type(request)
                if kind is not Patched:
                    break
                request = branch.run_in(program.send, self._patched(cast(Patched, request).change))
        except BaseException as error:
            self._ended(branch, _end_by(program, error))
        else:
            branch.ordinal += 1
            if kind is Branches:
                asked = cast(Branches, request)
                self._join(branch, asked.mode, asked.programs, branch.run_in(own_contexts, asked.programs))
            elif kind is AllOf:
                parts = cast(AllOf, request)
                self._join(branch, "parts", [perform(part) for part in parts.requests], list(runs_of(parts)))
            else:
                path = (*branch.path, branch.ordinal)
                branch.request = request
                self.waiting[path] = branch
                self.asked.append(path)

    def _join(self, parent: Branch, mode: str, programs: Sequence[Effect[Any]], runs: Sequence[RunIn]) -> None:
        group = parent.joined = _Group(parent, mode, len(programs))
        if not programs:
            self._settle(group)
            return
        path = (*parent.path, parent.ordinal)
        for place, (program, run_in) in enumerate(zip(programs, runs, strict=True)):
            branch = Branch(program, (*path, place + 1), run_in, group, place)
            group.branches.append(branch)
            # Behind what is ready already: the order of steps is that in which they came about.
            self._ready[branch] = program.send, None

    def _ended(self, branch: Branch, end: FlowEnd) -> None:
        group = branch.group
        if group is None:
            self.end = end
            return
        group.ends[branch.place] = end
        group.left -= 1
        if group.settled_by is None and not group.is_cancelled and _settles(group.mode, end):
            group.settled_by = branch.place
            self._cancel_all(group)
        if not group.left:
            self._settle(group)

    def _settle(self, group: _Group) -> None:
        """Go on with the program that waits for branches, now that all of them have ended."""
        parent = group.parent
        parent.joined = None
        if group.is_cancelled:
            self._ready[parent] = parent.program.throw, _with_notes(Cancelled(), group, None)
            return
        result = _result_of(group)
        if isinstance(result, Answered):
            self._ready[parent] = parent.program.send, result.value
        else:
            self._ready[parent] = parent.program.throw, result

    # Cancellation

    def _cancel_all(self, group: _Group) -> None:
        for branch in group.branches:
            if group.ends[branch.place] is None:
                self._cancel(branch)

    def _cancel(self, branch: Branch) -> None:
        """Raise `Cancelled` where a branch waits: in its own branches first, if it waits for such."""
        if branch.is_cancelled:
            # It is cleaning up.
            return
        branch.is_cancelled = True
        if branch.joined is not None:
            branch.joined.is_cancelled = True
            self._cancel_all(branch.joined)
        elif branch.request is not None:
            path = (*branch.path, branch.ordinal)
            del self.waiting[path]
            self.withdrawn.append(path)
            branch.request = None
            self._ready[branch] = branch.program.throw, Cancelled()
        else:
            # It is about to go on, or was never begun, which comes to the same: nothing of it was asked.
            self._ready.pop(branch)
            self._ready[branch] = branch.program.throw, Cancelled()


def _end_by(program: Effect[Any], error: BaseException) -> FlowEnd:
    """How a program ended that has raised this. Interrupts are raised on."""
    if isinstance(error, StopIteration):
        return _returned(program, error.value)
    if isinstance(error, _ENDINGS):
        return error
    if isinstance(error, Exception):
        return Failed(error)
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        raise error
    # Such as SystemExit: a flow ends itself, and not its host.
    return Failed(RuntimeError(f"the flow raised {error!r}"))


def _returned(program: Effect[Any], value: Any) -> FlowEnd:
    if type(value) is GeneratorType:
        try:
            check_returned(program, value)
        except NotAProgram as error:
            return Failed(error)
    return Answered(value)


def _settles(mode: str, end: FlowEnd) -> bool:
    """Whether a branch that ended so decides what becomes of all."""
    if mode == "first":
        return True
    return mode == "all" and not isinstance(end, Answered)


def _result_of(group: _Group) -> Answered | BaseException:
    """What the program that waits for branches goes on with: an answer, or an error that is raised."""
    ends = cast(list[FlowEnd], group.ends)
    if group.mode == "parts":
        # Requests end with outcomes, and are cancelled only with the program that asks.
        return Answered(ends)
    if group.settled_by is None:
        return Answered(tuple(cast(Answered, end).value for end in ends))
    settled = ends[group.settled_by]
    if not isinstance(settled, Answered):
        error = settled.error if isinstance(settled, Failed) else settled
        return _with_notes(error, group, group.settled_by)
    # A branch that lost has raised something else where it cleaned up: that must not be lost.
    for place, end in enumerate(ends):
        if isinstance(end, Failed) and place != group.settled_by:
            end.error.add_note(
                f"branch {place + 1} raised it while it cleaned up: branch {group.settled_by + 1} had won"
            )
            return _with_notes(end.error, group, place)
    return Answered((group.settled_by, settled.value))


def _with_notes(error: BaseException, group: _Group, but: int | None) -> BaseException:
    """An error that says what else branches raised."""
    for place, end in enumerate(group.ends):
        if place != but and isinstance(end, Failed):
            error.add_note(f"branch {place + 1} raised {type(end.error).__name__}: {end.error}")
    return error


def release(programs: Iterable[object]) -> None:
    """Say of programs that they were given to be run and are not, and close them."""
    for program in programs:
        refused(program)
        if isinstance(program, GeneratorType):
            program.close()
