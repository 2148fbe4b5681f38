"""SQL statements of programs: what is refused of them, how they are put to the driver, and what their errors mean.

A program that has any is a transaction by itself. So what fails in it, at its end too, fails for nobody else.
"""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from interpreters.stores.postgres.pool import Connection
from interpreters.stores.postgres.server import QUERIES, said
from persist_effects.errors import InvalidRequest, SqlFailed
from persist_effects.requests import Sql
from persist_effects.sql_text import parsed, refusal

_OF_THE_SERVER = ("08", "40", "53", "55", "57", "58", "F0", "XX")
"""The classes of what the server says of itself, or of other transactions. All else it says of the statement."""

_REACHING = {
    "set_config",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "dblink",
    "dblink_exec",
    "lo_import",
    "lo_export",
}
"""Functions by which a statement would leave what was set for it, or the transaction."""


def check_foreign(statement: Sql, schema: str) -> None:
    """Refuse a statement that names the store's schema, or what would lead past it.

    Args:
        statement: The statement.
        schema: The schema of the store.

    Raises:
        InvalidRequest: Where it does.

    >>> check_foreign(Sql("DELETE FROM app.events"), "app")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: SQL 'DELETE FROM app.events': it names 'app', the store's own schema
    """
    names = parsed(statement.statement).names
    if schema.lower() in names:
        raise refusal(statement.statement, f"it names {schema!r}, the store's own schema")
    reaching = sorted(_REACHING & names)
    if reaching:
        raise refusal(statement.statement, f"it names {reaching[0]!r}, which reaches past its transaction")


def carry_out(connection: Connection, schema: str, statements: Mapping[int, Sql]) -> dict[int, int]:
    """Carry out statements in the transaction that is under way.

    Args:
        connection: The connection.
        schema: The schema of the store.
        statements: The statements, by what they are told apart by.

    Returns:
        How many rows each has changed.

    Raises:
        SqlFailed: If one failed: the transaction must be rolled back.
        InvalidRequest: If the store's tables would be found by their bare names, likewise.
    """
    connection.execute(QUERIES.begin_foreign)
    (finds_store,) = connection.execute(QUERIES.finds_store, (schema,)).fetchone() or (True,)
    if finds_store:
        raise InvalidRequest(
            f"SQL is refused: the schema {schema!r} of the store is in the search_path, so that bare names would be "
            "those of its tables: let the store have a schema of its own"
        )
    changed = {index: _execute(connection, statement) for index, statement in statements.items()}
    _check_deferred(connection, [*statements.values()][-1])
    return changed


def _check_deferred(connection: Connection, last: Sql) -> None:
    """Check now what constraints would check at the end of the transaction, so that it is the program's failure."""
    try:
        connection.execute(QUERIES.check_deferred)
    except psycopg.Error as error:
        raise failure_of(error, last.statement) from error


def _execute(connection: Connection, statement: Sql) -> int:
    try:
        # In binary format, so that the server takes one statement and no more. It is not kept prepared: a table that
        # is changed meanwhile would make it fail.
        cursor = connection.cursor(binary=True)
        cursor.execute(_translated(statement.statement), statement.params, prepare=False)
        return max(0, cursor.rowcount)
    except psycopg.Error as error:
        raise failure_of(error, statement.statement) from error


def _translated(text: str) -> sql.SQL:
    """A statement with its parameters as the driver has them. It is the program's own text, whatever stands there."""
    parts = parsed(text).parts
    written = [f"%({part})s" if index % 2 else part.replace("%", "%%") for index, part in enumerate(parts)]
    query: Any = "".join(written)
    return sql.SQL(query)


def failure_of(error: psycopg.Error, statement: str) -> Exception:
    """What an error means that a statement met: it has failed, or the server has.

    Args:
        error: The driver's error.
        statement: The statement.

    Returns:
        A `SqlFailed`; the same error where it is not about the statement.
    """
    state = error.sqlstate
    if state is None and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return SqlFailed(statement, said(error))
    if state is None or state[:2] in _OF_THE_SERVER:
        return error
    return SqlFailed(statement, said(error))
