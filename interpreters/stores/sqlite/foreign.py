"""Carrying out the SQL statements of programs, those of each all or none, within the transaction of all."""

import sqlite3
from collections.abc import Mapping

from interpreters.stores.sqlite.database import queries
from interpreters.stores.sqlite.guard import MARK, Guard
from persist_effects.errors import SqlFailed
from persist_effects.requests import Sql

_OF_THE_STATEMENT = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_ABORT,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_TOOBIG,
}
"""What SQLite says of a statement. All else it says of the file, the disk or the memory."""


class Undone(Exception):
    """A statement has ended the transaction of all, as one may whose table has a constraint ON CONFLICT ROLLBACK.

    Its arguments are which of the programs it is of, and the error that this one is told.
    """


class Foreign:
    """Statements of programs on the connection that writes.

    Args:
        connection: The connection, whose authorizer is the guard.
        guard: The guard.
    """

    def __init__(self, connection: sqlite3.Connection, guard: Guard) -> None:
        self._connection = connection
        self._guard = guard

    def carry_out(self, program: int, statements: Mapping[int, Sql]) -> dict[int, int]:
        """Carry out the statements of one program.

        Args:
            program: Which of those that share the transaction.
            statements: The statements, by what they are told apart by.

        Returns:
            How many rows each has changed.

        Raises:
            SqlFailed: If one of them failed. Then none of them was carried out.
            Undone: If it has undone what others have written, too.
        """
        connection = self._connection
        connection.execute("SAVEPOINT of_a_program")
        try:
            changed = {index: self._execute(statement) for index, statement in statements.items()}
        except SqlFailed as error:
            if not connection.in_transaction:
                raise Undone(program, error) from error
            connection.execute("ROLLBACK TO of_a_program")
            connection.execute("RELEASE of_a_program")
            raise
        connection.execute("RELEASE of_a_program")
        return changed

    def _execute(self, sql: Sql) -> int:
        connection, guard = self._connection, self._guard
        before = connection.total_changes
        try:
            # Within it, so that an interrupt at any line leaves the store's own statements unwatched.
            guard.reason, guard.is_on = None, True
            cursor = connection.execute(MARK + sql.statement, sql.params)
            # One that returns rows is done once all were asked for.
            cursor.fetchall()
        except sqlite3.Error as error:
            raise self._failure(sql, error) from error
        finally:
            guard.is_on = False
        if cursor.rowcount >= 0:
            return cursor.rowcount
        # Of one that begins with WITH the driver does not tell, and SQLite tells of the last that has changed any.
        if connection.total_changes == before or sql.statement.lstrip()[:4].upper() != "WITH":
            return 0
        (count,) = connection.execute(queries().changed_last).fetchone()
        return int(count)

    def _failure(self, sql: Sql, error: sqlite3.Error) -> Exception:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code not in _OF_THE_STATEMENT:
            return error
        return SqlFailed(sql.statement, self._guard.reason or str(error))
