"""Virtual time, and identifiers that are the same in each run: what explored programs are answered for both."""

import hashlib
import math

from interpreters.clocks import uuid7
from interpreters.runtime.interpreter import Interpreter
from interpreters.runtime.store import Store
from persist_effects.errors import StoreClosed
from persist_effects.machine import Handlers
from persist_effects.requests import TIMES, NewId, Now, Sleep

START_MICROSECONDS = 1_700_000_000_000_000
"""When virtual time begins: in November of 2023, so that times, and identifiers made of them, look as usual."""


def microseconds_at(seconds: float) -> int:
    """The virtual time so many seconds after its beginning, in microseconds since 1970, UTC.

    >>> microseconds_at(1.5) - START_MICROSECONDS
    1500000
    """
    return START_MICROSECONDS + int(seconds * 1_000_000)


def id_of(now: int, asker: str, number: int) -> str:
    """A fresh identifier, which is another one for each asker and each number.

    Args:
        now: The virtual time, in microseconds since 1970, UTC.
        asker: Who asks.
        number: How many it has asked for.

    Returns:
        A UUID of version 7.

    >>> id_of(START_MICROSECONDS, "program 0", 1)
    '018bcfe5-6800-7eed-a7e4-a96bac9d5528'
    """
    return uuid7(now, hashlib.blake2b(f"{asker} {number}".encode(), digest_size=10).digest())


def rows_but_of_time(store: Store | Interpreter) -> Handlers:
    """A store's table without its own rows for time: only what the user has put in their place is left of those.

    >>> from interpreters import open_store
    >>> rows = rows_but_of_time(open_store("memory:", effects={NewId: lambda request: "a"}))
    >>> Now in rows, NewId in rows
    (False, True)
    """
    users = store.effects if isinstance(store, Store) else {}
    return {kind: row for kind, row in store.handlers.items() if kind not in TIMES or kind in users}


class VirtualTime:
    """A clock that moves only where a program sleeps, for programs of which one goes on at a time.

    >>> from persist_effects import clock, run
    >>> time = VirtualTime()
    >>> def nap():
    ...     began = yield from clock.now()
    ...     yield from clock.sleep(30 * 86_400)
    ...     return ((yield from clock.now()) - began) // 1_000_000
    >>> run(nap(), time.rows)
    2592000
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._ids = 0
        self.rows: Handlers = {Now: self._now, NewId: self._new_id, Sleep: self._sleep}
        """What answers the requests for time."""

    def _now(self, request: Now) -> int:
        return microseconds_at(self._seconds)

    def _new_id(self, request: NewId) -> str:
        self._ids += 1
        return id_of(microseconds_at(self._seconds), "", self._ids)

    def _sleep(self, request: Sleep) -> None:
        if request.seconds == math.inf:
            raise StoreClosed("a sleep without end is over when its store is closed: here nobody else could close it")
        self._seconds += request.seconds
