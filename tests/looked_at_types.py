"""The types that the tests of commands look at values as."""

import msgspec

from persist_effects import Schema, kv


class Placed(msgspec.Struct):
    """An order that was placed."""

    total: int
    currency: str = "EUR"


class Joined(msgspec.Struct):
    """A user who joined."""

    name: str


EVENTS = Schema({"placed": Placed, "joined": Joined})
NUMBER = 12
CELL = kv.Cell("order/{id}", Placed)
