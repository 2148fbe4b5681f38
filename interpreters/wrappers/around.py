"""`Around`: what a wrapper of one's own is made of, and `wrapped`: a store with wrappers around what answers it."""

from collections.abc import Callable
from typing import Any

from interpreters.runtime.interpreter import (
    Between,
    Interpreter,
    Way,
    as_it_came,
    check_interpreter,
    pass_through,
    unchanged,
)
from interpreters.runtime.store import Store
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handlers
from persist_effects.requests import BlobPut, Request

Wrapper = Callable[[Interpreter], Interpreter]
"""Puts an interpreter around another one: a class such as `Around`, or a function."""


class Around:
    """An interpreter around another one, which changes nothing. A subclass says what it does differently.

    Rows, requests that are asked together and those that are submitted all go through ``change`` and ``receive``. What
    else the inner interpreter has, such as its ``watch``, its ``capabilities`` and its home of ``blobs``, this one has.

    Args:
        inner: The interpreter inside, which is closed with this one.
        way: What is done around each request, in the place of ``change`` and ``receive``.

    Raises:
        InvalidRequest: What is to be inside is not an interpreter.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> class Shouting(Around):
    ...     def receive(self, request, answer):
    ...         return str(answer).upper() if request.op == "persist/now" else answer
    >>> wrapped(open_store("memory:"), Shouting).run(kv.put("color", "red"))
    1
    """

    handlers: Handlers

    def __init__(self, inner: Interpreter, way: Way | None = None) -> None:
        if isinstance(inner, Store):
            raise InvalidRequest("what is wrapped is a Store: write wrapped(store, ...), or give its `interpreter`")
        check_interpreter("what is wrapped", inner)
        self.inner = inner
        own = type(self)
        if way is None:
            change = unchanged if own.change is Around.change else self.change
            way = Between(change, as_it_came if own.receive is Around.receive else self.receive)
        self.handlers = {kind: way.row(row) for kind, row in inner.handlers.items()}
        pass_through(self, inner, way)
        home: Interpreter | None = getattr(inner, "blobs", None)
        if home is not None:
            self.blobs = home

    def change(self, request: Request[Any]) -> Request[Any]:
        """What the inner interpreter is asked. What this raises is the outcome of that request alone.

        Args:
            request: The request, as the program asked it.

        Returns:
            The one that the inner interpreter is asked.
        """
        return request

    def receive(self, request: Request[Any], answer: Any) -> Any:
        """What the program is given. It may be called in a thread of the store's, so it returns at once.

        Args:
            request: The request, as the program asked it.
            answer: The inner interpreter's.

        Returns:
            The program's.
        """
        return answer

    def close(self) -> None:
        """Close the interpreter inside."""
        self.inner.close()


def wrapped(store: Store, *wrappers: Wrapper) -> Store:
    """A store with wrappers around what answers it. Its own effects and its home of blobs stay as they are.

    Args:
        store: An open store, which is closed with the one that is returned.
        wrappers: The first one stands next to the store, the last one is asked first.

    Returns:
        The store to use.

    Raises:
        InvalidRequest: One of them is not a wrapper.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> with wrapped(open_store("memory:"), Around, Around) as store:
    ...     store.run(log.append("orders/1", "placed", {"total": 12})).seq
    1
    """
    if not isinstance(store, Store):
        raise InvalidRequest(f"what is wrapped is {describe(store)}: give an open store, such as open_store('memory:')")
    interpreter = store.interpreter
    for wrapper in wrappers:
        if not callable(wrapper):
            raise InvalidRequest(
                f"a wrapper is {describe(wrapper)}: give a class or function of one interpreter, such as Retrying"
            )
        interpreter = wrapper(interpreter)
        check_interpreter("what a wrapper returned", interpreter)
    # Where the interpreter answers for blobs itself, the store's home of them is not asked, and must not be here.
    has_home = store.handlers.get(BlobPut) == store.blobs.handlers.get(BlobPut)
    return _Wrapped(store, interpreter, store.blobs if has_home else None)


class _Wrapped(Store):
    """A store that closes the one inside too, which may have more to close than its interpreter."""

    def __init__(self, inside: Store, interpreter: Interpreter, blobs: Interpreter | None) -> None:
        super().__init__(interpreter, effects=inside.effects, blobs=blobs)
        self._inside = inside

    def close(self) -> None:
        """Close the wrappers, from the outermost on, and then the store inside."""
        try:
            super().close()
        finally:
            self._inside.close()
