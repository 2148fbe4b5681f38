"""Values to bytes and back, so that every interpreter gives back the same value; and requests as records.

A value is None, a bool, an int of 64 bits, a float, a str, bytes, a list or a dict with str keys, nested at most
`DEPTH_LIMIT` deep, or a `msgspec.Struct` made of those, which is stored as the dict (or list) of its fields. Their
bytes are msgpack. Types must match exactly: a tuple, a datetime or an IntEnum would come back as something else,
and is refused. `persist_effects.schema` and a snapshot's ``state_type`` lift such types on the way in and out.

A record is a msgpack map: a request is ``{"op": "persist/append", …its fields}``.
"""

from collections.abc import Iterable
from types import GeneratorType
from typing import Any, Literal

import msgspec

from persist_effects.errors import InvalidRequest, TooLarge, describe, describe_type, repr_of
from persist_effects.event import Draft, Event
from persist_effects.requests import (
    Advance,
    AllOf,
    Append,
    Appended,
    At,
    Begin,
    BlobGet,
    BlobHas,
    BlobPut,
    BlobRef,
    Conflict,
    Entry,
    ExpectSeq,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    KvWait,
    LastSeq,
    NewId,
    Now,
    Page,
    Read,
    ReadAll,
    Request,
    Sleep,
    Sql,
    StoreRequest,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
)
from persist_effects.sameness import OTHER, is_equal, sameness

DEPTH_LIMIT = 100
"""How deep a value may be nested: deep enough for any record, shallow enough for every decoder's stack."""

PAYLOAD_LIMIT_BYTES = 8 * 1024 * 1024
"""How many bytes one event's data or meta, or one key's value, may take unless the store is told otherwise."""

_NO_LIMIT_BYTES = 2**63

_ENCODING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)
_DECODING_ERRORS = (ValueError, LookupError, OverflowError, RecursionError)
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
# A sleep travels nowhere, but stands in traces.
_decode_request = msgspec.msgpack.Decoder(StoreRequest | Sleep).decode

encode_event = msgspec.msgpack.Encoder().encode
"""An `Event` to bytes. Its ``data`` and ``meta`` were checked before, or are `msgspec.Raw`."""

decode_event = msgspec.msgpack.Decoder(Event).decode
"""The bytes of an `Event` back to a fresh one. Whoever calls it meets msgspec's errors, and a RecursionError."""


def payload_name(part: str, stream: str, event_type: str) -> str:
    """How error messages call an event's data or meta.

    >>> payload_name("data", "orders/1", "placed")
    "data of a 'placed' event for stream 'orders/1'"
    """
    return f"{part} of a {event_type!r} event for stream {stream!r}"


def value_name(key: str) -> str:
    """How error messages call a key's value.

    >>> value_name("color")
    "value of key 'color'"
    """
    return f"value of key {key!r}"


def _encoded_if_it_can_be(whole: Any, limit_bytes: int) -> bytes:
    """The bytes of what is to be stored; none where they are too many, or where some part cannot be encoded."""
    try:
        encoded = _encode(whole)
    except _ENCODING_ERRORS:
        return b""
    return encoded if len(encoded) <= limit_bytes else b""


def encode_new_event(event: Event, limit_bytes: int = PAYLOAD_LIMIT_BYTES) -> bytes:
    """The bytes of an event that is being appended, its data and meta checked as `encode` checks them.

    >>> decode_event(encode_new_event(Event("orders/1", 1, "placed", 0, {"total": 12}, 1))).data
    {'total': 12}
    """
    if _is_storable(event.data, DEPTH_LIMIT) and (event.meta is None or _is_storable(event.meta, DEPTH_LIMIT)):
        encoded = _encoded_if_it_can_be(event, limit_bytes)
        if encoded:
            return encoded
    for part, value in (("data", event.data), ("meta", event.meta)):
        encode(value, payload_name(part, event.stream, event.type), limit_bytes)
    # Each is within the limit, and only the event as a whole is not.
    return encode_event(event)


def encode_new_events(events: list[Event], limit_bytes: int = PAYLOAD_LIMIT_BYTES) -> bytes:
    """The bytes of events that are being appended, one after the other, each checked as `encode_new_event` checks it.

    >>> events = [Event("orders/1", seq, "placed", 0, {"total": 12}, seq) for seq in (1, 2)]
    >>> encode_new_events(events) == b"".join(map(encode_new_event, events))
    True
    """
    for event in events:
        if not _is_storable(event.data, DEPTH_LIMIT) or not (
            event.meta is None or _is_storable(event.meta, DEPTH_LIMIT)
        ):
            break
    else:
        encoded = _encoded_if_it_can_be(events, limit_bytes)
        if encoded:
            return encoded[_array_header_bytes(len(events)) :]
    return b"".join([encode_new_event(event, limit_bytes) for event in events])


def encode_apart(
    stream: str, draft: Draft | Event, limit_bytes: int = PAYLOAD_LIMIT_BYTES
) -> tuple[bytes, bytes | None]:
    r"""The bytes of a draft's data and of its meta, for a store that keeps them apart, each checked as `encode` does.

    Args:
        stream: What it is appended to.
        draft: The draft, or the event that it has become.
        limit_bytes: How many bytes either may have.

    Returns:
        Both; None where there is no meta.

    Raises:
        InvalidRequest: For what cannot be stored.
        TooLarge: For what is over the limit.

    >>> encode_apart("orders/1", Draft("placed", 12))
    (b'\x0c', None)
    """
    data, meta = draft.data, draft.meta
    if meta is None and _is_storable(data, DEPTH_LIMIT):
        encoded = _encoded_if_it_can_be(data, limit_bytes)
        if encoded:
            return encoded, None
    encoded = encode(data, payload_name("data", stream, draft.type), limit_bytes)
    return encoded, None if meta is None else encode(meta, payload_name("meta", stream, draft.type), limit_bytes)


def _array_header_bytes(count: int) -> int:
    return 1 if count < 16 else 3 if count < 2**16 else 5


def encode_new_entry(key: str, value: Any, revision: int, limit_bytes: int = PAYLOAD_LIMIT_BYTES) -> bytes:
    """The bytes of a key that is being put, as an array of key, revision and value, checked as `encode` checks it.

    >>> decode(encode_new_entry("color", "red", 7))
    ['color', 7, 'red']
    """
    if _is_storable(value, DEPTH_LIMIT):
        encoded = _encoded_if_it_can_be((key, revision, value), limit_bytes)
        if encoded:
            return encoded
    encode(value, value_name(key), limit_bytes)
    # It is within the limit, and only the entry as a whole is not.
    return _encode((key, revision, value))


def encode(value: Any, what: str = "value", limit_bytes: int = PAYLOAD_LIMIT_BYTES) -> bytes:
    """A value's msgpack bytes. ``what`` is how an error message calls the value.

    Raises `InvalidRequest` for what cannot be stored, naming the place in the value, and `TooLarge`.

    >>> decode(encode({"total": 12, "items": ["tea"]}))
    {'total': 12, 'items': ['tea']}
    >>> encode({"items": ("tea",)})
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: value["items"] is a tuple, which cannot be stored: give a list
    """
    try:
        encoded = _encode(value)
    except _ENCODING_ERRORS as error:
        _refuse_unstorable(value, what)
        raise InvalidRequest(f"{what} cannot be stored: {error}") from error
    if not _is_storable(value, DEPTH_LIMIT):
        _refuse_unstorable(value, what)
    if len(encoded) > limit_bytes:
        raise TooLarge(what, len(encoded), limit_bytes)
    return encoded


def decode(encoded: bytes) -> Any:
    """The fresh value that these bytes hold. Raises `InvalidRequest` for bytes that hold none, or one too deep.

    >>> decode(encode([None, -1, 2.5, b"x"]))
    [None, -1, 2.5, b'x']
    """
    try:
        return _decode(encoded)
    except _DECODING_ERRORS as error:
        raise InvalidRequest(f"{len(encoded)} bytes do not decode as a value: {error}") from error


def fresh(value: Any) -> Any:
    """An equal value that shares nothing that can change: what storing this storable value and reading it would give.

    >>> items = ["tea"]
    >>> fresh(items) is items
    False
    """
    if type(value) in _SCALARS:
        return value
    try:
        return _decode(_encode(value))
    except _ENCODING_ERRORS:
        return _decode(encode(value, limit_bytes=_NO_LIMIT_BYTES))


def to_plain(value: Any, kind: Any, what: str) -> Any:
    """A value as one that can be stored; ``kind`` is the type that `from_plain` will read it as, None: a plain value.

    Any type that msgspec converts may be in it: tuples, sets, datetimes, enums and so on. Raises `InvalidRequest` if
    it would not come back equal.

    >>> to_plain({(1, 2)}, set[tuple[int, int]], "state")
    [[1, 2]]
    """
    try:
        plain = value if kind is None else _builtins(value)
        back = from_plain(_decode(encode(plain, what, _NO_LIMIT_BYTES)), kind)
    except InvalidRequest:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"{what} cannot be stored and read back as {kind!r}: {error}") from error
    if not is_equal(value, back) and sameness(value, back) == OTHER:
        raise InvalidRequest(
            f"{what} is {repr_of(value)} and would come back as {repr_of(back)}: say its type, which now is {kind!r}"
        )
    return plain


def from_plain(plain: Any, kind: Any) -> Any:
    """The value that `to_plain` made plain. Raises `msgspec.ValidationError` for what is not such a value.

    >>> from_plain([[1, 2]], set[tuple[int, int]])
    {(1, 2)}
    """
    return plain if kind is None else msgspec.convert(plain, kind, builtin_types=(bytes,), str_keys=True)


def _builtins(value: Any) -> Any:
    """Sets, which have no order, come out sorted, so that the same value always gives the same bytes."""
    return _sort_sets(value, msgspec.to_builtins(value, builtin_types=(bytes,), str_keys=True))


def _sort_sets(value: Any, plain: Any) -> Any:
    # By their bytes, because Structs, enums, and values of several types have no order of their own.
    if isinstance(plain, dict):
        parts = value.values() if isinstance(value, dict) else _parts_of_object(value, plain)
        return {key: _sort_sets(part, plain[key]) for key, part in zip(plain, parts, strict=False)}
    if isinstance(plain, list | tuple):
        if isinstance(value, msgspec.Struct):  # array_like, perhaps with a tag in front
            tag = plain[: len(plain) - len(value.__struct_fields__)]
            value = (*tag, *_fields(value).values())
        sorted_parts = [_sort_sets(part, plain_part) for part, plain_part in zip(value, plain, strict=True)]
        return sorted(sorted_parts, key=_encode) if isinstance(value, set | frozenset) else sorted_parts
    return plain


def _parts_of_object(value: Any, plain: dict[str, Any]) -> list[Any]:
    """A Struct's or dataclass's parts in the order of its plain form, which leaves defaults out and may add a tag."""
    names = {}
    if isinstance(value, msgspec.Struct):
        names = dict(zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True))
    return [getattr(value, names.get(key, key), plain[key]) for key in plain]


def _is_storable(value: Any, depth_left: int) -> bool:
    # Runs for every value stored. Scalars, which most values are, are judged where they stand, without a call.
    kind = type(value)
    if kind in _SCALARS:
        return True
    if depth_left == 0:
        return False
    if kind is dict:
        for key, child in value.items():
            if type(key) is not str:
                return False
            if type(child) not in _SCALARS and not _is_storable(child, depth_left - 1):
                return False
        return True
    if kind is list:
        for child in value:
            if type(child) not in _SCALARS and not _is_storable(child, depth_left - 1):
                return False
        return True
    return isinstance(value, msgspec.Struct) and _is_storable(_fields(value), depth_left)


def _refuse_unstorable(value: Any, where: str, depth: int = 0) -> None:
    """Raise for the first part of the value that cannot be stored, naming its place; return if there is none."""
    if type(value) in _SCALARS:
        _refuse_scalar(value, where)
        return
    if depth == DEPTH_LIMIT:
        raise InvalidRequest(f"{where[:200]}… is nested deeper than {DEPTH_LIMIT}, or holds itself: flatten it")
    for place, part in _parts(value, where):
        _refuse_unstorable(part, place, depth + 1)


def _refuse_scalar(value: Any, where: str) -> None:
    if type(value) is int and not -(2**63) <= value < 2**64:
        raise InvalidRequest(f"{where} is the integer {repr_of(value, 40)}, which takes more than 64 bits: give a str")
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"{where} has a lone surrogate at index {error.start}: it is not UTF-8") from error


def _parts(value: Any, where: str) -> Iterable[tuple[str, Any]]:
    """The parts of a value with their places, its keys among them; raises for a value that can have none."""
    if type(value) is list:
        yield from ((f"{where}[{index}]", part) for index, part in enumerate(value))
    elif type(value) is dict:
        for key, part in value.items():
            if type(key) is not str:
                raise InvalidRequest(f"{where} has a dict key that is {describe(key)}: a dict's keys must be str")
            yield f"the dict key {key!r:.80} in {where}", key
            yield f'{where}["{key}"]', part
    elif isinstance(value, msgspec.Struct):
        yield from ((f"{where}.{name}", part) for name, part in _fields(value).items())
    else:
        advice = _ADVICE.get(type(value), _OTHER)
        raise InvalidRequest(f"{where} is {describe_type(value)}, which cannot be stored: {advice}")


_ADVICE: dict[Any, str] = {
    tuple: "give a list",
    set: "give a list",
    frozenset: "give a list",
    bytearray: "give bytes",
    GeneratorType: "write `yield from` before the call that made it",
}
_OTHER = (
    "give None, a bool, int, float, str, bytes, a list, a dict with str keys, or a Struct made of those. "
    "kv.Cell and Schema store dataclasses, dates and the like by their type"
)


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


# Requests and answers as records

_ANSWERS: dict[type[Request[Any]], Any] = {
    Append: Appended | Conflict,
    Read: Page,
    ReadAll: Page,
    LastSeq: int,
    TruncateThrough: int,
    Begin: int | Conflict,
    Advance: None,
    Streams: list[str],
    Wait: int,
    KvGet: Entry | None,
    KvHas: bool,
    KvPut: int | Conflict,
    KvDelete: bool | Conflict,
    KvKeys: list[str],
    KvEntries: list[tuple[str, Entry]],
    KvWait: int,
    Sql: int,
    BlobPut: BlobRef,
    BlobGet: bytes,
    BlobHas: bool,
    Now: int,
    NewId: str,
    Sleep: None,
}
_ANSWER_DECODERS: dict[type[Request[Any]], msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(answer) for kind, answer in _ANSWERS.items()
}

STORE_REQUESTS: tuple[type[Request[Any]], ...] = (*_ANSWERS, Transact)
"""Every type of request that `encode_request` and `decode_answer` know."""


_KNOWN: tuple[type[Request[Any]], ...] = (*STORE_REQUESTS, AllOf, At)
_KNOWN_KINDS = frozenset(_KNOWN)
_OPS: dict[str, type[Request[Any]]] = {str(kind.__struct_config__.tag): kind for kind in _KNOWN}


def check_ops(where: str, kinds: Iterable[object]) -> None:
    """Refuse classes of requests of which two have one tag, a store's among them: each would be read as the other.

    For tables, traces and wires, not for classes by themselves: a module that is loaded again makes its classes anew.

    >>> class FetchPrice(Request[int], frozen=True, tag="persist/kv-get"):
    ...     sku: str
    >>> check_ops("the table", [FetchPrice])
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: the table: ...FetchPrice and persist_effects.requests.KvGet both have the ...
    """
    found: dict[str, object] = {}
    for kind in kinds:
        # Most tables have nothing else, and explorations open very many stores.
        if isinstance(kind, type) and kind in _KNOWN_KINDS:
            continue
        if not (isinstance(kind, type) and issubclass(kind, Request)):
            raise InvalidRequest(f"{where}: found {describe(kind)}: give classes of requests")
        tag = kind.__struct_config__.tag
        if tag is None:
            raise InvalidRequest(f"{where}: {_full_name(kind)} has no tag: give it one, tag='…'")
        op = str(tag)
        other = _OPS.get(op) or found.setdefault(op, kind)
        if other is not kind:
            raise InvalidRequest(
                f"{where}: {_full_name(kind)} and {_full_name(other)} both have the tag {op!r}, so each would be "
                "taken for the other: give each a tag of its own, tag='…'; a class inherits its parent's"
            )


def _full_name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def encode_request(request: Request[Any]) -> bytes:
    r"""A store's request as a record, its values checked as `encode` checks them.

    >>> encode_request(LastSeq("orders/1"))
    b'\x82\xa2op\xb0persist/last-seq\xa6stream\xa8orders/1'
    """
    for what, value in _values_of(request):
        if not _is_storable(value, DEPTH_LIMIT):
            _refuse_unstorable(value, what)
    try:
        return _encode(request)
    except _ENCODING_ERRORS as error:
        for what, value in _values_of(request):
            _refuse_unstorable(value, what)
        raise InvalidRequest(f"{request.op} cannot be sent: {error}") from error


def decode_request(record: bytes) -> Request[Any]:
    """The request that a record holds. Raises `InvalidRequest` for what is none.

    >>> decode_request(encode_request(LastSeq("orders/1")))
    LastSeq(stream='orders/1')
    """
    try:
        request: Request[Any] = _decode_request(record)
    except _DECODING_ERRORS as error:
        raise InvalidRequest(f"a record of {len(record)} bytes is not a request of this store: {error}") from error
    return request


def encode_answer(answer: Any) -> bytes:
    """An answer as bytes. Raises `InvalidRequest` for what has none."""
    try:
        return _encode(answer)
    except _ENCODING_ERRORS as error:
        raise InvalidRequest(f"an answer, {describe(answer)}, cannot be sent: {error}") from error


def decode_answer(request: Request[Any], encoded: bytes) -> Any:
    """The answer to this request that these bytes hold. Raises `InvalidRequest` for bytes that hold none.

    >>> decode_answer(LastSeq("orders/1"), encode_answer(7))
    7
    """
    try:
        if isinstance(request, Transact):
            return _decode_transacted(request, encoded)
        return _ANSWER_DECODERS[type(request)].decode(encoded)
    except _DECODING_ERRORS as error:
        if isinstance(error, InvalidRequest):
            raise
        conflict = _old_conflict(request, encoded)
        if conflict is not None:
            return conflict
        raise InvalidRequest(f"{len(encoded)} bytes are not an answer to {request.op}: {error}") from error


def _decode_transacted(request: Transact, encoded: bytes) -> list[Any] | Conflict:
    # Each answer is typed by its write, so the list is taken apart first. A Conflict is a map, not a list.
    is_list = (encoded[0] & 0xF0) == 0x90 or encoded[0] in (0xDC, 0xDD)
    if not is_list:
        return msgspec.msgpack.decode(encoded, type=Conflict)
    parts = msgspec.msgpack.decode(encoded, type=list[msgspec.Raw])
    return [decode_answer(write, bytes(part)) for write, part in zip(request.writes, parts, strict=True)]


class _OldConflict(msgspec.Struct, tag="Conflict", forbid_unknown_fields=True):
    """How a `Conflict` was encoded before it said its kind and its write."""

    stream_or_key: str
    expected: int
    actual: int


_decode_old_conflict = msgspec.msgpack.Decoder(_OldConflict).decode


def _old_conflict(request: Request[Any], encoded: bytes) -> Conflict | None:
    """The conflict that these bytes hold in the old encoding: the first of the request's that it can be about."""
    try:
        old = _decode_old_conflict(encoded)
    except _DECODING_ERRORS:
        return None
    parts: list[tuple[int | None, Any]] = [(0, request)]
    if isinstance(request, Transact):
        parts = [*((None, check) for check in request.checks), *enumerate(request.writes)]
    for index, part in parts:
        kind: Literal["stream", "key"] = "stream" if isinstance(part, Append | ExpectSeq) else "key"
        name = getattr(part, "stream" if kind == "stream" else "key", None)
        if name == old.stream_or_key and getattr(part, "expected", None) == old.expected:
            return Conflict(kind, old.stream_or_key, old.expected, old.actual, index)
    return None


def _values_of(request: Request[Any]) -> Iterable[tuple[str, Any]]:
    """The values that a request would store, and how to call them."""
    match request:
        case Append(stream=stream, events=drafts):
            for draft in drafts:
                yield payload_name("data", stream, draft.type), draft.data
                yield payload_name("meta", stream, draft.type), draft.meta
        case KvPut(key=key, value=value):
            yield value_name(key), value
        case Sql(params=params):
            yield "the parameters of an SQL statement", params
        case Transact(writes=writes):
            for write in writes:
                yield from _values_of(write)
        case _:
            return
