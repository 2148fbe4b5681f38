"""What an exploration of crashes goes through: how many states of each small workload, none left out, always the same.

Where the engine makes other requests, or the explorer finds more states to be equal, the counts change. Then look
whether they should, and take over the rows that the failure prints into `COUNTS`.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from conftest import printed_under_hash_seeds

from benchmarks.crash_workloads import FIXED, Fixed
from interpreters.disk import requests as disk
from interpreters.disk.crashing import INTERRUPTS, MUTATING, CrashDisk
from interpreters.explore import explore_crashes
from interpreters.explore.crashes.workload import Setting, Workload
from persist_effects.requests import Request

pytestmark = pytest.mark.exploration

EXPLORATIONS = [("posix", 1), ("ordered", 1), ("writeback", 1), ("posix", 2)]

# Of each exploration of a workload, in the order above: enumerated, equal, checked.
# Three crashes in a row, and two in "compaction", "opened again" and "torn tail", are left to `make crash`: they take
# minutes. All that is here is exhaustive within the bound.
COUNTS: dict[str, list[tuple[int, int, int]]] = {
    "appends": [(208, 120, 88), (179, 110, 69), (210, 120, 90), (21205, 13805, 7400)],
    "group commit": [(204, 110, 94), (175, 100, 75), (206, 110, 96), (17965, 11611, 6354)],
    "transactions": [(244, 132, 112), (215, 122, 93), (246, 132, 114), (30361, 18857, 11504)],
    "roll-over": [(1879, 1189, 690), (1295, 832, 463), (1943, 1225, 718), (384626, 343408, 41218)],
    "compaction": [(29778, 19946, 9832), (18996, 13959, 5037), (31242, 20878, 10364)],
    "keys": [(236, 136, 100), (207, 126, 81), (238, 136, 102), (28541, 17993, 10548)],
    "truncation": [(248, 136, 112), (219, 126, 93), (250, 136, 114), (34133, 21557, 12576)],
    "opened again": [(3481, 2193, 1288), (3229, 2092, 1137), (3697, 2321, 1376)],
    "torn tail": [(5664, 1190, 4474), (5302, 1098, 4204), (9164, 2502, 6662)],
    "idle": [(208, 120, 88), (179, 110, 69), (210, 120, 90), (20065, 13025, 7040)],
}  # fmt: skip


def explored(fixed: Fixed, **options: Any):
    return explore_crashes(fixed.programs, segment_bytes=fixed.segment_bytes, faults=fixed.faults, **options)


@pytest.mark.parametrize("fixed", FIXED, ids=lambda fixed: fixed.name)
def test_every_crash_of_a_small_workload_is_survived_and_so_many_there_are(fixed, capsys):
    found = []
    for profile, depth in EXPLORATIONS:
        if depth > fixed.depth:
            continue
        report = explored(fixed, profile=profile, depth=depth)
        assert report.verdict == "passed", str(report)
        assert report.is_exhaustive
        assert report.checked == sum(cell.states for cell in report.cells)
        assert report.enumerated == report.equal + report.checked
        found.append((report.enumerated, report.equal, report.checked))
        with capsys.disabled():
            print(
                f"\n{fixed.name:<13} {profile:<9} depth {depth}: {report.enumerated:>7,} enumerated, "
                f"{report.equal:>7,} equal, {report.checked:>6,} checked",
                end="",
            )
    assert found == COUNTS.get(fixed.name), f'a row for `COUNTS`:\n    "{fixed.name}": {found},'


# Interrupts

SUBJECTS = {"appends", "transactions", "roll-over", "compaction", "truncation", "opened again"}
"""The workloads in which each request is interrupted. Opening and closing are in all of them."""


@pytest.mark.parametrize("fixed", [one for one in FIXED if one.name in SUBJECTS], ids=lambda fixed: fixed.name)
def test_an_interrupt_at_any_request_loses_nothing_in_the_process_that_goes_on(fixed, capsys):
    report = explore_crashes(fixed.programs, segment_bytes=fixed.segment_bytes, depth=1, faults=sorted(INTERRUPTS))
    assert report.verdict == "passed", str(report)
    assert report.is_exhaustive
    with capsys.disabled():
        print(f"\n{fixed.name:<13} interrupted at each request: {report.checked:>7,} checked", end="")


# Before, during and after

UNREAD = {"SYNCED"}
"""Written for processes that read along. Of what no recovery and no reader of a recovered store reads, nothing but the
size is varied, so its writes are not torn."""


def losses_at_crashes(fixed: Fixed, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[tuple[str, ...]]]:
    """Explore, and note for each crash of the workload itself, by the request before which it is, what states lost."""
    found: dict[int, list[tuple[str, ...]]] = defaultdict(list)
    make, states = CrashDisk.__init__, CrashDisk.states

    def begin(self, image=None, *arguments, **options):
        make(self, image, *arguments, **options)
        # Recoveries are on disks that begin with an image.
        self.is_of_workload = image is None

    def note(self, *arguments):
        for state in states(self, *arguments):
            if self.is_of_workload:
                found[self.count].append(state.losses)
            yield state

    with monkeypatch.context() as patch:
        patch.setattr(CrashDisk, "__init__", begin)
        patch.setattr(CrashDisk, "states", note)
        # Faults would have the same requests crashed once more, with other states.
        explore_crashes(fixed.programs, segment_bytes=fixed.segment_bytes, depth=1)
    return found


def changing_requests(fixed: Fixed) -> list[tuple[int, Request[Any]]]:
    """The requests of a workload that change its disk, with their numbers."""
    found: list[tuple[int, Request[Any]]] = []
    workload = Workload(fixed.programs, Setting(fixed.segment_bytes))
    workload.disk.watch(lambda number, request: found.append((number, request)))
    workload.run()
    return [(number, request) for number, request in found if type(request) in MUTATING]


class Covered:
    """Which requests were crashed in which way, as the words of the states tell."""

    def __init__(self, losses: dict[int, list[tuple[str, ...]]]) -> None:
        self.losses = losses

    def is_torn(self, number: int) -> bool:
        """Whether a state after it holds a part of this write."""
        return any(f"(request {number}) is torn" in line for line in self._lines_after(number))

    def is_lost(self, number: int) -> bool:
        """Whether it is lost in a state after it, and in another not."""
        told = [any(self._says_lost(line, number) for line in losses) for at, losses in self._states() if at > number]
        return True in told and False in told

    def is_partly_synced(self, number: int, waiting: Sequence[int]) -> bool:
        """Whether in a state before this sync one of what it waits for is lost, or torn, and another is there."""
        return any(
            0 < sum(any(self._says_lost(line, one) for line in losses) for one in waiting) < len(waiting)
            or any("is torn" in line and f"(request {one}) is torn" in line for line in losses for one in waiting)
            for losses in self.losses[number]
        )

    def _states(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        return ((at, losses) for at, states in self.losses.items() for losses in states)

    def _lines_after(self, number: int) -> Iterator[str]:
        return (line for at, losses in self._states() if at > number for line in losses)

    def _says_lost(self, line: str, number: int) -> bool:
        return bool(re.search(rf"lost request {number}:|lost .*\(request {number}\)", line))


@pytest.mark.parametrize("fixed", FIXED, ids=lambda fixed: fixed.name)
def test_the_power_fails_before_during_and_after_every_request_that_changes_the_disk(fixed, monkeypatch):
    requests = changing_requests(fixed)
    losses = losses_at_crashes(fixed, monkeypatch)
    covered = Covered(losses)
    numbers = [number for number, _ in requests]
    assert sorted(losses)[:-1] == numbers, "before each of them, and after the one before"
    assert max(losses) > numbers[-1], "after the last"
    unsynced: dict[str, list[int]] = defaultdict(list)
    for number, request in requests:
        told = f"#{number} {request}"
        match request:
            case disk.Write(path=path) if path in UNREAD:
                pass
            case disk.Write(path=path, data=data):
                unsynced[path].append(number)
                assert covered.is_torn(number) or len(data) == 1, told
                assert covered.is_lost(number), told
            case disk.Truncate(path=path) | disk.Allocate(path=path):
                unsynced[path].append(number)
                assert covered.is_lost(number), told
            case disk.Sync(path=path):
                assert covered.is_partly_synced(number, unsynced.pop(path)), told
            case disk.SyncDirectory(path=path):
                names = unsynced.pop(f"{path}/", [])
                assert len(names) < 2 or covered.is_partly_synced(number, names), told
            case disk.Rename(target=path):
                unsynced[path] = unsynced.pop(request.source, [])
                unsynced[f"{path.rpartition('/')[0] or '.'}/"].append(number)
                assert covered.is_lost(number), told
            case _:
                unsynced[f"{request.path.rpartition('/')[0] or '.'}/"].append(number)
                assert covered.is_lost(number), told


# Always the same

TWICE = """
from benchmarks.crash_workloads import FIXED
from interpreters.explore import explore_crashes
from persist_effects import log

def check(acked, maybe):
    if (yield from log.last_seq("orders/1")) != 1:
        raise ValueError("one was demanded")

for fixed in FIXED:
    if fixed.name in {"group commit", "roll-over", "opened again", "torn tail"}:
        for options in ({"depth": 1}, {"depth": 2, "seed": 7, "limit": 100}, {"depth": 1, "check": check}):
            faults = fixed.faults if "check" not in options else ()
            report = explore_crashes(fixed.programs, segment_bytes=fixed.segment_bytes, faults=faults, **options)
            print(report)
            print(report.to_html())
"""


def test_two_processes_find_the_same_in_the_same_words():
    one, other = printed_under_hash_seeds(TWICE, 1, 2)
    assert "failure 1 of 1: invariant" in one
    assert "sampled, seed 7" in one
    assert one == other


def test_a_sample_is_drawn_by_its_seed():
    fixed = next(fixed for fixed in FIXED if fixed.name == "opened again")
    one, same, other = (explored(fixed, depth=1, seed=seed, limit=200) for seed in (1, 1, 2))
    assert str(one) == str(same)
    assert one.cells != other.cells
    for report in (one, other):
        assert report.verdict == "passed"
        assert not report.is_exhaustive
        assert 0 < report.checked <= 200
        assert "sampled, seed" in str(report)
