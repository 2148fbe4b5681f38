"""Who waits for an event or for a change of a key, and how: what every store of this process does in the same way.

A store adds a `Wait` or a `KvWait` to its `Watchers`, and after each commit asks them who has what it waits for. It
decides under its own lock, and tells outside of it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from interpreters.threads.gates import Gate, Notify, wait_until_told
from persist_effects.requests import KvWait, Request, Wait

DELETIONS_KEPT = 1_024
"""Of how many deleted keys a store knows when that was, so that only waits for other keys are told too high."""

_Watch = Callable[[Wait | KvWait, Notify], Callable[[], None]]


class Watchers:
    """Those that wait. Each is told once, then forgotten. A store holds its lock around all but `tell_all`.

    >>> watchers = Watchers()
    >>> token = watchers.add(Wait(3, "orders/"), lambda: print("told"))
    >>> watchers.take(Wait, {"orders/1": 3, "notes": 4})
    []
    >>> for notify in watchers.take(Wait, {"orders/1": 5}):
    ...     notify()
    told
    """

    __slots__ = ("_watching",)

    def __init__(self) -> None:
        self._watching: dict[object, tuple[Wait | KvWait, Notify]] = {}

    def __bool__(self) -> bool:
        return bool(self._watching)

    def add(self, request: Wait | KvWait, notify: Notify) -> object:
        """Note who waits, and return the token by which it is removed.

        Args:
            request: What it waits for.
            notify: How it is told: quick, and without raising.

        Returns:
            The token.
        """
        token = object()
        self._watching[token] = (request, notify)
        return token

    def remove(self, token: object) -> None:
        """Forget one that waits. Again: nothing.

        Args:
            token: What `add` returned for it.
        """
        self._watching.pop(token, None)

    def forget(self) -> None:
        """Forget all, in a forked child: whoever waits is a thread or an event loop of the parent's."""
        self._watching = {}

    def take(self, kind: type[Request[Any]], newest: Mapping[str, int]) -> list[Notify]:
        """Take out those that a commit has made ready.

        Args:
            kind: `Wait` or `KvWait`.
            newest: The streams that were appended to and their newest positions, or the keys that were changed and
                their newest revisions.

        Returns:
            How to tell each of them.
        """
        ready = [
            token
            for token, (request, _) in self._watching.items()
            if type(request) is kind
            and any(number > request.after and name.startswith(request.prefix) for name, number in newest.items())
        ]
        return [self._watching.pop(token)[1] for token in ready]

    def tell_all(self) -> None:
        """Tell everybody that the store was closed. One by one: after an interrupt the next call tells the rest."""
        for token in list(self._watching):
            told = self._watching.pop(token, None)
            if told is not None:
                told[1]()


def wait(request: Wait | KvWait, watch: _Watch, newest: Callable[[Wait | KvWait], int]) -> int:
    """Answer a wait in the calling thread.

    Args:
        request: The wait.
        watch: The store's own ``watch(request, notify)``, which returns the function that ends the watch.
        newest: Gives the newest position or revision that the request asks for. Raises where the store is closed.

    Returns:
        The newest one, once it is past ``after``, or the timeout is over, or the store was closed.

    >>> wait(Wait(0, timeout=60), lambda request, notify: notify, lambda request: 7)
    7
    """
    if request.timeout > 0:
        found = newest(request)
        if found > request.after:
            return found
        past = Gate()
        end_watch = watch(request, past.open)
        try:
            wait_until_told(past, request.timeout, lambda: newest(request) > request.after)
        finally:
            end_watch()
    return newest(request)


class Revisions:
    """The newest revision under a prefix, that of a deletion too. Of deletions long ago it knows only the last.

    Args:
        live: The revision of each key that is there.

    >>> revisions = Revisions(lambda: {"color": 4, "size": 2}.items())
    >>> revisions.deleted("shape", 3)
    >>> [revisions.newest(prefix) for prefix in ("", "s", "sh", "z")]
    [4, 3, 3, 0]
    >>> revisions.forget(9)
    >>> revisions.newest("z")
    9
    """

    __slots__ = ("_deleted", "_forgotten", "_live")

    def __init__(self, live: Callable[[], Any]) -> None:
        self._live = live
        self._deleted: dict[str, int] = {}
        # The highest revision of a deletion of which the key is not known any more.
        self._forgotten = 0

    def deleted(self, key: str, revision: int) -> None:
        """Note when a key was deleted.

        Args:
            key: The key that is not there any more.
            revision: That of its deletion, higher than all before.
        """
        self._deleted.pop(key, None)
        self._deleted[key] = revision
        if len(self._deleted) > DELETIONS_KEPT:
            # In their order, and each has a higher revision than the one before.
            oldest = next(iter(self._deleted))
            self._forgotten = max(self._forgotten, self._deleted.pop(oldest))

    def of_deleted(self, key: str) -> int:
        """When a key that is not there was deleted.

        Args:
            key: The key.

        Returns:
            The revision of its deletion, 0 if it never was there; perhaps too high, never too low.
        """
        return self._deleted.get(key, self._forgotten)

    def forget(self, revision: int) -> None:
        """Say which deletions are not known, after opening.

        Args:
            revision: Those up to this one.
        """
        self._forgotten = max(self._forgotten, revision)

    def newest(self, prefix: str) -> int:
        """The newest revision of a key under a prefix.

        Args:
            prefix: What the keys begin with; "": all.

        Returns:
            The revision of the last put or deletion; perhaps that of another deletion, never a lower one. 0: none.
        """
        live = (revision for key, revision in self._live() if key.startswith(prefix))
        gone = (revision for key, revision in self._deleted.items() if key.startswith(prefix))
        return max(self._forgotten, max(live, default=0), max(gone, default=0))
