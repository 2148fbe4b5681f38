"""Several stores on the same data, as several processes have them open, behind one interpreter."""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

from persist_effects.requests import KvWait, Outcome, Request, Wait


class Alternating:
    """Each request goes to the store after that which had the one before.

    So what one of them has acknowledged, the next must show at once, and who waits at one is woken by the other.
    """

    blocking = True

    def __init__(self, stores: Sequence[Any]) -> None:
        self.stores = tuple(stores)
        self._turns = cycle(self.stores)
        self.capabilities = self.stores[0].capabilities
        self.handlers = dict.fromkeys(self.stores[0].handlers, self._ask)

    def _ask(self, request: Request[Any]) -> Any:
        return next(self._turns).handlers[type(request)](request)

    def answer_all(self, requests: Sequence[Request[Any]]) -> list[Outcome]:
        return next(self._turns).answer_all(requests)

    def watch(self, request: Wait | KvWait, notify: Callable[[], None]) -> Callable[[], None]:
        return next(self._turns).watch(request, notify)

    def wait_for_order(self, timeout: float) -> None:
        for store in self.stores:
            store.wait_for_order(timeout)

    def close(self) -> None:
        for store in self.stores:
            store.close()
