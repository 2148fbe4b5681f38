"""A simulated disk with a plug, which any thread may pull: now, or before a request that is still to come."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from interpreters.disk.crashing import CrashDisk, Image
from interpreters.disk.keeping import Keep
from interpreters.explore.words import named
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handler, Handlers
from persist_effects.requests import Request


class PlugPulled(BaseException):
    """The plug of a store of ``crash:`` was pulled: what used it is gone, and goes on with what ``restart()`` returns.

    It is not an Exception, so that no program, and no loop around programs, goes on as if its process were still there.
    """


class Pulled(NamedTuple):
    """That the plug was pulled: after how many requests, before which one, what survives by ``keep``, what does not."""

    after: int
    request: Request[Any] | None
    number: int
    keep: Keep
    image: Image
    losses: tuple[str, ...]

    def __str__(self) -> str:
        what = "" if self.request is None else f" ({named(self.request)})"
        return f"the plug was pulled before request {self.number} of the disk{what}"


class PluggedDisk:
    """A disk that answers from any thread, one request at a time, until its plug is pulled.

    Args:
        disk: The disk.
        profile: Which file systems it may be of: one of `PROFILES`.
        gone: Makes what is raised by everything that is asked once the plug is pulled.
    """

    def __init__(self, disk: CrashDisk, profile: str, gone: Callable[[Pulled], PlugPulled]) -> None:
        self.disk = disk
        self.count = 0
        """How many requests came since the store was opened."""
        self.pulled: Pulled | None = None
        self.handlers: Handlers = {kind: partial(self._answer, row) for kind, row in disk.handlers.items()}
        self._kinds = {str(kind.__struct_config__.tag): kind for kind in self.handlers}
        self._profile = profile
        self._gone = gone
        self._lock = threading.Lock()
        self._due: tuple[int | type[Request[Any]], Keep] | None = None
        self._failing: dict[type[Request[Any]], OSError] = {}
        self._on_pull: list[Callable[[], None]] = []

    def count_from_now(self) -> None:
        """Forget those that came so far: the store is open."""
        self.count = 0

    def on_pull(self, notify: Callable[[], None]) -> None:
        """Have something called once the plug is pulled, in the thread that meets it; it must not ask the disk."""
        self._on_pull.append(notify)

    def check(self) -> None:
        """Raise `PlugPulled` where it was pulled."""
        if self.pulled is not None:
            raise self.gone()

    def gone(self) -> PlugPulled:
        """What is raised once it was pulled."""
        assert self.pulled is not None, "the plug was pulled"
        return self._gone(self.pulled)

    def pull(self, keep: Keep) -> None:
        """Pull the plug now, between two requests. Raises `PlugPulled` where it was pulled before."""
        with self._lock:
            self.check()
            self._pull(None, keep)

    def pull_at(self, at: int | str, keep: Keep) -> None:
        """Have the plug pulled before a request that is still to come.

        Args:
            at: How many come before it, or the name of its kind: the next one.
            keep: What of the unsynced survives.

        Raises:
            InvalidRequest: There is no such request.
        """
        with self._lock:
            self.check()
            due = self.count + at if type(at) is int and at >= 0 else self._kind("at", at)
            self._due = (due, keep)

    @property
    def is_due(self) -> bool:
        """Whether it is to be pulled before a request that has not come yet."""
        return self._due is not None and self.pulled is None

    def fail(self, op: str, error: OSError) -> None:
        """Have the next request of a kind fail. Raises `InvalidRequest` where there is no such kind."""
        kind = self._kind("op", op)
        with self._lock:
            self.check()
            self._failing[kind] = error

    def _kind(self, argument: str, name: object) -> type[Request[Any]]:
        kind = self._kinds.get(f"disk/{name}")
        if kind is None:
            known = ", ".join(sorted(op.removeprefix("disk/") for op in self._kinds))
            also = ", or how many requests come before" if argument == "at" else ""
            raise InvalidRequest(f"{argument} is {describe(name)}: give one of {known}{also}")
        return kind

    def _answer(self, row: Handler, request: Request[Any]) -> Any:
        with self._lock:
            self.check()
            if self._due is not None and self._due[0] in (self.count, type(request)):
                self._pull(request, self._due[1])
                self.check()
            self.count += 1
            error = self._failing.pop(type(request), None)
            if error is not None:
                self.disk.refuse(request, error)
            return row(request)

    def _pull(self, request: Request[Any] | None, keep: Keep) -> None:
        left = self.disk.survivor(keep, self._profile)
        self.pulled = Pulled(self.count, request, self.disk.count, keep, left.image, left.losses)
        for notify in self._on_pull:
            notify()
