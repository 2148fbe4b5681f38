"""Files and directories of a POSIX system, held by descriptors: the only system calls on the files of stores.

A directory is opened once, and what is in it is reached through its descriptor. So no path is walked a second time:
what is put in the directory's place later is never touched. In a directory no link is followed, and only regular files
are opened; what else stands there is a `ForeignFile`, and nothing is done with it.
"""

import errno
import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import attrgetter
from typing import BinaryIO

from interpreters.disk.requests import ForeignFile
from persist_effects.errors import InvalidRequest

PRIVATE = 0o600
"""The permissions of what is made, unless told otherwise: for its owner alone."""

ORDINARY = 0o644
"""The permissions of a file that nobody asked to keep from others, less what the process's umask takes."""

Identity = tuple[int, int]
"""A file's device and its number there, which no other file has as long as a descriptor holds it."""

# Without waiting for whoever writes to a FIFO, and without a terminal becoming the process's own.
_NEVER_FOLLOW = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_CANNOT_ALLOCATE = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}

_KINDS = {
    stat.S_IFLNK: ("a symbolic link", errno.ELOOP),
    stat.S_IFDIR: ("a directory", errno.EISDIR),
    stat.S_IFIFO: ("a FIFO", errno.EINVAL),
    stat.S_IFSOCK: ("a socket", errno.EINVAL),
    stat.S_IFREG: ("a file", errno.ENOTDIR),
}


def refuse_home(path: str | os.PathLike[str]) -> None:
    """Refuse a path with ``~`` in front, which only shells replace: a directory of that name would be made."""
    first, _, rest = os.fspath(path).partition("/")
    if first.startswith("~"):
        home = os.path.expanduser(first)
        whole = f"{'/home/NAME' if home == first else home}/{rest}".rstrip("/")
        raise InvalidRequest(
            f"{os.fspath(path)!r} begins with {first!r}, which only a shell replaces: write {whole!r}, or "
            f"{f'./{os.fspath(path)}'!r} for a directory of that name"
        )


class _Descriptor:
    """What is opened once, and closed when nobody holds it any more.

    An interrupt comes between two steps of Python's, never inside of one call of C: the number that `os.open` returned
    would be lost between the call and its assignment, and in a `__del__` of Python's the interrupt itself is lost. So
    the number comes into the list within one such call, and is taken out and closed within another.
    """

    __slots__ = ("_close", "_numbers", "identity", "number", "place")

    def __init__(self, place: str) -> None:
        self.place = place
        self._numbers: list[int] = []
        # The second time it finds nothing left, and does nothing.
        self._close = partial(next, map(os.close, self._numbers), None)

    __del__ = property(attrgetter("_close"))

    def _open(self, name: str, flags: int, mode: int = 0, dir_fd: int | None = None) -> None:
        self._numbers.extend(map(partial(os.open, dir_fd=dir_fd), (name,), (flags,), (mode,)))
        self.number = self._numbers[0]
        self.identity = identity_of(os.fstat(self.number))


class Directory(_Descriptor):
    """A directory that is held open. Errors name the file in it."""

    __slots__ = ()

    @classmethod
    def at(cls, place: str) -> "Directory":
        """The directory at a path, on the way to which links are followed."""
        directory = cls(place)
        directory._open(place, _DIRECTORY)
        return directory

    def directory(self, name: str) -> "Directory":
        """A directory in this one. Raises `ForeignFile` where something else stands there."""
        directory = Directory(f"{self.place}/{name}")
        try:
            directory._open(name, _DIRECTORY | _NEVER_FOLLOW, dir_fd=self.number)
        except OSError as error:
            self._refuse_foreign(name, stat.S_ISDIR, "a directory")
            raise self._named(error, name) from None
        return directory

    def file(self, name: str, flags: int, mode: int = PRIVATE) -> "File":
        """Open a file in this directory. Raises `ForeignFile` where something else stands there."""
        file = File(self, name)
        file.open(flags, mode)
        return file

    def look_at(self, name: str) -> os.stat_result | None:
        """What is known of a file, or None where there is none. Raises `ForeignFile` where something else stands."""
        return self._refuse_foreign(name, stat.S_ISREG, "a file")

    def _refuse_foreign(self, name: str, is_right: Callable[[int], bool], wanted: str) -> os.stat_result | None:
        try:
            found = os.stat(name, dir_fd=self.number, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._named(error, name) from None
        if not is_right(found.st_mode):
            raise foreign(found.st_mode, f"{self.place}/{name}", wanted)
        return found

    def has(self, path: str, identity: Identity) -> bool:
        """Whether a path from here leads to this file."""
        # Its link count would not tell: a backup may have linked to the file.
        try:
            found = os.stat(path, dir_fd=self.number, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return identity_of(found) == identity

    def is_in_place(self) -> bool:
        """Whether its path still leads to this directory."""
        try:
            return identity_of(os.stat(self.place)) == self.identity
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names(self) -> list[str]:
        """The names in it, sorted."""
        try:
            return sorted(os.listdir(self.number))
        except OSError as error:
            error.filename = self.place
            raise

    def check_is_free(self, name: str) -> None:
        """Raise FileExistsError where anything has this name."""
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=self.number, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{self.place}/{name}")

    def make_directory(self, name: str, mode: int) -> None:
        """Make a directory in this one. Raises FileExistsError."""
        try:
            os.mkdir(name, mode, dir_fd=self.number)
        except OSError as error:
            raise self._named(error, name) from None

    def rename(self, name: str, into: "Directory", target: str) -> None:
        """Give a file or a directory another name, in the place of what had that name."""
        try:
            os.rename(name, target, src_dir_fd=self.number, dst_dir_fd=into.number)
        except OSError as error:
            into.look_at(target)
            error.filename, error.filename2 = f"{self.place}/{name}", f"{into.place}/{target}"
            raise

    def remove(self, name: str) -> None:
        """Take a file away."""
        try:
            os.unlink(name, dir_fd=self.number)
        except OSError as error:
            self.look_at(name)
            raise self._named(error, name) from None

    def remove_tree(self, made: "Directory | None", name: str) -> None:
        """Take away, as far as that can be done, a directory that was made here, unless another has its name now.

        None: it was being made when an interrupt came, and nothing can be in it.
        """
        if made is None:
            with suppress(OSError):
                os.rmdir(name, dir_fd=self.number)
        elif self.has(name, made.identity):
            shutil.rmtree(name, ignore_errors=True, dir_fd=self.number)

    def touch(self, name: str) -> None:
        """Have a file count as modified now. By its name, so that it is the file that has the name at this moment."""
        try:
            os.utime(name, dir_fd=self.number, follow_symlinks=False)
        except OSError as error:
            raise self._named(error, name) from None

    def sync(self) -> None:
        """Return when the names in it are on the disk."""
        try:
            _uninterrupted(_sync_drive, self.number)
        except OSError as error:
            error.filename = self.place
            raise

    def _named(self, error: OSError, name: str) -> OSError:
        error.filename = f"{self.place}/{name}"
        return error


class File(_Descriptor):
    """An open file: calls are repeated until all is done, and errors name the file.

    Reference counting closes it. A disk's cache holds one reference and each thread inside of a call another, so that a
    file that was removed is closed, and its space given back, as soon as nobody uses it, and never under a read: the
    number might by then be another file's. Whoever keeps an error keeps its frames too, so a method deletes ``self``
    before it raises: room is made by removing files just when there is an error about a full disk.
    """

    __slots__ = ("_link", "directory", "is_unsynced", "name")

    def __init__(self, directory: Directory, name: str) -> None:
        super().__init__(f"{directory.place}/{name}")
        self.directory = directory
        self.name = name
        self.is_unsynced = False
        # What the system called it when it was last found in its place.
        self._link: str | None = None

    def open(self, flags: int, mode: int) -> None:
        """Open it. Raises `ForeignFile` where something else than a file stands there."""
        if not flags & os.O_EXCL:
            # Before it is opened: a device may do something when it is.
            self.directory.look_at(self.name)
        try:
            self._open(self.name, flags | _NEVER_FOLLOW, mode, self.directory.number)
        except OSError as error:
            error.filename = self.place
            raise error from None
        if not stat.S_ISREG(os.fstat(self.number).st_mode):
            self._close()
            self.directory.look_at(self.name)
            raise OSError(errno.ESTALE, "it was replaced while it was opened", self.place)

    def take_away(self) -> None:
        """Remove a file that was opened as a new one, if that came so far, and if it is still the one of its name."""
        for number in self._numbers:
            if self.directory.has(self.name, identity_of(os.fstat(number))):
                self.directory.remove(self.name)

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

    def read_each(self, size_bytes: int, offsets: Sequence[int]) -> list[bytes]:
        """Up to so many bytes from each of these offsets."""
        return [self.read(size_bytes, offset) for offset in offsets]

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

    def write_back(self, offset: int, size_bytes: int) -> None:
        """Have the system begin to bring these bytes to the disk, where it can."""
        if hasattr(os, "posix_fadvise"):
            # Linux drops only what is on the disk already: of what was just written it begins the writing.
            os.posix_fadvise(self.number, offset, size_bytes, os.POSIX_FADV_DONTNEED)

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
        """Whether its name in its directory still means this file."""
        return self.directory.has(self.name, self.identity)

    def is_where_it_was(self) -> bool:
        """Whether its path still leads to this file, asked without a look at its times where the system can tell.

        Whoever has looked at a file's times has Linux (since 6.13) note a finer one at the next write, and the sync of
        that write then takes half as long again. What a descriptor is called tells of a removal, and of another name
        for the file or for a directory above it.
        """
        link = _link_of(self.number)
        if link is not None and link == self._link:
            return True
        if not (self.is_in_place() and self.directory.is_in_place()):
            return False
        self._link = link
        return True


def foreign(mode: int, place: str, wanted: str) -> ForeignFile:
    """The error that says what stands at a place, by its mode, and what should."""
    kind, code = _KINDS.get(stat.S_IFMT(mode), ("a device", errno.EINVAL))
    return ForeignFile(
        code, f"{kind} stands where {wanted} of the store belongs, and was left alone: restore a backup", place
    )


def _link_of(number: int) -> str | None:
    """What the system calls the file of a descriptor; None where it does not say."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return None


def identity_of(found: os.stat_result) -> Identity:
    """What tells a file from all others."""
    return found.st_dev, found.st_ino


def directory_mode(permissions: int) -> int:
    """The permissions of a directory whose files have these: who may read there may enter.

    >>> oct(directory_mode(0o640))
    '0o750'
    """
    return permissions | (permissions & 0o444) >> 2


def make_directories(place: str, mode: int) -> None:
    """Make a directory where it is missing, and those above it, each of whose names is then on the disk.

    A relative one is in the directory of the process. Where it is empty, a crash may have come between the two, and it
    is synced again.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     make_directories(f"{root}/var/orders", 0o700)
    ...     os.listdir(f"{root}/var")
    ['orders']
    """
    # A relative path would come to its end in no name at all, above which there is nothing.
    place = os.path.join(os.getcwd(), place)
    if not _has_names(place):
        above = os.path.dirname(place)
        make_directories(above, mode)
        try:
            os.mkdir(place, mode)
        except FileExistsError:
            if not os.path.isdir(place):
                raise
        Directory.at(above).sync()


@contextmanager
def locked(place: str, *, is_patient: bool) -> Iterator[int | None]:
    """Hold the lock of a directory, which keeps away only those who ask for it, for the block.

    A process that is given the descriptor holds it too, until it closes that.

    Args:
        place: The directory.
        is_patient: Whether to wait until it is free.

    Returns:
        The directory's descriptor; None where another holds the lock.

    Raises:
        OSError: There is no such directory, or it cannot be opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root, locked(root, is_patient=True) as held:
    ...     with locked(root, is_patient=False) as held_too:
    ...         print(held is None, held_too)
    False None
    """
    directory = Directory.at(place)
    try:
        try:
            fcntl.flock(directory.number, fcntl.LOCK_EX | (0 if is_patient else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield directory.number
    finally:
        # At once, whoever keeps an error, and with it this frame.
        directory._close()


def _has_names(place: str) -> bool:
    try:
        with os.scandir(place) as names:
            return next(names, None) is not None
    except FileNotFoundError:
        return False


@contextmanager
def new_file(path: str | os.PathLike[str], permissions: int = PRIVATE) -> Iterator[BinaryIO]:
    """A new file to write to. It is on the disk when the block has ended, and is taken away after an error.

    Raises FileExistsError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with new_file(f"{root}/a") as file:
    ...         _ = file.write(b"hello")
    ...     os.listdir(root)
    ['a']
    """
    above, name = os.path.split(os.path.abspath(path))
    directory = Directory.at(above)
    file = File(directory, name)
    try:
        file.open(os.O_WRONLY | os.O_CREAT | os.O_EXCL, permissions)
        with os.fdopen(file.number, "wb", closefd=False) as stream:
            yield stream
        file.sync()
    except BaseException:
        file.take_away()
        raise
    directory.sync()


def open_to_read(path: str | os.PathLike[str]) -> BinaryIO:
    """A file of somebody else's, to read from its beginning. Raises `InvalidRequest` where there is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_whole(f"{root}/a", b"hello")
    ...     with open_to_read(f"{root}/a") as file:
    ...         file.read()
    b'hello'
    """
    refuse_home(path)
    if not os.path.exists(path) or os.path.isdir(path):
        raise InvalidRequest(f"{os.fspath(path)} is not a file: give the path of one that is there")
    return open(path, "rb", buffering=0)


def _opened(path: str | os.PathLike[str], flags: int) -> File:
    above, name = os.path.split(os.path.abspath(path))
    return Directory.at(above).file(name, flags)


def sync_file(path: str | os.PathLike[str]) -> None:
    """Have a file's bytes on the disk, if there is one. Raises OSError where they are not.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     sync_file(f"{root}/nothing")
    """
    try:
        file = _opened(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    file.sync()


def lengthen_file(path: str | os.PathLike[str], size_bytes: int, limit_bytes: int) -> None:
    """Put so many zeros behind what a file holds, as long as it has no more bytes than a limit.

    Raises OSError where that cannot be, and where there is no file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_whole(f"{root}/a", b"hello")
    ...     for _ in range(3):
    ...         lengthen_file(f"{root}/a", 3, limit_bytes=10)
    ...     os.path.getsize(f"{root}/a")
    10
    """
    file = _opened(path, os.O_WRONLY)
    end = os.fstat(file.number).st_size
    file.write(bytes(max(0, min(size_bytes, limit_bytes - end))), end)


def write_whole(path: str | os.PathLike[str], data: bytes, permissions: int = PRIVATE) -> None:
    """Put bytes in the place of a file: a reader, and a crash, find the old ones or the new. Makes its directories.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     write_whole(f"{root}/in/a", b"hello")
    ...     os.listdir(f"{root}/in")
    ['a']
    """
    above, name = os.path.split(os.path.abspath(path))
    make_directories(above, directory_mode(permissions))
    directory = Directory.at(above)
    unfinished = f".{name}.{os.urandom(4).hex()}"
    with new_file(f"{above}/{unfinished}", permissions) as file:
        file.write(data)
    try:
        directory.rename(unfinished, directory, name)
    except BaseException:
        directory.remove(unfinished)
        raise
    directory.sync()


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
