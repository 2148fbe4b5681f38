"""Activities of flows: run in threads, or in an event loop, tried again, and given up when their time is over."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from persist_effects.errors import InvalidRequest
from persist_effects.flow.defining import ActivityCode
from persist_effects.flow.requests import Call, Came, Started
from persist_effects.rows import is_async_row

Tell = Callable[[Callable[[], None]], None]
"""Has something called in the thread of the flows, from any thread."""

Work = Callable[[], Callable[[], None]]
"""Runs a call once, in any thread, and returns what is to be done in the thread of the flows then."""


class Activities:
    """Runs calls, and says what came of each.

    Args:
        codes: The activities, by name.
        tell: Has something called in the thread of the flows.
        later: Has something called there after so many seconds.
        deliver: Is told, in that thread, what came of a call.
    """

    def __init__(
        self,
        codes: Mapping[str, ActivityCode],
        tell: Tell,
        later: Callable[[float, Callable[[], None]], None],
        deliver: Callable[[str, Came], None],
    ) -> None:
        self._codes = codes
        self._awaited = frozenset(name for name, code in codes.items() if is_async_row(code.function))
        self._tell = tell
        self._later = later
        self._deliver = deliver
        self.ready: list[Work] = []
        """What is to be done now, wherever that may be. Whoever does it takes it out."""
        # What is under way: which try of it counts.
        self._tries: dict[tuple[str, tuple[int, ...]], int] = {}
        self._event_loop: _EventLoop | None = None

    def check(self, call: Call) -> None:
        """Refuse a call of an activity that is not here."""
        if call.activity not in self._codes:
            raise InvalidRequest(
                f"activity {call.activity!r} is not here: give it to the host, which has "
                f"{', '.join(sorted(self._codes)) or 'none'}"
            )

    def start(self, flow_id: str, started: Started, number: int = 1) -> None:
        """Run a call.

        Args:
            flow_id: Whose call it is.
            started: The call.
            number: Which try of it this is.
        """
        call = started.call
        code = self._codes[call.activity]
        self._tries[flow_id, started.path] = number
        if call.timeout is not None:
            late = TimeoutError(f"activity {call.activity!r} did not end within {call.timeout} seconds")
            self._later(call.timeout, partial(self._came, flow_id, started, number, Came(started.path, error=late)))
        if call.activity in self._awaited:
            self._run_in_event_loop(code, flow_id, started, number)
        else:
            self.ready.append(partial(self._carry_out, code.function, code.repeat, flow_id, started, number))

    def forget(self, flow_id: str, path: tuple[int, ...]) -> None:
        """Nobody waits for a call any more. It goes on by itself, and what comes of it is dropped."""
        self._tries.pop((flow_id, path), None)

    def close(self) -> None:
        """Run nothing more. What is under way in a thread ends by itself."""
        self._tries.clear()
        self.ready.clear()
        if self._event_loop is not None:
            self._event_loop.close()

    def _carry_out(self, function: Any, repeat: str, flow_id: str, started: Started, number: int) -> Callable[[], None]:
        """In any thread: run a call once, and return what is to be done in the thread of the flows then."""
        value, error = None, None
        try:
            args = started.call.args
            value = function(*args, key=started.key) if repeat == "keyed" else function(*args)
        except Exception as raised:
            error = raised
        except BaseException as raised:
            # Nobody is there whom it could end.
            error = RuntimeError(f"activity {started.call.activity!r} raised {raised!r}")
        return partial(self._came, flow_id, started, number, Came(started.path, value, error))

    def _run_in_event_loop(self, code: ActivityCode, flow_id: str, started: Started, number: int) -> None:
        if self._event_loop is None:
            self._event_loop = _EventLoop()

        def done(value: Any, error: Exception | None) -> None:
            self._tell(partial(self._came, flow_id, started, number, Came(started.path, value, error)))

        named = {"key": started.key} if code.repeat == "keyed" else {}
        self._event_loop.run(lambda: code.function(*started.call.args, **named), done)

    def _came(self, flow_id: str, started: Started, number: int, came: Came) -> None:
        """In the thread of the flows: what came of a try, if it is the one that counts."""
        place = flow_id, started.path
        if self._tries.get(place) != number:
            return
        if came.error is not None and number <= started.call.retry.times:
            # Until then no other outcome counts.
            self._tries[place] = -number
            seconds = started.call.retry.seconds_before(number)
            self._later(seconds, partial(self._try_again, flow_id, started, number))
            return
        del self._tries[place]
        self._deliver(flow_id, came)

    def _try_again(self, flow_id: str, started: Started, number: int) -> None:
        if self._tries.get((flow_id, started.path)) == -number:
            self.start(flow_id, started, number + 1)


class _EventLoop:
    """An event loop in a thread of its own, for activities that are async functions."""

    def __init__(self) -> None:
        try:
            from anyio.from_thread import start_blocking_portal
        except ModuleNotFoundError as error:
            raise InvalidRequest("activities that are async functions need anyio: pip install anyio") from error
        self._opening = start_blocking_portal()
        self._portal = self._opening.__enter__()

    def run(self, begin: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        async def carry_out() -> None:
            try:
                value = await begin()
            except Exception as error:
                done(None, error)
            else:
                done(value, None)

        self._portal.start_task_soon(carry_out)

    def close(self) -> None:
        self._portal.call(self._portal.stop, True)
        self._opening.__exit__(None, None, None)
