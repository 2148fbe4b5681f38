"""Read models in tables, as their users know them: the handle, and the version that a handler fills."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from persist_effects.errors import InvalidRequest, describe
from persist_effects.following.models import check_model_name
from persist_effects.following.tables import ModelTables, filled
from persist_effects.requests import Sql

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class SqlModel:
    """The handle of a read model in tables: those that the follower of this name fills. Pure data.

    Given to `persist_effects.subscription.follow` as the name, it has the handler called with the event and with a
    `SqlVersion`, whose ``sql`` makes the writes. Whoever queries does so on a connection of his own, by the plain
    names, which are views: they show the newest version that has caught up, and go on to while another is built.

    Only on SQLite and PostgreSQL, as `Capabilities.sql` says.

    Args:
        name: The follower's name, without a slash.
        tables: By the plain name of each table, the statement that makes it, or several: what belongs to it comes
            after it. In them ``{orders}`` stands for the table, and ``{orders}_by_day`` names an index of it.

    Raises:
        InvalidRequest: If a name cannot be one, or a statement is none.

    >>> orders = SqlModel("orders", {"orders": "CREATE TABLE {orders} (id TEXT PRIMARY KEY, total INTEGER)"})
    >>> orders.version(3).sql("INSERT INTO {orders} VALUES (:id, :total)", {"id": "o-1", "total": 12}).statement
    'INSERT INTO orders__3 VALUES (:id, :total)'
    """

    def __init__(self, name: str, tables: Mapping[str, str | Sequence[str]]) -> None:
        check_model_name(name)
        self.name = name
        if not isinstance(tables, Mapping) or not tables:
            raise InvalidRequest(
                f"tables of read model {name!r} is {describe(tables)}: give a dict, the statement that makes a table "
                "under its name"
            )
        self.tables = ModelTables({table: _checked(name, table, given) for table, given in tables.items()})
        """What is made for each generation."""
        # So that what is no statement is told here.
        self.tables.begun(name, 1)

    def __repr__(self) -> str:
        return f"SqlModel({self.name!r}, {self.tables.tables!r})"

    def version(self, generation: int) -> "SqlVersion":
        """What the handler is given."""
        return SqlVersion(self.tables, generation)


class SqlVersion:
    """A read model in tables as its handler sees it: the version that is being filled."""

    def __init__(self, tables: ModelTables, generation: int) -> None:
        self._tables = tables.tables
        self._generation = generation

    def sql(self, statement: str, params: dict[str, Any] | None = None) -> Sql:
        """The write that carries out a statement, in which ``{orders}`` stands for the table of this version.

        Args:
            statement: The statement.
            params: The values of its parameters, by their names.

        Returns:
            The write.

        Raises:
            InvalidRequest: If the statement is not one that a store takes, or does not fit its parameters.
        """
        return Sql(filled(statement, self._tables, self._generation), {} if params is None else params)


def _checked(name: str, table: str, given: str | Sequence[str]) -> list[str]:
    if type(table) is not str or not _NAME.fullmatch(table) or "__" in table:
        raise InvalidRequest(
            f"table {table!r} of read model {name!r}: give a name of at most 40 small letters, digits and single "
            "underscores, with a letter first, which both databases read alike"
        )
    statements = [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else []
    if not statements or not all(isinstance(one, str) for one in statements):
        raise InvalidRequest(
            f"table {table!r} of read model {name!r} is made by {describe(given)}: give a statement, or a list of them"
        )
    if f"{{{table}}}" not in statements[0]:
        raise InvalidRequest(
            f"the statement that makes table {table!r} of read model {name!r} does not name {{{table}}}: write "
            f"CREATE TABLE {{{table}}} (…), since each version has a table of its own"
        )
    return statements
