"""Activities in the thread of a test: each runs at once, or what was given in its place.

Tries, waits between them and timeouts are those of a host; only the threads are not there.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from interpreters.runtime.flows.activities import Activities
from interpreters.runtime.flows.alarm import Tell
from interpreters.runtime.flows.loop import Held
from persist_effects.errors import InvalidRequest, describe
from persist_effects.flow.defining import ActivityCode, activities_by_name, activity_code
from persist_effects.flow.replay import Path
from persist_effects.flow.requests import Call, Came, Started
from persist_effects.rows import is_async_row


class ActivityCall(NamedTuple):
    """One try of a call that was run: whose, of what, with which arguments, and which step of the flow it is.

    ``key`` is what an activity with ``repeat="keyed"`` is handed, the same at each try; empty for others.
    """

    flow_id: str
    activity: str
    args: tuple[Any, ...]
    path: Path
    key: str = ""


class _Never:
    """In the place of an activity: one that does not end."""

    def __repr__(self) -> str:
        return "FlowTest.never"


NEVER = _Never()


class _After(NamedTuple):
    """In the place of an activity: what comes of it once so many seconds have passed."""

    seconds: float
    outcome: Any


def after(seconds: float, outcome: Any = None) -> Any:
    """In the place of an activity: what comes of it once the test's clock has gone on by so many seconds."""
    if type(seconds) not in (int, float) or not 0 <= seconds < float("inf"):
        raise InvalidRequest(f"seconds is {describe(seconds)}: give a number from 0 on")
    return _After(seconds, outcome)


class OutsideWorld:
    """The activities that a test has, what stands in their place, and which calls there were. Crashes do not touch it.

    Args:
        activities: The functions that flows call.
        fakes: What is to be in the place of some, by function or by name.
    """

    def __init__(self, activities: Iterable[Callable[..., Any]], fakes: Mapping[Any, Any]) -> None:
        self.codes: dict[str, ActivityCode] = dict(activities_by_name(activities))
        self.calls: list[ActivityCall] = []
        self._fakes: dict[str, Any] = {}
        for activity, outcome in fakes.items():
            self.fake(activity, outcome)

    def fake(self, activity: Callable[..., Any] | str, outcome: Any) -> None:
        """Put something in the place of an activity."""
        if not isinstance(activity, str):
            code = activity_code(activity)
            there = self.codes.setdefault(code.name, code)
            if there.function is not code.function:
                # Refuses two of one name.
                activities_by_name([there.function, activity])
            name = code.name
        elif activity in self.codes:
            name = activity
        else:
            raise InvalidRequest(
                f"there is a fake for activity {activity!r}, and no such activity: the test has "
                f"{', '.join(sorted(self.codes)) or 'none'}. Give the function in the place of the name"
            )
        # Of a list the outcomes are taken out, and the test's own list stays as it is.
        self._fakes[name] = deque(outcome) if isinstance(outcome, list) else outcome

    def replace(self, activities: Iterable[Callable[..., Any]]) -> None:
        """Have other activities. What is in the place of one by its name stays there."""
        named = activities_by_name(activities)
        kept = {name: code for name, code in self.codes.items() if name in self._fakes}
        self.codes = {**kept, **named}

    def next_outcome(self, call: Call) -> Any:
        """What the next try of a call comes to: an outcome, or a function."""
        outcome = self._fakes.get(call.activity, self.codes[call.activity].function)
        if not isinstance(outcome, deque):
            return outcome
        if not outcome:
            raise AssertionError(
                f"activity {call.activity!r} is called once more than its fake has outcomes, with {call.args!r}: give "
                "the list one more, or a function"
            )
        return outcome.popleft()

    def is_faked(self, name: str) -> bool:
        """Whether something is in the place of an activity."""
        return name in self._fakes


class InlineActivities(Activities):
    """Runs calls in the thread of the test, wherever that does what is ready.

    Args:
        world: The activities.
        tell: Takes what is to be called next.
        later: Takes what is to be called after so many seconds.
        arrived: Is told what came of a call.
    """

    def __init__(
        self,
        world: OutsideWorld,
        tell: Tell,
        later: Callable[[float, Callable[[], None]], None],
        arrived: Callable[[Held, Came], None],
    ) -> None:
        super().__init__(world.codes, tell, later, arrived)
        self._world = world
        # Async functions are run as the others are.
        self._awaited = frozenset()

    def _carry_out(self, held: Held, started: Started, number: int) -> Callable[[], None]:
        call = started.call
        self._world.calls.append(ActivityCall(held.flow_id, call.activity, call.args, started.path, started.key))
        outcome, seconds = self._world.next_outcome(call), 0.0
        if isinstance(outcome, _After):
            seconds, outcome = outcome
        if outcome is NEVER:
            return _nothing
        value: Any = None
        error: Exception | None = None
        try:
            value = self._value_of(outcome, started)
        except Exception as raised:
            if isinstance(raised, AssertionError) and raised is not outcome and self._world.is_faked(call.activity):
                # A fake that checks what it is given: it is the test that fails, and not the activity.
                raise
            error = raised
        came = partial(self._came, held, started, number, Came(started.path, value, error))
        return partial(self._later, seconds, came) if seconds else came

    def _value_of(self, outcome: Any, started: Started) -> Any:
        """What a try returns. What it raises is raised."""
        if isinstance(outcome, Exception) or (isinstance(outcome, type) and issubclass(outcome, Exception)):
            raise outcome
        if not callable(outcome):
            return outcome
        call = started.call
        named = {"key": started.key} if call.repeat == "keyed" and self._takes_key(outcome, call.activity) else {}
        if not is_async_row(outcome):
            return outcome(*call.args, **named)
        _check_no_event_loop(call.activity)
        answer: Any = outcome(*call.args, **named)
        return asyncio.run(answer)

    def _takes_key(self, outcome: Callable[..., Any], name: str) -> bool:
        """Whether a function wants the key. The activity itself does; a fake may leave it out."""
        if not self._world.is_faked(name):
            return True
        parameters = inspect.signature(outcome).parameters
        return "key" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _nothing() -> None:
    """What comes of an activity that does not end."""


def _check_no_event_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise AssertionError(
        f"activity {name!r} is an async function, which a flow's test runs in an event loop of its own, and this test "
        "runs in one: make the test a plain function"
    )
