"""Damage to every file of a store: afterwards its data is right, or `CorruptStore` names the file. Never wrong data.

One loss is allowed, and it is counted: of a store that was not closed, the last commits, if nothing that is left
proves that they were on the disk. What is left is judged by a decoder of its own, below.
"""

import os
import re
import struct
import zlib
from collections import Counter
from functools import cache
from random import Random
from typing import Any, NamedTuple

import pytest
from file_disks import EngineStore, MemoryDisk, Workload, contents, first_difference

from interpreters.stores.file.store import FileStore
from persist_effects import CorruptStore, Draft, NewerFormat
from persist_effects.requests import Append

pytestmark = pytest.mark.exploration

ROUNDS = int(os.environ.get("DAMAGE_ROUNDS", "20000"))
SEED = int(os.environ.get("DAMAGE_SEED", "0"))

Image = dict[str, bytes]


class Built(NamedTuple):
    """A store's files, what it shows, and what it showed before each of its last commits, newest first."""

    name: str
    image: Image
    segment_bytes: int
    history: list[dict[str, Any]]

    @property
    def active(self) -> str | None:
        """The segment that is written. A sealed one has an index beside it."""
        segments = sorted(path for path in self.image if path.endswith(".seg"))
        return segments[-1] if segments[-1].replace(".seg", ".idx") not in self.image else None


@cache
def build(name: str) -> Built:
    """One of the stores that are damaged. "small" and "large" were closed, and "… open" ones were not."""
    commits, segment_bytes, is_large = (110, 4096, True) if name.startswith("large") else (22, 700, False)
    disk = MemoryDisk()
    store = EngineStore(disk, segment_bytes=segment_bytes)
    workload = Workload(7, long_values=is_large)
    history = [contents(store.handlers)]
    for _ in range(commits):
        store.commit([workload.next()])
        history.append(contents(store.handlers))
    if not name.endswith("open"):
        store.close()
    return Built(name, disk.image(), segment_bytes, history[::-1])


STORES = ["small", "small open", "large", "large open"]


# What was lost, judged independently


def valid_frames(data: bytes) -> dict[int, tuple[int, int, int]] | None:
    """Each offset at which a valid frame stands: its end, type and watermark. None where the header is damaged."""
    if len(data) < 80 or zlib.crc32(data[:12] + bytes(4) + data[16:80]) != struct.unpack_from("<I", data, 12)[0]:
        return None
    seed = zlib.crc32(data[16:48])
    found = {}
    for offset in range(80, len(data) - 15, 8):
        checksum, length, kind, watermark = struct.unpack_from("<IIII", data, offset)
        end = offset + 16 + length + -length % 8
        if kind and end <= len(data) and zlib.crc32(data[offset + 4 : end], seed ^ (offset // 8)) == checksum:
            found[offset] = (end, kind, watermark * 8)
    return found


def commits_before(frames: dict[int, tuple[int, int, int]]) -> tuple[int, int]:
    """How many commits stand before the first bad offset, and that offset."""
    offset, commits = 80, 0
    while offset in frames:
        end, kind, _ = frames[offset]
        commits += kind in {1, 4, 5}
        offset = end
    return commits, offset


def allowed_loss(built: Built, damaged: Image) -> int:
    """How many of the last commits may be lost, because nothing proves that they ever were on the disk."""
    path = built.active
    frames = None if path is None else valid_frames(damaged.get(path, b""))
    if frames is None:
        return 0
    kept, bad = commits_before(frames)
    is_proved = any(watermark > bad for offset, (_, _, watermark) in frames.items() if offset > bad)
    return 0 if is_proved else commits_before(valid_frames(built.image[path]))[0] - kept


REFUSALS = (CorruptStore, NewerFormat)
"""A manifest under a right checksum that begins with another number may be a newer program's."""

# One damaged store


def judge(built: Built, damaged: Image, paths: set[str]) -> str:
    """Open a damaged store and read all of it. Returns "right", "refused" or "tail", and fails for all else."""
    disk = MemoryDisk(damaged)
    try:
        store = EngineStore(disk, segment_bytes=built.segment_bytes, seed=1)
        shown = contents(store.handlers)
    except REFUSALS as error:
        check_refusal(str(error), paths)
        for path, data in damaged.items():
            if not path.endswith(".idx") and path != "LOCK" and built.active is not None:
                assert disk.files.get(path) == data or is_opened(disk, damaged), f"refused, but {path} was changed"
        return "refused"
    if shown == built.history[0]:
        check_that_it_goes_on(store, disk, built)
        return "right"
    lost = allowed_loss(built, damaged)
    assert lost, f"wrong data: {first_difference(shown, built.history[0])}"
    assert shown == built.history[lost], f"lost {lost}, but {first_difference(shown, built.history[lost])}"
    return "tail"


def is_opened(disk: MemoryDisk, damaged: Image) -> bool:
    """Whether the opening went through, and the damage was found by a reader."""
    return disk.files.get("CURRENT") != damaged.get("CURRENT")


def check_refusal(message: str, paths: set[str]) -> None:
    """A refusal names a file that was damaged; within a segment the offset too, if there still is such a place."""
    assert any(path in message for path in paths), f"the message names none of {sorted(paths)}: {message}"
    if re.match(r"log/\d+\.seg: ", message):
        assert re.search(r"offset \d+|expected \d+ bytes|header", message), f"the message names no offset: {message}"


def check_that_it_goes_on(store: EngineStore, disk: MemoryDisk, built: Built) -> None:
    """What is right after damage is right after the next opening too, and the store takes a write."""
    if zlib.crc32(repr(sorted(disk.files)).encode()) % 8 or disk.files.get("LOCK") is None:
        return
    [appended] = store.commit([Append("stream/0", (Draft("made", None),))])
    assert appended.position > built.history[0]["position"]
    store.close()
    again = contents(EngineStore(MemoryDisk(disk.image()), segment_bytes=built.segment_bytes, seed=2).handlers)
    assert again["all"][:-1] == built.history[0]["all"]


def try_damage(built: Built, damaged: Image, paths: set[str], what: str) -> str:
    """As `judge`, saying what was done in every failure."""
    try:
        return judge(built, damaged, paths)
    except AssertionError as error:
        raise AssertionError(f"{built.name}: {what}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{built.name}: {what}: raised {type(error).__name__}: {error}") from error


def show(capsys: pytest.CaptureFixture[str], title: str, counts: Counter) -> None:
    with capsys.disabled():
        print(f"\n{title}: " + ", ".join(f"{count} {' '.join(key)}" for key, count in sorted(counts.items())))


@pytest.mark.parametrize("name", ["small", "small open"])
def test_no_single_byte_can_be_wrong_without_being_found(name, capsys):
    built = build(name)
    counts: Counter = Counter()
    random = Random(SEED)
    for path, data in sorted(built.image.items()):
        for offset in range(len(data)):
            mask = random.choice([0xFF, 1 << random.randrange(8), random.randrange(1, 256)])
            damaged = {**built.image, path: data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]}
            outcome = try_damage(built, damaged, {path}, f"{path}: byte {offset} xor {mask:#04x}")
            assert outcome != "tail" or allowed_loss(built, damaged) == 1, (
                "each commit had its own sync: one can be lost"
            )
            counts[outcome, "in " + path.split(".")[-1].split("-")[0]] += 1
    show(capsys, f"every byte of {sum(map(len, built.image.values()))}, {name}", counts)


def test_a_store_that_lost_current_on_its_first_day_is_not_made_anew():
    disk = MemoryDisk()
    EngineStore(disk).commit([Append("s", (Draft("made", 1),))])
    image = disk.image()
    assert set(image) == {"LOCK", "SYNCED", "CURRENT", "MANIFEST-00000001", "log/00000001.seg"}
    del image["CURRENT"]
    damaged = MemoryDisk(image)
    with pytest.raises(CorruptStore, match=r"CURRENT is not there, though log/00000001\.seg is"):
        EngineStore(damaged)
    assert damaged.image() == image


def test_a_store_whose_making_was_interrupted_anywhere_is_made_anew():
    whole = MemoryDisk()
    EngineStore(whole)
    for missing in [("CURRENT",), ("CURRENT", "MANIFEST-00000001"), ("CURRENT", "log/00000001.seg")]:
        disk = MemoryDisk({path: data for path, data in whole.image().items() if path not in missing})
        store = EngineStore(disk, seed=1)
        assert contents(store.handlers)["all"] == []


# Damage of all kinds

Damage = tuple[Image, set[str], str]


def flip(random: Random, image: Image, path: str) -> Damage:
    data = bytearray(image[path])
    places = {random.randrange(len(data)): random.randrange(1, 256) for _ in range(random.choice([1, 1, 1, 2, 5]))}
    for place, mask in places.items():
        data[place] ^= mask
    return {**image, path: bytes(data)}, {path}, f"{path}: xor {places}"


def cut(random: Random, image: Image, path: str) -> Damage:
    data = image[path]
    size = random.choice(
        [random.randrange(len(data)), random.choice([0, 80, *(valid_frames(data) or [])]), len(data) // 8 * 4]
    )
    size = min(size, len(data) - 1)
    return {**image, path: data[:size]}, {path}, f"{path}: cut to {size}"


def zero(random: Random, image: Image, path: str) -> Damage:
    data = image[path]
    start = random.choice([random.randrange(len(data)), random.randrange(len(data)) // 512 * 512])
    size = random.choice([random.randrange(1, 64), 512, 4096, len(data)])
    size = min(size, len(data) - start)
    return (
        {**image, path: data[:start] + bytes(size) + data[start + size :]},
        {path},
        f"{path}: {size} zeros at {start}",
    )


def garbage(random: Random, image: Image, path: str) -> Damage:
    data = image[path]
    start = random.randrange(len(data))
    size = min(random.choice([1, 8, 64, 512]), len(data) - start)
    noise = random.randbytes(size)
    return {**image, path: data[:start] + noise + data[start + size :]}, {path}, f"{path}: {noise.hex()} at {start}"


def misdirect(random: Random, image: Image, path: str) -> Damage:
    """A write that went to another place, of this file or another."""
    source = random.choice(sorted(image))
    origin = random.randrange(len(image[source])) // 8 * 8
    piece = image[source][origin : origin + random.choice([8, 64, 512])]
    start = random.randrange(len(image[path])) // 8 * 8
    data = image[path][:start] + piece + image[path][start + len(piece) :]
    return {**image, path: data}, {path}, f"{path}: at {start} {len(piece)} bytes of {source} from {origin}"


def lengthen(random: Random, image: Image, path: str) -> Damage:
    more = random.choice([bytes(64), random.randbytes(33), image[path][-200:]])
    return {**image, path: image[path] + more}, {path}, f"{path}: {len(more)} bytes more"


def double(random: Random, image: Image, path: str) -> Damage:
    """A file in the place of another, or under a name of its own."""
    other = random.choice([*sorted(image), "log/00000099.seg", "log/00000099.idx", "MANIFEST-00000099", "CURRENT.tmp"])
    return {**image, other: image[path]}, {other}, f"{path} copied to {other}"


def miss(random: Random, image: Image, path: str) -> Damage:
    return {name: data for name, data in image.items() if name != path}, {path}, f"{path} removed"


KINDS = [flip, flip, flip, cut, zero, garbage, misdirect, lengthen, double, miss]


def damage(built: Built, seed: str) -> tuple[str, Damage]:
    """Damage of some kind, chosen by a seed."""
    random = Random(seed)
    kind = random.choice(KINDS)
    segments = [path for path in sorted(built.image) if path.endswith(".seg")]
    path = random.choice([random.choice(sorted(built.image)), random.choice(segments), segments[-1]])
    return kind.__name__, kind(random, built.image, path)


@pytest.mark.parametrize("name", ["large", "large open"])
def test_damage_of_any_kind_is_found_or_harmless(name, capsys):
    built = build(name)
    counts: Counter = Counter()
    for number in range(ROUNDS // 2):
        kind, (damaged, paths, what) = damage(built, f"{SEED} {name} {number}")
        outcome = try_damage(built, damaged, paths, f"DAMAGE_SEED={SEED}, number {number}: {what}")
        counts[outcome, kind] += 1
    show(capsys, f"{ROUNDS // 2} times damaged, {sum(map(len, built.image.values()))} bytes, {name}", counts)
    assert {outcome for outcome, _ in counts} == (
        {"right", "refused", "tail"} if "open" in name else {"right", "refused"}
    )


@pytest.mark.parametrize("name", ["large", "large open"])
def test_the_real_disk_answers_as_the_one_in_memory_does(name, tmp_path):
    built = build(name)
    for number in range(100):
        _, (damaged, paths, what) = damage(built, f"{SEED} {name} {number}")
        expected = try_damage(built, damaged, paths, what)
        root = tmp_path / str(number)
        (root / "log").mkdir(parents=True)
        for path, data in damaged.items():
            (root / path).write_bytes(data)
        assert on_real_disk(built, damaged, root) == expected, f"{name}, DAMAGE_SEED={SEED}, number {number}: {what}"


def on_real_disk(built: Built, damaged: Image, root) -> str:
    try:
        store = FileStore(root, segment_bytes=4096)
    except REFUSALS:
        return "refused"
    try:
        shown = contents(store.handlers)
    except REFUSALS:
        return "refused"
    finally:
        store.close()
    if shown == built.history[0]:
        return "right"
    assert shown == built.history[allowed_loss(built, damaged)]
    return "tail"
