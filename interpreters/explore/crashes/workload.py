"""Running a workload on a simulated disk, beside the memory store, which says what each commit should come to."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from interpreters.disk.crashing import MUTATING, CrashDisk, DiskFault, Interrupted
from interpreters.disk.requests import Sync
from interpreters.disk.requests import Write as DiskWrite
from interpreters.explore.crashes.simulated import (
    Compact,
    Contents,
    Mark,
    Reopen,
    SimulatedStore,
    contents,
)
from interpreters.explore.limits import Hangs, failing
from interpreters.explore.virtual import START_MICROSECONDS, VirtualTime
from interpreters.explore.words import named
from interpreters.stores.group import WriteRequest
from interpreters.stores.memory import MemoryStore
from persist_effects import machine
from persist_effects.answers import checked_rows
from persist_effects.contexts import RunIn, here, runs_of
from persist_effects.errors import PersistError, StoreUnavailable, UncertainOutcome
from persist_effects.event import Draft
from persist_effects.machine import Effect, Handlers, outcome_of, outcomes_by_kind, run
from persist_effects.requests import (
    READS,
    WAITS,
    WRITES,
    AllOf,
    Answered,
    Append,
    Conflict,
    Failed,
    KvPut,
    KvWait,
    Outcome,
    Page,
    Request,
    Wait,
    at_once,
)
from persist_effects.rows import is_program_row

Maker = Callable[[], Effect[Any]]

_PROBE = "probe after an interrupt"

_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, struct.error)
"""What an engine raises that stumbles over its own state."""


class Setting(NamedTuple):
    """How the store of an exploration is opened."""

    segment_bytes: int = 4096
    requests_limit: int = 10_000
    effects: Callable[[], Handlers] | None = None

    def new_effects(self) -> Handlers:
        """New rows for what the store itself does not answer: the user's, and those of a virtual time."""
        return {**VirtualTime().rows, **({} if self.effects is None else self.effects())}


class WrongAnswer(Exception):
    """The store under test answered what it should not have: expected, found."""


class WorkloadMoment(NamedTuple):
    """What was acknowledged when the power went, and what was on its way."""

    acked: list[tuple[Request[Any], Any]]
    maybe: list[Request[Any]]
    commits_acked: int
    commits_issued: int
    commits_proved: int
    """Those before the last that shared a sync: what was written after them says that they were on the disk."""
    performed: tuple[Request[Any], ...] = ()
    """The requests that the workload's own effects were asked."""


class Workload:
    """One run of the programs on one disk. ``at(number, request)`` is called before each request that changes it.

    ``history[n]`` is what the store must show after n commits.
    """

    def __init__(
        self,
        makers: Sequence[Maker],
        setting: Setting,
        at: Callable[["Workload", int, Request[Any] | None], None] | None = None,
        faults: Mapping[int, DiskFault] | None = None,
        barriers: Mapping[int, Request[Any]] | None = None,
    ) -> None:
        self._makers = makers
        self._setting = setting
        self._at = at
        self._loses_for_good = any(fault.is_silent and fault.is_for_good for fault in (faults or {}).values())
        self.disk = CrashDisk(faults=faults, barriers=barriers)
        self.disk.watch(self._before)
        self.boot = 1
        self.effects: Handlers = checked_rows(setting.new_effects())
        self.lines: list[tuple[int, str]] = []
        """The trace: lines, each with the number of the disk's request that it is, or before which it came."""
        self.outcomes: list[Outcome] = []
        """How the programs ended, in order, once they have."""
        self._twin = _Twin()
        self._performed: list[Request[Any]] = []
        self._acked: list[tuple[Request[Any], Any]] = []
        self._in_flight: list[Request[Any]] = []
        self._commits_acked = 0
        self._commits_proved = 0
        self._is_in_doubt = False
        self._requests_left = setting.requests_limit
        self._store: SimulatedStore | None = None

    @property
    def history(self) -> list[Contents]:
        """What the store must show after each commit, the first before any."""
        return self._twin.history

    def moment(self) -> WorkloadMoment:
        """What was acknowledged by now."""
        issued = len(self.history) - 1
        proved = 0 if self._loses_for_good else self._commits_proved
        return WorkloadMoment(
            list(self._acked),
            list(self._in_flight),
            self._commits_acked,
            issued,
            proved,
            performed=tuple(self._performed),
        )

    def run(self) -> list[Outcome]:
        """Run the programs together to their ends, and return their outcomes."""
        self._store = self._open()
        programs = [make() for make in self._makers]
        machine.check_fresh(*programs)
        together = machine.Together([failing(program) for program in programs])
        while together.requests:
            together.resume(self._round_of(together))
        if any(fault.is_interrupt for _, _, fault in self.disk.met):
            self._go_on()
        if self._at is not None:
            self._at(self, self.disk.count, None)
        self.outcomes = cast(list[Outcome], together.outcomes)
        return self.outcomes

    def _open(self) -> SimulatedStore:
        try:
            return SimulatedStore(self.disk, boot=self.boot, segment_bytes=self._setting.segment_bytes)
        except Interrupted:
            # Whoever was interrupted may open it again in the same process.
            self.boot += 1
            return SimulatedStore(self.disk, boot=self.boot, segment_bytes=self._setting.segment_bytes)

    def _go_on(self) -> None:
        """After an interrupt the process goes on with the store as it is: it must still write, or say that it cannot.

        Only what is left of it at its end is crashed: each of its requests would take ten times as long.
        """
        at, self._at = self._at, None
        self._round([Append(_PROBE, (Draft("went on", None),))])
        self._round([Compact()])
        self._round([KvPut(_PROBE, 1)])
        for request in (Reopen(), Append(_PROBE, (Draft("went on", None),))):
            (outcome,) = self._round([request])
            if isinstance(outcome, Failed):
                what = "what a store does that is opened again after an interrupt"
                raise WrongAnswer(what, f"{named(request)} to be carried out", outcome.error)
        self._at = at

    def _before(self, number: int, request: Request[Any]) -> None:
        self.lines.append((number, f"#{number} {named(request)}"))
        if self._in_flight and isinstance(request, Sync | DiskWrite):
            self._check_that_nothing_is_shown_early()
        if self._at is not None and type(request) in MUTATING:
            self._at(self, number, request)

    def _check_that_nothing_is_shown_early(self) -> None:
        store = self._store
        if store is None or self._is_in_doubt:
            return
        wanted = self.history[self._commits_acked]
        shown: Contents | PersistError
        try:
            shown = run(contents(), dict.fromkeys(READS, store.unwatched))
        except PersistError as error:
            if self.disk.met:
                # Damage that a fault has left is for readers to find; the commit knows nothing of it.
                return
            shown = error
        if shown != wanted:
            raise WrongAnswer("a reader was shown a commit that is not on the disk yet", wanted, shown)

    # Requests

    def _round_of(self, together: machine.Together) -> list[Outcome]:
        return self._round(together.requests, [together.runs[index] for index in together.asking])

    def _round(self, requests: Sequence[Request[Any]], runs: Sequence[RunIn] | None = None) -> list[Outcome]:
        """The outcomes of what all programs ask: the writes share one commit."""
        self._requests_left -= len(requests)
        if self._requests_left < 0:
            raise Hangs(f"the workload made more than {self._setting.requests_limit} requests")
        self.lines += [(self.disk.count, f"── {named(request)}") for request in requests]
        run_in = runs or [here] * len(requests)
        return outcomes_by_kind(
            requests, WRITES, self._commit, lambda index, request: run_in[index](self._outcome, request)
        )

    def _commit(self, writes: Sequence[Request[Any]]) -> list[Outcome]:
        before, in_doubt = len(self.history) - 1, self._in_flight
        wanted = self._twin.commit(writes)
        self._in_flight = [*in_doubt, *writes]
        store = cast(SimulatedStore, self._store)
        try:
            outcomes = store.commit(cast(list[WriteRequest], writes))
        except Interrupted as interrupt:
            return self._interrupted(interrupt, writes, before, in_doubt)
        except UncertainOutcome as error:
            self._is_in_doubt = True
            return [Failed(error) for _ in writes]
        except PersistError as error:
            # These were not carried out for certain; of those before them that may still not be known.
            self._twin.forget_after(before)
            self._in_flight = in_doubt
            return [Failed(error) for _ in writes]
        except _BUGS as error:
            raise WrongAnswer(
                f"what {named(writes[0])} comes to", "an answer, or an error of the store's", error
            ) from error
        self._in_flight = in_doubt
        if self._is_in_doubt:
            if len(self.history) - 1 > before:
                what = "a commit after one of which nobody knows whether it is on the disk"
                raise WrongAnswer(what, "StoreUnavailable, until the store is opened again", outcomes)
        else:
            if len(self.history) - 1 > before:
                self._commits_proved, self._commits_acked = before, len(self.history) - 1
            _compare(writes, outcomes, wanted)
        self._acked += [
            (write, outcome.value)
            for write, outcome in zip(writes, outcomes, strict=True)
            if isinstance(outcome, Answered) and not isinstance(outcome.value, Conflict)
        ]
        return outcomes

    def _interrupted(
        self, interrupt: Interrupted, writes: Sequence[Request[Any]], before: int, in_doubt: list[Request[Any]]
    ) -> list[Outcome]:
        """What the programs are told of a commit that was interrupted."""
        if cast(SimulatedStore, self._store).engine.log.poisoned is None:
            # An engine that goes on says with it that nothing of the commit was done, and nothing will be.
            self._twin.forget_after(before)
            self._in_flight = in_doubt
        else:
            self._is_in_doubt = True
        return [Failed(UncertainOutcome(f"a commit was interrupted: {interrupt}")) for _ in writes]

    def _outcome(self, request: Request[Any]) -> Outcome:
        try:
            return self._outcome_of(request)
        except Interrupted as interrupt:
            return Failed(StoreUnavailable(f"{named(request)} was interrupted: {interrupt}"))

    def _outcome_of(self, request: Request[Any]) -> Outcome:
        store = cast(SimulatedStore, self._store)
        kind = type(request)
        if isinstance(request, AllOf):
            return Answered(self._round(request.requests, runs_of(request)))
        if kind in self.effects:
            self._performed.append(request)
            if is_program_row(self.effects[kind]):
                return self._outcome_of_program(self.effects[kind](request))
            return outcome_of(request, self.effects)
        if kind not in READS | WAITS:
            return self._operate(request, store)
        outcome = outcome_of(request, store.handlers)
        if not self._is_in_doubt and isinstance(outcome, Answered):
            # Its clock stands still too, so nobody waits: what is there now is the answer.
            asked = at_once(request) if isinstance(request, Wait | KvWait) else request
            _compare([request], [outcome], [self._twin.outcome(asked)])
        return outcome

    def _outcome_of_program(self, program: Effect[Any]) -> Outcome:
        """What a row comes to that is a program: its requests are the workload's too."""
        # In the context of the one that asked, as a function would be.
        together = machine.Together([program], [here])
        while together.requests:
            together.resume(self._round_of(together))
        return cast(Outcome, together.outcomes[0])

    def _operate(self, request: Request[Any], store: SimulatedStore) -> Outcome:
        operations: dict[type[Request[Any]], Callable[[], None]] = {
            Compact: store.compact,
            Reopen: self._reopen,
            Mark: lambda: store.drive(store.engine.mark()),
        }
        operation = operations.get(type(request))
        if operation is None:
            return outcome_of(request, {})
        try:
            operation()
        except PersistError as error:
            return Failed(error)
        except _BUGS as error:
            raise WrongAnswer(
                f"what {named(request)} comes to", "its end, or an error of the store's", error
            ) from error
        return Answered(None)

    def _reopen(self) -> None:
        store = cast(SimulatedStore, self._store)
        ended: BaseException | None = None
        try:
            store.close()
        except (PersistError, Interrupted) as error:
            ended = error
        self.boot += 1
        self._store = self._open()
        self._settle_doubt()
        if ended is not None:
            raise ended

    def _settle_doubt(self) -> None:
        """After writes of which nobody knew whether they were carried out: see which were, and go on from there."""
        if not self._is_in_doubt:
            return
        store = cast(SimulatedStore, self._store)
        shown = run(contents(), store.handlers)
        allowed = range(self._commits_acked, len(self.history))
        found = next((count for count in allowed if self.history[count] == shown), None)
        if found is None:
            raise WrongAnswer("what a store shows that was opened again", self.history[self._commits_acked], shown)
        self._twin.forget_after(found)
        self._commits_proved = min(self._commits_proved, found)
        self._commits_acked, self._is_in_doubt, self._in_flight = found, False, []


class _Twin:
    """The memory store, told the same, and what it shows after each commit."""

    def __init__(self) -> None:
        self._writes: list[Request[Any]] = []
        self._begin()

    def _begin(self) -> None:
        self._store = MemoryStore(clock=lambda: START_MICROSECONDS)
        self.history = [run(contents(), self._store.handlers)]

    def commit(self, writes: Sequence[Request[Any]]) -> list[Outcome]:
        """Carry out these writes, each a commit of its own if it changes anything."""
        outcomes = []
        for write in writes:
            outcomes.append(outcome_of(write, self._store.handlers))
            shown = run(contents(), self._store.handlers)
            if shown != self.history[-1]:
                self._writes.append(write)
                self.history.append(shown)
        return outcomes

    def outcome(self, request: Request[Any]) -> Outcome:
        """What a read is answered."""
        return outcome_of(request, self._store.handlers)

    def forget_after(self, commits: int) -> None:
        """Take back all but so many commits."""
        writes, self._writes = self._writes[:commits], []
        self._begin()
        self.commit(writes)


def _compare(requests: Sequence[Request[Any]], found: Sequence[Outcome], wanted: Sequence[Outcome]) -> None:
    for request, have, want in zip(requests, found, wanted, strict=True):
        if _comparable(have) != _comparable(want):
            raise WrongAnswer(f"the answer to {named(request)}", want, have)


def _comparable(outcome: Outcome) -> Any:
    if isinstance(outcome, Failed):
        return type(outcome.error)
    if isinstance(outcome.value, Page):
        # Of several streams with a hole, any may be named.
        return outcome.value.events, outcome.value.next, outcome.value.head, outcome.value.hole is None
    return outcome.value
