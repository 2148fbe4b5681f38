"""How much of a value has come back: all of it with its types, all but a time's zone, what is equal to it, or less."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec
from msgspec import structs

EXACT = 3
"""The same value of the same types: a program that is given it does the same."""

SAME_CLOCK = 2
"""The same, but times have lost the name of their zone: their clocks, offsets and instants are as they were."""

EQUAL = 1
"""Equal as Python sees it: 1 for 1.0, a dict for an OrderedDict."""

OTHER = 0
"""Another value."""

# The classes of times, without the module `datetime`, which has a clock.
_Datetime: Any = type(msgspec.msgpack.decode(b"\xd6\xff\x00\x00\x00\x00"))
_Time: Any = type(_Datetime.min.time())
_BY_EQUALITY = frozenset({type(None), bool, int, str, bytes, bytearray})

_encode = msgspec.msgpack.Encoder().encode


def sameness(value: Any, back: Any) -> int:
    """How much of ``value`` is in ``back``, which was made of its bytes: a level from above, the least of any part.

    Python calls times of two zones unequal in the hours in which a clock is changed, so they are compared by what
    their clocks show and how far these are from UTC, which is the instant.

    >>> sameness([1, (2.5,)], [1, (2.5,)]), sameness(1, 1.0), sameness((1,), [1])
    (3, 1, 0)
    """
    kind = type(value)
    if kind is not type(back):
        return EQUAL if is_equal(value, back) else OTHER
    if kind in _BY_EQUALITY:
        return EXACT if value == back else OTHER
    return (_COMPARED.get(kind) or _comparison_of(cast(Any, kind)))(value, back)


def is_equal(value: Any, back: Any) -> bool:
    """Whether Python calls two values equal, those that refuse to be compared not.

    >>> is_equal(1, 1.0), is_equal(1, "1")
    (True, False)
    """
    try:
        return bool(value == back)
    except Exception:  # a signaling not-a-number, an array, or what a class of others does
        return False


@lru_cache(maxsize=512)
def _comparison_of(kind: type) -> Callable[[Any, Any], int]:
    """How two values of a class are compared; all fields of an object are parts of it."""
    if issubclass(kind, msgspec.Struct):
        return lambda value, back: _parts_sameness(value, back, structs.astuple)
    if issubclass(kind, set | frozenset):
        return lambda value, back: _parts_sameness(value, back, _in_order)
    if issubclass(kind, dict):
        return _dicts_sameness
    if issubclass(kind, list | tuple):
        return _parts_sameness
    # Those of a dataclass, or of a class of attrs.
    names = getattr(kind, "__dataclass_fields__", None) or [one.name for one in getattr(kind, "__attrs_attrs__", ())]
    if names:
        return lambda value, back: _parts_sameness(
            value, back, lambda one: [getattr(one, name, msgspec.UNSET) for name in names]
        )
    return _texts_sameness


def _texts_sameness(value: Any, back: Any) -> int:
    return EXACT if repr(value) == repr(back) else EQUAL if is_equal(value, back) else OTHER


def _parts_sameness(value: Any, back: Any, parts_of: Callable[[Any], Sequence[Any]] | None = None) -> int:
    """The least of the parts of two values of one class."""
    # Runs for every answer to a request of the user's own that is recorded.
    parts, backs = (value, back) if parts_of is None else (parts_of(value), parts_of(back))
    least = EXACT if len(parts) == len(backs) else OTHER
    for part, other in zip(parts, backs, strict=False):
        kind = type(part)
        if kind not in _BY_EQUALITY or kind is not type(other) or part != other:
            least = min(least, sameness(part, other))
    return EQUAL if least == OTHER and is_equal(value, back) else least


def _dicts_sameness(value: Any, back: Any) -> int:
    return _parts_sameness(value, back, lambda one: [*one, *one.values()])


def _in_order(parts: Iterable[Any]) -> list[Any]:
    return sorted(parts, key=_encode)


def _times_sameness(value: Any, back: Any) -> int:
    if value.isoformat() != back.isoformat():
        return EQUAL if _instant(value) == _instant(back) else OTHER
    if value.tzinfo == back.tzinfo and value.fold == back.fold:
        return EXACT
    if value.tzinfo is None and back.tzinfo is None:
        return EQUAL
    # A time of a day has no offset in a zone that changes its clocks.
    return SAME_CLOCK if value.tzinfo and back.tzinfo else OTHER


def _instant(value: Any) -> Any:
    """What a clock in UTC shows then; of a time that has no offset, or is at the end of all time, the time itself."""
    offset = value.utcoffset()
    if offset is None or isinstance(value, _Time):
        return value
    try:
        return value.replace(tzinfo=None, fold=0) - offset, True
    except OverflowError:
        return value


def _views_sameness(value: memoryview, back: memoryview) -> int:
    shape, back_shape = (value.format, value.shape, value.readonly), (back.format, back.shape, back.readonly)
    return EXACT if shape == back_shape and value.tobytes() == back.tobytes() else OTHER


def _extensions_sameness(value: Any, back: Any) -> int:
    return sameness((value.code, value.data), (back.code, back.data))


_COMPARED: dict[Any, Callable[[Any, Any], int]] = {
    _Datetime: _times_sameness,
    _Time: _times_sameness,
    memoryview: _views_sameness,
    msgspec.Raw: lambda value, back: EXACT if bytes(value) == bytes(back) else OTHER,
    msgspec.msgpack.Ext: _extensions_sameness,
    list: _parts_sameness,
    dict: _dicts_sameness,
    tuple: _parts_sameness,
}
