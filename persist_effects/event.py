"""Events, drafts, and the rules for the names of streams, keys and event types.

Sequence numbers (within a stream) and positions (over all streams) start at 1; 0 means "nothing yet".
``at`` is integer microseconds since the Unix epoch, UTC.
"""

import unicodedata
from collections.abc import Iterable
from typing import Any, Generic

import msgspec

from persist_effects.errors import InvalidRequest, describe, describe_type
from persist_effects.type_variables import HeldT_co

NAME_LIMIT_BYTES = 512
INT64_MAX = 2**63 - 1

# A UTF-8 character takes at most four bytes, so a name of up to this many characters cannot be too long.
_SURELY_SHORT_CHARACTERS = NAME_LIMIT_BYTES // 4


class Event(msgspec.Struct, Generic[HeldT_co], frozen=True, array_like=True, gc=False):
    """A stored event. ``position`` orders the events of all streams; ``data`` and ``meta`` are plain values.

    Type checkers are told the data's type by `persist_effects.schema.Schema`; to them it is Any elsewhere.
    Encoded as an array in the order of its fields, because stores and wires hold many.

    >>> Event("orders/1", 1, "placed", 0, {"total": 12}, 1).data["total"]
    12
    """

    stream: str
    seq: int
    type: str
    at: int
    data: HeldT_co
    position: int
    meta: Any = None


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An event before it is appended: no sequence number yet, and the store's clock fills in ``at`` unless given.

    Raises `InvalidRequest` for a type that is not a name, an ``at`` that is not an integer, or a ``meta`` that is not
    a dict.

    >>> Draft("placed", {"total": 12}, at=1_700_000_000_000_000).type
    'placed'
    """

    type: str
    data: Any
    at: int | None = None
    meta: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_name("event type", self.type)
        if self.at is not None:
            check_integer("event time `at` (microseconds since 1970, UTC)", self.at, -INT64_MAX)
        if self.meta is not None and type(self.meta) is not dict:
            raise InvalidRequest(f"event meta is {describe_type(self.meta)}: give a dict with str keys, or None")


def check_name(kind: str, name: str) -> None:
    r"""Refuse a name that is not 1 to 512 bytes of UTF-8 without control characters and lone surrogates.

    >>> check_name("stream name", "orders/Zürich 7")
    >>> check_name("stream name", "a\x00b")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: stream name 'a\x00b' has the control character '\x00' at index 1: ...
    """
    if type(name) is not str:
        raise InvalidRequest(f"{kind} is {describe(name)}: give a str")
    # Printable text has neither control characters nor surrogates, and most names are short printable text.
    if 0 < len(name) <= _SURELY_SHORT_CHARACTERS and name.isprintable():
        return
    _check_unusual_name(kind, name)


def _check_unusual_name(kind: str, name: str) -> None:
    check_prefix(kind, name)
    if not name:
        raise InvalidRequest(f"{kind} is empty: a name has 1 to {NAME_LIMIT_BYTES} bytes of UTF-8")
    size_bytes = len(name.encode())
    if size_bytes > NAME_LIMIT_BYTES:
        raise InvalidRequest(f"{kind} {name!r:.80} takes {size_bytes} bytes: a name has 1 to {NAME_LIMIT_BYTES}")


def check_prefix(kind: str, prefix: str) -> None:
    """Refuse what no name can start with. A prefix may be empty."""
    if type(prefix) is not str:
        raise InvalidRequest(f"{kind} is {describe(prefix)}: give a str")
    for index, character in enumerate(prefix):
        category = unicodedata.category(character)
        if category == "Cs":
            raise InvalidRequest(f"{kind} {prefix!r:.80} has a lone surrogate at index {index}: it is not UTF-8")
        if category == "Cc":
            raise InvalidRequest(
                f"{kind} {prefix!r:.80} has the control character {character!r} at index {index}: take it out"
            )


def check_integer(kind: str, value: int, least: int = 0, most: int = INT64_MAX) -> None:
    """Refuse what is not an integer from ``least`` to ``most``, bools among them.

    >>> check_integer("limit", 0, least=1)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: limit is 0: give an integer from 1 to 9223372036854775807
    """
    if type(value) is not int:
        raise InvalidRequest(f"{kind} is {describe(value)}: give an integer")
    if not least <= value <= most:
        raise InvalidRequest(f"{kind} is {value}: give an integer from {least} to {most}")


def check_items(kind: str, items: Iterable[Any], wanted: str) -> tuple[Any, ...]:
    """What an iterable gives, as a tuple. Refuses what gives nothing to iterate, and a str, which gives its letters.

    >>> check_items("types", ["placed", "paid"], "a list of event types")
    ('placed', 'paid')
    >>> check_items("types", "placed", "a list of event types")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: types is a str, 'placed': give a list of event types
    """
    if isinstance(items, str | bytes) or not hasattr(type(items), "__iter__"):
        raise InvalidRequest(f"{kind} is {describe(items)}: give {wanted}")
    return tuple(items)
