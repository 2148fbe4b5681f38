"""The tables and functions of a store: made where there are none, brought up to date where they are older.

Each version's folder has what is made or changed once. Functions and views are made anew with each version.
"""

from psycopg import errors, sql

from interpreters.stores.postgres.pool import Connection
from interpreters.stores.postgres.server import NO_PRIVILEGE, QUERIES, Server
from interpreters.stores.statements import Statements
from persist_effects.errors import InvalidRequest, NewerFormat, StoreUnavailable

PACKAGE = "interpreters.stores.postgres"

VERSIONS: tuple[Statements, ...] = (Statements(PACKAGE, "versions/1"),)
"""What each version of the tables adds to the one before, the first one at first."""

FUNCTIONS = Statements(PACKAGE, "functions")

OLDEST_SERVER = 140000

INSTALLING = 0x70656631
"""The lock that whoever installs holds, "pef1"; with the number of the schema's name."""


class Installation:
    """What there is of a store in a schema, and what is to be done.

    Args:
        server: The server.
        versions: What each version adds.
    """

    def __init__(self, server: Server, versions: tuple[Statements, ...] = VERSIONS) -> None:
        self._server = server
        self._versions = versions

    def prepare(self, *, is_read_only: bool) -> None:
        """See to it that the store is there, and of this version.

        Args:
            is_read_only: Whether nothing may be made.

        Raises:
            InvalidRequest: If the schema is of something else; if there is no store, and none may be made.
            NewerFormat: If it is of a newer version.
            StoreUnavailable: If the server cannot be reached, is too old, or does not let us.
        """
        with self._server.connect() as connection:
            try:
                self._check_server(connection)
                if self._version(connection) == len(self._versions):
                    return
                if is_read_only:
                    raise InvalidRequest(
                        f"{self._server.where}: there is no store of this version: open it once without mode=r"
                    )
                self._install(connection)
            except errors.Error as error:
                raise self._server.error_of(error) from error

    def _check_server(self, connection: Connection) -> None:
        info = connection.info
        if info.server_version < OLDEST_SERVER:
            raise StoreUnavailable(
                f"{self._server.where}: the server is PostgreSQL {info.parameter_status('server_version')}: use "
                f"{OLDEST_SERVER // 10000} or a newer one"
            )
        encoding = info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise InvalidRequest(
                f"{self._server.where}: the database keeps text as {encoding}, and names are UTF-8: make a database "
                "with ENCODING 'UTF8'"
            )

    def _version(self, connection: Connection) -> int:
        """The version of the store that is there; 0 where there is nothing yet."""
        schema = self._server.schema
        kinds = connection.execute(QUERIES.relations, (schema,)).fetchall()
        if not kinds:
            return 0
        if not {"meta", "streams", "events", "entries"} <= {name for (name,) in kinds}:
            raise InvalidRequest(f"{self._server.where}: the schema is of something else: give the name of a new one")
        try:
            rows = connection.execute(QUERIES.version).fetchall()
        except errors.UndefinedTable as error:
            # It was there just now, and is not seen by who may not use the schema.
            raise StoreUnavailable(f"{self._server.where}: permission denied: {NO_PRIVILEGE}") from error
        except errors.UndefinedColumn as error:
            raise InvalidRequest(
                f"{self._server.where}: the schema is of something else: give the name of a new one"
            ) from error
        version = rows[0][0] if rows else 0
        if version > len(self._versions):
            raise NewerFormat(self._server.where, version, len(self._versions))
        return int(version)

    def _install(self, connection: Connection) -> None:
        schema = self._server.schema
        with connection.transaction():
            # Of several that come at once, one installs, and the others find it done.
            connection.execute(QUERIES.lock_installation, (INSTALLING, schema))
            if not connection.execute(QUERIES.has_schema, (schema,)).fetchall():
                connection.execute(sql.SQL(QUERIES.create_schema).format(sql.Identifier(schema)))
            installed = self._version(connection)
            if installed == len(self._versions):
                return
            for version in self._versions[installed:]:
                for statement in version.texts.values():
                    connection.execute(statement)
            for statement in FUNCTIONS.texts.values():
                connection.execute(statement)
            connection.execute(QUERIES.keep_version, (len(self._versions),))
