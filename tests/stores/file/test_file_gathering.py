"""Small segments become one when a store is opened, and nothing of what they hold changes."""

import errno

import pytest
from file_disks import EngineStore, MemoryDisk, contents

from benchmarks.crash_workloads import FIXED
from interpreters import open_store
from interpreters.disk import requests as disk
from interpreters.explore import explore_crashes
from interpreters.stores.file import gathering
from interpreters.stores.file.gathering import LIMIT_BYTES, TOGETHER, to_gather
from interpreters.stores.file.upkeep.operations import verify
from persist_effects import CorruptStore, Draft, kv, log
from persist_effects.requests import Append, KvDelete, KvPut, Read, Transact, TruncateThrough


def sealed_in(store):
    return store.engine.log.manifest.sealed


def test_a_store_that_is_opened_often_has_few_files_and_all_that_was_written(tmp_path):
    path = tmp_path / "store"
    for number in range(100):
        with open_store(f"file:{path}") as store:
            store.run(log.append(f"s/{number % 7}", "made", number))
            store.run(kv.put(f"key/{number % 5}", number))
    assert len(list((path / "log").iterdir())) < 2 * 2 * TOGETHER
    assert verify(path).damages == []
    with open_store(f"file:{path}?mode=r") as store:
        assert [event.data for event in store.run(log.read_all())] == list(range(100))
        assert [store.run(kv.entry(f"key/{number}")).value for number in range(5)] == [95, 96, 97, 98, 99]


def written_and_opened_again(on, openings=TOGETHER + 1):
    """A store with each kind of commit in each of its sessions."""
    for number in range(openings):
        store = EngineStore(on, seed=number)
        store.commit([Append("single", (Draft("made", number),))])
        store.commit([Append("several", tuple(Draft("made", [number, part]) for part in range(3)))])
        store.commit([KvPut("key", number)])
        store.commit([Transact((Append("both", (Draft("made", number),)), KvPut(f"key/{number % 3}", number)))])
        store.commit([KvDelete(f"key/{(number + 1) % 3}")])
        store.commit([TruncateThrough("several", max(0, number * 3 - 1))])
        if number > 3:
            store.commit([TruncateThrough("single", number - 3)])
        store.close()


def test_of_streams_that_were_truncated_and_keys_that_were_deleted_nothing_else_is_there_afterwards():
    apart, together = MemoryDisk(), MemoryDisk()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interpreters.stores.file.segments.to_gather", lambda lengths: None)
        written_and_opened_again(apart)
        before = EngineStore(apart)
    written_and_opened_again(together)
    after = EngineStore(together)
    assert len(sealed_in(before)) == TOGETHER + 1
    assert len(sealed_in(after)) == 2
    assert contents(after.handlers) == contents(before.handlers)


def test_a_damaged_small_segment_is_left_as_it_is_and_the_store_opens():
    on = MemoryDisk()
    written_and_opened_again(on, TOGETHER)
    damaged = bytearray(on.files["log/00000003.seg"])
    damaged[damaged.index(b"both")] ^= 1
    on.files["log/00000003.seg"] = damaged
    store = EngineStore(on)
    assert len(sealed_in(store)) == TOGETHER
    with pytest.raises(CorruptStore, match=r"log/00000003\.seg: offset \d+"):
        store.handlers[Read](Read("both"))
    store.close()
    assert sorted(path for path in on.files if path.endswith(".seg")) == [
        f"log/{number:08d}.seg" for number in range(1, TOGETHER + 1)
    ]


@pytest.mark.parametrize("kind", [disk.Create, disk.Allocate, disk.Write])
def test_where_there_is_no_room_for_the_new_segment_the_small_ones_stay(kind):
    on = MemoryDisk()
    written_and_opened_again(on, TOGETHER)
    answer, number = on.handlers[kind], TOGETHER + 1

    def refuse(request):
        if request.path == f"log/{number:08d}.seg":
            raise OSError(errno.ENOSPC, "no room", request.path)
        return answer(request)

    on.handlers[kind] = refuse
    wanted = [[number, part] for number in range(TOGETHER - 1, TOGETHER) for part in range(3)]
    store = EngineStore(on)
    assert len(sealed_in(store)) == TOGETHER
    assert [event.data for event in store.handlers[Read](Read("several", limit=100)).events][-3:] == wanted
    store.commit([Append("single", (Draft("made", "later"),))])


@pytest.mark.exploration
@pytest.mark.parametrize("fixed", FIXED, ids=lambda fixed: fixed.name)
def test_every_crash_is_survived_where_two_small_segments_already_become_one(fixed, monkeypatch):
    monkeypatch.setattr(gathering, "TOGETHER", 2)
    report = explore_crashes(fixed.programs, segment_bytes=fixed.segment_bytes, faults=fixed.faults, depth=1)
    assert report.verdict == "passed", str(report)


def test_however_often_a_store_is_opened_each_byte_is_copied_a_few_times_and_few_segments_are_left():
    lengths, copied_bytes, most = [], 0, 0
    for _ in range(5_000):
        first = to_gather(lengths)
        if first is not None:
            copied_bytes += sum(lengths[first:])
            lengths[first:] = [sum(lengths[first:])]
        lengths.append(1_000)
        most = max(most, len(lengths))
    assert most <= 4 * TOGETHER
    assert copied_bytes <= 5 * 5_000 * 1_000


def test_segments_that_are_long_or_few_are_left_alone():
    assert to_gather([]) is None
    assert to_gather([LIMIT_BYTES] * 20) is None
    assert to_gather([100] * (TOGETHER - 1)) is None
    assert to_gather([100] * TOGETHER + [1_000_000]) is None
    assert to_gather([1_000_000] + [100] * TOGETHER) == 1
