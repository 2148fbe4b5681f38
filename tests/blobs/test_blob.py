"""Large bytes under the hash of their content."""

import base64
import hashlib
import threading

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats_cluster import new_bucket_url

from interpreters import Store, open_store
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.memory import MemoryBlobs
from interpreters.stores.served import RemoteStore
from persist_effects import BlobNotFound, BlobRef, InvalidRequest, blob, kv, log, run
from persist_effects.capabilities import Capabilities

OPENED = {
    "memory": lambda path: open_store("memory:"),
    "a file store": lambda path: open_store(f"file:{path}"),
    "a directory beside a memory store": lambda path: open_store("memory:", blobs=DirectoryBlobs(path)),
    "a bucket of NATS beside a memory store": lambda path: open_store("memory:", blobs=new_bucket_url()),
    "a served file store": lambda path: Store(RemoteStore.spawn(f"file:{path}")),
}


@pytest.fixture(params=OPENED.values(), ids=OPENED)
def store(request, tmp_path):
    with request.param(tmp_path / "store") as opened:
        yield opened


def independent_cid(data):
    """By the specification, up to 256 KiB: version 1, raw, hash and length, the digest, in base32 after a b."""
    header = bytes([0x01, 0x55, 0x12, 0x20])
    return "b" + base64.b32encode(header + hashlib.sha256(data).digest()).decode().rstrip("=").lower()


@given(st.binary(max_size=2_000))
@settings(derandomize=True, deadline=None, database=None, max_examples=50)
def test_a_cid_is_what_an_independent_computation_gives(open_new, data):
    with open_new() as store:
        ref = store.run(blob.put(data, "image/png"))
        assert ref == BlobRef(independent_cid(data), len(data), "image/png")
        assert store.run(blob.get(ref)) == data


def test_well_known_cids_are_met(store):
    # From IPFS: `ipfs add --cid-version=1 --raw-leaves` of no bytes, and of `hello world`.
    empty = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    hello_world = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    assert store.run(blob.put(b"")).cid == empty
    assert store.run(blob.put(b"hello world")).cid == hello_world


@pytest.mark.parametrize("size", [0, 1, 262_144, 20 * 1024 * 1024])
def test_bytes_of_any_size_come_back(store, size):
    data = bytes(size)
    ref = store.run(blob.put(data))
    assert (ref.size, ref.mime) == (size, "application/octet-stream")
    assert store.run(blob.get(ref)) == data
    assert store.run(blob.has(ref))


def test_a_bare_cid_serves_as_well_as_a_reference(store):
    ref = store.run(blob.put(b"x"))
    assert store.run(blob.get(ref.cid)) == b"x"
    assert store.run(blob.has(ref.cid)) is True


def test_the_same_bytes_are_one_blob_whatever_their_mime_type(store):
    first = store.run(blob.put(b"x", "text/plain"))
    second = store.run(blob.put(b"x", "text/html"))
    assert first.cid == second.cid
    assert (first.mime, second.mime) == ("text/plain", "text/html")
    assert store.run(blob.put(b"y")).cid != first.cid


def test_a_blob_that_is_not_there_is_not_found(store):
    cid = independent_cid(b"never put")
    assert store.run(blob.has(cid)) is False
    with pytest.raises(BlobNotFound) as raised:
        store.run(blob.get(cid))
    assert raised.value.cid == cid
    assert isinstance(raised.value, LookupError)
    assert (
        str(raised.value)
        == f"no blob {cid!r} in the blob store: put its bytes there first, or ask the store that has them"
    )


GOOD = independent_cid(b"x")


@pytest.mark.parametrize(
    "cid",
    [
        "hello",
        GOOD[:-1],
        GOOD + "a",
        GOOD.upper(),
        GOOD[:-1] + "1",
        GOOD[:-1] + chr(ord(GOOD[-1]) + 1),
        GOOD + "\u00e9",
        " " + GOOD,
        "../" + GOOD[3:],
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        "bafyreigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
    ],
)
def test_what_is_no_cid_of_a_blob_is_refused(store, cid):
    for function in (blob.get, blob.has):
        with pytest.raises(InvalidRequest, match="is not a content identifier of a blob"):
            store.run(function(cid))


@pytest.mark.parametrize("cid", ["", GOOD + "\n", None, 7])
def test_what_is_no_name_is_refused_as_a_cid(store, cid):
    for function in (blob.get, blob.has):
        with pytest.raises(InvalidRequest, match="content identifier"):
            store.run(function(cid))


@pytest.mark.parametrize("data", ["text", bytearray(b"x"), memoryview(b"x"), None, [1]])
def test_only_bytes_can_be_put(store, data):
    with pytest.raises(InvalidRequest, match=r"a blob's data is (a \w+|None): give bytes"):
        store.run(blob.put(data))


@pytest.mark.parametrize("mime", ["", "text/\x00", None])
def test_a_mime_type_that_is_no_name_is_refused(store, mime):
    with pytest.raises(InvalidRequest, match="MIME type"):
        store.run(blob.put(b"x", mime))


def test_bytes_that_are_changed_after_the_put_change_nothing_stored(store):
    buffer = bytearray(b"before")
    ref = store.run(blob.put(bytes(buffer)))
    buffer[:] = b"after!"
    got = store.run(blob.get(ref))
    assert got == b"before"
    assert type(got) is bytes


def test_logs_and_keys_hold_the_reference(store):
    ref = store.run(blob.put(b"x" * 1_000, "text/plain"))
    event = store.run(log.append("photos", "taken", ref))
    store.run(kv.put("newest", ref))
    for kept in (event.data, store.run(log.read("photos"))[0].data, store.run(kv.get("newest"))):
        assert kept == {"cid": ref.cid, "size": 1_000, "mime": "text/plain"}
        assert store.run(blob.get(msgspec.convert(kept, BlobRef))) == b"x" * 1_000


def test_a_reference_serves_as_it_comes_back_from_a_key(store):
    store.run(kv.put("newest", store.run(blob.put(b"x"))))
    stored = store.run(kv.get("newest"))
    assert type(stored) is dict
    assert store.run(blob.get(stored)) == b"x"
    assert store.run(blob.has(stored)) is True


def test_threads_may_put_one_blob(store):
    threads, blobs = 8, [bytes([number]) * 100 for number in range(50)]
    together = threading.Barrier(threads)
    found = []

    def put_all():
        together.wait(60)
        found.append(store.run_many([blob.put(data, "image/png") for data in blobs]))

    workers = [threading.Thread(target=put_all) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert found == [found[0]] * threads
    assert [store.run(blob.get(ref)) for ref in found[0]] == blobs


@pytest.fixture
def url(tmp_path):
    return f"file:{tmp_path / 'store'}?segment_bytes=4096"


def test_a_durable_store_that_has_no_blob_store_refuses_bytes_that_it_would_lose():
    class Durable(Other):
        capabilities = Capabilities(durability="commit", reopen=True)

    ref = run(blob.put(b"x"), MemoryBlobs().handlers)
    with Store(Durable()) as store:
        with pytest.raises(InvalidRequest, match=r"this store is durable .*='dir:var/blobs'\), or blobs='memory:'"):
            store.run(blob.put(b"x"))
        assert not store.run(blob.has(ref))
        with pytest.raises(BlobNotFound):
            store.run(blob.get(ref))


def test_a_durable_store_takes_blobs_into_the_blob_store_that_it_was_given(url):
    for _ in range(2):
        with open_store(url, blobs=MemoryBlobs()) as store:
            ref = store.run(blob.put(b"x"))
            assert store.run(blob.get(ref)) == b"x"


def test_rows_of_the_users_own_answer_for_blobs_on_a_durable_store(url):
    kept = MemoryBlobs()
    with open_store(url, effects=kept.handlers) as store:
        ref = store.run(blob.put(b"x"))
    assert run(blob.get(ref), kept.handlers) == b"x"


def test_a_served_stores_client_may_keep_blobs_itself(url):
    with Store(RemoteStore.spawn(url), blobs=MemoryBlobs()) as store:
        ref = store.run(blob.put(b"x"))
        assert store.run(blob.get(ref)) == b"x"
    with open_store(url) as store:
        assert not store.run(blob.has(ref))


class Other:
    """A store that says nothing of blobs."""

    def __init__(self):
        self.handlers = {}

    def close(self):
        pass


def test_what_says_nothing_of_being_durable_has_blobs_in_memory():
    store = Store(Other())
    assert store.run(blob.get(store.run(blob.put(b"x")))) == b"x"
