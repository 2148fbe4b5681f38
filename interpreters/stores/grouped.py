"""What stores on a database share: writes that wait share a transaction, reads wait for nobody, who waits is told.

Such a store says how a transaction is carried out, how a request that writes nothing is answered, and how it is noticed
that other processes have written.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

from interpreters.stores.group import GroupCommit, WriteRequest
from interpreters.stores.waiting import Watchers, wait
from interpreters.threads.gates import Gate, Notify
from persist_effects.errors import InvalidRequest, StoreClosed, StoreUnavailable
from persist_effects.machine import Handlers, outcomes_by_kind
from persist_effects.requests import READS, WRITES, Answered, Failed, KvWait, Outcome, Request, Wait


class GroupedStore(ABC):
    """An interpreter on a database, which any thread may use, and more than one process.

    Args:
        where: What messages call it: a path, or a server and a database. Never with a password.
        is_read_only: Whether writes are refused.
    """

    blocking = True

    def __init__(self, where: str, *, is_read_only: bool) -> None:
        self._where = where
        self._is_read_only = is_read_only
        self._lock = threading.Lock()
        self._group = GroupCommit(self._commit)
        self._watchers = Watchers()
        self._closing = Gate()
        self._is_closed = False
        self.handlers: Handlers = {
            **dict.fromkeys(WRITES, self._refuse if is_read_only else self._write),
            **dict.fromkeys(READS, self._read),
            **dict.fromkeys((Wait, KvWait), self._wait),
        }

    @abstractmethod
    def _commit(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        """Carry out writes in one transaction. Whoever calls it has the turn in the group."""

    @abstractmethod
    def _read(self, request: Request[Any]) -> Any:
        """The answer to a request that writes nothing."""

    @abstractmethod
    def _newest(self, request: Wait | KvWait) -> int:
        """What a wait is answered now."""

    @abstractmethod
    def _start_looking(self) -> None:
        """See to it that what other processes write is noticed, as long as anybody waits."""

    # Closing, and forks

    def _begin_close(self) -> None:
        """From now on nothing is begun, and whoever waits is told."""
        self._is_closed = True
        self._closing.open()
        self._watchers.tell_all()

    def _begin_anew(self) -> None:
        """In a forked child: locks of its own, and nobody waits."""
        self._lock = threading.Lock()
        self._group = GroupCommit(self._commit)
        self._watchers.forget()
        if not self._is_closed:
            self._closing = Gate()

    def _closed(self) -> StoreUnavailable:
        return StoreClosed(f"{self._where}: the store was closed: open it again")

    # Writing

    def answer_all(self, requests: Sequence[Request[Any]]) -> list[Outcome]:
        """The outcomes of several requests: the writes share one transaction, then the reads are answered.

        Args:
            requests: The requests.

        Returns:
            Their outcomes, in order.
        """
        return outcomes_by_kind(requests, WRITES, self._write_all, lambda _, request: self._outcome(request))

    def _write_all(self, requests: Sequence[Request[Any]]) -> list[Outcome]:
        if self._is_read_only:
            return [self._outcome(request) for request in requests]
        return self._group.write(cast(Sequence[WriteRequest], requests)) if requests else []

    def _outcome(self, request: Request[Any]) -> Outcome:
        try:
            return Answered(self.handlers[type(request)](request))
        except Exception as error:
            return Failed(error)

    def _write(self, request: Any) -> Any:
        (outcome,) = self._group.write([request])
        if isinstance(outcome, Answered):
            return outcome.value
        raise outcome.error

    def _refuse(self, request: Request[Any]) -> Any:
        raise self._refusal(request.op)

    def _refusal(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"{what}: {self._where} was opened to read only: open it without mode=r to write")

    # Waiting

    def watch(self, request: Wait | KvWait, notify: Notify) -> Callable[[], None]:
        """Call ``notify()`` once as soon as a wait is over, or the store is closed.

        Args:
            request: What is waited for. Its timeout is for the caller to see to.
            notify: Called in the thread that commits, looks or closes, or at once; it must be quick and must not raise.

        Returns:
            The function that ends the watch.
        """
        with self._lock:
            token = None if self._is_closed else self._watchers.add(request, notify)
        if token is None:
            notify()
            return lambda: None

        def end_watch() -> None:
            with self._lock:
                self._watchers.remove(token)

        try:
            self._start_looking()
            is_over = self._newest(request) > request.after
        except StoreClosed:
            is_over = True
        except BaseException:
            end_watch()
            raise
        if is_over:
            # Whoever has told it already has taken it out.
            with self._lock:
                is_to_be_told = self._watchers.remove(token)
            if is_to_be_told:
                notify()
        return end_watch

    @property
    def is_waited_for(self) -> bool:
        """Whether anybody waits."""
        return bool(self._watchers)

    def _wait(self, request: Wait | KvWait) -> int:
        return wait(request, self.watch, self._newest)

    def tell_of(self, streams: dict[str, int], keys: dict[str, int]) -> None:
        """Tell those that wait for one of these changes.

        Args:
            streams: The streams that were appended to, and the newest position of each.
            keys: The keys that were changed, and the newest revision of each.
        """
        with self._lock:
            ready = [*self._watchers.take(Wait, streams), *self._watchers.take(KvWait, keys)]
        for notify in ready:
            notify()
