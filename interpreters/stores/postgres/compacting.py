"""Writing the tables anew, so that nothing is left in them of what was dropped, overwritten and deleted.

``VACUUM FULL`` copies the rows that anybody may see to new files, also of the indexes and of what is kept apart since
it is long, and gives the old files up. Nobody reads or writes a table meanwhile. Where an older transaction may see
what was deleted, that is copied too; the server says so, and it is raised here.
"""

import re
from typing import LiteralString, NamedTuple

import psycopg
from psycopg.types.numeric import Int4

from interpreters.stores.compacting import Compacted, Told
from interpreters.stores.postgres.pool import Connection
from interpreters.stores.postgres.server import QUERIES, Server
from persist_effects.errors import StoreUnavailable

_LOG = (
    "the write-ahead log of the server, until it has gone through all its files, with its archive and backups, and "
    "other servers that follow it: they have what was written before"
)
_STATISTICS = (
    "the statistics that the planner keeps (pg_statistic), of which this role may not take the old rows away: let the "
    "owner of the database compact, too"
)

_COPYING = "copy_table_data"
"""The function of the server that tells of the rows that it has copied."""


def compact(server: Server, connection: Connection, told: Told | None) -> Compacted:
    """Write all tables anew but that of blobs.

    Args:
        server: The server, which knows its errors.
        connection: A connection of one's own, which commits each statement by itself.
        told: Told after each table how many bytes were looked at, and how many there are.

    Returns:
        How many bytes the tables took before, and take now; and what of the server may keep what was in them.

    Raises:
        StoreUnavailable: If a table cannot be had, or an older transaction may see what was deleted.
    """
    notices: list[_Notice] = []
    connection.add_notice_handler(lambda told: notices.append(_notice_of(told)))
    try:
        connection.execute(QUERIES.no_time_limit)
        connection.execute(QUERIES.forget_deletions, (Int4(0),))
        before = _sizes(connection)
        done, total = 0, sum(before.values())
        kept = 0
        for table, statement in _rewriting().items():
            connection.execute(statement)
            if any(one.is_refusal for one in notices):
                raise StoreUnavailable(
                    f"{server.where}: the table {table} cannot be written anew: only its owner may do so: compact as "
                    "the role that made the store"
                )
            kept += sum(one.kept for one in notices)
            notices.clear()
            done += before[table]
            if told is not None:
                told(done, total)
        connection.execute(QUERIES.rewrite_statistics)
    except psycopg.Error as error:
        raise server.error_of(error) from error
    if kept:
        raise StoreUnavailable(
            f"{server.where}: {kept} rows that were deleted or overwritten are in the tables still, since a "
            "transaction that began before may see them: end it (pg_stat_activity, pg_prepared_xacts and "
            "pg_replication_slots tell of such), and compact again"
        )
    left = (_LOG, _STATISTICS) if any(one.is_refusal for one in notices) else (_LOG,)
    return Compacted(total, sum(_sizes(connection).values()), left)


def _rewriting() -> dict[str, LiteralString]:
    return {
        "streams": QUERIES.rewrite_streams,
        "events": QUERIES.rewrite_events,
        "entries": QUERIES.rewrite_entries,
        "deletions": QUERIES.rewrite_deletions,
    }


def _sizes(connection: Connection) -> dict[str, int]:
    return dict(connection.execute(QUERIES.table_sizes).fetchall())


class _Notice(NamedTuple):
    """What the server has told beside its answer: that it passed over a table, or how many deleted rows it copied."""

    is_refusal: bool
    kept: int


def _notice_of(told: psycopg.errors.Diagnostic) -> _Notice:
    """What a notice says, which is gone once it was handled. The detail begins with the number of the rows."""
    is_of_copying = told.source_function == _COPYING and told.message_detail
    number = re.search(r"\d+", told.message_detail or "") if is_of_copying else None
    return _Notice(told.severity_nonlocalized == "WARNING", 0 if number is None else int(number.group()))
