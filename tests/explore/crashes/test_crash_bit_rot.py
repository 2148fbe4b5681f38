"""Every bit of a small store turned, one at a time: its data is right afterwards, or `CorruptStore` names the file.

One loss is allowed: the last commit of a store that was not closed, where it is a bit of that
commit's own frame that was turned, since nothing after it proves that it ever was on the disk.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from interpreters.disk.crashing import CrashDisk, Image
from interpreters.disk.requests import Write
from interpreters.explore.crashes.memo import Memo
from interpreters.explore.crashes.simulated import Contents, SimulatedStore, contents, engine_of, over_disk
from persist_effects import CorruptStore, Draft, run
from persist_effects.machine import Effect
from persist_effects.requests import Append, KvDelete, KvPut, Transact, TruncateThrough

pytestmark = pytest.mark.exploration

SEGMENT_BYTES = 400

COMMITS = [
    Append("orders/1", (Draft("placed", 1), Draft("paid", 2))),
    KvPut("total", 3),
    Append("orders/2", (Draft("placed", "x" * 40),)),
    Transact((KvPut("total", 4), KvPut("count", 1), TruncateThrough("orders/1", 1))),
    KvDelete("count"),
    Append("orders/2", (Draft("paid", None),)),
]

# How many bits of which files. Right are those that nobody needs: events and keys that were dropped or overwritten,
# room that is not written yet, an index, which can be made again, how far the store was synced, who held the lock.
# Where the format changes, take over what the failure prints.
COUNTS: dict[str, dict[str, int]] = {
    "closed": {
        "refused, CURRENT": 208,
        "refused, MANIFEST": 920,
        "refused, seg": 3648,
        "right, LOCK": 48,
        "right, SYNCED": 160,
        "right, idx": 3504,
        "right, seg": 1152,
    },
    "left open": {
        "refused, CURRENT": 208,
        "refused, MANIFEST": 576,
        "refused, seg": 3520,
        "right, LOCK": 48,
        "right, SYNCED": 160,
        "right, idx": 2016,
        "right, seg": 2048,
        "the last commit lost, seg": 384,
    },
}


class Built(NamedTuple):
    """A store's files, what it shows, what it showed before its last commit, and where that one was written."""

    image: Image
    shown: Contents
    before: Contents
    last: tuple[str, int]


def build(*, is_closed: bool) -> Built:
    writes: list[Write] = []
    on = CrashDisk()
    on.watch(lambda number, request: writes.append(request) if isinstance(request, Write) else None)
    store = SimulatedStore(on, boot=1, segment_bytes=SEGMENT_BYTES)
    for commit in COMMITS[:-1]:
        store.commit([commit])
    before = run(contents(), store.handlers)
    del writes[:]
    store.commit([COMMITS[-1]])
    last = next((write.path, write.offset) for write in reversed(writes) if write.path.endswith(".seg"))
    shown = run(contents(), store.handlers)
    if is_closed:
        store.close()
    return Built(on.image(), shown, before, last)


def opened() -> Effect[Contents]:
    engine = engine_of(2, SEGMENT_BYTES)
    yield from engine.open()
    return (yield from over_disk(engine, contents()))


def turned(image: Image) -> Iterator[tuple[str, int, int, Image]]:
    """Each bit: the file, the byte, the bit, and the image with that bit turned."""
    for path, data in sorted(image.items()):
        for offset in range(len(data)):
            for bit in range(8):
                damaged = bytearray(data)
                damaged[offset] ^= 1 << bit
                yield path, offset, bit, {**image, path: bytes(damaged)}


def outcome_of(built: Built, end: Any, path: str, offset: int) -> str:
    if end.error is not None:
        assert isinstance(end.error, CorruptStore), repr(end.error)
        assert path in str(end.error), f"the message does not name {path}: {end.error}"
        return "refused"
    if end.value == built.shown:
        return "right"
    assert end.value == built.before, f"wrong data: {end.value}"
    assert path == built.last[0], "the loss of a commit by damage to another file"
    assert offset >= built.last[1], "the loss of a commit by damage before it"
    return "the last commit lost"


@pytest.mark.parametrize("state", ["closed", "left open"])
def test_whichever_bit_is_turned_the_data_is_right_or_it_is_refused(state, capsys):
    built = build(is_closed=state == "closed")
    memo = Memo(opened)
    counts: Counter[str] = Counter()
    for path, offset, bit, image in turned(built.image):
        try:
            outcome = outcome_of(built, memo.run(CrashDisk(image)), path, offset)
        except AssertionError as error:
            raise AssertionError(f"{state}: {path}: byte {offset}, bit {bit}: {error}") from error
        kind = path.rpartition(".")[2].partition("-")[0]
        counts[f"{outcome}, {kind}"] += 1
    with capsys.disabled():
        print(f"\n{sum(map(len, built.image.values()))} bytes, {state}, the program run {memo.runs} times:")
        print("\n".join(f"  {count:>6,} {outcome}" for outcome, count in sorted(counts.items())), end="")
    assert sum(counts.values()) == 8 * sum(map(len, built.image.values()))
    assert dict(counts) == COUNTS.get(state), f"the counts are {dict(sorted(counts.items()))}"
    assert ("the last commit lost, seg" in counts) == (state == "left open")
