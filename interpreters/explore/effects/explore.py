"""Crashes and errors at every request of a program, on any store: `explore_effects`.

A program can be struck only where it asks something of the store, so its requests are counted, and each fault is put
at each of them, every time in a new run on a new store. Requests have numbers from 1 on, over all that happens in
one run: a program that is started anew goes on counting. The parts of an `AllOf` are requests of their own.

=====================  =================================================================================
fault                  what happens at the request
=====================  =================================================================================
crash-before           it is not carried out, and the program is gone
crash-during           it is carried out, and the program is gone before its answer came
crash-after            it is answered, the program goes on to its next request or its end, and is gone
unavailable-once       it raises `StoreUnavailable`, and nothing was carried out
unavailable-for-good   so does every request from here on, until the program has ended
uncertain-written      it raises `UncertainOutcome`, and was carried out (only what writes)
uncertain-unwritten    it raises `UncertainOutcome`, and was not carried out (only what writes)
conflict-once          it is answered with a `Conflict`, and was not carried out (only what expects something)
=====================  =================================================================================

Requests of the user's own, answered by a store's ``effects``, only have the first three.

**Lives.** Where a crash or an error ended a program before its time, its application is started anew on the same
store: all of its programs, from the first one. Any exception may end a program that was struck. One that was not
struck in this life must go to its end. Then the store is checked, once it is at rest.

**What was written.** ``acked`` holds ``(request, answer)`` for each write whose answer a program saw, in order, over
all lives. ``maybe`` holds each write that was carried out though no program saw its answer, and each that raised
`UncertainOutcome`. A write that was never carried out, was refused, or met a conflict is in neither. So what the
store holds lies between ``acked`` alone, and ``acked`` with any of ``maybe``.

**Equal states.** Where nothing was written between two crashes, they leave the same store and the same knowledge: one
of them is checked.
"""

import random
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from interpreters.explore.effects.runs import Application, Asked, FaultyRun, PlacedFaults
from interpreters.explore.faults import AT_A_RESTART, CRASHES, FAULTS, SHARED
from interpreters.explore.inputs import (
    CheckOfWrites,
    ProgramMaker,
    StoreFactory,
    check_program,
    check_stores,
    checked_check,
)
from interpreters.explore.limits import noted
from interpreters.explore.pace import Pace, check_pace
from interpreters.explore.report import NOT_DETERMINISTIC, Failure, FaultCount, Report, told_end
from interpreters.explore.words import named, told_writes, window
from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_integer


def explore_effects(
    program: ProgramMaker | Sequence[ProgramMaker],
    store_factory: StoreFactory,
    check: CheckOfWrites,
    *,
    depth: int = 1,
    restart: bool = True,
    requests_limit: int = 10_000,
    seed: int | None = None,
    limit: int | None = None,
    seconds: float | None = None,
    progress: bool = False,
    repro: str | None = None,
) -> Report:
    """Put each fault at each request of a program, start it anew, and check what the store holds then.

    Lives, faults, ``acked`` and ``maybe`` are explained at the top of this module.

    Args:
        program: A function without arguments that makes a fresh program, or a list of such, which run one after the
            other.
        store_factory: Makes a store of its own for each run; what it fills in is there before the program.
        check: A generator function, given ``(acked, maybe)`` and run on the store at the end, that raises where it
            finds something wrong.
        depth: With 2, a second fault is put at each request that follows, unless the first one alone is a failure.
        restart: Whether the program is started anew; else the check sees what the fault left.
        requests_limit: A program that asks more often in one life hangs.
        seed: Draws the states that are checked where there are more than ``limit``; 0 unless given.
        limit: How many states are checked at the most; None: all.
        seconds: How long it may take. The report says which states were not reached.
        progress: Whether a line on standard error says how far it is.
        repro: The token of a failure, which runs that state alone, as it was found.

    Returns:
        What was explored, and the failures.

    Raises:
        InvalidRequest: If arguments make no sense, before any program runs; if a token fits no request of the program.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> def pay():
    ...     yield from log.append_once("payments", "order 7", "paid", 5)
    >>> def paid_once(acked, maybe):
    ...     assert len((yield from log.read("payments"))) == 1
    >>> report = explore_effects(pay, lambda: open_store("memory:"), paid_once)
    >>> report.verdict, report.checked, report.equal
    ('passed', 8, 0)
    """
    _check_options(depth, restart, requests_limit, seed, limit)
    check_pace(seconds, progress)
    state, restart = (None, restart) if repro is None else _parse(repro)
    application = Application(_checked_programs(program), store_factory, checked_check(check), restart, requests_limit)
    check_stores(store_factory)
    pace = Pace(application.name, seconds, is_told=progress)
    base = _run(application, ())
    again = _run(application, ())
    again.compare(base)
    search = _Search(application, again, depth, pace)
    if state is not None:
        search.repeat(state)
    elif again.problem is not None:
        search.tell_base("nothing but the run without faults", is_exhaustive=False)
    else:
        search.explore(seed, limit)
        pace.end(search.report.checked, search.report.equal, search.report.failure_count)
    return search.report


# The search


def _run(application: Application, state: PlacedFaults) -> FaultyRun:
    with noted(lambda: told_end("effects", _token(state, restart=application.restart))):
        return application.run(state)


_FAILURES_TOLD = 10


class _Next(NamedTuple):
    """A state that may be checked, and the run without its last fault."""

    state: PlacedFaults
    before: FaultyRun


class _Search:
    """Which states there are, which of them are checked, and what is found."""

    def __init__(self, application: Application, base: FaultyRun, depth: int, pace: Pace) -> None:
        self.report = Report(application.name, "effects", depth)
        self._application = application
        self._pace = pace
        self._failed = 0
        self._base = base
        self._cells: dict[tuple[int, str], list[int]] = {}
        self._told: set[tuple[str, str, str]] = set()

    def tell_base(self, bound: str, *, is_exhaustive: bool) -> None:
        """Report the run without faults, and no other."""
        self.report.enumerated = self.report.checked = 1
        self.report.bound, self.report.is_exhaustive = bound, is_exhaustive
        if self._base.problem is not None:
            self._tell((), self._base)

    def repeat(self, state: PlacedFaults) -> None:
        """Run one state alone."""
        token = _token(state, restart=self._application.restart)
        if not state or self._base.problem is not None:
            self.tell_base("the run without faults", is_exhaustive=not state)
            return
        before = run = self._base
        for count, (number, fault) in enumerate(state, 1):
            _check_place(token, number, fault, run, state[count - 2][0] if count > 1 else 0)
            before, run = run, _run(self._application, state[:count])
        run.compare(before, state[-1][0])
        self.report.depth, self.report.enumerated, self.report.bound = len(state), 1, f"the state of {token}"
        self._take_in(state, run)
        self._finish()

    def explore(self, seed: int | None, limit: int | None) -> None:
        """Check every state, or a sample."""
        states = self._states_after((), self._base)
        # Rows and columns stand in the order of the requests and the faults, whatever is drawn.
        for number, asked in enumerate(self._base.asked, 1):
            self._cells.update({(number, fault): [0, 0] for fault in asked.faults})
        depth_reached = 1
        following = self._check_all(self._draw(states, seed, limit))
        if self.report.depth == 2 and self.report.is_exhaustive:
            depth_reached = 2
            self._check_all(self._draw(following, seed, limit))
        count = len(self._base.asked)
        faults = "one fault" if depth_reached == 1 else "up to two faults, none after a failure,"
        started = "started anew afterwards" if self._application.restart else "not started anew"
        self.report.bound = f"{faults} in a program of {count} requests, {started}"
        self._look_whether_it_is_as_at_first()
        self._finish()

    def _look_whether_it_is_as_at_first(self) -> None:
        """Run the program without faults once more: what its runs have left behind anywhere may show by now."""
        last = _run(self._application, ())
        last.compare(self._base)
        if last.problem is not None:
            self.report.is_exhaustive = False
            self._tell((), last)

    def _states_after(self, state: PlacedFaults, run: FaultyRun) -> list[_Next]:
        """The states with one fault more, one of those that are equal."""
        after = state[-1][0] if state else 0
        points = _CrashPoints(run.asked)
        seen: set[tuple[int, int]] = set()
        found: list[_Next] = []
        for number in range(after + 1, len(run.asked) + 1):
            for fault in run.asked[number - 1].faults:
                self.report.enumerated += 1
                if fault in CRASHES:
                    point = points.at(number, fault)
                    if point in seen:
                        self.report.equal += 1
                        continue
                    seen.add(point)
                found.append(_Next((*state, (number, fault)), run))
        return found

    def _draw(self, states: list[_Next], seed: int | None, limit: int | None) -> list[_Next]:
        """As many of the states as may still be checked, in their order."""
        left = len(states) if limit is None else limit - self.report.checked
        if len(states) <= left:
            return states
        self.report.is_exhaustive = False
        self.report.seed = 0 if seed is None else seed
        drawn = random.Random(self.report.seed).sample(range(len(states)), left)  # noqa: S311 - a sample, no secret
        return [states[index] for index in sorted(drawn)]

    def _check_all(self, states: Sequence[_Next]) -> list[_Next]:
        """Check these states, as far as the time goes, and return those that follow."""
        following: list[_Next] = []
        for place, (state, before) in enumerate(states):
            if self.report.checked and self._pace.is_over():
                self._note_not_reached(states[place:])
                break
            self._pace.tell(self.report.checked, self.report.equal, self._failed)
            run = _run(self._application, state)
            run.compare(before, state[-1][0])
            self._take_in(state, run)
            if len(state) < self.report.depth and run.problem is None and self.report.is_exhaustive:
                following += self._states_after(state, run)
        return following

    def _note_not_reached(self, states: Sequence[_Next]) -> None:
        (number, fault), *more = states[0].state
        told = f"{len(states):,} states with {'one fault' if not more else 'two faults'}"
        then = ", and those with two" if self.report.depth == 2 and not more else ""
        place = f"{fault} at #{number} {_place(self._base, number)}"
        self.report.is_exhaustive = False
        self.report.not_reached = f"{told}, from {place} on{then}"

    def _take_in(self, state: PlacedFaults, run: FaultyRun) -> None:
        self.report.checked += 1
        # A state with two faults counts for the first of them, whose request every run has.
        cell = self._cells.setdefault(state[0], [0, 0])
        cell[0] += 1
        if run.problem is not None:
            cell[1] += 1
            self._failed += 1
            self._tell(state, run)

    def _tell(self, state: PlacedFaults, run: FaultyRun) -> None:
        """Add a failure, unless one like it was told, which had fewer faults or struck earlier."""
        assert run.problem is not None
        kind, expected, found = run.problem
        likeness = (kind, found, state[-1][1] if state else "")
        if likeness in self._told or len(self.report.failures) == _FAILURES_TOLD:
            return
        self._told.add(likeness)
        places = [f"{fault} at #{number} {_place(run, number)}" for number, fault in state]
        self.report.failures.append(
            Failure(
                kind,
                expected,
                found,
                ", then ".join(places) or "nothing went wrong",
                (*told_writes("acked", [request for request, _ in run.acked]), *told_writes("maybe", run.maybe)),
                tuple(window(run.lines)),
                _token(state, restart=self._application.restart),
                _remedy(state, run),
            )
        )

    def _finish(self) -> None:
        self.report.cells += [
            FaultCount(f"#{number} {_place(self._base, number)}", fault, states, failures)
            for (number, fault), (states, failures) in self._cells.items()
        ]


class _CrashPoints:
    """How much was written, and how much of it the program knew, at each crash: what makes two of them equal."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self._changes = [*accumulate((one.may_change for one in asked), initial=0)]
        self._groups = [one.group for one in asked]
        self._last = {group: number for number, group in enumerate(self._groups, 1)}
        self._first = {group: number for number, group in reversed([*enumerate(self._groups, 1)])}

    def at(self, number: int, fault: str) -> tuple[int, int]:
        """How many requests that may write were carried out, and of how many the program saw the answer."""
        group = self._groups[number - 1]
        if fault == "crash-after":
            seen = self._changes[self._last[group]]
            return seen, seen
        carried_out = number if fault == "crash-during" else number - 1
        return self._changes[carried_out], self._changes[self._first[group] - 1]


def _remedy(state: PlacedFaults, run: FaultyRun) -> str | None:
    if run.problem is not None and run.problem.kind == NOT_DETERMINISTIC:
        return SHARED
    if not state or run.problem is None or run.problem.kind != "check failed":
        return None
    return AT_A_RESTART if run.was_restarted else FAULTS[state[-1][1]].remedy


def _place(run: FaultyRun, number: int) -> str:
    return named(run.asked[number - 1].request) if number <= len(run.asked) else "which was not reached"


# Tokens

_TOKEN = re.compile(r"e1:(no-fault|[1-9][0-9]{0,8}:[a-z-]+(?:,[1-9][0-9]{0,8}:[a-z-]+)?)(:no-restart)?")


def _token(state: PlacedFaults, *, restart: bool) -> str:
    faults = ",".join(f"{number}:{fault}" for number, fault in state)
    return f"e1:{faults or 'no-fault'}{'' if restart else ':no-restart'}"


def _parse(token: str) -> tuple[PlacedFaults, bool]:
    """The state that a token names, and whether the application is started anew in it."""
    found = _TOKEN.fullmatch(token) if type(token) is str else None
    if found is None:
        raise _refused(token, "it is not a token of a failure, such as 'e1:13:crash-during': copy it whole")
    if found[1] == "no-fault":
        return (), found[2] is None
    pairs = [part.split(":") for part in found[1].split(",")]
    for _, fault in pairs:
        if fault not in FAULTS:
            raise _refused(token, f"{fault!r} is not a fault: it is one of {', '.join(FAULTS)}")
    return tuple((int(number), fault) for number, fault in pairs), found[2] is None


def _check_place(token: str, number: int, fault: str, run: FaultyRun, after: int) -> None:
    """Refuse a fault at a request that is not there, or does not have it."""
    count = len(run.asked)
    if not after < number <= count:
        there = f"requests #{after + 1} to #{count}" if after < count else f"no request after #{after}"
        raise _refused(token, f"it names request #{number}, and there are {there}")
    faults = run.asked[number - 1].faults
    if fault not in faults:
        raise _refused(token, f"request #{number} is {_place(run, number)}, which has only {', '.join(faults)}")


def _refused(token: object, why: str) -> InvalidRequest:
    return InvalidRequest(f"the token {token!r:.200} cannot be run: {why}")


# The door


def _check_options(depth: int, restart: bool, requests_limit: int, seed: int | None, limit: int | None) -> None:
    check_integer("depth", depth, 1, 2)
    check_integer("requests_limit", requests_limit, 1)
    if type(restart) is not bool:
        raise InvalidRequest(f"restart is {describe(restart)}: give a bool")
    if seed is not None:
        check_integer("seed", seed)
    if limit is not None:
        check_integer("limit", limit, 1)


def _checked_programs(program: ProgramMaker | Sequence[ProgramMaker]) -> tuple[ProgramMaker, ...]:
    programs: tuple[Any, ...] = tuple(program) if isinstance(program, list | tuple) else (program,)
    if not programs:
        raise InvalidRequest("program is an empty list: give a function that makes a program, or several")
    for make in programs:
        check_program(make)
    return programs
