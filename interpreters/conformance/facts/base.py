"""What the facts share: what a store can do, how a fact gets its store, and the requests that all of them make."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from functools import partial
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

from interpreters.runtime.store import Store
from persist_effects.capabilities import Capabilities
from persist_effects.event import Draft, Event
from persist_effects.machine import outcome_of, perform
from persist_effects.requests import Append, Appended, Failed, KvPut, KvWait, Page, Read, ReadAll, Request, Wait

A = TypeVar("A")
FactT = TypeVar("FactT", bound=Callable[..., None])

_NEEDS = "needed_capabilities"

PATIENCE_SECONDS = 30.0

Calls = deque[tuple[Request[Any], Any]]
"""Requests and what each was answered with, or the error that it met."""

_RECORDED: WeakKeyDictionary[Store, Calls] = WeakKeyDictionary()


def needs(*capabilities: str) -> Callable[[FactT], FactT]:
    """Mark a fact as one about stores that have all of these capabilities.

    >>> @needs("reopen")
    ... def test_events_outlive_the_process(store): ...
    >>> needed_by(test_events_outlive_the_process)
    ('reopen',)
    """

    def mark(fact: FactT) -> FactT:
        setattr(fact, _NEEDS, capabilities)
        return fact

    return mark


def needed_by(fact: object) -> tuple[str, ...]:
    """The capabilities that a fact needs beside what every store has."""
    return getattr(fact, _NEEDS, ())


class Facts:
    """The base of all facts. A fact is a method ``test_…``; one that takes a ``store`` gets a new, empty one."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    """What the store is held to. Facts about what it does not claim are not collected."""

    patience_seconds: ClassVar[float] = PATIENCE_SECONDS
    """How long a fact gives to threads that wait for each other: on a right store they are done at once."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.open_store is Facts.open_store:
            return
        for name in dir(cls):
            # A suite that this one derives from may have left the fact out, so it is looked for behind that.
            defined = (vars(kind)[name] for kind in cls.__mro__ if name in vars(kind))
            fact = next((found for found in defined if found is not None), None)
            if needed_by(fact):
                is_able = all(getattr(cls.capabilities, capability) for capability in needed_by(fact))
                # None is neither collected by pytest nor run by `check_conformance`.
                kept = fact if is_able else None
                if getattr(cls, name) is not kept:
                    setattr(cls, name, kept)

    def open_store(self) -> Store:
        """A new store with nothing in it, at each call. The caller closes it."""
        raise NotImplementedError(f"{type(self).__name__} must define open_store(self) -> Store, a new empty store")

    def reopen(self, store: Store) -> Store:
        """Close this store and open another on the same data. Needed with ``Capabilities(reopen=True)``."""
        raise NotImplementedError(f"{type(self).__name__} says that it can reopen, so it must define reopen")

    def together(self, *functions: Callable[[], A]) -> list[A]:
        """What the functions return, each run in a thread of its own; or the first error.

        Raises AssertionError where they are not done within `patience_seconds`, because a wait has not ended, say.

        >>> Facts().together(lambda: 1, lambda: 2)
        [1, 2]
        """
        done: list[Future[A]] = [Future() for _ in functions]
        for function, future in zip(functions, done, strict=True):
            # A thread that waits for ever must not keep the process from ending.
            threading.Thread(target=_settle, args=(function, future), daemon=True).start()
        finished, waiting = wait(done, self.patience_seconds, FIRST_EXCEPTION)
        for future in finished:
            future.result()
        assert not waiting, f"{len(waiting)} of {len(done)} threads still waited after {self.patience_seconds:g} s"
        return [future.result() for future in done]


def ask(store: Store, request: Request[A]) -> A:
    """The store's answer to one request. Where its order lags, it is first waited for to show what it acknowledged.

    >>> from interpreters import open_store
    >>> from persist_effects.requests import KvHas
    >>> ask(open_store("memory:"), KvHas("color"))
    False
    """
    if type(request) in (ReadAll, Wait, KvWait):
        store.wait_for_order(PATIENCE_SECONDS)
    return ask_at_once(store, request)


def ask_at_once(store: Store, request: Request[A]) -> A:
    """The store's answer to one request, as it is now: where its order lags, that of some time ago.

    >>> from interpreters import open_store
    >>> ask_at_once(open_store("memory:"), ReadAll()).head
    0
    """
    return _told(store, request, partial(store.run, perform(request)))


def error_of(store: Store, request: Request[Any]) -> Exception:
    """The error with which the store refuses a request. It must refuse it.

    >>> from interpreters import open_store
    >>> error_of(open_store("memory:"), KvPut("color", {1, 2}))
    InvalidRequest("value of key 'color' is a set, which cannot be stored: give a list")
    """
    outcome = _told(store, request, partial(outcome_of, request, store.handlers))
    assert isinstance(outcome, Failed), f"{request!r:.200} was not refused, but answered: {outcome!r:.200}"
    return outcome.error


def record_calls(store: Store, calls: Calls) -> Store:
    """Note from now on what the facts ask this store, and what it answers. Returns the store.

    >>> from interpreters import open_store
    >>> from persist_effects.requests import KvHas
    >>> calls = Calls(maxlen=10)
    >>> ask(record_calls(open_store("memory:"), calls), KvHas("color"))
    False
    >>> calls
    deque([(KvHas(key='color'), False)], maxlen=10)
    """
    _RECORDED[store] = calls
    return store


def _told(store: Store, request: Request[Any], answering: Callable[[], A]) -> A:
    calls = _RECORDED.get(store)
    if calls is None:
        return answering()
    try:
        answer = answering()
    except BaseException as error:
        calls.append((request, error))
        raise
    calls.append((request, answer))
    return answer


def append(store: Store, stream: str, *data: Any, expected: int | None = None) -> Appended:
    """Append events of the type "made" with these data, in one request that must not conflict.

    >>> from interpreters import open_store
    >>> append(open_store("memory:"), "a", "tea", "rice").last_seq
    2
    """
    answer = ask(store, Append(stream, tuple(Draft("made", item) for item in data), expected))
    assert isinstance(answer, Appended)
    return answer


def put(store: Store, key: str, value: Any, expected: int | None = None) -> int:
    """Put a value, which must not conflict, and return the revision.

    >>> from interpreters import open_store
    >>> put(open_store("memory:"), "color", "red") > 0
    True
    """
    answer = ask(store, KvPut(key, value, expected))
    assert type(answer) is int
    return answer


def read_whole(store: Store, stream: str, limit: int = 1_000) -> list[Event]:
    """All events of a stream, page by page.

    >>> from interpreters import open_store
    >>> read_whole(open_store("memory:"), "a")
    []
    """
    events: list[Event] = []
    after = 0
    while True:
        page = ask(store, Read(stream, after, limit=limit))
        events += page.events
        if page.next >= page.head:
            return events
        after = _moved(page, after)


def read_everything(store: Store, prefix: str = "", limit: int = 1_000) -> list[Event]:
    """All events of all streams under a prefix, page by page.

    >>> from interpreters import open_store
    >>> read_everything(open_store("memory:"))
    []
    """
    events: list[Event] = []
    after = 0
    while True:
        page = ask(store, ReadAll(after, prefix, limit=limit))
        events += page.events
        if page.next >= page.head:
            return events
        after = _moved(page, after)


def data_of(events: list[Event]) -> list[Any]:
    """What the events say, in their order.

    >>> data_of([Event("a", 1, "made", 0, "tea", 1)])
    ['tea']
    """
    return [event.data for event in events]


def _settle(function: Callable[[], A], future: "Future[A]") -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)


def _moved(page: Page, after: int) -> int:
    assert page.next > after, "a page that is not the last one must move on"
    return page.next
