"""The disk requests on a real directory: what each does, and what it does when the system gives less than all.

Short transfers and interruptions are made by replacing the system call: no real file system gives them on demand.
"""

import errno
import fcntl
import gc
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from interrupts import InterruptInside
from places import ROOT

from interpreters.disk import files as real_files
from interpreters.disk import real as real_disk
from interpreters.disk.real import RealDisk
from interpreters.disk.requests import (
    Allocate,
    CheckHeld,
    Create,
    ForeignFile,
    List,
    Lock,
    MakeDirectory,
    Modified,
    Read,
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
from persist_effects import perform, run

real_open, real_pread, real_pwrite = os.open, os.pread, os.pwrite

CHANGES = [
    MakeDirectory("new"),
    Create("new"),
    Write("there", 0, b"x"),
    Truncate("there", 0),
    Allocate("there", 100),
    Rename("there", "new"),
    Remove("there"),
    Lock("LOCK", "me"),
    Touch("there"),
]

CHANGES_BY_NAME = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.op)


@pytest.fixture
def disk(tmp_path):
    with closing(RealDisk(tmp_path)) as opened:
        yield opened


def ask(disk, *requests):
    """Perform requests in order; the last one's answer."""

    def program():
        answer = None
        for request in requests:
            answer = yield from perform(request)
        return answer

    return run(program(), disk.handlers)


def open_descriptors():
    # What tests before have left in cycles might be collected in between.
    gc.collect()
    return len(os.listdir("/dev/fd"))


def run_threads(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Each request


def test_what_was_written_is_read(disk, tmp_path):
    assert ask(disk, Create("a"), Write("a", 0, b"hello"), Sync("a"), Read("a", 1, 3)) == b"ell"
    assert (tmp_path / "a").read_bytes() == b"hello"


def test_a_touched_file_counts_as_modified_now_by_its_name(disk, tmp_path):
    ask(disk, Create("a"), Write("a", 0, b"hello"))
    os.utime(tmp_path / "a", (1_000, 1_000))
    assert ask(disk, Modified("a")) == 1_000_000_000
    assert ask(disk, Touch("a"), Modified("a")) == (tmp_path / "a").stat().st_mtime_ns // 1000 > 1_000_000_000
    assert [ask(disk, Modified(path)) for path in ("no", "no/no")] == [None, None]
    with pytest.raises(FileNotFoundError):
        ask(disk, Touch("no"))
    (tmp_path / "link").symlink_to("a")
    for request in (Touch("link"), Modified("link")):
        with pytest.raises(ForeignFile):
            ask(disk, request)


def test_what_the_system_was_asked_to_bring_to_the_disk_is_read_as_before(disk):
    ask(disk, Create("a"), Write("a", 0, b"hello" * 100_000), WriteBack("a", 0, 500_000), Sync("a"))
    assert ask(disk, Read("a", 0, 500_000)) == b"hello" * 100_000


def test_a_read_gives_less_only_where_the_file_ends(disk):
    ask(disk, Create("a"), Write("a", 0, b"hello"))
    assert ask(disk, Read("a", 3, 100)) == b"lo"
    assert ask(disk, Read("a", 5, 100)) == b""
    assert ask(disk, Read("a", 99, 100)) == b""
    assert ask(disk, Read("a", 0, 0)) == b""


def test_a_write_past_the_end_leaves_zeros_before_it(disk):
    assert ask(disk, Create("a"), Write("a", 3, b"x"), Read("a", 0, 9)) == b"\0\0\0x"


def test_nothing_can_be_written(disk):
    assert ask(disk, Create("a"), Write("a", 9, b""), Size("a")) == 0


def test_a_file_is_made_once(disk, tmp_path):
    ask(disk, Create("a"), Write("a", 0, b"kept"))
    with pytest.raises(FileExistsError) as caught:
        ask(disk, Create("a"))
    assert caught.value.filename == str(tmp_path / "a")
    assert ask(disk, Read("a", 0, 9)) == b"kept"


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("options", "files", "directories"),
    [({}, 0o600, 0o700), ({"permissions": 0o640}, 0o640, 0o750), ({"permissions": 0o666}, 0o666, 0o777)],
)
def test_what_is_made_is_for_its_owner_alone_unless_told_otherwise(tmp_path, options, files, directories):
    with umask(0), closing(RealDisk(tmp_path / "above/root", **options)) as disk:
        ask(disk, MakeDirectory("log"), Create("log/a"), Lock("LOCK", "me"))
    assert {modes_in(tmp_path)[name] for name in ("above", "above/root", "above/root/log")} == {directories}
    assert {modes_in(tmp_path)[f"above/root/{name}"] for name in ("log/a", "LOCK")} == {files}


def test_the_umask_is_taken_off(tmp_path):
    with umask(0o027), closing(RealDisk(tmp_path / "root", permissions=0o666)) as disk:
        ask(disk, MakeDirectory("log"), Create("a"))
    assert modes_in(tmp_path) == {"root": 0o750, "root/log": 0o750, "root/a": 0o640}


def modes_in(place):
    return {str(path.relative_to(place)): path.stat().st_mode & 0o777 for path in place.rglob("*")}


@pytest.mark.parametrize(
    "request_", [Write("no", 0, b"x"), Read("no", 0, 1), Sync("no"), Truncate("no", 0), Allocate("no", 9), Remove("no")]
)
def test_a_file_that_is_not_there_is_named_and_not_made(disk, tmp_path, request_):
    with pytest.raises(FileNotFoundError) as caught:
        ask(disk, request_)
    assert caught.value.filename == str(tmp_path / "no")
    assert ask(disk, List("")) == []


def test_a_file_is_cut_and_lengthened(disk):
    ask(disk, Create("a"), Write("a", 0, b"hello"), Truncate("a", 2))
    assert ask(disk, Read("a", 0, 9)) == b"he"
    assert ask(disk, Truncate("a", 4), Read("a", 0, 9)) == b"he\0\0"


def test_allocated_room_reads_as_zeros_and_never_shortens(disk):
    ask(disk, Create("a"), Write("a", 0, b"hello"), Allocate("a", 8))
    assert ask(disk, Read("a", 0, 99)) == b"hello\0\0\0"
    assert ask(disk, Allocate("a", 2), Size("a")) == 8


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_room_cannot_be_reserved_the_file_just_grows_later(disk, monkeypatch, code):
    monkeypatch.setattr(os, "posix_fallocate", failing(OSError(code, "cannot")), raising=False)
    assert ask(disk, Create("a"), Allocate("a", 8), Size("a")) == 0
    monkeypatch.delattr(os, "posix_fallocate")
    assert ask(disk, Allocate("a", 8), Size("a")) == 0


def test_a_renamed_file_takes_the_place_of_another(disk):
    ask(disk, Create("a"), Write("a", 0, b"new"), Create("b"), Write("b", 0, b"old"), Rename("a", "b"))
    assert ask(disk, Read("b", 0, 9)) == b"new"
    assert ask(disk, List(".")) == ["b"]
    with pytest.raises(FileNotFoundError):
        ask(disk, Read("a", 0, 9))


def test_a_rename_of_nothing_names_both_and_keeps_the_target(disk, tmp_path):
    ask(disk, Create("b"), Write("b", 0, b"old"))
    with pytest.raises(FileNotFoundError) as caught:
        ask(disk, Rename("a", "b"))
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert ask(disk, Read("b", 0, 9)) == b"old"


def test_a_name_that_is_used_again_means_the_new_file(disk):
    ask(disk, Create("a"), Write("a", 0, b"old"), Remove("a"), Create("a"))
    assert ask(disk, Read("a", 0, 9)) == b""


def test_directories_are_made_once_and_listed_in_order(disk):
    ask(disk, MakeDirectory("log"), Create("log/2"), Create("log/10"), Create("log/1"), MakeDirectory("log"))
    assert ask(disk, List("log")) == ["1", "10", "2"]
    assert ask(disk, List("")) == ["log"]


def test_a_directory_is_not_made_over_a_file_nor_without_the_one_above(disk):
    ask(disk, Create("a"))
    with pytest.raises(FileExistsError):
        ask(disk, MakeDirectory("a"))
    with pytest.raises(FileNotFoundError):
        ask(disk, MakeDirectory("x/y"))


def test_only_directories_are_listed(disk):
    ask(disk, Create("a"))
    with pytest.raises(ForeignFile, match="a file stands where a directory of the store belongs"):
        ask(disk, List("a"))
    with pytest.raises(FileNotFoundError):
        ask(disk, List("no"))


def test_size_is_of_files_only(disk):
    ask(disk, MakeDirectory("log"), Create("a"), Write("a", 0, b"hello"))
    assert [ask(disk, Size(path)) for path in ("a", "no", "log/no", "no/no")] == [5, None, None, None]
    for path in ("", "log", "a/no"):
        with pytest.raises(ForeignFile):
            ask(disk, Size(path))


def test_directories_are_synced(disk, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    ask(disk, MakeDirectory("log"), SyncDirectory("log"), SyncDirectory(""), SyncDirectory("."))
    root, log = (os.stat(disk._root).st_ino, os.stat(f"{disk._root}/log").st_ino)
    assert synced == [log, root, root]
    with pytest.raises(FileNotFoundError):
        ask(disk, SyncDirectory("no"))
    with pytest.raises(ForeignFile):
        ask(disk, Create("a"), SyncDirectory("a"))


def test_a_sync_syncs_its_own_file(disk, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda number: synced.append(os.fstat(number).st_ino), raising=False)
    ask(disk, Create("a"), Create("b"), Sync("b"))
    assert synced == [os.stat(f"{disk._root}/b").st_ino]


def test_a_sync_is_an_fsync_where_there_is_no_better(disk, monkeypatch):
    synced = []
    monkeypatch.delattr(os, "fdatasync", raising=False)
    monkeypatch.setattr(os, "fsync", synced.append)
    ask(disk, Create("a"), Sync("a"))
    assert len(synced) == 1


# The root and the paths under it


def test_a_missing_root_is_made_and_synced_into_the_directories_above(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    RealDisk(tmp_path / "var/orders").close()
    assert synced == [tmp_path.parent.stat().st_ino, tmp_path.stat().st_ino, (tmp_path / "var").stat().st_ino]
    # An empty root may be one whose sync a crash forestalled. One that is in use was synced.
    synced.clear()
    RealDisk(tmp_path / "var/orders").close()
    assert synced == [(tmp_path / "var").stat().st_ino]
    (tmp_path / "var/orders/CURRENT").touch()
    RealDisk(tmp_path / "var/orders").close()
    assert len(synced) == 1


def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        RealDisk(tmp_path / "file")


def test_a_relative_root_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(RealDisk("store")) as disk:
        monkeypatch.chdir("/")
        ask(disk, Create("a"))
    assert (tmp_path / "store/a").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "../x", "log/../../x", "log/..", "./a", "log//a", "log/"])
def test_a_path_that_leaves_the_root_or_has_an_alias_is_refused(disk, path):
    ask(disk, MakeDirectory("log"))
    for request in [Create(path), Read(path, 0, 1), Lock(path, "me"), List(path), Size(path), Rename("a", path)]:
        with pytest.raises(ValueError, match="is not a path inside of"):
            ask(disk, request)


def test_names_may_hold_dots(disk):
    assert ask(disk, Create("..a"), Create("b..c"), List("")) == ["..a", "b..c"]


# What is not a file of a store is left alone


def put_link(place, target):
    place.symlink_to(target)


def put_dangling_link(place, target):
    place.symlink_to(target.with_name("not there"))


def put_fifo(place, target):
    os.mkfifo(place)


def put_socket(place, target):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))


def put_directory(place, target):
    place.mkdir()


FOREIGN = pytest.mark.parametrize(
    ("put", "kind"),
    [
        (put_link, "a symbolic link"),
        (put_dangling_link, "a symbolic link"),
        (put_fifo, "a FIFO"),
        (put_socket, "a socket"),
        (put_directory, "a directory"),
    ],
)


@FOREIGN
@pytest.mark.parametrize("read_only", [False, True], ids=["to write", "to read"])
def test_what_stands_in_the_place_of_a_file_is_neither_opened_nor_waited_for(tmp_path, put, kind, read_only):
    target, root = tmp_path / "target", tmp_path / "root"
    target.write_bytes(b"not ours")
    root.mkdir()
    put(root / "a", target)
    requests = [Read("a", 0, 9), Sync("a"), Size("a")]
    requests += [] if read_only else [Write("a", 0, b"x"), Truncate("a", 0), Allocate("a", 9), Lock("a", "me")]
    requests += [] if read_only else [Rename("a", "b")]
    before = open_descriptors()
    with closing(RealDisk(root, read_only=read_only)) as disk:
        for request in requests:
            with pytest.raises(ForeignFile, match=f"{kind} stands where a file of the store belongs") as caught:
                ask(disk, request)
            assert caught.value.filename == str(root / "a")
        assert disk.keep_writers_away("a") is None
    del caught  # and with it the frames that have the root
    assert open_descriptors() == before
    assert target.read_bytes() == b"not ours"
    assert (os.listdir(root), sorted(os.listdir(tmp_path))) == (["a"], ["root", "target"])


@FOREIGN
def test_what_stands_in_the_place_of_a_file_is_not_written_over(disk, tmp_path, put, kind):
    target = tmp_path.parent / f"{tmp_path.name} target"
    target.write_bytes(b"not ours")
    put(tmp_path / "a", target)
    with pytest.raises(FileExistsError):
        ask(disk, Create("a"))
    assert target.read_bytes() == b"not ours"


def test_the_link_is_removed_and_not_what_it_leads_to(disk, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    (tmp_path / "a").symlink_to(target)
    ask(disk, Remove("a"))
    assert os.listdir(tmp_path) == ["target"]
    with pytest.raises(ForeignFile):
        ask(disk, MakeDirectory("log"), Remove("log"))


@pytest.mark.parametrize("put", [put_link, put_fifo])
def test_no_link_and_no_fifo_is_taken_for_a_directory(disk, tmp_path, put):
    target = tmp_path.parent / f"{tmp_path.name} target"
    (target / "in").mkdir(parents=True)
    (target / "a").write_bytes(b"not ours")
    put(tmp_path / "log", target)
    for request in [List("log"), SyncDirectory("log"), Size("log/a"), Read("log/a", 0, 9), Create("log/b")]:
        with pytest.raises(ForeignFile, match="stands where a directory of the store belongs") as caught:
            ask(disk, request)
        assert caught.value.filename == str(tmp_path / "log")
    with pytest.raises(FileExistsError):
        ask(disk, MakeDirectory("log"))
    assert sorted(os.listdir(target)) == ["a", "in"]


def test_a_link_that_is_put_there_while_a_file_is_opened_is_not_followed(disk, tmp_path, monkeypatch):
    ask(disk, Create("a"), Write("a", 0, b"ours"), Rename("a", "b"))
    (tmp_path / "target").write_bytes(b"not ours")

    def replace_and_open(name, *arguments, **options):
        (tmp_path / "b").unlink()
        (tmp_path / "b").symlink_to("target")
        return real_open(name, *arguments, **options)

    monkeypatch.setattr(os, "open", replace_and_open)
    with pytest.raises(OSError, match=r"b'$"):
        ask(disk, Write("b", 0, b"x"))
    assert (tmp_path / "target").read_bytes() == b"not ours"


# What is held


def test_a_root_that_was_moved_away_is_still_the_one_that_is_written(tmp_path):
    with closing(RealDisk(tmp_path / "root")) as disk:
        ask(disk, MakeDirectory("log"), Create("log/1"), Create("a"), Lock("LOCK", "me"))
        (tmp_path / "root").rename(tmp_path / "moved")
        (tmp_path / "root/log").mkdir(parents=True)
        ask(disk, Create("b"), Rename("a", "c"), Remove("log/1"), Create("log/2"), SyncDirectory("log"))
        assert (ask(disk, List("")), ask(disk, List("log"))) == (["LOCK", "b", "c", "log"], ["2"])
    assert sorted(os.listdir(tmp_path / "moved")) == ["LOCK", "b", "c", "log"]
    assert (os.listdir(tmp_path / "root"), os.listdir(tmp_path / "root/log")) == (["log"], [])


def remove_root(place):
    shutil.rmtree(place)


def replace_root(place):
    place.rename(place.with_name("moved"))
    shutil.copytree(place.with_name("moved"), place)


def remove_lock(place):
    (place / "LOCK").unlink()


def replace_lock(place):
    (place / "LOCK").rename(place / "OLD")
    shutil.copy(place / "OLD", place / "LOCK")


def remove_file(place):
    (place / "log/1").unlink()


def replace_directory(place):
    (place / "log").rename(place / "old log")
    shutil.copytree(place / "old log", place / "log")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (remove_root, "root"),
        (replace_root, "root"),
        (remove_lock, "root/LOCK"),
        (replace_lock, "root/LOCK"),
        (remove_file, "root/log/1"),
        (replace_directory, "root/log/1"),
    ],
)
def test_it_is_told_when_what_is_held_is_not_what_is_there(tmp_path, change, what):
    with closing(RealDisk(tmp_path / "root")) as disk:
        ask(disk, MakeDirectory("log"), Create("log/1"), Lock("LOCK", "me"), CheckHeld("log/1"))
        change(tmp_path / "root")
        with pytest.raises(OSError, match="was removed") as caught:
            ask(disk, CheckHeld("log/1"))
        assert (caught.value.errno, caught.value.filename) == (errno.ESTALE, str(tmp_path / what))


@pytest.mark.parametrize("change", [remove_file, replace_directory])
def test_it_is_told_where_the_system_does_not_say_what_a_descriptor_is_called(tmp_path, monkeypatch, change):
    monkeypatch.setattr(real_files, "_link_of", lambda number: None)
    test_it_is_told_when_what_is_held_is_not_what_is_there(tmp_path, change, "root/log/1")


def test_the_times_of_a_file_in_its_place_are_looked_at_once_because_its_next_sync_would_take_longer(
    tmp_path, monkeypatch
):
    looks = []
    look = os.stat
    with closing(RealDisk(tmp_path)) as disk:
        ask(disk, MakeDirectory("log"), Create("log/1"), Lock("LOCK", "me"))
        monkeypatch.setattr(os, "stat", lambda path, **options: (looks.append(str(path)), look(path, **options))[1])
        for _ in range(3):
            ask(disk, Write("log/1", 0, b"x"), Sync("log/1"), CheckHeld("log/1"))
        assert looks.count("1") == (1 if sys.platform == "linux" else 3)
        (tmp_path / "log/1").rename(tmp_path / "log/2")
        (tmp_path / "log/2").rename(tmp_path / "log/1")
        ask(disk, CheckHeld("log/1"))


def test_a_reader_is_told_so_too(tmp_path):
    (tmp_path / "root/log").mkdir(parents=True)
    (tmp_path / "root/log/1").write_bytes(b"x")
    for change in (replace_directory, replace_root):
        with closing(RealDisk(tmp_path / "root", read_only=True)) as disk:
            ask(disk, Read("log/1", 0, 9), CheckHeld(""))
            change(tmp_path / "root")
            with pytest.raises(OSError, match="was removed, moved away or replaced"):
                ask(disk, CheckHeld(""))


def test_a_link_on_the_way_to_the_root_may_be_there_and_may_not_be_switched(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("one")
    with closing(RealDisk(tmp_path / "link/root")) as disk:
        ask(disk, Lock("LOCK", "me"), CheckHeld("LOCK"))
        (tmp_path / "other/root").mkdir()
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("other")
        with pytest.raises(OSError, match="was removed, moved away or replaced"):
            ask(disk, CheckHeld("LOCK"))
        ask(disk, Create("a"))
    assert os.listdir(tmp_path / "other/root") == []


def test_a_file_that_is_opened_again_is_the_one_that_was_opened_before(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(real_disk, "OPEN_FILES_LIMIT", 1)
    ask(disk, Create("a"), Create("b"), Rename("b", "c"), Create("b"))
    (tmp_path / "old").write_bytes(b"another's")
    (tmp_path / "old").rename(tmp_path / "a")
    with pytest.raises(OSError, match="another file stands here than the one that was opened before"):
        ask(disk, Write("a", 0, b"x"))
    assert (tmp_path / "a").read_bytes() == b"another's"
    ask(disk, Write("c", 0, b"x"), Sync("c"), Write("b", 0, b"y"), Sync("b"))
    ask(disk, Remove("a"), Create("a"), Write("a", 0, b"z"))


def test_the_lock_is_of_the_file_that_is_there_and_not_of_one_that_was_removed_meanwhile(disk, tmp_path, monkeypatch):
    flock, removed = fcntl.flock, []

    def remove_and_lock(number, how):
        if not removed and how != fcntl.LOCK_UN:
            removed.append((tmp_path / "LOCK").unlink())
        return flock(number, how)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    assert ask(disk, Lock("LOCK", "me"), CheckHeld("LOCK"), Read("LOCK", 0, 9)) == b"me"
    assert len(removed) == 1


# Less than all, and errors


def failing(error, times=None):
    """A system call that fails so many times, or always, and then does nothing."""
    calls = []

    def call(*_):
        calls.append(None)
        if times is None or len(calls) <= times:
            raise error

    return call


def in_bits(call, most):
    """A transfer that is interrupted every second time, and in between moves only a few bytes."""
    calls = []

    def transfer(number, what, offset):
        calls.append(offset)
        if len(calls) % 2:
            raise InterruptedError(errno.EINTR, "interrupted")
        return call(number, what[:most] if isinstance(what, bytes | memoryview) else min(what, most), offset)

    return transfer


@pytest.mark.parametrize("most", [1, 3, 7])
def test_short_and_interrupted_writes_go_on_where_they_stopped(disk, tmp_path, monkeypatch, most):
    data = bytes(range(50))
    monkeypatch.setattr(os, "pwrite", in_bits(real_pwrite, most))
    ask(disk, Create("a"), Write("a", 0, data), Write("a", 50, data))
    assert (tmp_path / "a").read_bytes() == data * 2


@pytest.mark.parametrize("most", [1, 3, 7])
def test_short_and_interrupted_reads_go_on_to_the_end(disk, monkeypatch, most):
    data = bytes(range(50))
    ask(disk, Create("a"), Write("a", 0, data))
    monkeypatch.setattr(os, "pread", in_bits(real_pread, most))
    assert ask(disk, Read("a", 0, 50)) == data
    assert ask(disk, Read("a", 20, 100)) == data[20:]
    assert ask(disk, Read("a", 10, 9)) == data[10:19]


def test_interrupted_syncs_are_repeated(disk, monkeypatch):
    calls = Counter()

    def interrupted(name):
        def sync(_):
            calls[name] += 1
            if calls[name] <= 2:
                raise InterruptedError(errno.EINTR, "interrupted")

        return sync

    for name in ("fdatasync", "fsync"):
        monkeypatch.setattr(os, name, interrupted(name), raising=False)
    ask(disk, Create("a"), Sync("a"), SyncDirectory(""))
    assert calls == {"fdatasync": 3, "fsync": 3}


def test_a_write_that_moves_nothing_is_an_error_and_not_a_loop(disk, tmp_path, monkeypatch):
    ask(disk, Create("a"))
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(OSError, match="0 of 5 bytes were written at 7") as caught:
        ask(disk, Write("a", 7, b"hello"))
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / "a"))


def test_an_error_after_a_short_write_is_raised(disk, monkeypatch):
    ask(disk, Create("a"))
    answers = iter([2, OSError(errno.ENOSPC, "full")])

    def pwrite(*_):
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="full") as caught:
        ask(disk, Write("a", 0, b"hello"))
    assert caught.value.errno == errno.ENOSPC


def test_an_error_in_the_middle_of_a_read_is_no_end_of_file(disk, monkeypatch):
    ask(disk, Create("a"), Write("a", 0, b"hello"))

    def pread(number, _, offset):
        if offset:
            raise OSError(errno.EIO, "bad sector")
        return real_pread(number, 2, offset)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(OSError, match="bad sector"):
        ask(disk, Read("a", 0, 5))


CALLS = [
    ("pwrite", Write("a", 0, b"x")),
    ("pread", Read("a", 0, 1)),
    ("fdatasync", Sync("a")),
    ("ftruncate", Truncate("a", 0)),
    ("posix_fallocate", Allocate("a", 9)),
]


@pytest.mark.parametrize(("call", "request_"), [*CALLS, ("fsync", SyncDirectory("log"))])
def test_errors_of_calls_on_descriptors_name_the_file(disk, tmp_path, monkeypatch, call, request_):
    ask(disk, Create("a"), MakeDirectory("log"))
    monkeypatch.setattr(os, call, failing(OSError(errno.EIO, "broken")), raising=False)
    with pytest.raises(OSError, match=r"broken: '.*/") as caught:
        ask(disk, request_)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / request_.path))


@pytest.mark.parametrize(("call", "request_"), CALLS)
def test_an_error_that_is_kept_does_not_keep_the_file_open(disk, monkeypatch, call, request_):
    before = open_descriptors()
    ask(disk, Create("a"))
    monkeypatch.setattr(os, call, failing(OSError(errno.EIO, "broken")), raising=False)
    with pytest.raises(OSError, match="broken") as caught:
        ask(disk, request_)
    ask(disk, Remove("a"))
    assert open_descriptors() == before
    assert caught.value.__traceback__ is not None


# Reading only


@CHANGES_BY_NAME
def test_a_disk_that_only_reads_changes_nothing(tmp_path, change):
    (tmp_path / "there").write_bytes(b"old")
    with closing(RealDisk(tmp_path, read_only=True)) as disk:
        with pytest.raises(PermissionError, match="the disk was opened to read only") as caught:
            ask(disk, change)
        assert Path(caught.value.filename).parent == tmp_path
        assert ask(disk, Read("there", 0, 9)) == b"old"
        ask(disk, Sync("there"), SyncDirectory(""))
        assert (ask(disk, List("")), ask(disk, Size("there"))) == (["there"], 3)


def test_a_disk_that_only_reads_does_not_make_its_root(tmp_path):
    with closing(RealDisk(tmp_path / "no", read_only=True)) as disk:
        assert ask(disk, Size("CURRENT")) is None
        with pytest.raises(FileNotFoundError):
            ask(disk, List(""))
    assert not (tmp_path / "no").exists()


def test_a_reader_follows_what_the_writer_replaced_and_removed(disk, tmp_path):
    # The backup's link keeps the replaced file's link count above zero.
    ask(disk, Create("CURRENT"), Write("CURRENT", 0, b"1"), Create("old"), Write("old", 0, b"x"))
    os.link(tmp_path / "CURRENT", tmp_path / "backup")
    with closing(RealDisk(tmp_path, read_only=True)) as reader:
        before = open_descriptors()
        assert (ask(reader, Read("CURRENT", 0, 9)), ask(reader, Read("old", 0, 9))) == (b"1", b"x")
        ask(disk, Create("CURRENT.tmp"), Write("CURRENT.tmp", 0, b"2"), Rename("CURRENT.tmp", "CURRENT"), Remove("old"))
        assert ask(reader, Read("CURRENT", 0, 9)) == b"2"
        # The writer let go of both files, and so did the reader of the one that it did not ask for again.
        assert open_descriptors() == before - 2 + 1
        with pytest.raises(FileNotFoundError):
            ask(reader, Read("old", 0, 9))
        ask(disk, Remove("CURRENT"))
        with pytest.raises(FileNotFoundError):
            ask(reader, Read("CURRENT", 0, 9))


# Descriptors


def test_close_gives_back_every_descriptor_and_may_be_repeated(tmp_path):
    before = open_descriptors()
    disk = RealDisk(tmp_path)
    ask(disk, Lock("LOCK", "me"), SyncDirectory(""), *(Create(f"{number}") for number in range(20)))
    ask(disk, MakeDirectory("log"), Create("log/a"), Create("log/b"), List("log"))
    held = ["the root", "log", "log/a", "log/b", "LOCK"]
    assert open_descriptors() == before + 20 + len(held)
    disk.close()
    assert open_descriptors() == before
    disk.close()


@pytest.mark.parametrize("request_", [*CHANGES, Read("there", 0, 1), Sync("there"), List(""), Size("there")])
def test_a_closed_disk_answers_nothing(tmp_path, request_):
    disk = RealDisk(tmp_path)
    ask(disk, Create("there"))
    disk.close()
    with pytest.raises(OSError, match="the disk is closed"):
        ask(disk, request_)
    assert os.listdir(tmp_path) == ["there"]


def test_remove_and_rename_close_what_was_open(disk):
    before = open_descriptors()
    ask(disk, Create("a"), Create("b"), Create("c"), Remove("a"), Rename("b", "c"))
    assert open_descriptors() == before


def test_descriptors_are_not_inherited_by_other_programs(disk):
    ask(disk, Create("a"), Lock("LOCK", "me"))
    files = [*disk._files.values(), *disk._held_locks]
    assert [os.get_inheritable(file.number) for file in files] == [False, False]


def test_open_files_are_bounded_but_for_the_unsynced(disk, monkeypatch):
    monkeypatch.setattr(real_disk, "OPEN_FILES_LIMIT", 3)
    before = open_descriptors()
    names = [f"{number}" for number in range(8)]
    for name in names:
        ask(disk, Create(name), Write(name, 0, name.encode()))
    assert open_descriptors() == before + 8
    ask(disk, *map(Sync, names))
    for name in names * 2:
        assert ask(disk, Read(name, 0, 9)) == name.encode()
    ask(disk, Create("new"))
    assert open_descriptors() == before + 3


def test_a_file_is_closed_after_the_read_in_it_and_not_before(disk, monkeypatch):
    # The reader stands inside of pread while the file is removed, and another takes its name and could take its number.
    meet = threading.Barrier(2)

    def pread(*arguments):
        meet.wait()
        meet.wait()
        return real_pread(*arguments)

    ask(disk, Create("a"), Write("a", 0, b"old"))
    before = open_descriptors()
    monkeypatch.setattr(os, "pread", pread)
    got = []
    reader = threading.Thread(target=lambda: got.append(ask(disk, Read("a", 0, 3))))
    reader.start()
    meet.wait()
    ask(disk, Remove("a"), Create("a"), Write("a", 0, b"new"))
    assert open_descriptors() == before + 1
    meet.wait()
    reader.join()
    assert got == [b"old"]
    assert open_descriptors() == before


@pytest.mark.parametrize("end", ["remove", "rename", "close"])
def test_the_end_of_a_file_in_use_waits_for_its_last_reader(tmp_path, monkeypatch, end):
    readers = 3
    meet = threading.Barrier(readers + 1)

    def pread(*arguments):
        meet.wait()
        meet.wait()
        return real_pread(*arguments)

    before = open_descriptors()
    disk = RealDisk(tmp_path)
    ask(disk, Create("a"), Write("a", 0, b"old"), Create("b"))
    monkeypatch.setattr(os, "pread", pread)
    got = []
    threads = [threading.Thread(target=lambda: got.append(ask(disk, Read("a", 0, 3)))) for _ in range(readers)]
    for thread in threads:
        thread.start()
    meet.wait()
    {"remove": lambda: ask(disk, Remove("a")), "rename": lambda: ask(disk, Rename("b", "a")), "close": disk.close}[
        end
    ]()
    meet.wait()
    for thread in threads:
        thread.join()
    disk.close()
    assert got == [b"old"] * readers
    assert open_descriptors() == before


def test_two_threads_that_miss_a_file_open_it_once(disk, monkeypatch):
    # The one descriptor is the one that a failed writeback would be reported to.
    ask(disk, Create("a"), Rename("a", "b"))
    both_missed = threading.Barrier(2)
    missed = disk._open
    opened = []

    def open_after_both_missed(path):
        both_missed.wait()
        return missed(path)

    def open_and_count(*arguments, **options):
        opened.append(arguments)
        return real_open(*arguments, **options)

    monkeypatch.setattr(disk, "_open", open_after_both_missed)
    monkeypatch.setattr(os, "open", open_and_count)
    run_threads([threading.Thread(target=ask, args=(disk, Write("b", at, b"x"))) for at in range(2)])
    assert len(opened) == 1
    assert ask(disk, Read("b", 0, 9)) == b"xx"


def replace_often(disk, name):
    for turn in range(60):
        temporary = f"{name}.tmp"
        ask(disk, Create(temporary), Write(temporary, 0, b"%c" % (97 + turn % 26) * 64), Sync(temporary))
        ask(disk, Rename(temporary, name))
        if turn % 3 == 0:
            ask(disk, Remove(name))


def what_is_not_whole(disk, name):
    for _ in range(400):
        try:
            found = ask(disk, Read(name, 0, 99))
        except FileNotFoundError:
            continue
        if len(found) != 64 or len(set(found)) != 1:
            yield found


def test_under_many_threads_a_read_is_whole_or_of_no_file(disk, monkeypatch):
    # Whatever the order: each file is full of one byte, under a name that is used over and over.
    monkeypatch.setattr(real_disk, "OPEN_FILES_LIMIT", 2)
    before = open_descriptors()
    begin = threading.Barrier(6)
    wrong = []

    def together(work, *arguments):
        begin.wait()
        wrong.extend(work(*arguments) or ())

    works = [(replace_often, disk, "a"), (replace_often, disk, "b")]
    works += [(what_is_not_whole, disk, name) for name in ("a", "b", "a", "b")]
    run_threads([threading.Thread(target=together, args=work) for work in works])
    assert wrong == []
    assert open_descriptors() <= before + 2
    for name in ask(disk, List("")):
        ask(disk, Remove(name))
    assert open_descriptors() == before


# Locks

HOLDER = """
import sys
from interpreters.disk.requests import Lock
from interpreters.disk.real import RealDisk
disk = RealDisk(sys.argv[1])
print(disk.handlers[Lock](Lock("LOCK", "holder one")), flush=True)
sys.stdin.readline()
disk.close()
print("closed", flush=True)
sys.stdin.readline()
"""


@contextmanager
def holder(root):
    """Another process that holds the lock until a line comes, and lives until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout.readline() == "None\n"
        yield process
        process.stdin.close()


def test_a_lock_is_held_until_the_holder_closes(disk, tmp_path):
    with holder(tmp_path) as process:
        assert ask(disk, Lock("LOCK", "holder two")) == "holder one"
        process.stdin.write("\n")
        assert process.stdout.readline() == "closed\n"
        assert ask(disk, Lock("LOCK", "two")) is None
        assert (tmp_path / "LOCK").read_text() == "two"


def test_a_killed_holder_holds_nothing(disk, tmp_path):
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert ask(disk, Lock("LOCK", "two")) is None


def test_a_second_lock_is_refused_in_the_same_process_too(disk, tmp_path):
    before = open_descriptors()
    assert ask(disk, Lock("LOCK", "one")) is None
    with closing(RealDisk(tmp_path)) as other:
        assert ask(other, Lock("LOCK", "two")) == "one"
        assert ask(disk, Lock("LOCK", "two")) == "one"
        held = ["the lock", "the root of the other"]
        assert open_descriptors() == before + len(held)
        disk.close()
        assert ask(other, Lock("LOCK", "two")) is None


def test_close_ends_the_lock_though_a_copy_of_its_descriptor_lives_on(disk, tmp_path):
    # As in a subprocess between its fork and its exec.
    ask(disk, Lock("LOCK", "one"))
    copy = os.dup(disk._held_locks[0].number)
    try:
        disk.close()
        with closing(RealDisk(tmp_path)) as other:
            assert ask(other, Lock("LOCK", "two")) is None
    finally:
        os.close(copy)


def test_a_holder_that_is_no_utf_8_is_told_as_well_as_can_be(disk, tmp_path):
    ask(disk, Lock("LOCK", "one"))
    (tmp_path / "LOCK").write_bytes(b"caf\xe9")
    with closing(RealDisk(tmp_path)) as other:
        assert ask(other, Lock("LOCK", "two")) == "caf\ufffd"


def test_a_lock_whose_holder_cannot_be_written_is_not_held(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", failing(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full") as caught:
        ask(disk, Lock("LOCK", "one"))
    monkeypatch.undo()
    with closing(RealDisk(tmp_path)) as other:
        assert ask(other, Lock("LOCK", "two")) is None
    assert caught.value.filename == str(tmp_path / "LOCK")


def test_a_disk_that_is_closed_while_it_takes_a_lock_does_not_keep_it(disk, tmp_path, monkeypatch):
    def pwrite(*arguments):
        disk.close()
        return real_pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="the disk is closed"):
        ask(disk, Lock("LOCK", "one"))
    monkeypatch.undo()
    with closing(RealDisk(tmp_path)) as other:
        assert ask(other, Lock("LOCK", "two")) is None


# Forks


@contextmanager
def forked(*functions):
    """Fork, and let the child call a function, and tell its text, each time it is asked. It lives until the block ends.

    Gives the child's process id and the function that asks.
    """
    ours, theirs = socket.socketpair()
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads; here no thread holds what the child needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            for function in functions:
                theirs.recv(1)
                theirs.sendall(f"{function()}\n".encode())
            theirs.recv(1)
        finally:
            os._exit(0)
    theirs.close()
    try:
        with ours, ours.makefile("r") as texts:

            def ask_child():
                ours.sendall(b"?")
                return texts.readline().rstrip("\n")

            yield pid, ask_child
    finally:
        os.waitpid(pid, 0)


def identity_of(number):
    try:
        found = os.fstat(number)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def error_of(disk, request):
    try:
        return f"answered {ask(disk, request)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@CHANGES_BY_NAME
def test_a_forked_child_changes_nothing(disk, tmp_path, change):
    ask(disk, Create("there"), Write("there", 0, b"old"))
    with forked(lambda: error_of(disk, change)) as (pid, ask_child):
        assert ask_child().startswith(
            f"PermissionError: [Errno 1] process {os.getpid()} opened the disk, and process {pid}, a fork of it, "
            f"may only read: open it anew: '{tmp_path}/"
        )
    assert ask(disk, Read("there", 0, 9)) == b"old"
    assert ask(disk, List("")) == ["there"]
    ask(disk, change)


def test_a_forked_child_reads_on_though_another_thread_was_opening_a_file(disk):
    ask(disk, Create("a"), Write("a", 0, b"hello"))
    disk._lock.acquire()
    try:
        with forked(lambda: error_of(disk, Read("a", 0, 9))) as (_, ask_child):
            assert ask_child() == "answered b'hello'"
    finally:
        disk._lock.release()


def test_a_forked_child_follows_what_its_parent_replaces(disk):
    ask(disk, Create("a"), Write("a", 0, b"old"))
    look = partial(ask, disk, Read("a", 0, 9))
    with forked(look, look) as (_, ask_child):
        assert ask_child() == "b'old'"
        ask(disk, Create("b"), Write("b", 0, b"new"), Rename("b", "a"))
        assert ask_child() == "b'new'"


def test_a_childs_end_and_its_close_leave_the_parents_lock(disk, tmp_path):
    ask(disk, Lock("LOCK", "parent"))
    with closing(RealDisk(tmp_path)) as other:
        with forked(disk.close) as (_, ask_child):
            assert ask_child() == "None"
            assert ask(other, Lock("LOCK", "other")) == "parent"
        assert ask(other, Lock("LOCK", "other")) == "parent"


def test_a_child_that_lives_on_does_not_keep_the_parents_lock_or_files(disk, tmp_path):
    ask(disk, Lock("LOCK", "parent"), Create("a"))
    inherited = {file.identity for file in (*disk._files.values(), *disk._held_locks)}

    def still_open():
        # Of the numbers listed, one was the listing's own.
        return [number for number in map(int, os.listdir("/dev/fd")) if identity_of(number) in inherited]

    with forked(still_open) as (_, ask_child), closing(RealDisk(tmp_path)) as other:
        assert ask_child() == "[]"
        disk.close()
        assert ask(other, Lock("LOCK", "other")) is None


def test_a_disk_opened_in_the_child_is_the_childs_own(disk, tmp_path):
    def write():
        with closing(RealDisk(tmp_path)) as own:
            return ask(own, Lock("LOCK", "child"), Create("a"), Write("a", 0, b"child"), Read("a", 0, 9))

    with forked(write) as (_, ask_child):
        assert ask_child() == "b'child'"


# Full disks


def can_mount():
    """Whether this user may mount a small file system in memory."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as place:
        if subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", place], check=True)
        return True


@contextmanager
def small_file_system(place):
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], check=True)
    try:
        yield place
    finally:
        # Lazily, so that a test that fails, and has the file open in its traceback, leaves no mount behind.
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def small_files(place):
    """Where nothing can be mounted: no file of this process may be longer. Python ignores the signal that comes too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        yield place
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# What says no, and the error that comes of it. The first needs a privilege; the second works for everyone.
FULL = {"mount": (small_file_system, errno.ENOSPC)} if can_mount() else {}
FULL["limit"] = (small_files, errno.EFBIG)


@pytest.fixture(params=FULL)
def full(request, tmp_path):
    """A disk with room for less than 128 KiB, and the error that says so."""
    room, code = FULL[request.param]
    with room(tmp_path / "small") as root, closing(RealDisk(root)) as disk:
        yield disk, code


def test_a_full_disk_says_so_reads_on_and_writes_again_once_there_is_room(full):
    disk, code = full
    ask(disk, Create("kept"), Write("kept", 0, b"kept"), Sync("kept"), Create("big"))
    with pytest.raises(OSError, match=r"big'$") as caught:
        ask(disk, Write("big", 0, b"x" * 131072))
    assert caught.value.errno == code
    assert 0 < ask(disk, Size("big")) < 131072
    assert ask(disk, Read("kept", 0, 9)) == b"kept"
    # The descriptor of the removed file is let go of, or its room would not be there again.
    ask(disk, Remove("big"), Create("next"), Write("next", 0, b"y" * 40000), Sync("next"))
    assert ask(disk, Size("next")) == 40000


def test_room_that_is_not_there_cannot_be_reserved(full):
    disk, code = full
    ask(disk, Create("big"))
    with pytest.raises(OSError, match=r"big'$") as caught:
        ask(disk, Allocate("big", 131072))
    assert caught.value.errno == code


# Interrupts between a system call and what comes of it


@pytest.fixture
def unraisable(monkeypatch):
    """What Python could only print, beside that it has closed something itself."""
    printed = []

    def note(unraisable):
        if not isinstance(unraisable.exc_value, ResourceWarning):
            printed.append(repr(unraisable.exc_value))

    monkeypatch.setattr(sys, "unraisablehook", note)
    return printed


def interrupted(use):
    """Interrupt a use at each step of it in turn. Gives where, after each."""
    files = (real_disk.__file__, real_files.__file__)
    with InterruptInside(0, files) as counting:
        use()
    assert len(counting.firsts) > 10
    for at in counting.firsts.values():
        interrupt = InterruptInside(at, files)
        # One that a tidying up has let pass on leaves nothing behind either.
        with suppress(KeyboardInterrupt), interrupt:
            use()
        yield interrupt.place


def test_an_interrupt_in_the_middle_of_closing_leaves_no_lock_though_somebody_keeps_the_interrupt(tmp_path):
    def closed(at):
        disk = RealDisk(tmp_path)
        assert ask(disk, Lock("LOCK", "me")) is None
        with InterruptInside(at, (real_disk.__file__,)) as interrupt:
            disk.close()
        return interrupt

    steps = [at for place, at in closed(0).firsts.items() if "(_close," in place]
    assert len(steps) > 5
    for at in steps:
        with pytest.raises(KeyboardInterrupt) as kept:
            closed(at)
        with closing(RealDisk(tmp_path)) as other:
            assert ask(other, Lock("LOCK", "another")) is None, kept.traceback[-1]


@pytest.mark.exploration
def test_an_interrupt_at_any_step_of_using_a_disk_leaves_no_descriptor_and_is_not_lost(tmp_path, unraisable):
    (tmp_path / "there").mkdir()

    def use():
        with closing(RealDisk(tmp_path / "there")) as disk:
            with suppress(FileNotFoundError):
                ask(disk, Remove("b"))
            with suppress(FileExistsError):
                ask(disk, Create("a"))
            ask(
                disk,
                MakeDirectory("log"),
                Write("a", 0, b"x"),
                Lock("LOCK", "me"),
                Rename("a", "b"),
                SyncDirectory("log"),
            )
            ask(disk, Read("b", 0, 1), Remove("b"))

    before = open_descriptors()
    for place in interrupted(use):
        assert open_descriptors() == before, place
        assert not unraisable, place


@pytest.mark.exploration
def test_an_interrupt_at_any_step_of_making_a_directory_leaves_none_behind(tmp_path, unraisable):
    def use():
        with real_disk.new_directory(tmp_path / "new") as disk:
            ask(disk, Create("a"))

    before = open_descriptors()
    for place in interrupted(use):
        assert {path.name for path in tmp_path.iterdir()} <= {"new"}, place
        assert open_descriptors() == before, place
        assert not unraisable, place
        shutil.rmtree(tmp_path / "new", ignore_errors=True)


@pytest.mark.exploration
def test_an_interrupt_at_any_step_of_making_a_file_leaves_none_behind_or_all_of_it(tmp_path, unraisable):
    def use():
        with real_files.new_file(tmp_path / "new") as file:
            file.write(b"all")

    before = open_descriptors()
    for place in interrupted(use):
        for path in tmp_path.iterdir():
            assert path.read_bytes() == b"all", place
            path.unlink()
        assert open_descriptors() == before, place
        assert not unraisable, place
