"""Names of test cases that are the same in every process, whatever the seed of the hashes and wherever things lie."""

import re
from dataclasses import fields, is_dataclass

import msgspec

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LENGTH = 100


def steady(value: object) -> str:
    """What `repr` says, with sets in order and without addresses; cut, since a name may not be long.

    >>> steady([{"b", "a"}, frozenset()])
    "[{'a', 'b'}, frozenset()]"
    """
    return _told(value)[:_LENGTH]


def _told(value: object) -> str:
    kind = type(value)
    if kind in {set, frozenset} and value:
        told = "{" + ", ".join(sorted(map(_told, value))) + "}"
        return told if kind is set else f"frozenset({told})"
    if kind is dict:
        return "{" + ", ".join(f"{_told(key)}: {_told(found)}" for key, found in value.items()) + "}"
    if kind in {list, tuple}:
        told = ", ".join(map(_told, value))
        return f"[{told}]" if kind is list else f"({told}{',' * (len(value) == 1)})"
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
    elif is_dataclass(value) and not isinstance(value, type):
        names = tuple(field.name for field in fields(value))
    else:
        return _ADDRESS.sub("", repr(value))
    return f"{kind.__name__}({', '.join(f'{name}={_told(getattr(value, name))}' for name in names)})"
