"""A memory store that can be taken back to what it was: for a search that tries one order of writes after another.

What each write changes is noted as what takes it back, so that going back costs as much as what was done, however much
the store holds.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter, itemgetter

from interpreters.clocks import Clock
from interpreters.stores.memory import MemoryStore
from interpreters.stores.names import SortedNames
from interpreters.stores.waiting import Revisions
from persist_effects.event import Event
from persist_effects.planning import Begun, Change, PlannedRun, Put
from persist_effects.requests import KvWait, Wait


class RewindableStore(MemoryStore):
    """A memory store whose newest writes can be taken back. For one thread, and nobody waits on it.

    Args:
        clock: Gives microseconds since 1970, UTC.

    >>> from persist_effects import kv, run
    >>> store = RewindableStore()
    >>> mark = store.mark()
    >>> run(kv.put("color", "red"), store.handlers)
    1
    >>> store.rewind(mark)
    >>> run(kv.get_or("color", "none"), store.handlers)
    'none'
    """

    def __init__(self, clock: Clock = lambda: 0) -> None:
        super().__init__(clock)
        self._undoing: list[Callable[[], None]] = []
        self._deletions: list[tuple[str, int]] = []
        self._is_rewound = False

    def mark(self) -> int:
        """Where it is now, for `rewind`."""
        return len(self._undoing)

    def rewind(self, mark: int) -> None:
        """Take back all that was written since a mark.

        Args:
            mark: What `mark` has returned.
        """
        if mark == len(self._undoing):
            return
        while len(self._undoing) > mark:
            self._undoing.pop()()
        # Their numbers only grow, so they begin anew.
        self._stream_names = SortedNames(self._streams, attrgetter("last_position"))
        self._truncated_names = SortedNames(self._truncated, attrgetter("dropped_position"))
        self._keys = SortedNames(self._entries, itemgetter(1))
        self._is_rewound = True

    def _newest(self, request: Wait | KvWait) -> int:
        if self._is_rewound:
            self._revisions = Revisions(self._keys.newest)
            for key, revision in self._deletions:
                self._revisions.deleted(key, revision)
            self._is_rewound = False
        return super()._newest(request)

    # What is noted before each change

    def _apply(self, change: Change) -> None:
        self._undoing.append(partial(self._set_numbers, self._position, self._revision))
        super()._apply(change)

    def _set_numbers(self, position: int, revision: int) -> None:
        self._position, self._revision = position, revision

    def _apply_beginning(self, name: str, begun: Begun) -> None:
        self._undoing.append(partial(self._forget_stream, name, self._position))
        super()._apply_beginning(name, begun)

    def _forget_stream(self, name: str, position: int) -> None:
        self._position = position
        del self._streams[name], self._truncated[name]

    def _apply_run(self, run: PlannedRun) -> None:
        first = run[0][0]
        found = self._streams.get(first.stream)
        newest = found.last_position if found else 0
        self._undoing.append(partial(self._take_back_run, first, newest, self._position))
        super()._apply_run(run)

    def _take_back_run(self, first: Event, newest: int, position: int) -> None:
        # All from there on, also where a stream was begun in the same transaction, past it.
        self._position = first.position - 1
        self._take_back_append(first.stream, first.seq - 1)
        self._position = position
        if first.stream in self._streams:
            self._streams[first.stream].last_position = newest

    def _apply_drop(self, name: str, seq: int) -> None:
        stream = self._streams[name]
        held = stream.events, stream.dropped, stream.dropped_position
        log, dropped_in_log, was_truncated = self._log, self._dropped_in_log, name in self._truncated

        def take_back() -> None:
            stream.events, stream.dropped, stream.dropped_position = held
            self._log, self._dropped_in_log = log, dropped_in_log
            if not was_truncated:
                del self._truncated[name]

        self._undoing.append(take_back)
        super()._apply_drop(name, seq)

    def _apply_put(self, key: str, put: Put) -> None:
        self._undoing.append(partial(self._put_back, key, self._entries.get(key), self._revision))
        super()._apply_put(key, put)

    def _put_back(self, key: str, held: Put | None, revision: int) -> None:
        self._revision = revision
        if held is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = held

    def _apply_deletion(self, key: str, revision: int) -> None:
        self._undoing.append(partial(self._take_back_deletion, key, self._entries.get(key), self._revision))
        self._deletions.append((key, revision))
        super()._apply_deletion(key, revision)

    def _take_back_deletion(self, key: str, held: Put | None, revision: int) -> None:
        self._deletions.pop()
        self._put_back(key, held, revision)
