"""The ``disk/*`` requests: all that a storage engine asks of a disk. Paths are relative to the store's directory.

A handler raises OSError where the disk refuses, and `ForeignFile` where a path leads to no regular file. What is
written is durable only after a `Sync` of the file, and a file's name only after a `SyncDirectory` of its directory.
"""

from persist_effects.requests import Request


class ForeignFile(OSError):
    """Something else stands where a file or directory of the store belongs: a link, a FIFO, a device. It is left alone.

    It says nothing of the disk's health: whoever meets it looks at a directory that is not as the store left it.
    """


class MakeDirectory(Request[None], frozen=True, gc=False, tag="disk/make-directory"):
    """Make a directory; one that is there already is left as it is."""

    path: str


class Create(Request[None], frozen=True, gc=False, tag="disk/create"):
    """Make an empty file. Raises FileExistsError."""

    path: str


class Write(Request[None], frozen=True, gc=False, tag="disk/write"):
    """Write all of these bytes at an offset of a file."""

    path: str
    offset: int
    data: bytes


class Read(Request[bytes], frozen=True, gc=False, tag="disk/read"):
    """Up to ``size_bytes`` bytes from an offset; fewer only where the file ends. Raises FileNotFoundError."""

    path: str
    offset: int
    size_bytes: int


class ReadPlaces(Request[list[bytes]], frozen=True, gc=False, tag="disk/read-places"):
    """As so many `Read` of one file, all of one size, from these offsets. What is read is not of one moment."""

    path: str
    offsets: tuple[int, ...]
    size_bytes: int


class Sync(Request[None], frozen=True, gc=False, tag="disk/sync"):
    """Return when the file's bytes and size are on the disk."""

    path: str


class WriteBack(Request[None], frozen=True, gc=False, tag="disk/write-back"):
    """Have the system begin to bring some of a file's bytes to the disk, where it can, and return at once.

    So a `Sync` after much was written has less to wait for. It promises nothing by itself.
    """

    path: str
    offset: int
    size_bytes: int


class Truncate(Request[None], frozen=True, gc=False, tag="disk/truncate"):
    """Cut a file to a size, or lengthen it by zeros."""

    path: str
    size_bytes: int


class Allocate(Request[None], frozen=True, gc=False, tag="disk/allocate"):
    """Reserve room, read as zeros, up to a size. Where the file system cannot, the file just grows later."""

    path: str
    size_bytes: int


class Rename(Request[None], frozen=True, gc=False, tag="disk/rename"):
    """Give a file another name, in the place of what had that name."""

    source: str
    target: str


class Remove(Request[None], frozen=True, gc=False, tag="disk/remove"):
    """Take a file away. Raises FileNotFoundError."""

    path: str


class List(Request[list[str]], frozen=True, gc=False, tag="disk/list"):
    """The names in a directory, sorted. Raises FileNotFoundError and `ForeignFile`."""

    path: str


class Size(Request[int | None], frozen=True, gc=False, tag="disk/size"):
    """A file's size in bytes, or None where there is nothing. Raises `ForeignFile`."""

    path: str


class Modified(Request[int | None], frozen=True, gc=False, tag="disk/modified"):
    """When a file was last written to or touched, in microseconds since 1970, UTC; None where there is nothing.

    By the clock of the file system, which may be that of another machine. Raises `ForeignFile`.
    """

    path: str


class Touch(Request[None], frozen=True, gc=False, tag="disk/touch"):
    """Have the file that this path leads to now count as just modified. Raises FileNotFoundError and `ForeignFile`."""

    path: str


class SyncDirectory(Request[None], frozen=True, gc=False, tag="disk/sync-directory"):
    """Return when the names in a directory are on the disk."""

    path: str


class Lock(Request[str | None], frozen=True, gc=False, tag="disk/lock"):
    """Hold a file's lock until the disk is closed, and write who holds it into the file.

    Answered with None, or where another process holds the lock, with what that one wrote.
    """

    path: str
    holder: str


class CheckHeld(Request[None], frozen=True, gc=False, tag="disk/check-held"):
    """Return if the store's path still leads to the directory that is held, with its locks and the file at ``path``.

    Raises OSError, naming what is another now, or gone: then nothing more should be told or published, since whoever
    opens the store by its path finds another one.
    """

    path: str


class LetGo(Request[None], frozen=True, gc=False, tag="disk/let-go"):
    """Keep no file open for this path, and forget which one was there: whoever asked is done with it.

    For files that are many, and that are each used once. What was not synced is still not synced.
    """

    path: str
