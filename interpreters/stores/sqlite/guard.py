"""What an SQL statement of a program may do: SQLite asks before it carries out any of its steps.

It may write and read tables that are not the store's own, and make, change and drop such. It may neither end the
transaction, nor attach another file, nor set anything of the connection. What triggers and views do in its name counts
as its own.
"""

import re
import sqlite3

from interpreters.stores.sqlite.database import schema

MARK = "/* of a program */ "
"""Before each statement of a program, so that the connection does not take one of the store's that it has prepared."""

_REFUSED = {
    sqlite3.SQLITE_TRANSACTION: "it ends or begins a transaction",
    sqlite3.SQLITE_SAVEPOINT: "it ends or begins a transaction",
    sqlite3.SQLITE_PRAGMA: "it sets something of the connection",
    sqlite3.SQLITE_ATTACH: "it attaches another file",
    sqlite3.SQLITE_DETACH: "it detaches a file",
    sqlite3.SQLITE_CREATE_TEMP_TABLE: "it makes what only this connection sees",
    sqlite3.SQLITE_CREATE_TEMP_INDEX: "it makes what only this connection sees",
    sqlite3.SQLITE_CREATE_TEMP_VIEW: "it makes what only this connection sees",
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: "it makes what only this connection sees",
}

_MODULES = {"fts4", "fts5", "rtree"}
"""The kinds of virtual tables that keep what they hold in tables of their own, and reach nothing else."""

_NAMES_IN_SECOND = {
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_DROP_INDEX,
    sqlite3.SQLITE_DROP_TRIGGER,
    sqlite3.SQLITE_ALTER_TABLE,
}
"""Actions whose second name is that of a table."""

_NAMED = re.compile(r"CREATE (?:UNIQUE )?(?:TABLE|INDEX) (\w+)")

OWN = {found[1] for statement in schema().texts.values() if (found := _NAMED.search(statement))} | {"sqlite_dbpage"}
"""The store's own tables and indexes, and the file itself, of which SQLite may make a table."""


class Guard:
    """The authorizer of the connection that writes. It looks only while a statement of a program is carried out.

    >>> guard = Guard()
    >>> guard.is_on = True
    >>> guard(sqlite3.SQLITE_DELETE, "events", None, "main", None) == sqlite3.SQLITE_DENY, guard.reason
    (True, "it touches 'events', which is the store's own")
    """

    def __init__(self) -> None:
        self.is_on = False
        self.reason: str | None = None
        """Why the statement was refused; None: it was not."""

    def __call__(self, action: int, one: str | None, other: str | None, database: str | None, by: str | None) -> int:
        """What SQLite asks: whether an action may be done."""
        if not self.is_on:
            return sqlite3.SQLITE_OK
        reason = _REFUSED.get(action)
        touched = [one, other] if action in _NAMES_IN_SECOND else [one]
        if action != sqlite3.SQLITE_FUNCTION and reason is None:
            own = next((name for name in touched if name is not None and name.lower() in OWN), None)
            reason = None if own is None else f"it touches {own!r}, which is the store's own"
        if action == sqlite3.SQLITE_CREATE_VTABLE and str(other).lower() not in _MODULES:
            reason = f"it makes a table by the module {other!r}: there are {', '.join(sorted(_MODULES))}"
        if reason is None:
            return sqlite3.SQLITE_OK
        self.reason = reason
        return sqlite3.SQLITE_DENY
