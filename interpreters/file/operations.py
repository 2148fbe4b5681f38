"""What operators do with a file store's directory: verify, back up, salvage. On a real disk.

Each is a program over `disk/*` in the module of its name, which runs on a simulated disk too. Here they are run on
directories. A new directory appears under its name only when all of it is there and on the disk.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from interpreters.clock import wall_clock
from interpreters.file.backup import BackedUp, Moment, backup_store
from interpreters.file.engine import Engine, Options
from interpreters.file.log import LOCK
from interpreters.file.salvage import Salvaged, salvage_store
from interpreters.file.survey import Progress
from interpreters.file.two_disks import two_disks
from interpreters.file.verify import Report, verify_store
from interpreters.real_disk import RealDisk
from persist_effects.errors import CorruptStore, InvalidRequest, StoreLocked
from persist_effects.machine import Handlers, run

StrPath = str | os.PathLike[str]


def verify(path: StrPath, progress: Progress | None = None) -> Report:
    """Look for damage in the store in a directory. Nothing is changed, and a writer may be at work.

    Raises `InvalidRequest` where there is no store.

    >>> import tempfile
    >>> from interpreters.file.store import FileStore
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     FileStore(directory).close()
    ...     verify(directory).is_sound
    True
    """
    with _reading(path) as source:
        return run(verify_store(progress), source)


def backup(path: StrPath, into: StrPath, progress: Progress | None = None, *, moment: Moment | None = None) -> BackedUp:
    """Copy a store, as it is at one moment, into a directory that is not there or empty. A writer may be at work.

    Raises `InvalidRequest` for a directory with something in it, and `CorruptStore` for damage.
    """
    with _reading(path) as source, _making(into) as target:
        return run(backup_store(moment, progress), two_disks(source, target))


def salvage(path: StrPath, into: StrPath, progress: Progress | None = None) -> Salvaged:
    """Copy what is sound of a store into a new one, in a directory that is not there or empty, and say what is lost.

    No writer may be at work: then `StoreLocked` is raised. Raises `InvalidRequest` for a directory that has something
    in it.
    """
    holder = f"process {os.getpid()} on {socket.gethostname()}, salvaging"
    engine = Engine(Options(wall_clock, os.urandom, holder, "os"))
    with _reading(path, alone=True) as source, _making(into) as target:
        return run(salvage_store(engine, progress), two_disks(source, target))


@contextmanager
def _reading(path: StrPath, *, alone: bool = False) -> Iterator[Handlers]:
    if not os.path.isdir(path):
        raise InvalidRequest(f"{os.fspath(path)} is no directory: give that of a store")
    with closing(RealDisk(path, read_only=True)) as disk:
        holder = disk.keep_writers_away(LOCK) if alone else None
        if holder is not None:
            raise StoreLocked(holder, f"the store {os.fspath(path)}")
        try:
            yield disk.handlers
        except CorruptStore as error:
            raise CorruptStore(f"{os.fspath(path)}: {error}") from error
        except InvalidRequest as error:
            raise InvalidRequest(f"{os.fspath(path)}: {error}") from error


@contextmanager
def _making(into: StrPath) -> Iterator[Handlers]:
    """A disk in a new directory, which gets its name at the end, and is taken away after an error."""
    place = Path(os.path.abspath(into))
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise InvalidRequest(f"{place} is there and not an empty directory: give a new one")
    unfinished = place.with_name(f"{place.name}.unfinished")
    if unfinished.exists():
        raise InvalidRequest(f"{unfinished} is left over from an attempt that was interrupted: remove it")
    try:
        with closing(RealDisk(unfinished)) as disk:
            yield disk.handlers
        os.rename(unfinished, place)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync_directory(place.parent)


def _sync_directory(place: Path) -> None:
    number = os.open(place, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
