"""Keys' values as the types that a program asks for: checked and converted when they are read, made plain before a put.

A type is what msgspec converts to: a Struct, a dataclass, a TypedDict, ``list[Item]``, ``Item | None``, a datetime.
"""

from typing import Any

import msgspec

from persist_effects.codec import from_plain, to_plain, value_name
from persist_effects.errors import InvalidRequest, ValueMismatch, describe, name_of_type


def check_type(kind: Any) -> None:
    """Refuse what no value can be read as.

    >>> check_type(list[int])
    >>> check_type(7)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: type is an int, 7: give a class, or another type that ...
    """
    try:
        msgspec.msgpack.Decoder(kind)
    except (TypeError, NameError) as error:
        raise InvalidRequest(
            f"type is {describe(kind)}: give a class, or another type that msgspec converts to: {error}"
        ) from error


def value_as(key: str, plain: Any, kind: Any) -> Any:
    """A key's value as a type. Raises `ValueMismatch` for one that does not fit.

    >>> value_as("sizes", [1, 2], tuple[int, ...])
    (1, 2)
    >>> value_as("sizes", ["1"], list[int])
    Traceback (most recent call last):
    persist_effects.errors.ValueMismatch: key 'sizes' was to be read as list[int], and its value is a list, ['1']: ...
    """
    try:
        return from_plain(plain, kind)
    except ValueError as error:  # msgspec's, which is one, or one that the type's own checks raise
        raise ValueMismatch(key, name_of_type(kind), describe(plain), str(error)) from error


def value_to_put(key: str, value: Any, kind: Any) -> Any:
    """The plain value of a typed one that is to be put.

    Raises `InvalidRequest` for a value that would not come back equal, as one of another type.

    >>> value_to_put("sizes", (1, 2), tuple[int, ...])
    [1, 2]
    >>> value_to_put("sizes", ["1"], list[int])
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: value of key 'sizes' cannot be stored and read back as list[int]: ...
    """
    return to_plain(value, kind, value_name(key))
