"""Who waits for an event or for a change of a key, and how: what every store of this process does in the same way.

A store adds a `Wait` or a `KvWait` to its `Watchers`, and after each commit asks them who has what it waits for. It
decides under its own lock, and tells outside of it.
"""

from collections.abc import Callable, Mapping

from interpreters.threads.gates import Gate, Notify, wait_until_told
from persist_effects.requests import KvWait, Wait

DELETIONS_KEPT = 1_024
"""Of how many deleted keys a store knows when that was, so that only waits for other keys are told too high."""

_Watch = Callable[[Wait | KvWait, Notify], Callable[[], None]]
_Tokens = dict[type[Wait | KvWait], dict[int, dict[str, dict[object, None]]]]


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

    __slots__ = ("_tokens", "_watching")

    def __init__(self) -> None:
        self._watching: dict[object, tuple[Wait | KvWait, Notify]] = {}
        # Those that wait for one thing: by the kind of request, the length of the prefix, and the prefix.
        self._tokens: _Tokens = {Wait: {}, KvWait: {}}

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
        token, prefix = object(), request.prefix
        self._tokens[type(request)].setdefault(len(prefix), {}).setdefault(prefix, {})[token] = None
        self._watching[token] = (request, notify)
        return token

    def remove(self, token: object) -> bool:
        """Forget one that waits. Again: nothing.

        Args:
            token: What `add` returned for it.

        Returns:
            Whether it was not told yet.
        """
        return self._take_out(token) is not None

    def forget(self) -> None:
        """Forget all, in a forked child: whoever waits is a thread or an event loop of the parent's."""
        self._watching, self._tokens = {}, {Wait: {}, KvWait: {}}

    def take(self, kind: type[Wait | KvWait], newest: Mapping[str, int]) -> list[Notify]:
        """Take out those that a commit has made ready.

        What that costs grows with the names, and with those that wait for one of them, not with both at once.

        Args:
            kind: `Wait` or `KvWait`.
            newest: The streams that were appended to and their newest positions, or the keys that were changed and
                their newest revisions.

        Returns:
            How to tell each of them.
        """
        changed: dict[str, int] = {}
        by_length = self._tokens[kind]
        for name, number in newest.items():
            for length, by_prefix in by_length.items():
                prefix = name[:length]
                if prefix in by_prefix:
                    changed[prefix] = max(number, changed.get(prefix, 0))
        ready = [
            self._take_out(token)
            for prefix, number in changed.items()
            for token in list(by_length[len(prefix)][prefix])
            if self._is_over(token, number)
        ]
        return [notify for notify in ready if notify is not None]

    def _is_over(self, token: object, number: int) -> bool:
        # Whoever closes the store may just be telling it.
        found = self._watching.get(token)
        return found is None or found[0].after < number

    def _take_out(self, token: object) -> Notify | None:
        found = self._watching.pop(token, None)
        if found is None:
            return None
        request, notify = found
        by_length, length = self._tokens[type(request)], len(request.prefix)
        by_prefix = by_length.get(length, {})
        tokens = by_prefix.get(request.prefix, {})
        tokens.pop(token, None)
        # An interrupt may leave one of them empty, which does no harm.
        if not tokens:
            by_prefix.pop(request.prefix, None)
        if not by_prefix:
            by_length.pop(length, None)
        return notify

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
        newest_put: Gives the newest revision of the keys under a prefix that are there.

    >>> revisions = Revisions({"": 4, "s": 2, "sh": 0, "z": 0}.get)
    >>> revisions.deleted("shape", 3)
    >>> [revisions.newest(prefix) for prefix in ("", "s", "sh", "z")]
    [4, 3, 3, 0]
    >>> revisions.forget(9)
    >>> revisions.newest("z")
    9
    """

    __slots__ = ("_deleted", "_forgotten", "_newest_put")

    def __init__(self, newest_put: Callable[[str], int]) -> None:
        self._newest_put = newest_put
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
        newest = max(self._forgotten, self._newest_put(prefix))
        # From the last deletion on, which has the highest revision.
        for key, revision in reversed(self._deleted.items()):
            if revision <= newest:
                break
            if key.startswith(prefix):
                return revision
        return newest
