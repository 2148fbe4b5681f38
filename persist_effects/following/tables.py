"""Read models in tables: rows that a follower writes with its checkpoint, and that anybody queries with SQL.

Each generation has tables of its own, ``orders__3``. What is queried is a view with the plain name, ``orders``, which
shows those of the generation whose effects are seen: whoever makes a generation take another one's place changes the
views in that transaction. The tables of the one before are dropped afterwards.

This is the one place that makes SQL: what stands in it are names that the user gave, which were checked.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from persist_effects import kv
from persist_effects.errors import InvalidRequest
from persist_effects.following.records import kept_in, plain, tables_key
from persist_effects.machine import Effect, perform
from persist_effects.requests import KvDelete, KvPut, Sql, Transact, Write

_PLACE = re.compile(r"\{([A-Za-z_]\w*)\}")


class ModelTables(msgspec.Struct, frozen=True):
    """The tables of a generation: by their plain names, the statements that make each and what belongs to it."""

    tables: dict[str, list[str]]

    def begun(self, name: str, generation: int) -> list[Write]:
        """The writes that make them, and keep what they are."""
        made = [
            Sql(filled(statement, self.tables, generation))
            for statements in self.tables.values()
            for statement in statements
        ]
        return [KvPut(tables_key(name, generation), plain(self)), *made]

    def shown(self, generation: int) -> list[Write]:
        """The writes that make the views that show them."""
        return [
            Sql(f'CREATE VIEW "{table}" AS SELECT * FROM {table_of(table, generation)}')  # noqa: S608 - checked names
            for table in sorted(self.tables)
        ]

    def hidden(self) -> list[Write]:
        """The writes that take the views away."""
        return [Sql(f'DROP VIEW IF EXISTS "{table}"') for table in sorted(self.tables)]

    def dropped(self, generation: int) -> list[Write]:
        """The writes that drop the tables."""
        return [Sql(f"DROP TABLE IF EXISTS {table_of(table, generation)}") for table in sorted(self.tables)]


def table_of(table: str, generation: int) -> str:
    """What a table of a generation is called.

    >>> table_of("orders", 3)
    'orders__3'
    """
    return f"{table}__{generation}"


def filled(statement: str, tables: Mapping[str, Any], generation: int) -> str:
    """A statement with the names of the tables of a generation in the place of ``{orders}``.

    >>> filled("DELETE FROM {orders}", {"orders": []}, 3)
    'DELETE FROM orders__3'
    """

    def named(found: re.Match[str]) -> str:
        if found[1] not in tables:
            raise InvalidRequest(
                f"SQL {statement!r:.200}: {found[0]} is not a table of this read model, which has "
                f"{', '.join(map(repr, tables))}: what stands in braces and is none goes into a parameter"
            )
        return table_of(found[1], generation)

    return _PLACE.sub(named, statement)


def kept_tables(name: str, generation: int) -> Effect[ModelTables | None]:
    """The tables of a generation; None where it has none.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(kept_tables("orders", 1))
    """
    key = tables_key(name, generation)
    found = yield from kv.entry(key)
    return None if found is None else kept_in(found, ModelTables, key)


def views_switched(name: str, before: int, after: int) -> Effect[list[Write]]:
    """The writes that have the views show another generation: one may have other tables than the other, or none.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(views_switched("orders", 1, 2))
    []
    """
    old = yield from kept_tables(name, before)
    new = yield from kept_tables(name, after)
    return [*(old.hidden() if old else []), *(new.shown(after) if new else [])]


def drop_tables(name: str, generation: int, *, are_seen: bool = False) -> Effect[None]:
    """Drop the tables of a generation that has any, and the views where it is the one that they show."""
    kept = yield from kept_tables(name, generation)
    if kept is not None:
        views = kept.hidden() if are_seen else []
        gone = KvDelete(tables_key(name, generation))
        yield from perform(Transact((*views, *kept.dropped(generation), gone)))
