"""How answers are compared with what they must be, and how a store that shares its values is found out."""

from typing import Any

import msgspec

from interpreters.conformance.strategies import same_value


def agree(what: str, found: object, wanted: object) -> None:
    """Raise AssertionError, saying what differs, unless both are the same value, as `same_value` has it.

    >>> agree("the last sequence number of 'a'", 3, 3)
    """
    assert same_value(_plain(found), _plain(wanted)), f"{what}: found {found!r}, wanted {wanted!r}"


def spoil(value: Any) -> None:
    """Change everything in a value that can be changed: whoever still holds it as theirs will notice.

    >>> value = {"items": [1]}
    >>> spoil(value)
    >>> value
    {'items': [1, 'spoiled'], 'spoiled': True}
    """
    if isinstance(value, list):
        for child in value:
            spoil(child)
        value.append("spoiled")
    elif isinstance(value, dict):
        for child in value.values():
            spoil(child)
        value["spoiled"] = True


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return [type(value).__name__, *(_plain(getattr(value, name)) for name in value.__struct_fields__)]
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return value
