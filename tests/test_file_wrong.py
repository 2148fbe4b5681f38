"""Files whose checksums are right and whose contents are wrong: answers are right, or `CorruptStore` names a file."""

import contextlib
from array import array

import pytest
from file_disks import EngineStore, MemoryDisk

from persist_effects import CorruptStore, Draft
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
    stream, other = store.engine.index.streams[name], store.engine.index.streams["other"]
    stream.refs = wrong_refs(stream.refs, other.refs)[change]
    for request, page in zip(requests, wanted, strict=True):
        with contextlib.suppress(CorruptStore):
            assert store.handlers[Read](request) == page
    with pytest.raises(CorruptStore, match=r"log/00000001\.(seg: offset \d+|idx)|log/\*\.idx"):
        store.handlers[Read](Read(name))


@pytest.mark.parametrize("wrong_seq", [10**9, 10**18])
def test_a_last_sequence_that_no_frame_has_is_found_by_the_first_read_past_it(wrong_seq):
    store = filled()
    store.engine.index.streams["single"].last_seq = wrong_seq
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
    del store.engine.index.streams["other"]
    with pytest.raises(CorruptStore, match=r"log/00000001\.idx: .*stream 'other'"):
        store.handlers[ReadAll](ReadAll(0))


def test_a_key_is_never_read_by_a_wrong_ref():
    store = filled()
    entries = store.engine.index.entries
    for ref in [entries["key/1"][0], 9 << 32 | 10, 1 << 32 | 11, 1 << 32 | 1 << 20]:
        entries["key/0"] = (ref, entries["key/0"][1])
        with pytest.raises(CorruptStore, match=r"log/.*\.(seg|idx)"):
            store.handlers[KvGet](KvGet("key/0"))
