"""Blobs in a bucket of JetStream's object store, on real servers: one, and a cluster of three."""

import asyncio
import io
import os
import random
import signal
import subprocess
import sys
import threading
import tracemalloc
import warnings
from contextlib import closing, contextmanager
from datetime import timedelta

import nats
import pytest
from at_once import run_at_once
from nats.js.api import ObjectMeta, ObjectMetaOptions, StreamConfig
from nats_cluster import new_bucket_url, own_cluster
from typer.testing import CliRunner

from interpreters import open_store
from interpreters.blobs import object_putting, object_reading
from interpreters.blobs.buckets import Bucket
from interpreters.blobs.cid import CHUNK_BYTES, LINKS, cid_of, raw_cid_of
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import PIECE_BYTES, now_micros, read_through
from interpreters.blobs.objects import NatsBlobs
from interpreters.blobs.sweeping import sweep
from interpreters.blobs.upkeep import check_all, copy_all
from interpreters.blobs.urls import open_blobs
from interpreters.cli import app
from interpreters.nats.private_cluster import PrivateCluster
from persist_effects import (
    BlobNotFound,
    BlobRef,
    CorruptStore,
    InvalidRequest,
    StoreClosed,
    StoreUnavailable,
    blob,
    kv,
    log,
    run,
)

MIB = 1024 * 1024
SIZES = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, MIB)


def bytes_of_size(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def later() -> int:
    """Two days from now."""
    return now_micros() + timedelta(days=2) // timedelta(microseconds=1)


@pytest.fixture
def url():
    return new_bucket_url()


@pytest.fixture
def home(url):
    with closing(open_blobs(url)) as opened:
        yield opened


def put(home, data: bytes) -> BlobRef:
    return run(blob.put(data), home.handlers)


def get(home, ref) -> bytes:
    return run(blob.get(ref), home.handlers)


def has(home, ref) -> bool:
    return run(blob.has(ref), home.handlers)


def asked(home, ask):
    """What a coroutine gives of the bucket's own calls."""
    bucket = home._calls.bucket
    return home._calls.call(ask(bucket))


def messages_of_chunks(home) -> int:
    """How many messages there are of chunks, and of what stands beside them."""

    async def count(bucket: Bucket) -> int:
        answer = await bucket.api(f"STREAM.INFO.{bucket.stream}", subjects_filter=f"$O.{bucket.name}.C.>")
        return sum((answer["state"].get("subjects") or {}).values())

    return asked(home, count)


def by_nats(url: str, use):
    """What nats-py's own object store does with a bucket."""
    server, _, rest = url.removeprefix("nats://").partition("/")

    async def main():
        client = await nats.connect(f"nats://{server.partition(',')[0]}")
        try:
            return await use(await client.jetstream().object_store(rest.partition("?")[0]))
        finally:
            await client.close()

    return asyncio.run(main())


class Source(io.RawIOBase):
    """A source of pieces, beside which something happens when one of them is read."""

    def __init__(self, pieces: int, **happenings) -> None:
        self._pieces = pieces
        self._happenings = {int(name.removeprefix("at_")): happening for name, happening in happenings.items()}
        self._number = 0

    def read(self, size: int = -1) -> bytes:
        self._number += 1
        if self._number in self._happenings:
            self._happenings[self._number]()
        return bytes([self._number % 251]) * PIECE_BYTES if self._number <= self._pieces else b""

    def whole(self) -> bytes:
        return b"".join(bytes([number % 251]) * PIECE_BYTES for number in range(1, self._pieces + 1))


# A home as the others


@pytest.mark.parametrize("size_bytes", SIZES)
def test_bytes_and_files_of_any_size_come_back(url, size_bytes):
    data = bytes_of_size(size_bytes)
    with open_store("memory:", blobs=url) as store:
        ref = store.run(blob.put(data, "image/png"))
        assert ref == BlobRef(cid_of(data), size_bytes, "image/png")
        assert store.put_file(io.BytesIO(data), "image/png") == ref
        assert store.run(blob.get(ref)) == data
        with store.open_blob(ref) as file:
            assert file.read() == data
    with open_store("memory:", blobs=url) as store:
        assert store.run(blob.has(ref))
        assert store.run(blob.get(ref)) == data


def test_any_range_is_read_and_proved_by_itself(home):
    data = bytes_of_size((LINKS + 1) * CHUNK_BYTES + 9)
    ref = home.put_file(io.BytesIO(data))
    with home.open_blob(ref.cid) as file:
        for begin in (LINKS * CHUNK_BYTES - 5, 0, CHUNK_BYTES - 5, len(data) - 5):
            file.seek(begin)
            assert file.read(10) == data[begin : begin + 10]
        assert file.seek(0, io.SEEK_END) == len(data)


def test_a_part_is_read_without_the_rest(home, monkeypatch):
    ref = home.put_file(io.BytesIO(bytes_of_size(40 * CHUNK_BYTES)))
    limits = []
    page = Bucket.page
    monkeypatch.setattr(Bucket, "page", lambda *arguments: limits.append(arguments[-1]) or page(*arguments))
    with home.open_blob(ref.cid) as file:
        file.seek(33 * CHUNK_BYTES)
        file.read(10)
    assert limits == [1]


def test_a_large_file_goes_both_ways_in_constant_memory(home):
    home.put_file(io.BytesIO(bytes(CHUNK_BYTES + 1)))
    told: list[int] = []
    tracemalloc.start()
    try:
        ref = home.put_file(Source(160), progress=lambda done, total: told.append(done))
        assert read_through(home, ref.cid) == 40 * MIB
        assert tracemalloc.get_traced_memory()[1] < 12 * MIB
    finally:
        tracemalloc.stop()
    assert told == list(range(PIECE_BYTES, 40 * MIB + 1, PIECE_BYTES))


def test_what_stands_beside_the_chunks_is_cut_into_pieces_too(home, monkeypatch):
    for module in (object_putting, object_reading):
        monkeypatch.setattr(module, "BESIDE_BYTES", 1_000)
    data = bytes_of_size(80 * CHUNK_BYTES + 1)
    ref = home.put_file(io.BytesIO(data))
    assert messages_of_chunks(home) == 81 + -(-81 * 32 // 1_000) + -(-81 * 8 // 1_000)
    with home.open_blob(ref.cid) as file:
        for begin in (70 * CHUNK_BYTES, 31 * CHUNK_BYTES - 3, 80 * CHUNK_BYTES):
            file.seek(begin)
            assert file.read(10) == data[begin : begin + 10]


def test_a_reference_moves_between_a_directory_and_a_bucket_unchanged(home, tmp_path):
    data = bytes_of_size(3 * CHUNK_BYTES + 1)
    with closing(DirectoryBlobs(tmp_path)) as directory:
        ref = directory.put_file(io.BytesIO(data))
        older = directory.put_file(io.BytesIO(data), cid=raw_cid_of(data))
        copied = copy_all(directory, home)
        assert (copied.blobs, [left.cid for left in copied.left]) == (1, [older.cid])
        assert copy_all(directory, home).there == 1
        assert copy_all(home, directory).there == 1
    assert get(home, ref) == data
    assert check_all(home).blobs == 1


# As other clients of NATS see it


@pytest.mark.parametrize("size_bytes", [1, CHUNK_BYTES, 5 * CHUNK_BYTES + 3])
def test_the_object_store_of_other_clients_gives_what_is_put_here(home, url, size_bytes):
    data = bytes_of_size(size_bytes)
    for ref in (put(home, data), put(home, data), home.put_file(io.BytesIO(data))):
        assert by_nats(url, lambda bucket, ref=ref: bucket.get(ref.cid)).data == data


def test_objects_of_others_are_not_blobs_and_stay(home, url):
    by_nats(url, lambda bucket: bucket.put("report.pdf", b"of somebody else"))
    ref = put(home, b"tea")
    assert [kept.cid for kept in home.kept()] == [ref.cid]
    assert home.drop_unfinished(later()) == 0
    assert by_nats(url, lambda bucket: bucket.get("report.pdf")).data == b"of somebody else"


def test_a_blob_that_another_client_has_put_is_read_if_it_is_cut_as_blobs_are(home, url):
    data = bytes_of_size(3 * CHUNK_BYTES + 1)
    cut = ObjectMeta(options=ObjectMetaOptions(max_chunk_size=CHUNK_BYTES))
    by_nats(url, lambda bucket: bucket.put(cid_of(data), data, meta=cut))
    assert get(home, cid_of(data)) == data
    with home.open_blob(cid_of(data)) as file:
        for begin in (2 * CHUNK_BYTES, 5):
            file.seek(begin)
            assert file.read(10) == data[begin : begin + 10]
    by_nats(url, lambda bucket: bucket.put(cid_of(data), data))
    with pytest.raises(CorruptStore, match=r"25 messages|messages, which something else put: put .* again"):
        home.open_blob(cid_of(data))
    assert len(check_all(home).damages) == 1
    put(home, data)
    assert check_all(home).blobs == 1


# Putting again


def test_what_is_there_is_not_written_again_but_counts_as_put_now(home):
    for size_bytes in (0, 3, 2 * CHUNK_BYTES):
        ref = put(home, bytes(size_bytes))
        before = messages_of_chunks(home), {kept.cid: kept.put_at for kept in home.kept()}[ref.cid]
        nuid = asked(home, lambda bucket: bucket.infos())[-1].body.partition(b'"nuid":')[2][:24]
        assert put(home, bytes(size_bytes)) == ref
        assert nuid in asked(home, lambda bucket: bucket.infos())[-1].body
        assert messages_of_chunks(home) == before[0]
        assert {kept.cid: kept.put_at for kept in home.kept()}[ref.cid] > before[1]


def test_a_file_that_is_put_again_takes_the_place_of_the_old_one_and_is_there_once(home):
    data = bytes_of_size(3 * CHUNK_BYTES)
    for _ in range(3):
        ref = home.put_file(io.BytesIO(data))
        assert messages_of_chunks(home) == 5
    assert get(home, ref) == data


def test_who_reads_a_blob_goes_on_while_it_is_put_again(home):
    data = bytes_of_size(30 * CHUNK_BYTES + 1)
    ref = home.put_file(io.BytesIO(data))
    with home.open_blob(ref.cid) as reader, home.open_blob(ref.cid) as far_reader:
        assert reader.read(10) == data[:10]
        far_reader.seek(20 * CHUNK_BYTES)
        assert far_reader.read(10) == data[20 * CHUNK_BYTES :][:10]
        home.put_file(io.BytesIO(data))
        assert reader.read() == data[10:]
        far_reader.seek(10 * CHUNK_BYTES)
        assert far_reader.read() == data[10 * CHUNK_BYTES :]


def test_who_reads_a_blob_that_is_dropped_is_told_that_it_is_gone(home):
    ref = home.put_file(io.BytesIO(bytes_of_size(30 * CHUNK_BYTES)))
    with home.open_blob(ref.cid) as reader:
        reader.read(10)
        assert home.drop(ref.cid, later())
        with pytest.raises(BlobNotFound, match=ref.cid):
            reader.read()


def test_threads_that_put_and_read_the_same_objects_find_them_whole(home):
    together, failed = threading.Barrier(4), []

    def use():
        together.wait(60)
        try:
            for number in range(10):
                data = bytes([number]) * (number * 60_000)
                ref = home.put_file(io.BytesIO(data))
                assert get(home, ref) == data
                assert get(home, put(home, data)) == data
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed
    assert check_all(home).blobs == 10
    assert home.drop_unfinished(later()) == 0


PUTTING = """
import io, sys
from pathlib import Path
from interpreters.blobs.urls import open_blobs
from persist_effects import blob, run

home = open_blobs(Path(sys.argv[1]).read_text())
sys.stdin.readline()
for number in range(12):
    data = bytes([number]) * (number * 70_000)
    ref = home.put_file(io.BytesIO(data))
    assert run(blob.get(ref), home.handlers) == data
    assert run(blob.put(data), home.handlers) == ref
    with home.open_blob(ref.cid) as file:
        assert file.read() == data
home.close()
"""


@pytest.mark.exploration
def test_processes_that_put_and_read_the_same_objects_find_them_whole_and_leave_one_of_each(home, url, tmp_path):
    (tmp_path / "url").write_text(url)
    run_at_once(PUTTING, tmp_path / "url")
    checked = check_all(home)
    assert (checked.blobs, checked.damages) == (12, [])
    assert home.drop_unfinished(later()) == 0


# Puts that end half-way

HALF_WAY = """
import io, os, sys, signal
from interpreters.blobs.urls import open_blobs

class Source(io.RawIOBase):
    left = 5

    def read(self, size=-1):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes([self.left]) * 262144

open_blobs(sys.argv[1]).put_file(Source())
"""


def test_what_a_killed_process_left_is_not_seen_and_a_sweep_takes_it_away(url):
    killed = subprocess.run([sys.executable, "-c", HALF_WAY, url], check=False)
    assert killed.returncode == -signal.SIGKILL
    with open_store("memory:", blobs=url) as store:
        store.run(kv.put("some", "thing"))
        home = store.blobs
        assert list(home.kept()) == []
        assert messages_of_chunks(home) > 0
        assert sweep(home, store).unfinished == 0
        swept = sweep(home, store, clock=later, dry_run=True)
        assert (swept.unfinished, swept.dropped) == (1, [])
        assert messages_of_chunks(home) > 0
        assert sweep(home, store, clock=later).unfinished == 1
        assert messages_of_chunks(home) == 0


def test_a_source_that_breaks_off_leaves_nothing(home):
    def fail():
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        home.put_file(Source(9, at_6=fail))
    with pytest.raises(InvalidRequest, match="expected the bytes of blob"):
        home.put_file(Source(9), cid=cid_of(b"other"))
    assert messages_of_chunks(home) == 0
    assert list(home.kept()) == []


def test_a_put_that_a_sweep_takes_for_a_dead_one_is_told_and_nothing_of_it_is_seen(home):
    with pytest.raises(StoreUnavailable, match="longer than the sweep's grace: put it again"):
        home.put_file(Source(9, at_6=lambda: home.drop_unfinished(later())))
    assert list(home.kept()) == []
    assert home.drop_unfinished(later()) <= 1
    assert messages_of_chunks(home) == 0


def sweeping_before(monkeypatch, home, other, name: str) -> list[int]:
    """Have a sweep go on at another home whenever the bucket is asked for something. Gives what it takes away."""
    found: list[int] = []
    asking = getattr(Bucket, name)

    async def swept_first(bucket, *arguments):
        if bucket is home._calls.bucket:
            loop = asyncio.get_running_loop()
            found.append(await loop.run_in_executor(None, other.drop_unfinished, later()))
        return await asking(bucket, *arguments)

    monkeypatch.setattr(Bucket, name, swept_first)
    return found


@pytest.mark.parametrize("size_bytes", [1, 2 * CHUNK_BYTES + 1])
def test_a_put_whose_chunks_a_sweep_takes_just_before_the_object_is_written_is_told(home, monkeypatch, size_bytes):
    with closing(open_blobs(home._calls.place)) as other:
        found = sweeping_before(monkeypatch, home, other, "write_info")
        with pytest.raises(StoreUnavailable, match="longer than the sweep's grace: put it again"):
            home.put_file(io.BytesIO(bytes_of_size(size_bytes)))
    assert found[0] == 1
    monkeypatch.undo()
    assert list(home.kept()) == []
    assert not has(home, cid_of(bytes_of_size(size_bytes)))
    assert get(home, home.put_file(io.BytesIO(bytes_of_size(size_bytes)))) == bytes_of_size(size_bytes)


def test_a_sweep_spares_what_is_finished_while_it_looks(home, monkeypatch):
    other = open_blobs(home._calls.place)
    data = bytes_of_size(2 * CHUNK_BYTES + 1)
    claim = Bucket.claim

    async def finished_first(bucket, *arguments):
        claimed = await claim(bucket, *arguments)
        goes_on.set()
        assert await asyncio.get_running_loop().run_in_executor(None, is_put.wait, 60)
        return claimed

    goes_on, is_put = threading.Event(), threading.Event()
    monkeypatch.setattr(Bucket, "claim", finished_first)
    swept = []
    sweeper = threading.Thread(target=lambda: swept.append(other.drop_unfinished(later())))

    info = Bucket.write_info

    async def claimed_first(bucket, *arguments):
        if bucket is home._calls.bucket:
            sweeper.start()
            assert await asyncio.get_running_loop().run_in_executor(None, goes_on.wait, 60)
        return await info(bucket, *arguments)

    last_of = Bucket.last_of

    async def looked_after_the_sweep(bucket, subject):
        # Between the object and the look behind its chunks the sweep sees the object.
        if bucket is home._calls.bucket and goes_on.is_set() and ".C." in subject:
            is_put.set()
            await asyncio.get_running_loop().run_in_executor(None, sweeper.join, 60)
        return await last_of(bucket, subject)

    monkeypatch.setattr(Bucket, "write_info", claimed_first)
    monkeypatch.setattr(Bucket, "last_of", looked_after_the_sweep)
    ref = home.put_file(io.BytesIO(data))
    assert swept == [0]
    assert get(home, ref) == data
    other.close()


# Dropping


def before_written(monkeypatch, happening, of=lambda info: True) -> list[object]:
    """Have something happen once, just before what an object is is written. Gives what comes of it."""
    found: list[object] = []
    write_info = Bucket.write_info

    async def happened_first(bucket, info, expected):
        if of(info) and not found:
            found.append(None)
            found[0] = await asyncio.get_running_loop().run_in_executor(None, happening)
        return await write_info(bucket, info, expected)

    monkeypatch.setattr(Bucket, "write_info", happened_first)
    return found


@pytest.mark.parametrize("is_file", [True, False], ids=["from a file", "from memory"])
def test_a_blob_that_is_put_while_it_is_dropped_stays(home, monkeypatch, is_file):
    data = bytes_of_size(CHUNK_BYTES + 1)
    ref = put(home, data)
    with closing(open_blobs(home._calls.place)) as other:
        again = (lambda: other.put_file(io.BytesIO(data))) if is_file else (lambda: put(other, data))
        found = before_written(monkeypatch, again, lambda info: info.deleted)
        assert not home.drop(ref.cid, later())
        assert found == [BlobRef(ref.cid, len(data), "application/octet-stream")]
    assert get(home, ref) == data


@pytest.mark.parametrize("is_file", [True, False], ids=["from a file", "from memory"])
def test_a_blob_that_is_dropped_while_it_is_put_again_is_put_whole(home, monkeypatch, is_file):
    data = bytes_of_size(CHUNK_BYTES + 1)
    ref = put(home, data)
    with closing(open_blobs(home._calls.place)) as other:
        found = before_written(monkeypatch, lambda: other.drop(ref.cid, later()), lambda info: not info.deleted)
        assert (home.put_file(io.BytesIO(data)) if is_file else put(home, data)) == ref
        assert found == [True]
    assert get(home, ref) == data
    assert home.drop_unfinished(later()) == 0


def test_nothing_is_left_of_what_is_dropped(home):
    ref = home.put_file(io.BytesIO(bytes_of_size(3 * CHUNK_BYTES)))
    before = next(home.kept()).put_at
    assert not home.drop(ref.cid, before)
    assert home.drop(ref.cid, before + 1)
    assert not home.drop(ref.cid, later())
    assert not has(home, ref)
    assert messages_of_chunks(home) == 0
    assert asked(home, lambda bucket: bucket.infos()) == []


# Damage


@pytest.mark.parametrize("size_bytes", [1, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_bytes_of_another_blob_are_told_and_mended_by_putting_it_again(home, url, size_bytes):
    data = bytes_of_size(size_bytes)
    ref = put(home, data)
    cut = ObjectMeta(options=ObjectMetaOptions(max_chunk_size=CHUNK_BYTES))
    by_nats(url, lambda bucket: bucket.put(ref.cid, bytes(size_bytes), meta=cut))
    message = f"expected the bytes of blob {ref.cid}, found .* put the blob's bytes again"
    with pytest.raises(CorruptStore, match=message):
        get(home, ref)
    with pytest.raises(CorruptStore, match=message):
        read_through(home, ref.cid)
    assert [damage.cid for damage in check_all(home).damages] == [ref.cid]
    assert put(home, data) == ref
    assert check_all(home).damages == []
    assert get(home, ref) == data


def test_a_missing_chunk_is_damage_and_the_others_are_read(home):
    data = bytes_of_size(6 * CHUNK_BYTES)
    ref = put(home, data)

    async def take(bucket: Bucket) -> None:
        found = await bucket.page(f"$O.{bucket.name}.C.*", 1, 10)
        await bucket.delete(found[3].number)

    asked(home, take)
    with home.open_blob(ref.cid) as file:
        file.seek(5 * CHUNK_BYTES)
        assert file.read() == data[5 * CHUNK_BYTES :]
        file.seek(3 * CHUNK_BYTES)
        with pytest.raises(CorruptStore, match=f"offset {3 * CHUNK_BYTES}: put the blob's bytes again"):
            file.read(1)
    with pytest.raises(CorruptStore):
        get(home, ref)


def test_without_the_digests_and_the_places_beside_it_a_blob_is_read_all_the_same(home):
    data = bytes_of_size(6 * CHUNK_BYTES)
    ref = put(home, data)
    asked(home, lambda bucket: bucket.purge(f"$O.{bucket.name}.C.*.>"))
    assert messages_of_chunks(home) == 6
    with home.open_blob(ref.cid) as file:
        for begin in (4 * CHUNK_BYTES, 5):
            file.seek(begin)
            assert file.read(10) == data[begin : begin + 10]


def test_an_object_that_says_nothing_is_damage(home):
    ref = put(home, b"tea")
    asked(home, lambda bucket: bucket._connection.ask(bucket.subject_of(ref.cid), b"{", {"Nats-Rollup": "sub"}))
    with pytest.raises(CorruptStore, match=r"expected what an object is, found b'{': put its bytes again"):
        get(home, ref)
    assert [damage.cid for damage in check_all(home).damages] == [ref.cid]
    put(home, b"tea")
    assert get(home, ref) == b"tea"


# Servers that refuse, or are gone


def uses(home):
    return (
        lambda: put(home, b"tea"),
        lambda: get(home, cid_of(b"tea")),
        lambda: has(home, cid_of(b"tea")),
        lambda: home.put_file(io.BytesIO(b"tea")),
        lambda: home.open_blob(cid_of(b"tea")),
        lambda: list(home.kept()),
        lambda: home.drop(cid_of(b"tea"), later()),
        lambda: home.drop_unfinished(later()),
    )


def test_a_put_goes_on_when_its_server_is_back_and_is_told_where_it_stays_away():
    with PrivateCluster() as cluster, closing(open_blobs(cluster.url("blobs", timeout=20))) as home:
        # The next chunk waits for the one that was on its way.
        starter = threading.Thread(target=cluster.start)
        source = Source(12, at_4=lambda: (cluster.kill(), starter.start()))
        ref = home.put_file(source)
        starter.join(60)
        assert get(home, ref) == source.whole()
        with closing(open_blobs(cluster.url("blobs", timeout=0.3))) as impatient:
            with pytest.raises(StoreUnavailable, match="see to the servers, then try again"):
                impatient.put_file(Source(8, at_4=cluster.kill))
            for use in uses(impatient):
                with pytest.raises(StoreUnavailable, match="see to the servers, then try again"):
                    use()
        cluster.start()
        assert [kept.cid for kept in home.kept()] == [ref.cid]
        assert home.drop_unfinished(later()) == 1
        assert home.put_file(Source(8)).size == 8 * PIECE_BYTES


def test_where_no_server_answers_that_is_said():
    with pytest.raises(StoreUnavailable, match="no server answers"):
        NatsBlobs(["127.0.0.1:9"], "blobs", timeout_seconds=0.1)


def test_a_bucket_that_is_full_says_so_and_what_was_begun_is_taken_away(home):
    put(home, b"tea")

    async def limit(bucket: Bucket) -> None:
        config = (await bucket.api(f"STREAM.INFO.{bucket.stream}"))["config"]
        await bucket.api(f"STREAM.UPDATE.{bucket.stream}", **{**config, "max_bytes": 4 * PIECE_BYTES})

    asked(home, limit)
    with pytest.raises(StoreUnavailable, match=r"is full: maximum bytes exceeded: sweep it, or raise its max_bytes"):
        home.put_file(Source(9))
    assert messages_of_chunks(home) == 1
    assert put(home, b"milk").size == 4


ACCOUNTS = """
accounts {
  PLAIN { users: [ { user: plain, password: secret } ] }
  STREAMS {
    jetstream: enabled
    users: [
      { user: all, password: secret }
      { user: reads, password: secret, permissions {
        publish { allow: ["$JS.API.STREAM.INFO.>", "$JS.API.STREAM.MSG.GET.>", "$JS.API.DIRECT.GET.>"] }
        subscribe { allow: ["_INBOX.>"] }
      } }
    ]
  }
}
"""


def test_without_jetstream_or_the_right_to_write_that_is_said():
    with PrivateCluster(settings=ACCOUNTS) as cluster:

        def url(user: str) -> str:
            return cluster.url("blobs", timeout=0.5).replace("//", f"//{user}:secret@")

        with pytest.raises(StoreUnavailable, match="JetStream is not enabled there, or not for this account"):
            open_blobs(url("plain"))
        with closing(open_blobs(url("all"))) as home:
            ref = put(home, b"tea")
            assert "secret" not in home._calls.place
        with closing(open_blobs(url("reads"), read_only=True)) as home:
            assert get(home, ref) == b"tea"
            assert not has(home, cid_of(b"milk"))
            assert [kept.cid for kept in home.kept()] == [ref.cid]
        with (
            closing(open_blobs(url("reads"))) as home,
            pytest.raises(InvalidRequest, match=r"this user may not do it: .*: let the user publish to \$O.blobs.>"),
        ):
            put(home, b"milk")


def test_a_bucket_is_made_where_it_is_missing_unless_it_is_only_read(url):
    with closing(open_blobs(url.replace("?replicas=1", ""), read_only=True)) as home:
        assert list(home.kept()) == []
        assert not has(home, cid_of(b"tea"))
        assert home.drop_unfinished(later(), dry_run=True) == 0
        with pytest.raises(BlobNotFound):
            get(home, cid_of(b"tea"))
        for use in (lambda: put(home, b"tea"), lambda: home.drop(cid_of(b"tea"), 0), lambda: home.drop_unfinished(0)):
            with pytest.raises(InvalidRequest, match="was opened to read only"):
                use()
        with closing(open_blobs(url)) as writer:
            put(writer, b"tea")
        assert get(home, cid_of(b"tea")) == b"tea"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_age": 60}, "max_age=60000000000, which would drop what is old"),
        ({"storage": "memory"}, "storage=memory, and blobs need file"),
        ({"discard": "old"}, "discard=old, and blobs need new"),
        ({"subjects": ["blobs-elsewhere.>"]}, "with the subjects"),
        ({"sealed": True}, "sealed"),
    ],
    ids=lambda value: "",
)
def test_a_bucket_that_would_lose_blobs_is_refused(url, settings, message):
    server, _, rest = url.removeprefix("nats://").partition("/")
    name = rest.partition("?")[0]
    made = {
        "name": f"OBJ_{name}", "subjects": [f"$O.{name}.C.>", f"$O.{name}.M.>"], "discard": "new", "storage": "file",
        "allow_direct": True, "allow_rollup_hdrs": True, **settings,
    }  # fmt: skip

    async def make():
        client = await nats.connect(f"nats://{server}")
        try:
            sealed = made.pop("sealed", None)
            info = await client.jetstream().add_stream(StreamConfig(**made))
            if sealed:
                await client.jetstream().update_stream(info.config.evolve(sealed=True))
        finally:
            await client.close()

    asyncio.run(make())
    with pytest.raises(InvalidRequest, match=message):
        open_blobs(url)


def test_a_bucket_of_another_client_is_taken_and_another_count_of_replicas_is_not(url):
    server, _, rest = url.removeprefix("nats://").partition("/")

    async def make():
        client = await nats.connect(f"nats://{server}")
        await client.jetstream().create_object_store(rest.partition("?")[0])
        await client.close()

    asyncio.run(make())
    with closing(open_blobs(url)) as home:
        assert get(home, put(home, b"tea")) == b"tea"
    with pytest.raises(InvalidRequest, match="is there on 1 servers, and replicas=3 was given"):
        open_blobs(url.replace("replicas=1", "replicas=3"))
    with pytest.raises(StoreUnavailable, match="give fewer replicas"):
        open_blobs(new_bucket_url(replicas=3))


def test_a_home_that_is_closed_says_so(home):
    home.close()
    home.close()
    for use in uses(home):
        with pytest.raises(StoreClosed, match="the blob store was closed: open it again"):
            use()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nats:", "names no home of blobs"),
        ("nats://127.0.0.1:4222", "the URL of blobs on NATS is nats://HOST:PORT,HOST:PORT/BUCKET"),
        ("nats://127.0.0.1:4222/a.b", "with a bucket of letters, digits, - and _"),
        ("nats://127.0.0.1:4222/blobs?size=3", "no option 'size': they take replicas, timeout"),
        ("nats://127.0.0.1:4222/blobs?replicas=many", "replicas is 'many'"),
        ("nats://127.0.0.1:4222/blobs?replicas=9", "replicas is 9"),
        ("nats://127.0.0.1:4222/blobs?timeout=0", "timeout is 0.0"),
        ("nats://127.0.0.1:4222/blobs?timeout=1&timeout=2", "'timeout' of blobs on NATS is given twice"),
        ("nats://me:x@127.0.0.1:4222/blobs?user=you", "leave one of them out"),
    ],
)
def test_a_url_that_names_no_bucket_is_refused(url, message):
    with pytest.raises(InvalidRequest, match=message):
        open_blobs(url)


# Forks, and the command line


def in_child(use) -> str:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(60)
            try:
                told = repr(use())
            except BaseException as error:
                told = f"{type(error).__name__}: {error}"
            os.write(writing, told.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as told_by_child:
        told = told_by_child.read().decode()
    os.waitpid(pid, 0)
    return told


def test_a_child_of_a_fork_has_a_bucket_by_a_connection_of_its_own_and_its_parent_too(home):
    data = bytes_of_size(9 * CHUNK_BYTES)
    ref = home.put_file(io.BytesIO(data))
    with home.open_blob(ref.cid) as file:
        assert file.read(10) == data[:10]
        told = in_child(lambda: (file.read() == data[10:], put(home, b"of the child").size, home.close()))
        assert told == "(True, 12, None)"
        assert file.read() == data[10:]
    assert get(home, cid_of(b"of the child")) == b"of the child"
    assert get(home, put(home, b"of the parent")) == b"of the parent"


def test_the_commands_list_check_copy_and_sweep_a_bucket(url, tmp_path):
    def invoke(*arguments):
        return CliRunner().invoke(app, ["blobs", *map(str, arguments)])

    store_url = f"file:{tmp_path / 'store'}"
    with open_store(store_url, blobs=url) as store:
        kept, lost = store.run(blob.put(b"kept")), store.run(blob.put(b"lost"))
        store.run(log.append("s", "made", kept))
    assert sorted(line.split()[:2] for line in invoke("list", url).stdout.splitlines()) == sorted(
        [[kept.cid, "4"], [lost.cid, "4"]]
    )
    assert invoke("check", url).stdout == "sound: 2 blobs of 8 bytes\n"
    assert invoke("copy", url, f"dir:{tmp_path / 'copy'}").stdout == "copied: 2 blobs of 8 bytes, 0 were there\n"
    subprocess.run([sys.executable, "-c", HALF_WAY, url], check=False)
    dry = invoke("sweep", store_url, "--blobs", url, "--grace-hours", 0, "--dry-run")
    assert dry.stdout.splitlines()[0] == f"unreached: blob {lost.cid}"
    assert dry.stdout.endswith("; of 1 unfinished puts, what was left would go\n")
    done = invoke("sweep", store_url, "--blobs", url, "--grace-hours", 0)
    assert done.stdout.splitlines()[0] == f"dropped: blob {lost.cid}"
    assert done.stdout.endswith("; of 1 unfinished puts, what was left is gone\n")
    assert invoke("list", url).stdout.split()[0] == kept.cid


# A cluster


@contextmanager
def without_leader(home, cluster):
    """Kills the server that leads the bucket's stream; it is started again at the end."""
    leader = asked(home, lambda bucket: bucket.api(f"STREAM.INFO.{bucket.stream}"))["cluster"]["leader"]
    node = int(leader.removeprefix("n"))
    cluster.kill(node)
    try:
        yield
    finally:
        cluster.start(node)


@pytest.mark.exploration
def test_a_put_goes_on_when_the_server_that_leads_is_killed_in_the_middle_of_it():
    cluster = own_cluster(3)
    with closing(open_blobs(new_bucket_url(3))) as home, closing(open_blobs(home._calls.place)) as other:
        killed = []

        def kill():
            killed.append(without_leader(home, cluster))
            killed[0].__enter__()

        source = Source(20, at_8=kill)
        ref = home.put_file(source)
        assert get(other, ref) == source.whole()
        assert by_nats_whole(other, ref) == source.whole()
        killed[0].__exit__(None, None, None)
        assert has(home, ref)
        with other.open_blob(ref.cid) as file:
            file.seek(12 * PIECE_BYTES)
            assert file.read() == source.whole()[12 * PIECE_BYTES :]
        assert home.drop_unfinished(later()) == 0


def by_nats_whole(home, ref) -> bytes:
    """All messages of a blob's subject, in their order, as an object store reads them."""

    async def read(bucket: Bucket) -> bytes:
        return b"".join(message.body for message in await bucket.page(f"$O.{bucket.name}.C.*", 1, 100))

    return asked(home, read)


def test_a_blob_that_was_acknowledged_is_found_at_once_by_everybody():
    url = new_bucket_url(3)
    homes = [open_blobs(url) for _ in range(3)]
    for number in range(60):
        ref = put(homes[number % 3], b"%d" % number)
        for home in homes:
            assert has(home, ref)
            assert get(home, ref) == b"%d" % number
        assert len(list(homes[(number + 1) % 3].kept())) == number + 1
    for home in homes:
        home.close()


def test_a_leader_that_does_not_know_of_a_blob_yet_is_not_believed(home, monkeypatch):
    ref = home.put_file(io.BytesIO(bytes_of_size(2 * CHUNK_BYTES)))
    got = Bucket._got

    async def as_before(bucket, **which):
        # As one that was stopped while another one led: it answers all the same.
        return None if "last_by_subj" in which else await got(bucket, **which)

    monkeypatch.setattr(Bucket, "_got", as_before)
    assert has(home, ref)
    assert get(home, ref) == bytes_of_size(2 * CHUNK_BYTES)
    assert put(home, bytes_of_size(2 * CHUNK_BYTES)) == ref
    assert home.put_file(io.BytesIO(bytes_of_size(2 * CHUNK_BYTES))) == ref
    monkeypatch.undo()
    assert get(home, ref) == bytes_of_size(2 * CHUNK_BYTES)
    assert messages_of_chunks(home) == 4
