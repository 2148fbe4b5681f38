"""A store in memory whose order of all streams lags, as that of many processes does."""

import copy
import threading
from collections.abc import Callable
from typing import Any, cast

from interpreters.stores.memory import MemoryStore
from persist_effects.capabilities import Capabilities
from persist_effects.errors import StoreUnavailable
from persist_effects.requests import WRITES, KvWait, Page, ReadAll, Request, Wait


class LaggingMemoryStore:
    """The order of all streams shows later what was acknowledged: one commit more each time that somebody looks at it.

    Who waits is told of all. `also` and `never` plant what a store whose order lags may not do.
    """

    def __init__(self, also: type[Request[Any]] | None = None, *, never: str = "") -> None:
        self.clock = self._tick
        self._now = MemoryStore(clock=self._tick)
        self._shown = MemoryStore(clock=lambda: self._time)
        self._lock = threading.RLock()
        self._time = 0
        self._waiting = 0
        self._seen = 0
        self._not_shown: list[tuple[int, Request[Any]]] = []
        self._never = never
        self._rows = self._now.handlers
        self.handlers = {
            **self._rows,
            **dict.fromkeys(WRITES, self._write),
            **dict.fromkeys((ReadAll, *([] if also is None else [also])), self._look),
            **dict.fromkeys((Wait, KvWait), self._wait),
            **({Wait: self._rows[Wait]} if never == "waits" else {}),
        }
        self.capabilities = Capabilities(order_lags=True)

    def close(self) -> None:
        self._now.close()
        self._shown.close()

    def _tick(self) -> int:
        self._time += 1
        return self._time

    def _write(self, request: Request[Any]) -> Any:
        with self._lock:
            answer = self._rows[type(request)](request)
            self._not_shown.append((self._time, copy.deepcopy(request)))
            if self._waiting:
                self._show(len(self._not_shown))
            return answer

    def _look(self, request: Request[Any]) -> Any:
        with self._lock:
            answer = self._shown.handlers[type(request)](request)
            if self._never == "stops" and isinstance(request, ReadAll) and self._not_shown:
                # The page shows what is shown, and goes on past what is not.
                head = self._rows[ReadAll](ReadAll(limit=1)).head
                answer = Page(answer.events, head, head, answer.hole)
            self._show(1)
            if self._never == "whole" and isinstance(answer, Page) and answer.head > self._seen:
                # The last commit seems to be of one event, until somebody looks again.
                self._seen = answer.head
                del answer.events[-2:-1]
            return answer

    def _wait(self, request: Wait | KvWait) -> int:
        if not request.timeout:
            return cast(int, self._look(request))
        with self._lock:
            self._show(len(self._not_shown))
            self._waiting += 1
        try:
            return cast(int, self._shown.handlers[type(request)](request))
        finally:
            with self._lock:
                self._waiting -= 1

    def watch(self, request: Wait | KvWait, notify: Callable[[], None]) -> Callable[[], None]:
        with self._lock:
            self._show(len(self._not_shown))
            self._waiting += 1
        end_inner = self._shown.watch(request, notify)
        ends = [end_inner, self._stop_showing]

        def end_watch() -> None:
            while ends:
                ends.pop(0)()

        return end_watch

    def _stop_showing(self) -> None:
        with self._lock:
            self._waiting -= 1

    def wait_for_order(self, timeout: float) -> None:
        with self._lock:
            if self._never != "tells":
                self._show(len(self._not_shown))
            if self._never == "shown":
                raise StoreUnavailable("what was acknowledged is still not shown")

    def _show(self, count: int) -> None:
        if self._never == "shown":
            return
        now = self._time
        for _ in range(min(count, len(self._not_shown))):
            self._time, request = self._not_shown.pop(0)
            self._shown.handlers[type(request)](request)
        self._time = now
