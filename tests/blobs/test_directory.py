"""Blobs in a directory, on a real disk: beside a file store, and alone, for several processes."""

import os
import shutil
import stat
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
from at_once import run_at_once

from interpreters import Store, open_store
from interpreters.blobs.cid import cid_of
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.files import BlobFiles
from interpreters.disk import requests as disk
from interpreters.stores.file.upkeep import operations
from persist_effects import BlobNotFound, CorruptStore, InvalidRequest, StoreClosed, StoreUnavailable, blob, log, run


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "store"


def put(blobs: DirectoryBlobs, data: bytes):
    return run(blob.put(data), blobs.handlers)


def files_below(place: Path) -> list[str]:
    return sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())


# Beside a file store


def test_a_file_store_keeps_blobs_beside_its_log_and_has_them_again(path):
    with open_store(f"file:{path}") as store:
        ref = store.run(blob.put(b"tea"))
        store.run(log.append("orders", "placed", ref))
    with open_store(f"file:{path}") as store:
        assert store.run(blob.get(store.run(log.read("orders"))[0].data)) == b"tea"
    assert files_below(path / "blobs") == [f"{ref.cid[-2]}/{ref.cid}"]


def test_the_directory_is_made_when_the_first_blob_is_put(path):
    with open_store(f"file:{path}") as store:
        assert not store.run(blob.has(cid_of(b"tea")))
        with pytest.raises(BlobNotFound):
            store.run(blob.get(cid_of(b"tea")))
        assert not (path / "blobs").exists()
        store.run(blob.put(b"tea"))
        assert (path / "blobs").is_dir()


def test_a_reading_process_reads_blobs_and_puts_none(path):
    with open_store(f"file:{path}") as store, open_store(f"file:{path}?mode=r") as reader:
        assert not reader.run(blob.has(cid_of(b"tea")))
        ref = store.run(blob.put(b"tea"))
        assert reader.run(blob.get(ref)) == b"tea"
        with pytest.raises(InvalidRequest, match=r"blob/put: .* was opened to read only"):
            reader.run(blob.put(b"tea"))


def test_a_store_with_blobs_is_sound_and_compacts_and_opens(path):
    with open_store(f"file:{path}?segment_bytes=4096") as store:
        for number in range(20):
            store.run(log.append("s", "made", store.run(blob.put(bytes([number]) * 1_000))))
        store.run(log.truncate_through("s", 15))
        store.interpreter.compact()
    assert operations.verify(path).is_sound
    with open_store(f"file:{path}") as store:
        assert [store.run(blob.get(event.data))[0] for event in store.run(log.read_from("s", 16))] == [
            15,
            16,
            17,
            18,
            19,
        ]


def test_blobs_are_for_those_that_the_store_is_for(path):
    for permissions, directory in ((0o600, 0o700), (0o640, 0o750)):
        shutil.rmtree(path, ignore_errors=True)
        umask = os.umask(0)
        try:
            with open_store(f"file:{path}", permissions=permissions) as store:
                cid = store.run(blob.put(b"tea")).cid
        finally:
            os.umask(umask)
        place = path / "blobs" / cid[-2] / cid
        assert stat.S_IMODE(place.stat().st_mode) == permissions
        assert {stat.S_IMODE(above.stat().st_mode) for above in (place.parent, place.parent.parent)} == {directory}


def test_a_closed_store_has_no_blobs(path):
    store = open_store(f"file:{path}")
    handlers = store.handlers
    ref = store.run(blob.put(b"tea"))
    store.close()
    for program in (blob.get(ref), blob.has(ref), blob.put(b"milk")):
        with pytest.raises(StoreClosed):
            run(program, handlers)


def test_a_store_whose_directory_was_moved_away_acknowledges_no_blob(path):
    with open_store(f"file:{path}") as store:
        store.run(blob.put(b"tea"))
        path.rename(path.parent / "moved")
        with pytest.raises(StoreUnavailable, match="removed, moved away or replaced"):
            store.run(blob.put(b"milk"))
        (path.parent / "moved").rename(path)


# Damage


def damaged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("change", [damaged, lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_damage_is_told_by_file_and_blob_and_putting_the_bytes_again_mends_it(path, change):
    data = b"tea, green" * 1_000
    with open_store(f"file:{path}") as store:
        ref = store.run(blob.put(data))
        place = path / "blobs" / ref.cid[-2] / ref.cid
        place.write_bytes(change(data))
        with pytest.raises(CorruptStore) as raised:
            store.run(blob.get(ref))
        assert str(raised.value) == (
            f"{place}: expected the bytes of blob {ref.cid}, found {len(change(data))} bytes of blob "
            f"{cid_of(change(data))}: put the blob's bytes again, which replaces the file, or restore it from a backup"
        )
        assert store.run(blob.put(data)) == ref
        assert store.run(blob.get(ref)) == data


@pytest.mark.parametrize("make", [lambda place: place.mkdir(), lambda place: place.symlink_to("elsewhere"), os.mkfifo])
def test_what_stands_in_the_place_of_a_blob_is_told_and_left_alone(path, make):
    with closing(DirectoryBlobs(path)) as blobs:
        ref = put(blobs, b"tea")
        place = path / ref.cid[-2] / ref.cid
        place.unlink()
        make(place)
        kind = place.lstat().st_mode
        for program in (blob.get(ref), blob.has(ref), blob.put(b"tea")):
            with pytest.raises(CorruptStore, match=f"{ref.cid}"):
                run(program, blobs.handlers)
        assert place.lstat().st_mode == kind


# Putting again


def test_what_is_there_is_not_written_again_but_counts_as_put_now(path):
    with closing(DirectoryBlobs(path)) as blobs:
        ref = put(blobs, b"tea")
        place = path / ref.cid[-2] / ref.cid
        os.utime(place, (1_000, 1_000))
        before = place.stat()
        assert [kept.put_at for kept in blobs.kept()] == [1_000_000_000]
        assert put(blobs, b"tea") == ref
        assert place.stat().st_ino == before.st_ino
        assert place.stat().st_mtime > before.st_mtime + 1_000_000


def test_threads_that_put_and_read_the_same_blobs_find_them_whole(path):
    with open_store(f"file:{path}") as store:
        together, failed = threading.Barrier(6), []

        def use():
            together.wait(60)
            try:
                for number in range(40):
                    data = bytes([number]) * 5_000
                    assert store.run(blob.get(store.run(blob.put(data)))) == data
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=use) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not failed
    assert len(files_below(path / "blobs")) == 40


def test_a_disk_keeps_nothing_open_of_the_blobs_that_went_by(path):
    with open_store(f"file:{path}") as store:
        real_disk = store.interpreter._disk
        store.run(blob.put(b"first"))
        before = len(real_disk._files), len(real_disk._identities)
        for number in range(300):
            store.run(blob.get(store.run(blob.put(f"{number}".encode()))))
        assert (len(real_disk._files), len(real_disk._identities)) == before


# Several processes

CHILD = """
import sys
from interpreters.blobs.directory import DirectoryBlobs
from persist_effects import blob, run

blobs = DirectoryBlobs(sys.argv[1])
sys.stdin.readline()
for number in range(60):
    data = bytes([number]) * 3_000
    assert run(blob.get(run(blob.put(data), blobs.handlers)), blobs.handlers) == data
blobs.close()
"""


def test_processes_that_put_the_same_blobs_at_once_lose_none(path):
    run_at_once(CHILD, path)
    with closing(DirectoryBlobs(path, read_only=True)) as blobs:
        for number in range(60):
            assert run(blob.get(cid_of(bytes([number]) * 3_000)), blobs.handlers) == bytes([number]) * 3_000
    assert [name for name in files_below(path) if "-" in name] == []


def begin(blobs: DirectoryBlobs, data: bytes):
    """Put a blob up to the sync of its bytes: its file is there, unfinished. Gives the program and its request."""
    program = blobs.files.put(cid_of(data), data)
    request = next(program)
    while not isinstance(request, disk.Sync):
        request = program.send(blobs._disk.handlers[type(request)](request))
    return program, request


def go_on(program, request, blobs: DirectoryBlobs) -> None:
    with suppress(StopIteration):
        while True:
            request = program.send(blobs._disk.handlers[type(request)](request))


def unfinished(path: Path) -> list[str]:
    return [name for name in files_below(path) if name.startswith("unfinished/") and not name.endswith(".lock")]


def test_what_a_living_writer_has_unfinished_stays_and_what_a_dead_one_left_goes(path):
    living, dead = DirectoryBlobs(path), DirectoryBlobs(path)
    program, request = begin(living, b"of the living")
    begin(dead, b"of the dead")[0].close()
    dead.close()
    assert unfinished(path) == ["unfinished/1-1", "unfinished/2-1"]
    with closing(DirectoryBlobs(path)) as third:
        put(third, b"tea")
        assert unfinished(path) == ["unfinished/1-1"]
    go_on(program, request, living)
    assert run(blob.get(cid_of(b"of the living")), living.handlers) == b"of the living"
    living.close()


@pytest.mark.parametrize("sole_writer", [None, bytes(8)])
def test_threads_that_put_the_first_blobs_at_once_take_nothing_from_each_other(path, sole_writer):
    # Each of the two is stopped where the other one may be at its first blob too.
    blobs = DirectoryBlobs(path)
    blobs.files = BlobFiles("", sole_writer=sole_writer)
    one = blobs.files.put(cid_of(b"one"), b"one")
    request = next(one)
    while not isinstance(request, disk.List):
        request = one.send(blobs._disk.handlers[type(request)](request))
    other, its_request = begin(blobs, b"other")
    go_on(one, request, blobs)
    go_on(other, its_request, blobs)
    for data in (b"one", b"other"):
        assert run(blob.get(cid_of(data)), blobs.handlers) == data
    blobs.close()


def test_a_file_store_takes_away_what_its_last_writer_left_unfinished(path):
    with open_store(f"file:{path}") as store:
        store.run(blob.put(b"tea"))
    left = path / "blobs" / "unfinished" / "sole.0123456789abcdef-7"
    left.write_bytes(b"half")
    with open_store(f"file:{path}?mode=r") as reader:
        assert reader.run(blob.get(cid_of(b"tea"))) == b"tea"
        assert left.exists()
    with open_store(f"file:{path}") as store:
        store.run(blob.put(b"milk"))
    assert unfinished(path / "blobs") == []


# A directory alone


def test_a_directory_serves_beside_any_store(path):
    with open_store("memory:", blobs=DirectoryBlobs(path)) as store:
        ref = store.run(blob.put(b"tea"))
    with Store(open_store("memory:").interpreter, blobs=DirectoryBlobs(path)) as store:
        assert store.run(blob.get(ref)) == b"tea"


def test_a_directory_that_is_only_read_is_not_made_and_takes_no_blob(path):
    with closing(DirectoryBlobs(path, read_only=True)) as blobs:
        assert not run(blob.has(cid_of(b"tea")), blobs.handlers)
        with pytest.raises(InvalidRequest, match="was opened to read only"):
            put(blobs, b"tea")
    assert not path.exists()


def test_a_directory_that_cannot_be_made_and_one_that_is_closed_say_so(path):
    path.write_bytes(b"a file")
    with pytest.raises(StoreUnavailable, match="cannot be made or opened"):
        DirectoryBlobs(path)
    path.unlink()
    blobs = DirectoryBlobs(path)
    blobs.close()
    blobs.close()
    with pytest.raises(StoreClosed, match="open it again"):
        put(blobs, b"tea")


# Upkeep


@pytest.fixture
def kept(path) -> list:
    """References that a store's log has, whose blobs are in three directories or more."""
    with open_store(f"file:{path}") as store:
        refs = [store.run(blob.put(f"invoice {number}".encode())) for number in range(12)]
        for ref in refs:
            store.run(log.append("invoices", "written", ref))
    return refs


def bytes_of(path: Path, refs) -> list[bytes]:
    with open_store(f"file:{path}") as store:
        named = [event.data["cid"] for event in store.run(log.read("invoices"))]
        assert named == [ref.cid for ref in refs]
        return [store.run(blob.get(cid)) for cid in named]


def test_a_backup_has_the_bytes_of_every_reference_in_it(path, kept):
    copied = operations.backup(path, path.parent / "of a path")
    assert (copied.blobs, copied.blob_bytes) == (12, sum(ref.size for ref in kept))
    with open_store(f"file:{path}") as store:
        assert operations.backup(store.interpreter, path.parent / "of a store").blobs == 12
    for name in ("of a path", "of a store"):
        assert bytes_of(path.parent / name, kept) == [f"invoice {number}".encode() for number in range(12)]
        assert operations.verify(path.parent / name).blobs == 12


def test_a_blob_put_while_a_backup_is_made_is_in_it_if_its_log_names_it(path, kept):
    with open_store(f"file:{path}") as store:

        def write(done: int, total: int) -> None:
            store.run(log.append("invoices", "written", store.run(blob.put(f"late {done}".encode()))))

        operations.backup(store.interpreter, path.parent / "copy", write)
    with open_store(f"file:{path.parent / 'copy'}") as copy:
        for event in copy.run(log.read("invoices")):
            assert copy.run(blob.has(event.data))


def break_one(path: Path, ref) -> Path:
    place = path / "blobs" / ref.cid[-2] / ref.cid
    place.write_bytes(damaged(place.read_bytes()))
    return place


def test_verify_tells_a_damaged_blob_and_backup_hands_none_on(path, kept):
    place = break_one(path, kept[5])
    told = f"blobs/{kept[5].cid[-2]}/{kept[5].cid}: offset 0: expected the bytes of blob {kept[5].cid}, found "
    report = operations.verify(path)
    assert [str(damage).startswith(told) for damage in report.damages] == [True]
    assert (report.blobs, report.is_sound) == (11, False)
    with pytest.raises(CorruptStore, match="nothing was backed up: put the bytes of that blob again"):
        operations.backup(path, path.parent / "copy")
    assert not (path.parent / "copy").exists()
    place.unlink()
    assert operations.verify(path).is_sound


def test_salvage_keeps_the_sound_blobs_and_lists_those_that_are_lost(path, kept):
    break_one(path, kept[5])
    salvaged = operations.salvage(path, path.parent / "new")
    assert (salvaged.blobs, salvaged.blobs_lost, salvaged.is_complete) == (11, [kept[5].cid], False)
    with open_store(f"file:{path.parent / 'new'}") as store:
        assert [store.run(blob.has(ref)) for ref in kept] == [number != 5 for number in range(12)]


def test_something_else_in_the_place_of_the_blobs_directory_is_told(path):
    with open_store(f"file:{path}"):
        pass
    (path / "blobs").write_bytes(b"a file")
    with open_store(f"file:{path}") as store, pytest.raises(CorruptStore, match="blobs"):
        store.run(blob.put(b"tea"))
    assert "the directory of the blobs" in str(operations.verify(path).damages)
