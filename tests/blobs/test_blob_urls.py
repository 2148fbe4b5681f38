"""A home of blobs by its URL, beside any store."""

import io

import pytest

from interpreters import open_store
from interpreters.blobs.urls import open_blobs
from persist_effects import InvalidRequest, StoreUnavailable, blob, log


def test_a_directory_by_its_url_keeps_blobs_beside_any_store_until_it_is_opened_again(tmp_path):
    url = f"dir:{tmp_path / 'var' / 'blobs'}"
    for store_url in ("memory:", f"file:{tmp_path / 'store'}", f"sqlite:{tmp_path / 'app.db'}"):
        with open_store(store_url, blobs=url) as store:
            ref = store.put_file(io.BytesIO(store_url.encode()))
        with open_store(store_url, blobs=url) as store, store.open_blob(ref) as file:
            assert file.read() == store_url.encode()
    assert not (tmp_path / "store" / "blobs").exists()
    assert not (tmp_path / "app.db-blobs").exists()


def test_blobs_in_memory_are_asked_for_beside_a_durable_store(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}", blobs="memory:") as store:
        ref = store.run(blob.put(b"tea"))
        assert store.run(blob.get(ref)) == b"tea"
    with open_store(f"file:{tmp_path / 'store'}") as store:
        assert not store.run(blob.has(ref))


def test_a_home_is_closed_with_its_store_and_where_the_store_does_not_open(tmp_path):
    store = open_store("memory:", blobs=f"dir:{tmp_path / 'blobs'}")
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.blobs.put_file(io.BytesIO(b"tea"))
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="is a file"):
        open_store(f"file:{tmp_path / 'file'}", blobs=f"dir:{tmp_path / 'blobs'}")


def test_a_home_that_is_only_read_is_not_made(tmp_path):
    home = open_blobs(f"dir:{tmp_path / 'blobs'}", read_only=True)
    assert list(home.kept()) == []
    with pytest.raises(InvalidRequest, match="read only"):
        home.put_file(io.BytesIO(b"tea"))
    assert not (tmp_path / "blobs").exists()


@pytest.mark.parametrize("url", ["", "dir:", "var/blobs", "memory:x", "s3:bucket", "file:var/blobs"])
def test_a_url_that_names_no_home_is_refused_with_what_to_write(url):
    for use in (open_blobs, lambda url: open_store("memory:", blobs=url)):
        with pytest.raises(InvalidRequest, match="names no home of blobs: write dir:PATH, ipfs:http://HOST:P"):
            use(url)


@pytest.mark.parametrize("url", ["dir:~/blobs", "dir://host/blobs", "dir: x", "dir:a\nb"])
def test_a_path_that_likely_means_another_is_refused(url):
    with pytest.raises(InvalidRequest, match="write"):
        open_blobs(url)


def test_a_directory_that_cannot_be_made_is_told_before_the_store_is_opened(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot be made or opened"):
        open_store(f"file:{tmp_path / 'store'}", blobs=f"dir:{tmp_path / 'file' / 'blobs'}")
    assert not (tmp_path / "store").exists()


def test_one_program_runs_on_every_home_by_the_url_alone(tmp_path):
    def written():
        ref = yield from blob.put(b"an invoice", "text/plain")
        yield from log.append("invoices", "written", ref)
        return (yield from blob.get((yield from log.read("invoices"))[-1].data))

    for blobs in ("memory:", f"dir:{tmp_path / 'blobs'}", None):
        with open_store(f"file:{tmp_path / 'store'}", blobs=blobs) as store:
            assert store.run(written()) == b"an invoice"
