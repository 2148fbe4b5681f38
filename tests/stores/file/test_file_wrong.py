"""Files whose checksums are right and whose contents are wrong: answers are right, or `CorruptStore` names a file."""

import contextlib
import os
import re
import struct
import tracemalloc
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import blake2b
from random import Random
from typing import Any, TypeVar

import msgspec
import pytest
from file_disks import READS, EngineStore, MemoryDisk, Workload, contents, first_difference

from interpreters import open_store
from interpreters.stores.file.beside_writer import ReaderEngine
from interpreters.stores.file.engine import Engine, EngineOptions
from interpreters.stores.file.format import (
    COMMIT,
    ENTRY,
    EVENT,
    FOOTER,
    FORMAT_VERSION,
    HEADER_BYTES,
    Digest,
    decode_frame,
    decode_header,
    encode_frame,
)
from interpreters.stores.file.places import ref_in, revision_in, spot_of
from interpreters.stores.file.upkeep.backup import backup_store
from interpreters.stores.file.upkeep.operations import backup, salvage, verify
from interpreters.stores.file.upkeep.salvage import salvage_store
from interpreters.stores.file.upkeep.two_disks import two_disks
from interpreters.stores.file.upkeep.verify import Verified, verify_store
from persist_effects import CorruptStore, Draft, run
from persist_effects.requests import Append, KvGet, KvPut, Read, ReadAll, Transact

# What is read is what was asked for


def filled() -> EngineStore:
    """Streams whose events are in frames of their own, in batches, and in commits of several streams; and keys."""
    store = EngineStore(MemoryDisk(), segment_bytes=64 * 1024)
    for number in range(6):
        store.commit([Append("single", (Draft("made", number),))])
        store.commit([Append("other", (Draft("made", number),))])
        store.commit([Append("batches", tuple(Draft("made", [number, i]) for i in range(3)))])
        both = (Append("together", (Draft("made", number),)), Append("batches", (Draft("made", number),)))
        store.commit([Transact(both)])
        store.commit([KvPut(f"key/{number}", number)])
    return store


def wrong_refs(refs: "array[int]", other: "array[int]") -> dict[str, "array[int]"]:
    return {
        "another stream's": other[: len(refs)],
        "one dropped": refs[:2] + refs[3:],
        "the first dropped": refs[1:],
        "the last dropped": refs[:-1],
        "all dropped": array("Q"),
        "one doubled": refs[:2] + refs[1:],
        "unordered": refs[::-1],
        "into the middle of a frame": array("Q", [ref + 1 for ref in refs]),
        "past the end": array("Q", [ref + (1 << 20) for ref in refs]),
        "of a segment that is not there": array("Q", [ref + (7 << 32) for ref in refs]),
    }


@pytest.mark.parametrize("name", ["single", "batches", "together"])
@pytest.mark.parametrize("change", wrong_refs(array("Q"), array("Q")))
def test_a_stream_is_never_read_by_wrong_refs(name, change):
    store = filled()
    requests = [Read(name, after, limit=3, backwards=way) for after in range(30) for way in (False, True)]
    wanted = [store.handlers[Read](request) for request in requests]
    stream, other = store.engine.index.stream(name), store.engine.index.stream("other")
    stream.frames.refs = wrong_refs(stream.refs, other.refs)[change]
    for request, page in zip(requests, wanted, strict=True):
        with contextlib.suppress(CorruptStore):
            assert store.handlers[Read](request) == page
    with pytest.raises(CorruptStore, match=r"log/00000001\.(seg: offset \d+|idx)|log/\*\.idx"):
        store.handlers[Read](Read(name))


@pytest.mark.parametrize("wrong_seq", [10**9, 10**18])
def test_a_last_sequence_that_no_frame_has_is_found_by_the_first_read_past_it(wrong_seq):
    store = filled()
    store.engine.index.stream("single").last_seq = wrong_seq
    with pytest.raises(
        CorruptStore, match=r"log/00000001\.idx: expected events of stream 'single' up to \d+, found none"
    ):
        store.handlers[Read](Read("single", limit=10_000))
    with pytest.raises(CorruptStore, match="found none from 6000001 on"):
        store.handlers[Read](Read("single", 6_000_000))


@pytest.mark.parametrize("change", ["shifted", "doubled", "unordered", "into the middle"])
def test_all_streams_are_never_read_by_wrong_frames(change):
    store = filled()
    (segment,) = store.engine.index.segments.values()
    frames = segment.frames
    segment.frames = {
        "shifted": frames[1:] + frames[:1],
        "doubled": frames[:2] + frames[1:-1],
        "unordered": frames[::-1],
        "into the middle": array("I", [frame + 1 for frame in frames]),
    }[change]
    with pytest.raises(CorruptStore, match=r"log/00000001\.seg: offset \d+: expected"):
        store.handlers[ReadAll](ReadAll(0))


def test_an_event_of_a_stream_that_the_index_does_not_know_is_not_shown():
    store = filled()
    del store.engine.index._streams["other"]
    with pytest.raises(CorruptStore, match=r"log/00000001\.idx: .*stream 'other'"):
        store.handlers[ReadAll](ReadAll(0))


def test_a_key_is_never_read_by_a_wrong_ref():
    store = filled()
    spots = store.engine.index._spots
    for ref in [ref_in(spots["key/1"]), 9 << 32 | 10, 1 << 32 | 11, 1 << 32 | 1 << 20]:
        spots["key/0"] = spot_of(ref, revision_in(spots["key/0"]))
        with pytest.raises(CorruptStore, match=r"log/.*\.(seg|idx)"):
            store.handlers[KvGet](KvGet("key/0"))


# Files of a store, changed field by field and given a right checksum


T = TypeVar("T")
SEGMENT_BYTES = 900
NUMBERS = [0, 1, 7, 10**9, 2**31, 2**32, 2**62, 2**63, 2**64 - 1, -1, -(10**9)]


def built(commits: int = 60, *, compacted: bool = False, is_open: bool = False) -> tuple[dict[str, bytes], dict]:
    """The files of a store of several segments, and what it shows."""
    disk = MemoryDisk()
    store = EngineStore(disk, segment_bytes=SEGMENT_BYTES)
    workload = Workload(5)
    for number in range(commits):
        store.commit([workload.next()])
        if compacted and number == commits // 2:
            store._drive(store.engine.compact())
    shown = contents(store.handlers)
    if not is_open:
        store.close()
    return disk.image(), shown


def with_checksum(fields: Any) -> bytes:
    body = msgspec.msgpack.encode(fields)
    return zlib.crc32(body).to_bytes(4, "little") + body


def fields_of(file: bytes) -> Any:
    return msgspec.msgpack.decode(file[4:])


def changes(value: Any) -> Iterator[Any]:
    """Values in the place of a decoded one, each changed in one place."""
    if isinstance(value, int):
        yield from [value + 1, max(0, value - 1), *NUMBERS]
    elif isinstance(value, bytes):
        yield from [
            b"",
            value[:-1],
            value + b"\1",
            value + bytes(8),
            value[8:],
            value[:-8],
            value[::-1],
            value + value[-8:],
        ]
    elif isinstance(value, str):
        yield from ["", "key/1", "stream/1", "\ud7ff", "x" * 2000]
    elif isinstance(value, list):
        yield from [[], value[1:], value[:-1], value[::-1], value + value[-1:], value[:1] + value]
        for index in sorted({0, 1, len(value) // 2, len(value) - 1} & set(range(len(value)))):
            yield value[:index] + value[index + 1 :]
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in changes(value[index]))
    yield from [None, "", {}, [[]], b"12345678"]


def fields_changed(fields: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    for index, value in enumerate(fields):
        for number, changed in enumerate(changes(value)):
            yield f"field {index}, change {number}", [*fields[:index], changed, *fields[index + 1 :]]


def opened(image: dict[str, bytes], seed: int = 1) -> tuple[dict, dict[str, bytes]]:
    """What a store shows after it was opened, and its files then."""
    disk = MemoryDisk(image)
    store = EngineStore(disk, segment_bytes=SEGMENT_BYTES, seed=seed)
    shown = contents(store.handlers)
    store.close()
    return shown, disk.image()


def attempt(look: Callable[[], T]) -> tuple[T | None, str]:
    """What a look gives, or None and what the `CorruptStore` says that it met."""
    try:
        return look(), ""
    except CorruptStore as error:
        return None, str(error)


def contents_of(url: str) -> dict:
    with open_store(url) as store:
        return contents(store.interpreter.handlers)


def read_along(image: dict[str, bytes]) -> dict:
    """What a reader is shown, that takes no lock."""
    disk = MemoryDisk(image)
    engine = ReaderEngine()
    handlers = dict.fromkeys(READS, lambda request: run(engine.answer(request), disk.handlers))
    return contents(handlers)


def verified(image: dict[str, bytes]) -> Verified:
    return run(verify_store(), MemoryDisk(image).handlers)


def backed_up(image: dict[str, bytes]) -> dict[str, bytes]:
    target = MemoryDisk()
    run(backup_store(), two_disks(MemoryDisk(image).handlers, target.handlers))
    return target.image()


def salvaged(image: dict[str, bytes]) -> dict:
    """What salvage makes of a store."""
    target = MemoryDisk()
    engine = Engine(EngineOptions(lambda: 0, Random(1).randbytes, "a test", segment_bytes=SEGMENT_BYTES))
    run(salvage_store(engine), two_disks(MemoryDisk(image).handlers, target.handlers))
    return contents(EngineStore(target, segment_bytes=SEGMENT_BYTES).handlers)


def segments_of(image: dict[str, bytes], suffix: str = ".seg") -> list[str]:
    return sorted(path for path in image if path.endswith(suffix))


def manifest_of(image: dict[str, bytes]) -> str:
    return image["CURRENT"].split(b" ")[0].decode()


@pytest.mark.exploration
@pytest.mark.parametrize("compacted", [False, True])
def test_an_index_file_with_wrong_contents_is_made_again(compacted):
    image, shown = built(compacted=compacted)
    indexes = segments_of(image, ".idx")
    assert len(indexes) > 3
    for path in [indexes[0], indexes[-1]]:
        for number, (what, fields) in enumerate(fields_changed(fields_of(image[path]))):
            changed = {**image, path: with_checksum(fields)}
            if changed[path] == image[path]:
                continue
            if number % 8:
                assert read_along(changed) == shown, what
                continue
            report = verified(changed)
            assert report.is_sound, what
            assert [damage.file for damage in report.repairable] == [path], what
            found, after = opened(changed)
            assert found == shown, f"{path}: {what}: {first_difference(found, shown)}"
            assert verified(after).repairable == [], what


def test_readers_backups_and_salvage_do_not_believe_a_wrong_index_either():
    image, shown = built()
    path = segments_of(image, ".idx")[1]
    for number, (what, fields) in enumerate(fields_changed(fields_of(image[path]))):
        if number % 8:
            continue
        changed = {**image, path: with_checksum(fields)}
        assert read_along(changed) == shown, what
        assert salvaged(changed) == {**shown, "holes": [True]}, what
        assert opened(backed_up(changed))[0] == shown, what


def test_an_index_of_a_damaged_segment_is_no_witness_unless_the_manifest_means_it():
    image, _ = built()
    path = segments_of(image, ".idx")[1]
    segment = path.replace(".idx", ".seg")
    damaged = {**image, segment: image[segment][:200] + b"\xff" + image[segment][201:]}
    expected = salvaged({**damaged, path: b""})
    for number, (what, fields) in enumerate(fields_changed(fields_of(image[path]))):
        changed = {**damaged, path: with_checksum(fields)}
        if changed[path] != image[path] and number % 5 == 0:
            assert salvaged(changed) == expected, what
            assert not verified(changed).is_sound


@pytest.mark.exploration
def test_an_index_and_a_manifest_wrong_together_show_no_wrong_event_and_raise_no_other_error():
    image, shown = built()
    path, name = segments_of(image, ".idx")[1], manifest_of(image)
    events = {(event.stream, event.seq): event for event in shown["all"]}
    for what, fields in fields_changed(fields_of(image[path])):
        forged = {**image, path: with_checksum(fields), name: meaning(image[name], 1, with_checksum(fields))}
        verified(forged)
        store, said = attempt(lambda image=forged: EngineStore(MemoryDisk(image), segment_bytes=SEGMENT_BYTES))
        if store is None:
            assert path in said, what
            continue
        for request in [*map(Read, shown["streams"]), ReadAll(0)]:
            with contextlib.suppress(CorruptStore):
                for event in store.handlers[type(request)](request).events:
                    assert event == events[event.stream, event.seq], what
        with contextlib.suppress(CorruptStore):
            contents(store.handlers)


def meaning(manifest: bytes, index: int, index_file: bytes) -> bytes:
    """A manifest that means this index file to be the one of a segment, given by its place in the log."""
    fields = fields_of(manifest)
    number, length, digest = fields[5][index][:3]
    bound = blake2b(struct.pack("<QQ", number, length) + digest + index_file[4:], digest_size=16).digest()
    fields[5][index][3] = bound
    return with_checksum(fields)


def test_verify_tells_an_index_that_no_opening_would_make_again():
    image, _ = built()
    path, name = segments_of(image, ".idx")[1], manifest_of(image)
    fields = fields_of(image[path])
    fields[10][3] = bytes(len(fields[10][3]))  # where keys were put
    forged = {**image, path: with_checksum(fields), name: meaning(image[name], 1, with_checksum(fields))}
    report = verified(forged)
    assert [damage.file for damage in report.damages] == [path]
    assert "remove this file" in str(report.damages[0])
    assert verified(opened({**forged, path: b""})[1]).is_sound


# Manifests


def is_of_newer_format(fields: list[Any]) -> bool:
    """Whether a manifest says that a newer release wrote it, which is not for this one to judge."""
    return type(fields[0]) is int and fields[0] > FORMAT_VERSION


@pytest.mark.exploration
@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("gathers", [False, True])
def test_a_manifest_with_wrong_contents_is_refused_or_shows_what_is_right(is_open, compacted, gathers, monkeypatch):
    if not gathers:
        monkeypatch.setattr("interpreters.stores.file.segments.to_gather", lambda lengths: None)
    image, shown = built(compacted=compacted, is_open=is_open)
    name = manifest_of(image)
    sound = verified(image)
    counts: Counter = Counter()
    for what, fields in fields_changed(fields_of(image[name])):
        if is_of_newer_format(fields):
            continue
        changed = {**image, name: with_checksum(fields)}
        report = verified(changed)
        along, said_along = attempt(lambda image=changed: read_along(image))
        result, said = attempt(lambda image=changed: opened(image))
        assert along is None or along == shown, what
        if result is None:
            assert re.search(r"MANIFEST-\d+|log/\d+\.seg", said), f"{what}: {said}"
            assert not report.is_sound, f"{what}: {said}"
            counts["refused"] += 1
        else:
            found, after = result
            assert along is not None, f"{what}: {said_along}"
            assert found == shown, f"{what}: {first_difference(found, shown)}"
            assert report.is_sound, f"{what}: {report.damages}"
            if not gathers:
                assert set(segments_of(image)) <= set(segments_of(after)), f"{what}: a segment was removed"
            counts["right"] += 1
        assert {event.position for event in shown["all"]} <= {event.position for event in salvaged(changed)["all"]}, (
            what
        )
    assert sound.is_sound
    assert counts["refused"] > 100
    assert counts["right"] > 10


def reordered(seals: list[Any]) -> dict[str, list[Any]]:
    return {
        "the first left out": seals[1:],
        "the last left out": seals[:-1],
        "one left out": seals[:2] + seals[3:],
        "all left out": [],
        "reordered": [seals[1], seals[0], *seals[2:]],
        "turned around": seals[::-1],
        "doubled": [*seals, seals[-1]],
    }


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("change", reordered([[]] * 4))
def test_segments_that_do_not_follow_on_one_another_are_refused_and_nothing_is_removed(change, is_open, compacted):
    image, shown = built(compacted=compacted, is_open=is_open)
    name = manifest_of(image)
    fields = fields_of(image[name])
    fields[5] = reordered(fields[5])[change]
    changed = {**image, name: with_checksum(fields)}
    disk = MemoryDisk(changed)
    for look in (lambda: EngineStore(disk), lambda: read_along(changed), lambda: backed_up(changed)):
        with pytest.raises(CorruptStore, match=name):
            look()
    assert {path: data for path, data in disk.image().items() if path != "LOCK"} == {
        path: data for path, data in changed.items() if path != "LOCK"
    }
    assert name in {damage.file for damage in verified(changed).damages}
    assert salvaged(changed)["all"] == shown["all"]


def as_earlier_programs_wrote(image: dict[str, bytes]) -> dict[str, bytes]:
    name = manifest_of(image)
    fields = fields_of(image[name])
    fields[5] = [sealed[:3] for sealed in fields[5]]
    return {**image, name: with_checksum(fields)}


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_store_of_an_earlier_program_is_opened_and_its_manifest_then_knows_its_index_files(is_open, compacted):
    image, shown = built(compacted=compacted, is_open=is_open)
    old = as_earlier_programs_wrote(image)
    assert verified(old).is_sound
    assert read_along(old) == shown
    found, after = opened(old)
    assert found == shown
    assert all(len(sealed[3]) == 16 for sealed in fields_of(after[manifest_of(after)])[5])
    path = segments_of(after, ".idx")[0]
    fields = fields_of(after[path])
    assert opened({**after, path: with_checksum([*fields[:7], [], *fields[8:]])})[0] == shown
    assert opened(as_earlier_programs_wrote(after))[0] == shown


class EarlierSealed(msgspec.Struct, array_like=True):
    number: int
    length_bytes: int
    digest: bytes


def test_an_earlier_program_reads_todays_manifest():
    image, _ = built()
    sealed = fields_of(image[manifest_of(image)])[5]
    found = msgspec.msgpack.decode(msgspec.msgpack.encode(sealed), type=list[EarlierSealed])
    assert [one.number for one in found] == [one[0] for one in sealed]


# Names and shapes


def current(name: bytes) -> bytes:
    return name + b" " + f"{zlib.crc32(name):08x}".encode()


NAMES = [
    b"",
    b"../../x",
    b"/etc/passwd",
    b"\xff\xfe",
    b"MANIFEST-",
    b"MANIFEST-1",
    b"log",
    b"M" * 900,
    b"MANIFEST-" + "\N{ARABIC-INDIC DIGIT ONE}".encode() * 8,
]


@pytest.mark.parametrize("held", [*map(current, NAMES), b"", b" ", b"\0" * 5000, current(b"x" * 2000)])
def test_current_names_a_manifest_or_is_refused(held):
    image, shown = built()
    changed = {**image, "CURRENT": held}
    for look in (lambda: EngineStore(MemoryDisk(changed)), lambda: read_along(changed), lambda: backed_up(changed)):
        with pytest.raises(CorruptStore, match="CURRENT"):
            look()
    assert "CURRENT" in {damage.file for damage in verified(changed).damages}
    assert salvaged(changed)["all"] == shown["all"]


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x90"


BODIES = [
    b"",
    b"\xc0",
    b"\x80",
    b"\x01",
    b"\xc1",
    b"\x97\x01",
    nested(100_000),
    b"\x92\x01" + nested(100_000),
    b"\xa4text",
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_manifest_of_another_shape_is_refused_and_salvage_goes_on_without(body):
    image, shown = built()
    name = manifest_of(image)
    changed = {**image, name: zlib.crc32(body).to_bytes(4, "little") + body}
    for look in (lambda: EngineStore(MemoryDisk(changed)), lambda: read_along(changed), lambda: backed_up(changed)):
        with pytest.raises(CorruptStore, match=name):
            look()
    assert name in {damage.file for damage in verified(changed).damages}
    assert salvaged(changed)["all"] == shown["all"]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_an_index_of_another_shape_is_made_again(body):
    image, shown = built()
    path = segments_of(image, ".idx")[0]
    changed = {**image, path: zlib.crc32(body).to_bytes(4, "little") + body}
    assert opened(changed)[0] == read_along(changed) == shown
    assert [damage.file for damage in verified(changed).repairable] == [path]


def test_names_that_are_no_utf_8_are_told_and_passed_over():
    image, shown = built()
    odd = os.fsdecode(b"log/\xff.seg")
    changed = {**image, odd: b"x", os.fsdecode(b"MANIFEST-\xff"): b"x", "log/²²²²²²²².seg": b"x"}
    report = verified(changed)
    assert report.is_sound
    "\n".join(report.notes).encode()
    assert salvaged(without_current(changed))["all"] == shown["all"]


def without_current(image: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in image.items() if path != "CURRENT"}


# Frames that fit their checksum and are no commits


def with_frame(image: dict[str, bytes], kind: int, payload: bytes) -> dict[str, bytes]:
    """A store whose first segment is one frame with this payload; its manifest has the digest of that."""
    path, name = segments_of(image)[0], manifest_of(image)
    header = decode_header(image[path], path)
    frame = encode_frame(header.seed, HEADER_BYTES, kind, HEADER_BYTES, payload)
    decoded = decode_frame(frame, 0, header.seed, HEADER_BYTES)
    assert decoded is not None
    fields = fields_of(image[name])
    digest = Digest()
    digest.add([decoded.checksum.to_bytes(4, "little")])
    fields[5] = [[header.number, HEADER_BYTES + len(frame), digest.value(), b"", b""]]
    kept = {other: data for other, data in image.items() if other in {"CURRENT", "LOCK", "SYNCED"}}
    return {**kept, path: image[path][:HEADER_BYTES] + frame, name: with_checksum(fields)}


PAYLOADS = [
    *BODIES,
    msgspec.msgpack.encode(["s", 2**64 - 1, "made", 0, None, 2**64 - 1]),
    msgspec.msgpack.encode(["s", -1, "made", 0, None, -1]),
    msgspec.msgpack.encode([[["s", 1, 1, 10**9], ["s", 1, 1, -(10**9)]], [], [], [], [], [], 0, 0]),
    msgspec.msgpack.encode([[], [], [], [], [["s", 2**64 - 1, 2**64 - 1]], [], 0, 0]),
    msgspec.msgpack.encode(
        [[], [], [], [], [], [["s", 2**64 - 1, 2**64 - 1, 2**64 - 1, 2**64 - 1]], 2**64 - 1, 2**64 - 1]
    ),
]


@pytest.mark.parametrize("kind", [COMMIT, EVENT, ENTRY, FOOTER])
@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_frame_that_fits_its_checksum_and_is_no_commit_is_told(kind, payload):
    image, _ = built()
    changed = with_frame(image, kind, payload)
    _, met_on_opening = attempt(lambda: opened(changed))
    _, met_on_reading = attempt(lambda: read_along(changed))
    assert bool(met_on_opening) == bool(met_on_reading)
    if met_on_opening:
        assert verified(changed).damages
    salvaged(changed)


# Files that are larger than they can be


LARGE_BYTES = 1 << 40


@pytest.mark.exploration
@pytest.mark.parametrize("kind", ["CURRENT", "MANIFEST", "SYNCED", "idx", "active seg", "sealed seg"])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_file_of_a_tebibyte_is_not_read_into_memory(kind, is_open, tmp_path):
    image, shown = built(is_open=is_open)
    path = {
        "CURRENT": "CURRENT",
        "MANIFEST": manifest_of(image),
        "SYNCED": "SYNCED",
        "idx": segments_of(image, ".idx")[0],
        "active seg": segments_of(image)[-1],
        "sealed seg": segments_of(image)[0],
    }[kind]
    root = tmp_path / "store"
    (root / "log").mkdir(parents=True)
    for other, data in image.items():
        (root / other).write_bytes(data)
    os.truncate(root / path, LARGE_BYTES)
    tracemalloc.start()
    try:
        verify(root)
        salvage(root, tmp_path / "salvaged")
        with contextlib.suppress(CorruptStore):
            backup(root, tmp_path / "backup")
        for mode in ("?mode=r", ""):
            found, said = attempt(lambda url=f"file:{root}{mode}": contents_of(url))
            assert path in said if found is None else found == shown
        assert tracemalloc.get_traced_memory()[1] < 256 * 1024 * 1024
    finally:
        tracemalloc.stop()
