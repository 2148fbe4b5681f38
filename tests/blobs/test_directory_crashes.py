"""Blobs in a directory of a disk that crashes: what was acknowledged is there, and no file has another's bytes.

Every state of the disk is looked at, before each request and at the end: no draw, no bound on how many.
"""

import io
from collections.abc import Callable, Iterator

import pytest

from interpreters.blobs.cid import CHUNK_BYTES, cid_of
from interpreters.blobs.directory import BlobDirectory
from interpreters.blobs.files import BlobFiles
from interpreters.disk import requests as disk
from interpreters.disk.crashing import FAULTS, INTERRUPTS, PROFILES, Bound, CrashDisk, DiskFault, Image, Interrupted
from persist_effects.machine import Handlers, run

pytestmark = pytest.mark.exploration

BOUND = Bound(tear_bytes=3, subsets=1 << 20)
UNTORN = Bound(tear_bytes=0, subsets=1 << 20)
TEA, MILK, NOTHING = b"tea, green", b"milk", b""
DAY = (TEA, MILK, TEA, NOTHING)
MAKERS: dict[str, Callable[[int], BlobFiles]] = {
    "a sole writer": lambda boot: BlobFiles("blobs", sole_writer=boot.to_bytes(8)),
    "one of several": lambda boot: BlobFiles(""),
}
Made = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def states_of_a_day(
    make: Callable[[int], BlobFiles], profile: str, image: Image, boot: int, without: Callable[[object], bool]
) -> Iterator[tuple[Image, list[bytes], str]]:
    """Every image that a crash may leave while blobs are put, with those that were acknowledged, and when it came."""
    crash_disk, files = CrashDisk(image), make(boot)
    acknowledged: list[bytes] = []
    found: list[tuple[Image, list[bytes], str]] = []

    def look(number: int, request: object) -> None:
        where = f"before request {number}, {request}"
        found.extend((state.image, list(acknowledged), where) for state in crash_disk.states(profile, BOUND))

    crash_disk.watch(look)
    rows = crash_disk.handlers
    lying: Handlers = {
        kind: lambda request, row=row: None if without(request) else row(request) for kind, row in rows.items()
    }
    for data in DAY:
        run(files.put(cid_of(data), data), lying)
        acknowledged.append(data)
    look(crash_disk.count, "the end")
    yield from {tuple(sorted(image.items())): (image, kept, where) for image, kept, where in found}.values()


def check(make: Callable[[int], BlobFiles], image: Image, acknowledged: list[bytes], where: str) -> None:
    """What the next process finds, and that it can go on."""
    crash_disk, files = CrashDisk(image), make(99)
    for data in set(DAY):
        found = run(files.read(cid_of(data)), crash_disk.handlers)
        assert found == data or (found is None and data not in acknowledged), f"{where}: {data!r} is {found!r}"
    run(files.put(cid_of(b"next"), b"next"), crash_disk.handlers)
    assert not unfinished(crash_disk.image()), where


def unfinished(image: Image) -> list[str]:
    return [path for path in image if "unfinished/" in path and not path.endswith(("/", ".lock"))]


def nothing(request: object) -> bool:
    return False


def explore(make: Callable[[int], BlobFiles], profile: str, without: Callable[[object], bool] = nothing) -> int:
    states = 0
    for image, acknowledged, where in states_of_a_day(make, profile, {}, 1, without):
        check(make, image, acknowledged, where)
        states += 1
    return states


@Made
@pytest.mark.parametrize("profile", PROFILES)
def test_a_blob_that_was_acknowledged_is_there_after_a_crash_at_any_request(make, profile):
    assert explore(make, profile) > 30


@Made
def test_a_crash_while_the_next_process_goes_on_loses_nothing_either(make):
    second = 0
    for image, acknowledged, where in states_of_a_day(make, "posix", {}, 1, nothing):
        for again, more, then in states_of_a_day(make, "ordered", image, 2, nothing):
            check(make, again, acknowledged + more, f"{where}, then {then}")
            second += 1
    assert second > 1_000


LIES = {
    "a file's sync": lambda request: isinstance(request, disk.Sync),
    "the sync of a blob's name": lambda request: (
        isinstance(request, disk.SyncDirectory) and len(request.path.rpartition("/")[2]) == 1
    ),
    "the sync of a directory's name": lambda request: (
        isinstance(request, disk.SyncDirectory) and request.path == "blobs"
    ),
    "the sync of the name of the whole": lambda request: isinstance(request, disk.SyncDirectory) and not request.path,
}


@pytest.mark.parametrize("without", LIES.values(), ids=LIES)
def test_each_sync_is_needed(without):
    with pytest.raises(AssertionError):
        explore(MAKERS["a sole writer"], "posix", without)


# Faults, and interrupts


def count_of_requests(make: Callable[[int], BlobFiles]) -> int:
    crash_disk, files = CrashDisk(), make(1)
    for data in DAY:
        run(files.put(cid_of(data), data), crash_disk.handlers)
    return crash_disk.count


LOUD = [kind for kind in FAULTS if not DiskFault(kind).is_silent]


@Made
@pytest.mark.parametrize("kind", LOUD)
def test_what_a_disk_refuses_once_and_an_interrupt_at_any_request_leave_nothing_broken(make, kind):
    met = 0
    for number in range(count_of_requests(make)):
        crash_disk, files = CrashDisk(faults={number: DiskFault(kind)}), make(1)
        acknowledged = []
        for data in DAY:
            try:
                run(files.put(cid_of(data), data), crash_disk.handlers)
            except (OSError, Interrupted):
                where = f"{kind} at request {number}, {crash_disk.met}"
                assert not unfinished(crash_disk.image()), where
                run(files.put(cid_of(data), data), crash_disk.handlers)
            acknowledged.append(data)
        met += len(crash_disk.met)
        for state in crash_disk.states("posix", UNTORN):
            check(make, state.image, acknowledged, f"{kind} at request {number}, {crash_disk.met}")
    assert met


@Made
@pytest.mark.parametrize("kind", [kind for kind in LOUD if kind not in INTERRUPTS])
def test_a_disk_that_refuses_for_good_acknowledges_nothing_that_it_loses(make, kind):
    for number in range(count_of_requests(make)):
        crash_disk, files = CrashDisk(faults={number: DiskFault(kind, is_for_good=True)}), make(1)
        acknowledged = []
        for data in DAY:
            try:
                run(files.put(cid_of(data), data), crash_disk.handlers)
            except OSError:
                continue
            acknowledged.append(data)
        for state in crash_disk.states("posix", UNTORN):
            check(make, state.image, acknowledged, f"{kind} from request {number} on")


def test_a_program_that_is_given_up_asks_for_nothing_more():
    crash_disk, make = CrashDisk(), MAKERS["a sole writer"]
    program = make(1).put(cid_of(TEA), TEA)
    request = next(program)
    while not isinstance(request, disk.Sync):
        request = program.send(crash_disk.answer(request))
    program.close()
    assert len(unfinished(crash_disk.image())) == 1
    check(make, crash_disk.image(), [], "given up")


# Files that are put in pieces

LARGE = bytes(CHUNK_BYTES + 1)
FILES = (TEA, LARGE)


def home_of(make: Callable[[int], BlobFiles], crash_disk: CrashDisk, boot: int) -> BlobDirectory:
    return BlobDirectory(make(boot), "", lambda program: run(program, crash_disk.handlers))


def check_files(make: Callable[[int], BlobFiles], image: Image, acknowledged: list[bytes], where: str) -> None:
    """What the next process finds of them, and that it can go on."""
    crash_disk = CrashDisk(image)
    home = home_of(make, crash_disk, 99)
    there = {kept.cid for kept in home.kept()}
    for data in FILES:
        assert data not in acknowledged or cid_of(data) in there, where
        if cid_of(data) in there:
            with home.open_blob(cid_of(data)) as file:
                assert file.read() == data, where
    home.put_file(io.BytesIO(b"next"))
    assert not unfinished(crash_disk.image()), where


@Made
@pytest.mark.parametrize("profile", PROFILES)
def test_a_file_that_was_acknowledged_is_there_after_a_crash_at_any_request(make, profile):
    crash_disk = CrashDisk()
    acknowledged: list[bytes] = []
    found: dict[tuple, tuple[Image, list[bytes], str]] = {}

    def look(number: int, request: object) -> None:
        for state in crash_disk.states(profile, UNTORN):
            where = f"before request {number}, {type(request).__name__}"
            found[tuple(sorted(state.image.items()))] = state.image, list(acknowledged), where

    crash_disk.watch(look)
    home = home_of(make, crash_disk, 1)
    for data in FILES:
        home.put_file(io.BytesIO(data))
        acknowledged.append(data)
    look(crash_disk.count, None)
    for image, kept, where in found.values():
        check_files(make, image, kept, where)
    assert len(found) > 20


@Made
@pytest.mark.parametrize("kind", LOUD)
def test_what_a_disk_refuses_while_a_file_is_put_leaves_nothing_of_it(make, kind):
    met, number, count = 0, 0, 1
    while number < count:
        crash_disk = CrashDisk(faults={number: DiskFault(kind)})
        home = home_of(make, crash_disk, 1)
        for data in FILES:
            where = f"{kind} at request {number}"
            try:
                home.put_file(io.BytesIO(data))
            except (OSError, Interrupted):
                assert not unfinished(crash_disk.image()), where
                home.put_file(io.BytesIO(data))
        met, number, count = met + len(crash_disk.met), number + 1, crash_disk.count
        for state in crash_disk.states("ordered", UNTORN):
            check_files(make, state.image, list(FILES), where)
    assert met
