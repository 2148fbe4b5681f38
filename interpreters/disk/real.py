"""The ``disk/*`` requests on a directory of a POSIX system, by the held files and directories of `real_files`.

The root directory is opened once and held, and so is each directory in it: no path is walked again, and whatever is
put in their place is not touched. Descriptors of files are kept by path, so that a write, a sync and a read are one
system call each. A look-up in that cache takes no lock; whatever changes which file a path means (create, open, rename,
remove) does, so that the cache never names a file that its path has lost. Only the process that opened the disk may
change anything. Others change the files under a disk that only reads, so there each use of a descriptor first asks
whether the path still names that file.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from weakref import WeakSet

from interpreters.disk.files import PRIVATE, Directory, File, Identity, directory_mode, make_directories
from interpreters.disk.requests import (
    Allocate,
    CheckHeld,
    Create,
    ForeignFile,
    LetGo,
    List,
    Lock,
    MakeDirectory,
    Modified,
    Read,
    ReadPlaces,
    Remove,
    Rename,
    Size,
    Sync,
    SyncDirectory,
    Touch,
    Truncate,
    Write,
    WriteBack,
)
from persist_effects.machine import Handlers

# How many descriptors are kept open, beside those of files with unsynced bytes. macOS gives a process 256.
OPEN_FILES_LIMIT = 128

# As much of what a lock's holder wrote as an error message has use for.
_HOLDER_LIMIT_BYTES = 4096

_LOCK_ATTEMPTS = 100
"""How often a lock is tried again because its file was replaced meanwhile."""


class RealDisk:
    """A disk that answers `interpreters.disk.requests` under a root directory, from any thread, until `close`.

    Unless ``read_only``, the root is made where it is missing, and so are the directories above it. A ``read_only``
    disk refuses with PermissionError whatever would change or make a file, locks too. So does every disk in a forked
    child, which may go on reading: there its locks are not held. An OSError names the file; where a link, a FIFO or
    the like stands in the place of a file it is a `ForeignFile`, and nothing was done with that. A path that is
    absolute, or has an empty, ``.`` or ``..`` part, is refused with ValueError; the root itself is ``""`` or ``"."``.

    ``permissions`` are those of new files, less what the process's umask takes; who may read a file may enter its
    directory. ``held`` is the root, where the caller has opened it.

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

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        read_only: bool = False,
        permissions: int = PRIVATE,
        held: Directory | None = None,
    ) -> None:
        self._root = os.path.abspath(root)
        self._permissions = permissions
        self._pid = os.getpid()
        self._may_change = not read_only
        self._is_closed = False
        self._open_flags = os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR)
        self._lock = threading.Lock()
        self._directories: dict[str, Directory] = {}
        self._files: dict[str, File] = {}
        # Of all files that were opened to write, and not removed since.
        self._identities: dict[str, Identity] = {}
        self._held_locks: list[File] = []
        self.handlers: Handlers = {
            MakeDirectory: self._make_directory,
            Create: self._create,
            Write: self._write,
            WriteBack: self._write_back,
            Read: self._read,
            ReadPlaces: self._read_places,
            Sync: self._sync,
            Truncate: self._truncate,
            Allocate: self._allocate,
            Rename: self._rename,
            Remove: self._remove,
            List: self._list,
            Size: self._size,
            Modified: self._modified,
            Touch: self._touch,
            SyncDirectory: self._sync_directory,
            Lock: self._hold,
            CheckHeld: self._check_held,
            LetGo: self._let_go_of,
        }
        if held is None and not read_only:
            make_directories(self._root, directory_mode(permissions))
        if held is not None or not read_only or os.path.exists(self._root):
            self._directories[""] = held or Directory.at(self._root)
        _disks.add(self)

    def close(self) -> None:
        """Let go of the files and then of the locks. Twice is as good as once; later requests raise OSError.

        No other thread should still be writing: its write might land after another process has taken the lock.
        """
        try:
            self._close()
        except BaseException:
            # An interrupt: a lock that was left would be held for as long as anybody keeps the error.
            self._close()
            raise

    def _close(self) -> None:
        with self._lock:
            self._is_closed, self._may_change = True, False
            self._files.clear()
            self._directories.clear()
        for held in self._held_locks:
            # Said aloud, because a subprocess between its fork and its exec still has a copy of the descriptor.
            fcntl.flock(held.number, fcntl.LOCK_UN)
        self._held_locks.clear()

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

    def _read_places(self, request: ReadPlaces) -> list[bytes]:
        return self._file(request.path).read_each(request.size_bytes, request.offsets)

    def _sync(self, request: Sync) -> None:
        self._file(request.path).sync()

    def _write_back(self, request: WriteBack) -> None:
        self._file(request.path).write_back(request.offset, request.size_bytes)

    def _truncate(self, request: Truncate) -> None:
        self._check_may_change(request.path)
        self._file(request.path).truncate(request.size_bytes)

    def _allocate(self, request: Allocate) -> None:
        self._check_may_change(request.path)
        self._file(request.path).allocate(request.size_bytes)

    # Names

    def _make_directory(self, request: MakeDirectory) -> None:
        self._check_may_change(request.path)
        directory, name = self._locate(request.path)
        try:
            directory.make_directory(name, directory_mode(self._permissions))
        except FileExistsError:
            try:
                directory.directory(name)
            except ForeignFile:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{directory.place}/{name}") from None

    def _create(self, request: Create) -> None:
        self._check_may_change(request.path)
        with self._lock:
            self._identities.pop(request.path, None)
            self._open_and_keep(request.path, self._open_flags | os.O_CREAT | os.O_EXCL)

    def _rename(self, request: Rename) -> None:
        self._check_may_change(request.source)
        (source, name), (target, new_name) = self._locate(request.source), self._locate(request.target)
        source.look_at(name)
        with self._lock:
            source.rename(name, target, new_name)
            let_go = [self._files.pop(path, None) for path in (request.source, request.target)]
            identity = self._identities.pop(request.source, None)
            self._identities.pop(request.target, None)
            if identity is not None:
                self._identities[request.target] = identity
        # Closed outside of the lock: for the last descriptor of a removed file, the system then frees its blocks.
        del let_go

    def _remove(self, request: Remove) -> None:
        self._check_may_change(request.path)
        directory, name = self._locate(request.path)
        with self._lock:
            directory.remove(name)
            self._identities.pop(request.path, None)
            let_go = self._files.pop(request.path, None)
        del let_go  # outside of the lock, as in `_rename`

    def _list(self, request: List) -> list[str]:
        return self._locate_directory(request.path).names()

    def _size(self, request: Size) -> int | None:
        found = self._look_at(request.path)
        return None if found is None else found.st_size

    def _modified(self, request: Modified) -> int | None:
        found = self._look_at(request.path)
        return None if found is None else found.st_mtime_ns // 1000

    def _look_at(self, path: str) -> os.stat_result | None:
        try:
            directory, name = self._locate(path)
        except FileNotFoundError:
            return None
        return directory.look_at(name)

    def _touch(self, request: Touch) -> None:
        self._check_may_change(request.path)
        directory, name = self._locate(request.path)
        directory.look_at(name)
        directory.touch(name)

    def _sync_directory(self, request: SyncDirectory) -> None:
        _sync_directory(self._locate_directory(request.path))

    # Locks, and whether what is held is still there

    def _hold(self, request: Lock) -> str | None:
        self._check_may_change(request.path)
        return self._lock_file(request.path, self._open_flags | os.O_CREAT, request.holder)

    def keep_writers_away(self, path: str) -> str | None:
        """Hold a lock that is there, without writing to it, until the disk is closed; or say who holds it.

        Where a link, a FIFO or the like stands in its place, nothing is held: no writer could hold it either.
        """
        try:
            return self._lock_file(path, self._open_flags, None)
        except (FileNotFoundError, ForeignFile):
            return None

    def _lock_file(self, path: str, flags: int, holder: str | None) -> str | None:
        """Hold a file's lock, with the holder written into it if one is given; or say who holds it."""
        directory, name = self._locate(path)
        for _ in range(_LOCK_ATTEMPTS):
            file = directory.file(name, flags, self._permissions)
            try:
                other = _try_lock(file)
                if other is not None:
                    return other
                # Who opened it before somebody removed it holds the lock of a file that nobody else will find.
                if file.is_in_place():
                    self._keep_lock(file, holder)
                    return None
            except BaseException:
                # Whoever keeps the error, or the interrupt, keeps this frame, and with it the open file.
                fcntl.flock(file.number, fcntl.LOCK_UN)
                raise
        raise OSError(errno.ESTALE, "the file is replaced again and again", f"{directory.place}/{name}")

    def _keep_lock(self, file: File, holder: str | None) -> None:
        if holder is not None:
            file.truncate(0)
            file.write(holder.encode(), 0)
        with self._lock:
            if self._is_closed:  # by another thread, meanwhile
                raise self._refusal(file.name)
            self._held_locks.append(file)

    def _check_held(self, request: CheckHeld) -> None:
        # Runs for every commit that is synced, so it asks the system no more than it must.
        root = self._locate_directory("")
        if not root.is_in_place():
            raise OSError(
                errno.ESTALE,
                "the store's directory was removed, moved away or replaced",
                self._root,
            )
        for lock in self._held_locks:
            if not lock.is_in_place():
                raise OSError(errno.ESTALE, "the lock was removed or replaced, so another may write here", lock.place)
        identity, file = self._identities.get(request.path), self._files.get(request.path)
        if identity is not None and not (root.has(request.path, identity) if file is None else file.is_where_it_was()):
            self._check_not_by_us(root, request.path)
        if not self._may_change:
            self._check_directories(root)

    def _check_not_by_us(self, root: Directory, path: str) -> None:
        """Raise where a file is not at its path, unless another thread has just removed or renamed it."""
        with self._lock:
            identity = self._identities.get(path)
            if identity is not None and not root.has(path, identity):
                raise OSError(errno.ESTALE, "the file was removed or replaced", f"{self._root}/{path}")

    def _check_directories(self, root: Directory) -> None:
        for path, directory in list(self._directories.items()):
            if path and not root.has(path, directory.identity):
                raise OSError(errno.ESTALE, "the directory was removed, moved away or replaced", directory.place)

    def keep_permissions_of(self, path: str) -> None:
        """Make new files as a file is that is there already, as to who may read and write them."""
        directory, name = self._locate(path)
        found = directory.look_at(name)
        if found is not None:
            self._permissions = found.st_mode & 0o666 | PRIVATE

    # Open files

    def _file(self, path: str) -> File:
        try:
            file = self._files[path]
        except KeyError:
            return self._open(path)
        if self._may_change or file.is_where_it_was():
            return file
        self._let_go_of_replaced()
        return self._open(path)

    def _open(self, path: str) -> File:
        with self._lock:
            # Another thread may just have opened it.
            return self._files.get(path) or self._open_and_keep(path, self._open_flags)

    def _open_and_keep(self, path: str, flags: int) -> File:
        directory, name = self._locate(path)
        file = directory.file(name, flags, self._permissions)
        if self._may_change and self._identities.setdefault(path, file.identity) != file.identity:
            # It had been let go of, and stands for what was written to it.
            raise OSError(errno.ESTALE, "another file stands here than the one that was opened before", file.place)
        if len(self._files) >= OPEN_FILES_LIMIT:
            self._let_go_of_oldest()
        self._files[path] = file
        return file

    def _let_go_of(self, request: LetGo) -> None:
        with self._lock:
            self._identities.pop(request.path, None)
            let_go = self._files.pop(request.path, None)
        del let_go  # outside of the lock, as in `_rename`

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

    def _locate(self, path: str) -> tuple[Directory, str]:
        """The directory in which a file is, and its name there."""
        # Without aliases: two spellings of a path would be two entries of the cache.
        if self._is_closed:
            raise self._refusal(path)
        if path in {"", "."}:
            raise ForeignFile(errno.EISDIR, "a directory stands where a file of the store belongs", self._root)
        if not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise ValueError(f"{path!r} is not a path inside of {self._root!r}: write it relative, as in 'log/1.seg'")
        above, _, name = path.rpartition("/")
        return self._directory(above), name

    def _locate_directory(self, path: str) -> Directory:
        if path not in {"", "."}:
            self._locate(path)
            return self._directory(path)
        if self._is_closed:
            raise self._refusal(path)
        return self._directory("")

    def _directory(self, path: str) -> Directory:
        held = self._directories.get(path)
        if held is not None:
            return held
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._root)
        above, _, name = path.rpartition("/")
        return self._directories.setdefault(path, self._directory(above).directory(name))

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


@contextmanager
def new_directory(path: str | os.PathLike[str]) -> Iterator[RealDisk]:
    """A disk in a new directory, which gets its name when the block has ended, and is taken away after an error.

    Until then it has a name that ends in ``.unfinished``. An empty directory may be there. Raises FileExistsError where
    such an unfinished one is left over.

    >>> import tempfile
    >>> from persist_effects import perform, run
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with new_directory(f"{root}/new") as disk:
    ...         run(perform(Create("a")), disk.handlers)
    ...     os.listdir(f"{root}/new")
    ['a']
    """
    above, name = os.path.split(os.path.abspath(path))
    make_directories(above, directory_mode(PRIVATE))
    parent = Directory.at(above)
    unfinished = f"{name}.unfinished"
    parent.check_is_free(unfinished)
    made: Directory | None = None
    try:
        parent.make_directory(unfinished, directory_mode(PRIVATE))
        made = parent.directory(unfinished)
        with closing(RealDisk(made.place, held=made)) as disk:
            yield disk
        if not parent.has(unfinished, made.identity):
            raise OSError(errno.ESTALE, "another directory stands here than the one that was made", made.place)
        parent.rename(unfinished, parent, name)
    except BaseException:
        parent.remove_tree(made, unfinished)
        raise
    parent.sync()


def _sync_directory(directory: Directory) -> None:
    directory.sync()


_disks: WeakSet[RealDisk] = WeakSet()
"""The disks of this process, for the child of a fork to find."""


def _try_lock(file: File) -> str | None:
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
