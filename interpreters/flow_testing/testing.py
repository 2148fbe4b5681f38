"""`flow_test`: runs flows in the thread of a test, with a clock that the test moves, and kills their host at any write.

All is as with a `FlowHost`: the journal, the conductor and the way of activities are the same. There is no thread, the
store is in memory, its identifiers are drawn from a seed, and time goes on only where the test says so; so every run is
the same.
"""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

from interpreters.flow_testing.fakes import NEVER, ActivityCall, OutsideWorld, after
from interpreters.flow_testing.inline import CrashMoment, HostClock, InlineHost
from interpreters.opening import open_store
from persist_effects import flow as flows_
from persist_effects.errors import (
    InvalidRequest,
    describe,
)
from persist_effects.event import check_integer
from persist_effects.flow import journal
from persist_effects.flow.conducting import MICROSECONDS
from persist_effects.flow.defining import Flows, activity_code
from persist_effects.flow.journal import told_path
from persist_effects.flow.replay import Path
from persist_effects.flow.requests import Call, Child, Signal, told_request
from persist_effects.flow.standing import FlowStatus
from persist_effects.machine import Effect, Handlers
from persist_effects.requests import (
    Request,
    check_seconds,
)
from persist_effects.trace.errors import errors_by_name

START = 1_700_000_000_000_000
"""When the clock of a test begins, unless it is told otherwise: in November 2023, in microseconds since 1970."""

WITHIN_SECONDS = 10 * 366 * 86_400.0
"""For how long, by the clock of the test, a flow may go on before `FlowTest.run_to_end` gives up: ten years."""

TURNS_LIMIT = 100_000
"""How often flows may go on in one call before it gives up: more often than a fan-out over thousands of items needs."""

FlowMaker = Callable[..., Effect[Any]]
Scenario = Callable[["FlowTest"], object]

_MOMENTS: tuple[CrashMoment, ...] = ("before", "after")


class FlowStuck(AssertionError):
    """A flow does not end: nothing that it waits for would ever come, or it was halted. It says what it waits for."""


class _Made(NamedTuple):
    """With what a test was made, so that another one can be made alike."""

    flows: tuple[FlowMaker, ...]
    activities: tuple[Callable[..., Any], ...]
    fakes: Mapping[Any, Any]
    start: int
    errors: tuple[type[Exception], ...]
    effects: Handlers | None
    seed: int


def flow_test(
    flows: Iterable[FlowMaker],
    activities: Iterable[Callable[..., Any]] = (),
    *,
    fakes: Mapping[Callable[..., Any] | str, Any] | None = None,
    start: int = START,
    errors: Collection[type[Exception]] = (),
    effects: Handlers | None = None,
    seed: int = 0,
) -> "FlowTest":
    """Make a test of flows: they run in this thread, and sleep for as long as the test says.

    A fake stands in the place of an activity. It is a function; or an exception, which is raised; or a list, of which
    each try takes the next outcome; or `FlowTest.never`, which does not end; or ``FlowTest.after(seconds, outcome)``;
    or any other value, which is returned. What a fake raises as AssertionError fails the test, and not the flow.

    Args:
        flows: The flows: generator functions.
        activities: The functions that they call. Those that are in ``fakes`` as functions need not be here.
        fakes: What is to be in the place of activities, by function or by name.
        start: When the clock begins, in microseconds since 1970.
        errors: Classes of errors that activities and flows raise, as for a `FlowHost`.
        effects: Rows for requests of your own, as for `open_store`.
        seed: Of what the store's identifiers are drawn.

    Returns:
        The test, which is closed at the end of a ``with`` block.

    Raises:
        InvalidRequest: If two flows or two activities have one name, or a fake is of no activity.

    >>> from persist_effects import flow
    >>> def remind(customer: str) -> str: ...
    >>> def trial(customer: str):
    ...     yield from flow.sleep(30 * 86_400)
    ...     return (yield from flow.call(remind, customer))
    >>> def test_a_trial_ends_with_a_reminder():
    ...     with flow_test([trial], fakes={remind: lambda customer: f"wrote to {customer}"}) as test:
    ...         test.start(trial, "t-1", "Ada")
    ...         assert test.run_to_end("t-1") == "wrote to Ada"
    ...         assert test.elapsed == 30 * 86_400
    >>> test_a_trial_ends_with_a_reminder()
    """
    made = _Made(tuple(flows), tuple(activities), dict(fakes or {}), start, tuple(errors), effects, seed)
    return FlowTest(made)


class FlowTest:
    """Flows, the store that they are kept in, and a clock. `flow_test` makes one.

    What tells a flow something, such as `signal`, only writes it down. `run_until_idle`, `advance` and `run_to_end` let
    flows go on.

    >>> from persist_effects import flow
    >>> def approval(order: str):
    ...     try:
    ...         return (yield from flow.signal("approved", timeout=3600))
    ...     except TimeoutError:
    ...         return "too late"
    >>> with flow_test([approval]) as test:
    ...     _ = test.start(approval, "in-time", "o-1"), test.start(approval, "late", "o-2")
    ...     test.advance(3599)
    ...     test.signal("in-time", "approved", "by Ada")
    ...     test.advance(1)
    ...     test.result("in-time"), test.result("late")
    ('by Ada', 'too late')
    """

    never: ClassVar[Any] = NEVER
    """A fake of an activity that does not end, until it is resolved, or its time is over."""

    after = staticmethod(after)
    """A fake of an activity that takes a while: ``FlowTest.after(30, "ok")``."""

    def __init__(self, made: _Made) -> None:
        check_integer("start", made.start)
        check_integer("seed", made.seed)
        self._made = made
        self._clock = HostClock(made.start)
        self._errors = errors_by_name(made.errors)
        flows, self._world = Flows(made.flows), OutsideWorld(made.activities, made.fakes)
        drawn = random.Random(made.seed)  # noqa: S311 - the same in each run
        self.store = open_store("memory:", clock=self._clock, random_bytes=drawn.randbytes, effects=made.effects)
        """The store, for programs of the test's own."""
        self._host = InlineHost(self.store, self._clock, flows, self._world, self._errors)
        self._turns = 0
        self._is_running = False

    def close(self) -> None:
        """Close the store. Again: nothing."""
        self._host.close()
        self.store.close()

    def __enter__(self) -> "FlowTest":
        return self

    def __exit__(self, *exc_info: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    # What a test tells flows

    def start(self, flow: FlowMaker, flow_id: str, *args: Any, tags: Mapping[str, str] | None = None) -> bool:
        """Begin a flow, as `FlowHost.start` does: it goes on once the test lets it.

        Args:
            flow: The flow.
            flow_id: Its id.
            args: Its arguments.
            tags: By which it is found in lists.

        Returns:
            Whether it was begun now.

        Raises:
            FlowExists: If there is another flow of this id.
            InvalidRequest: If something cannot be kept.
        """
        self._host.flows.add(flow)
        begun = self.store.run(flows_.begin_as(flow_id, flow, *args, tags=tags, token=self._host.token))
        if begun is not None:
            self._host.take_up(flow_id, begun)
        return begun is not None

    def signal(self, flow_id: str, name: str, data: Any = None) -> None:
        """Send a signal to a flow that goes on: see `persist_effects.flow.send`."""
        self.store.run(flows_.send(flow_id, name, data))

    def cancel(self, flow_id: str) -> None:
        """Cancel a flow that goes on: see `persist_effects.flow.cancel`."""
        self.store.run(flows_.cancel(flow_id))

    def pause(self, flow_id: str) -> None:
        """Have a flow begin nothing more until it is resumed."""
        self.store.run(flows_.pause(flow_id))

    def resume(self, flow_id: str) -> None:
        """Have a flow that was paused go on."""
        self.store.run(flows_.resume(flow_id))

    def retry(self, flow_id: str) -> None:
        """Have a flow that was halted or set aside be taken up again."""
        self.store.run(flows_.retry(flow_id))

    def resolve(
        self,
        flow_id: str,
        step: Callable[..., Any] | str | Path,
        value: Any = None,
        *,
        error: Exception | None = None,
    ) -> None:
        """Say what came of a call that does not end: see `persist_effects.flow.resolve`.

        Args:
            flow_id: The flow.
            step: The activity that is called, or its name, or the path of the step.
            value: What it returned.
            error: What it raised, in the place of a value.

        Raises:
            NoSuchFlow: If there is no such flow, or it has ended.
            InvalidRequest: If the flow does not wait for a call of that activity, or for several.
        """
        path = step if isinstance(step, tuple) else self._path_of_call(flow_id, step)
        self.store.run(flows_.resolve(flow_id, path, value, error=error))

    def _path_of_call(self, flow_id: str, activity: Callable[..., Any] | str) -> Path:
        name = activity if isinstance(activity, str) else activity_code(activity).name
        paths = [
            path
            for path, request in self._host.frontier(flow_id)
            if isinstance(request, Call) and request.activity == name
        ]
        if len(paths) != 1:
            found = f"{len(paths)} calls of it, {', '.join(map(str, paths))}: give one of these" if paths else "none"
            raise InvalidRequest(
                f"flow {flow_id!r} is to be told what came of its call of activity {name!r}, and waits for {found}"
            )
        return paths[0]

    def fake(self, activity: Callable[..., Any] | str, outcome: Any) -> None:
        """Put something in the place of an activity from now on: see `flow_test`.

        Args:
            activity: The activity, or its name.
            outcome: The fake.

        Raises:
            InvalidRequest: If there is no activity of that name.
        """
        self._world.fake(activity, outcome)

    # What a test sees

    @property
    def now(self) -> int:
        """The time by the test's clock, in microseconds since 1970."""
        return self._clock.now

    @property
    def elapsed(self) -> float:
        """How many seconds the clock has gone on since the test began."""
        return (self._clock.now - self._made.start) / MICROSECONDS

    @property
    def calls(self) -> list[ActivityCall]:
        """The calls of activities that were run, each try of them, in order; those before a crash too."""
        return list(self._world.calls)

    def status(self, flow_id: str) -> FlowStatus:
        """How a flow stands. Raises `NoSuchFlow` if it was never begun."""
        return self.store.run(flows_.status(flow_id))

    def result(self, flow_id: str) -> Any:
        """What a flow has returned. It does not run it: see `run_to_end`.

        Args:
            flow_id: The flow.

        Returns:
            Its result.

        Raises:
            FlowFailed: If it raised, with that as the cause, or was cancelled.
            NoSuchFlow: If it was never begun.
            FlowStuck: If it has not ended; it says what it waits for.
        """
        standing = self.status(flow_id)
        if standing.ended is None:
            raise self._stuck(flow_id, "has not ended yet", self._host.halts.get(flow_id))
        return self.store.run(flows_.result(flow_id, flows=self._host.flows, errors=self._errors))

    def waiting(self, flow_id: str) -> list[str]:
        """What a flow waits for, in words: one for each of its branches.

        Args:
            flow_id: The flow.

        Returns:
            Its steps.

        Raises:
            NoSuchFlow: If it was never begun.
        """
        self.status(flow_id)
        return [f"step {told_path(path)}, {told_request(request)}" for path, request in self._host.frontier(flow_id)]

    # Letting flows go on

    def run_until_idle(self) -> None:
        """Let all flows go on until each waits for something that is not there. The clock stands still."""
        with self._running():
            self._run_ready()

    def advance(self, seconds: float) -> None:
        """Let the clock go on by so many seconds. What is due meanwhile happens at its own time, in order.

        Args:
            seconds: How many.

        Raises:
            InvalidRequest: If that is not a number from 0 on.
        """
        _check_clock("seconds", seconds)
        with self._running():
            target = self._clock.now + int(seconds * MICROSECONDS)
            self._run_ready()
            while (due := self._host.next_due()) is not None and due <= target:
                self._clock.now = due
                self._run_ready()
            self._clock.now = target

    def run_to_end(self, flow_id: str, *, within: float = WITHIN_SECONDS) -> Any:
        """Let flows go on, and the clock to whatever is due next, until this one has ended.

        Args:
            flow_id: The flow.
            within: For how many seconds at most, by the test's clock.

        Returns:
            What it returned.

        Raises:
            FlowFailed: If it raised, with that as the cause, or was cancelled.
            NoSuchFlow: If it was never begun.
            FlowStuck: If it does not end, because nothing of what it waits for would ever come, it was halted, or its
                time is over. It says what it waits for.
        """
        check_seconds("within", within)
        self.status(flow_id)
        last = self._clock.now + int(min(within, WITHIN_SECONDS * 100) * MICROSECONDS)
        with self._running():
            while True:
                self._run_ready()
                standing = self.status(flow_id)
                if standing.ended is not None:
                    return self.result(flow_id)
                if standing.state in (journal.HALTED, journal.SET_ASIDE):
                    raise self._stuck(flow_id, f"is {standing.state}: {standing.error}", self._host.halts.get(flow_id))
                due = self._host.next_due()
                if due is None:
                    raise self._stuck(flow_id, "does not end, and nothing is due that could bring it on")
                if due > last:
                    raise self._stuck(flow_id, f"has not ended within {within:g} seconds")
                self._clock.now = due

    def restart(
        self,
        *,
        flows: Iterable[FlowMaker] | None = None,
        activities: Iterable[Callable[..., Any]] | None = None,
        down_seconds: float = 0,
    ) -> None:
        """Kill the host: all that was in memory is gone. Another one takes up what goes on, from its journal.

        Args:
            flows: The code that it has; None: as before. So a test sees what becomes of flows when code is deployed.
            activities: The activities that it has; None: as before. Fakes stay.
            down_seconds: For how long there is no host. What is due meanwhile happens once there is one.

        Raises:
            InvalidRequest: If that is not a number from 0 on; if two flows or two activities have one name.

        >>> from persist_effects import flow, kv
        >>> def count_down(seconds: int):
        ...     yield from kv.put("began", True)
        ...     yield from flow.sleep(seconds)
        ...     return "lift-off"
        >>> with flow_test([count_down]) as test:
        ...     _ = test.start(count_down, "c-1", 10)
        ...     test.advance(9)
        ...     test.restart()
        ...     test.advance(1)
        ...     test.result("c-1")
        'lift-off'
        """
        _check_clock("down_seconds", down_seconds)
        with self._running():
            self._clock.now += int(down_seconds * MICROSECONDS)
            if flows is not None:
                self._host.flows = Flows(flows)
            if activities is not None:
                self._world.replace(activities)
            self._host.restart()

    @contextmanager
    def _running(self) -> Iterator[None]:
        if self._is_running:
            raise InvalidRequest(
                "an activity lets the flows of its test go on, which wait for it: let it only tell them something, "
                "such as by test.signal"
            )
        self._is_running, self._turns = True, 0
        try:
            yield
        finally:
            self._is_running = False

    def _run_ready(self) -> None:
        while self._host.do_next():
            self._turns += 1
            if self._turns > TURNS_LIMIT:
                going = {each.flow_id: self.waiting(each.flow_id)[:3] for each in self._open_flows()[:5]}
                raise FlowStuck(f"flows have gone on {TURNS_LIMIT} times, and find no end: {going}")

    # What is said of a flow that does not end

    def _stuck(self, flow_id: str, why: str, cause: Exception | None = None) -> FlowStuck:
        lines = [f"flow {flow_id!r} {why}", *self._told_waits(flow_id)]
        if any(isinstance(request, Child) for _, request in self._host.frontier(flow_id)):
            for each in self._open_flows():
                if each.flow_id != flow_id:
                    lines += [f"  flow {each.flow_id!r} is {each.state}", *self._told_waits(each.flow_id, "  ")]
        stuck = FlowStuck("\n".join(lines))
        stuck.__cause__ = cause
        return stuck

    def _told_waits(self, flow_id: str, margin: str = "") -> list[str]:
        lines = [
            f"{margin}  it waits for step {told_path(path)}, {told_request(request)}{_advice(flow_id, request)}"
            for path, request in self._host.frontier(flow_id)
        ]
        if self.status(flow_id).state == journal.PAUSED:
            lines.append(f"{margin}  it is paused: test.resume({flow_id!r})")
        return lines

    def _open_flows(self) -> list[FlowStatus]:
        return [each for each in self.store.run(flows_.listing()) if each.ended is None]

    # Crashes

    def crash_at(self, number: int, moment: CrashMoment = "before") -> None:
        """Kill the host at one of its next writes; another one takes over at once.

        Args:
            number: At which write from now on, from 1.
            moment: Whether ``before`` it is carried out, or ``after``, and before its answer came.

        Raises:
            InvalidRequest: If that makes no sense.
        """
        check_integer("number", number, 1)
        if moment not in _MOMENTS:
            raise InvalidRequest(f"moment is {describe(moment)}: give 'before' or 'after'")
        self._host.crashes[len(self._host.writes) + number] = moment

    def every_crash(self, scenario: Scenario, *, depth: int = 1) -> int:
        """Run a scenario once for each write of the host, with a crash there; each time in a test of its own.

        First it runs without a crash. Then the host is killed right before each of its writes to the store, and right
        after each, and another host takes over. That is every state that a crash can leave: it changes nothing at a
        read, and an activity that was run lies between two writes. Time does not pass. What the scenario asserts must
        hold each time; it lets flows go on by `run_until_idle`, `advance` or `run_to_end` as ever.

        Args:
            scenario: A function of a `FlowTest` that is made as this one was, to which nothing has happened yet.
            depth: With 2, there is a second crash at each write that follows.

        Returns:
            How many crashes were tried.

        Raises:
            Exception: What the scenario raises, with a note that says where the crash was.
            InvalidRequest: If the scenario lets no flow go on.

        >>> from persist_effects import flow, log
        >>> @flow.activity(repeat="keyed")
        ... def charge(order: str, cents: int, *, key: str) -> str: ...
        >>> def order(order_id: str, cents: int):
        ...     receipt = yield from flow.call(charge, order_id, cents)
        ...     yield from log.append("orders", "paid", receipt)
        >>> def scenario(test):
        ...     test.start(order, "o-1", "o-1", 500)
        ...     test.run_to_end("o-1")
        ...     assert len(test.store.run(log.read("orders"))) == 1
        ...     assert {call.key for call in test.calls} == {"o-1/1/1"}
        >>> flow_test([order], fakes={charge: "receipt 7"}).every_crash(scenario)
        4
        """
        check_integer("depth", depth, 1, 2)
        writes = self._run_scenario(scenario, ())
        if not writes:
            raise InvalidRequest("the scenario lets no flow go on, so there is nothing to crash: call run_to_end in it")
        tried = 0
        places: list[tuple[int, CrashMoment]] = [
            (number, moment) for number in range(1, len(writes) + 1) for moment in _MOMENTS
        ]
        for number, moment in places:
            after_it = self._run_scenario(scenario, ((number, moment),), writes)
            tried += 1
            for second in range(number + 1, len(after_it) + 1 if depth == 2 else 0):
                for then in _MOMENTS:
                    self._run_scenario(scenario, ((number, moment), (second, then)), after_it)
                    tried += 1
        return tried

    def _run_scenario(
        self, scenario: Scenario, crashes: tuple[tuple[int, CrashMoment], ...], before: Sequence[str] = ()
    ) -> list[str]:
        """Run a scenario with crashes. Returns the writes that there were, in words."""
        with FlowTest(self._made) as test:
            for number, moment in crashes:
                test.crash_at(number, moment)
            try:
                scenario(test)
            except BaseException as error:
                if crashes:
                    places = ", ".join(f"{moment} write {number}, {before[number - 1]}" for number, moment in crashes)
                    calls = "; ".join(f"test.crash_at({number}, {moment!r})" for number, moment in crashes)
                    error.add_note(f"the host was killed {places}\nto see it again, begin the scenario with: {calls}")
                raise
            writes = [_told_write(request) for request in test._host.writes]
        known = crashes[-1][0] if crashes else 0
        if writes[:known] != list(before[:known]):
            raise AssertionError(
                f"the scenario does not do the same each time: its first {known} writes were {before[:known]}, and are "
                f"{writes[:known]}. Keep what it changes in the scenario, and draw nothing at random"
            )
        return writes


def _check_clock(what: str, seconds: float) -> None:
    check_seconds(what, seconds)
    if seconds == float("inf"):
        raise InvalidRequest(f"{what} is inf: give a number, by which the clock goes on")


def _told_write(request: Request[Any]) -> str:
    """A write in a few words."""
    writes = getattr(request, "writes", (request,))
    names = [getattr(each, "stream", None) or getattr(each, "key", "") for each in writes]
    return f"{request.op} of {', '.join(dict.fromkeys(map(str, names)))}"


def _advice(flow_id: str, request: Request[Any]) -> str:
    match request:
        case Signal(name):
            return f", which nobody sends: test.signal({flow_id!r}, {name!r}, …)"
        case Call(activity):
            return f", which does not end: test.resolve({flow_id!r}, {activity!r}, …)"
    return ""
