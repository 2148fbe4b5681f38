"""One request of a trace, or what came of it, as bytes and back.

A request is its record, a msgpack map with its ``op``. An answer is read as the type that its request promises: a
store's as `persist_effects.codec` reads it, that of `AllOf` part by part, that of your own request as the ``A`` of
its ``Request[A]``. `persist_effects.trace.errors` has the errors.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast, get_args, get_origin

import msgspec

from persist_effects import codec
from persist_effects.errors import InvalidRequest, describe, repr_of
from persist_effects.json_values import MASKED
from persist_effects.requests import AllOf, Answered, At, Failed, Outcome, Request, StoreRequest
from persist_effects.sameness import EXACT, OTHER, SAME_CLOCK, sameness
from persist_effects.trace.errors import NO_ERROR_KINDS, ErrorKinds, decode_error, encode_error

Kinds = Mapping[str, type[Request[Any]]]
"""The types of the user's own requests, by their ``op``."""

STORE_REQUESTS = frozenset(codec.STORE_REQUESTS)

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_ENCODING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)
_DECODING_ERRORS = (msgspec.DecodeError, TypeError, ValueError, LookupError, RecursionError)

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_parts = msgspec.msgpack.Decoder(list[dict[str, msgspec.Raw]]).decode


def decode(encoded: bytes) -> Any:
    """The plain value that these bytes hold. Raises `InvalidRequest` for bytes that hold none.

    >>> decode(encode([1, "tea"]))
    [1, 'tea']
    """
    try:
        return _decode(encoded)
    except _DECODING_ERRORS as error:
        raise InvalidRequest(f"a recorded value does not fit: {error}") from error


class MaskedValue:
    """How what was left out of a trace is shown."""

    def __repr__(self) -> str:
        return "<masked>"


_MASKED_BYTES = encode(MASKED)
_MARK = MaskedValue()


def has_mark(encoded: bytes) -> bool:
    """Whether something was left out of a value.

    >>> has_mark(encode({"token": MASKED})), has_mark(encode({"token": _MASKED_BYTES}))
    (True, False)
    """
    return _MASKED_BYTES in encoded and _has_mark(decode(encoded))


def _has_mark(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_mark, value.values() if isinstance(value, dict) else value))
    return bool(value == MASKED)


def with_mark(value: Any) -> Any:
    """A plain value in which what was left out is shown as such."""
    if isinstance(value, dict):
        return {name: with_mark(part) for name, part in value.items()}
    if isinstance(value, list):
        return [with_mark(part) for part in value]
    return _MARK if value == MASKED else value


class UnknownRequest(msgspec.Struct, frozen=True):
    """A recorded request whose type is not known here."""

    op: str
    fields: Any

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"{self.op}({shown})"


# Requests


def encode_request(request: Request[Any]) -> bytes:
    """A request as a record. Raises `InvalidRequest` for one that cannot be one.

    >>> from persist_effects.requests import KvGet
    >>> decode_request(encode_request(KvGet("color")))
    KvGet(key='color')
    """
    try:
        return encode(request)
    except _ENCODING_ERRORS as error:
        raise InvalidRequest(f"the request {shown(request)} cannot be recorded: {error}") from error


def decode_request(encoded: bytes, kinds: Kinds | None = None) -> Request[Any] | UnknownRequest:
    """The request that a record holds, an `UnknownRequest` where it is none of a store's and not among ``kinds``.

    So is one of which something was left out.
    """
    plain = decode(encoded)
    try:
        op = plain["op"] if isinstance(plain, dict) else plain[0]
        if type(op) not in (str, int):
            raise TypeError(f"its op is {describe(op)}")
        op = str(op)
        if has_mark(encoded):
            return _unknown(op, with_mark(plain))
        if op == _ALL_OF:
            return AllOf(tuple(decode_request(encode(part), kinds) for part in plain["requests"]))  # type: ignore[misc]
        if op == _AT:
            return At(plain["target"], cast(StoreRequest, codec.decode_request(encode(plain["request"]))))
    except InvalidRequest:
        raise
    except _DECODING_ERRORS as error:
        raise InvalidRequest(f"a recorded request of {len(encoded)} bytes does not fit: {error!r}") from error
    if kinds is not None and op in kinds:
        try:
            return msgspec.msgpack.decode(encoded, type=kinds[op])
        except (msgspec.ValidationError, InvalidRequest):
            # The type has other fields now, or refuses these.
            return _unknown(op, plain)
    if op in _STORE_OPS:
        return codec.decode_request(encoded)
    return _unknown(op, plain)


def _unknown(op: str, plain: Any) -> UnknownRequest:
    if isinstance(plain, dict):
        return UnknownRequest(op, {name: value for name, value in plain.items() if name != "op"})
    return UnknownRequest(op, dict(enumerate(plain[1:])))


_ALL_OF = str(AllOf.__struct_config__.tag)
_AT = str(At.__struct_config__.tag)
_STORE_OPS = frozenset(str(kind.__struct_config__.tag) for kind in codec.STORE_REQUESTS)


def is_same(first: bytes, second: bytes) -> bool:
    """Whether two encoded values are equal, types too, whatever the order of keys in their dicts.

    >>> is_same(encode({"a": 1, "b": 2}), encode({"b": 2, "a": 1})), is_same(encode(1), encode(True))
    (True, False)
    """
    if first == second:
        return True
    return bool(_unordered(decode(first)) == _unordered(decode(second)))


def _unordered(value: Any) -> Any:
    """Something that is equal for values that are the same: what has no parts is its bytes, so 1 is not True."""
    if isinstance(value, dict):
        return {encode(key): _unordered(part) for key, part in value.items()}
    return [_unordered(part) for part in value] if isinstance(value, list) else encode(value)


# Answers


def encode_answer(request: Request[Any], answer: Any) -> bytes:
    """What a request was answered with. Raises `InvalidRequest` for what would not come back the same.

    >>> from persist_effects.requests import KvHas
    >>> decode_answer(KvHas("color"), encode_answer(KvHas("color"), True))
    True
    """
    return encode_and_keep(request, answer)[0]


def encode_and_keep(request: Request[Any], answer: Any) -> tuple[bytes, Any]:
    """An answer's bytes, and the answer that the program is to go on with, so that a replay gives it the same.

    That is the answer itself; only where its times name a zone, which no bytes keep, it is what the bytes hold: the
    same clocks, offsets and instants.
    """
    if isinstance(request, At):
        # As it is answered where it is asked.
        return encode_and_keep(request.request, answer)
    if isinstance(request, AllOf):
        parts = [_part_record(*part) for part in zip(request.requests, answer, strict=True)]
        return encode([record for record, _ in parts]), [outcome for _, outcome in parts]
    try:
        encoded = encode(answer)
        if type(request) in STORE_REQUESTS:
            return encoded, answer
        return _that_comes_back(request, answer, encoded)
    except _ENCODING_ERRORS as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(f"the answer to {shown(request)} cannot be recorded: {error}") from error


def _that_comes_back(request: Request[Any], answer: Any, encoded: bytes) -> tuple[bytes, Any]:
    back, least = _read_back(request, answer, encoded)
    if least == EXACT:
        return encoded, answer
    # A time's offset is lost in msgpack's own timestamps, but not in text.
    as_text = _with_times_as_text(answer)
    text_back, text_least = _read_back(request, answer, as_text)
    if text_least > least:
        encoded, back, least = as_text, text_back, text_least
    if least < SAME_CLOCK:
        raise InvalidRequest(
            f"the answer to {shown(request)} is {repr_of(answer)} and would come back as {repr_of(back)}: answer with "
            f"what its type says, which is {answer_type(type(request))!r}, or change the type"
        )
    return encoded, answer if least == EXACT else back


def _read_back(request: Request[Any], answer: Any, encoded: bytes) -> tuple[Any, int]:
    try:
        back = _decoder(type(request)).decode(encoded)
    except _DECODING_ERRORS as error:
        return error, OTHER
    return back, sameness(answer, back)


def _with_times_as_text(answer: Any) -> bytes:
    try:
        return encode(msgspec.to_builtins(answer, builtin_types=(bytes,)))
    except _ENCODING_ERRORS:
        return b""


def decode_answer(
    request: Request[Any] | UnknownRequest, encoded: bytes, error_kinds: ErrorKinds = NO_ERROR_KINDS
) -> Any:
    """The fresh answer to a request that these bytes hold; raises `InvalidRequest` for bytes that hold none."""
    try:
        # Types are compared, because `isinstance` is slow where a class has a metaclass, as Structs have.
        kind = type(request)
        if kind in STORE_REQUESTS:
            return codec.decode_answer(cast(Request[Any], request), encoded)
        if kind is At:
            return codec.decode_answer(cast(At, request).request, encoded)
        if kind is AllOf:
            parts = cast(AllOf, request).requests
            records = _decode_parts(encoded)
            return [_part_outcome(*part, error_kinds) for part in zip(parts, records, strict=True)]
        return _decode(encoded) if kind is UnknownRequest else _decoder(kind).decode(encoded)
    except _DECODING_ERRORS as error:
        raise InvalidRequest(f"the recorded answer to {shown(request)} does not fit: {error}") from error


def _part_record(request: Request[Any], outcome: Outcome) -> tuple[dict[str, msgspec.Raw], Outcome]:
    if isinstance(outcome, Failed):
        return {"error": msgspec.Raw(encode_error(outcome.error))}, outcome
    encoded, kept = encode_and_keep(request, outcome.value)
    return {"answer": msgspec.Raw(encoded)}, outcome if kept is outcome.value else Answered(kept)


def _part_outcome(request: Request[Any], record: dict[str, msgspec.Raw], error_kinds: ErrorKinds) -> Outcome:
    if "error" in record:
        return Failed(decode_error(bytes(record["error"]), error_kinds))
    return Answered(decode_answer(request, bytes(record["answer"]), error_kinds))


@lru_cache(maxsize=512)
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(answer_type(kind))


def check_answer_type(kind: type[Request[Any]]) -> None:
    """Refuse a type of request whose answers cannot be read, before one is performed."""
    try:
        _decoder(kind)
    except (TypeError, ValueError, NameError) as error:
        op = kind.__struct_config__.tag
        raise InvalidRequest(f"answers to {kind.__name__}, {op!r}, cannot be recorded: {error}") from error


def answer_type(kind: type[Request[Any]]) -> Any:
    """The ``A`` of a subclass of ``Request[A]``; Any where it names none.

    >>> class FetchPrice(Request[int | None], frozen=True, tag="shop/fetch-price"):
    ...     sku: str
    >>> answer_type(FetchPrice)
    int | None
    """
    return _put_in(_answer_type(kind), {})


def _answer_type(kind: type) -> Any:
    for base in vars(kind).get("__orig_bases__", kind.__bases__):
        origin, arguments = get_origin(base) or base, get_args(base)
        if origin is Request:
            return arguments[0] if arguments else Any
        if isinstance(origin, type) and issubclass(origin, Request):
            parameters = getattr(origin, "__parameters__", ())
            return _put_in(_answer_type(origin), dict(zip(parameters, arguments, strict=False)))
    return Any


def scalar_answer(kind: type[Request[Any]]) -> Any:
    """The type of a request's answers if it is that of plain scalars, all of which come back as they were; or None.

    >>> class FetchPrice(Request[int], frozen=True, tag="shop/fetch-price"):
    ...     sku: str
    >>> scalar_answer(FetchPrice)
    <class 'int'>
    """
    answer = answer_type(kind)
    return answer if isinstance(answer, type) and answer in _SCALARS else None


def _put_in(answer: Any, arguments: dict[Any, Any]) -> Any:
    """A type with its type variables replaced, by Any where nothing is known of them."""
    if isinstance(answer, TypeVar):
        return arguments.get(answer, Any)
    parameters = getattr(answer, "__parameters__", ())
    return answer[tuple(arguments.get(parameter, Any) for parameter in parameters)] if parameters else answer


def is_frozen(value: Any) -> bool:
    """Whether nothing in a value can change, so that it may be given to many.

    >>> is_frozen(("tea", 4)), is_frozen(["tea", 4])
    (True, False)
    """
    kind: Any = type(value)
    if kind in _SCALARS:
        return True
    if kind is tuple or kind is frozenset:
        return all(map(is_frozen, value))
    fields = _frozen_fields(kind)
    if fields is None:
        return False
    for name in fields:
        if not is_frozen(getattr(value, name)):
            return False
    return True


@lru_cache(maxsize=512)
def _frozen_fields(kind: type) -> tuple[str, ...] | None:
    """The fields of a frozen Struct; None for any other type."""
    if issubclass(kind, msgspec.Struct) and kind.__struct_config__.frozen:
        return kind.__struct_fields__
    return None


# Outcomes


def encode_outcome(request: Request[Any], outcome: Outcome) -> bytes:
    """The answer's bytes, or the error's."""
    return encode_error(outcome.error) if isinstance(outcome, Failed) else encode_answer(request, outcome.value)


def shown(value: object, limit: int = 200) -> str:
    """A value as messages show it."""
    text = repr_of(value, limit + 1)
    return text if len(text) <= limit else f"{text[:limit]}…"
