"""What plain code does to the files of one directory, as calls: each with its place in the code and what it changes.

A file is known by its identity, device and number, which all descriptors and names of it share. So it does not matter
how a descriptor was come by. What leads elsewhere is nobody's here, and is left alone.
"""

import copy
import linecache
import os
import stat
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from interpreters.disk.survivors import Image
from interpreters.explore.files.tree import (
    LINK_MARK,
    ROOT_NODE,
    FileTree,
    NamedNode,
    TreeChange,
    TreeDirectory,
    TreeLink,
    settled_tree,
)

_LINKS_FOLLOWED = 40
"""As many as Linux follows."""

_OWN = os.path.dirname(__file__) + os.sep
_LIBRARY = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))
_INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))

_TMPFILE = getattr(os, "O_TMPFILE", 0)

_Identity = tuple[int, int]


class FilePlace(NamedTuple):
    """An entry of a directory: the number of the directory, and the name in it."""

    directory: int
    name: str

    def of(self, node: int | None) -> NamedNode:
        """The entry, as what is named there from now on."""
        return self.directory, self.name, node


class RecordedCall(NamedTuple):
    """A call, in words; the line of code that made it; and what it changes. ``told``: the value told by it, in a list.

    ``touched`` are the files and directories that a sync may be missing of.
    """

    words: str
    source: str
    changes: tuple[TreeChange, ...]
    touched: tuple[int, ...] = ()
    told: tuple[Any, ...] = ()


def files_of(root: str) -> Image:
    """All that is in a directory, as an image: regular files, directories and symbolic links.

    Raises:
        ValueError: For what is none of these; its argument is the path.
    """
    found: Image = {}
    for here, directories, files in os.walk(root):
        for name in [*directories, *files]:
            whole = os.path.join(here, name)
            path = os.path.relpath(whole, root)
            mode = os.lstat(whole).st_mode
            if stat.S_ISLNK(mode):
                found[path + LINK_MARK] = os.fsencode(os.readlink(whole))
            elif stat.S_ISDIR(mode):
                found[f"{path}/"] = b""
            elif stat.S_ISREG(mode):
                found[path] = Path(whole).read_bytes()
            else:
                raise ValueError(path)
    return found


class Recorder:
    """Records the calls on one directory, of whichever thread, in the order in which they come.

    Args:
        root: The directory; what is in it already is durable.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.before = files_of(root)
        self.tree = settled_tree(self.before)
        self.calls: list[RecordedCall] = []
        self.past: list[str] = []
        """What was done past the recording, in words."""
        self.is_over = False
        self.lock = threading.RLock()
        self._own = threading.local()
        self._of_identity: dict[_Identity, int] = {}
        self._synced_elsewhere: dict[_Identity, tuple[int, int]] = {}
        for path in ["", *self.before]:
            status = os.lstat(os.path.join(root, path.rstrip("/" + LINK_MARK)))
            self._of_identity[_identity(status)] = self._node_at_path(path)

    def _node_at_path(self, path: str) -> int:
        node: int | None = ROOT_NODE
        for name in [part for part in path.rstrip("/" + LINK_MARK).split("/") if part]:
            assert node is not None, "a directory comes before what is in it"
            node = self.tree.found(node, name)
        assert node is not None, "what was there before has a number"
        return node

    # Whose is it?

    def node_of(self, descriptor: Any) -> int | None:
        """The number of the file that a descriptor leads to; None for what is elsewhere."""
        try:
            status = os.fstat(descriptor if isinstance(descriptor, int) else descriptor.fileno())
        except (OSError, AttributeError, ValueError, TypeError, OverflowError):
            return None
        return self._known(status)

    def _known(self, status: os.stat_result) -> int | None:
        identity = _identity(status)
        node = self._of_identity.get(identity)
        if node is not None and status.st_nlink and not self.tree.path_of(node) and node != ROOT_NODE:
            # Its last name was taken away, so this is a new file that got the number of the old one.
            del self._of_identity[identity]
            return None
        return node

    def place_of(self, path: Any, dir_fd: int | None = None, *, follow: bool = False) -> FilePlace | None:
        """Which entry of the directory a path leads to; None where it leads elsewhere, or to the directory itself."""
        try:
            text = os.fsdecode(path)
            for _ in range(_LINKS_FOLLOWED):
                place = self._place(text, dir_fd)
                node = None if place is None else self.tree.found(*place)
                if not follow or node is None or not isinstance(self.tree.nodes[node], TreeLink):
                    return place
                text = os.path.join(os.path.dirname(text), os.fsdecode(self.tree.nodes[node].content))
        except (OSError, ValueError, TypeError):
            return None
        return None

    def _place(self, text: str, dir_fd: int | None) -> FilePlace | None:
        head, name = os.path.split(text.rstrip("/"))
        if name in {"", ".", ".."}:
            if dir_fd is not None and not os.path.isabs(text):
                return None
            head, name = os.path.split(os.path.realpath(text))
        directory = self._known(os.stat(head or ".", dir_fd=dir_fd))
        is_directory = directory is not None and isinstance(self.tree.nodes[directory], TreeDirectory)
        return FilePlace(directory, name) if directory is not None and is_directory else None

    def status_of(self, place: FilePlace) -> os.stat_result:
        """What the system says of an entry."""
        return os.lstat(os.path.join(self.root, self.tree.path_of(place.directory), place.name))

    def told_place(self, place: FilePlace) -> str:
        """The path of an entry, to be told."""
        return repr(os.path.join(self.tree.path_of(place.directory), place.name))

    def told_node(self, node: int) -> str:
        """The path of a file now, to be told."""
        return repr(self.tree.path_of(node) or ("." if node == ROOT_NODE else "(without a name)"))

    # Recording

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is done in here is recorded by whoever does it, in one piece."""
        with self.lock:
            self._own.depth = self.is_inside + 1
            try:
                yield
            finally:
                self._own.depth -= 1

    @property
    def is_inside(self) -> int:
        """Whether this thread is within a call that is recorded, and how deep."""
        depth: int = getattr(self._own, "depth", 0)
        return depth

    def record(
        self, words: str, *changes: TreeChange, touched: tuple[int, ...] = (), told: tuple[Any, ...] = ()
    ) -> None:
        """Take down a call that was carried out."""
        with self.lock:
            self.tree.count = len(self.calls) + 1
            for change in changes:
                change(self.tree)
            self.calls.append(RecordedCall(words, source_line(), changes, touched, told))

    def tell(self, value: Any) -> None:
        """Take down that a value was told as acknowledged: `function` calls it."""
        self.record(f"told({value!r:.60})", told=(copy.deepcopy(value),))

    def note_past(self, what: str) -> None:
        """Take down something that is done to the directory and cannot be recorded."""
        told = f"{what} at {source_line()}"
        if told not in self.past:
            self.past.append(told)

    def new_node(self, status: os.stat_result) -> int:
        """The number of a file that is new here."""
        node = len(self.tree.nodes)
        self._of_identity[_identity(status)] = node
        return node

    def opened(self, descriptor: int, place: FilePlace | None, flags: int) -> None:
        """Take down what opening a file has done: made it, or cut it."""
        status = os.fstat(descriptor)
        known = self._known(status)
        if flags & _TMPFILE == _TMPFILE and _TMPFILE:
            if place is not None or known is None:
                self.record("os.open(…, O_TMPFILE)", partial(FileTree.make_file, node=self.new_node(status)))
            return
        if place is not None and self.tree.found(*place) is None and flags & os.O_CREAT:
            node = self.new_node(status)
            self.record(
                f"open({self.told_place(place)}) makes it",
                partial(FileTree.make_file, node=node),
                partial(FileTree.name, names=[place.of(node)]),
                touched=(place.directory,),
            )
        elif known is not None and flags & os.O_TRUNC and self.tree.nodes[known].content:
            self.record(
                f"open({self.told_node(known)}) cuts it to nothing",
                partial(FileTree.resize, node=known, size_bytes=0),
                touched=(known,),
            )

    def synced_elsewhere(self, descriptor: Any) -> None:
        """Take down that a file which is not here was synced: it may be moved in."""
        status = os.fstat(descriptor if isinstance(descriptor, int) else descriptor.fileno())
        self._synced_elsewhere[_identity(status)] = (status.st_size, status.st_mtime_ns)

    def came_in(self, words: str, place: FilePlace) -> None:
        """Take down that a file from elsewhere got a name here."""
        status = self.status_of(place)
        if not stat.S_ISREG(status.st_mode):
            self.note_past(f"{words}, which is no regular file and comes from elsewhere")
            return
        content = Path(self.root, self.tree.path_of(place.directory), place.name).read_bytes()
        node = self.new_node(status)
        changes: list[TreeChange] = [
            partial(FileTree.make_file, node=node),
            partial(FileTree.write, node=node, offset=0, data=content),
        ]
        if self._synced_elsewhere.get(_identity(status)) == (status.st_size, status.st_mtime_ns):
            changes.append(partial(FileTree.sync, node=node))
        changes.append(partial(FileTree.name, names=[place.of(node)]))
        self.record(words, *changes, touched=(node, place.directory))

    def linked(self, words: str, place: FilePlace) -> None:
        """Take down that a file has another name here."""
        # Not by `_known`: what was opened without a name has its first one now.
        node = self._of_identity.get(_identity(self.status_of(place)))
        path = Path(self.root, self.tree.path_of(place.directory), place.name)
        if node is None or (path.is_file() and path.read_bytes() != self.tree.nodes[node].content):
            self.came_in(words, place)
        else:
            self.record(words, partial(FileTree.name, names=[place.of(node)]), touched=(place.directory,))


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def shortened(data: bytes) -> str:
    """The first bytes, to be told."""
    return f"{data[:24]!r}{'…' if len(data) > 24 else ''}"


def source_line() -> str:
    """The nearest line of code that is not the standard library's, nor ours: its file, its number, and itself."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return told_source(frame.f_code.co_filename, frame.f_lineno)


def is_library(filename: str) -> bool:
    """Whether a file is of the standard library, or of this folder."""
    if filename.startswith(("<", _OWN)):
        return True
    return filename.startswith(_LIBRARY) and not filename.startswith(_INSTALLED)


def told_source(filename: str, number: int) -> str:
    """A place in the code: the file, the number of the line, and the line where it can be read."""
    line = linecache.getline(filename, number).strip()
    shown = os.path.join(*Path(filename).parts[-2:])
    return f"{shown}:{number}{f': {line[:70]}' if line else ''}"
