"""Replaying: a program runs from its trace, without a store, to its end or to any of its requests."""

from collections.abc import Callable, Collection
from types import GeneratorType
from typing import Any, Generic, NoReturn, TypeVar, cast

import msgspec

from persist_effects.errors import Abandoned, Diverged, InvalidRequest, RecordedError, describe, repr_of
from persist_effects.machine import Done, Effect, Step, Suspended, check_fresh, check_returned, next_request, unwind
from persist_effects.programs import refused
from persist_effects.requests import AllOf, Answered, Failed, Request
from persist_effects.source import source_of
from persist_effects.trace.format import MUST_DECODE, Trace, by_op
from persist_effects.trace.values import encode, encode_request, is_same, shown

A = TypeVar("A")

Replayable = Effect[A] | Callable[[], Effect[A]]
"""A fresh program, or a function that makes one."""


def replay(program: Replayable[A], trace: Trace) -> A:
    """Run a program from its trace, without a store.

    Errors come back as they were, but in a trace that was decoded those of other packages do only where their classes
    were given to `Trace.decode`; else as `RecordedError`, with a note that says so.

    Args:
        program: The program, or a function that makes it.
        trace: What it was answered.

    Returns:
        The value that it came to. The error that it raised is raised.

    Raises:
        Diverged: At the first request that is not the one recorded; if it ends too early, or asks for more.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvPut
    >>> from persist_effects.trace import record
    >>> _, trace = record(kv.put("color", "red"), {KvPut: lambda request: 7})
    >>> replay(lambda: kv.put("color", "red"), trace)
    7
    """
    _check_trace_of(trace, program)
    fresh = fresh_program(program)
    step = _feed(fresh, trace, len(trace))
    if isinstance(step, Suspended):
        _diverge(fresh, trace, len(trace), step.request)
    return step.value


def resume_at(program: Replayable[A], trace: Trace, k: int) -> Suspended[A]:
    """The program at one of its requests, after it was given the answers before: as it stood then.

    Go on with the recorded answer or with another, once; for another time, use `Continuation`.

    Args:
        program: The program, or a function that makes it.
        trace: What it was answered.
        k: The number of the request, from 0.

    Returns:
        The program, suspended there.

    Raises:
        Diverged: If the program asks otherwise before.
        InvalidRequest: If the trace does not have such a request.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvHas
    >>> def both():
    ...     return (yield from kv.has("color")), (yield from kv.has("size"))
    >>> from persist_effects.trace import record
    >>> _, trace = record(both, {KvHas: lambda request: True})
    >>> resume_at(both, trace, 1).resume(False)
    Done((True, False))
    """
    _check_trace_of(trace, program)
    if type(k) is not int or not 0 <= k < len(trace):
        refused(program)
        raise InvalidRequest(f"the trace has the requests 0 to {len(trace) - 1}, and none at {repr_of(k)}")
    fresh = fresh_program(program)
    step = _feed(fresh, trace, k)
    if isinstance(step, Done):
        _end_early(trace, k, f"the program ended, and returned {shown(step.value)}")
    if not _agrees(step.request, trace.requests[k]):
        _diverge(fresh, trace, k, step.request)
    return step


class Continuation(Generic[A]):
    """A program at the k-th request of its trace, to go on from as often as you like. Each time it is made anew.

    ``make`` is a function without arguments that makes the program. A continuation pickles if that does; and `encode`
    gives bytes, of which a process that has the function makes it again.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvHas
    >>> def color():
    ...     return "color" if (yield from kv.has("color")) else "none"
    >>> from persist_effects.trace import record
    >>> _, trace = record(color, {KvHas: lambda request: True})
    >>> continuation = Continuation.decode(color, Continuation(color, trace, 0).encode())
    >>> continuation.resume(False), continuation.resume(True)
    (Done('none'), Done('color'))
    """

    __slots__ = ("k", "make", "trace")

    def __init__(self, make: Callable[[], Effect[A]], trace: Trace, k: int) -> None:
        if isinstance(make, GeneratorType) or not callable(make):
            raise InvalidRequest(f"a continuation needs a function that makes the program, not {describe(make)}")
        check_trace(trace)
        self.make = make
        self.trace = trace
        self.k = k

    def suspended(self) -> Suspended[A]:
        """A fresh program that waits at the request.

        Returns:
            The program, suspended there.
        """
        return resume_at(self.make, self.trace, self.k)

    def resume(self, answer: Any) -> Step[A]:
        """Go on with an answer, to the next request or to the end. Raises what the program raises.

        Args:
            answer: What the program gets for its request.

        Returns:
            Where it stopped next.
        """
        return self.suspended().resume(answer)

    def throw(self, error: BaseException) -> Step[A]:
        """Go on with an error raised where the program waits. Raises what the program raises.

        Args:
            error: The error.

        Returns:
            Where it stopped next.
        """
        return self.suspended().throw(error)

    def encode(self) -> bytes:
        """The place and the trace as bytes.

        Returns:
            The bytes, for `decode`.
        """
        return encode((self.k, self.trace.encode()))

    @staticmethod
    def decode(
        make: Callable[[], Effect[A]],
        data: bytes,
        kinds: Collection[type[Request[Any]]] = (),
        errors: Collection[type[Exception]] = (),
    ) -> "Continuation[A]":
        """The continuation that `encode` made these bytes of.

        Args:
            make: Makes the program.
            data: The bytes.
            kinds: The types of your own requests in it.
            errors: The classes of errors that are to come back as what they were. Those of Python and of this package
                need not be named.

        Returns:
            The continuation.

        Raises:
            InvalidRequest: If they are other bytes.
        """
        try:
            k, trace = msgspec.msgpack.decode(data, type=tuple[int, bytes])
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"these {len(data)} bytes are not a continuation: {error}") from error
        return Continuation(make, Trace.decode(trace, kinds, errors), k)

    def __reduce__(self) -> tuple[Any, tuple[Any, bytes]]:
        return Continuation.decode, (self.make, self.encode())


def check_trace(found: object) -> None:
    """Refuse what is not a trace, such as the pair that `record` returns.

    Args:
        found: What was given.

    Raises:
        InvalidRequest: If it is not one.

    >>> check_trace(7)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: a trace is an int, 7: give the trace: `outcome, trace = record(...)`
    """
    if not isinstance(found, Trace):
        raise InvalidRequest(f"a trace is {describe(found)}: give the trace: `outcome, trace = record(...)`")


def check_unmasked(found: object) -> None:
    """Refuse what is not a trace, and one of which something was left out: its answers are not those of a store.

    Args:
        found: What was given.

    Raises:
        InvalidRequest: If it is not a whole trace.

    >>> from persist_effects import kv
    >>> from persist_effects.requests import KvHas
    >>> from persist_effects.trace import masked, record
    >>> _, trace = record(kv.has("color"), {KvHas: lambda request: True})
    >>> check_unmasked(masked(trace, ["answer"]))
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: the trace has masked values, which no program can go on with: take one ...
    """
    check_trace(found)
    if isinstance(found, Trace) and found.is_masked:
        source = f"{found.source}: " if found.source else ""
        raise InvalidRequest(
            f"{source}the trace has masked values, which no program can go on with: take one that was recorded "
            "without a mask, for golden traces with masks are only compared"
        )


def _check_trace_of(trace: object, program: object) -> None:
    if not isinstance(trace, Trace) or trace.is_masked:
        refused(program)
    check_unmasked(trace)


def fresh_program(program: Replayable[A]) -> Effect[A]:
    """A fresh program, made if need be.

    Args:
        program: The program, or a function that makes it.

    Returns:
        The program.

    Raises:
        NotAProgram: If it is not one.
        AlreadyUsed: If it was started before.

    >>> from persist_effects import kv
    >>> next(fresh_program(lambda: kv.get("color")))
    KvGet(key='color')
    """
    fresh = program if isinstance(program, GeneratorType) or not callable(program) else program()
    check_fresh(fresh)
    return cast(Effect[A], fresh)


def _feed(program: Effect[A], trace: Trace, count: int) -> Step[A]:
    """Give a fresh program the first answers, each for the request that the trace has, and return the next step."""
    # The hot loop of replays: one encoding, one comparison and one look-up for each request.
    requests, shared, send = trace.requests, trace.shared, program.send
    index = -1
    try:
        request: Any = send(cast(Any, None))
        for index in range(count):
            try:
                encoded = encode(request)
            except Exception:
                encoded = b""
            if encoded != requests[index]:
                request = _settle(program, trace, index, request)
            answer = shared[index]
            if answer is MUST_DECODE:
                outcome = trace.fresh_outcome(index, request)
                if type(outcome) is Answered:
                    request = send(outcome.value)
                else:
                    request = program.throw(cast(Failed, outcome).error)
            else:
                request = send(answer)
        request = next_request(program, request)
    except Exception as error:
        return _ended(program, trace, index + 1, count, error)
    return Suspended(program, request, {})


def _ended(program: Effect[A], trace: Trace, fed: int, count: int, error: Exception) -> Done[A]:
    """What it means that a program which was to be given ``count`` answers ended, or failed, after ``fed`` of them."""
    if isinstance(error, StopIteration):
        if fed < count:
            _end_early(trace, fed, f"the program ended, and returned {shown(error.value)}")
        check_returned(program, error.value)
        return Done(error.value)
    if program.gi_suspended:  # type: ignore[attr-defined]
        # It is not the program's error: what the trace holds could not be read.
        unwind(program, Abandoned(), {})
    elif fed < count and not isinstance(error, Diverged):
        _end_early(trace, fed, f"the program raised {shown(error)}", error)
    raise error


def _settle(program: Effect[A], trace: Trace, index: int, found: Any) -> Request[Any]:
    """The request at an index, whose bytes are not those of the trace: another order of keys is no difference."""
    try:
        request = next_request(program, found)
    except StopIteration as end:
        _end_early(trace, index, f"the program ended, and returned {shown(end.value)}")
    except Exception as error:
        _end_early(trace, index, f"the program raised {shown(error)}", error)
    if not _agrees(request, trace.requests[index]):
        _diverge(program, trace, index, request)
    return request


def _agrees(request: Request[Any], recorded: bytes) -> bool:
    try:
        return is_same(encode_request(request), recorded)
    except InvalidRequest:
        return False


def _diverge(program: Effect[A], trace: Trace, index: int, request: Request[Any]) -> NoReturn:
    """Give up a program at a request that the trace has not, and raise that."""
    source = source_of(program)
    unwind(program, Abandoned(), {})
    raise _diverged(trace, index, _expected(trace, index, request), shown(request), source)


def _end_early(trace: Trace, index: int, actual: str, cause: Exception | None = None) -> NoReturn:
    expected = _expected(trace, index)
    raise _diverged(trace, index, expected, actual, "the program has ended") from cause


def _diverged(trace: Trace, index: int, expected: str, actual: str, source: str) -> Diverged:
    """The error for a program that is not the recorded one, or that was given a `RecordedError` for what it met."""
    failed = [trace[at].outcome for at in sorted(trace.failed) if at < index]
    errors = [outcome.error for outcome in failed if isinstance(outcome, Failed)]
    notes = [getattr(error, "__notes__", ()) for error in errors if isinstance(error, RecordedError)]
    hint = "; ".join(dict.fromkeys(note for each in notes for note in each))
    return Diverged(index, expected, actual, source, _last_match(trace, index), hint)


def _expected(trace: Trace, index: int, actual: Request[Any] | None = None) -> str:
    if index == len(trace):
        return f"no request: the trace ends after {index}"
    # Shown in the same words as the other one, whose type the trace may not know.
    kinds = trace.kinds if actual is None or isinstance(actual, AllOf) else {**trace.kinds, **by_op([type(actual)])}
    return shown(trace.request(index, kinds))


def _last_match(trace: Trace, index: int) -> str:
    return f"request {index - 1}, {trace[index - 1]}" if index else "none"
