"""The simulated disk is not a world of its own: without a crash it answers as a real one does, byte for byte.

The engine's randomness and its clock are arguments, so the same writes give the same requests on both disks. And what
a crash leaves on the simulated disk, the real file store opens from a real directory, to the same contents or error.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from file_disks import Workload

from interpreters.disk import requests as disk
from interpreters.disk.crashing import MUTATING, PROFILES, Bound, CrashDisk, Image, overwritten
from interpreters.disk.real import RealDisk
from interpreters.explore.crashes.simulated import SimulatedStore, contents
from interpreters.explore.virtual import START_MICROSECONDS
from interpreters.stores.file.store import FileStore
from persist_effects import PersistError, perform, run
from persist_effects.requests import Request

pytestmark = pytest.mark.exploration

SEGMENT_BYTES = 4096


class Witness:
    """The rows of a disk, and a note of every request with its answer, or its error's type and number."""

    def __init__(self, rows) -> None:
        self.notes: list[tuple[Request[Any], object]] = []
        self.handlers = {kind: self._noted(row) for kind, row in rows.items()}

    def _noted(self, row):
        def answer(request):
            try:
                answered = row(request)
            except (OSError, ValueError) as error:
                self.notes.append((request, (type(error), getattr(error, "errno", None))))
                raise
            self.notes.append((request, answered))
            return answered

        return answer


def files_in(root: Path) -> Image:
    """The files under a directory, as an image has them."""
    found = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        found[f"{name}/" if path.is_dir() else name] = b"" if path.is_dir() else path.read_bytes()
    return found


def put_files(root: Path, image: Image) -> Path:
    """Make a directory of an image."""
    root.mkdir()
    for name in sorted(image):
        if name.endswith("/"):
            (root / name).mkdir()
        else:
            (root / name).write_bytes(image[name])
    return root


# The same requests, the same answers, the same bytes


def boots_of(seed: int) -> list[list[Any]]:
    """What each process that opens the store does: commits of some writes, and operations by their names."""
    chooser = random.Random(f"{seed} boots")
    writes = Workload(seed, long_values=seed % 2 == 1)
    boots = []
    for _ in range(5):
        steps: list[Any] = []
        for _ in range(chooser.randrange(0, 18)):
            steps.append([writes.next() for _ in range(chooser.choice([1, 1, 1, 2, 5]))])
            if chooser.random() < 0.2:
                steps.append(chooser.choice(["compact", "mark", "roll over"]))
        boots.append([*steps, chooser.choice(["close", "killed"])])
    return boots


def run_boot(on: Any, boot: int, steps: list[Any]) -> Any:
    """Open the store on a disk's rows, take these steps, and return all that it showed before the last."""
    store = SimulatedStore(on, boot=boot, segment_bytes=SEGMENT_BYTES)
    operations: dict[str, Callable[[], None]] = {
        "compact": store.compact,
        "mark": lambda: store.drive(store.engine.mark()),
        "roll over": lambda: store.drive(store.engine.roll_over()),
    }
    for step in steps[:-1]:
        if isinstance(step, str):
            operations[step]()
        else:
            store.commit(step)
    shown = run(contents(), store.handlers)
    if steps[-1] == "close":
        store.close()
    return shown


@pytest.mark.parametrize("seed", range(12))
def test_the_same_writes_give_the_same_requests_answers_and_files_on_both_disks(tmp_path, seed):
    crash_disk = CrashDisk()
    seen = set()
    for boot, steps in enumerate(boots_of(seed), 1):
        simulated = Witness(crash_disk.handlers)
        shown = run_boot(simulated, boot, steps)
        with closing(RealDisk(tmp_path)) as real_disk:
            real = Witness(real_disk.handlers)
            assert run_boot(real, boot, steps) == shown
        for number, (one, other) in enumerate(zip(simulated.notes, real.notes, strict=True)):
            assert one == other, f"seed {seed}, boot {boot}, request {number}"
        assert crash_disk.image() == files_in(tmp_path), f"seed {seed}, after boot {boot}"
        seen |= {type(request) for request, _ in real.notes}
    assert len(crash_disk.image()) > 4
    assert {disk.Write, disk.Sync, disk.Allocate, disk.Rename, disk.Remove, disk.Truncate} <= seen


# What crashes leave

BOUND = Bound(tear_bytes=512, subsets=4)
EVERY = 8
"""One of so many requests that change the disk is crashed at."""
STATES_MAX = 500
"""From how many of the states that a crash may leave one is drawn."""


def crashes_of(seed: int) -> Iterator[tuple[str, Image]]:
    """Some states that crashes may leave, of all profiles and classes, each with its name."""
    draw = random.Random(f"{seed} draw")
    crash_disk = CrashDisk()
    found: list[tuple[str, Image]] = []

    def before(number: int, request: Request[Any]) -> None:
        if type(request) in MUTATING and draw.randrange(EVERY) == 0:
            profile = draw.choice(PROFILES)
            by_kind: dict[str, list[Image]] = {}
            for state in islice(crash_disk.states(profile, BOUND), STATES_MAX):
                by_kind.setdefault(state.kind, []).append(state.image)
            if len(by_kind) > 1:
                kind = draw.choice(list(by_kind))
                found.append((f"seed {seed}, request {number}, {profile}, {kind}", draw.choice(by_kind[kind])))

    crash_disk.watch(before)
    # Short, since what is never synced, such as the indexes, adds to the states of all crashes after it.
    for boot, steps in enumerate(boots_of(seed)[:2], 1):
        run_boot(crash_disk, boot, steps)
    yield from found


def damaged(image: Image, draw: random.Random) -> Image:
    """The image with a file of it missing, cut, or with a wrong byte."""
    path = draw.choice(sorted(path for path, content in image.items() if content) or [""])
    if not path:
        return image
    content = image[path]
    at = draw.randrange(len(content))
    changes: list[bytes | None] = [None, content[:at], overwritten(content, at, bytes([content[at] ^ 0x41]))]
    change = draw.choice(changes)
    return {name: data for name, data in image.items() if name != path} | ({} if change is None else {path: change})


def opened_in_simulation(image: Image) -> Any:
    try:
        store = SimulatedStore(CrashDisk(image), boot=90, segment_bytes=SEGMENT_BYTES)
        return run(contents(), store.handlers)
    except PersistError as error:
        return type(error)


def opened_for_real(root: Path) -> Any:
    """What the file store shows, twice: as it is opened after the crash, and once more."""
    shown = []
    try:
        for _ in range(2):
            with closing(FileStore(root, segment_bytes=SEGMENT_BYTES, clock=lambda: START_MICROSECONDS)) as store:
                shown.append(run(contents(), store.handlers))
    except PersistError as error:
        return type(error)
    assert shown[0] == shown[1], "closing and opening changes nothing"
    return shown[0]


def assert_alike(tmp_path: Path, sample: list[tuple[str, Image]]) -> list[Any]:
    """Open each image on both disks, and return what came of it."""
    ends = []
    for number, (name, image) in enumerate(sample):
        wanted = opened_in_simulation(image)
        assert opened_for_real(put_files(tmp_path / str(number), image)) == wanted, name
        ends.append(wanted)
    return ends


@pytest.mark.exploration
def test_the_file_store_opens_what_a_crash_left_to_the_same_contents(tmp_path):
    sample = [crash for seed in range(7) for crash in crashes_of(seed)]
    ends = assert_alike(tmp_path, sample)
    assert len(sample) > 140
    assert not [end for end in ends if isinstance(end, type)], "every one of them can be opened"
    assert {name.split(", ", 2)[2].split(",")[0] for name, _ in sample} == set(PROFILES)
    assert {"nothing lost", "lost", "torn", "names lost"} <= {name.rpartition(", ")[2] for name, _ in sample}


def test_the_file_store_finds_the_same_damage(tmp_path):
    draw = random.Random("damage")
    sample = [(f"{name}, damaged", damaged(image, draw)) for seed in range(3) for name, image in crashes_of(seed)]
    ends = assert_alike(tmp_path, sample)
    refused = [end.__name__ for end in ends if isinstance(end, type)]
    assert "CorruptStore" in refused
    assert len(refused) < len(ends), "some of it is in what does not count"


def test_a_recovery_makes_the_same_requests_and_leaves_the_same_files(tmp_path):
    for number, (name, image) in enumerate(crash for seed in range(4) for crash in crashes_of(seed)):
        root = put_files(tmp_path / str(number), image)
        crash_disk = CrashDisk(image)
        simulated = Witness(crash_disk.handlers)
        shown = run_boot(simulated, 90, ["killed"])
        with closing(RealDisk(root)) as real_disk:
            real = Witness(real_disk.handlers)
            assert run_boot(real, 90, ["killed"]) == shown, name
        assert simulated.notes == real.notes, name
        assert crash_disk.image() == files_in(root), name


# What a disk refuses

A_FILE = [disk.Create("a"), disk.Write("a", 0, b"hello, world")]
TWO_FILES = [*A_FILE, disk.Create("b"), disk.Write("b", 0, b"other")]
A_DIRECTORY = [disk.MakeDirectory("log"), disk.Create("log/1"), disk.Create("log/2")]

SMALL_PROGRAMS: dict[str, list[Request[Any]]] = {
    "create twice": [*A_FILE, disk.Create("a")],
    "create over a directory": [*A_DIRECTORY, disk.Create("log")],
    "create in a missing directory": [disk.Create("log/1")],
    "create in a file": [*A_FILE, disk.Create("a/1")],
    "read missing": [disk.Read("a", 0, 9)],
    "read in a missing directory": [disk.Read("log/1", 0, 9)],
    "read in a file": [*A_FILE, disk.Read("a/1", 0, 9)],
    "read a directory": [*A_DIRECTORY, disk.Read("log", 0, 9)],
    "read over the end": [*A_FILE, disk.Read("a", 7, 100)],
    "read at the end": [*A_FILE, disk.Read("a", 12, 1)],
    "read past the end": [*A_FILE, disk.Read("a", 99, 5)],
    "read nothing": [*A_FILE, disk.Read("a", 3, 0)],
    "write missing": [disk.Write("a", 0, b"x")],
    "write nothing to a missing file": [disk.Write("a", 0, b"")],
    "write a directory": [*A_DIRECTORY, disk.Write("log", 0, b"x")],
    "write in the middle": [*A_FILE, disk.Write("a", 3, b"XY")],
    "write over the end": [*A_FILE, disk.Write("a", 10, b"WORLD")],
    "write past the end": [*A_FILE, disk.Write("a", 20, b"far")],
    "write nothing": [*A_FILE, disk.Write("a", 3, b"")],
    "write nothing past the end": [*A_FILE, disk.Write("a", 99, b"")],
    "sync": [*A_FILE, disk.Sync("a")],
    "sync missing": [disk.Sync("a")],
    "sync a directory as a file": [*A_DIRECTORY, disk.Sync("log")],
    "truncate": [*A_FILE, disk.Truncate("a", 5)],
    "truncate to nothing": [*A_FILE, disk.Truncate("a", 0)],
    "truncate longer": [*A_FILE, disk.Truncate("a", 30)],
    "truncate missing": [disk.Truncate("a", 3)],
    "truncate, then write past the end": [*A_FILE, disk.Truncate("a", 5), disk.Write("a", 10, b"x")],
    "allocate": [*A_FILE, disk.Allocate("a", 40), disk.Size("a")],
    "allocate less": [*A_FILE, disk.Allocate("a", 5), disk.Size("a")],
    "allocate nothing": [*A_FILE, disk.Allocate("a", 0), disk.Size("a")],
    "allocate missing": [disk.Allocate("a", 5)],
    "rename": [*A_FILE, disk.Rename("a", "b"), disk.Size("a"), disk.Read("b", 0, 99)],
    "rename onto existing": [*TWO_FILES, disk.Rename("a", "b"), disk.Size("a"), disk.Read("b", 0, 99)],
    "rename onto itself": [*A_FILE, disk.Rename("a", "a")],
    "rename missing": [disk.Rename("a", "b")],
    "rename missing onto existing": [*A_FILE, disk.Rename("b", "a")],
    "rename into a missing directory": [*A_FILE, disk.Rename("a", "log/a")],
    "rename into a file": [*TWO_FILES, disk.Rename("a", "b/a")],
    "rename onto a directory": [*A_FILE, *A_DIRECTORY, disk.Rename("a", "log")],
    "rename into a directory": [*A_FILE, *A_DIRECTORY, disk.Rename("a", "log/1")],
    "rename, then create": [*A_FILE, disk.Rename("a", "b"), disk.Create("a"), disk.Size("a"), disk.Size("b")],
    "remove": [*A_FILE, disk.Remove("a"), disk.Size("a"), disk.Read("a", 0, 9)],
    "remove missing": [disk.Remove("a")],
    "remove twice": [*A_FILE, disk.Remove("a"), disk.Remove("a")],
    "remove in a file": [*A_FILE, disk.Remove("a/1")],
    "remove, then create": [*A_FILE, disk.Remove("a"), disk.Create("a"), disk.Read("a", 0, 99)],
    "list": [*TWO_FILES, *A_DIRECTORY, disk.List("."), disk.List(""), disk.List("log")],
    "list an empty directory": [disk.List("."), disk.MakeDirectory("log"), disk.List("log")],
    "list missing": [disk.List("log")],
    "list a file": [*A_FILE, disk.List("a")],
    "list directories in directories": [*A_DIRECTORY, disk.MakeDirectory("log/in"), disk.List("log"), disk.List(".")],
    "size": [*A_FILE, disk.Size("a")],
    "size missing": [disk.Size("a"), disk.Size("log/1")],
    "size in a file": [*A_FILE, disk.Size("a/1")],
    "size of a directory": [*A_DIRECTORY, disk.Size("log"), disk.Size("."), disk.Size("")],
    "make a directory twice": [*A_DIRECTORY, disk.MakeDirectory("log"), disk.List("log")],
    "make a directory over a file": [*A_FILE, disk.MakeDirectory("a")],
    "make a directory in a missing one": [disk.MakeDirectory("log/in")],
    "make a directory in a file": [*A_FILE, disk.MakeDirectory("a/in")],
    "sync directories": [*A_DIRECTORY, disk.SyncDirectory("log"), disk.SyncDirectory("."), disk.SyncDirectory("")],
    "sync a missing directory": [disk.SyncDirectory("log")],
    "sync a file as a directory": [*A_FILE, disk.SyncDirectory("a")],
    "lock": [disk.Lock("LOCK", "me"), disk.Read("LOCK", 0, 9), disk.Size("LOCK"), disk.List(".")],
    "lock what was longer": [*A_FILE, disk.Lock("a", "me"), disk.Read("a", 0, 99)],
    "lock in a missing directory": [disk.Lock("log/LOCK", "me")],
    "lock a directory": [*A_DIRECTORY, disk.Lock("log", "me")],
}


def attempt(requests: list[Request[Any]], on: Witness) -> None:
    for request in requests:
        try:
            run(perform(request), on.handlers)
        except OSError:
            continue


@pytest.mark.parametrize("name", SMALL_PROGRAMS)
def test_both_disks_answer_and_refuse_alike(tmp_path, name):
    crash_disk = CrashDisk()
    simulated = Witness(crash_disk.handlers)
    attempt(SMALL_PROGRAMS[name], simulated)
    with closing(RealDisk(tmp_path)) as real_disk:
        real = Witness(real_disk.handlers)
        attempt(SMALL_PROGRAMS[name], real)
    assert simulated.notes == real.notes
    assert crash_disk.image() == files_in(tmp_path)
