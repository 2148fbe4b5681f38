"""Activities of flows: run in threads, or in an event loop, tried again, and given up when their time is over."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from interpreters.runtime.flows.alarm import Tell
from interpreters.runtime.flows.loop import Held
from persist_effects.errors import InvalidRequest
from persist_effects.flow.defining import ActivityCode
from persist_effects.flow.requests import Call, Came, Started
from persist_effects.rows import is_async_row

Work = Callable[[], Callable[[], None]]
"""Runs a call once, in any thread, and returns what is to be done in the thread of the flows then."""


class Activities:
    """Runs calls, and says what came of each.

    Args:
        codes: The activities, by name.
        tell: Has something called in the thread of the flows.
        later: Has something called there after so many seconds.
        arrived: Is told, in that thread, what came of a call.
    """

    def __init__(
        self,
        codes: Mapping[str, ActivityCode],
        tell: Tell,
        later: Callable[[float, Callable[[], None]], None],
        arrived: Callable[[Held, Came], None],
    ) -> None:
        self._codes = codes
        self._awaited = frozenset(name for name, code in codes.items() if is_async_row(code.function))
        self._tell = tell
        self._later = later
        self._arrived = arrived
        self.ready: list[Work] = []
        """What is to be done now, wherever that may be. Whoever does it takes it out."""
        self._event_loop: _EventLoop | None = None

    def check(self, call: Call) -> None:
        """Refuse a call of an activity that is not here, or that nothing here can run."""
        code = self._codes.get(call.activity)
        if code is None:
            raise InvalidRequest(
                f"activity {call.activity!r} is not here: give it to the host, which has "
                f"{', '.join(sorted(self._codes)) or 'none'}"
            )
        if self._event_loop is None and is_async_row(code.function):
            self._event_loop = _EventLoop()

    def start(self, held: Held, started: Started, number: int = 1) -> None:
        """Run a call.

        Args:
            held: Whose call it is.
            started: The call.
            number: Which try of it this is.
        """
        call = started.call
        held.calls[started.path] = started, number
        if call.timeout is not None:
            late = TimeoutError(f"activity {call.activity!r} did not end within {call.timeout} seconds")
            self._later(call.timeout, partial(self._came, held, started, number, Came(started.path, error=late)))
        if call.activity in self._awaited:
            self._run_in_event_loop(held, started, number)
        else:
            self.ready.append(partial(self._carry_out, held, started, number))

    def close(self) -> None:
        """Run nothing more. What is under way in a thread ends by itself."""
        self.ready.clear()
        if self._event_loop is not None:
            self._event_loop.close()

    def _carry_out(self, held: Held, started: Started, number: int) -> Callable[[], None]:
        """In any thread: run a call once, and return what is to be done in the thread of the flows then."""
        value, error = None, None
        call = started.call
        if not _counts(held, started, number):
            # Nobody waits for it any more.
            return partial(self._came, held, started, number, Came(started.path))
        function = self._codes[call.activity].function
        try:
            value = function(*call.args, key=started.key) if call.repeat == "keyed" else function(*call.args)
        except Exception as raised:
            error = raised
        except BaseException as raised:
            # Nobody is there whom it could end.
            error = RuntimeError(f"activity {call.activity!r} raised {raised!r}")
        return partial(self._came, held, started, number, Came(started.path, value, error))

    def _run_in_event_loop(self, held: Held, started: Started, number: int) -> None:
        assert self._event_loop is not None, "it was checked"

        def done(value: Any, error: Exception | None) -> None:
            self._tell(partial(self._came, held, started, number, Came(started.path, value, error)))

        code = self._codes[started.call.activity]
        named = {"key": started.key} if code.repeat == "keyed" else {}
        self._event_loop.run(code.name, lambda: code.function(*started.call.args, **named), done)

    def _came(self, held: Held, started: Started, number: int, came: Came) -> None:
        """In the thread of the flows: what came of a try, if it is the one that counts."""
        path = started.path
        if not _counts(held, started, number):
            return
        if came.error is not None and number <= started.call.retry.times:
            # Until then no other outcome counts.
            held.calls[path] = started, -number
            seconds = started.call.retry.seconds_before(number)
            self._later(seconds, partial(self._try_again, held, started, number))
            return
        del held.calls[path]
        self._arrived(held, came)

    def _try_again(self, held: Held, started: Started, number: int) -> None:
        if _counts(held, started, -number):
            self.start(held, started, number + 1)


def _counts(held: Held, started: Started, number: int) -> bool:
    """Whether a try is waited for. Another run of the flow may have a call at the same path."""
    there = held.calls.get(started.path)
    return there is not None and there[0] is started and there[1] == number


class _EventLoop:
    """An event loop in a thread of its own, for activities that are async functions."""

    def __init__(self) -> None:
        try:
            from anyio.from_thread import start_blocking_portal
        except ModuleNotFoundError as error:
            raise InvalidRequest("activities that are async functions need anyio: pip install anyio") from error
        self._opening = start_blocking_portal()
        self._portal = self._opening.__enter__()

    def run(self, name: str, begin: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        async def carry_out() -> None:
            try:
                value = await begin()
            except Exception as error:
                done(None, error)
            except BaseException as raised:
                # Its own, or that of the loop that is closed, which nobody hears of.
                done(None, RuntimeError(f"activity {name!r} raised {raised!r}"))
            else:
                done(value, None)

        self._portal.start_task_soon(carry_out)

    def close(self) -> None:
        self._portal.call(self._portal.stop, True)
        self._opening.__exit__(None, None, None)
