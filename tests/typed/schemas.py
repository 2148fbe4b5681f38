"""What type checkers must find out about typed events: this file is checked by mypy and pyright, not run."""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=error

from typing import Any, assert_never, assert_type

import msgspec

from persist_effects import Conflict, Draft, Effect, Event, Schema, State, projection


class Placed(msgspec.Struct, frozen=True):
    """An order was placed."""

    total: int


class Paid(msgspec.Struct, frozen=True):
    """It was paid."""

    receipt: str


class Other(msgspec.Struct, frozen=True):
    """Of another schema."""


SCHEMA = Schema[Placed | Paid]({"placed": Placed, "paid": Paid})
ONE = Schema({"placed": Placed})


def events(event: Event) -> Effect[None]:
    """An event that a schema has read holds one of its types."""
    assert_type(event.data, Any)
    assert_type(SCHEMA.lift(event), Event[Placed | Paid])
    assert_type(SCHEMA.lift(event).data, Placed | Paid)
    assert_type(ONE.lift(event).data, Placed)
    assert_type((yield from SCHEMA.append("s", Placed(7))), Event[Placed | Paid])
    assert_type((yield from SCHEMA.append_expect("s", 0, Paid("r"))), Event[Placed | Paid] | Conflict)
    assert_type(SCHEMA.draft(Paid("r")), Draft)


def add(total: int, event: Event[Placed | Paid]) -> int:
    """A step that goes through all cases."""
    match event.data:
        case Placed(total=more):
            return total + more
        case Paid():
            return total
        case _:
            assert_never(event.data)


def add_placed(total: int, event: Event[Placed]) -> int:
    """A step for events of one type alone."""
    return total + event.data.total


def folds() -> Effect[State[int]]:
    """A fold takes a step of typed events."""
    state = yield from projection.project("s", SCHEMA.typed(add), 0)
    assert_type(state, State[int])
    return state


def bare(schema: Schema, event: Event) -> None:
    """A schema whose types nobody says holds Any."""
    assert_type(schema.lift(event).data, Any)


def wrong(event: Event) -> Effect[int]:
    """Other types are refused, and so is what only one of the types has."""
    Schema[Placed | Paid]({"placed": Placed, "other": Other})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
    yield from SCHEMA.append("s", Other())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    SCHEMA.typed(add_placed)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return SCHEMA.lift(event).data.total  # type: ignore[union-attr] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
