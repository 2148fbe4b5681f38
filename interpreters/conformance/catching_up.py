"""What a store whose order lags has acknowledged, and waiting until all of it is shown.

`ReadAll`, `Wait` and `KvWait` of such a store may show later what was acknowledged before. A fact compares the two, so
it asks once the store has come so far; that it comes there at all, without a gap on the way, are facts of their own.
"""

import threading
from time import monotonic
from typing import Any

from interpreters.runtime.store import Store
from interpreters.threads.gates import Gate
from persist_effects.machine import perform
from persist_effects.requests import (
    Advance,
    Appended,
    Begin,
    KvDelete,
    KvPut,
    KvWait,
    ReadAll,
    Request,
    Transact,
    TruncateThrough,
)

_PAUSE_SECONDS = 0.001


class Acknowledged:
    """What one store was asked to write and has acknowledged, as far as its order must come to show it.

    >>> from interpreters import open_store
    >>> acknowledged = Acknowledged()
    >>> acknowledged.note(Begin("a", 7), 3)
    >>> acknowledged.is_shown_by(open_store("memory:"))
    False
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._position = 0
        self._revision = 0
        # Through which sequence number each stream's events were dropped.
        self._dropped: dict[str, int] = {}
        self._not_shown: set[str] = set()

    def newest_revision(self, store: Store, patience_seconds: float) -> int:
        """The newest revision, for who is about to delete a key: the answer to that does not tell its own.

        Args:
            store: The store.
            patience_seconds: How long it may take until it is shown.

        Returns:
            The revision, which is below that of the deletion.
        """
        self.wait_until_shown(store, patience_seconds)
        return store.run(perform(KvWait(0)))

    def note(self, request: Request[Any], answer: Any, newest_revision: int = 0) -> None:
        """Note what an answer acknowledges.

        Args:
            request: What the store was asked, by any thread.
            answer: What it answered.
            newest_revision: What was the newest revision before a key was deleted.
        """
        if isinstance(request, Transact):
            if isinstance(answer, list):
                for write, its_answer in zip(request.writes, answer, strict=False):
                    self.note(write, its_answer, newest_revision)
            return
        with self._lock:
            if isinstance(answer, Appended):
                self._position = max(self._position, answer.position)
            elif isinstance(request, KvPut) and type(answer) is int:
                self._revision = max(self._revision, answer)
            elif isinstance(request, KvDelete) and answer is True:
                self._revision = max(self._revision, newest_revision + 1)
            elif isinstance(request, Advance):
                self._position = max(self._position, request.position)
            elif isinstance(request, Begin) and type(answer) is int:
                self._position = max(self._position, answer)
                self._dropped[request.stream] = request.seq
            elif isinstance(request, TruncateThrough) and type(answer) is int and answer > 0:
                self._dropped[request.stream] = self._dropped.get(request.stream, 0) + answer
                self._not_shown.add(request.stream)

    def wait_until_shown(self, store: Store, patience_seconds: float) -> None:
        """Return once the store shows all that was noted.

        Args:
            store: The store.
            patience_seconds: How long that may take.

        Raises:
            AssertionError: It took longer.
        """
        deadline = monotonic() + patience_seconds
        pause = Gate()
        while not self.is_shown_by(store):
            assert monotonic() < deadline, (
                f"read-all still does not show, {patience_seconds:g} s later, all that was acknowledged: "
                f"events up to position {self._position}, truncations of {sorted(self._not_shown)}, "
                f"and keys up to revision {self._revision}"
            )
            pause.wait(_PAUSE_SECONDS)

    def is_shown_by(self, store: Store) -> bool:
        """Whether `ReadAll` and `KvWait` show all that was noted.

        Args:
            store: The store.

        Returns:
            Whether it does.
        """
        with self._lock:
            position, dropped = self._position, [(stream, self._dropped[stream]) for stream in self._not_shown]
            revision = self._revision if store.capabilities.wait else 0
        if revision and store.run(perform(KvWait(0))) < revision:
            return False
        if store.run(perform(ReadAll(max(0, position - 1), limit=1))).head < position:
            return False
        for stream, seq in dropped:
            if not _is_dropped(store, stream, seq):
                return False
            with self._lock:
                if self._dropped[stream] == seq:
                    self._not_shown.discard(stream)
        return True


def _is_dropped(store: Store, stream: str, seq: int) -> bool:
    after = 0
    while True:
        page = store.run(perform(ReadAll(after, stream)))
        if after == 0 and page.hole is None:
            return False
        for event in page.events:
            if event.stream == stream:
                return event.seq > seq
        if page.next >= page.head:
            return True
        after = page.next
