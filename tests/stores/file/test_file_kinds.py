"""A page of some types passes over the frames of others, in every segment, whatever was done to it."""

from random import Random

import pytest
from file_disks import EngineStore, MemoryDisk

from interpreters.disk import requests as disk
from interpreters.stores.file.kinds import MIXED, FrameKinds, kind_of
from persist_effects import Draft
from persist_effects.requests import Append, ReadAll, TruncateThrough

TYPES = tuple("abcdefgh")


@pytest.mark.parametrize("type_count", [1, 2, 8, 300])
@pytest.mark.parametrize("seed", range(10))
def test_the_frames_that_may_hold_some_types_are_found_from_both_ends(seed, type_count):
    choose = Random(seed)
    types = [str(number) for number in range(type_count)]
    frames = [
        kind_of(choose.choices(types, k=choose.choice([1, 1, 1, 2, 5]))) for _ in range(choose.choice([1, 9, 900]))
    ]
    kinds = FrameKinds()
    for kind in frames:
        kinds.add(kind)
    again = FrameKinds(kinds.all(), kinds.of_frames(), len(frames))
    first = list(dict.fromkeys(frames))[:MIXED]
    for _ in range(30):
        wanted = frozenset(choose.choices([*types, "never"], k=choose.choice([1, 2])))
        some = range(*sorted((choose.randrange(len(frames)), choose.randrange(len(frames) + 1))))
        limit, backwards = choose.choice([1, 3, 1000]), choose.choice([False, True])
        holding = [frame for frame in some if wanted & set(frames[frame]) or frames[frame] not in first]
        holding = holding[-limit:] if backwards else holding[:limit]
        assert kinds.holding(wanted, some, limit, backwards=backwards) == holding
        assert again.holding(wanted, some, limit, backwards=backwards) == holding
        assert [frame for frame in some if kinds.may_hold(wanted, frame)][:1000] == kinds.holding(wanted, some, 1000)


def test_frames_cost_nothing_as_long_as_all_are_of_one_kind():
    kinds = FrameKinds()
    for _ in range(100):
        kinds.add(("placed",))
    assert kinds.of_frames() is None
    kinds.add(("paid",))
    assert kinds.of_frames() == bytes(100) + b"\1"


@pytest.mark.parametrize(
    "parts",
    [([], None, 1), ([("a",)], b"\0", 2), ([("a",)], b"\0\1", 2), ([("a",)] * 256, bytes(2), 2), ([], b"\0", 1)],
)
def test_kinds_that_do_not_fit_their_frames_are_refused(parts):
    with pytest.raises(ValueError, match="kinds of"):
        FrameKinds(*parts)


def pages(store, request):
    """All events of the pages from this one on."""
    events = []
    while True:
        page = store.handlers[ReadAll](request)
        events += page.events
        if not page.events or len(page.events) < request.limit:
            return events
        request = ReadAll(page.next, request.prefix, request.types, request.limit)


@pytest.mark.parametrize("seed", range(12))
def test_pages_of_some_types_show_what_a_look_at_all_events_finds(seed):
    choose = Random(seed)
    on = MemoryDisk()
    store = EngineStore(on, seed=seed)
    for number in range(400):
        stream = f"{choose.choice('xy')}/{choose.randrange(20)}"
        (event_type,) = choose.choices(TYPES, [2**power for power in range(8)])
        drafts = [Draft(event_type, number)]
        if choose.random() < 0.2:
            drafts += [Draft(choose.choice(TYPES), number) for _ in range(3)]
        store.commit([Append(stream, tuple(drafts))])
        if choose.random() < 0.02:
            store.commit([TruncateThrough(stream, 3)])
        if choose.random() < 0.01:
            store._drive(store.engine.compact())
        if choose.random() < 0.01:
            store.close()
            store = EngineStore(on, seed=seed + number)
    everything = pages(store, ReadAll(0, "", None, 1000))
    for types in [("a",), ("b", "h"), ("never",), TYPES]:
        for prefix in ("", "x/", "x/1"):
            wanted = [event for event in everything if event.type in types and event.stream.startswith(prefix)]
            for limit in (1, 7, 1000):
                assert pages(store, ReadAll(0, prefix, types, limit)) == wanted
            backwards = store.handlers[ReadAll](ReadAll(0, prefix, types, 5, backwards=True))
            assert backwards.events == wanted[::-1][:5]


def test_a_page_of_a_rare_type_reads_the_frames_of_no_other():
    on = MemoryDisk()
    store = EngineStore(on, segment_bytes=1 << 20)
    for number in range(3000):
        store.commit([Append(f"s/{number % 10}", (Draft("rare" if number % 1000 == 500 else "common", "x" * 200),))])
    store.close()
    store = EngineStore(on, segment_bytes=1 << 20)
    reads = []
    read = on.handlers[disk.Read]
    on.handlers = {**on.handlers, disk.Read: lambda request: (reads.append(request.size_bytes), read(request))[1]}
    for prefix in ("", "s/"):
        reads.clear()
        page = store.handlers[ReadAll](ReadAll(0, prefix, ("rare",), 100))
        assert [event.position for event in page.events] == [501, 1501, 2501]
        assert sum(reads) < 100_000
