"""What a store, or a blob store, must offer to be driven, and whether it does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from interpreters.runtime.sleeping import Sleepers
from persist_effects.capabilities import Capabilities
from persist_effects.codec import check_ops
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handler, Handlers
from persist_effects.requests import WAITS, Answered, Failed, KvWait, Outcome, Request, Transact, Wait
from persist_effects.rows import check_row

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


def pass_on(
    wrapper: Any,
    inner: Interpreter,
    change: Callable[[Request[Any]], Request[Any]] | None = None,
    receive: Callable[[Request[Any], Any], Any] | None = None,
) -> None:
    """Give a wrapper those of the optional parts that the interpreter inside it has.

    What ``change`` or ``receive`` raises is the outcome of that request alone: of the others that were asked with it,
    each has its own. What ``change`` refuses, the inner interpreter is never asked.

    Args:
        wrapper: An interpreter around another one, which has ``handlers`` and ``close()`` of its own.
        inner: The one inside it.
        change: What the wrapper makes of a request before the inner one is asked; None: nothing.
        receive: What it makes of an answer, told the request as the program asked it; None: nothing. With ``submit``
            it is called in the thread that brings the outcome, so it returns at once.

    >>> from interpreters.stores.memory import MemoryStore
    >>> class Wrapper:
    ...     def __init__(self, inner):
    ...         self.handlers, self.close = inner.handlers, inner.close
    ...         pass_on(self, inner)
    >>> Wrapper(MemoryStore()).blocking
    False
    """
    pass_through(wrapper, inner, Between(change or unchanged, receive or as_it_came))


class Way(Protocol):
    """What a wrapper does around each request, whichever way it is asked: `Between` is one.

    Each method is given how the interpreter inside answers, and answers itself likewise.
    """

    def row(self, inner: Handler) -> Handler:
        """Answer one request.

        Args:
            inner: The inner interpreter's row.

        Returns:
            The row around it.
        """
        ...

    def answer_all(self, inner: AnswerAll, requests: Sequence[Request[Any]]) -> list[Outcome]:
        """Answer requests together.

        Args:
            inner: The inner interpreter's own ``answer_all``.
            requests: The requests.

        Returns:
            Their outcomes, in order.
        """
        ...

    def submit(self, inner: Submit, requests: Sequence[Request[Any]], done: OnOutcome) -> None:
        """Begin requests at the inner interpreter, and return at once: see `Submit`.

        Args:
            inner: Its own ``submit``.
            requests: The requests.
            done: Is given each outcome as it comes.
        """
        ...


def pass_through(wrapper: Any, inner: Interpreter, way: Way) -> None:
    """Give a wrapper the optional parts of the interpreter inside it, with a way in between. `pass_on` is made of it.

    Args:
        wrapper: An interpreter around another one, which has ``handlers`` and ``close()`` of its own.
        inner: The one inside it.
        way: What is done around requests that are asked together.

    >>> from interpreters.stores.memory import MemoryStore
    >>> class Wrapper:
    ...     def __init__(self, inner):
    ...         self.handlers, self.close = inner.handlers, inner.close
    ...         pass_through(self, inner, Between(lambda request: request, lambda request, answer: answer))
    >>> Wrapper(MemoryStore()).capabilities.transact
    True
    """
    for name in ("blocking", "quick", "capabilities", "wait_for_order", "watch", "clock", "random_bytes", "compact"):
        if hasattr(inner, name):
            setattr(wrapper, name, getattr(inner, name))
    answer_all: AnswerAll | None = getattr(inner, "answer_all", None)
    if answer_all is not None:
        wrapper.answer_all = lambda requests: way.answer_all(answer_all, requests)
    submit: Submit | None = getattr(inner, "submit", None)
    if submit is not None:
        wrapper.submit = lambda requests, done: way.submit(submit, requests, done)


class Between(NamedTuple):
    """What a wrapper does with each request on its way in, and with each answer on its way out.

    ``change`` makes of a request the one that the inner interpreter is asked, and ``receive`` of its answer the one
    that the program is given. Either may raise, which is that request's outcome.

    >>> from persist_effects.requests import KvGet
    >>> between = Between(lambda request: KvGet(request.key.upper()), lambda request, found: f"{request.key}: {found}")
    >>> inner = lambda requests: [Answered(request.key) for request in requests]
    >>> between.answer_all(inner, [KvGet("a"), KvGet("b")])
    [Answered(value='a: A'), Answered(value='b: B')]
    """

    change: Callable[[Request[Any]], Request[Any]]
    receive: Callable[[Request[Any], Any], Any]

    def row(self, inner: Handler) -> Handler:
        """Answer one request.

        Args:
            inner: The inner interpreter's row.

        Returns:
            The row around it.
        """
        change, receive = self
        if receive is as_it_came:
            return lambda request: inner(change(request))
        return lambda request: receive(request, inner(change(request)))

    def changed(self, requests: Sequence[Request[Any]]) -> tuple[list[Request[Any]], list[int], dict[int, Failed]]:
        """Change requests.

        Args:
            requests: The requests, as programs asked them.

        Returns:
            What the inner interpreter is asked, for which of the requests that is, and how the others were refused.
        """
        asked: list[Request[Any]] = []
        places: list[int] = []
        refused: dict[int, Failed] = {}
        for index, request in enumerate(requests):
            try:
                asked.append(self.change(request))
                places.append(index)
            except Exception as error:
                refused[index] = Failed(error)
        return asked, places, refused

    def received(self, request: Request[Any], outcome: Outcome) -> Outcome:
        """Receive an outcome.

        Args:
            request: The request, as the program asked it.
            outcome: What the inner interpreter made of it.

        Returns:
            What the program is given.
        """
        if not isinstance(outcome, Answered):
            return outcome
        try:
            return Answered(self.receive(request, outcome.value))
        except Exception as error:
            return Failed(error)

    def answer_all(self, inner: AnswerAll, requests: Sequence[Request[Any]]) -> list[Outcome]:
        """Answer requests together.

        Args:
            inner: The inner interpreter's own ``answer_all``.
            requests: The requests.

        Returns:
            Their outcomes, in order.
        """
        asked, places, refused = self.changed(requests)
        if not refused and self.receive is as_it_came:
            return inner(asked)
        found: dict[int, Outcome] = {**refused}
        for index, outcome in zip(places, inner(asked) if asked else (), strict=True):
            found[index] = self.received(requests[index], outcome)
        return [found[index] for index in range(len(requests))]

    def submit(self, inner: Submit, requests: Sequence[Request[Any]], done: OnOutcome) -> None:
        """Begin requests at the inner interpreter.

        Args:
            inner: Its own ``submit``.
            requests: The requests.
            done: Is given each outcome as it comes.
        """
        asked, places, refused = self.changed(requests)
        if asked and not refused and self.receive is as_it_came:
            inner(asked, done)
            return
        for index, outcome in refused.items():
            done(index, outcome)
        if asked:
            inner(asked, lambda place, outcome: done(places[place], self.received(requests[places[place]], outcome)))


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


def unchanged(request: Request[Any]) -> Request[Any]:
    """The ``change`` of a `Between` that changes nothing.

    Args:
        request: Any.

    Returns:
        The same.

    >>> unchanged(Wait(3))
    Wait(after=3, prefix='', timeout=0.0)
    """
    return request


def as_it_came(request: Request[Any], answer: Any) -> Any:
    """The ``receive`` of a `Between` that leaves answers alone. It costs those that are answered together nothing.

    Args:
        request: Any.
        answer: Any.

    Returns:
        The same answer.

    >>> as_it_came(Wait(3), 7)
    7
    """
    return answer


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
        check_row(kind.__name__, row)
    check_ops("effects", effects)
    return dict(effects)
