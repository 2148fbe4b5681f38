"""Where the rows about files work: directories under ``var/bench/`` of this repository, on the project's own disk."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from interpreters.opening import open_store
from interpreters.runtime.store import Store

BENCH = Path(__file__).resolve().parent.parent / "var" / "bench"
_BLOCK_BYTES = 512
"""What ``st_blocks`` counts in, whatever the file system's own blocks are."""


def open_file_store(directory: Path, **options: Any) -> Store:
    """The file store in a directory, which is made where there is none."""
    return open_store(f"file:{directory}", **options)


@contextmanager
def new_directory() -> Iterator[Path]:
    """An empty directory, removed afterwards."""
    BENCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BENCH) as directory:
        yield Path(directory)


@cache
def lasting_directory() -> Path:
    """The directory for what is built once and used by several rows, removed when this process ends."""
    BENCH.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="built-", dir=BENCH))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


@contextmanager
def copy_of(directory: Path) -> Iterator[Path]:
    """A copy for a round that changes what it is given, on disk before the clock starts; removed afterwards."""
    with new_directory() as parent:
        copy = parent / directory.name
        shutil.copytree(directory, copy)
        _sync_files(copy)
        yield copy


def ready_processes(module: str, arguments: Iterable[Sequence[str]]) -> "list[subprocess.Popen[str]]":
    """A process of a module of the bench for each list of arguments, once each has said by a line that it is ready."""
    children = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module, *given],
            cwd=BENCH.parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for given in arguments
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    return children


def tell_to_go(children: "Iterable[subprocess.Popen[str]]") -> None:
    """Have processes that are ready begin, all at once."""
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def drop_page_cache(directory: Path) -> None:
    """Make the next reader of these files go to the disk.

    By the files themselves, not by ``/proc/sys/vm/drop_caches``: that needs root, and empties the cache of all that
    runs on the machine. Nobody may have the files mapped, or their pages stay.
    """
    _sync_files(directory)
    for path in _files(directory):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def allocated_bytes(directory: Path) -> int:
    """What the files take of the disk, however long they say that they are."""
    return sum(path.stat().st_blocks * _BLOCK_BYTES for path in _files(directory))


def _sync_files(directory: Path) -> None:
    # Only what is on disk already can be dropped from the page cache, and what is not would be written meanwhile.
    for path in _files(directory):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]
