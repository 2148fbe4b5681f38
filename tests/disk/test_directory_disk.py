"""The door to a real disk for users' own file code, and what is refused at it as on the simulated one."""

import os

import pytest

from interpreters import disk, open_store
from interpreters.disk import DirectoryDisk
from interpreters.disk.checking import checked_disk_rows
from interpreters.disk.crashing import CrashDisk
from persist_effects import InvalidRequest, UnhandledEffect, all_of, kv, perform, run


@pytest.fixture
def root(tmp_path):
    return tmp_path / "notes"


@pytest.fixture(params=["real", "simulated"])
def handlers(request, root):
    if request.param == "simulated":
        yield checked_disk_rows(CrashDisk({"note": b"buy tea", "old/": b"", "old/note": b"x"}).handlers)
        return
    (root / "old").mkdir(parents=True)
    (root / "note").write_bytes(b"buy tea")
    (root / "old" / "note").write_bytes(b"x")
    with DirectoryDisk(root) as opened:
        yield opened.handlers


def test_a_program_writes_reads_and_lists_files(handlers):
    def program():
        yield from perform(disk.MakeDirectory("new"))
        yield from all_of(disk.Create("new/a"), disk.Create("new/b"))
        yield from perform(disk.Write("new/a", 0, b"hello, world"))
        yield from perform(disk.Truncate("new/a", 5))
        yield from perform(disk.Sync("new/a"))
        yield from perform(disk.Rename("new/a", "new/c"))
        yield from perform(disk.Remove("new/b"))
        yield from perform(disk.SyncDirectory("new"))
        yield from perform(disk.SyncDirectory("."))
        names = yield from perform(disk.List("new"))
        return names, (yield from perform(disk.Read("new/c", 1, 100))), (yield from perform(disk.Size("new/a")))

    assert run(program(), handlers) == (["c"], b"ello", None)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (disk.Create("../note"), r"disk/create: the path '\.\./note' leads out"),
        (disk.Create("/etc/passwd"), "disk/create: the path '/etc/passwd' leads out"),
        (disk.Create("a//b"), "written in another way"),
        (disk.Create("./a"), "written in another way"),
        (disk.Size("old/../../note"), "disk/size: the path"),
        (disk.List(".."), "disk/list: the path"),
        (disk.SyncDirectory("old/.."), "disk/sync-directory: the path"),
        (disk.Rename("note", "../note"), r"disk/rename: the path '\.\./note' leads out"),
        (disk.Rename("../note", "note"), "disk/rename: the path"),
        (disk.Create("a\0b"), "disk/create: the path"),
        (disk.Create(""), "is the disk's own directory"),
        (disk.Write(".", 0, b""), "is the disk's own directory"),
        (disk.Write("note", -1, b"x"), "disk/write: offset is an int, -1: give an int from 0 on"),
        (disk.Write("note", True, b"x"), "disk/write: offset is a bool, True"),
        (disk.Write("note", 0, "text"), "disk/write: data is a str, 'text': give bytes"),
        (disk.Read("note", 0, -1), "disk/read: size_bytes is an int, -1"),
        (disk.ReadPlaces("note", (0, -1), 1), "disk/read-places: offsets is a tuple"),
        (disk.Truncate("note", None), "disk/truncate: size_bytes is None"),
        (disk.Create(b"note"), "disk/create: path is a bytes"),
        (disk.Lock("lock", 7), "disk/lock: holder is an int, 7"),
    ],
)
def test_what_makes_no_sense_or_leads_out_is_refused_in_the_program_alike_on_both_disks(handlers, request_, told):
    def program():
        with pytest.raises(InvalidRequest, match=told):
            yield from perform(request_)
        return (yield from perform(disk.Read("note", 0, 100))), (yield from perform(disk.List("")))

    assert run(program(), handlers) == (b"buy tea", ["note", "old"])


def test_a_link_that_leads_out_is_left_alone(root, tmp_path):
    root.mkdir()
    (tmp_path / "outside").write_text("mine")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "above").symlink_to(tmp_path)
    with DirectoryDisk(root) as opened:
        for request in (disk.Write("link", 0, b"x"), disk.Read("above/outside", 0, 9), disk.Truncate("link", 0)):
            with pytest.raises(disk.ForeignFile):
                opened.run(perform(request))
    assert (tmp_path / "outside").read_text() == "mine"


def test_the_directory_is_made_and_what_is_refused_is_an_error_that_names_the_file(root):
    with DirectoryDisk(root) as opened, pytest.raises(FileNotFoundError, match="note"):
        opened.run(perform(disk.Read("note", 0, 9)))
    assert root.is_dir()
    with pytest.raises(OSError, match="the disk is closed"):
        opened.run(perform(disk.Create("note")))


def test_new_files_have_the_permissions_that_were_asked_for(root):
    before = os.umask(0o022)
    try:
        with DirectoryDisk(root, permissions=0o666) as opened:
            opened.run(perform(disk.Create("note")))
    finally:
        os.umask(before)
    assert (root / "note").stat().st_mode & 0o777 == 0o644


def test_a_disk_that_only_reads_changes_nothing(root):
    root.mkdir()
    (root / "note").write_bytes(b"buy tea")
    with DirectoryDisk(root, read_only=True) as opened:
        assert opened.run(perform(disk.Read("note", 4, 3))) == b"tea"
        with pytest.raises(PermissionError):
            opened.run(perform(disk.Write("note", 0, b"x")))
    assert (root / "note").read_bytes() == b"buy tea"


def test_its_rows_stand_beside_those_of_a_store(root):
    def program():
        yield from perform(disk.Create("note"))
        yield from kv.put("saved", True)
        return (yield from perform(disk.List("")))

    with DirectoryDisk(root) as opened:
        with open_store("memory:", effects=opened.handlers) as store:
            assert store.run(program()) == ["note"]
        with pytest.raises(UnhandledEffect):
            opened.run(kv.get("saved"))


def test_a_file_that_another_has_replaced_is_found_once_the_program_has_let_the_old_one_go(root):
    with DirectoryDisk(root) as opened:
        opened.run(perform(disk.Create("note")))
        for let_go in (False, True):
            (root / "other").write_bytes(b"of others")
            if let_go:
                opened.run(perform(disk.LetGo("note")))
            os.replace(root / "other", root / "note")
            found = opened.run(perform(disk.Read("note", 0, 100)))
            assert found == (b"of others" if let_go else b"")
