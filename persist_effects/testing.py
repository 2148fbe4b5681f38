"""Test programs, folds and deciders without a store.

`perform_sequence` plays the store: each request that a program must perform, with what it is answered. `given` plays
the past: the events that were appended, then a fold, a decision, or a program that reads and appends.

>>> from persist_effects import log
>>> def pay(order):
...     seq = yield from log.last_seq(order)
...     return (yield from log.append_expect(order, seq, "paid", None))
>>> result = given([("placed", {"total": 12})], stream="orders/1").when(lambda: pay("orders/1"))
>>> result.then_appended([("paid", None)])
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, Generic, NoReturn, TypeVar

from persist_effects.answers import checked_rows
from persist_effects.codec import decode_event
from persist_effects.errors import InvalidRequest, StoreClosed, describe
from persist_effects.event import Draft, Event
from persist_effects.machine import Done, Handlers, Suspended, run, start, unwind
from persist_effects.planning import Limits, plan_append
from persist_effects.programs import refused
from persist_effects.projection import StepFunction
from persist_effects.requests import (
    Answered,
    Append,
    Appended,
    Conflict,
    Failed,
    LastSeq,
    NewId,
    Now,
    Outcome,
    Page,
    Read,
    Request,
    Sleep,
)
from persist_effects.source import source_of
from persist_effects.trace.replay import Replayable, fresh_program

A = TypeVar("A")
S = TypeVar("S")

Past = Iterable[Draft | tuple[str, Any]]
"""Events by their drafts, or by their types and data."""

_NO_ROWS: Handlers = {}
_LIMITS = Limits()


def perform_sequence(steps: Iterable[tuple[Request[Any], Any]], program: Replayable[A]) -> A:
    """Answer a program by hand: it must perform these requests, in order, and no others.

    Args:
        steps: Pairs of a request and its answer. An answer that is an exception is raised in the program.
        program: The program, or a function that makes it.

    Returns:
        The program's value.

    Raises:
        AssertionError: At the first request that is another one, or is missing, with the line that performs it.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import Entry, KvGet, KvPut
    >>> count = kv.update("visits", lambda visits: visits + 1, 0)
    >>> perform_sequence([(KvGet("visits"), Entry(4, 9)), (KvPut("visits", 5, 9), 10)], count)
    5
    >>> perform_sequence([(KvGet("color"), None)], kv.get("size"))
    Traceback (most recent call last):
    AssertionError: request 0 is another than expected
      expected: KvGet(key='color')
      actual:   KvGet(key='size')
      source:   persist_effects/kv.py:... in get
    """
    try:
        pairs = [_pair(index, found) for index, found in enumerate(steps)]
    except InvalidRequest:
        refused(program)
        raise
    fresh = fresh_program(program)
    step = start(fresh)
    index = 0
    for index, (expected, answer) in enumerate(pairs, 1):
        if isinstance(step, Done):
            raise AssertionError(_mismatch(index - 1, f"{expected!r}", f"the program returned {step.value!r}", "none"))
        if type(step.request) is not type(expected) or step.request != expected:
            _fail_at(fresh, index - 1, f"{expected!r}", step.request)
        step = step.throw(answer) if isinstance(answer, BaseException) else step.resume(answer)
    if isinstance(step, Suspended):
        _fail_at(fresh, index, "no more requests", step.request)
    return step.value


def _pair(index: int, found: Any) -> tuple[Request[Any], Any]:
    """A step of a sequence, as it was given."""
    if not (isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[0], Request)):
        raise InvalidRequest(f"step {index} is {found!r}: give a pair, of a request and what it is answered")
    request, answer = found
    if isinstance(answer, type) and issubclass(answer, BaseException):
        name = answer.__name__
        raise InvalidRequest(f"step {index} is answered by the class {name}: give an instance, as {name}(...)")
    return request, answer


def _fail_at(program: Any, index: int, expected: str, actual: Request[Any]) -> NoReturn:
    failure = AssertionError(_mismatch(index, expected, f"{actual!r}", source_of(program)))
    unwind(program, failure, {})
    raise failure


def _mismatch(index: int, expected: str, actual: str, source: str) -> str:
    lines = f"  expected: {expected}\n  actual:   {actual}\n  source:   {source}"
    return f"request {index} is another than expected\n{lines}"


def given(events: Past = (), *, stream: str = "given", at: int = 0) -> "Given":
    """The past of a test: events of one stream.

    Args:
        events: Events, drafts or typed values, oldest first.
        stream: The stream's name.
        at: Their time, in microseconds since 1970, UTC, unless their drafts say another. It is also what a program is
            told by `clock.now`, and goes on where it sleeps.

    Returns:
        What goes on with `fold` or `when`.

    >>> def add(balance, event):
    ...     return balance + event.data
    >>> given([("deposited", 5), ("deposited", 7)]).fold(add, 0).then(12)
    """
    return Given(events, stream, at)


class Given:
    """Events that were appended to a stream: `given` makes it."""

    def __init__(self, events: Past, stream: str, at: int) -> None:
        self._stream = stream
        self._log = _Log(at)
        drafts = tuple(_draft(event) for event in events)
        if drafts:
            self._log.append(Append(stream, drafts))
        self._count = len(drafts)

    def fold(self, step: StepFunction[S], seed: S) -> "Folded[S]":
        """Fold the events as a projection does.

        Args:
            step: Gives the next value of a value and an event.
            seed: The value before the first event.

        Returns:
            What goes on with `then` or `when`.
        """
        return Folded(reduce(step, self._log.events(self._stream), seed))

    def when(self, program: Replayable[Any], effects: Handlers = _NO_ROWS) -> "Result":
        """Run a program that reads and appends events.

        Args:
            program: The program, or a function that makes it.
            effects: Rows for its other requests.

        Returns:
            What goes on with `then`, `then_appended` or `then_raises`.

        Raises:
            InvalidAnswer: If a row answers with another type than its request promises.

        >>> from persist_effects import log
        >>> given(stream="a").when(log.append_expect("a", 3, "paid", None)).then(Conflict("stream", "a", 3, 0))
        >>> from persist_effects import clock
        >>> def nap():
        ...     yield from clock.sleep(86_400)
        ...     return (yield from clock.now()), (yield from clock.new_id())
        >>> given(at=7).when(nap).then((86_400_000_007, "00000000-0000-7000-8000-000000000001"))
        """
        before = self._log.copy()
        outcome = _outcome_of(lambda: run(fresh_program(program), {**before.handlers, **checked_rows(effects)}))
        elsewhere = {
            stream: events
            for stream in before.streams()
            if stream != self._stream and (events := before.events(stream))
        }
        return Result(outcome, self._stream, before.events(self._stream)[self._count :], elsewhere)


class Folded(Generic[S]):
    """What events came to. ``value`` is the state."""

    def __init__(self, value: S) -> None:
        self.value = value

    def then(self, expected: S) -> None:
        """Check the state.

        Args:
            expected: The state that must have come out.
        """
        _check_equal("the state", expected, self.value)

    def when(self, decide: Callable[[S], Any]) -> "Result":
        """Decide on the state.

        Args:
            decide: A function of the state.

        Returns:
            What goes on with `then` or `then_raises`.

        >>> state = given([("deposited", 5)]).fold(lambda balance, event: balance + event.data, 0)
        >>> state.when(lambda balance: "declined" if balance < 7 else "paid").then("declined")
        """
        return Result(_outcome_of(lambda: decide(self.value)), "", [], {})


class Result:
    """How a decision or a program ended. ``appended`` are the events that it appended to the stream of `given`."""

    def __init__(
        self, outcome: Outcome, stream: str, appended: Sequence[Event], elsewhere: dict[str, list[Event]]
    ) -> None:
        self.outcome = outcome
        self.appended = appended
        self._stream = stream
        self._elsewhere = elsewhere

    def then(self, expected: Any) -> None:
        """Check the value.

        Args:
            expected: What must have been returned.
        """
        _check_equal("the value", expected, self._value())

    def then_appended(self, expected: Past) -> None:
        """Check which events were appended, and that no error was raised.

        They are those of the stream of `given`; where none are expected, other streams must have none either.

        Args:
            expected: Events, drafts or typed values. Drafts without a time have any.
        """
        self._value()
        drafts = [_draft(event) for event in expected]
        found = [
            Draft(event.type, event.data, event.at if draft is None or draft.at is not None else None, event.meta)
            for event, draft in zip(self.appended, [*drafts, *[None] * len(self.appended)], strict=False)
        ]
        _check_equal(f"what was appended to {self._stream!r}", drafts, found)
        if not drafts:
            self._check_nothing_elsewhere()

    def then_raises(self, kind: type[Exception], text: str = "") -> None:
        """Check that an error was raised, and nothing was appended.

        Args:
            kind: The error's type.
            text: What its message must hold.

        >>> from persist_effects import log
        >>> given().when(log.append("", "paid", None)).then_raises(InvalidRequest, "is empty")
        """
        if isinstance(self.outcome, Answered):
            raise AssertionError(f"expected {kind.__name__}, and none was raised: the value is {self.outcome.value!r}")
        error = self.outcome.error
        if not isinstance(error, kind) or text not in str(error):
            raise AssertionError(f"expected {kind.__name__} with {text!r}, found {error!r}") from error
        _check_equal(f"what was appended to {self._stream!r}", [], list(self.appended))
        self._check_nothing_elsewhere()

    def _check_nothing_elsewhere(self) -> None:
        for stream, events in self._elsewhere.items():
            _check_equal(f"what was appended to {stream!r}", [], events)

    def _value(self) -> Any:
        if isinstance(self.outcome, Failed):
            raise AssertionError(f"expected a value, and {self.outcome.error!r} was raised") from self.outcome.error
        return self.outcome.value


class _Log:
    """Streams in memory, which answer `Append`, `Read` and `LastSeq` as a store does, and a time that programs move."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._position = 0
        self._streams: dict[str, list[bytes]] = {}
        self._id_count = 0
        self.handlers: Handlers = {
            Append: self.append,
            Read: self._read,
            LastSeq: self._last_seq,
            Now: lambda request: self._at,
            NewId: self._new_id,
            Sleep: self._sleep,
        }

    def copy(self) -> "_Log":
        other = _Log(self._at)
        other._position = self._position
        other._streams = {stream: list(events) for stream, events in self._streams.items()}
        return other

    def streams(self) -> list[str]:
        return list(self._streams)

    def events(self, stream: str) -> list[Event]:
        return [decode_event(encoded) for encoded in self._streams.get(stream, [])]

    def append(self, request: Append) -> Appended | Conflict:
        last = len(self._streams.get(request.stream, []))
        answer, (_, encoded) = plan_append(request, last, self._position, self._at, _LIMITS)
        if isinstance(answer, Appended):
            self._streams.setdefault(request.stream, []).extend(encoded)
            self._position = answer.position
        return answer

    def _read(self, request: Read) -> Page:
        encoded = self._streams.get(request.stream, [])
        head = len(encoded)
        until = head if request.until is None else min(request.until, head)
        low, high = request.after, max(request.after, until)
        if request.backwards:
            first = max(low, high - request.limit)
            return Page([decode_event(event) for event in reversed(encoded[first:high])], first, head)
        last = min(high, low + request.limit)
        return Page([decode_event(event) for event in encoded[low:last]], max(last, request.after), head)

    def _last_seq(self, request: LastSeq) -> int:
        return len(self._streams.get(request.stream, []))

    def _new_id(self, request: NewId) -> str:
        """The first, the second, and so on, as text of a UUID of version 7."""
        self._id_count += 1
        return f"00000000-0000-7000-8000-{self._id_count:012x}"

    def _sleep(self, request: Sleep) -> None:
        if request.seconds == math.inf:
            raise StoreClosed("a sleep without end is over when its store is closed, as it is here at once")
        self._at += int(request.seconds * 1_000_000)


def _draft(event: Draft | tuple[str, Any]) -> Draft:
    if isinstance(event, Draft):
        return event
    if isinstance(event, tuple) and len(event) == 2:
        return Draft(*event)
    raise InvalidRequest(f"an event is {describe(event)}: give a Draft, or its type and its data")


def _outcome_of(work: Callable[[], Any]) -> Outcome:
    try:
        return Answered(work())
    except Exception as error:
        return Failed(error)


def _check_equal(what: str, expected: Any, found: Any) -> None:
    if expected != found:
        raise AssertionError(f"{what} is another than expected\n  expected: {expected!r}\n  actual:   {found!r}")
