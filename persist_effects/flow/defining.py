"""The code of flows and activities: what each is called, and what it takes and gives."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar, overload

from persist_effects.errors import InvalidRequest, NoSuchFlow, describe, repr_of
from persist_effects.event import check_integer, check_name
from persist_effects.flow.journal import decode_value, encode_value, hints_of
from persist_effects.flow.requests import Repeat, check_retry
from persist_effects.following.handling import Retry
from persist_effects.machine import Effect
from persist_effects.requests import check_seconds
from persist_effects.rows import is_program_row

C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])


class FlowCode(NamedTuple):
    """One version of a flow's code."""

    name: str
    version: int
    function: Callable[..., Effect[Any]]
    hints: tuple[Any, ...]
    returns: Any
    signature: inspect.Signature

    def encode_args(self, args: Iterable[Any]) -> bytes:
        """Arguments as bytes. Raises `InvalidRequest` for those that the flow does not take, or that cannot be kept."""
        given = tuple(args)
        try:
            self.signature.bind(*given)
        except TypeError as error:
            raise InvalidRequest(f"flow {self.name!r} was begun with {repr_of(given)}: {error}") from error
        hints = (*self.hints, *(Any for _ in given))
        encoded = [
            encode_value(value, hint, f"argument {index + 1} of flow {self.name!r}")[0]
            for index, (value, hint) in enumerate(zip(given, hints, strict=False))
        ]
        return encode_value(encoded, Any, "arguments")[0]

    def make(self, args: bytes) -> Effect[Any]:
        """A fresh program of the flow, with arguments that `encode_args` has encoded.

        Raises `InvalidRequest` where the code does not take them, or not of their types.
        """
        hints = iter((*self.hints,))
        values = [
            decode_value(each, next(hints, Any), f"argument {index + 1} of flow {self.name!r}")
            for index, each in enumerate(decode_value(args, list[bytes], "arguments"))
        ]
        try:
            return self.function(*values)
        except TypeError as error:
            # Nothing of a generator function runs when it is called.
            raise InvalidRequest(
                f"flow {self.name!r}, version {self.version}, was begun with {repr_of(tuple(values))}, and its code "
                f"does not take that: {error}. Give new parameters a default, or the new code another version"
            ) from error


class ActivityCode(NamedTuple):
    """An activity: a function that does something outside."""

    name: str
    function: Callable[..., Any]
    repeat: Repeat
    retry: Retry
    timeout: float | None
    returns: Any


_FLOW, _ACTIVITY = "__flow_code__", "__activity_code__"


@overload
def defined(function: F, /) -> F: ...
@overload
def defined(*, name: str | None = None, version: int = 1) -> Callable[[F], F]: ...
def defined(function: Any = None, /, *, name: str | None = None, version: int = 1) -> Any:
    """Give a flow another name than its function has, or another version than 1. One without this needs none.

    Args:
        function: A generator function.
        name: What the flow is called in journals. Keep it when the function is renamed.
        version: Which version of the flow this code is. Flows that were begun with another one go on with that, for as
            long as the host is given its code too.

    Returns:
        The function itself.

    >>> from persist_effects import flow
    >>> @flow.defined(name="order", version=2)
    ... def order_with_fraud_check(order_id: str):
    ...     yield from flow.sleep(1)
    >>> flow_code(order_with_fraud_check).version
    2
    """

    def define(function: F) -> F:
        setattr(function, _FLOW, _flow_code(function, name, version))
        return function

    return define if function is None else define(function)


@overload
def activity(function: F, /) -> F: ...
@overload
def activity(
    *, name: str | None = None, repeat: Repeat = "safe", retry: Retry | None = None, timeout: float | None = None
) -> Callable[[F], F]: ...
def activity(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    repeat: Repeat = "safe",
    retry: Retry | None = None,
    timeout: float | None = None,
) -> Any:
    """Say more of an activity than its function does. One without this is safe to repeat, and tried once.

    Args:
        function: A function, which may be async. Its annotation says as what its result is read.
        name: What it is called in journals. Keep it when the function is renamed.
        repeat: What may be done where a host was lost while it ran, so that nobody knows what came of it. ``"safe"``:
            run it again. ``"keyed"``: run it again, and hand it the argument ``key``, the same each time, with which
            the other side can tell. ``"never"``: do not; the flow waits until someone says what came of it.
        retry: How often it is tried again where it raises.
        timeout: After how many seconds of one try TimeoutError is raised in the flow.

    Returns:
        The function itself.

    >>> @activity(repeat="keyed", retry=Retry(times=3))
    ... def charge(order: str, cents: int, *, key: str) -> str:
    ...     return f"charged {cents} for {order}, once for each {key}"
    >>> activity_code(charge).repeat
    'keyed'
    """

    def define(function: F) -> F:
        setattr(function, _ACTIVITY, _activity_code(function, name, repeat, retry or Retry(), timeout))
        return function

    return define if function is None else define(function)


def flow_code(function: Any) -> FlowCode:
    """What a generator function is as a flow. Raises `InvalidRequest` for what cannot be one."""
    code = getattr(function, _FLOW, None)
    if isinstance(code, FlowCode):
        return code
    return _kept_at(function, _FLOW, _flow_code(function, None, 1))


def activity_code(function: Any) -> ActivityCode:
    """What a function is as an activity. Raises `InvalidRequest` for what cannot be one."""
    code = getattr(function, _ACTIVITY, None)
    if isinstance(code, ActivityCode):
        return code
    return _kept_at(function, _ACTIVITY, _activity_code(function, None, "safe", Retry(), None))


def _kept_at(function: Any, name: str, code: C) -> C:
    """What was found out of a function, kept at it where that can be: not of a method, nor of one of Python's own."""
    try:
        setattr(function, name, code)
    except AttributeError:
        return code
    return code


def _flow_code(function: Any, name: str | None, version: int) -> FlowCode:
    if not is_program_row(function):
        raise InvalidRequest(f"a flow is {describe(function)}: give a generator function, which yields from its steps")
    called = _called("flow", function, name)
    check_integer("version", version, 1)
    hints = hints_of(function)
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    taken = tuple(hints.get(each.name, Any) for each in parameters if each.kind in _POSITIONAL)
    return FlowCode(called, version, function, taken, _returned(hints.get("return", Any)), signature)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _returned(hint: Any) -> Any:
    """What a program returns, of the annotation of its function."""
    args: tuple[Any, ...] = getattr(hint, "__args__", ())
    return args[2] if len(args) == _PARAMETERS_OF_A_GENERATOR else Any


_PARAMETERS_OF_A_GENERATOR = 3


def _activity_code(
    function: Any, name: str | None, repeat: Repeat, retry: Retry, timeout: float | None
) -> ActivityCode:
    if not callable(function):
        raise InvalidRequest(f"an activity is {describe(function)}: give a function")
    if is_program_row(function):
        raise InvalidRequest(
            f"activity {_name_of(function)!r} is a generator function: an activity is a plain function, or an async "
            "one. What a program reads and writes, a flow does itself: `yield from` it"
        )
    if repeat not in ("safe", "keyed", "never"):
        raise InvalidRequest(f"repeat is {repeat!r}: give 'safe', 'keyed' or 'never'")
    called = _called("activity", function, name)
    if timeout is not None:
        check_seconds("timeout", timeout)
    check_retry(retry)
    return ActivityCode(called, function, repeat, retry, timeout, hints_of(function).get("return", Any))


def _called(what: str, function: Any, name: str | None) -> str:
    called = _name_of(function) if name is None else name
    if called == "<lambda>":
        raise InvalidRequest(f"a lambda is no {what}: journals know it by its name, so write it with `def`")
    check_name(what, called)
    return called


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


class Flows:
    """The code of the flows that a host runs, by name and version.

    >>> def order(order_id: str):
    ...     yield
    >>> Flows([order]).newest("order").version
    1
    """

    def __init__(self, functions: Iterable[Callable[..., Effect[Any]]] = ()) -> None:
        self._codes: dict[str, dict[int, FlowCode]] = {}
        for function in functions:
            self.add(function)

    def add(self, function: Callable[..., Effect[Any]]) -> FlowCode:
        """Take a flow in. Raises `InvalidRequest` where there is another one of this name and version."""
        code = flow_code(function)
        versions = self._codes.setdefault(code.name, {})
        there = versions.setdefault(code.version, code)
        if there.function is not code.function:
            raise InvalidRequest(
                f"two flows are called {code.name!r}, version {code.version}: "
                f"{_place_of(there.function)} and {_place_of(code.function)}. Give one of them another name, or "
                "another version, with flow.defined"
            )
        return code

    def of(self, flow_id: str, name: str, version: int) -> FlowCode:
        """The code of a flow. Raises `NoSuchFlow` where it is not here."""
        code = self._codes.get(name, {}).get(version)
        if code is None:
            known = sorted(f"{each!r} version {number}" for each, codes in self._codes.items() for number in codes)
            raise NoSuchFlow(
                flow_id,
                f"the code of {name!r}, version {version}, is not here: give it to the host, which has "
                f"{', '.join(known) or 'none'}",
            )
        return code

    def newest(self, name: str) -> FlowCode:
        """The newest version of a flow. Raises `NoSuchFlow` where none is here."""
        versions = self._codes.get(name) or {}
        return self.of("", name, max(versions, default=1))

    def has(self, name: str, version: int) -> bool:
        """Whether the code of a flow is here."""
        return version in self._codes.get(name, {})

    def returned_by(self, name: str, version: int) -> Any:
        """The type of what a flow returns; Any where its code is not here."""
        code = self._codes.get(name, {}).get(version)
        return Any if code is None else code.returns

    @property
    def names(self) -> list[str]:
        """What the flows are called."""
        return sorted(self._codes)


def activities_by_name(functions: Iterable[Callable[..., Any]]) -> Mapping[str, ActivityCode]:
    """Activities by their names. Raises `InvalidRequest` for two of one name."""
    named: dict[str, ActivityCode] = {}
    for function in functions:
        code = activity_code(function)
        there = named.setdefault(code.name, code)
        if there.function is not code.function:
            raise InvalidRequest(
                f"two activities are called {code.name!r}: {_place_of(there.function)} and {_place_of(function)}. Give "
                "one of them another name, with flow.activity(name=…)"
            )
    return named


def _place_of(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
