"""Disks that are full or fail: writes meet a clear error, reads go on, and nothing that was acknowledged is lost.

Every request of a workload that changes the disk is made to fail in turn, once and for good, and so is every read and
every sync, in opening, rolling over and closing too. Then the same on a disk that really is full, where one can be
mounted, and on a small one in memory.
"""

import errno
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from file_disks import (
    MUTATING,
    SYNCS,
    EngineStore,
    FailingDisk,
    MemoryDisk,
    SmallDisk,
    Workload,
    contents,
    first_difference,
)

from interpreters import open_store
from interpreters.disk import requests as disk
from interpreters.stores.file.store import FileStore
from persist_effects import Draft, PersistError, StoreUnavailable, UncertainOutcome, log
from persist_effects.requests import Append, ReadAll

pytestmark = pytest.mark.exploration

WRITES = 24
SEGMENT_BYTES = 600
MAKES_DOUBT = (disk.Sync, disk.SyncDirectory, disk.Rename, disk.Truncate)
"""After one of these has failed, the store may ask to be opened again: what is on the disk is in doubt."""

SEED = int(os.environ.get("FULL_SEED", "0"))


class Expected:
    """What a store must show: a twin on a disk that never fails, given the writes that were carried out."""

    def __init__(self) -> None:
        workload = Workload(SEED)
        self.writes = [workload.next() for _ in range(WRITES)]
        twin = EngineStore(MemoryDisk(), segment_bytes=SEGMENT_BYTES)
        self.after = [shown_by(twin)]
        for write in self.writes:
            twin.commit([write])
            self.after.append(shown_by(twin))


@pytest.fixture(scope="module")
def expected() -> Expected:
    return Expected()


def shown_by(store):
    """A store's contents without the times of its events, which depend on how often a write was tried."""
    shown = contents(store.handlers)
    timeless = [(event.stream, event.seq, event.type, event.data, event.position) for event in shown["all"]]
    kept = {what: value for what, value in shown.items() if what.startswith("key") or what == "position"}
    marks = {what: value[0] for what, value in shown.items() if what.startswith("stream ")}
    return kept | marks | {"all": timeless}


def check(store, wanted, what: str) -> None:
    shown = shown_by(store)
    assert shown == wanted, f"{what}: {first_difference(shown, wanted)}"


class Trial:
    """A workload on a disk that fails. ``done`` writes were acknowledged; one more may be there where that is said."""

    def __init__(self, on: FailingDisk, expected: Expected) -> None:
        self.disk = on
        self.expected = expected
        self.done = 0
        self.maybe = False
        self.store: EngineStore | None = None
        self.errors = Counter[str]()

    def open(self) -> None:
        """Open the store, and find all that was acknowledged."""
        self.store = None
        try:
            self.store = EngineStore(self.disk, segment_bytes=SEGMENT_BYTES, seed=self.disk.count)
        except (StoreUnavailable, UncertainOutcome) as error:
            self._note(error)
            return
        self._settle(self.store)

    def _settle(self, store: EngineStore) -> None:
        shown = shown_by(store)
        if self.maybe and shown == self.expected.after[self.done + 1]:
            self.done += 1
        self.maybe = False
        wanted = self.expected.after[self.done]
        assert shown == wanted, f"after {self.done} writes: {first_difference(shown, wanted)}"

    def write(self) -> bool:
        """The next write; whether it was acknowledged."""
        assert self.store is not None
        try:
            self.store.commit([self.expected.writes[self.done]])
        except UncertainOutcome as error:
            self._note(error)
            self.maybe = True
            return False
        except StoreUnavailable as error:
            self._note(error)
            return False
        assert not self.maybe, "a write was acknowledged after the outcome of another had become uncertain"
        self.done += 1
        return True

    def look(self) -> None:
        """Reading goes on, and shows what was acknowledged: not what is uncertain."""
        assert self.store is not None
        check(self.store, self.expected.after[self.done], f"reading after {self.done} writes")

    def close(self) -> None:
        """Close the store, if it was opened. That may fail too."""
        store, self.store = self.store, None
        if store is not None:
            try:
                store.close()
            except (StoreUnavailable, UncertainOutcome) as error:
                self._note(error)

    def is_acknowledged_after_power_loss(self) -> None:
        """What a loss of power leaves is what was acknowledged, and at most the write that is uncertain."""
        for names_survive in (True, False):
            image = self.disk.after_power_loss(names_survive=names_survive)
            shown = shown_by(EngineStore(MemoryDisk(image), segment_bytes=SEGMENT_BYTES, seed=99))
            may_be = self.expected.after[self.done : self.done + 1 + self.maybe]
            assert shown in may_be, (
                f"after a loss of power, names {'kept' if names_survive else 'lost'}, {self.done} acknowledged: "
                f"{first_difference(shown, may_be[0])}"
            )

    def _note(self, error: PersistError) -> None:
        self.errors[type(error).__name__] += 1
        assert self.disk.failed, f"an error though the disk did not fail: {error}"
        assert len(str(error)) > 20, f"an error that says little: {error}"


def requests_of_workload(expected: Expected, kinds) -> int:
    """How many requests of these kinds the workload makes, from opening to the end of closing."""
    on = FailingDisk(kinds=kinds)
    trial = Trial(on, expected)
    trial.open()
    while trial.done < WRITES:
        trial.write()
    trial.close()
    return on.count


def told(what: str, trial: Trial, error: AssertionError) -> AssertionError:
    failed = trial.disk.failed[0] if trial.disk.failed else "nothing"
    return AssertionError(f"FULL_SEED={SEED}, {what}, failed at {failed!r:.200}: {error}")


def at_each_request(kinds, meet: Callable[[Trial], int], expected: Expected, *, is_for_good: bool, **failing) -> str:
    """Let each request of these kinds fail in turn, in a workload of its own. Says what came of it."""
    errors, met = Counter[str](), 0
    total = requests_of_workload(expected, kinds)
    for number in range(total):
        disk = FailingDisk(kinds=kinds, fail_at=number, is_for_good=is_for_good, seed=number, **failing)
        trial = Trial(disk, expected)
        try:
            met += meet(trial)
        except AssertionError as error:
            raise told(f"request {number}, {'for good' if is_for_good else 'once'}", trial, error) from error
        errors += trial.errors
    return f"at each of {total}, {'for good' if is_for_good else 'once'}: {dict(errors)}; {met} times"


@pytest.mark.parametrize("is_for_good", [False, True])
def test_a_full_disk_refuses_writes_until_there_is_room_and_then_nothing_is_lost(expected, is_for_good, capsys):
    met = at_each_request(MUTATING, meet_a_full_disk, expected, is_for_good=is_for_good)
    with capsys.disabled():
        print(f"\nENOSPC {met} the store had to be opened again")


def meet_a_full_disk(trial: Trial) -> int:
    """Write until the disk refuses, look, make room, write on. Returns how often the store had to be opened again."""
    reopened = 0
    trial.open()
    if trial.store is None:
        trial.disk.heal()
        trial.open()
        assert trial.store is not None, "there is room, and the store does not open"
    while trial.done < WRITES:
        if trial.write():
            continue
        trial.look()
        if not trial.maybe and trial.write():
            continue
        trial.look()
        trial.disk.heal()
        if not trial.maybe and trial.write():
            continue
        assert any(isinstance(request, MAKES_DOUBT) for request in trial.disk.failed), (
            "there is room, and the store does not write on"
        )
        reopened += 1
        trial.is_acknowledged_after_power_loss()
        trial.close()
        trial.open()
    trial.look()
    trial.close()
    trial.disk.heal()
    trial.is_acknowledged_after_power_loss()
    trial.open()
    trial.look()
    return reopened


@pytest.mark.parametrize("is_for_good", [False, True])
def test_a_sync_that_fails_is_never_followed_by_an_acknowledgement_that_does_not_hold(expected, is_for_good, capsys):
    met = at_each_request(SYNCS, meet_a_failing_sync, expected, is_for_good=is_for_good, code=errno.EIO)
    with capsys.disabled():
        print(f"\nEIO of a sync {met} the store was poisoned")


def meet_a_failing_sync(trial: Trial) -> int:
    """Write through the failure; then what a loss of power leaves, and what the next opening finds, is right."""
    poisoned = 0
    trial.open()
    if trial.store is None:
        trial.disk.heal()
        trial.open()
    while trial.done < WRITES:
        if trial.write():
            continue
        trial.is_acknowledged_after_power_loss()
        was_uncertain = trial.maybe
        if not was_uncertain and trial.write():
            # The sync was of a file that nothing acknowledged rests on.
            trial.is_acknowledged_after_power_loss()
            continue
        poisoned += 1
        for _ in range(3):
            assert not refuses_not(trial), "a write was acknowledged after a failed sync"
        trial.look()
        trial.close()
        trial.disk.heal()
        trial.is_acknowledged_after_power_loss()
        trial.open()
    trial.close()
    trial.disk.heal()
    trial.is_acknowledged_after_power_loss()
    trial.open()
    trial.look()
    return poisoned


def refuses_not(trial: Trial) -> bool:
    """Whether the store takes a write though it must not."""
    try:
        trial.store.commit([Append("poisoned", (Draft("made", None),))])
    except (StoreUnavailable, UncertainOutcome):
        return False
    return True


def test_a_read_that_fails_is_an_error_and_never_the_end_of_the_data(expected, capsys):
    on = FailingDisk(kinds=(disk.Read,), code=errno.EIO)
    store = EngineStore(on, segment_bytes=SEGMENT_BYTES)
    for write in expected.writes:
        store.commit([write])
    for state in ("open", "closed"):
        if state == "closed":
            store.close()
        image, number = on.image(), 0
        while True:
            failing = FailingDisk(kinds=(disk.Read,), code=errno.EIO, fail_at=number, is_for_good=number % 2 == 1)
            failing.load(image)
            if not read_all_of(failing, expected, f"{state}, read {number}"):
                break
            number += 1
        with capsys.disabled():
            print(f"\nEIO at each of {number} reads of a store that was left {state}")
        assert number > 10


def read_all_of(failing: FailingDisk, expected: Expected, what: str) -> bool:
    """Open and read a store; whether the disk failed. Read again once it is healed."""
    store = None
    try:
        store = EngineStore(failing, segment_bytes=SEGMENT_BYTES, seed=1)
        check(store, expected.after[-1], what)
    except StoreUnavailable:
        assert failing.failed
    failing.heal()
    check(store or EngineStore(failing, segment_bytes=SEGMENT_BYTES, seed=2), expected.after[-1], f"{what}, healed")
    return bool(failing.failed)


# A disk that really is full


class MountedDisk:
    """A file system of its own in memory, of so many bytes. Mounting takes the rights of root."""

    def __init__(self, root: Path, capacity_bytes: int) -> None:
        self.root = root
        self._capacity_bytes = capacity_bytes

    def __enter__(self) -> "MountedDisk":
        _call("mount", "-t", "tmpfs", "-o", f"size={self._capacity_bytes}", "none", str(self.root))
        return self

    def __exit__(self, *exc_info: object) -> None:
        _call("umount", str(self.root))

    def open(self):
        return FileStore(self.root / "store", segment_bytes=16 * 1024)

    def make_room(self) -> None:
        self._capacity_bytes *= 2
        _call("mount", "-o", f"remount,size={self._capacity_bytes}", str(self.root))


class FilledDisk:
    """A disk in memory that counts its bytes."""

    def __init__(self, root: Path, capacity_bytes: int) -> None:
        self._disk = SmallDisk(capacity_bytes)

    def __enter__(self) -> "FilledDisk":
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def open(self):
        return EngineStore(self._disk, segment_bytes=16 * 1024)

    def make_room(self) -> None:
        self._disk.capacity_bytes *= 2


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _can_mount() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    # In a name space of its own, where nobody else sees it and nothing is left.
    tried = subprocess.run(("unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"), check=False, capture_output=True)
    return tried.returncode == 0


@pytest.mark.parametrize("kind", [FilledDisk, MountedDisk] if _can_mount() else [FilledDisk])
@pytest.mark.parametrize("capacity_kib", [64, 100, 128])
def test_a_store_that_has_filled_its_disk_writes_on_when_there_is_room(kind, capacity_kib, tmp_path):
    with kind(tmp_path, capacity_kib * 1024) as full:
        store = full.open()
        written = 0
        refusals = []
        for _ in range(2):
            while len(refusals) < 3:
                try:
                    written = append(store, written)
                except StoreUnavailable as error:
                    refusals.append(str(error))
                    check_events(store, written)
            assert any("No space left" in refusal for refusal in refusals), refusals
            full.make_room()
            refusals.clear()
            for _ in range(30):
                written = append(store, written)
            check_events(store, written)
        store.close()
        again = full.open()
        check_events(again, written)
        append(again, written)
        again.close()


def append(store, written: int) -> int:
    store.handlers[Append](Append("s", (Draft("made", "x" * 500 + str(written)),)))
    return written + 1


def check_events(store, written: int) -> None:
    events = store.handlers[ReadAll](ReadAll(limit=10_000)).events
    assert [event.data[500:] for event in events] == [str(number) for number in range(written)]


def test_a_disk_too_small_to_open_a_store_on_says_so_and_opens_it_once_there_is_room():
    small = SmallDisk(2_000)
    with pytest.raises(StoreUnavailable, match="No space left"):
        EngineStore(small, segment_bytes=4096)
    small.capacity_bytes = 20_000
    store = EngineStore(small, segment_bytes=4096, seed=1)
    assert append(store, 0) == 1


# What is said


def test_a_first_segment_without_room_says_how_much_it_takes_and_what_to_do(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(StoreUnavailable) as found:
        open_store(f"file:{tmp_path / 'store'}?segment_bytes=65536")
    told = str(found.value)
    assert str(tmp_path / "store" / "log" / "00000001.seg") in told
    assert "a segment takes 65536 bytes at once: make room, or open the store with a smaller segment_bytes" in told


def test_a_full_disk_at_a_roll_over_names_the_file_and_what_to_do(tmp_path, monkeypatch):
    with open_store(f"file:{tmp_path / 'store'}?segment_bytes=4096") as store:
        store.run(log.append("s", "made", "x" * 3000))
        pwrite = os.pwrite

        def refuse(number, data, offset):
            if "MANIFEST" in os.readlink(f"/proc/self/fd/{number}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return pwrite(number, data, offset)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", refuse)
            with pytest.raises(StoreUnavailable, match=r"MANIFEST-\d+'?: make room on the disk, then try again"):
                store.run(log.append("s", "made", "x" * 3000))
        assert store.run(log.append("s", "made", "x" * 3000)).seq == 2
