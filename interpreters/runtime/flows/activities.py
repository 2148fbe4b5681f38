"""Activities of flows: run in threads, or in an event loop, tried again, and given up when their time is over."""

from collections.abc import Callable, Mapping
from typing import Any

from interpreters.threads.workers import Workers
from persist_effects.errors import InvalidRequest
from persist_effects.flow.defining import ActivityCode
from persist_effects.flow.requests import Call, Came, Started
from persist_effects.rows import is_async_row

Tell = Callable[[Callable[[], None]], None]
"""Has something called in the thread of the flows, from any thread."""


class Activities:
    """Runs calls, and says what came of each.

    Args:
        codes: The activities, by name.
        tell: Has something called in the thread of the flows.
        later: Has something called there after so many seconds.
        deliver: Is told, in that thread, what came of a call.
        count: How many threads there are for them at the most.
    """

    def __init__(
        self,
        codes: Mapping[str, ActivityCode],
        tell: Tell,
        later: Callable[[float, Callable[[], None]], None],
        deliver: Callable[[str, Came], None],
        count: int,
    ) -> None:
        self._codes = codes
        self._tell = tell
        self._later = later
        self._deliver = deliver
        self._workers = Workers(count, "persist-effects activity")
        # What is under way: which try of which call counts. A call of another run of the flow has another key.
        self._tries: dict[tuple[str, tuple[int, ...]], tuple[str, int]] = {}
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

    def start(self, flow_id: str, started: Started) -> None:
        """Run a call.

        Args:
            flow_id: Whose call it is.
            started: The call.
        """
        self._try(flow_id, started, 1)

    def forget(self, flow_id: str, path: tuple[int, ...]) -> None:
        """Nobody waits for a call any more. It goes on by itself, and what comes of it is dropped."""
        self._tries.pop((flow_id, path), None)

    def close(self) -> None:
        """Run nothing more. What is under way in a thread ends by itself."""
        self._tries.clear()
        self._workers.end(may_wait=False)
        if self._event_loop is not None:
            self._event_loop.close()

    def _try(self, flow_id: str, started: Started, number: int) -> None:
        call = started.call
        code = self._codes[call.activity]
        place, counts = (flow_id, started.path), (started.key, number)
        self._tries[place] = counts
        if call.timeout is not None:
            late = TimeoutError(f"activity {call.activity!r} did not end within {call.timeout} seconds")
            self._later(call.timeout, lambda: self._came(flow_id, started, number, Came(started.path, error=late)))
        named = {"key": started.key} if code.repeat == "keyed" else {}
        if is_async_row(code.function):
            assert self._event_loop is not None, "it was checked"
            self._event_loop.run(
                call.activity,
                lambda: code.function(*call.args, **named),
                lambda value, error: self._say(flow_id, started, number, value, error),
            )
            return

        def job() -> None:
            if self._tries.get(place) != counts:
                # Nobody waits for it any more.
                return
            try:
                value, error = code.function(*call.args, **named), None
            except Exception as raised:
                value, error = None, raised
            except BaseException as raised:
                # Nobody is there whom it could end.
                value, error = None, RuntimeError(f"activity {call.activity!r} raised {raised!r}")
            self._say(flow_id, started, number, value, error)

        self._workers.do(job)

    def _say(self, flow_id: str, started: Started, number: int, value: Any, error: Exception | None) -> None:
        came = Came(started.path, value, error)
        self._tell(lambda: self._came(flow_id, started, number, came))

    def _came(self, flow_id: str, started: Started, number: int, came: Came) -> None:
        """In the thread of the flows: what came of a try, if it is the one that counts."""
        place = flow_id, started.path
        if self._tries.get(place) != (started.key, number):
            return
        retry = started.call.retry
        if came.error is not None and number <= retry.times:
            # Until then no other outcome counts.
            self._tries[place] = started.key, -number
            self._later(retry.seconds_before(number), lambda: self._try_again(flow_id, started, number))
            return
        del self._tries[place]
        self._deliver(flow_id, came)

    def _try_again(self, flow_id: str, started: Started, number: int) -> None:
        if self._tries.get((flow_id, started.path)) == (started.key, -number):
            self._try(flow_id, started, number + 1)


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
