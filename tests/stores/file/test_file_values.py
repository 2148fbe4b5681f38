"""The values of keys, read without a lock and kept by their revisions."""

import threading

import pytest

from interpreters import open_store
from interpreters.disk.files import File
from interpreters.stores.file.values import KEPT_BESIDE_BYTES, Recent
from persist_effects import StoreClosed, StoreUnavailable, kv, log, transact
from persist_effects.requests import KvPut


@pytest.mark.exploration
def test_threads_that_read_and_write_keys_see_each_commit_whole(tmp_path):
    with open_store(f"file:{tmp_path}/store?sync=os&segment_bytes=65536") as store:
        done = threading.Event()
        errors = []

        def write():
            for number in range(3_000):
                store.run(transact(KvPut("first", number), KvPut("second", number)))
            done.set()

        def read():
            try:
                while not done.is_set():
                    first, second = store.run(kv.get_or("first", 0)), store.run(kv.get_or("second", 0))
                    assert first <= second, "a part of a commit was shown before all of it was"
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for work in (write, read, read)]
        for thread in threads:
            thread.start()
        while not done.is_set():
            store.interpreter.compact()
        for thread in threads:
            thread.join()
        assert errors == []
        assert store.run(kv.get("first")) == store.run(kv.get("second")) == 2_999


def test_a_value_that_is_kept_is_given_as_a_fresh_one_each_time(tmp_path):
    with open_store(f"file:{tmp_path}/store") as store:
        store.run(kv.put("items", ["tea"]))
        store.run(kv.get("items")).append("mug")
        assert store.run(kv.get("items")) == ["tea"]
        store.run(kv.get("items")).append("mug")
        assert store.run(kv.get("items")) == ["tea"]


@pytest.mark.parametrize("size_bytes", [1, 1_000, 2_000, 3_000_000])
def test_a_value_of_any_length_and_one_of_a_larger_commit_is_read(tmp_path, size_bytes):
    with open_store(f"file:{tmp_path}/store") as store:
        store.run(kv.put("alone", "x" * size_bytes))
        store.run(transact(KvPut("together", "y" * size_bytes), KvPut("other", 1)))
        for _ in range(2):
            assert store.run(kv.entry("alone")).value == "x" * size_bytes
            assert store.run(kv.entry("together")).value == "y" * size_bytes
        recent = store.interpreter._values._recent
        assert set(recent._young) | set(recent._old) == {1, 2}


def test_a_store_that_was_closed_gives_no_value_that_is_still_kept(tmp_path):
    store = open_store(f"file:{tmp_path}/store")
    store.run(kv.put("color", "red"))
    assert store.run(kv.get("color")) == "red"
    get = kv.get("color")
    store.interpreter.close()
    with pytest.raises(StoreClosed):
        store.run(get)
    store.close()


def test_a_store_whose_index_was_left_in_the_middle_of_a_commit_gives_no_value(tmp_path):
    with open_store(f"file:{tmp_path}/store") as store:
        store.run(kv.put("color", "red"))
        assert store.run(kv.get("color")) == "red"
        index = store.interpreter._engine.index
        index.is_changing = True
        with pytest.raises(StoreUnavailable, match="interrupted while it was taken into the index"):
            store.run(kv.get("color"))
        index.is_changing = False


def test_what_was_found_lately_is_kept_and_what_was_not_goes():
    recent = Recent(20 * (KEPT_BESIDE_BYTES + 1))
    for revision in range(1, 100):
        recent.add(revision, b"x")
        # Asked for again and again.
        assert revision < 3 or recent.get(2) == b"x"
    assert recent.get(99) == b"x"
    assert recent.get(3) is None
    assert len(recent._young) + len(recent._old) <= 20


@pytest.mark.parametrize(("cache_bytes", "reads"), [(0, 3), (1_000, 1)])
def test_a_store_keeps_as_much_of_its_values_as_it_was_told_to(tmp_path, monkeypatch, cache_bytes, reads):
    read_at = []
    plain = File.read
    monkeypatch.setattr(File, "read", lambda *given: (read_at.append(given), plain(*given))[1])
    with open_store(f"file:{tmp_path}/store?cache_bytes={cache_bytes}") as store:
        store.run(kv.put("color", "red"))
        read_at.clear()
        for _ in range(3):
            assert store.run(kv.get("color")) == "red"
        assert len(read_at) == reads


def test_a_value_that_is_larger_than_all_that_may_be_kept_is_not():
    recent = Recent(1_000)
    recent.add(1, bytes(600))
    assert recent.get(1) is None


def test_a_key_that_is_overwritten_deleted_or_put_again_has_the_value_put_last(tmp_path):
    with open_store(f"file:{tmp_path}/store") as store:
        for number in range(3):
            store.run(kv.put("color", number))
            assert store.run(kv.get("color")) == number
            store.run(log.append("s", "made", number))
        store.run(kv.delete("color"))
        assert store.run(kv.get("color")) is None
        store.run(kv.put("color", "again"))
        assert store.run(kv.get("color")) == "again"
