"""The PostgreSQL server of a store: connections to it, and what its errors mean.

The driver is imported here and in no other module of the room but by name.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, LiteralString

from interpreters.stores.statements import Statements
from persist_effects.errors import (
    CorruptStore,
    InvalidRequest,
    PersistError,
    StoreClosed,
    StoreUnavailable,
    UncertainOutcome,
)

try:
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict

    from interpreters.stores.postgres.pool import Connection, Pool
except ImportError as error:
    raise InvalidRequest(
        f"a store on PostgreSQL needs its driver: {error}: install persist-effects[postgres]"
    ) from error


QUERIES = Statements("interpreters.stores.postgres", "queries")

_SETTINGS = {
    # Plans are made once, and none of them may depend on how many rows there seem to be: every question has its index.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

_AGAIN = {"40001", "40P01"}
"""A serialization failure and a deadlock: nothing was written, and it may be tried again."""

_TRIES = 5

NO_PRIVILEGE = "the role lacks a privilege: let the owner call grant_to_writer or grant_to_reader for it"

_ADVICE = {
    "25006": "it may only be read: a standby, or a role that may not write: open it with mode=r",
    "42501": NO_PRIVILEGE,
    "53100": "make room on the server's disk, then try again",
    "53300": "it has as many connections as it allows: close some, or open the store with fewer connections",
    "55P03": "another transaction holds what is asked for: try again",
    "57014": "it took longer than the store's timeout_seconds: nothing was written: try again",
    "42P01": "the store's tables are gone",
    "42883": "the store's functions are gone",
    "3F000": "the store's schema is gone",
}


class Server:
    """The server of a store, and the connections of one process to it.

    Args:
        conninfo: What the driver connects by.
        schema: The schema of the store.
        is_read_only: Whether nothing may be written.
        is_synced: Whether an acknowledged commit is on the server's disk.
        timeout_seconds: How long a connection, a lock and a statement may take.
        connections: How many there are at the most.

    Raises:
        InvalidRequest: For what the driver does not take.
    """

    def __init__(
        self,
        conninfo: str,
        schema: str,
        *,
        is_read_only: bool,
        is_synced: bool,
        timeout_seconds: float,
        connections: int,
    ) -> None:
        try:
            given = conninfo_to_dict(conninfo)
        except psycopg.ProgrammingError as error:
            # The driver's other messages may show the URL, with a password in it.
            said = str(error).strip()
            shown = said if said.startswith("invalid URI query parameter") else "it is not well formed"
            raise InvalidRequest(
                f"the URL of the store cannot be read: {shown}: write "
                "postgresql://USER@HOST:PORT/DATABASE?schema=NAME, with what is special in a name percent-encoded"
            ) from None
        self.schema = schema
        host = given.get("host") or given.get("hostaddr") or "this machine"
        self.where = f"PostgreSQL on {host}, database {given.get('dbname') or 'by default'}, schema {schema}"
        self._timeout_seconds = timeout_seconds
        self._connections = connections
        milliseconds = max(1, round(timeout_seconds * 1000))
        settings = {
            **_SETTINGS,
            "lock_timeout": milliseconds,
            "statement_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            "default_transaction_read_only": "on" if is_read_only else "off",
            "client_min_messages": "warning",
        }
        if not is_synced:
            settings["synchronous_commit"] = "off"
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._arguments: dict[str, Any] = {
            "connect_timeout": max(2, round(timeout_seconds)),
            "application_name": "persist-effects",
            "tcp_user_timeout": milliseconds,
            **given,
            "options": f"{given['options']} {options}" if given.get("options") else options,
        }
        self._pool: Pool | None = None
        # Used by whoever has the turn to write.
        self._writer: Connection | None = None
        self._configure: Callable[[Connection], None] = lambda _: None
        # Of the schema, for its locks; known from the first connection on.
        self.space = 0

    # Connections

    def connect(self) -> Connection:
        """A new connection, which commits each statement by itself. What is asked first finds our schema.

        Raises:
            StoreUnavailable: Where it cannot be had.
        """
        try:
            connection = Connection.connect(**self._arguments, autocommit=True, prepare_threshold=0)
        except psycopg.Error as error:
            raise StoreUnavailable(f"{self.where}: no connection: {said(error)}") from error
        try:
            self.find_schema(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.Error):
                raise self.error_of(error) from error
            raise
        return connection

    def find_schema(self, connection: Connection) -> None:
        """Have what is asked on a connection find our schema, and nothing else."""
        connection.execute(sql.SQL(QUERIES.find_schema).format(sql.Identifier(self.schema)))

    def open_pool(self, configure: Callable[[Connection], None]) -> None:
        """Have connections from now on, each set up by ``configure(connection)``."""
        self._configure = configure
        self._pool = Pool(self._new_connection, self._connections, self._timeout_seconds, self.where)

    def close(self) -> None:
        """Close all connections. Again: nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        self._drop_writer()

    def left_to_parent(self) -> Any:
        """In a forked child: what is the parent's, which must be neither used nor closed."""
        inherited = (self._pool, self._writer)
        self._pool = self._writer = None
        return inherited

    def _lent(self) -> AbstractContextManager[Connection]:
        pool = self._pool
        if pool is None:
            raise StoreClosed(f"{self.where}: the store was closed: open it again")
        return pool.lent()

    # Asking

    def read(self, query: LiteralString, parameters: Any = ()) -> list[Any]:
        """The rows that a question is answered with. A connection that is lost is no reason not to ask again.

        Args:
            query: The question, which writes nothing.
            parameters: Its parameters.

        Returns:
            The rows.

        Raises:
            StoreUnavailable: Where it is not answered.
            CorruptStore: Where the server's data is damaged.
        """
        for number in range(1, _TRIES + 1):
            with self._lent() as connection:
                try:
                    return connection.ask(query, parameters).fetchall()
                except psycopg.Error as error:
                    if number == _TRIES or not _is_lost(connection, error):
                        raise self.error_of(error) from error
        raise AssertionError

    def write(self, query: LiteralString, parameters: Any) -> Any:
        """The row that a call is answered with which writes, once that is committed.

        Args:
            query: The call.
            parameters: Its parameters.

        Returns:
            The row.

        Raises:
            StoreUnavailable: Where nothing was written.
            UncertainOutcome: Where the connection was lost meanwhile.
        """
        for number in range(1, _TRIES + 1):
            connection = self.writing_connection()
            try:
                return connection.ask(query, parameters).fetchone()
            except psycopg.Error as error:
                if _is_lost(connection, error):
                    self._drop_writer()
                    raise self._uncertain(error) from error
                if error.sqlstate not in _AGAIN or number == _TRIES:
                    raise self.error_of(error) from error
            except BaseException:
                # An interrupt: whatever state it is in.
                self._drop_writer()
                raise
        raise AssertionError

    def write_with(self, query: LiteralString, parameters: Any, go_on: Callable[[Connection, Any], bool]) -> Any:
        """The row that a call is answered with which writes, once that is committed with what comes after it.

        Args:
            query: The call.
            parameters: Its parameters.
            go_on: Given the connection and the row, writes more in the same transaction. False: all is undone.

        Returns:
            The row.

        Raises:
            StoreUnavailable: Where nothing was written.
            UncertainOutcome: Where the connection was lost during the commit.
            PersistError: What ``go_on`` raises; nothing was written then.
        """
        for number in range(1, _TRIES + 1):
            connection = self.writing_connection()
            is_committing = False
            try:
                with connection.transaction():
                    row = connection.ask(query, parameters).fetchone()
                    if not go_on(connection, row):
                        raise psycopg.Rollback
                    is_committing = True
                return row
            except psycopg.Error as error:
                if _is_lost(connection, error):
                    self._drop_writer()
                    if is_committing:
                        raise self._uncertain(error) from error
                    raise StoreUnavailable(
                        f"{self.where}: the connection was lost, and nothing was written: {said(error)}: try again"
                    ) from error
                if error.sqlstate not in _AGAIN or number == _TRIES:
                    raise self.error_of(error) from error
            except PersistError:
                raise
            except BaseException:
                # An interrupt: whatever state it is in.
                self._drop_writer()
                raise
        raise AssertionError

    def _uncertain(self, error: psycopg.Error) -> UncertainOutcome:
        return UncertainOutcome(
            f"{self.where}: the connection was lost during a commit: {said(error)}: whether it was written is not "
            "known: read before you write it again"
        )

    def writing_connection(self) -> Connection:
        """The connection of whoever has the turn to write; a new one where the server has closed the last one.

        Returns:
            The connection, set up.

        Raises:
            StoreUnavailable: Where there is none to be had.
        """
        connection = self._writer
        if connection is not None:
            if connection.is_alive:
                return connection
            self._drop_writer()
        connection = self._writer = self._new_connection()
        return connection

    def _new_connection(self) -> Connection:
        connection = self.connect()
        try:
            self._configure(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, psycopg.Error):
                raise self.error_of(error) from error
            raise
        return connection

    def _drop_writer(self) -> None:
        connection, self._writer = self._writer, None
        if connection is not None:
            connection.close()

    def error_of(self, error: psycopg.Error) -> PersistError:
        """The error of ours for one of the driver's, where nothing was written."""
        state = error.sqlstate or ""
        if state.startswith("XX"):
            return CorruptStore(f"{self.where}: {said(error)}: restore a backup")
        advice = _ADVICE.get(state)
        return StoreUnavailable(f"{self.where}: {said(error)}" + (f": {advice}" if advice else ""))


def _is_lost(connection: Connection, error: psycopg.Error) -> bool:
    """Whether the server, or the way to it, was gone, so that what it was asked may have been done or not."""
    return connection.closed or connection.broken or isinstance(error, psycopg.errors.AdminShutdown)


def said(error: BaseException) -> str:
    """What a driver's error says, on one line."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
