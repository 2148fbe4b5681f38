"""Values as JSON can say them, and back: the same, to the bit.

What JSON has no word for is an object with one key that begins with a ``$``:

=============================  ====================================================================
``{"$bytes": "AP8="}``         bytes, in base64
``{"$int": "9007…"}``          an integer beyond 2**53 either way, which other programs would round
``{"$float": "nan"}``          ``nan``, ``inf``, ``-inf``, ``-0.0``, and a float that is a whole number: ``3.0``;
                               an unusual NaN has its bits behind: ``nan:7ff8000000000001``
``{"$dict": [["k", 1]]}``      a dict of which a key begins with a ``$``, or is no str, as pairs
``{"$datetime": "2026-…"}``    a time with its offset, which msgpack has a type for; a store's values have none
=============================  ====================================================================
"""

import base64
import math
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from persist_effects.errors import InvalidRequest

_EXACT_INT = 2**53
_USUAL_NAN = "7ff8000000000000"
# The class of what msgpack's timestamps come back as, without the module `datetime`, which has a clock.
_Datetime: Any = type(msgspec.msgpack.decode(b"\xd6\xff\x00\x00\x00\x00"))


def to_json(value: Any) -> Any:
    """A value as JSON can say it. Raises `InvalidRequest` for what is no value.

    >>> to_json([1, 1.5, b"x", 2**60, float("nan"), {"$a": None}])
    [1, 1.5, {'$bytes': 'eA=='}, {'$int': '1152921504606846976'}, {'$float': 'nan'}, {'$dict': [['$a', None]]}]
    """
    match value:
        case bool() | None | str():
            return value
        case int():
            return value if -_EXACT_INT <= value <= _EXACT_INT else {"$int": str(value)}
        case float():
            return {"$float": _float_text(value)} if not math.isfinite(value) or value.is_integer() else value
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case list():
            return [to_json(part) for part in value]
        case dict():
            if any(type(key) is not str or key.startswith("$") for key in value):
                return {"$dict": [[_key_to_json(key), to_json(part)] for key, part in value.items()]}
            return {key: to_json(part) for key, part in value.items()}
    if isinstance(value, _Datetime):
        return {"$datetime": value.isoformat()}
    raise InvalidRequest(f"a {type(value).__name__} is no value of a store")


def from_json(plain: Any) -> Any:
    r"""The value that `to_json` made plain. Raises `InvalidRequest` for what it would not make.

    >>> from_json({"$float": "-0.0"}), from_json({"$bytes": "AP8="})
    (-0.0, b'\x00\xff')
    """
    if isinstance(plain, list):
        return [from_json(part) for part in plain]
    if not isinstance(plain, dict):
        return plain
    tag = next((key for key in plain if key.startswith("$")), None)
    if tag is None:
        return {key: from_json(part) for key, part in plain.items()}
    reader = _READERS.get(tag) if len(plain) == 1 else None
    if reader is None:
        raise InvalidRequest(f"an object has the key {tag!r}: give one of {', '.join(_READERS)}, alone")
    try:
        return reader(plain[tag])
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{tag} has {plain[tag]!r:.80}: {error}") from error


def _key_to_json(key: Any) -> Any:
    # Arrays stand as tuples where they are keys.
    return to_json(list(key) if isinstance(key, tuple) else key)


def _key_from_json(plain: Any) -> Any:
    key = from_json(plain)
    return tuple(key) if isinstance(key, list) else key


def _float_text(value: float) -> str:
    """As Python writes it; a NaN that is not the usual one with its bits."""
    bits = struct.pack(">d", value).hex()
    return f"nan:{bits}" if math.isnan(value) and bits != _USUAL_NAN else repr(value)


def _float_of(text: Any) -> float:
    if type(text) is not str:
        raise TypeError(f"a float is written as text, not as {text!r:.40}")
    word, _, bits = text.partition(":")
    if word == "nan" and len(bits) == len(_USUAL_NAN):
        (value,) = struct.unpack(">d", int(bits, 16).to_bytes(8, "big"))
        return float(value)
    return float(text)


_READERS: dict[str, Callable[[Any], Any]] = {
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$int": int,
    "$float": _float_of,
    "$dict": lambda pairs: {_key_from_json(key): from_json(part) for key, part in pairs},
    "$datetime": _Datetime.fromisoformat,
}
