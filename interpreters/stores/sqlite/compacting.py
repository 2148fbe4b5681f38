"""Writing the file anew, so that nothing is left of what was dropped, overwritten and deleted.

SQLite writes all that is wanted to a temporary file, from there to the write-ahead log, and then to the file, which is
cut off behind it. The log is emptied at the end: until then it has what was written before.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interpreters.stores.compacting import Told
from interpreters.stores.sqlite.database import queries

_STEPS = 500
"""After how many steps of SQLite's it is told how far it has come: a copied row takes some ten."""


def rewrite(connection: sqlite3.Connection, path: Path, told: Told | None) -> bool:
    """Write the file anew, by a connection that is in no transaction. Whoever calls it has the turn to write.

    Args:
        connection: The connection.
        path: The file.
        told: Told how many bytes were written to the log, and how many there will be at the most.

    Returns:
        Whether the log is empty now; not so where somebody reads what it was before.
    """
    with _interruptible(connection, path, told):
        connection.execute("BEGIN IMMEDIATE")
        # The newest revision may be that of a deletion, and would be given again.
        (_, revision) = connection.execute(queries().heads).fetchone()
        connection.execute(queries().keep_revision, (revision,))
        connection.execute(queries().forget_deletions, (0,))
        connection.execute(queries().drop_forgotten)
        connection.execute("COMMIT")
        connection.execute(queries().rewrite_file)
    (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy


def bytes_of(path: Path) -> int:
    """How many bytes the file has, with its log."""
    return sum(file.stat().st_size for file in (path, log_of(path)) if file.exists())


def log_of(path: Path) -> Path:
    """The write-ahead log of a file."""
    return path.with_name(f"{path.name}-wal")


@contextmanager
def _interruptible(connection: sqlite3.Connection, path: Path, told: Told | None) -> Iterator[None]:
    """Look for Ctrl-C, and tell how far it has come, while one statement takes long. What was begun is taken back."""
    raised: list[BaseException] = []
    total = bytes_of(path)

    def look() -> int:
        try:
            if told is not None:
                log = log_of(path)
                told(min(total, log.stat().st_size if log.exists() else 0), total)
        except BaseException as error:
            raised.append(error)
        return len(raised)

    connection.set_progress_handler(look, _STEPS)
    try:
        yield
    except sqlite3.OperationalError:
        if raised:
            raise raised[0] from None
        raise
    finally:
        connection.set_progress_handler(None, 0)
