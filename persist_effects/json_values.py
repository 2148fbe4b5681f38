"""Values as JSON can say them, and back: the same, to the bit.

What JSON has no word for is an object with one key that begins with a ``$``:

=============================  ====================================================================
``{"$bytes": "AP8="}``         bytes, in base64
``{"$int": "9007…"}``          an integer beyond 2**53 either way, which other programs would round
``{"$float": "nan"}``          ``nan``, ``inf``, ``-inf``, ``-0.0``, and a float that is a whole number: ``3.0``;
                               an unusual NaN has its bits behind: ``nan:7ff8000000000001``
``{"$dict": [["k", 1]]}``      a dict of which a key begins with a ``$``, or is not a str, as pairs
``{"$datetime": "2026-…"}``    a time with its offset, which msgpack has a type for; a store's values have none
``{"$masked": true}``          in a trace, what was left out of it; a store's values have none
=============================  ====================================================================

A value has this one form, and only this one is read: ``{"$int": "3"}``, a plain ``3.0`` and a key that stands twice are
refused, so that nothing is read as another value than was meant.
"""

import base64
import json
import math
import struct
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from persist_effects.errors import InvalidRequest, describe, describe_type, repr_of

MASKED: Any = msgspec.msgpack.Ext(77, b"")
"""Stands in a trace for what was left out of it."""

_EXACT_INT = 2**53
_USUAL_NAN = "7ff8000000000000"
_NAN_BITS = 16
_LONGEST_INT = len(str(-(2**63)))
# The class of what msgpack's timestamps come back as, without the module `datetime`, which has a clock.
_Datetime: Any = type(msgspec.msgpack.decode(b"\xd6\xff\x00\x00\x00\x00"))
_TOO_DEEP = "the value is nested too deep: flatten it"

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode


# Lines


def decode_line(line: bytes | str) -> Any:
    """The JSON of one line. Raises `InvalidRequest` for what is none, is nested too deep, or has a key twice.

    >>> decode_line('{"a": 1}')
    {'a': 1}
    >>> decode_line('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: an object has the key 'a' twice: one of them would be lost
    """
    data = line.encode(errors="surrogatepass") if isinstance(line, str) else line
    try:
        plain = _decode_json(data)
        # What stands as our own encoder writes it has no key twice: it would be shorter.
        if _encode_json(plain) != data.rstrip(b"\n"):
            json.loads(data, object_pairs_hook=_refuse_doubled, parse_int=str)
    except InvalidRequest:
        raise
    except RecursionError as error:
        raise InvalidRequest(_TOO_DEEP) from error
    except ValueError as error:
        raise InvalidRequest(str(error)) from error
    return plain


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise InvalidRequest(f"an object has the key {repr_of(key)} twice: one of them would be lost")
        seen.add(key)


# To JSON


def to_json(value: Any) -> Any:
    """A value as JSON can say it. Raises `InvalidRequest` for what is not a value.

    >>> to_json([1, 1.5, b"x", 2**60, float("nan"), {"$a": None}])
    [1, 1.5, {'$bytes': 'eA=='}, {'$int': '1152921504606846976'}, {'$float': 'nan'}, {'$dict': [['$a', None]]}]
    """
    try:
        return _to_json(value)
    except RecursionError as error:
        raise InvalidRequest(_TOO_DEEP) from error


def _to_json(value: Any) -> Any:
    kind = type(value)
    if kind is bool or value is None:
        return value
    if kind is str:
        _check_text(value)
        return value
    if kind is int:
        _check_range(value)
        return value if -_EXACT_INT <= value <= _EXACT_INT else {"$int": str(value)}
    if kind is float:
        return {"$float": _float_text(value)} if _is_written_as_text(value) else value
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is list:
        return [_to_json(part) for part in value]
    if kind is dict:
        if any(map(_needs_pairs, value)):
            return {"$dict": [[_key_to_json(key), _to_json(part)] for key, part in value.items()]}
        return {_to_json(key): _to_json(part) for key, part in value.items()}
    return _of_traces_to_json(value)


def _of_traces_to_json(value: Any) -> Any:
    if type(value) is _Datetime and value.utcoffset() is not None:
        return {"$datetime": value.isoformat()}
    if type(value) is type(MASKED) and value == MASKED:
        return {"$masked": True}
    raise InvalidRequest(f"{describe_type(value)} is not a value of a store")


def _needs_pairs(key: Any) -> bool:
    return type(key) is not str or key.startswith("$")


def _is_written_as_text(value: float) -> bool:
    return not math.isfinite(value) or value.is_integer()


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"a text has a lone surrogate at index {error.start}: it is not UTF-8") from error


def _check_range(value: int) -> None:
    if not -(2**63) <= value < 2**64:
        raise InvalidRequest(f"an integer of {value.bit_length()} bits takes more than 64 bits: give a str")


def _key_to_json(key: Any) -> Any:
    # Arrays stand as tuples where they are keys.
    return [_key_to_json(part) for part in key] if isinstance(key, tuple) else _to_json(key)


def _float_text(value: float) -> str:
    """As Python writes it; a NaN that is not the usual one with its bits."""
    bits = struct.pack(">d", value).hex()
    return f"nan:{bits}" if math.isnan(value) and bits != _USUAL_NAN else repr(value)


# From JSON


def from_json(plain: Any) -> Any:
    r"""The value that `to_json` made plain. Raises `InvalidRequest` for what it would not make.

    >>> from_json({"$float": "-0.0"}), from_json({"$bytes": "AP8="})
    (-0.0, b'\x00\xff')
    >>> from_json({"$int": 3.7})
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: $int has a float, 3.7: give the digits of an integer beyond 2**53, as a str
    """
    try:
        return _from_json(plain)
    except RecursionError as error:
        raise InvalidRequest(_TOO_DEEP) from error


def _from_json(plain: Any) -> Any:
    kind = type(plain)
    if kind is list:
        return [_from_json(part) for part in plain]
    if kind is dict:
        return _from_object(plain)
    if kind is str:
        _check_text(plain)
    elif kind is int:
        if not -_EXACT_INT <= plain <= _EXACT_INT:
            raise InvalidRequest(
                'an integer beyond 2**53 stands as a number, which may be rounded: write {"$int": "…"}'
            )
    elif kind is float:
        if _is_written_as_text(plain):
            text = _float_text(plain)
            raise InvalidRequest(f'the number {text} is not a plain one: write {{"$float": "{text}"}}, or an integer')
    elif kind is not bool and plain is not None:
        raise InvalidRequest(f"{describe(plain)} is not JSON")
    return plain


def _from_object(plain: dict[Any, Any]) -> Any:
    tag = None
    for key in plain:
        if type(key) is not str:
            raise InvalidRequest(f"an object has a key that is {describe(key)}: give a str")
        if key.startswith("$"):
            tag = key
    if tag is None:
        return {_from_json(key): _from_json(part) for key, part in plain.items()}
    reader = _READERS.get(tag) if len(plain) == 1 else None
    if reader is None:
        raise InvalidRequest(f"an object has the key {repr_of(tag)}: give one of {', '.join(_READERS)}, alone")
    return reader(plain[tag])


def _refuse(tag: str, found: Any, wanted: str) -> NoReturn:
    raise InvalidRequest(f"{tag} has {describe(found)}: give {wanted}")


def _bytes_of(text: Any) -> bytes:
    wanted = "base64 with its padding, as a str"
    if type(text) is not str:
        _refuse("$bytes", text, wanted)
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        _refuse("$bytes", text, wanted)
    # Bits behind the last byte are no part of any value.
    if base64.b64encode(value).decode() != text:
        _refuse("$bytes", text, wanted)
    return value


def _int_of(text: Any) -> int:
    wanted = "the digits of an integer beyond 2**53, as a str"
    if type(text) is not str or not text.removeprefix("-").isdecimal() or not text.isascii():
        _refuse("$int", text, wanted)
    if len(text) > _LONGEST_INT:
        raise InvalidRequest(f"$int has {len(text)} characters, an integer of more than 64 bits: give a str")
    value = int(text)
    _check_range(value)
    if str(value) != text or -_EXACT_INT <= value <= _EXACT_INT:
        _refuse("$int", text, wanted)
    return value


def _float_of(text: Any) -> float:
    wanted = "nan, inf, -inf, or a whole number such as 3.0, as a str; other floats are plain numbers"
    if type(text) is not str:
        _refuse("$float", text, wanted)
    word, _, bits = text.partition(":")
    try:
        if word == "nan" and len(bits) == _NAN_BITS:
            (value,) = struct.unpack(">d", bytes.fromhex(bits))
        else:
            value = float(text)
    except ValueError:
        _refuse("$float", text, wanted)
    if _float_text(value) != text or not _is_written_as_text(value):
        _refuse("$float", text, wanted)
    return float(value)


def _dict_of(pairs: Any) -> dict[Any, Any]:
    wanted = "a list of pairs, each a list of a key and its value"
    if type(pairs) is not list:
        _refuse("$dict", pairs, wanted)
    value: dict[Any, Any] = {}
    for pair in pairs:
        if type(pair) is not list or len(pair) != 2:
            _refuse("$dict", pair, wanted)
        key = _key_from_json(pair[0])
        if key in value:
            raise InvalidRequest(f"$dict has the key {repr_of(key)} twice: one of them would be lost")
        value[key] = _from_json(pair[1])
    if not any(map(_needs_pairs, value)):
        _refuse("$dict", pairs, "a plain object where all keys are str and none begins with a $")
    return value


def _key_from_json(plain: Any) -> Any:
    if type(plain) is list:
        return tuple(map(_key_from_json, plain))
    key = _from_json(plain)
    if isinstance(key, dict):
        raise InvalidRequest(f"$dict has the key {repr_of(key)}: a key is not a dict")
    return key


def _datetime_of(text: Any) -> Any:
    wanted = "a time as 2026-01-02T03:04:05+00:00, as a str"
    if type(text) is not str:
        _refuse("$datetime", text, wanted)
    try:
        value = _Datetime.fromisoformat(text)
    except ValueError:
        _refuse("$datetime", text, wanted)
    if value.isoformat() != text or value.utcoffset() is None:
        _refuse("$datetime", text, wanted)
    return value


def _masked_of(found: Any) -> Any:
    if found is not True:
        _refuse("$masked", found, "true")
    return MASKED


_READERS: dict[str, Callable[[Any], Any]] = {
    "$bytes": _bytes_of,
    "$int": _int_of,
    "$float": _float_of,
    "$dict": _dict_of,
    "$datetime": _datetime_of,
    "$masked": _masked_of,
}
