"""Blobs larger than memory: put from files and read as files, in pieces, each of them compared with the identifier."""

import io
import os
import random
import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
from at_once import run_at_once

from interpreters import Store, open_store
from interpreters.blobs.cid import CHUNK_BYTES, LINKS, cid_of, raw_cid_of
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.files import DIGESTS, BlobFiles
from interpreters.blobs.homes import PIECE_BYTES, read_through
from interpreters.blobs.memory import MemoryBlobs
from interpreters.disk import requests as disk
from interpreters.disk.real import RealDisk
from interpreters.stores.file.upkeep import operations
from interpreters.stores.served import RemoteStore
from persist_effects import (
    BlobNotFound,
    BlobRef,
    CorruptStore,
    InvalidRequest,
    StoreClosed,
    StoreUnavailable,
    blob,
    kv,
    run,
)
from persist_effects.capabilities import Capabilities

MIB = 1024 * 1024
SIZES = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7)

OPENED = {
    "memory": lambda path: open_store("memory:"),
    "a file store": lambda path: open_store(f"file:{path}"),
    "a store on SQLite": lambda path: open_store(f"sqlite:{path}"),
    "a directory beside a memory store": lambda path: open_store("memory:", blobs=DirectoryBlobs(path)),
    "rows of the user's own": lambda path: open_store(f"file:{path}", effects=MemoryBlobs().handlers),
    "a served file store": lambda path: Store(RemoteStore.spawn(f"file:{path}")),
}


def bytes_of_size(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


@pytest.fixture(params=OPENED.values(), ids=OPENED)
def store(request, tmp_path):
    with request.param(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def blobs(path):
    with closing(DirectoryBlobs(path)) as opened:
        yield opened


def put(home, data: bytes) -> BlobRef:
    return home.put_file(io.BytesIO(data))


def place_of(path: Path, cid: str) -> Path:
    return path / cid[-2] / cid


# On every store


@pytest.mark.parametrize("size_bytes", SIZES)
def test_a_file_is_the_same_blob_as_its_bytes_and_comes_back_as_a_file(store, tmp_path, size_bytes):
    data = bytes_of_size(size_bytes)
    (tmp_path / "picture").write_bytes(data)
    ref = store.put_file(tmp_path / "picture", mime="image/png")
    assert ref == BlobRef(cid_of(data), size_bytes, "image/png")
    assert store.put_file(io.BytesIO(data), "image/png") == ref == store.run(blob.put(data, "image/png"))
    assert store.run(blob.get(ref)) == data
    with store.open_blob(ref) as file:
        assert file.read() == data


def test_any_range_of_a_blob_can_be_read(store):
    data = bytes_of_size(3 * CHUNK_BYTES + 7)
    ref = store.put_file(io.BytesIO(data))
    draw = random.Random(1)
    with store.open_blob(ref) as file:
        assert file.seekable()
        for _ in range(40):
            begin, count = draw.randrange(len(data) + 10), draw.choice([1, 100, CHUNK_BYTES, 2 * CHUNK_BYTES])
            assert file.seek(begin) == file.tell() == begin
            assert file.read(count) == data[begin : begin + count]
        assert file.seek(-3, io.SEEK_END) == len(data) - 3
        assert (file.read(), file.read(1)) == (data[-3:], b"")
        assert file.seek(-2, io.SEEK_CUR) == len(data) - 2
        with pytest.raises(ValueError, match="before the beginning"):
            file.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_a_file_is_put_from_where_it_stands_and_left_open(store):
    file = io.BytesIO(b"a header, then the picture")
    file.seek(15)
    assert store.run(blob.get(store.put_file(file))) == b"the picture"
    assert not file.closed


def test_a_stored_reference_opens_the_blob(store):
    store.run(kv.put("newest", store.put_file(io.BytesIO(b"tea"))))
    with store.open_blob(store.run(kv.get("newest"))) as file:
        assert file.read() == b"tea"


def test_what_is_not_a_file_of_bytes_is_refused(store, tmp_path):
    for wrong in (tmp_path / "nothing", str(tmp_path), "~/picture"):
        with pytest.raises(InvalidRequest, match=r"not a file|only a shell"):
            store.put_file(wrong)
    with pytest.raises(InvalidRequest, match="opened to read bytes"):
        store.put_file(io.StringIO("text"))
    with pytest.raises(InvalidRequest, match="MIME type"):
        store.put_file(io.BytesIO(b"tea"), mime="")


def test_a_blob_that_is_not_there_and_what_is_no_reference_are_told(store):
    with pytest.raises(BlobNotFound, match=cid_of(b"never put")):
        store.open_blob(cid_of(b"never put"))
    for wrong in ("hello", "../../etc/passwd", cid_of(b"tea")[:-1]):
        with pytest.raises(InvalidRequest, match="not a content identifier of a blob"):
            store.open_blob(wrong)
    with pytest.raises(InvalidRequest, match="a blob's reference is"):
        store.open_blob(7)


def test_progress_is_told_of_both_ways(tmp_path):
    (tmp_path / "film").write_bytes(bytes(2 * PIECE_BYTES + 1))
    with open_store(f"file:{tmp_path / 'store'}") as store:
        told: list[tuple[int, int]] = []
        ref = store.put_file(tmp_path / "film", progress=lambda done, total: told.append((done, total)))
        assert told == [(done, ref.size) for done in (PIECE_BYTES, 2 * PIECE_BYTES, ref.size)]
        told.clear()
        store.put_file(io.BytesIO(b"tea"), progress=lambda done, total: told.append((done, total)))
        assert told == [(3, 0)]
        told.clear()
        with store.open_blob(ref, progress=lambda done, total: told.append((done, total))) as file:
            file.read()
        assert (told[0], told[-1]) == ((CHUNK_BYTES, ref.size), (ref.size, ref.size))


def test_a_store_that_would_lose_a_file_reads_none_of_it():
    class Durable:
        capabilities = Capabilities(durability="commit", reopen=True)
        handlers: ClassVar[dict] = {}

        def close(self):
            pass

    file = io.BytesIO(b"tea")
    with Store(Durable()) as store, pytest.raises(InvalidRequest, match=r"would outlive bytes .*blobs='dir:var/blobs'"):
        store.put_file(file)
    assert file.tell() == 0


def test_a_reading_process_opens_blobs_and_puts_no_file(tmp_path):
    for url in (f"file:{tmp_path / 'store'}", f"sqlite:{tmp_path / 'app.db'}"):
        with open_store(url) as store, open_store(f"{url}?mode=r") as reader:
            with pytest.raises(InvalidRequest, match=r"put_file: .* was opened to read only"):
                reader.put_file(io.BytesIO(b"tea"))
            data = bytes_of_size(CHUNK_BYTES + 1)
            with reader.open_blob(store.put_file(io.BytesIO(data))) as file:
                assert file.read() == data


def test_a_closed_store_says_so_also_of_a_blob_that_is_open(tmp_path):
    store = open_store(f"file:{tmp_path / 'store'}")
    ref = store.put_file(io.BytesIO(bytes(2 * CHUNK_BYTES)))
    file = store.open_blob(ref)
    store.close()
    with pytest.raises(StoreClosed):
        file.read(1)
    file.close()
    for use in (lambda: store.open_blob(ref), lambda: store.put_file(io.BytesIO(b"tea"))):
        with pytest.raises(StoreClosed):
            use()


# Damage

LARGE = 2 * CHUNK_BYTES + 100


def flip(place: Path, at: int) -> None:
    with place.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("at", [0, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 99])
def test_a_flipped_bit_is_an_error_when_it_is_read_and_the_other_chunks_are_sound(path, blobs, at):
    data = bytes_of_size(LARGE)
    ref = put(blobs, data)
    flip(place_of(path, ref.cid), at)
    bad = at // CHUNK_BYTES
    with blobs.open_blob(ref.cid) as file:
        for chunk in range(3):
            begin = chunk * CHUNK_BYTES
            file.seek(begin)
            if chunk != bad:
                assert file.read(50) == data[begin : begin + 50]
                continue
            with pytest.raises(CorruptStore) as raised:
                file.read(1)
            assert str(raised.value) == (
                f"{place_of(path, ref.cid)}: offset {begin}: expected the bytes of blob {ref.cid}, found "
                f"{min(CHUNK_BYTES, LARGE - begin)} other bytes: put the blob's bytes again, which replaces the file, "
                "or restore it from a backup"
            )
    with pytest.raises(CorruptStore, match="found 524388 bytes of blob"):
        run(blob.get(ref), blobs.handlers)
    assert put(blobs, data) == ref
    assert read_through(blobs, ref.cid) == LARGE


@pytest.mark.parametrize("size_bytes", [1, 100, CHUNK_BYTES, LARGE])
@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"", lambda data: data * 2]
)
def test_a_blob_of_another_size_is_not_opened(path, blobs, size_bytes, change):
    data = bytes_of_size(size_bytes)
    ref = put(blobs, data)
    place_of(path, ref.cid).write_bytes(change(data))
    with pytest.raises(CorruptStore, match="expected the bytes of blob"):
        blobs.open_blob(ref.cid)


@pytest.mark.parametrize("spoil", ["gone", "cut", "flipped", "of another blob"])
def test_damage_to_the_digests_beside_a_blob_harms_nobody(path, blobs, spoil):
    data = bytes_of_size((LINKS + 1) * CHUNK_BYTES + 5)
    ref = put(blobs, data)
    beside = Path(f"{place_of(path, ref.cid)}{DIGESTS}")
    assert beside.stat().st_size == 32 * (LINKS + 2 + 2)
    match spoil:
        case "gone":
            beside.unlink()
        case "cut":
            beside.write_bytes(beside.read_bytes()[:-1])
        case "flipped":
            flip(beside, 32 * LINKS)
        case _:
            beside.write_bytes(bytes(beside.stat().st_size))
    with blobs.open_blob(ref.cid) as file:
        file.seek(LINKS * CHUNK_BYTES)
        assert file.read() == data[LINKS * CHUNK_BYTES :]
    flip(place_of(path, ref.cid), 5)
    with pytest.raises(CorruptStore), blobs.open_blob(ref.cid) as file:
        file.read(10)


def test_every_chunk_of_a_tree_of_two_levels_is_proved_by_the_digests_beside_it(path, blobs):
    data = bytes_of_size(2 * LINKS * CHUNK_BYTES + 1)
    ref = put(blobs, data)
    read: list[int] = []
    with blobs.open_blob(ref.cid) as file:
        before = blobs.read_at
        blobs.read_at = lambda cid, offset, size_bytes: (read.append(offset), before(cid, offset, size_bytes))[1]
        for chunk in (2 * LINKS, 0, LINKS - 1, LINKS, LINKS + 1):
            file.seek(chunk * CHUNK_BYTES)
            assert file.read(1) == data[chunk * CHUNK_BYTES : chunk * CHUNK_BYTES + 1]
        # Only what is asked for is read, and compared.
        assert read == [chunk * CHUNK_BYTES for chunk in (2 * LINKS, 0, LINKS - 1, LINKS, LINKS + 1)]
    del blobs.read_at


def put_as_older_releases_did(path: Path, data: bytes) -> str:
    cid = raw_cid_of(data)
    with closing(RealDisk(path)) as real:
        run(BlobFiles("").put(cid, data), real.handlers)
    return cid


def test_a_large_blob_that_an_older_release_put_is_read_and_verified(path):
    data = bytes_of_size(LARGE)
    cid = put_as_older_releases_did(path, data)
    with closing(DirectoryBlobs(path)) as blobs:
        assert run(blob.get(cid), blobs.handlers) == data
        with blobs.open_blob(cid) as file:
            file.seek(CHUNK_BYTES)
            assert file.read(9) == data[CHUNK_BYTES : CHUNK_BYTES + 9]
            # Damage that comes after the whole was read through is found too.
            flip(place_of(path, cid), 2 * CHUNK_BYTES)
            file.seek(2 * CHUNK_BYTES)
            with pytest.raises(CorruptStore, match=f"offset {2 * CHUNK_BYTES}: .* other bytes: restore it from a"):
                file.read(1)
        with pytest.raises(CorruptStore, match=f"expected the bytes of blob {cid}, found {LARGE} bytes of blob bafkre"):
            blobs.open_blob(cid)
        with pytest.raises(CorruptStore, match=r"of blob \w+: restore it from a backup"):
            run(blob.get(cid), blobs.handlers)


def test_bytes_may_be_put_under_the_identifier_that_they_must_have_also_an_older_one(path, blobs):
    data = bytes_of_size(LARGE)
    for cid in (cid_of(data), raw_cid_of(data)):
        assert blobs.put_file(io.BytesIO(data), cid=cid).cid == cid
        assert run(blob.get(cid), blobs.handlers) == data
    for wrong in (cid_of(b"other"), cid_of(data[:-1]), raw_cid_of(data[:-1])):
        with pytest.raises(InvalidRequest, match=f"expected the bytes of blob {wrong}, and got those of bafk?"):
            blobs.put_file(io.BytesIO(data), cid=wrong)
        assert not run(blob.has(wrong), blobs.handlers)
    assert unfinished(path) == []


def test_backup_verify_and_salvage_know_blobs_of_both_kinds(tmp_path):
    data = bytes_of_size(LARGE)
    with open_store(f"file:{tmp_path / 'store'}") as store:
        ref = store.put_file(io.BytesIO(data))
    old = put_as_older_releases_did(tmp_path / "store" / "blobs", data)
    assert operations.verify(tmp_path / "store").blob_bytes == 2 * LARGE
    operations.backup(tmp_path / "store", tmp_path / "copy")
    assert Path(f"{place_of(tmp_path / 'copy' / 'blobs', ref.cid)}{DIGESTS}").read_bytes() == (
        Path(f"{place_of(tmp_path / 'store' / 'blobs', ref.cid)}{DIGESTS}").read_bytes()
    )
    flip(place_of(tmp_path / "store" / "blobs", ref.cid), 0)
    assert operations.salvage(tmp_path / "store", tmp_path / "saved").blobs_lost == [ref.cid]
    assert operations.verify(tmp_path / "saved").blobs == 1
    with open_store(f"file:{tmp_path / 'saved'}") as store, store.open_blob(old) as file:
        assert file.read() == data


# What goes wrong while it is put


def unfinished(path: Path) -> list[str]:
    return [place.name for place in (path / "unfinished").iterdir() if not place.name.endswith(".lock")]


class Breaking(io.RawIOBase):
    """A file that gives some bytes, and then an error."""

    def __init__(self, error: BaseException) -> None:
        self._pieces = [bytes(PIECE_BYTES)] * 2
        self._error = error

    def read(self, size: int = -1) -> bytes:
        if not self._pieces:
            raise self._error
        return self._pieces.pop()


@pytest.mark.parametrize("error", [OSError("the source is gone"), KeyboardInterrupt()], ids=["an error", "Ctrl-C"])
def test_a_source_that_breaks_off_leaves_nothing(path, blobs, error):
    with pytest.raises(type(error)) as raised:
        blobs.put_file(Breaking(error))
    assert raised.value is error
    assert unfinished(path) == []
    assert list(blobs.kept()) == []


FULL = """
import io, resource, signal, sys
from interpreters import open_store
from persist_effects import StoreUnavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_store(sys.argv[1]) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
    try:
        store.put_file(io.BytesIO(bytes(5_000_000)))
    except StoreUnavailable as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(store.put_file(io.BytesIO(bytes(5_000_000))).size)
"""


@pytest.mark.parametrize("url", ["file:{}/store", "sqlite:{}/app.db"])
def test_a_disk_that_takes_no_more_in_the_middle_is_one_error_and_leaves_nothing(tmp_path, url):
    done = subprocess.run(
        [sys.executable, "-c", FULL, url.format(tmp_path)], stdout=subprocess.PIPE, text=True, check=True
    )
    said, then = done.stdout.splitlines()
    assert "File too large" in said
    assert then == "5000000"
    assert not [place for place in tmp_path.rglob("*-[0-9]*") if place.parent.name == "unfinished"]


CHILD = """
import io, sys
from interpreters.blobs.directory import DirectoryBlobs
blobs = DirectoryBlobs(sys.argv[1])
sys.stdin.readline()
for number in range(12):
    data = bytes([number]) * 600_000
    with blobs.open_blob(blobs.put_file(io.BytesIO(data)).cid) as file:
        assert file.read() == data
blobs.close()
"""


def test_processes_that_put_the_same_files_at_once_lose_none(path):
    run_at_once(CHILD, path)
    with closing(DirectoryBlobs(path, read_only=True)) as blobs:
        assert sorted(kept.cid for kept in blobs.kept()) == sorted(cid_of(bytes([n]) * 600_000) for n in range(12))
        assert all(read_through(blobs, kept.cid) == 600_000 for kept in blobs.kept())
    assert unfinished(path) == []


# Memory


class Zeros(io.RawIOBase):
    """So many bytes, each piece made when it is read."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes

    def read(self, size: int = -1) -> bytes:
        count = min(size, self._left)
        self._left -= count
        return bytes(count)


@pytest.mark.exploration
def test_a_hundred_mebibytes_are_put_and_read_in_a_few(tmp_path):
    size_bytes = 100 * MIB
    with open_store(f"file:{tmp_path / 'store'}") as store:
        store.put_file(io.BytesIO(bytes(2 * PIECE_BYTES)))
        tracemalloc.start()
        try:
            ref = store.put_file(Zeros(size_bytes))
            put_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            with store.open_blob(ref) as file:
                found = sum(len(piece) for piece in iter(lambda: file.read(MIB), b""))
            read_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found == ref.size == size_bytes
        assert max(put_bytes, read_bytes) < 4 * MIB
        operations.backup(store.interpreter, tmp_path / "copy")
    assert operations.verify(tmp_path / "copy").blob_bytes == size_bytes + 2 * PIECE_BYTES


# Dropping

OLD = 1_000
CUT = OLD * 1_000_000 + 1


def age(path: Path, cid: str) -> None:
    os.utime(place_of(path, cid), (OLD, OLD))


def test_a_blob_is_dropped_if_nobody_has_put_it_since(path, blobs):
    for data in (b"tea", bytes_of_size(LARGE)):
        ref = put(blobs, data)
        assert not blobs.drop(ref.cid, CUT)
        age(path, ref.cid)
        assert run(blob.has(ref), blobs.handlers)
        assert blobs.drop(ref.cid, CUT)
        assert not run(blob.has(ref), blobs.handlers)
        assert not blobs.drop(ref.cid, CUT)
    assert list(path.rglob("baf*")) == []


def step(program, request, rows):
    """Let the disk answer one request of a program. Gives its next, or what it returned, as a list of one."""
    try:
        answer = rows[type(request)](request)
    except OSError as error:
        return advance(program.throw, error)
    return advance(program.send, answer)


def advance(go_on, value):
    try:
        return go_on(value)
    except StopIteration as end:
        return [end.value]


@pytest.mark.exploration
def test_in_every_order_of_a_drop_and_a_put_what_was_put_is_there_and_a_reader_never_misses_it(path):
    data, cid = b"tea", cid_of(b"tea")
    untried: list[tuple[int, ...]] = [()]
    orders = 0
    with closing(RealDisk(path)) as real:
        quick = dict.fromkeys((disk.Sync, disk.SyncDirectory, disk.CheckHeld), lambda request: None)
        rows = {**real.handlers, **quick}
        files = BlobFiles("")
        while untried:
            chosen = untried.pop()
            run(files.put(cid, data), rows)
            age(path, cid)
            programs = [files.drop(cid, CUT), files.put(cid, data), files.read(cid)]
            waiting = [advance(program.send, None) for program in programs]
            order: list[int] = []
            while left := [index for index, request in enumerate(waiting) if not isinstance(request, list)]:
                turn = chosen[len(order)] if len(order) < len(chosen) else left[0]
                if len(order) >= len(chosen):
                    # The reader has its say only between the two: it changes nothing that they see.
                    untried += [(*order, other) for other in left[1:] if len(order) < 9]
                order.append(turn)
                waiting[turn] = step(programs[turn], waiting[turn], rows)
            assert run(files.read(cid), rows) == data, order
            # The reader may come between the removal and the put, and then there is none: nobody had put it again.
            assert waiting[2] == [data] or waiting[0] == [True], order
            orders += 1
    assert orders > 300


def test_a_blob_that_a_sweep_left_half_taken_is_read_and_listed_and_dropped_by_the_next(path, blobs):
    ref = put(blobs, b"tea")
    age(path, ref.cid)
    place = place_of(path, ref.cid)
    place.rename(f"{place}.swept")
    assert run(blob.get(ref), blobs.handlers) == b"tea"
    assert [kept.cid for kept in blobs.kept()] == [ref.cid]
    with blobs.open_blob(ref.cid) as file:
        assert file.read() == b"tea"
    assert put(blobs, b"tea") == ref
    assert place.exists()
    age(path, ref.cid)
    assert blobs.drop(ref.cid, CUT)
    assert [place.name for place in path.rglob("baf*")] == []


def test_memory_drops_what_is_old_too():
    now = [CUT - 1]
    home = MemoryBlobs(clock=lambda: now[0])
    ref = put(home, b"tea")
    now[0] = CUT
    assert put(home, b"milk").cid == cid_of(b"milk")
    assert not home.drop(cid_of(b"milk"), CUT)
    assert home.drop(ref.cid, CUT)
    assert [(kept.cid, kept.put_at) for kept in home.kept()] == [(cid_of(b"milk"), CUT)]


def test_a_directory_that_is_only_read_drops_nothing(path, blobs):
    ref = put(blobs, b"tea")
    with closing(DirectoryBlobs(path, read_only=True)) as reader:
        for use in (lambda: reader.drop(ref.cid, CUT), lambda: put(reader, b"milk")):
            with pytest.raises(InvalidRequest, match="was opened to read only"):
                use()
        assert [kept.cid for kept in reader.kept()] == [ref.cid]


def test_a_disk_that_cannot_be_asked_is_told(path, blobs):
    put(blobs, b"tea")
    path.rename(path.parent / "moved")
    with pytest.raises(StoreUnavailable, match="removed, moved away or replaced"):
        put(blobs, b"milk")


def test_a_file_that_was_forgotten_is_closed_in_the_middle_of_anything(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        ref = store.put_file(io.BytesIO(bytes(2 * CHUNK_BYTES)))
        files = [store.open_blob(ref) for _ in range(3)]

        row = store.interpreter._disk_rows[disk.Size]

        def size(request: disk.Size):
            # As Python does where it collects what is in a circle: here in the middle of another question to the disk.
            files.clear()
            return row(request)

        store.interpreter._disk_rows[disk.Size] = size
        assert store.run(blob.get(store.run(blob.put(b"tea")))) == b"tea"
        assert store.put_file(io.BytesIO(b"milk")).size == 4
