"""Python's calls on files, for a while in the place of the real ones: they do the same, and have it recorded.

Each carries out the real call. What leads elsewhere than to the recorded directory is handed on at once.
"""

import fcntl
import io
import os
import sys
import tempfile
from abc import ABCMeta
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from interpreters.explore.files.recording import FilePlace, Recorder, shortened
from interpreters.explore.files.tree import FileTree

NAMES = (
    "copy_file_range", "fdatasync", "fsync", "ftruncate", "link", "mkdir", "open", "posix_fallocate", "pwrite",
    "pwritev", "remove", "rename", "replace", "rmdir", "sendfile", "splice", "symlink", "sync", "truncate", "unlink",
    "write", "writev",
)  # fmt: skip
"""The functions of `os` that are replaced, where the system has them."""

_WRITING = frozenset("wax+")
_SYNCED_AT_ONCE = os.O_SYNC | getattr(os, "O_DSYNC", 0)
_SYNCED_WRITE = getattr(os, "RWF_SYNC", 0) | getattr(os, "RWF_DSYNC", 0)
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)
_CAPABILITIES = ("supports_dir_fd", "supports_fd", "supports_follow_symlinks")


class _LikeFileIO(ABCMeta):
    """Files that were opened for reading are of the real class, and count as such all the same."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, RecordedFile.__mro__[1])

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, RecordedFile.__mro__[1])


class RecordedFile(io.FileIO, metaclass=_LikeFileIO):
    """The raw file under what `open` returns: what the buffers above it hand down is recorded."""

    _calls: "FileCalls"

    def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
        with self._calls.recorder.inside():
            if opener is None and not isinstance(file, int) and _WRITING & set(mode):
                opener = self._calls.opening
            super().__init__(file, mode, closefd, opener)

    def write(self, data: Any) -> Any:
        """Write what the system takes of these bytes."""
        return self._calls.written("write", self.fileno(), super().write, data)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file, or lengthen it by zeros."""
        size = self.tell() if size is None else size
        return int(self._calls.resized(self.fileno(), size, partial(super().truncate, size)))


class FileCalls:
    """The calls, one method for each of `NAMES`, beside `open_file` for `open`."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in NAMES if hasattr(os, name)}
        self._real_open = io.open
        self._file_class = type("FileIO", (RecordedFile,), {"_calls": self})
        self._real_fcntl = fcntl.fcntl

    def table(self) -> list[tuple[Any, Any]]:
        """The real functions, and what takes the place of each."""
        pairs: list[tuple[Any, Any]] = [(real, getattr(self, name)) for name, real in self._real.items()]
        pairs += [(self._real_open, self.open_file), (io.FileIO, self._file_class)]
        if _FULL_SYNC is not None:
            pairs.append((self._real_fcntl, self.full_sync))
        return pairs

    # Opening

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """`os.open`."""
        real = partial(self._real["open"], path, flags, mode, dir_fd=dir_fd)
        if self.recorder.is_over:
            return int(real())
        place = self.recorder.place_of(path, dir_fd, follow=not flags & os.O_NOFOLLOW)
        # What is opened elsewhere may wait, as a FIFO does, and nobody is to wait for that.
        descriptor = int(real()) if place is None else None
        with self.recorder.inside():
            if descriptor is None:
                descriptor = int(real())
            if place is not None or self.recorder.node_of(descriptor) is not None:
                self.recorder.opened(descriptor, place, flags)
        return descriptor

    def open_file(  # noqa: PLR0917 - as `open` has them
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        """`open`: the same layers of buffers, above a file whose writes are recorded."""
        if self.recorder.is_over or not self._is_recorded(file, mode, buffering, opener):
            return self._real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        is_binary = "b" in mode
        if is_binary and (encoding, errors, newline) != (None, None, None):
            # It refuses that before it opens anything.
            return self._real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = self._file_class(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if is_binary and buffering == 0:
            return raw
        try:
            size = buffering if buffering > 1 else max(io.DEFAULT_BUFFER_SIZE, os.fstat(raw.fileno()).st_blksize)
            buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, size)
            if is_binary:
                return buffered
            text = io.TextIOWrapper(buffered, io.text_encoding(encoding), errors, newline, buffering == 1)
        except BaseException:
            raw.close()
            raise
        text.mode = mode  # type: ignore[misc]
        return text

    def opening(self, path: Any, flags: int) -> int:
        """What a file is opened with where nobody says how."""
        return self.open(path, flags, 0o666)

    def _is_recorded(self, file: Any, mode: Any, buffering: Any, opener: Any) -> bool:
        if not isinstance(mode, str) or not isinstance(buffering, int) or not _is_mode(mode):
            return False
        if not _WRITING & set(mode) or ("b" not in mode and buffering == 0):
            return False
        if opener is not None:
            return True
        if isinstance(file, int):
            return self.recorder.node_of(file) is not None
        return self.recorder.place_of(file, follow=True) is not None or self._leads_in(file)

    def _leads_in(self, file: Any) -> bool:
        """Whether it is a link elsewhere that leads to a file of the directory."""
        try:
            return self.recorder.place_of(os.path.realpath(file)) is not None
        except (OSError, ValueError, TypeError):
            return False

    # Bytes

    def written(self, how: str, descriptor: Any, write: Callable[[Any], Any], data: Any) -> Any:
        """Write, and record as much as was written."""
        node = self._node(descriptor)
        if node is None:
            return write(data)
        with self.recorder.inside():
            written = write(data)
            if written:
                end = os.lseek(descriptor, 0, os.SEEK_CUR)
                self._wrote(how, descriptor, node, end - written, _first(data, written))
        return written

    def resized(self, descriptor: int, size: int, resize: Callable[[], Any]) -> Any:
        """Set a file's size, and record that."""
        node = self._node(descriptor)
        if node is None:
            return resize()
        with self.recorder.inside():
            answer = resize()
            self._resized(node, size)
        return answer

    def write(self, fd: int, data: Any, /) -> int:
        """`os.write`."""
        return int(self.written("os.write", fd, partial(self._real["write"], fd), data))

    def writev(self, fd: int, buffers: Any, /) -> int:
        """`os.writev`."""
        joined = b"".join(memoryview(buffer).cast("B") for buffer in buffers)
        return int(self.written("os.writev", fd, lambda _: self._real["writev"](fd, buffers), joined))

    def pwrite(self, fd: int, data: Any, offset: int, /) -> int:
        """`os.pwrite`."""
        return self._written_at("os.pwrite", fd, data, offset, partial(self._real["pwrite"], fd, data, offset))

    def pwritev(self, fd: int, buffers: Any, offset: int, flags: int = 0, /) -> int:
        """`os.pwritev`."""
        joined = b"".join(memoryview(buffer).cast("B") for buffer in buffers)
        real = partial(self._real["pwritev"], fd, buffers, offset, flags)
        return self._written_at("os.pwritev", fd, joined, offset, real, is_synced=bool(flags & _SYNCED_WRITE))

    def sendfile(self, out_fd: int, in_fd: int, offset: int | None, count: int, *others: Any, **named: Any) -> int:
        """`os.sendfile`."""
        real = partial(self._real["sendfile"], out_fd, in_fd, offset, count, *others, **named)
        if self._node(out_fd) is None:
            return int(real())
        data = _read_at(in_fd, count, offset)
        return int(self.written("os.sendfile", out_fd, lambda _: real(), data))

    def copy_file_range(
        self, src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None
    ) -> int:
        """`os.copy_file_range`."""
        real = partial(self._real["copy_file_range"], src, dst, count, offset_src, offset_dst)
        if self._node(dst) is None:
            return int(real())
        data = _read_at(src, count, offset_src)
        if offset_dst is None:
            return int(self.written("os.copy_file_range", dst, lambda _: real(), data))
        return self._written_at("os.copy_file_range", dst, data, offset_dst, real)

    def splice(self, src: int, dst: int, *others: Any, **named: Any) -> int:
        """`os.splice`, whose bytes nobody sees."""
        node = self._node(dst)
        if node is not None:
            self.recorder.note_past(f"os.splice to {self.recorder.told_node(node)}")
        return int(self._real["splice"](src, dst, *others, **named))

    def ftruncate(self, fd: int, length: int, /) -> None:
        """`os.ftruncate`."""
        self.resized(fd, length, partial(self._real["ftruncate"], fd, length))

    def truncate(self, path: Any, length: int) -> None:
        """`os.truncate`."""
        if isinstance(path, int):
            self.ftruncate(path, length)
            return
        place = self._place(path, None, follow=True)
        with self.recorder.inside():
            self._real["truncate"](path, length)
            node = None if place is None else self.recorder.tree.found(*place)
            if node is not None:
                self._resized(node, length)

    def posix_fallocate(self, fd: int, offset: int, length: int, /) -> None:
        """`os.posix_fallocate`."""
        node = self._node(fd)
        with self.recorder.inside():
            self._real["posix_fallocate"](fd, offset, length)
            if node is not None:
                grow = partial(FileTree.resize, node=node, size_bytes=offset + length, may_shrink=False)
                told = f"os.posix_fallocate({self.recorder.told_node(node)}, {offset}, {length})"
                self.recorder.record(told, grow, touched=(node,))

    def _resized(self, node: int, size: int) -> None:
        told = f"truncate {self.recorder.told_node(node)} to {size} bytes"
        self.recorder.record(told, partial(FileTree.resize, node=node, size_bytes=size), touched=(node,))

    def _written_at(
        self, how: str, fd: int, data: Any, offset: int, real: Callable[[], int], *, is_synced: bool = False
    ) -> int:
        node = self._node(fd)
        if node is None:
            return real()
        with self.recorder.inside():
            written = real()
            # Linux appends to a file that was opened to append, whatever the offset.
            is_append = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
            at = os.fstat(fd).st_size - written if is_append else offset
            self._wrote(how, fd, node, at, _first(data, written), is_synced=is_synced)
        return written

    def _wrote(self, how: str, fd: int, node: int, offset: int, data: bytes, *, is_synced: bool = False) -> None:
        is_synced = is_synced or bool(fcntl.fcntl(fd, fcntl.F_GETFL) & _SYNCED_AT_ONCE)
        told = f"{how} {len(data)} bytes at {offset} of {self.recorder.told_node(node)}: {shortened(data)}"
        changes = [partial(FileTree.write, node=node, offset=offset, data=data)]
        if is_synced:
            changes.append(partial(FileTree.sync, node=node))
        self.recorder.record(told, *changes, touched=(node,))

    # Syncs

    def fsync(self, fd: Any) -> None:
        """`os.fsync`."""
        self._synced("os.fsync", fd, self._real["fsync"])

    def fdatasync(self, fd: Any) -> None:
        """`os.fdatasync`."""
        self._synced("os.fdatasync", fd, self._real["fdatasync"])

    def full_sync(self, fd: Any, cmd: int, *others: Any) -> Any:
        """`fcntl.fcntl`, of which one command of macOS is a sync."""
        if cmd != _FULL_SYNC:
            return self._real_fcntl(fd, cmd, *others)
        return self._synced("F_FULLFSYNC", fd, lambda _: self._real_fcntl(fd, cmd, *others))

    def sync(self) -> None:
        """`os.sync`."""
        with self.recorder.inside():
            self._real["sync"]()
            if not self.recorder.is_over:
                self.recorder.record("os.sync()", FileTree.sync_all)

    def _synced(self, how: str, fd: Any, real: Callable[[Any], Any]) -> Any:
        node = self._node(fd)
        if node is None:
            answer = real(fd)
            if not self.recorder.is_over:
                self.recorder.synced_elsewhere(fd)
            return answer
        with self.recorder.inside():
            answer = real(fd)
            self.recorder.record(f"{how} of {self.recorder.told_node(node)}", partial(FileTree.sync, node=node))
        return answer

    # Names

    def rename(self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        """`os.rename`."""
        self._renamed("rename", src, dst, src_dir_fd, dst_dir_fd)

    def replace(self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        """`os.replace`."""
        self._renamed("replace", src, dst, src_dir_fd, dst_dir_fd)

    def _renamed(self, name: str, src: Any, dst: Any, src_dir_fd: int | None, dst_dir_fd: int | None) -> None:
        old, new = self._place(src, src_dir_fd), self._place(dst, dst_dir_fd)
        with self.recorder.inside():
            self._real[name](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            if old is None and new is None:
                return
            tree = self.recorder.tree
            told = f"os.{name}({self._told(old, src)}, {self._told(new, dst)})"
            if old is None:
                assert new is not None, "one of them is here"
                self.recorder.came_in(told, new)
                return
            node = tree.found(*old)
            if node is None or (new is not None and tree.found(*new) == node):
                # Of two names of one file, neither goes away.
                return
            names = [old.of(None)] if new is None else [old.of(None), new.of(node)]
            touched = (node, old.directory) if new is None else (node, new.directory, old.directory)
            self.recorder.record(told, partial(FileTree.name, names=names), touched=touched)

    def link(
        self,
        src: Any,
        dst: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """`os.link`."""
        new = self._place(dst, dst_dir_fd)
        with self.recorder.inside():
            self._real["link"](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
            if new is not None:
                old = self.recorder.place_of(src, src_dir_fd)
                self.recorder.linked(f"os.link({self._told(old, src)}, {self._told(new, dst)})", new)

    def symlink(self, src: Any, dst: Any, target_is_directory: bool = False, *, dir_fd: int | None = None) -> None:
        """`os.symlink`."""
        place = self._place(dst, dir_fd)
        with self.recorder.inside():
            self._real["symlink"](src, dst, target_is_directory, dir_fd=dir_fd)
            if place is not None:
                node = self.recorder.new_node(self.recorder.status_of(place))
                told = f"os.symlink({os.fspath(src)!r}, {self._told(place, dst)})"
                make = partial(FileTree.make_link, node=node, target=os.fsencode(src))
                self.recorder.record(
                    told, make, partial(FileTree.name, names=[place.of(node)]), touched=(place.directory,)
                )

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        """`os.mkdir`."""
        place = self._place(path, dir_fd)
        with self.recorder.inside():
            self._real["mkdir"](path, mode, dir_fd=dir_fd)
            if place is not None:
                node = self.recorder.new_node(self.recorder.status_of(place))
                above = self.recorder.tree.path_of(place.directory)
                make = partial(FileTree.make_directory, node=node, called=os.path.join(above, place.name))
                told = f"os.mkdir({self._told(place, path)})"
                self.recorder.record(
                    told, make, partial(FileTree.name, names=[place.of(node)]), touched=(place.directory,)
                )

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        """`os.unlink`."""
        self._removed("unlink", path, dir_fd)

    def remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        """`os.remove`."""
        self._removed("remove", path, dir_fd)

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        """`os.rmdir`."""
        self._removed("rmdir", path, dir_fd)

    def _removed(self, name: str, path: Any, dir_fd: int | None) -> None:
        place = self._place(path, dir_fd)
        with self.recorder.inside():
            self._real[name](path, dir_fd=dir_fd)
            if place is not None and self.recorder.tree.found(*place) is not None:
                told = f"os.{name}({self._told(place, path)})"
                self.recorder.record(told, partial(FileTree.name, names=[place.of(None)]), touched=(place.directory,))

    def _told(self, place: FilePlace | None, path: Any) -> str:
        return repr(os.fspath(path)) if place is None else self.recorder.told_place(place)

    def _place(self, path: Any, dir_fd: int | None, *, follow: bool = False) -> FilePlace | None:
        return None if self.recorder.is_over else self.recorder.place_of(path, dir_fd, follow=follow)

    def _node(self, fd: Any) -> int | None:
        return None if self.recorder.is_over else self.recorder.node_of(fd)


def _is_mode(mode: str) -> bool:
    """Whether `open` takes this mode."""
    kinds = set(mode)
    is_known = len(kinds) == len(mode) and kinds <= set("axrwb+t")
    return is_known and not {"b", "t"} <= kinds and len(kinds & set("axrw")) == 1


def _first(data: Any, size: int) -> bytes:
    return bytes(memoryview(data).cast("B")[:size])


def _read_at(fd: int, size: int, offset: int | None) -> bytes:
    return os.pread(fd, size, os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset)


@contextmanager
def patched(recorder: Recorder) -> Iterator[None]:
    """What is done in here, by any thread, is recorded; afterwards everything is as it was, whatever came."""
    pairs = FileCalls(recorder).table()
    # Random names would be other ones in each run.
    names = tempfile._name_sequence  # type: ignore[attr-defined]
    back = [(new, old) for old, new in pairs]
    try:
        tempfile._name_sequence = (f"{number:08}" for number in count(1))  # type: ignore[attr-defined]
        replace_everywhere(pairs)
        yield
    finally:
        # From here on each replacement only hands on, should anybody have kept one.
        recorder.is_over = True
        try:
            replace_everywhere(back)
        except BaseException:
            replace_everywhere(back)
            raise
        finally:
            tempfile._name_sequence = names  # type: ignore[attr-defined]


def replace_everywhere(pairs: list[tuple[Any, Any]]) -> None:
    """Put the second of each pair where the first one is: as a global name of any module, also one that imported it."""
    new_of = dict(pairs)
    modules = list(sys.modules.values())
    spaces = [space for module in modules if type(space := getattr(module, "__dict__", None)) is dict]
    found = [
        {name: new_of[value] for name, value in list(space.items()) if type(value) in _KINDS and value in new_of}
        for space in spaces
    ]
    sets = [getattr(os, name) for name in _CAPABILITIES]
    gone = [here & new_of.keys() for here in sets]
    # What removes temporary files keeps the function as a default.
    for function in vars(tempfile._TemporaryFileCloser).values():  # type: ignore[attr-defined]
        if isinstance(function, FunctionType) and function.__defaults__:
            function.__defaults__ = tuple(new_of.get(one, one) for one in function.__defaults__)
    # All at once, for an interrupt comes between two steps of Python only.
    deque(map(dict.update, spaces, found), maxlen=0)
    deque(map(set.difference_update, sets, gone), maxlen=0)
    deque(map(set.update, sets, [{new_of[one] for one in here} for here in gone]), maxlen=0)


_KINDS = (BuiltinFunctionType, FunctionType, MethodType, type, _LikeFileIO)
