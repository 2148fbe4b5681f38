"""The ``disk/*`` requests on a directory of a POSIX system: all system calls of the file engine.

Descriptors are kept by path, so that a write, a sync and a read are one system call each. A look-up in that cache takes
no lock; whatever changes which file a path means (create, open, rename, remove) does, so that the cache never names
a file that its path has lost. Only the process that opened the disk may change anything. Others change the files
under a disk that only reads, so there each use of a descriptor first asks whether the path still names that file.
"""

import errno
import fcntl
import os
import stat
import sys
import threading
from collections.abc import Callable
from weakref import WeakSet

from interpreters.disk import (
    Allocate,
    Create,
    List,
    Lock,
    MakeDirectory,
    Read,
    Remove,
    Rename,
    Size,
    Sync,
    SyncDirectory,
    Truncate,
    Write,
)
from persist_effects.machine import Handlers

# How many descriptors are kept open, beside those of files with unsynced bytes. macOS gives a process 256.
OPEN_FILES_LIMIT = 128

# As much of what a lock's holder wrote as an error message has use for.
_HOLDER_LIMIT_BYTES = 4096

_CANNOT_ALLOCATE = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class RealDisk:
    """A disk that answers the requests of `interpreters.disk` under a root directory, from any thread, until `close`.

    Unless ``read_only``, the root is made where it is missing, and so are the directories above it. A ``read_only``
    disk refuses with PermissionError whatever would change or make a file, locks too. So does every disk in a forked
    child, which may go on reading: there its locks are not held. An OSError names the file. A path that is absolute,
    or has an empty, ``.`` or ``..`` part, is refused with ValueError; the root itself is ``""`` or ``"."``.

    >>> import tempfile
    >>> from contextlib import closing
    >>> from persist_effects import perform, run
    >>> def hello():
    ...     yield from perform(Create("greeting"))
    ...     yield from perform(Write("greeting", 0, b"hello, world"))
    ...     yield from perform(Sync("greeting"))
    ...     yield from perform(SyncDirectory(""))
    ...     return (yield from perform(Read("greeting", 7, 100)))
    >>> with tempfile.TemporaryDirectory() as root, closing(RealDisk(root)) as disk:
    ...     run(hello(), disk.handlers)
    b'world'
    """

    def __init__(self, root: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self._root = os.path.abspath(root)
        self._pid = os.getpid()
        self._may_change = not read_only
        self._is_closed = False
        self._open_flags = os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR)
        self._lock = threading.Lock()
        self._files: dict[str, _File] = {}
        self._held_locks: list[_File] = []
        self.handlers: Handlers = {
            MakeDirectory: self._make_directory,
            Create: self._create,
            Write: self._write,
            Read: self._read,
            Sync: self._sync,
            Truncate: self._truncate,
            Allocate: self._allocate,
            Rename: self._rename,
            Remove: self._remove,
            List: self._list,
            Size: self._size,
            SyncDirectory: self._sync_directory,
            Lock: self._hold,
        }
        if not read_only:
            _make_root(self._root)
        _disks.add(self)

    def close(self) -> None:
        """Let go of the files and then of the locks. Twice is as good as once; later requests raise OSError.

        No other thread should still be writing: its write might land after another process has taken the lock.
        """
        with self._lock:
            self._is_closed, self._may_change = True, False
            self._files.clear()
            held_locks, self._held_locks = self._held_locks, []
        for held in held_locks:
            # Said aloud, because a subprocess between its fork and its exec still has a copy of the descriptor.
            fcntl.flock(held.number, fcntl.LOCK_UN)

    def _leave_to_parent(self) -> None:
        """In a forked child: give up what was inherited. The parent's locks stay held, since nothing is unlocked."""
        # Made anew, because another thread of the parent may have held it at the fork.
        self._lock = threading.Lock()
        self._may_change = False
        self._open_flags = os.O_CLOEXEC | os.O_RDONLY
        self._files.clear()
        self._held_locks.clear()

    # Bytes of files. The hot ones.

    def _write(self, request: Write) -> None:
        if not self._may_change:
            raise self._refusal(request.path)
        self._file(request.path).write(request.data, request.offset)

    def _read(self, request: Read) -> bytes:
        return self._file(request.path).read(request.size_bytes, request.offset)

    def _sync(self, request: Sync) -> None:
        self._file(request.path).sync()

    def _truncate(self, request: Truncate) -> None:
        self._check_may_change(request.path)
        self._file(request.path).truncate(request.size_bytes)

    def _allocate(self, request: Allocate) -> None:
        self._check_may_change(request.path)
        self._file(request.path).allocate(request.size_bytes)

    # Names

    def _make_directory(self, request: MakeDirectory) -> None:
        self._check_may_change(request.path)
        _make_directory(self._locate(request.path))

    def _create(self, request: Create) -> None:
        self._check_may_change(request.path)
        with self._lock:
            self._open_and_keep(request.path, self._open_flags | os.O_CREAT | os.O_EXCL)

    def _rename(self, request: Rename) -> None:
        self._check_may_change(request.source)
        source, target = self._locate(request.source), self._locate(request.target)
        with self._lock:
            os.rename(source, target)
            let_go = [self._files.pop(path, None) for path in (request.source, request.target)]
        # Closed outside of the lock: for the last descriptor of a removed file, the system then frees its blocks.
        del let_go

    def _remove(self, request: Remove) -> None:
        self._check_may_change(request.path)
        place = self._locate(request.path)
        with self._lock:
            os.unlink(place)
            let_go = self._files.pop(request.path, None)
        del let_go  # outside of the lock, as in `_rename`

    def _list(self, request: List) -> list[str]:
        return sorted(os.listdir(self._locate(request.path)))

    def _size(self, request: Size) -> int | None:
        try:
            found = os.stat(self._locate(request.path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _sync_directory(self, request: SyncDirectory) -> None:
        _sync_directory(self._locate(request.path))

    def _hold(self, request: Lock) -> str | None:
        self._check_may_change(request.path)
        file = _File(self._locate(request.path), self._open_flags | os.O_CREAT)
        try:
            other = _try_lock(file)
            if other is not None:
                return other
            file.truncate(0)
            file.write(request.holder.encode(), 0)
            with self._lock:
                self._check_may_change(request.path)  # for another thread may have closed the disk
                self._held_locks.append(file)
        except BaseException:
            # Whoever keeps the error, or the interrupt, keeps this frame, and with it the open file.
            fcntl.flock(file.number, fcntl.LOCK_UN)
            raise
        return None

    def keep_writers_away(self, path: str) -> str | None:
        """Hold a lock that is there, without writing to it, until the disk is closed; or say who holds it."""
        try:
            file = _File(self._locate(path), os.O_CLOEXEC | os.O_RDONLY)
        except FileNotFoundError:
            return None
        other = _try_lock(file)
        if other is None:
            with self._lock:
                self._held_locks.append(file)
        return other

    # Open files

    def _file(self, path: str) -> "_File":
        try:
            file = self._files[path]
        except KeyError:
            return self._open(path)
        if self._may_change or file.is_in_place():
            return file
        self._let_go_of_replaced()
        return self._open(path)

    def _open(self, path: str) -> "_File":
        with self._lock:
            # Another thread may just have opened it.
            return self._files.get(path) or self._open_and_keep(path, self._open_flags)

    def _open_and_keep(self, path: str, flags: int) -> "_File":
        file = _File(self._locate(path), flags)
        if len(self._files) >= OPEN_FILES_LIMIT:
            self._let_go_of_oldest()
        self._files[path] = file
        return file

    def _let_go_of_oldest(self) -> None:
        # A file with unsynced bytes is kept: Linux reports a failed writeback to the descriptors that are open at the
        # time, and a later one might be told that all is well.
        for path in [path for path, file in self._files.items() if not file.is_unsynced]:
            if len(self._files) < OPEN_FILES_LIMIT:
                break
            del self._files[path]

    def _let_go_of_replaced(self) -> None:
        # Where the writer has replaced one file, it has likely removed others, and waits for their space.
        with self._lock:
            replaced = [path for path, file in self._files.items() if not file.is_in_place()]
            let_go = [self._files.pop(path) for path in replaced]
        del let_go  # outside of the lock, as in `_rename`

    # Doors

    def _locate(self, path: str) -> str:
        # Without aliases: two spellings of a path would be two entries of the cache.
        if self._is_closed:
            raise self._refusal(path)
        if path in {"", "."}:
            return self._root
        if not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise ValueError(f"{path!r} is no path inside of {self._root!r}: write it relative, as in 'log/1.seg'")
        return f"{self._root}/{path}"

    def _check_may_change(self, path: str) -> None:
        if not self._may_change:
            raise self._refusal(path)

    def _refusal(self, path: str) -> OSError:
        place = os.path.join(self._root, path)
        if self._is_closed:
            return OSError(errno.EBADF, "the disk is closed", place)
        pid = os.getpid()
        if pid != self._pid:
            reason = (
                f"process {self._pid} opened the disk, and process {pid}, a fork of it, may only read: open it anew"
            )
        else:
            reason = "the disk was opened to read only"
        return PermissionError(errno.EPERM, reason, place)


class _File:
    """An open file: calls are repeated until all is done, and errors name the file.

    Reference counting closes it. The cache holds one reference and each thread inside of a call another, so that a
    file that was removed is closed, and its space given back, as soon as nobody uses it, and never under a read: the
    number might by then be another file's. Whoever keeps an error keeps its frames too, so a method deletes ``self``
    before it raises: room is made by removing files just when there is an error about a full disk.
    """

    __slots__ = ("identity", "is_unsynced", "number", "place")

    def __init__(self, place: str, flags: int) -> None:
        self.number = os.open(place, flags, 0o644)
        self.place = place
        self.is_unsynced = False
        self.identity = _identity(os.fstat(self.number))

    def __del__(self) -> None:
        # Without a number, the file was never opened. An error is printed by Python; whether the bytes are safe was
        # for `sync` to say.
        if hasattr(self, "number"):
            os.close(self.number)

    def write(self, data: bytes, offset: int) -> None:
        """Write all of it."""
        self.is_unsynced = True
        rest: bytes | memoryview = data
        while True:
            try:
                written = os.pwrite(self.number, rest, offset)
                if written == len(rest):
                    return
                if written <= 0:
                    raise OSError(errno.EIO, f"{written} of {len(rest)} bytes were written at {offset}")
            except InterruptedError:
                continue
            except OSError as error:
                error.filename = self.place
                del self
                raise
            rest = memoryview(rest)[written:]
            offset += written

    def read(self, size_bytes: int, offset: int) -> bytes:
        """Up to so many bytes; fewer only where the file ends, which is where a read gives none."""
        data = b""
        while size_bytes:
            try:
                piece = os.pread(self.number, size_bytes, offset)
            except InterruptedError:
                continue
            except OSError as error:
                error.filename = self.place
                del self
                raise
            if not piece:
                break
            data += piece
            size_bytes -= len(piece)
            offset += len(piece)
        return data

    def sync(self) -> None:
        """Return when bytes and size are on the disk."""
        # Before the call, so that a write by another thread during it is not forgotten.
        self.is_unsynced = False
        try:
            _uninterrupted(_sync_data, self.number)
        except OSError as error:
            error.filename = self.place
            del self
            raise

    def truncate(self, size_bytes: int) -> None:
        """Cut or lengthen to a size."""
        self.is_unsynced = True
        try:
            _uninterrupted(os.ftruncate, self.number, size_bytes)
        except OSError as error:
            error.filename = self.place
            del self
            raise

    def allocate(self, size_bytes: int) -> None:
        """Reserve room up to a size, where the system can."""
        if not hasattr(os, "posix_fallocate"):
            return
        self.is_unsynced = True
        try:
            _uninterrupted(os.posix_fallocate, self.number, 0, size_bytes)
        except OSError as error:
            if error.errno not in _CANNOT_ALLOCATE:
                error.filename = self.place
                del self
                raise

    def is_in_place(self) -> bool:
        """Whether its path still names this file."""
        # Its link count would not tell: a backup may have linked to the file.
        try:
            return self.identity == _identity(os.stat(self.place))
        except (FileNotFoundError, NotADirectoryError):
            return False


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _uninterrupted(call: Callable[..., object], *arguments: int) -> None:
    while True:
        try:
            call(*arguments)
        except InterruptedError:
            continue
        return


def _sync_data(number: int) -> None:
    if sys.platform == "darwin":
        _sync_drive(number)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(number)
    else:
        os.fsync(number)


def _sync_drive(number: int) -> None:
    if sys.platform == "darwin":
        # There, fsync leaves the bytes in the drive's cache. Some file systems have nothing better.
        try:
            fcntl.fcntl(number, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in {errno.ENOTSUP, errno.ENOTTY, errno.EINVAL}:
                raise
            os.fsync(number)
    else:
        os.fsync(number)


def _sync_directory(place: str) -> None:
    # Closed with its last reference, so that an interrupt leaves none open.
    directory = _File(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _uninterrupted(_sync_drive, directory.number)
    except OSError as error:
        error.filename = place
        # Whoever keeps the error keeps this frame.
        del directory
        raise


def _make_directory(place: str) -> None:
    try:
        os.mkdir(place, 0o755)
    except FileExistsError:
        if not os.path.isdir(place):
            raise


def _make_root(place: str) -> None:
    # No request can name the directory above the root, so its entry in there is made durable here. Where the root is
    # empty, a crash may have come between the two, and it is synced again.
    if not _has_names(place):
        above = os.path.dirname(place)
        _make_root(above)
        _make_directory(place)
        _sync_directory(above)


def _has_names(place: str) -> bool:
    try:
        with os.scandir(place) as names:
            return next(names, None) is not None
    except FileNotFoundError:
        return False


_disks: WeakSet[RealDisk] = WeakSet()
"""The disks of this process, for the child of a fork to find."""


def _try_lock(file: _File) -> str | None:
    """Lock a file, or say who holds its lock.

    A lock of `flock` belongs to this opening of the file: it ends with the process, however that ends, and another
    opening is in conflict with it, be it in this process.
    """
    try:
        fcntl.flock(file.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return file.read(_HOLDER_LIMIT_BYTES, 0).decode(errors="replace")
    return None


def _leave_disks_to_parent() -> None:
    for disk in list(_disks):
        disk._leave_to_parent()


# A flag that the fork itself turns costs a request less than asking for the process's number.
os.register_at_fork(after_in_child=_leave_disks_to_parent)
