"""`--type MODULE:NAME`: values and events looked at as a type of the user's, and checked before they are put."""

import contextlib
import importlib
import sys
from typing import Annotated, Any

import msgspec
import typer

from interpreters.cli.output import printable
from persist_effects.codec import from_plain, to_plain
from persist_effects.errors import InvalidRequest, SchemaMismatch, name_of_type, repr_of
from persist_effects.event import Event
from persist_effects.kv import Cell
from persist_effects.schema import Schema

TypeName = Annotated[
    str | None,
    typer.Option("--type", metavar="MODULE:NAME", help="A type of yours, as app.orders:Placed, to look at it as."),
]
TypeOrSchema = Annotated[
    str | None,
    typer.Option("--type", metavar="MODULE:NAME", help="A type of yours, or a Schema, to look at events as."),
]


class As:
    """How values and events are looked at: as a type, as a `Schema` says, or as they are.

    Args:
        name: ``MODULE:NAME``; None: as they are. The module is also looked for in the directory of the process.

    Raises:
        InvalidRequest: Where there is nothing of that name, or it is not a type.

    >>> As("decimal:Decimal").told("key 'price'", "1.50")
    "Decimal('1.50')"
    >>> As("decimal:Decimal").told("key 'price'", "much")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: key 'price' does not fit Decimal: ...
    """

    def __init__(self, name: str | None = None) -> None:
        self._kind: Any = None if name is None else _type_or_schema(name)

    @property
    def is_typed(self) -> bool:
        """Whether a type was asked for."""
        return self._kind is not None

    def value(self, what: str, plain: Any) -> Any:
        """A value as the type has it. Raises `InvalidRequest`, which names it as ``what``, where it does not fit."""
        if isinstance(self._kind, Schema):
            raise InvalidRequest("a Schema is for events, and this is a value: give its type, MODULE:NAME")
        try:
            return from_plain(plain, self._kind)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"{what} does not fit {name_of_type(self._kind)}: {error}") from error

    def plain(self, what: str, plain: Any) -> Any:
        """A value as it is stored after the type has read it: checked, and with what the type adds."""
        return to_plain(self.value(what, plain), self._kind, what)

    def told(self, what: str, plain: Any) -> str:
        """A value in one line, as Python writes it."""
        return printable(repr(self.value(what, plain)))

    def told_event(self, event: Event) -> str:
        """The data of an event in one line, as Python writes it. Raises `SchemaMismatch` where it does not fit."""
        return printable(repr(self._data(event)))

    def plain_event(self, event: Event) -> Event:
        """An event with its data as it would be stored now."""
        if self._kind is None:
            return event
        data = self._data(event)
        return msgspec.structs.replace(event, data=to_plain(data, type(data), f"a {event.type!r} event"))

    def _data(self, event: Event) -> Any:
        if isinstance(self._kind, Schema):
            return self._kind.lift(event).data
        try:
            return from_plain(event.data, self._kind)
        except (TypeError, ValueError) as error:
            raise SchemaMismatch(
                event.stream, event.seq, event.type, f"as {name_of_type(self._kind)}, {error}"
            ) from error


def _type_or_schema(name: str) -> Any:
    found = _named(name)
    if not isinstance(found, Schema):
        try:
            # Whether it is a type is said before a value is looked at, and None fits few.
            with contextlib.suppress(msgspec.ValidationError):
                msgspec.convert(None, found)
        except TypeError as error:
            advice = f": {error}"
            if isinstance(found, Cell):
                advice = ": give the type that the cell was made with"
            raise InvalidRequest(f"{name} is {repr_of(found)}, which is not a type of values{advice}") from error
    return found


def _named(name: str) -> Any:
    module_name, colon, path = name.partition(":")
    if not module_name or not colon or not path:
        raise InvalidRequest(f"a type is {name!r}: give MODULE:NAME, as app.orders:Placed")
    if "" not in sys.path:
        # As `python -m` has it; an installed command looks only where packages are installed.
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise InvalidRequest(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}: start where it is found, or set "
            "PYTHONPATH"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise InvalidRequest(f"{module_name} has nothing that is named {path!r}: give MODULE:NAME of a type")
        found = getattr(found, part)
    return found
