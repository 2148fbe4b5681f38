"""A sweep gives up what nothing reaches and nobody has put lately, and never anything else."""

import io
import os
from contextlib import closing
from datetime import timedelta

import pytest
from nats_cluster import new_bucket_url

from interpreters import open_store
from interpreters.blobs.cid import CHUNK_BYTES, cid_of, raw_cid_of
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import now_micros
from interpreters.blobs.memory import MemoryBlobs
from interpreters.blobs.sweeping import LOOKS, cids_in, sweep
from interpreters.blobs.upkeep import check_all, copy_all
from persist_effects import Draft, InvalidRequest, blob, kv, log, snapshot, transact
from persist_effects.requests import Append, KvDelete, KvPut

DAYS = timedelta(days=2)


def later() -> int:
    """Two days from now."""
    return now_micros() + DAYS // timedelta(microseconds=1)


STORES = {
    "a memory store": ("memory:", None),
    "a file store": ("file:{}/store", None),
    "a store on SQLite": ("sqlite:{}/app.db", None),
    "a directory beside a memory store": ("memory:", "dir:{}/blobs"),
    "a bucket of NATS beside a memory store": ("memory:", "nats:"),
}


@pytest.fixture(params=STORES.values(), ids=STORES)
def store(request, tmp_path):
    url, blobs = request.param
    home = new_bucket_url() if blobs == "nats:" else None if blobs is None else blobs.format(tmp_path)
    with open_store(url.format(tmp_path), blobs=home) as opened:
        yield opened


def put(store, text: str):
    return store.run(blob.put(text.encode()))


def has(store, *refs) -> list[bool]:
    return [store.run(blob.has(ref)) for ref in refs]


def test_what_nothing_reaches_is_given_up_and_what_anything_reaches_stays(store):
    names = ("data", "list", "meta", "key", "bare", "snapshot", "lost", "lost too")
    refs = {name: put(store, name) for name in names}
    large = store.put_file(io.BytesIO(bytes(CHUNK_BYTES + 1)))
    store.run(log.append("s", "made", {"picture": refs["data"]}))
    store.run(log.append("s", "made", {"pictures": [{"of": [refs["list"], large]}]}))
    store.run(log.append("s", "made", None, meta={"by": refs["meta"]}))
    store.run(kv.put("picture", refs["key"]))
    store.run(kv.put("bare", refs["bare"].cid))
    store.run(snapshot.checkpoint("last", "s", lambda value, event: {"newest": refs["snapshot"].cid}, None))
    told = []
    swept = sweep(store.blobs, store, clock=later, progress=lambda done, total: told.append((done, total)))
    assert sorted(swept.dropped) == sorted([refs["lost"].cid, refs["lost too"].cid])
    assert (swept.blobs, swept.reached, swept.young, swept.dropped_bytes) == (9, 7, 0, len("lost" + "lost too"))
    assert has(store, *refs.values(), large) == [True] * 6 + [False, False, True]
    assert told[-1] == (3, 3)


def test_what_was_put_within_the_grace_stays_and_putting_it_again_renews_it(tmp_path):
    with open_store(f"file:{tmp_path}") as store:
        store.run(kv.put("some", "thing"))
        old, renewed = put(store, "old"), put(store, "renewed")
        for ref in (old, renewed):
            os.utime(tmp_path / "blobs" / ref.cid[-2] / ref.cid, (1_000, 1_000))
        young = put(store, "young")
        assert put(store, "renewed") == renewed
        swept = sweep(store.blobs, store)
        assert (swept.dropped, swept.young) == ([old.cid], 2)
        assert has(store, old, renewed, young) == [False, True, True]
        assert sweep(store.blobs, store, grace=2 * DAYS, clock=later).dropped == []
        assert len(sweep(store.blobs, store, clock=later).dropped) == 2


def test_a_dry_run_says_what_would_go_and_gives_up_nothing(store):
    store.run(kv.put("some", "thing"))
    ref = put(store, "lost")
    swept = sweep(store.blobs, store, clock=later, dry_run=True)
    assert (swept.dropped, swept.is_dry_run) == ([ref.cid], True)
    assert has(store, ref) == [True]


def test_what_is_put_again_while_a_sweep_reads_the_store_stays():
    now = [0]
    home = MemoryBlobs(clock=lambda: now[0])
    with open_store("memory:", blobs=home) as store:
        store.run(kv.put("some", "thing"))
        ref = put(store, "tea")
        now[0] = later()
        meanwhile = Moving(store, [blob.put(b"tea")])
        swept = sweep(home, meanwhile, clock=lambda: now[0])
        assert (swept.dropped, swept.young) == ([], 1)
        assert has(store, ref) == [True]


class Moving:
    """A store, beside programs that write to it while it is read."""

    def __init__(self, store, moves):
        self._store = store
        self._moves = list(moves)
        self.looks = 0

    def run(self, program):
        answer = self._store.run(program)
        # Behind each page of keys.
        if isinstance(answer, list) and self._moves:
            self._store.run(self._moves.pop(0))
        return answer

    def wait_for_order(self):
        self.looks += 1


def test_a_reference_that_is_moved_behind_the_reader_is_found(store):
    ref = put(store, "tea")
    for number in range(600):
        store.run(kv.put(f"m/{number:03}", number))
    store.run(kv.put("z", ref))
    for move in (
        transact(KvPut("a", ref), KvDelete("z")),
        transact(Append("s", (Draft("moved", ref),)), KvDelete("a")),
    ):
        moving = Moving(store, [move])
        assert sweep(store.blobs, moving, clock=later).dropped == []
        assert moving.looks == 2
    assert has(store, ref) == [True]


def test_a_store_that_is_always_written_is_read_only_so_often(store):
    put(store, "tea")
    store.run(kv.put("count", 0))
    moving = Moving(store, [kv.put("count", number) for number in range(1, 100)])
    assert len(sweep(store.blobs, moving, clock=later).dropped) == 1
    assert moving.looks == LOOKS
    for program in moving._moves:
        store.run(program)


def test_several_stores_may_share_a_home(tmp_path):
    home = f"dir:{tmp_path / 'blobs'}"
    with open_store(f"file:{tmp_path / 'one'}", blobs=home) as one, open_store("memory:", blobs=home) as two:
        refs = [put(one, text) for text in ("of one", "of two", "of none")]
        one.run(log.append("s", "made", refs[0]))
        two.run(log.append("s", "made", refs[1]))
        assert sweep(one.blobs, one, two, clock=later).dropped == [refs[2].cid]


def test_a_sweep_of_what_cannot_be_swept_is_refused(tmp_path):
    with open_store(f"file:{tmp_path}") as store:
        ref = put(store, "tea")
        for use, message in (
            (lambda: sweep(store.blobs), "give at least one"),
            (lambda: sweep(store.blobs, store, grace=timedelta(seconds=-1)), "not negative"),
            (lambda: sweep(store.blobs, store, grace=3), "give a timedelta"),
            (lambda: sweep(store.blobs, store, clock=later), "has never held anything"),
        ):
            with pytest.raises(InvalidRequest, match=message):
                use()
        assert has(store, ref) == [True]


def test_another_process_that_writes_may_go_on_while_its_blobs_are_swept(tmp_path):
    with open_store(f"file:{tmp_path}") as writer:
        kept, lost = put(writer, "kept"), put(writer, "lost")
        writer.run(log.append("s", "made", kept))
        with open_store(f"file:{tmp_path}?mode=r") as reader, closing(DirectoryBlobs(tmp_path / "blobs")) as home:
            assert sweep(home, reader, clock=later).dropped == [lost.cid]
        assert put(writer, "lost") == lost
        assert has(writer, kept, lost) == [True, True]


def test_identifiers_are_found_wherever_they_stand_as_texts_of_their_own():
    one, two, three = (cid_of(data) for data in (b"1", b"2", bytes(CHUNK_BYTES + 1)))
    deep: object = [one]
    for _ in range(5_000):
        deep = {"in": [deep]}
    assert list(cids_in(deep)) == [one]
    assert sorted(cids_in({one: [two, {"x": (three,)}], "text": f"see {one}", "n": 7, "b": one.encode()})) == sorted(
        [one, two, three]
    )


# Checking and copying


def test_all_blobs_are_checked_and_copied_under_their_identifiers(tmp_path):
    data = bytes(2 * CHUNK_BYTES)
    with closing(DirectoryBlobs(tmp_path / "old")) as old, closing(DirectoryBlobs(tmp_path / "new")) as new:
        old.put_file(io.BytesIO(b"tea"))
        old.put_file(io.BytesIO(data))
        old.put_file(io.BytesIO(data), cid=raw_cid_of(data))
        bad = old.put_file(io.BytesIO(b"milk"))
        (tmp_path / "old" / bad.cid[-2] / bad.cid).write_bytes(b"mild")
        checked = check_all(old)
        assert (checked.blobs, checked.bytes) == (3, 3 + 2 * len(data))
        assert [damage.cid for damage in checked.damages] == [bad.cid]
        told: list[tuple[int, int]] = []
        copied = copy_all(old, new, lambda done, total: told.append((done, total)))
        assert (copied.blobs, copied.there, [left.cid for left in copied.left]) == (3, 0, [bad.cid])
        assert told[-1] == (7 + 2 * len(data), 7 + 2 * len(data))
        assert copy_all(old, new).there == 3
        assert check_all(new).blobs == 3
        # A home in memory gives no identifiers of the kind that older releases gave.
        assert {left.cid for left in copy_all(old, MemoryBlobs()).left} == {bad.cid, raw_cid_of(data)}
