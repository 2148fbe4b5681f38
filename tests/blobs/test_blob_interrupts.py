"""Ctrl-C before any line of a put or a get: blobs are whole, the next put goes on, and nothing is left lying about."""

import io

import pytest
from interrupts import Interrupt

from interpreters import open_store
from interpreters.blobs import directory, files, homes, reading
from interpreters.blobs.cid import CHUNK_BYTES
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.stores.file import store
from persist_effects import BlobNotFound, blob, log, run

pytestmark = pytest.mark.exploration

FILES = tuple(module.__file__ for module in (directory, files, homes, reading, store))
TEA = b"tea" * 1_000
LARGE = bytes(CHUNK_BYTES + 1)


def outcome(use) -> str:
    try:
        use()
    except KeyboardInterrupt:
        return "interrupted"
    return "went on"


def put_and_get(beside):
    beside.run(blob.get(beside.run(blob.put(TEA))))


def put_and_read_a_large_file(beside):
    with beside.open_blob(beside.put_file(io.BytesIO(LARGE))) as file:
        file.seek(CHUNK_BYTES)
        file.read()


@pytest.mark.parametrize("use", [put_and_get, put_and_read_a_large_file])
@pytest.mark.parametrize("is_beside_a_log", [True, False], ids=["beside a log", "alone"])
def test_whichever_line_an_interrupt_comes_at_a_blob_is_whole_or_not_there(is_beside_a_log, use, tmp_path):
    def opened(path):
        return open_store(f"file:{path}") if is_beside_a_log else open_store("memory:", blobs=DirectoryBlobs(path))

    with opened(tmp_path / "counted") as beside, Interrupt(0, FILES) as interrupt:
        use(beside)
    assert interrupt.count > 60
    for at in range(1, interrupt.count + 1):
        place = tmp_path / str(at)
        beside = opened(place)
        with Interrupt(at, FILES) as interrupt:
            ended = outcome(lambda beside=beside: use(beside))
        where = f"interrupt at {interrupt.place}, {ended}"
        # The same store goes on, other blobs too, and so does the next one.
        for data in (TEA, LARGE):
            assert beside.run(blob.get(beside.run(blob.put(data)))) == data, where
        ref = beside.run(blob.put(b"milk"))
        assert beside.run(log.append("s", "made", ref)).seq == 1, where
        beside.close()
        with opened(place) as again:
            again.run(blob.put(b"next"))
            assert [again.run(blob.get(each)) for each in (ref, *named(TEA))] == [b"milk", TEA], where
        left = [path.name for path in place.rglob("*") if "-" in path.name and "unfinished" in str(path)]
        assert not left, where


def named(data: bytes) -> list[str]:
    with_name = open_store("memory:")
    return [with_name.run(blob.put(data)).cid]


def test_an_interrupted_first_put_leaves_a_blob_that_is_not_found(tmp_path):
    blobs = DirectoryBlobs(tmp_path)
    with Interrupt(1, FILES), pytest.raises(KeyboardInterrupt):
        run(blob.put(TEA), blobs.handlers)
    with pytest.raises(BlobNotFound):
        run(blob.get(named(TEA)[0]), blobs.handlers)
    blobs.close()
