"""What is kept of a flow, and where.

========================  ============================================================================================
``flow/<id>``             its journal, a stream that only its owner writes: ``begun``, then ``steps`` and ``claimed``,
                          at last ``ended``, or ``begun`` again where it goes on as a new run
``flow-inbox/<id>``       what others have for it: ``signal``, ``cancel``, ``resolve``, ``pause``, ``resume``
``flow-inbox/``           without an id: that a host is ``gone``, so that others look for its flows
``flow-open/<id>``        a key for each flow that goes on: an `Open`
``flow-done/<id>``        a key for each flow that has ended: a `Closed`
``flow-due/<due>/…``      a key for each timer, ordered by the time at which it is due
``flow-host/<token>``     a key for each host that lives: see `interpreters.runtime.flows.leases`
``flow-schedule/<name>``  a key for each schedule: the time up to which its flows were begun
========================  ============================================================================================

An entry ``steps`` is what one commit has of a flow: the outcomes that the flow was given, in the order in which it was
given them. They are encoded, as a list of `JournalStep`. Where a write to the store is among them, the entry is in the
transaction of that write, and its answers are in the entry's meta, so that they were never given and not written, nor
written and not given. Every entry bears the token of the host that wrote it.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from types import UnionType
from typing import Any, NamedTuple, get_type_hints

import msgspec

from persist_effects.errors import InvalidRequest, repr_of
from persist_effects.event import Draft
from persist_effects.flow.requests import Call, Child, Local, Signal
from persist_effects.requests import Append, Appended, KvPut, Request, Transact, Write
from persist_effects.sameness import SAME_CLOCK, sameness
from persist_effects.trace.errors import ErrorKinds, decode_error, encode_error
from persist_effects.trace.values import decode_answer, encode, encode_and_keep

JOURNAL = "flow/"
INBOX = "flow-inbox/"
OPEN = "flow-open/"
DONE = "flow-done/"
DUE = "flow-due/"
HOST = "flow-host/"
SCHEDULE = "flow-schedule/"

OWN_STREAMS = (JOURNAL, INBOX)
OWN_KEYS = (OPEN, DONE, DUE, HOST, SCHEDULE)
"""Where only flows themselves write."""

BEGUN, STEPS, CLAIMED, ENDED = "begun", "steps", "claimed", "ended"
"""The types of a journal's events."""

ANSWER, ERROR, NOTED, STARTED, CANCEL, PATCHED, PASSED = range(7)
"""The kinds of steps: an answer; an error; an answer that is among those noted; a timer or a call that was begun; that
the flow was cancelled; that a change is in force; that a message was passed over, of which nobody waits for."""


class JournalStep(NamedTuple):
    """One step of a journal.

    ``path`` says where it stands in the flow, ``known`` what its request is known by. ``outcome`` is the answer or the
    error, encoded; of a timer that was begun it is the time in its key, of a child its id. ``message`` is the number,
    in the inbox, of the message that it took.
    """

    path: tuple[int, ...]
    known: bytes
    kind: int
    outcome: bytes | int | None = None
    message: int | None = None


encode_steps = encode
"""Steps, as the bytes that an entry has."""

decode_steps: Callable[[bytes], list[JournalStep]] = msgspec.msgpack.Decoder(list[JournalStep]).decode
"""The steps of an entry."""

RUNNING, PAUSED, HALTED, SET_ASIDE = "running", "paused", "halted", "set aside"
WAITING = "waiting"
"""In a queue, for its first run: so a flow is shown that is running, in a queue, and nobody's."""
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"

DUE_DIGITS = 17
"""How long a time is in a key, so that keys are ordered as times."""


class Parent(msgspec.Struct, frozen=True):
    """Who waits for a flow: a step of another one."""

    flow_id: str
    path: list[int]


class Beginning(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a flow was begun with: data of ``begun``. ``args`` are its arguments, encoded.

    ``first_args`` are those of its first run, where this is not that. ``consumed`` are messages that were taken from
    its inbox before this run. ``began`` is when the first run began.
    """

    flow: str
    version: int
    args: bytes
    began: int
    run: int = 1
    first_args: bytes | None = None
    parent: Parent | None = None
    tags: dict[str, str] = {}
    consumed: list[int] = []
    token: bytes = b""


class FlowEnded(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a flow ended: data of ``ended``. ``result`` is encoded as what it returns; ``error`` as `errors` are."""

    beginning: Beginning
    state: str
    result: bytes | None = None
    error: bytes | None = None
    token: bytes = b""


class Open(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a flow that goes on stands. ``owner`` is the token of the host that runs it, empty where none does.

    In a ``queue``, one without an owner waits for its turn, of those with a higher ``priority`` first.
    ``retried`` is how far its journal went when someone had it tried again: hosts that took it over by then do not
    count towards those that it has ended.
    """

    flow: str
    version: int
    began: int
    state: str = RUNNING
    owner: bytes = b""
    run: int = 1
    queue: str = ""
    priority: int = 0
    tags: dict[str, str] = {}
    error: str | None = None
    retried: int = 0


class OpenFlow(NamedTuple):
    """How a flow that goes on stood when it was read, and the revision of its key."""

    standing: Open
    revision: int


class Closed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a flow that has ended, besides its result."""

    flow: str
    version: int
    began: int
    ended: int
    state: str
    run: int = 1
    tags: dict[str, str] = {}
    error: str | None = None


def journal_of(flow_id: str) -> str:
    """The stream of a flow's journal."""
    return JOURNAL + flow_id


def due_key(due: int, flow_id: str, path: Iterable[int]) -> str:
    """The key of a timer.

    >>> due_key(1_700_000_000_000_000, "o-1", (3, 1, 2))
    'flow-due/01700000000000000/o-1/3.1.2'
    """
    return f"{DUE}{max(0, due):0{DUE_DIGITS}d}/{flow_id}/{told_path(path)}"


def told_path(path: Iterable[int]) -> str:
    """A step's path as text.

    >>> told_path((3, 1, 2)), path_in("3.1.2")
    ('3.1.2', (3, 1, 2))
    """
    return ".".join(map(str, path))


def path_in(text: str) -> tuple[int, ...]:
    """The path that a text is. Raises `InvalidRequest` where it is none."""
    try:
        return tuple(int(part) for part in text.split("."))
    except ValueError as error:
        raise InvalidRequest(f"a step is {text!r}: give its path, as 3 or 3.1.2") from error


# Values


def encode_value(value: Any, kind: Any, what: str) -> tuple[bytes, Any]:
    """A value as bytes, and as whoever reads them gets it. Raises `InvalidRequest` for one that would be another.

    >>> encode_value((1, "tea"), tuple[int, str], "a result")[1]
    (1, 'tea')
    >>> encode_value((1, "tea"), Any, "a result")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: a result is (1, 'tea') and would come back as [1, 'tea']: annotate its ...
    """
    try:
        encoded = encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"{what} cannot be stored: {error}") from error
    if type(value) in _PLAIN and (kind is Any or type(value) is kind):
        return encoded, value
    back = decode_value(encoded, kind, what)
    if sameness(value, back) < SAME_CLOCK:
        raise InvalidRequest(
            f"{what} is {repr_of(value)} and would come back as {repr_of(back)}: annotate its type, as in "
            "`def charge(order: str) -> Receipt` or `flow.local(…, returns=list[Event])`, or give plain values"
        )
    return encoded, back


def decode_value(encoded: bytes, kind: Any, what: str) -> Any:
    """The value that these bytes hold. Raises `InvalidRequest` where it is not of its type."""
    try:
        return _decoder(kind).decode(encoded)
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{what} does not fit its type {kind!r}: {error}") from error


def convert_value(value: Any, kind: Any, what: str) -> Any:
    """A plain value as its type. Raises `InvalidRequest` where it does not fit."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidRequest(f"{what} does not fit its type {kind!r}: {error}") from error


_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


@lru_cache(maxsize=1024)
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(Any if kind is None else kind)


def hints_of(function: Any) -> Mapping[str, Any]:
    """The types that a function's annotations say. What cannot be found is Any.

    >>> def charge(order: str, cents: int) -> bool: ...
    >>> hints_of(charge)["cents"], hints_of(charge)["return"]
    (<class 'int'>, <class 'bool'>)
    """
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}
    return {
        name: hint for name, hint in hints.items() if isinstance(hint, type | UnionType) or hasattr(hint, "__args__")
    }


# Outcomes

_CAUSES_LIMIT = 10


def encode_raised(error: Exception) -> bytes:
    """An error with its causes."""
    chain = [encode_error(error)]
    while len(chain) < _CAUSES_LIMIT and isinstance(error.__cause__, Exception):
        error = error.__cause__
        chain.append(encode_error(error))
    return encode(chain)


def decode_raised(encoded: bytes, kinds: ErrorKinds) -> Exception:
    """The fresh error that these bytes hold, with its causes.

    >>> error = ValueError("no tea")
    >>> error.__cause__ = KeyError("tea")
    >>> back = decode_raised(encode_raised(error), {})
    >>> back, back.__cause__
    (ValueError('no tea'), KeyError('tea'))
    """
    errors = [decode_error(each, kinds) for each in msgspec.msgpack.decode(encoded, type=list[bytes])]
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def noted_answer(request: Request[Any], noted: list[Any]) -> Any:
    """The answer to a write, of what was noted of its transaction.

    >>> from persist_effects.requests import Draft, KvPut
    >>> noted_answer(KvPut("color", "red"), [7, 8])
    7
    """
    if isinstance(request, Transact):
        writes = request.writes
        return [_typed(write, answer) for write, answer in zip(writes, noted[: len(writes)], strict=True)]
    return _typed(request, noted[0])


def _typed(write: Any, answer: Any) -> Any:
    return msgspec.convert(answer, Appended) if isinstance(write, Append) else answer


def encode_reply(request: Request[Any], answer: Any) -> tuple[bytes, Any]:
    """The answer of a request: as bytes, and as the flow gets it. Raises `InvalidRequest` where it cannot be kept."""
    if not isinstance(request, _OF_FLOWS):
        return encode_and_keep(request, answer)
    kind: Any = getattr(request, "returns", Any)
    if type(answer) in _PLAIN and (kind is Any or kind is type(answer)):
        # What most activities return.
        return encode(answer), answer
    return encode_value(answer, kind, f"what {_what(request)} came to")


def decode_reply(request: Request[Any], encoded: bytes) -> Any:
    """The answer that these bytes hold. Raises `InvalidRequest` where they are of another type."""
    if not isinstance(request, _OF_FLOWS):
        return decode_answer(request, encoded)
    try:
        return _decoder(getattr(request, "returns", Any)).decode(encoded)
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"what {_what(request)} came to is not of its type any more: {error}") from error


_OF_FLOWS = (Call, Signal, Child, Local)


def _what(request: Any) -> str:
    match request:
        case Call(activity):
            return f"activity {activity!r}"
        case Signal(name):
            return f"signal {name!r}"
        case Child(flow):
            return f"flow {flow!r}"
    return f"program {request.name!r}"


# What a flow has in the store when it begins, and what others have for it


class BegunFlow(NamedTuple):
    """What a flow that begins has in the store: the data of its journal's first entry, and its key."""

    beginning: Beginning
    standing: Open


def beginning_writes(flow_id: str, begun: BegunFlow) -> tuple[Write, ...]:
    """The writes that begin a flow, all of which conflict where there is one.

    >>> [write.op for write in beginning_writes("o-1", begun_of(Beginning("order", 1, b"", 0)))]
    ['persist/append', 'persist/kv-put', 'persist/append']
    """
    writes = (
        Append(journal_of(flow_id), (Draft(BEGUN, begun.beginning),), 0),
        KvPut(OPEN + flow_id, begun.standing, 0),
    )
    # A host that begins it for itself needs no word of it.
    return writes if begun.beginning.token else (*writes, message(flow_id, "begun", None))


def begun_of(beginning: Beginning, queue: str = "", priority: int = 0) -> BegunFlow:
    """What a flow that begins has in the store.

    >>> begun_of(Beginning("order", 1, b"", 0), queue="mail").standing.queue
    'mail'
    """
    standing = Open(
        beginning.flow,
        beginning.version,
        beginning.began,
        owner=beginning.token,
        queue=queue,
        priority=priority,
        tags=beginning.tags,
    )
    return BegunFlow(beginning, standing)


def message(flow_id: str, kind: str, data: Any) -> Append:
    """The write that puts a message into a flow's inbox."""
    return Append(INBOX + flow_id, (Draft(kind, data),))
