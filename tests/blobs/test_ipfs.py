"""Blobs on a real IPFS node, by the RPC API of Kubo; and what is told where there is none, or something else."""

import http.server
import io
import random
import socket
import threading
import tracemalloc
from contextlib import closing, contextmanager

import httpx
import pytest
from ipfs_server import api_url

from interpreters import open_store
from interpreters.blobs.cid import CHUNK_BYTES, LINKS, cid_of, raw_cid_of
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import PIECE_BYTES, read_through
from interpreters.blobs.ipfs import IpfsBlobs
from interpreters.blobs.urls import open_blobs
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

pytestmark = pytest.mark.exploration

MIB = 1024 * 1024
SIZES = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, MIB)


def bytes_of_size(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


@pytest.fixture(scope="module")
def api() -> str:
    return api_url()


@pytest.fixture
def home(api):
    with closing(IpfsBlobs(api, timeout_seconds=2)) as opened:
        yield opened


@pytest.fixture
def store(api):
    with open_store("memory:", blobs=f"ipfs:{api}?timeout=2") as opened:
        yield opened


def cid_by_ipfs(api: str, data: bytes) -> str:
    """What the node gives these bytes when nobody of ours asks it."""
    options = {"cid-version": "1", "raw-leaves": "true", "cid-base": "base32", "only-hash": "true"}
    answer = httpx.post(f"{api}/api/v0/add", params=options, files={"file": ("x", data)}, timeout=60)
    return answer.json()["Hash"]


def pins(api: str) -> int:
    return len(httpx.post(f"{api}/api/v0/pin/ls", params={"type": "recursive"}, timeout=60).json()["Keys"])


# Identifiers


@pytest.mark.parametrize("size_bytes", [*SIZES, LINKS * CHUNK_BYTES, LINKS * CHUNK_BYTES + 1, 45 * MIB])
def test_ipfs_gives_the_identifier_that_is_computed_here(api, size_bytes):
    data = bytes_of_size(size_bytes)
    assert cid_of(data) == cid_by_ipfs(api, data)


def test_ipfs_gives_the_identifiers_of_bytes_of_any_size(api):
    draw = random.Random(14)
    for _ in range(12):
        data = draw.randbytes(draw.randrange(6 * CHUNK_BYTES))
        assert cid_of(data) == cid_by_ipfs(api, data), len(data)


def test_a_reference_moves_between_a_directory_and_ipfs_unchanged(home, tmp_path):
    data = bytes_of_size(3 * CHUNK_BYTES + 1)
    with closing(DirectoryBlobs(tmp_path)) as directory:
        ref = directory.put_file(io.BytesIO(data), "image/png")
        with directory.open_blob(ref.cid) as file:
            assert home.put_file(file, "image/png", cid=ref.cid) == ref
        with home.open_blob(ref.cid) as file:
            assert file.read() == data


# A store on it


@pytest.mark.parametrize("size_bytes", SIZES)
def test_bytes_and_files_of_any_size_come_back(store, size_bytes):
    data = bytes_of_size(size_bytes)
    ref = store.run(blob.put(data, "image/png"))
    assert ref == BlobRef(cid_of(data), size_bytes, "image/png") == store.put_file(io.BytesIO(data), "image/png")
    assert store.run(blob.get(ref)) == data
    assert store.run(blob.has(ref))
    with store.open_blob(ref) as file:
        assert file.read() == data


def test_any_range_is_read_and_proved_by_itself(store):
    data = bytes_of_size((LINKS + 1) * CHUNK_BYTES + 9)
    store.run(kv.put("film", store.put_file(io.BytesIO(data))))
    with store.open_blob(store.run(kv.get("film"))) as file:
        for begin in (0, CHUNK_BYTES - 5, LINKS * CHUNK_BYTES - 5, len(data) - 5):
            file.seek(begin)
            assert file.read(10) == data[begin : begin + 10]
        assert file.seek(0, io.SEEK_END) == len(data)


def test_what_is_put_is_pinned_and_listed(api, home):
    before = pins(api)
    ref = home.put_file(io.BytesIO(b"pinned"))
    assert pins(api) == before + 1
    assert (ref.cid, 6, None) in list(home.kept())
    large = home.put_file(io.BytesIO(bytes(CHUNK_BYTES + 5)))
    assert (large.cid, CHUNK_BYTES + 5, None) in list(home.kept())


def test_a_large_file_goes_both_ways_in_constant_memory(home):
    class Zeros(io.RawIOBase):
        left = 40 * MIB

        def read(self, size: int = -1) -> bytes:
            count = min(size, self.left)
            self.left -= count
            return bytes(count)

    home.put_file(io.BytesIO(bytes(CHUNK_BYTES + 1)))
    told: list[int] = []
    tracemalloc.start()
    try:
        ref = home.put_file(Zeros(), progress=lambda done, total: told.append(done))
        assert read_through(home, ref.cid) == 40 * MIB
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
    assert told == list(range(PIECE_BYTES, 40 * MIB + 1, PIECE_BYTES))


# Bad input, and nodes that are not there


def test_a_blob_that_is_not_there_is_not_found(store):
    for cid in (cid_of(b"never put"), cid_of(bytes(CHUNK_BYTES + 77))):
        assert not store.run(blob.has(cid))
        with pytest.raises(BlobNotFound, match=cid):
            store.run(blob.get(cid))
        with pytest.raises(BlobNotFound, match=cid):
            store.open_blob(cid)


def test_a_malformed_identifier_is_refused_before_the_node_is_asked():
    with open_store("memory:", blobs="ipfs:http://127.0.0.1:9") as store:
        for use in (blob.get, blob.has):
            with pytest.raises(InvalidRequest, match="not a content identifier of a blob"):
                store.run(use("hello"))
        with pytest.raises(InvalidRequest, match="not a content identifier of a blob"):
            store.open_blob("bafybei")


def test_bytes_of_another_identifier_are_not_pinned(api, home):
    before = pins(api)
    with pytest.raises(InvalidRequest, match="expected the bytes of blob"):
        home.put_file(io.BytesIO(b"not pinned"), cid=cid_of(b"other"))
    data = bytes(CHUNK_BYTES + 6)
    with pytest.raises(InvalidRequest, match="expected the bytes of blob"):
        home.put_file(io.BytesIO(data), cid=raw_cid_of(data))
    assert pins(api) == before


def test_a_source_that_breaks_off_leaves_nothing_pinned(api, home):
    class Breaking(io.RawIOBase):
        pieces = 0

        def read(self, size: int = -1) -> bytes:
            self.pieces += 1
            if self.pieces > 2:
                raise OSError("the source is gone")
            return bytes([77]) * MIB

    before = pins(api)
    with pytest.raises(OSError, match="the source is gone"):
        home.put_file(Breaking())
    assert pins(api) == before
    assert home.put_file(io.BytesIO(b"and on")).size == 6


def test_nothing_is_dropped_from_a_node(home):
    with pytest.raises(InvalidRequest, match="does not keep when a blob was put"):
        home.drop(cid_of(b"tea"), 0)


def test_a_home_that_is_only_read_and_one_that_is_closed_say_so(api):
    home = IpfsBlobs(api, read_only=True)
    with pytest.raises(InvalidRequest, match=r"put_file: .* was opened to read only"):
        home.put_file(io.BytesIO(b"tea"))
    home.close()
    home.close()
    for use in (lambda: run(blob.has(cid_of(b"tea")), home.handlers), lambda: home.open_blob(cid_of(b"tea"))):
        with pytest.raises(StoreClosed, match="open it again"):
            use()


def uses(home):
    return (
        lambda: run(blob.put(b"tea"), home.handlers),
        lambda: run(blob.get(cid_of(b"tea")), home.handlers),
        lambda: run(blob.has(cid_of(b"tea")), home.handlers),
        lambda: home.put_file(io.BytesIO(b"tea")),
        lambda: home.open_blob(cid_of(b"tea")),
        lambda: list(home.kept()),
    )


def test_where_no_node_listens_that_is_said():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with closing(IpfsBlobs(f"http://127.0.0.1:{probe.getsockname()[1]}")) as home:
            for use in uses(home):
                with pytest.raises(StoreUnavailable, match="there is no IPFS node"):
                    use()


@contextmanager
def answering(status: int, body: bytes):
    """A server that answers whatever it is asked with the same."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.close_connection = True
            if self.headers.get("transfer-encoding") == "chunked":
                while (count := int(self.rfile.readline(), 16)) or self.rfile.readline().strip():
                    self.rfile.read(count + 2)
            else:
                self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with closing(IpfsBlobs(f"http://127.0.0.1:{server.server_port}")) as home:
                yield home
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [404, 405, 500, 301])
def test_a_server_that_is_not_a_node_is_told_from_one(status):
    with answering(status, b"<html>hello</html>") as home:
        for use in uses(home):
            with pytest.raises(StoreUnavailable, match="does not answer as the RPC API of Kubo"):
                use()


def test_what_a_server_of_something_else_says_is_not_believed():
    for body in (b"", b"hello", b"{}", b"[]", b'{"Hash": "hello"}', b'{"Cid": 7}'):
        with answering(200, body) as home:
            with pytest.raises(StoreUnavailable, match="does not answer as the RPC API of Kubo"):
                home.put_file(io.BytesIO(b"tea"))
            with pytest.raises(CorruptStore, match=f"expected the bytes of blob {cid_of(b'tea')}, found"):
                run(blob.get(cid_of(b"tea")), home.handlers)
            for cid in (cid_of(b"tea"), cid_of(bytes(CHUNK_BYTES + 1))):
                with pytest.raises(CorruptStore, match="found another block"):
                    home.open_blob(cid)


def test_a_node_that_gives_another_identifier_is_told():
    with (
        answering(200, b'{"Hash": "%s"}' % cid_of(b"milk").encode()) as home,
        pytest.raises(StoreUnavailable, match="is it a node of IPFS"),
    ):
        home.put_file(io.BytesIO(b"tea"))


def test_a_node_that_does_not_answer_in_time_is_told():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with closing(IpfsBlobs(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.001)) as home:
            home._client.timeout = 0.05
            for use in uses(home):
                with pytest.raises(StoreUnavailable, match=r"took longer than 0\.001 seconds: .*\?timeout=60"):
                    use()


def test_a_flipped_bit_on_the_way_from_a_node_is_an_error(home, monkeypatch):
    data = bytes_of_size(2 * CHUNK_BYTES)
    ref = home.put_file(io.BytesIO(data))
    before = home.cat
    monkeypatch.setattr(home, "cat", lambda *arguments: bytes([before(*arguments)[0] ^ 1]) + before(*arguments)[1:])
    with pytest.raises(CorruptStore, match=f"expected the bytes of blob {ref.cid}"):
        run(blob.get(ref), home.handlers)
    with home.open_blob(ref.cid) as file, pytest.raises(CorruptStore, match="other bytes at offset 0"):
        file.read(1)


def test_a_file_that_was_cut_in_another_way_is_read_whole_or_not_at_all(api, home):
    options = {"cid-version": "1", "raw-leaves": "true", "cid-base": "base32", "chunker": "size-1000"}
    answer = httpx.post(f"{api}/api/v0/add", params=options, files={"file": ("x", bytes(300_000))}, timeout=60)
    cid = answer.json()["Hash"]
    with pytest.raises(InvalidRequest, match="not a file that is cut and linked as blobs are"):
        home.open_blob(cid)
    with pytest.raises(CorruptStore):
        run(blob.get(cid), home.handlers)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ipfs:", "names no home of blobs"),
        ("ipfs:127.0.0.1:5001", "not the address of an RPC API"),
        ("ipfs:http://127.0.0.1:5001?size=3", "no option 'size'"),
        ("ipfs:http://127.0.0.1:5001?timeout=soon", "timeout is 'soon'"),
        ("ipfs:http://127.0.0.1:5001?timeout=0", "timeout is 0.0"),
        ("ipfs:http://127.0.0.1:5001?timeout=nan", "timeout is nan"),
    ],
)
def test_a_url_that_names_no_node_is_refused(url, message):
    with pytest.raises(InvalidRequest, match=message):
        open_blobs(url)
