"""What a flow asks for besides what every program may: calls of activities, signals, children, branches."""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Literal, cast

import msgspec

from persist_effects.errors import InvalidRequest, describe, repr_of
from persist_effects.event import check_integer, check_name
from persist_effects.following.handling import Retry
from persist_effects.machine import Effect
from persist_effects.requests import Request, Sleep, check_seconds
from persist_effects.trace.values import decode, encode, encode_request

Repeat = Literal["safe", "keyed", "never"]
"""May an activity be run again where nobody knows what came of it: freely, with the key handed to it, or never?"""


class Call(Request[Any], frozen=True, gc=False, tag="flow/call"):
    """Run an activity, and answer with what it returns. Its name and its arguments are what it is known by.

    Made by `persist_effects.flow.call`, which checks what is in it: that is done at every step.
    """

    activity: str
    args: tuple[Any, ...] = ()
    repeat: Repeat = "safe"
    retry: Retry = Retry()
    timeout: float | None = None
    # The type of what it returns, from its annotation; and what it is known by, if that was found out.
    returns: Any = Any
    known: bytes = b""


class Signal(Request[Any], frozen=True, gc=False, tag="flow/signal"):
    """Wait for a signal of this name, and answer with what was sent. TimeoutError where none comes in time."""

    name: str
    timeout: float | None = None
    returns: Any = Any

    def __post_init__(self) -> None:
        check_name("signal", self.name)
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)


class Child(Request[Any], frozen=True, tag="flow/child"):
    """Begin another flow, and answer with its result once it has ended."""

    flow: str
    version: int
    args: tuple[Any, ...] = ()
    flow_id: str | None = None
    returns: Any = Any

    def __post_init__(self) -> None:
        check_name("flow", self.flow)
        check_integer("version", self.version, 1)
        if self.flow_id is not None:
            check_flow_id(self.flow_id)


class Local(Request[Any], frozen=True, tag="flow/local"):
    """Run a program that only reads, and answer with its value, which alone is kept in the journal."""

    name: str
    program: Effect[Any]
    returns: Any = Any


class Patched(Request[bool], frozen=True, tag="flow/patched"):
    """Is a change of the flow's code in force for this flow? Decided once for each flow and change."""

    change: str

    def __post_init__(self) -> None:
        check_name("change", self.change)


class Branches(Request[Any], frozen=True, tag="flow/branches"):
    """Programs that go on together, each resumed at its own outcome, until ``all`` have ended, or the ``first``."""

    mode: Literal["all", "first"]
    programs: tuple[Effect[Any], ...]


# What a conductor asks of its host


class Came(msgspec.Struct, frozen=True):
    """What came of something that a flow waits for: its answer's value, or the error."""

    path: tuple[int, ...]
    value: Any = None
    error: Exception | None = None


class Started(msgspec.Struct, frozen=True, gc=False):
    """A call that is to be run now. ``key`` is the same whenever it is run again."""

    path: tuple[int, ...]
    call: Call
    key: str


class Timer(msgspec.Struct, frozen=True, gc=False):
    """A step that is to be told once it is due, in microseconds since 1970."""

    path: tuple[int, ...]
    due: int


class Await(Request[list[Came]], frozen=True, gc=False, tag="flow/await"):
    """Forget what was withdrawn, begin these, and answer once something came of anything, or a message came.

    What was withdrawn may be of the run before, and its path that of something which is to be begun now. A message
    shows as one that came at the path ``()``.
    """

    flow_id: str
    calls: tuple[Started, ...] = ()
    timers: tuple[Timer, ...] = ()
    withdrawn: tuple[tuple[int, ...], ...] = ()


class Publish(Request[None], frozen=True, tag="flow/publish"):
    """Tell the host how a flow stands: that it has ended, or to which flow a message was sent."""

    flow_id: str


# What a step is known by

_SLEEP = encode([str(Sleep.__struct_config__.tag)])


def identity(request: Request[Any]) -> bytes:
    """What a request is known by in a journal: all of it, but for how long it waits and how often it is tried.

    >>> from persist_effects.requests import Sleep
    >>> identity(Sleep(5)) == identity(Sleep(60))
    True
    >>> identity(Call("charge", ("o-1", 5))) == identity(Call("charge", ("o-1", 6)))
    False
    >>> len(identity(Call("print", ("x" * 1_000_000,)))) < IDENTITY_LIMIT_BYTES
    True
    """
    # Runs at every step of a replay.
    kind = type(request)
    if kind is Call:
        call = cast(Call, request)
        return call.known or identity_of_call(call.activity, call.args)
    if kind is Sleep:
        return _SLEEP
    row = _IDENTITIES.get(kind)
    known = encode_request(request) if row is None else encode(row(request))
    return known if len(known) <= IDENTITY_LIMIT_BYTES else _shortened(known)


def identity_of_call(activity: str, args: tuple[Any, ...]) -> bytes:
    """What a call is known by. Raises `InvalidRequest` where its arguments cannot be kept.

    >>> identity_of_call("charge", (object(),))
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: an argument of activity 'charge' cannot be stored, (<object object at ...
    """
    try:
        known = encode(("flow/call", activity, args))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(
            f"an argument of activity {activity!r} cannot be stored, {repr_of(args)}: {error}. Give plain values, or a "
            "msgspec.Struct or a dataclass of such"
        ) from error
    return known if len(known) <= IDENTITY_LIMIT_BYTES else _shortened(known)


IDENTITY_LIMIT_BYTES = 512
"""Where a step is known by more, its long parts are known by digests: a journal keeps nothing large twice."""

_PART_LIMIT_BYTES = 100


def _shortened(known: bytes) -> bytes:
    """What a step is known by, with a digest in the place of each part that is long."""
    parts: Any = decode(known)
    if isinstance(parts, dict):
        return encode({name: _digested(part) for name, part in parts.items()})
    return encode([_digested(part) for part in parts])


def _digested(part: Any) -> Any:
    if len(encode(part)) <= _PART_LIMIT_BYTES:
        return part
    part = _in_order(part)
    digest = blake2b(encode(part), digest_size=16).digest()
    shown = ", ".join(map(repr_of, part[:2])) if isinstance(part, list) else repr_of(part)
    return {_DIGEST: digest, "shown": shown[:_PART_LIMIT_BYTES], "count": len(part) if isinstance(part, list) else 1}


_DIGEST = "flow/digest"


def _in_order(value: Any) -> Any:
    """A value whose dicts have their keys in one order, so that it is known by the same in whatever order they came."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value, key=encode)}
    return [_in_order(part) for part in value] if isinstance(value, list) else value


def _is_digest(part: Any) -> bool:
    return isinstance(part, dict) and _DIGEST in part


def count_writes(known: Any) -> int:
    """How many writes a step asked for, by what it is known by: it is a write, or a transaction of several.

    >>> count_writes({"op": "persist/transact", "writes": [{"op": "persist/kv-delete"}, {"op": "persist/kv-delete"}]})
    2
    >>> count_writes({"op": "persist/kv-delete"})
    1
    """
    writes = known.get("writes")
    if writes is None:
        return 1
    return int(writes["count"]) if _is_digest(writes) else len(writes)


_IDENTITIES: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    Signal: lambda request: ("flow/signal", request.name),
    Child: lambda request: ("flow/child", request.flow, request.args, request.flow_id),
    Local: lambda request: ("flow/local", request.name),
}


def told_identity(known: Any) -> str:
    """How messages show what a step is known by.

    >>> told_identity(["flow/call", "charge", ["o-1", 5]])
    "call(charge, 'o-1', 5)"
    >>> told_identity(["flow/signal", "approved"])
    "signal('approved')"
    """
    match known:
        case ["flow/call", activity, args]:
            return f"call({', '.join([activity, *_told_all(args)])})"
        case ["flow/signal", name]:
            return f"signal({name!r})"
        case ["flow/child", name, args, flow_id]:
            named = [] if flow_id is None else [f"flow_id={flow_id!r}"]
            return f"child({', '.join([name, *_told_all(args), *named])})"
        case ["flow/local", name]:
            return f"local({name})"
        case [op]:
            return f"{str(op).rpartition('/')[2]}(…)"
        case dict():
            shown = ", ".join(f"{name}={_told_part(value)}" for name, value in known.items() if name != "op")
            return f"{known.get('op')}({shown})"
    return repr_of(known)


def _told_all(args: Any) -> list[str]:
    return [_told_part(args)] if _is_digest(args) else [repr_of(each) for each in args]


def _told_part(part: Any) -> str:
    return f"{part['shown']}…" if _is_digest(part) else repr_of(part)


def told_request(request: Any) -> str:
    """How messages show a request, be it that it can be kept or not."""
    try:
        return told_identity(decode(identity(request)))
    except InvalidRequest:
        return repr_of(request, 200)


def check_retry(retry: object) -> None:
    """Refuse what does not say how often something is tried again.

    >>> check_retry(3)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: retry is an int, 3: give a Retry, as Retry(times=3)
    """
    if type(retry) is not Retry:
        raise InvalidRequest(f"retry is {describe(retry)}: give a Retry, as Retry(times=3)")


def check_flow_id(flow_id: object) -> None:
    """Refuse what cannot be the name of a flow: it stands in names of streams and keys, which are longer.

    >>> check_flow_id("")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: a flow's id is empty: a name has 1 to 512 bytes of UTF-8
    """
    check_name("a flow's id", flow_id)  # type: ignore[arg-type]
    size_bytes = len(str(flow_id).encode())
    if size_bytes > FLOW_ID_LIMIT_BYTES:
        raise InvalidRequest(f"a flow's id has {size_bytes} bytes: give at most {FLOW_ID_LIMIT_BYTES}")


FLOW_ID_LIMIT_BYTES = 300
"""So that its timers' keys, with the time and the path of a step, are names."""


def checked_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Tags by which flows are found, as a dict of their own. Raises `InvalidRequest` for what is none.

    >>> checked_tags(None), checked_tags({"customer": "7"})
    ({}, {'customer': '7'})
    """
    given = {} if tags is None else tags
    if not isinstance(given, Mapping) or not all(type(part) is str for pair in given.items() for part in pair):
        raise InvalidRequest(f"tags is {describe(tags)}: give a dict of str, {{'customer': '7'}}")
    return dict(given)
