"""What a store, or a blob store, must offer to be driven, and whether it does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from interpreters.runtime.sleeping import Sleepers
from persist_effects.capabilities import Capabilities
from persist_effects.codec import check_ops
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handlers
from persist_effects.requests import WAITS, KvWait, Outcome, Request, Transact, Wait
from persist_effects.rows import is_async_generator_row

AnswerAll = Callable[[Sequence[Request[Any]]], list[Outcome]]

OnOutcome = Callable[[int, Outcome], None]
"""Takes the outcome of one of the requests that were submitted together, by its index among them."""

Submit = Callable[[Sequence[Request[Any]], OnOutcome], None]
"""Begins several requests, and returns at once. Each outcome is given to ``done`` as it comes.

``done`` is called once for each index, in any order, from any thread, perhaps before ``submit`` has returned. It
returns at once and does not raise. Requests of one ``submit`` are in flight at once: nobody may count on their order.
Closing the store gives `StoreClosed` to what is still in flight. What ``submit`` itself raises is the outcome of all
that has none by then.
"""


Watch = Callable[[Wait | KvWait, Callable[[], None]], Callable[[], None]]
"""Watches for what a wait waits for, and tells of it: see `Interpreter`."""


class Interpreter(Protocol):
    """What a store, or a blob store, must offer: a handler table, and an end. Handlers are called from any thread.

    Some things are optional. ``answer_all(requests)`` gives the outcomes of several of its requests, faster together
    than one by one. ``watch(request, notify)`` takes a `Wait` or a `KvWait`, calls ``notify()`` once when what it waits
    for is there, or the store is closed, and returns the function that ends the watch; the timeout is not its concern.
    ``blocking = False`` says that no row but those of the two blocks. ``quick`` are the types of requests whose rows an
    event loop may call: they look at memory, or read a little from a local disk, and wait for nobody's commit. Where
    the two waits are among them, that is so of ``watch``, and of them without a timeout. ``capabilities`` says what the
    store promises: see `capabilities_of`.
    ``clock()`` gives the time, in microseconds since 1970, UTC, and ``random_bytes(count)`` random bytes, with which
    `Now` and `NewId` are answered where it has no rows for them: it should be the clock that stamps its events.
    ``submit(requests, done)`` answers many that are in flight at once: see `Submit`. ``wait_for_order(timeout)``, where
    the order lags, waits for `ReadAll`, `Wait` and `KvWait` to show all that was acknowledged by now; after so many
    seconds, it raises `StoreUnavailable`.

    A wrapper, an interpreter around an interpreter, passes on those of these that the inner one has: see `pass_on`.
    """

    @property
    def handlers(self) -> Handlers:
        """The function that answers each type of request."""
        ...

    def close(self) -> None:
        """Let go of files, connections and threads. The handlers raise `StoreClosed` from then on."""
        ...


class Composed(NamedTuple):
    """The tables of a store, its blob store and the user's effects as one: what drives programs on them needs of it.

    ``handlers`` has every row, ``effects`` the user's own. ``batched`` are the requests that ``answer_all``
    or ``submit`` takes. ``sleepers`` are those that sleep on the store, None where the user's own row answers for that.
    """

    handlers: Handlers
    effects: Handlers
    batched: frozenset[type[Request[Any]]]
    interpreter: Interpreter
    blobs: Interpreter
    submit: Submit | None
    sleepers: Sleepers | None


def capabilities_of(interpreter: Interpreter) -> Capabilities:
    """What an interpreter promises. One that says nothing promises the least: that it answers what it has rows for.

    Args:
        interpreter: A store's interpreter.

    Returns:
        Its own ``capabilities``; where it has none, the defaults, with what its rows say of `Transact`, `Wait` and
        `KvWait`.

    Raises:
        InvalidRequest: Where its ``capabilities`` are something else.

    >>> from interpreters.stores.memory import MemoryStore
    >>> capabilities_of(MemoryStore(payload_limit_bytes=1_000)).payload_limit_bytes
    1000
    """
    given = getattr(interpreter, "capabilities", None)
    if given is None:
        rows = interpreter.handlers
        return Capabilities(transact=Transact in rows, wait=rows.keys() >= WAITS)
    if not isinstance(given, Capabilities):
        raise InvalidRequest(
            f"the capabilities of a {type(interpreter).__name__} are {describe(given)}: give a Capabilities, of "
            "persist_effects.capabilities"
        )
    return given


def pass_on(wrapper: Any, inner: Interpreter, change: Callable[[Request[Any]], Request[Any]] | None = None) -> None:
    """Give a wrapper those of the optional parts that the interpreter inside it has.

    Args:
        wrapper: An interpreter around another one, which has ``handlers`` and ``close()`` of its own.
        inner: The one inside it.
        change: What the wrapper makes of a request before the inner one is asked; None: nothing.

    >>> from interpreters.stores.memory import MemoryStore
    >>> class Wrapper:
    ...     def __init__(self, inner):
    ...         self.handlers, self.close = inner.handlers, inner.close
    ...         pass_on(self, inner)
    >>> Wrapper(MemoryStore()).blocking
    False
    """
    for name in ("blocking", "quick", "capabilities", "wait_for_order", "watch", "clock", "random_bytes"):
        if hasattr(inner, name):
            setattr(wrapper, name, getattr(inner, name))
    changed = change or _unchanged
    answer_all: AnswerAll | None = getattr(inner, "answer_all", None)
    if answer_all is not None:
        wrapper.answer_all = lambda requests: answer_all([changed(request) for request in requests])
    submit: Submit | None = getattr(inner, "submit", None)
    if submit is not None:
        wrapper.submit = lambda requests, done: submit([changed(request) for request in requests], done)


def check_blobs(blobs: object) -> None:
    """Refuse what cannot be a store's blob store.

    Args:
        blobs: What was given for one.

    Raises:
        InvalidRequest: It is not an interpreter.
    """
    check_interpreter("a store's blob store", blobs)


def check_interpreter(what: str, interpreter: object) -> None:
    """Refuse what is not an interpreter.

    Args:
        what: What it was to be, for the message.
        interpreter: What was given for one.

    Raises:
        InvalidRequest: It has no ``handlers`` or no ``close()``.
    """
    is_one = isinstance(getattr(interpreter, "handlers", None), Mapping) and callable(
        getattr(interpreter, "close", None)
    )
    if not is_one:
        advice = ": open_store(url) opens the store of a URL" if isinstance(interpreter, str) else ""
        raise InvalidRequest(
            f"{what} is {describe(interpreter)}: give an object with `handlers` and `close()`, such as MemoryStore()"
            f"{advice}"
        )


def _unchanged(request: Request[Any]) -> Request[Any]:
    return request


def checked_effects(effects: Handlers | None) -> Handlers:
    """Take the rows that a user gives beside the store's.

    Args:
        effects: The user's rows; None: none.

    Returns:
        The rows, as a dict of their own.

    Raises:
        InvalidRequest: It is not a table from request types to functions, or two of its types have one op.
    """
    if effects is None:
        return {}
    if not isinstance(effects, Mapping):
        raise InvalidRequest(f"effects is {describe(effects)}: give a dict, {{FetchPrice: fetch_price}}")
    for kind, row in effects.items():
        if not (isinstance(kind, type) and issubclass(kind, Request)):
            raise InvalidRequest(f"a key of effects is {describe(kind)}: give a subclass of Request")
        if not callable(row):
            raise InvalidRequest(f"the row for {kind.__name__} is {describe(row)}: give a function of one request")
        if is_async_generator_row(row):
            raise InvalidRequest(
                f"the row for {kind.__name__} is an async generator function: return the answer, do not yield it"
            )
    check_ops("effects", effects)
    return dict(effects)
