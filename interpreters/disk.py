"""The ``disk/*`` requests: all that a storage engine asks of a disk. Paths are relative to the store's directory.

A handler raises OSError where the disk refuses. What is written is durable only after a `Sync` of the file, and a
file's name only after a `SyncDirectory` of its directory.
"""

from persist_effects.requests import Request


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


class Sync(Request[None], frozen=True, gc=False, tag="disk/sync"):
    """Return when the file's bytes and size are on the disk."""

    path: str


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
    """The names in a directory, sorted. Raises FileNotFoundError and NotADirectoryError."""

    path: str


class Size(Request[int | None], frozen=True, gc=False, tag="disk/size"):
    """A file's size in bytes, or None where there is none."""

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
