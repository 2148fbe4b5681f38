"""Every interleaving of some programs, on any store: `explore`.

Programs meet only where they ask something of the store, so all that can happen is in whose request comes first. Each
interleaving runs from the start, on a store of its own, and is judged in the end.

**Switches.** A switch is a turn that is taken from a program which could have gone on. With a ``bound`` on them, the
interleavings with few switches are checked, which show most bugs.

**Reduction.** Of interleavings that differ only in the order of requests that touch different streams and keys, one is
checked: `footprint` beside this module says which those are, and what positions and revisions have to do with it.
For programs that compute with the numbers of positions or revisions, pass ``reduce=False``.

**Crashes.** With ``crashes=True``, in each interleaving one program may be given up, at any request, before it was
carried out or once it was, and is started anew from its function while the others go on.

**Determinism.** A program is a function of its answers: what it shares with others, or with its own next run, is in
the store. Orders are run again, before all others and after them, every interleaving is compared with the one before
in what they have in common, and states that are taken for equal in where their programs stand.

**Invariants.** With ``invariant=``, what lies between two requests is judged too. It sees which of two writes came
first, wherever they are: so all writes depend on one another then, and only reads are still reduced.

**Linearizability.** With ``linearizable=True`` the answers of the store are judged too:
`interpreters.explore.schedule.linear`. It matters then what came before what in real time, so nothing is reduced.

=================  ===========================================================================================
kind of failure    what happened
=================  ===========================================================================================
check failed       ``check`` raised, in the end
invariant broken   ``invariant`` raised, after some request; the order ends there
raises             without a check: a program raised; "raises in some orders" where other orders pass
polls without end  programs ask the same again and again, and change nothing by it, up to ``requests_limit`` requests
livelock           several programs do so, and change the store each time: each undoes what the other waits for
hangs              the programs asked for more than ``requests_limit`` otherwise
deadlock           all programs that have not ended wait for events for ever
not linearizable   no order of the store's operations explains its answers
undecided          no such order was found in as many tries as are made: there may be one
not deterministic  after the same answers a program asked something else than before, or ended otherwise; or a
                   fresh store answered otherwise
=================  ===========================================================================================
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from interpreters.explore.faults import AT_A_RESTART, SHARED
from interpreters.explore.inputs import (
    CheckOfOutcomes,
    Invariant,
    StoreFactory,
    check_stores,
    checked_invariant,
    trouble_in_a_call,
)
from interpreters.explore.pace import Pace, check_pace
from interpreters.explore.report import (
    ENDLESS,
    INVARIANT_BROKEN,
    LIVELOCK,
    NOT_DETERMINISTIC,
    POLLS,
    UNDECIDED,
    Failure,
    FaultCount,
    Problem,
    Report,
)
from interpreters.explore.schedule.case import Case, FoundOrder
from interpreters.explore.schedule.endless import lines_of_endless, told_as_endless
from interpreters.explore.schedule.footprint import Touched
from interpreters.explore.schedule.nearest import told_nearest
from interpreters.explore.schedule.ordered import FAULTS, Ordered
from interpreters.explore.schedule.programs import Programs, named_programs
from interpreters.explore.schedule.recorded import LocatedWorld, RecordedStep
from interpreters.explore.schedule.replayed import Replayed, in_turn, replay
from interpreters.explore.schedule.sameness import (
    NOT_FRESH,
    difference_now,
    difference_of,
    is_about_stores,
    trials,
)
from interpreters.explore.schedule.sampled import Sampled
from interpreters.explore.schedule.shrink import Shrunk, shrunk
from interpreters.explore.schedule.telling import essence, sourced_steps
from interpreters.explore.schedule.token import ScheduleToken, parsed, refused, token_of
from interpreters.explore.schedule.workers import Split
from interpreters.explore.words import name_of
from interpreters.explore.workers import check_workers
from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_integer

_FAILURES_TOLD = 5

_IN_ORDER, _DRAWN = 0.5, 0.8
"""By when, as a share of the time, interleavings in order end, and drawn ones. The rest makes failures small."""

_DRAWN_MAX = 1_000_000_000
"""How many are drawn where only time ends it: more than anybody has the time for."""


def explore(
    programs: Programs,
    store_factory: StoreFactory,
    check: CheckOfOutcomes | None = None,
    *,
    bound: int | None = None,
    seed: int | None = None,
    limit: int | None = None,
    reduce: bool = True,
    linearizable: bool = False,
    crashes: bool = False,
    invariant: Invariant | None = None,
    requests_limit: int = 1_000,
    seconds: float | None = None,
    progress: bool = False,
    workers: int | None = None,
    repro: str | None = None,
) -> Report:
    r"""Run the programs in every order of their requests, each on a fresh store, and check what comes of it.

    Args:
        programs: Functions without arguments that make fresh programs, in a list, or in a dict by name.
        store_factory: Makes the store of an interleaving; what it fills in is there before the programs.
        check: A generator function, run on the store at the end, that raises where it finds something wrong. It is
            given an `Answered` or a `Failed` for each program, in order; where a failure is made small, perhaps fewer.
            Without a check, a program that raises is a failure.
        bound: How many switches are made at the most; None: any number.
        seed: Draws interleavings where there are more than ``limit``; 0 unless given.
        limit: How many interleavings are gone through in order at the most. Where there are more, as many again are
            drawn, half of them at random and half by priorities. The report says so.
        reduce: Whether orders that lead to the same state are looked at once.
        linearizable: Whether the operations must be explained by some order of them.
        crashes: Whether programs also crash, before a request and after it was carried out.
        invariant: A generator function without arguments, run on the store before the first request and after each,
            that raises where it finds something wrong. It only reads. Which write came first matters then, so of
            orders of writes fewer are equal.
        requests_limit: A program that asks more often hangs.
        seconds: How long it may take: where that is not enough, half of the time is for interleavings in order, the
            rest for drawn ones and for making failures small. The report says what was not reached.
        progress: Whether a line on standard error says how far it is.
        workers: How many processes go through the interleavings, forked from the main thread; None: this one alone. The
            report is the same for any number; without it, only what is counted as equal is less. ``store_factory`` is
            called in each of them. Not with ``bound``, ``limit`` or ``crashes``.
        repro: The token of a failure, which runs that interleaving alone.

    Returns:
        What was explored, and the failures, each made small and with its token.

    Raises:
        InvalidRequest: If arguments make no sense, before any program runs; if a token fits no interleaving.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> def count():
    ...     yield from kv.put("n", (yield from kv.get_or("n", 0)) + 1)
    >>> def counted(outcomes):
    ...     number = yield from kv.get_or("n", 0)
    ...     if number < len(outcomes): raise ValueError(f"{number} of {len(outcomes)}")
    >>> report = explore({"first": count, "second": count}, lambda: open_store("memory:"), counted)
    >>> report.verdict, report.checked, report.failure_count
    ('failed', 4, 2)
    >>> print("\n".join(report.failures[0].trace))
    first   #1 persist/kv-get n → None
    second  #1 persist/kv-get n → None
    second  #2 persist/kv-put n 1 → 1
    first   #2 persist/kv-put n 1 → 2
    >>> print(report.failures[0].token)
    s1:0,1,1,0
    """
    _check_options(bound, seed, limit, requests_limit, reduce=reduce, linearizable=linearizable, crashes=crashes)
    check_pace(seconds, progress)
    check_workers(workers, bound=bound, limit=limit, crashes=crashes)
    names, makers = named_programs(programs)
    token = None if repro is None else parsed(repro, len(makers))
    check_stores(store_factory)
    case = Case(names, makers, store_factory, _checked_check(check), requests_limit)
    case = case._replace(invariant=checked_invariant(invariant))
    if linearizable:
        case = case.looking_at_operations()
    pace = Pace(", ".join(names), seconds, is_told=progress)
    exploration = _Exploration(case, pace, reduce=reduce and not linearizable, crashes=crashes, workers=workers)
    exploration.report.arguments = case.arguments
    if token is None:
        exploration.explore(bound, limit, 0 if seed is None else seed)
        exploration.tell_end()
    else:
        exploration.repeat(token)
    return exploration.report


class _Exploration:
    """What is gone through, and what is found."""

    def __init__(self, case: Case, pace: Pace, *, reduce: bool, crashes: bool, workers: int | None) -> None:
        self.report = Report(", ".join(case.names), "schedule", depth=0, failed=0)
        self._pace = pace
        self._case = case
        self._reduce = reduce
        self._crashes = crashes
        self._workers = workers
        self._told: set[tuple[str, str]] = set()

    def explore(self, bound: int | None, limit: int | None, seed: int) -> None:
        """Check them all, or as many as may be."""
        firsts = trials(self._case)
        found = difference_now(self._case, firsts)
        if found is not None:
            self._count(1, 0, found.switches)
            self._tell_all([found], 1)
            self.report.is_exhaustive, self.report.bound = False, "nothing but two runs of one order"
            return
        if self._is_broken_at_first(firsts[0].run) or self._is_endless_in_turn():
            return
        search = self._go_through(bound, limit)
        within = "any number of switches" if bound is None else f"at most {bound} switch{'es' * (bound != 1)}"
        self.report.bound = within + (", and one crash" if self._crashes else "")
        self.report.is_exhaustive = search.is_finished
        self._add_cells(search)
        if not self._is_broken():
            is_late = not search.is_finished and self._pace.is_over(_IN_ORDER)
            if is_late:
                self.report.not_reached = search.not_reached
            if is_late or (limit is not None and (search.is_cut or not search.is_finished)):
                self._draw(limit, seed, in_order=search.checked, is_late=is_late)
        found = None if self._is_broken() else difference_now(self._case, firsts)
        if found is not None:
            self._tell_all([found], 1)
        if any(failure.kind == NOT_DETERMINISTIC for failure in self.report.failures):
            self.report.is_exhaustive = False
        self._name_kinds()

    def _is_broken_at_first(self, run: Replayed) -> bool:
        """Whether the invariant does not even hold before the first request."""
        if run.found is None or run.moves or run.found.problem.kind != INVARIANT_BROKEN:
            return False
        self._count(1, 0, 0)
        self.report.is_exhaustive, self.report.bound = False, "nothing but the store as it is made"
        self._tell_all([run.found], 1)
        return True

    def _is_endless_in_turn(self) -> bool:
        """Whether programs that have their turns one after the other, a request each, ask for ever."""
        run = replay(self._case, (), in_turn)
        if run.found is None or run.found.problem.kind != "hangs":
            return False
        self._count(1, 0, run.switches)
        self.report.is_exhaustive, self.report.bound = False, "nothing but one request of each program in turn"
        self._tell_all([run.found], 1)
        return True

    def repeat(self, token: ScheduleToken) -> None:
        """Check one interleaving alone."""
        case = self._case if token.only is None else self._case.only(token.only)
        run = replay(case, token.moves(len(case.programs)))
        if run.refused:
            raise refused(str(token), run.refused)
        self._count(1, 0, run.switches)
        self.report.bound = f"the interleaving of {token}"
        difference = difference_of(case, run, replay(case, run.moves))
        found = run.found if difference is None else FoundOrder(run.moves, run.switches, difference)
        if found is not None:
            self.report.failed = 1
            self._tell(Shrunk(token.only, found))

    def _go_through(self, bound: int | None, limit: int | None) -> Ordered | Split:
        search = self._search(bound, frozenset())
        failures = _distinct(search.failures(limit, self._is_over(search, _IN_ORDER)))
        while search.lacks_order:
            search = self._search(bound, search.orders_seen)
            failures = _distinct(search.failures(limit, self._is_over(search, _IN_ORDER)))
        self._count(search.checked, search.equal, search.most_switches)
        self._tell_all(failures, search.failed)
        return search

    def _search(self, bound: int | None, orders: frozenset[Touched]) -> Ordered | Split:
        if self._workers is not None:
            is_late = partial(self._pace.is_over, _IN_ORDER)
            return Split(self._case, self._workers, reduce=self._reduce, orders=orders, is_late=is_late)
        return Ordered(self._case, bound=bound, reduce=self._reduce, crashes=self._crashes, orders=orders)

    def _is_over(self, search: Ordered | Split | Sampled, share: float) -> Callable[[], bool]:
        """Whether the time for a search is over, which is asked before each interleaving. Tells how far it is."""
        report, before, failed = self.report, self.report.checked, self.report.failed or 0

        def is_over() -> bool:
            equal = report.equal if isinstance(search, Sampled) else search.equal
            self._pace.tell(before + search.checked, equal, failed + search.failed)
            return self._pace.is_over(share)

        return is_over

    def tell_end(self) -> None:
        """Write the last line of progress."""
        self._pace.end(self.report.checked, self.report.equal, self.report.failure_count)

    def _draw(self, limit: int | None, seed: int, in_order: int, *, is_late: bool) -> None:
        sample = Sampled(self._case, seed, crashes=self._crashes)
        count = _DRAWN_MAX if limit is None else limit
        failures = _distinct(sample.failures(count, self._is_over(sample, _DRAWN)))
        self._tell_all(failures, sample.failed)
        self._count(sample.checked, 0, sample.most_switches)
        self.report.is_exhaustive, self.report.seed = False, seed
        drawn = sample.checked
        within = f" in half of {self._pace.seconds:g} s" if is_late else ""
        self.report.bound += (
            f": {in_order:,} in order{within}, then any number of switches: {drawn - drawn // 2:,} at random and "
            f"{drawn // 2:,} by priorities"
        )

    def _count(self, checked: int, equal: int, switches: int) -> None:
        self.report.checked += checked
        self.report.equal += equal
        self.report.enumerated += checked + equal
        self.report.depth = max(self.report.depth, switches)

    def _tell_all(self, failures: Iterable[FoundOrder], count: int) -> None:
        self.report.failed = (self.report.failed or 0) + count
        for found in failures:
            if _likeness(found) not in self._told and len(self.report.failures) < _FAILURES_TOLD:
                self._told.add(_likeness(found))
                is_at_first = found.problem.kind == INVARIANT_BROKEN and not found.moves
                is_whole = is_at_first or found.problem.kind in ("hangs", NOT_DETERMINISTIC)
                self._tell(Shrunk(None, found) if is_whole else shrunk(self._case, found, self._pace.is_over))

    def _tell(self, failure: Shrunk) -> None:
        case = self._case if failure.only is None else self._case.only(failure.only)
        run = replay(case, failure.found.moves, kind=LocatedWorld)
        found = _as_it_is_again(failure.found, run)
        is_endless = found.problem.kind == "hangs"
        if is_endless:
            found = told_as_endless(case, found)
        token = token_of(found.moves, len(case.programs), failure.only)
        if any(token == told.token for told in self.report.failures):
            return
        steps = lines_of_endless(case, run.trace) if is_endless else _last_lines(case, run.trace)
        has_verdict = not is_endless and found.problem.kind not in _NO_NEIGHBOURS
        self.report.failures.append(
            Failure(
                found.problem.kind,
                found.problem.expected,
                found.problem.found,
                "\n".join(_first(essence(case.names, run.trace), 4 if is_endless else 12))
                or ("" if is_endless else "the programs run one after the other"),
                tuple(run.outcomes),
                tuple(line for line, _ in steps),
                token,
                _remedy(found, len(case.programs)),
                tuple(source for _, source in steps),
                told_nearest(case, run, self._pace.is_over) if has_verdict else (),
            )
        )

    def _is_broken(self) -> bool:
        return any(failure.kind in (*ENDLESS, NOT_DETERMINISTIC) for failure in self.report.failures)

    def _name_kinds(self) -> None:
        """Say of programs that raise or hang whether they do so in every order."""
        if self.report.failure_count < self.report.checked:
            self.report.failures = [
                msgspec.structs.replace(failure, kind=f"{failure.kind} in some orders")
                if failure.kind in ("raises", *ENDLESS)
                else failure
                for failure in self.report.failures
            ]

    def _add_cells(self, search: Ordered | Split) -> None:
        for index, number, fault in sorted(search.places, key=lambda place: (*place[:2], FAULTS.index(place[2]))):
            states, failures = search.places[index, number, fault]
            label = f"{self._case.names[index]} #{number} {search.labels[index, number]}"
            self.report.cells.append(FaultCount(label, fault, states, failures))


def _distinct(failures: Iterable[FoundOrder]) -> list[FoundOrder]:
    """The first failure of each sort, and no more than are told."""
    first: dict[tuple[str, str], FoundOrder] = {}
    for found in failures:
        if len(first) < _FAILURES_TOLD:
            first.setdefault(_likeness(found), found)
    return [*first.values()]


def _as_it_is_again(found: FoundOrder, run: Replayed) -> FoundOrder:
    """What is wrong with an interleaving that was run again: as before, or that it is not as before."""
    again = run.problem
    if found.problem.kind == NOT_DETERMINISTIC or (again is not None and again.kind == found.problem.kind):
        return found
    now = run.refused or ("nothing is wrong" if again is None else f"{again.kind}, {again.found}")
    told = f"{found.problem.kind}, {found.problem.found}, the first time; and now: {now}"
    return found._replace(problem=Problem(NOT_DETERMINISTIC, "two runs of one order end alike", told))


def _likeness(found: FoundOrder) -> tuple[str, str]:
    return found.problem.kind, found.problem.found


def _remedy(found: FoundOrder, count: int) -> str | None:
    """What may help, where that can be said from afar."""
    if is_about_stores(found.problem):
        return NOT_FRESH
    if found.problem.kind != "check failed":
        return _REMEDIES.get(found.problem.kind)
    if any(move >= count for move in found.moves):
        return AT_A_RESTART
    return _REMEDIES[found.problem.kind] if found.switches else None


_REMEDIES = {
    NOT_DETERMINISTIC: SHARED,
    "check failed": "let the write expect what was read: kv.update, log.append_expect, or the checks of transact",
    INVARIANT_BROKEN: "write what belongs together in one step: transact, or an append of several events",
    "not linearizable": "let the store look for conflicts and write in one step that no other comes between",
    "hangs": "a program that tries again and again gives no other its turn: let it wait, or raise requests_limit",
    POLLS: "a program that looks again and again gives no other its turn: let it wait for an event",
    LIVELOCK: "let one of them go on: take what both need in one order, or in one transaction",
}

_NO_NEIGHBOURS = (NOT_DETERMINISTIC, UNDECIDED)
"""The kinds of failure that no other order is compared with."""

_LINES_TOLD = 20


def _first(lines: Iterable[str], count: int) -> list[str]:
    told = [*lines]
    return told if len(told) <= count else [*told[:count], f"… {len(told) - count:,} more"]


def _last_lines(case: Case, trace: Sequence[RecordedStep]) -> list[tuple[str, str]]:
    lines = [*sourced_steps(case.names, trace)]
    more = len(lines) - _LINES_TOLD
    return lines if more <= 0 else [(f"… {more:,} steps", ""), *lines[-_LINES_TOLD:]]


def _check_options(
    bound: int | None, seed: int | None, limit: int | None, requests_limit: int, **switches: object
) -> None:
    for name, value, least in (("bound", bound, 0), ("seed", seed, 0), ("limit", limit, 1)):
        if value is not None:
            check_integer(name, value, least)
    check_integer("requests_limit", requests_limit, 1)
    for name, given in switches.items():
        if type(given) is not bool:
            raise InvalidRequest(f"{name} is {describe(given)}: give a bool")


def _checked_check(check: Any) -> CheckOfOutcomes | None:
    if check is None:
        return None
    if not inspect.isgeneratorfunction(check):
        raise InvalidRequest(f"check is {describe(check)}: give a generator function of the programs' outcomes")
    if trouble := trouble_in_a_call(check, []):
        raise InvalidRequest(f"check {name_of(check)!r} takes other arguments than the outcomes: {trouble}")
    made: CheckOfOutcomes = check
    return made
