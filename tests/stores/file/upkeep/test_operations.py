"""The operators' tools for the file store: each damage is found and named, what is sound is saved, copies are equal.

Most stores here are on a disk in memory, so that every byte can be damaged, and so that a writer can write between
any two requests of a program. Others are on a real disk.
"""

import errno
import itertools
import shutil
from functools import cache
from pathlib import Path
from random import Random

import msgspec
import pytest
from file_disks import EngineStore, FailingDisk, MemoryDisk, SmallDisk, Workload, contents, first_difference

from interpreters import Store, open_store
from interpreters.disk import requests as disk
from interpreters.stores.file import scan
from interpreters.stores.file.engine import Engine, EngineOptions
from interpreters.stores.file.format import (
    COMMIT,
    EVENT,
    FOOTER,
    HEADER_BYTES,
    MARK,
    Commit,
    Digest,
    Drop,
    Footer,
    Frame,
    Run,
    StoredEntry,
    decode_header,
    encode_commit,
    encode_footer,
    encode_frame,
)
from interpreters.stores.file.manifest import Moment, Sealed, load, publish
from interpreters.stores.file.store import FileStore
from interpreters.stores.file.upkeep import operations
from interpreters.stores.file.upkeep.backup import backup_store
from interpreters.stores.file.upkeep.salvage import salvage_store
from interpreters.stores.file.upkeep.tally import Ledger
from interpreters.stores.file.upkeep.two_disks import OnTarget, two_disks
from interpreters.stores.file.upkeep.verify import Verified, verify_store
from persist_effects import CorruptStore, Draft, Event, InvalidRequest, StoreClosed, codec, kv, log, run, start
from persist_effects.errors import StoreLocked, StoreUnavailable
from persist_effects.machine import Suspended
from persist_effects.requests import Append, KvPut, TruncateThrough

SEGMENT_BYTES = 1500


def verified(image) -> Verified:
    return run(verify_store(), MemoryDisk(image).handlers)


@cache
def built(seed: int = 3, *, is_open: bool = False, commits: int = 40):
    """The files of a store with everything in it, and what it shows."""
    on = MemoryDisk()
    store = EngineStore(on, segment_bytes=SEGMENT_BYTES, seed=seed)
    workload = Workload(seed)
    for number in range(commits):
        store.commit([workload.next()])
        if number == commits // 2:
            store._drive(store.engine.compact())
        if number == commits * 3 // 4:
            # As a process does that goes down: the next one seals what it left.
            store = EngineStore(on, segment_bytes=SEGMENT_BYTES, seed=seed + 1)
    shown = contents(store.handlers)
    if not is_open:
        store.close()
    return on.image(), shown


def new_engine() -> Engine:
    return Engine(EngineOptions(lambda: 0, Random(0).randbytes, "tests", "os", SEGMENT_BYTES))


def salvaged(image):
    """What is saved of some files: the record, and what the new store shows after it was opened again."""
    target = MemoryDisk()
    target.has_log = False
    record = run(salvage_store(new_engine()), two_disks(MemoryDisk(image).handlers, target.handlers))
    report = verified(target.image())
    assert report.is_sound, report
    assert not report.repairable, report
    return record, contents(EngineStore(target).handlers)


def segments_of(image) -> list[str]:
    return sorted(path for path in image if path.endswith(".seg"))


def flipped(image, path: str, offset: int):
    data = bytearray(image[path])
    data[offset] ^= 0x10
    return {**image, path: bytes(data)}


def places(report: Verified) -> list[tuple[str, int]]:
    return [(damage.file, damage.offset) for damage in report.damages]


# Sound stores


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "as a crash leaves it"])
def test_a_sound_store_is_found_sound_and_counted(seed, is_open):
    image, shown = built(seed, is_open=is_open)
    report = verified(image)
    assert (report.damages, report.repairable, report.notes) == ([], [], [])
    assert report.streams == len(shown["streams"])
    assert report.events == len(shown["all"])
    assert report.keys == len(shown["keys"])
    assert report.position == shown["position"]
    assert report.segments == len(segments_of(image))


def test_garbage_is_what_truncation_overwriting_and_deletion_leave():
    on = MemoryDisk()
    store = EngineStore(on)
    for number in range(10):
        store.commit([Append("s", (Draft("made", "x" * 100),)), KvPut("k", number)])
    assert verified(on.image()).garbage_bytes == 9 * len("k" + "n")
    store.commit([TruncateThrough("s", 5)])
    assert verified(on.image()).garbage_bytes > 5 * 100
    store._drive(store.engine.compact())
    assert verified(on.image()).garbage_bytes == 0


def test_verifying_changes_nothing(tmp_path):
    for path, data in built(is_open=True)[0].items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    before = {path: (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in tmp_path.rglob("*")}
    assert operations.verify(tmp_path).is_sound
    assert before == {
        path: (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in tmp_path.rglob("*")
    }


@pytest.mark.parametrize("requests_between", [0, 1, 2, 5, 11])
def test_a_writer_that_appends_rolls_over_and_compacts_meanwhile_is_no_damage(requests_between):
    on = MemoryDisk()
    store = EngineStore(on, segment_bytes=SEGMENT_BYTES)
    workload = Workload(5)
    for _ in range(20):
        store.commit([workload.next()])
    step = start(verify_store())
    count = 0
    while isinstance(step, Suspended):
        step = resumed(step, on)
        count += 1
        if count < 300 and count % (requests_between + 1) == 0:
            store.commit([workload.next()])
        if count in (7, 30, 80):
            store._drive(store.engine.compact())
    assert step.value.damages == []


def resumed(step, source: MemoryDisk, target: MemoryDisk | None = None):
    """Let the disk answer the request at which a program waits."""
    request, on = step.request, source
    if isinstance(request, OnTarget):
        request, on = request.request, target
    try:
        answer = on.handlers[type(request)](request)
    except OSError as error:
        return step.throw(error)
    return step.resume(answer)


def test_a_store_that_changes_without_end_is_told_as_unavailable():
    on = MemoryDisk(built()[0])
    numbers = itertools.count()
    plain = on.handlers[disk.Read]

    def read(request):
        return str(next(numbers)).encode() if request.path == "CURRENT" else plain(request)

    with pytest.raises(StoreUnavailable, match="changed 20 times"):
        run(verify_store(), {**on.handlers, disk.Read: read})


# Damage


def cut(image, path: str, size_bytes: int):
    return {**image, path: image[path][:size_bytes]}


def without(image, path: str):
    return {other: data for other, data in image.items() if other != path}


def manifest_of(image) -> str:
    return image["CURRENT"].split()[0].decode()


def damages_of(image):
    """Each class of damage: how the files look then, which file is to be named, at which offset if that is known."""
    first, second = segments_of(image)[:2]
    index, manifest = first.replace(".seg", ".idx"), manifest_of(image)
    middle = len(image[first]) // 16 * 8
    return {
        "a flipped byte in a frame": (flipped(image, first, middle), first, None),
        "a flipped byte in the first frame": (flipped(image, first, HEADER_BYTES + 20), first, HEADER_BYTES),
        "a flipped byte in the header": (flipped(image, first, 30), first, 0),
        "a flipped byte in the salt": (flipped(image, first, 44), first, 0),
        "a flipped byte in the footer": (flipped(image, first, len(image[first]) - 12), first, None),
        "a flipped byte in the padding": (flipped(image, first, len(image[first]) - 1), first, None),
        "a cut file": (cut(image, first, middle), first, middle),
        "an empty file": (cut(image, first, 0), first, 0),
        "a missing segment": (without(image, first), first, 0),
        "a segment copied over another": ({**image, second: image[first]}, second, 0),
        "a bad manifest": (flipped(image, manifest, 20), manifest, 0),
        "a missing manifest": (without(image, manifest), manifest, 0),
        "a cut manifest": (cut(image, manifest, 2), manifest, 0),
        "a bad CURRENT": (flipped(image, "CURRENT", 3), "CURRENT", 0),
        "an empty CURRENT": (cut(image, "CURRENT", 0), "CURRENT", 0),
        "a missing CURRENT": (without(image, "CURRENT"), "CURRENT", 0),
        "a bad segment with a bad index": (flipped(flipped(image, first, 30), index, 9), first, 0),
    }


@pytest.mark.parametrize("damage", damages_of(built()[0]))
def test_each_class_of_damage_is_found_and_named(damage):
    image, file, offset = damages_of(built()[0])[damage]
    report = verified(image)
    assert not report.is_sound
    named = [place for place in places(report) if place[0] == file]
    assert named, report.damages
    assert offset is None or (file, offset) in named


@pytest.mark.exploration
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_every_flipped_byte_that_counts_is_found_in_its_file(is_open):
    image, _ = built(is_open=is_open, commits=24)
    manifest = run(load(), MemoryDisk(image).handlers)
    lengths = {f"log/{sealed.number:08d}.seg": sealed.length_bytes for sealed in manifest.sealed}
    for path in [*lengths, "CURRENT", manifest.name]:
        for offset in range(lengths.get(path, len(image[path]))):
            report = verified(flipped(image, path, offset))
            assert path in [file for file, _ in places(report)], (path, offset)


def test_several_damages_are_all_told():
    image, _ = built()
    first, second = segments_of(image)[:2]
    for path, offset in ((first, 200), (first, 600), (second, 120)):
        image = flipped(image, path, offset)
    found = sorted((one.file, one.offset) for one in verified(image).damages if one.expected == "a frame")
    assert [file for file, _ in found] == [first, first, second]
    assert all(damage_at <= at for (_, damage_at), at in zip(found, (200, 600, 120), strict=True))


def test_the_report_says_which_events_and_keys_the_damaged_frames_held():
    on = MemoryDisk()
    store = EngineStore(on)
    store.commit([Append("a", (Draft("made", 1),)), KvPut("k", 1), Append("a", (Draft("made", "first"),))])
    store.commit([KvPut("k", "second")])
    store.close()
    image = on.image()
    for text in (b"first", b"second"):
        image = flipped(image, segments_of(image)[0], image[segments_of(image)[0]].rindex(text))
    told = [damage.expected for damage in verified(image).damages]
    assert "the newest entry of key 'k'" in told
    assert "events 2 to 2 of stream 'a'" in told


@pytest.mark.parametrize("change", ["flipped", "cut", "missing", "another's"])
def test_a_bad_index_is_repairable_and_no_damage(change):
    image, shown = built()
    index, other = (path.replace(".seg", ".idx") for path in segments_of(image)[:2])
    image = {
        "flipped": flipped(image, index, 30),
        "cut": cut(image, index, 3),
        "missing": without(image, index),
        "another's": {**image, index: image[other]},
    }[change]
    report = verified(image)
    assert report.is_sound
    assert [damage.file for damage in report.repairable] == [index]
    on = MemoryDisk(image)
    assert contents(EngineStore(on, segment_bytes=SEGMENT_BYTES).handlers) == shown
    assert verified(on.image()).repairable == []


def test_the_torn_end_of_the_active_segment_is_no_damage_but_what_was_synced_there_is():
    on = MemoryDisk()
    store = EngineStore(on)
    ends = []
    for number in range(4):
        store.commit([Append("s", (Draft("made", number),))])
        ends.append(store.engine.log._writer.offset)
    path = segments_of(on.image())[-1]
    assert verified(flipped(on.image(), path, ends[2] + 20)).is_sound  # the last frame: nothing proves it
    report = verified(flipped(on.image(), path, ends[0] + 20))
    assert (path, ends[0]) in places(report)


def test_a_missing_active_segment_is_damage():
    image, _ = built(is_open=True)
    path = segments_of(image)[-1]
    assert places(verified(without(image, path)))[0] == (path, 0)


def test_a_file_that_no_manifest_names_is_a_note():
    image, _ = built()
    report = verified({**image, "log/00000999.seg": image[segments_of(image)[0]]})
    assert report.is_sound
    assert "log/00000999.seg is not named by the manifest" in report.notes[0]


def test_a_file_that_cannot_be_read_is_damage_and_the_others_are_looked_at():
    image, _ = built()
    on = MemoryDisk(image)
    first, second = segments_of(image)[:2]
    plain = on.handlers[disk.Read]

    def read(request):
        if request.path == first:
            raise OSError(errno.EIO, "Input/output error", first)
        return plain(request)

    report = run(verify_store(), {**on.handlers, disk.Read: read})
    assert places(report)[0] == (first, 0)
    assert not [file for file, _ in places(report) if file == second and report.frames == 0]


@pytest.mark.parametrize("tool", [operations.verify, lambda path: operations.backup(path, path / "new")])
def test_a_directory_without_a_store_is_refused(tool, tmp_path):
    with pytest.raises(InvalidRequest, match="no store"):
        tool(tmp_path)
    with pytest.raises(InvalidRequest, match="not a directory"):
        tool(tmp_path / "missing")


def commit(*, runs=(), events=(), entries=(), deleted=(), drops=(), revision=0, position=0):
    raws = [msgspec.Raw(codec.encode_event(event)) for event in events]
    whole = Commit(list(runs), raws, list(entries), list(deleted), list(drops), [], revision, position)
    return frame_of(COMMIT, encode_commit(whole))


def frame_of(kind: int, payload: bytes) -> Frame:
    return Frame(80, kind, 0, payload, 0, 80 + 16 + len(payload))


def event(stream: str, seq: int, position: int) -> Frame:
    return frame_of(EVENT, codec.encode_event(Event(stream, seq, "made", 0, None, position)))


def entry(key: str, revision: int) -> StoredEntry:
    return StoredEntry(key, revision, msgspec.Raw(b"\xc0"))


@pytest.mark.parametrize(
    ("frames", "expected", "found"),
    [
        ([event("s", 1, 1), event("s", 1, 2)], "event 2 of stream 's'", "event 1, which was there before"),
        ([event("s", 1, 2), event("s", 2, 2)], "a position after 2", "2"),
        ([event("s", 1, 1), event("s", 4, 2)], "events 2 to 3 of stream 's' before it", "none of them"),
        ([event("s", 1, 5), commit(position=3)], "a position of at least 5", "3"),
        ([frame_of(EVENT, b"\xc1")], "a commit that can be decoded", "one that cannot: "),
        ([frame_of(COMMIT, b"\x90")], "a commit that can be decoded", "one that cannot: "),
        (
            [commit(runs=[Run("s", 1, 1, 1)], events=[Event("t", 1, "made", 0, None, 1)], position=1)],
            "events 1 of 's' at position 1, as the commit says",
            "1 of 't' at position 1",
        ),
        (
            [commit(runs=[Run("s", 1, 1, 2**40)], events=[Event("s", 1, "made", 0, None, 1)], position=1)],
            "1099511627776 events, as the commit says",
            "1",
        ),
        (
            [commit(runs=[Run("s", 2, 1, 5)], events=[Event("s", n, "made", 0, None, n) for n in range(1, 6)])],
            "events 2 of 's' at position 1, 3 of 's' at position 2, 4 of 's' at position 3 and 2 more, as the commit",
            "1 of 's' at position 1, 2 of 's' at position 2, 3 of 's' at position 3 and 2 more",
        ),
        ([commit(entries=[entry("k", 3)], revision=2)], "a revision of key 'k' from 1 to 2", "3"),
        (
            [commit(entries=[entry("k", 3)], revision=3), commit(entries=[entry("k", 3)], revision=4)],
            "a revision of key 'k' from 4 to 4",
            "3",
        ),
        (
            [commit(entries=[entry("k", 3)], revision=3), commit(deleted=["k"], revision=2)],
            "a deletion of key 'k' at revision 3 or later",
            "one at 2",
        ),
        ([event("s", 1, 1), commit(drops=[Drop("s", 2, 2)], position=1)], "a truncation of stream 's' through", "2"),
    ],
)
def test_frames_that_contradict_each_other_are_damage_though_their_checksums_fit(frames, expected, found):
    ledger = Ledger()
    for frame in frames:
        ledger.take("log/1.seg", frame)
    ledger.finish()
    told = ledger.damages[0]
    assert told.expected.startswith(expected)
    assert told.found.startswith(found)
    assert (told.file, told.offset) == ("log/1.seg", 80)


def test_what_is_read_at_once_makes_no_difference(monkeypatch):
    image, shown = built(commits=30)
    path = segments_of(image)[0]
    wanted = {offset: verified(flipped(image, path, offset)) for offset in range(80, len(image[path]), 41)}
    monkeypatch.setattr(scan, "WINDOW_BYTES", 40)
    for offset, report in wanted.items():
        assert verified(flipped(image, path, offset)) == report
    assert salvaged(image)[1] == shown
    assert backed_up(image) == shown


def test_an_event_longer_than_what_is_read_at_once_is_one_frame():
    on = MemoryDisk()
    store = EngineStore(on)
    for size_bytes in (3_000_000, 10, 1_500_000):
        store.commit([Append("s", (Draft("made", bytes(size_bytes)),))])
    shown = contents(store.handlers)
    store.close()
    assert verified(on.image()).events == 3
    assert salvaged(on.image())[1] == shown
    report = verified(flipped(on.image(), segments_of(on.image())[0], 2_000_000))
    assert report.damages[0].found.startswith("none that is valid up to")


def test_a_full_disk_ends_a_backup_and_a_salvage_with_its_error():
    on = MemoryDisk(built()[0])
    for program in (backup_store(), salvage_store(new_engine())):
        target = SmallDisk(2048)
        target.has_log = False
        with pytest.raises((OSError, StoreUnavailable), match="No space"):
            run(program, two_disks(on.handlers, target.handlers))


def test_a_false_footer_is_damage():
    image, _ = built()
    manifest = run(load(), MemoryDisk(image).handlers)
    path = segments_of(image)[0]
    header = decode_header(image[path], path)
    footer = encode_frame(header.seed, HEADER_BYTES, FOOTER, 80, encode_footer(Footer(7, bytes(16))))
    end = HEADER_BYTES + len(footer)
    mark = encode_frame(header.seed, end, MARK, 80, b"")
    data = image[path][:HEADER_BYTES] + footer + mark
    seals = [
        one if one.number != header.number else Sealed(one.number, len(data), Digest().value())
        for one in manifest.sealed
    ]
    target = MemoryDisk({**image, path: data})
    run(publish(msgspec.structs.replace(manifest, number=manifest.number + 1, sealed=seals)), target.handlers)
    told = [(damage.offset, damage.expected) for damage in verified(target.image()).damages if damage.file == path]
    assert any(expected.startswith("a footer of 0 frames") for _, expected in told)
    assert any(expected.startswith("frames with the digest") for _, expected in told)


def test_a_store_that_could_not_make_its_next_segment_and_wrote_on_is_sound():
    on = FailingDisk(kinds={disk.Create})
    store = EngineStore(on, segment_bytes=4096)
    on.fail_at, on.is_for_good = on.count, True
    large = Append("s", (Draft("made", "x" * 1000),))
    for _ in range(3):
        store.commit([large])
    with pytest.raises(StoreUnavailable, match="No space"):
        store.commit([large])
    store.commit([KvPut("color", "red")])
    on.heal()
    store.commit([large])
    store.close()
    report = verified(on.image())
    assert report.is_sound, report
    assert report.keys == 1


# Salvage


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "as a crash leaves it"])
def test_all_of_a_sound_store_is_salvaged(seed, is_open):
    image, shown = built(seed, is_open=is_open)
    record, found = salvaged(image)
    assert record.is_complete
    assert found == shown, first_difference(found, shown)


def test_salvage_goes_on_with_the_newest_manifest_or_none():
    image, shown = built()
    for damaged in (flipped(image, "CURRENT", 3), without(image, "CURRENT"), flipped(image, manifest_of(image), 9)):
        record, found = salvaged(damaged)
        assert record.damages
        assert found == shown, first_difference(found, shown)


def test_without_a_manifest_what_a_compaction_left_over_counts_once():
    on = MemoryDisk()
    store = EngineStore(on, segment_bytes=SEGMENT_BYTES)
    workload = Workload(11)
    for _ in range(30):
        store.commit([workload.next()])
    store._drive(store.engine.roll_over())
    old = on.image()
    store._drive(store.engine.compact())
    for _ in range(10):
        store.commit([workload.next()])
    shown = contents(store.handlers)
    store.close()
    image = {**{path: data for path, data in old.items() if path.endswith(".seg")}, **on.image()}
    _, found = salvaged(flipped(image, manifest_of(image), 9))
    assert found == shown, first_difference(found, shown)


def test_what_follows_a_hole_is_kept_and_what_comes_before_is_left_out():
    on = MemoryDisk()
    store = EngineStore(on)
    for number in range(1, 11):
        store.commit([Append("a", (Draft("made", f"value {number:02d}", at=number, meta={"n": number}),))])
        store.commit([Append("b", (Draft("made", number),))])
    store.close()
    before = contents(store.handlers)
    image = on.image()
    path = segments_of(image)[0]
    record, found = salvaged(flipped(image, path, image[path].index(b"value 05")))
    assert [(lost.stream, lost.first, lost.last, lost.reason) for lost in record.events_lost] == [
        ("a", 5, 5, "damaged"),
        ("a", 1, 4, "left out"),
    ]
    assert [lost.file for lost in record.bytes_lost] == [path]
    last_seq, events, hole = found["stream a"]
    assert events == before["stream a"][1][5:]
    assert (last_seq, hole.first_left) == (10, 6)
    assert found["stream b"] == before["stream b"]


def test_a_salvaged_store_goes_on_counting():
    on = MemoryDisk()
    store = EngineStore(on)
    store.commit([Append("a", tuple(Draft("made", n) for n in range(3))), KvPut("k", 1), KvPut("k", 2)])
    store.commit([TruncateThrough("a", 3)])
    store.close()
    target = MemoryDisk()
    target.has_log = False
    run(salvage_store(new_engine()), two_disks(on.handlers, target.handlers))
    again = EngineStore(target)
    assert again.commit([Append("a", (Draft("made", 4),))])[0].first_seq == 4
    assert again.commit([KvPut("k", 3)]) == [3]


@pytest.mark.exploration
def test_after_any_flipped_byte_what_is_saved_is_as_it_was_and_what_is_not_is_told():
    image, shown = built(commits=30)
    for path in segments_of(image):
        for offset in range(0, len(image[path]), 5):
            record, found = salvaged(flipped(image, path, offset))
            check_saved(record, found, shown)


def check_saved(record, found, shown):
    events = {(event.stream, event.seq): event for event in shown["all"]}
    for event in found["all"]:
        assert events.pop((event.stream, event.seq)) == event
    told = {(lost.stream, seq) for lost in record.events_lost for seq in range(lost.first, lost.last + 1)}
    assert set(events) <= told
    for key in shown["keys"]:
        assert found.get(f"key {key}") == shown[f"key {key}"] or key in record.keys_lost


@pytest.mark.parametrize("damage", damages_of(built()[0]))
def test_after_each_class_of_damage_there_is_a_store_again(damage):
    image, _, _ = damages_of(built()[0])[damage]
    shown = built()[1]
    record, found = salvaged(image)
    events = {(event.stream, event.seq): event for event in shown["all"]}
    assert all(events[event.stream, event.seq] == event for event in found["all"])
    assert record.damages or record.bytes_lost


def test_a_segment_that_cannot_be_read_is_lost_and_the_others_are_saved():
    image, shown = built()
    on = MemoryDisk(image)
    last = segments_of(image)[-1]
    plain = on.handlers[disk.Read]

    def read(request):
        if request.path == last and request.offset >= HEADER_BYTES:
            raise OSError(errno.EIO, "Input/output error", last)
        return plain(request)

    target = MemoryDisk()
    target.has_log = False
    record = run(salvage_store(new_engine()), two_disks({**on.handlers, disk.Read: read}, target.handlers))
    assert (last, HEADER_BYTES) in [(lost.file, lost.start) for lost in record.bytes_lost]
    check_saved(record, contents(EngineStore(target).handlers), shown)


def test_nothing_is_salvaged_into_a_directory_with_something_in_it(tmp_path):
    FileStore(tmp_path / "store").close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for tool in (operations.salvage, operations.backup):
        with pytest.raises(InvalidRequest, match="not an empty directory"):
            tool(tmp_path / "store", tmp_path / "full")
    on = MemoryDisk(built()[0])
    for program in (salvage_store(new_engine()), backup_store()):
        with pytest.raises(InvalidRequest, match="not empty"):
            run(program, two_disks(on.handlers, on.handlers))


# Backup


def backed_up(image) -> dict:
    target = MemoryDisk()
    target.has_log = False
    run(backup_store(), two_disks(MemoryDisk(image).handlers, target.handlers))
    assert verified(target.image()).is_sound
    return contents(EngineStore(target, segment_bytes=SEGMENT_BYTES).handlers)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "as a crash leaves it"])
def test_a_backup_equals_its_source(seed, is_open):
    image, shown = built(seed, is_open=is_open)
    found = backed_up(image)
    assert found == shown, first_difference(found, shown)


@pytest.mark.parametrize("requests_between", [0, 1, 2, 5, 11])
@pytest.mark.parametrize("compacts", [False, True])
def test_a_backup_beside_a_writer_is_the_store_at_one_moment(requests_between, compacts):
    on = MemoryDisk()
    store = EngineStore(on, segment_bytes=SEGMENT_BYTES)
    workload = Workload(8)
    for _ in range(20):
        store.commit([workload.next()])
    history = [contents(store.handlers)]
    target = MemoryDisk()
    target.has_log = False
    step = start(backup_store())
    count = 0
    while isinstance(step, Suspended):
        step = resumed(step, on, target)
        count += 1
        if count < 300 and count % (requests_between + 1) == 0:
            store.commit([workload.next()])
            history.append(contents(store.handlers))
        if compacts and count in (7, 30, 80):
            store._drive(store.engine.compact())
    assert contents(EngineStore(target).handlers) in history


def test_a_backup_of_a_moment_has_nothing_of_what_came_after():
    on = MemoryDisk()
    store = EngineStore(on, segment_bytes=SEGMENT_BYTES)
    workload = Workload(9)
    for _ in range(20):
        store.commit([workload.next()])
    shown = contents(store.handlers)
    manifest = store.engine.log.manifest
    moment = Moment(manifest, store.engine.index.segments[manifest.active].length_bytes)
    for _ in range(40):
        store.commit([workload.next()])
    target = MemoryDisk()
    target.has_log = False
    run(backup_store(moment), two_disks(on.handlers, target.handlers))
    found = contents(EngineStore(target).handlers)
    assert found == shown, first_difference(found, shown)


def test_an_open_store_backs_itself_up_and_the_copy_is_a_store(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}", segment_bytes=4096, sync="os") as store:
        for number in range(100):
            store.run(log.append("s", "made", number))
        store.run(kv.put("k", 1))
        told = []
        done = operations.backup(store.interpreter, tmp_path / "copy", lambda *progress: told.append(progress))
        assert told[-1] == (done.bytes, done.bytes)
        shown = contents(store.interpreter.handlers)
        store.run(log.append("s", "made", "after"))
    with Store(FileStore(tmp_path / "copy")) as copy:
        assert contents(copy.interpreter.handlers) == shown
        assert copy.run(log.append("s", "made", 0)).seq == 101
    with pytest.raises(StoreClosed, match="closed"):
        operations.backup(store.interpreter, tmp_path / "another")


def test_a_new_store_is_backed_up_empty(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        operations.backup(store.interpreter, tmp_path / "copy")
    with open_store(f"file:{tmp_path / 'copy'}?mode=r") as copy:
        assert copy.run(log.streams()) == []


def test_a_damaged_store_is_not_backed_up_and_leaves_nothing(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        store.run(log.append("s", "made", "here"))
    path = next((tmp_path / "store").rglob("*.seg"))
    path.write_bytes(path.read_bytes().replace(b"here", b"gone"))
    with pytest.raises(CorruptStore, match=r"offset \d+.*salvage"):
        operations.backup(tmp_path / "store", tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_disk_that_fails_leaves_no_half_of_a_copy(tmp_path, monkeypatch):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        store.run(log.append("s", "made", 1))
        (tmp_path / "copy.unfinished").mkdir()
        with pytest.raises(InvalidRequest, match="left over"):
            operations.backup(store.interpreter, tmp_path / "copy")
        with pytest.raises(StoreUnavailable, match="nothing was backed up"):
            operations.backup(store.interpreter, Path("/proc/no/such/place"))


@pytest.mark.parametrize("is_empty_there", [False, True])
def test_salvage_on_a_real_disk_makes_a_store(tmp_path, is_empty_there):
    with open_store(f"file:{tmp_path / 'store'}", segment_bytes=4096) as store:
        for number in range(50):
            store.run(log.append(f"s{number % 3}", "made", number))
            store.run(kv.put("k", number))
        shown = contents(store.interpreter.handlers)
    if is_empty_there:
        (tmp_path / "new").mkdir()
    shutil.copytree(tmp_path / "store", tmp_path / "before")
    told = []
    record = operations.salvage(tmp_path / "store", tmp_path / "new", lambda *progress: told.append(progress))
    assert (record.events, record.keys, record.is_complete) == (50, 1, True)
    assert told[-1][0] == told[-1][1]
    with open_store(f"file:{tmp_path / 'new'}") as new:
        assert contents(new.interpreter.handlers) == shown
    assert operations.verify(tmp_path / "store").is_sound


def test_a_store_that_is_written_is_not_salvaged(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        with pytest.raises(StoreLocked, match=f"the store {tmp_path / 'store'} is open for writing elsewhere, by "):
            operations.salvage(tmp_path / "store", tmp_path / "saved")
        store.run(log.append("s", "made", 1))
    assert not (tmp_path / "saved").exists()
    assert operations.salvage(tmp_path / "store", tmp_path / "saved").events == 1
