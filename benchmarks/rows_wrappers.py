"""A store with a wrapper around it, against the same store without, in the same round: how much of the speed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from benchmarks.appends import Appends, append_together, prepared_appends
from benchmarks.ground import new_directory
from benchmarks.table import Bound, Row, rate
from interpreters.opening import open_store
from interpreters.runtime.interpreter import Interpreter
from interpreters.wrappers import Around, Retrying, wrapped
from interpreters.wrappers.around import Wrapper
from persist_effects.requests import Request


class Counting(Around):
    """Counts requests by their kinds."""

    def __init__(self, inner: Interpreter) -> None:
        self.counts: Counter[type[Request[Any]]] = Counter()
        super().__init__(inner)

    def change(self, request: Request[Any]) -> Request[Any]:
        """Count one."""
        self.counts[type(request)] += 1
        return request


def appending(*wrappers: Wrapper) -> Callable[[Appends], float]:
    def append(appends: Appends) -> float:
        with new_directory() as directory, wrapped(open_store(f"file:{directory}/store"), *wrappers) as store:
            return rate(len(appends.orders), lambda: append_together(store, appends))

    return append


def _row(name: str, wrapper: Wrapper) -> Row:
    return Row(
        f"wrapped: append, 1,000 programs together, {name}, against the same without",
        unit="events/s",
        bound=Bound.AT_LEAST,
        must=0.95,
        operations=20_000,
        prepare=prepared_appends,
        ours=appending(wrapper),
        peer=appending(),
        rounds=15,
    )


ROWS = (_row("counted", Counting), _row("asked again", Retrying))
