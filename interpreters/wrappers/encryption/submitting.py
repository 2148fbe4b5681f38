"""Requests that an encrypted store answers later: no thread that must not wait asks the key store."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from interpreters.runtime.interpreter import Between, OnOutcome, Submit
from interpreters.threads import forks
from interpreters.wrappers.encryption.ring import KeptKeys, KeyRing, NotKept
from interpreters.wrappers.encryption.sealing import Sealing, between
from persist_effects.requests import Failed, Outcome, Request

THREADS = 4
"""How many threads look up keys at once. Each waits for the key store most of its time."""


class Submitting:
    """``submit`` around that of the store inside.

    What is asked with keys that are in memory is sealed, submitted and opened in the threads that the store inside
    calls. The rest is handed to threads that may wait for the key store.

    Args:
        submit: That of the store inside.
        sealing: Seals.
        ring: The keys.
    """

    def __init__(self, submit: Submit, sealing: Sealing, ring: KeyRing) -> None:
        self._submit = submit
        self._at_once = between(sealing, KeptKeys(ring, self._hand_over))
        self._waiting = between(sealing, ring)
        self._threads: ThreadPoolExecutor | None = None
        self._is_closed = False
        forks.register(self)

    def submit(self, requests: Sequence[Request[Any]], done: OnOutcome) -> None:
        """Begin requests: see `interpreters.runtime.interpreter.Submit`."""
        late = self._begin(self._at_once, requests, done)
        if late:
            self._hand_over(lambda: self._begin_late(requests, late, done))

    def close(self) -> None:
        """Let the threads end, once what they were given is done. What comes later is soon told that all is closed."""
        self._is_closed = True
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()

    def state_lock(self) -> None:
        """No lock is held."""

    def leave_to_parent(self, *, is_whole: bool) -> None:
        """In a forked child: threads of its own."""
        self._threads = None

    def _begin(self, how: Between, requests: Sequence[Request[Any]], done: OnOutcome) -> list[int]:
        """Begin what can be sealed, and return the places of those for which the key store must be asked."""
        asked, places, refused = how.changed(requests)
        late = []
        for index, outcome in refused.items():
            if isinstance(outcome.error, NotKept):
                late.append(index)
            else:
                done(index, outcome)
        if asked:
            self._submit(asked, lambda place, outcome: self._receive(requests, places[place], outcome, done))
        return late

    def _begin_late(self, requests: Sequence[Request[Any]], late: Sequence[int], done: OnOutcome) -> None:
        told: set[int] = set()

        def tell(place: int, outcome: Outcome) -> None:
            told.add(place)
            done(late[place], outcome)

        try:
            self._begin(self._waiting, [requests[index] for index in late], tell)
        except Exception as error:
            # What `submit` itself raises is the outcome of all that has none. Here nobody else would take it.
            for place in range(len(late)):
                if place not in told:
                    tell(place, Failed(error))

    def _receive(self, requests: Sequence[Request[Any]], index: int, outcome: Outcome, done: OnOutcome) -> None:
        request = requests[index]
        received = self._at_once.received(request, outcome)
        if isinstance(received, Failed) and isinstance(received.error, NotKept):
            self._hand_over(lambda: done(index, self._waiting.received(request, outcome)))
        else:
            done(index, received)

    def _hand_over(self, work: Callable[[], object]) -> None:
        if self._is_closed:
            work()
            return
        threads = self._threads
        if threads is None:
            threads = self._threads = ThreadPoolExecutor(THREADS, "persist-effects keys")
        threads.submit(work)
