"""What operators do with a file store's directory: verify, back up, salvage. On a real disk.

Each is a program over `disk/*` in the module of its name, which runs on a simulated disk too. Here they are run on
directories. A new directory appears under its name only when all of it is there and on the disk.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from interpreters.clocks import wall_clock
from interpreters.disk.files import refuse_home
from interpreters.disk.real import RealDisk, new_directory
from interpreters.disk.requests import ForeignFile
from interpreters.stores.file.engine import Engine, EngineOptions
from interpreters.stores.file.manifest import Moment
from interpreters.stores.file.segments import LOCK
from interpreters.stores.file.store import FileStore
from interpreters.stores.file.upkeep.backup import BackedUp, backup_store
from interpreters.stores.file.upkeep.salvage import Salvaged, salvage_store
from interpreters.stores.file.upkeep.survey import BytesProgress
from interpreters.stores.file.upkeep.two_disks import two_disks
from interpreters.stores.file.upkeep.verify import Verified, verify_store
from persist_effects.errors import CorruptStore, InvalidRequest, NewerFormat, StoreLocked, StoreUnavailable
from persist_effects.machine import run

StrPath = str | os.PathLike[str]


def verify(path: StrPath, progress: BytesProgress | None = None) -> Verified:
    """Look for damage in the store in a directory. Nothing is changed, and a writer may be at work.

    Raises `InvalidRequest` where there is no store.

    >>> import tempfile
    >>> from interpreters.stores.file.store import FileStore
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     FileStore(directory).close()
    ...     verify(directory).is_sound
    True
    """
    with reading(path) as source, errors_of(path):
        return run(verify_store(progress), source.handlers)


def backup(store: StrPath | FileStore, into: StrPath, progress: BytesProgress | None = None) -> BackedUp:
    """Copy a store, as it is at one moment, into a directory that is not there or empty.

    Args:
        store: The path of a store, which another process may be writing: the copy may then hold a commit that was just
            being made. Or one that is open in this process, ``store.interpreter``: it is copied as it is now, while
            others read and write it; a compaction waits.
        into: The directory to make.
        progress: Told now and then how many bytes are copied, and how many there are.

    Returns:
        How much was copied.

    Raises:
        InvalidRequest: ``into`` is a directory with something in it, or there is no store.
        CorruptStore: The store is damaged.
        StoreClosed: The open store was closed.

    >>> import tempfile
    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> with tempfile.TemporaryDirectory() as place, open_store(f"file:{place}/store") as store:
    ...     revision = store.run(kv.put("color", "red"))
    ...     backup(store.interpreter, f"{place}/backup").segments
    1
    """
    if isinstance(store, FileStore):
        with store.standing_still() as (source, moment):
            return _backed_up(source, store.path, into, progress, moment)
    with reading(store) as source:
        return _backed_up(source, store, into, progress, None)


def _backed_up(
    source: RealDisk, path: StrPath, into: StrPath, progress: BytesProgress | None, moment: Moment | None
) -> BackedUp:
    nothing = "nothing was backed up"
    with making(into, nothing) as target, errors_of(path, nothing):
        return run(backup_store(moment, progress), two_disks(source.handlers, target.handlers))


def salvage(path: StrPath, into: StrPath, progress: BytesProgress | None = None) -> Salvaged:
    """Copy what is sound of a store into a new one, in a directory that is not there or empty, and say what is lost.

    No writer may be at work: then `StoreLocked` is raised. Raises `InvalidRequest` for a directory that has something
    in it.
    """
    holder = f"process {os.getpid()} on {socket.gethostname()}, salvaging"
    engine = Engine(EngineOptions(wall_clock, os.urandom, holder, "os"))
    nothing = "nothing was salvaged"
    with reading(path, alone=True) as source, making(into, nothing) as target, errors_of(path, nothing):
        return run(salvage_store(engine, progress), two_disks(source.handlers, target.handlers))


@contextmanager
def reading(path: StrPath, *, alone: bool = False) -> Iterator[RealDisk]:
    """The disk of a store that is there, to read only; ``alone``: while no writer is at work."""
    refuse_home(path)
    if not os.path.isdir(path):
        raise InvalidRequest(f"{os.fspath(path)} is not a directory: give that of a store")
    with errors_of(path):
        disk = RealDisk(path, read_only=True)
    with closing(disk):
        with errors_of(path):
            holder = disk.keep_writers_away(LOCK) if alone else None
        if holder is not None:
            raise StoreLocked(holder, f"the store {os.fspath(path)}")
        yield disk


@contextmanager
def errors_of(path: StrPath, nothing: str = "nothing was done") -> Iterator[None]:
    """Errors name the store; what a disk refuses, in it or in a copy, is told as the package's errors are."""
    place = os.fspath(path)
    try:
        yield
    except CorruptStore as error:
        raise CorruptStore(f"{place}: {error}") from error
    except NewerFormat as error:
        raise NewerFormat(f"{place}/{error.file}", error.found, error.known) from error
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error}") from error
    except ForeignFile as error:
        raise CorruptStore(f"{place}: {error}") from error
    except OSError as error:
        # The error names a file, of the store or of the copy.
        raise StoreUnavailable(f"{nothing}: {error}" if error.filename else f"{place}: {nothing}: {error}") from error


@contextmanager
def making(into: StrPath, nothing: str) -> Iterator[RealDisk]:
    """A disk in a new directory, which gets its name at the end, and is taken away after an error."""
    refuse_home(into)
    place = Path(os.path.abspath(into))
    try:
        _check_is_free(place)
        with new_directory(place) as disk:
            yield disk
    except FileExistsError as error:
        raise InvalidRequest(
            f"{error.filename} is left over from an attempt that was interrupted: remove it"
        ) from error
    except OSError as error:
        raise StoreUnavailable(f"{place}: {nothing}: {error}") from error


def _check_is_free(place: Path) -> None:
    if place.is_symlink():
        raise InvalidRequest(f"{place} is a symbolic link: give the directory itself, or a new one")
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise InvalidRequest(f"{place} is there and not an empty directory: give a new one")
