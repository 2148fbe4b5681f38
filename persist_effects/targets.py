"""Programs that talk to two stores: one has the events, the other what is made of them.

`into` gives what a program asks of keys, and what it writes, to a store that has a name; all else, the log that it
reads above all, to the store that runs it. The requests stay plain data, so that such programs are recorded, replayed
and explored as all others. Which store has the name, `rows_at` says, where the store is opened that runs them.

>>> from interpreters import open_store
>>> from persist_effects import follow, kv, log
>>> from persist_effects.requests import KvPut
>>> reports = open_store("memory:")
>>> orders = open_store("memory:", effects=rows_at({"reports": reports}))
>>> _ = orders.run(log.append("orders/1", "placed", 12))
>>> _ = orders.run(follow("totals", "orders/", lambda event: [KvPut("total", event.data)], into="reports"))
>>> reports.run(kv.get("total")), orders.run(kv.get("total"))
(12, None)
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, cast

from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_name
from persist_effects.machine import Effect, Handlers, perform, run, through
from persist_effects.programs import program
from persist_effects.requests import (
    WRITES,
    AllOf,
    At,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvWait,
    Request,
    StoreRequest,
)

A = TypeVar("A")

_ELSEWHERE = WRITES | {KvGet, KvHas, KvKeys, KvEntries, KvWait}
"""What is asked of the target: all of the keys, and whatever is written."""


class Target(Protocol):
    """What has a name as a target: a store."""

    @property
    def handlers(self) -> Handlers:
        """The function that answers each type of request."""
        ...


def rows_at(targets: Mapping[str, Target]) -> Handlers:
    """The row that asks other stores, for the ``effects`` of the store that runs programs which name them.

    Args:
        targets: The stores, by the names that programs have for them. Closing them is for whoever has opened them.

    Returns:
        The row, as a table.

    Raises:
        InvalidRequest: If something among them is not a store. From the row, where a program names another one.

    >>> from interpreters import open_store
    >>> from persist_effects import perform
    >>> store = open_store("memory:", effects=rows_at({"reports": open_store("memory:")}))
    >>> store.run(perform(At("reprots", KvGet("total"))))
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: there is no target 'reprots': there are 'reports'
    """
    if not isinstance(targets, Mapping):
        raise InvalidRequest(f"targets is {describe(targets)}: give a dict, of stores by their names")
    known = dict(targets)
    for name, store in known.items():
        check_name("target", name)
        if not isinstance(getattr(store, "handlers", None), Mapping):
            raise InvalidRequest(f"target {name!r} is {describe(store)}: give a store, as open_store(url) opens it")

    def ask(request: At) -> Any:
        store = known.get(request.target)
        if store is None:
            raise InvalidRequest(f"there is no target {request.target!r}: there are {', '.join(map(repr, known))}")
        return run(perform(request.request), store.handlers)

    return {At: ask}


@program
def into(target: str, program: Effect[A]) -> Effect[A]:
    """Run a program whose keys, and whatever it writes, are in another store than the events that it reads.

    Args:
        target: The name of the other store.
        program: A fresh program: `follow` does this itself where it is told to, and those of
            `persist_effects.followers` are given here.

    Returns:
        What the program returns. What it raises is raised.

    >>> from persist_effects import kv
    >>> next(into("reports", kv.get("total")))
    At(target='reports', request=KvGet(key='total'))
    """
    check_name("target", target)

    def routed(request: Request[Any]) -> Request[Any]:
        if isinstance(request, AllOf):
            return AllOf(tuple(map(routed, request.requests)))
        return At(target, cast(StoreRequest, request)) if type(request) in _ELSEWHERE else request

    return (yield from through(program, lambda request: perform(routed(request))))
