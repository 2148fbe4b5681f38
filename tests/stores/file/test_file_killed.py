"""Killed for real: a process that writes dies by SIGKILL, again and again, on one growing store.

A killed process loses nothing that it has handed to the system, so this holds for every ``sync``. What a loss of power
does is for the simulated disk to show. The moment is chosen by the seed: after so many lines of the child were read.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from file_disks import EngineStore, MemoryDisk
from write_ledger import Ledger

from interpreters import Store
from interpreters.disk.requests import Read
from interpreters.stores.file.store import FileStore
from persist_effects import Draft, requests, run
from persist_effects.requests import Append, TruncateThrough

pytestmark = pytest.mark.exploration

ROUNDS = int(os.environ.get("KILL_ROUNDS", "200"))
SEED = int(os.environ.get("KILL_SEED", "0"))
ROUNDS_OF_ONE_STORE = 500
"""Then a new one is begun: to look at all that is there costs more each time."""


class Child:
    """A prepared process that forks one writer for each order, and the pipe through which that one reports."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("file_killed_child.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()

    def run(self, order: dict[str, Any], *, kill_after: int, spin: int) -> list[list[str]]:
        """Give an order, kill the writer when so many of its lines were read, and return all its lines."""
        print(json.dumps(order), file=self._process.stdin, flush=True)
        pid = int(self._line()[1])
        lines: list[list[str]] = []
        while len(lines) < kill_after:
            lines.append(self._line())
            assert lines[-1][0] not in {"dead", "error"}, self._rest(lines)
        for _ in range(spin):
            pass
        os.kill(pid, signal.SIGKILL)
        self._rest(lines)
        return lines

    def _line(self) -> list[str]:
        return self._process.stdout.readline().rstrip("\n").split(" ", 3)

    def _rest(self, lines: list[list[str]]) -> str:
        while lines[-1:] != [["dead"]]:
            lines.append(self._line())
        return "\n".join(" ".join(line) for line in lines)


def test_what_was_acknowledged_survives_the_process_and_nothing_is_there_by_half(tmp_path, capsys):
    ledger, counts = Ledger(SEED), Counter[str]()
    path = tmp_path / "store"
    with Child() as child:
        for number in range(ROUNDS):
            if number and not number % ROUNDS_OF_ONE_STORE:
                counts.update(ledger.in_flight)
                ledger, path = Ledger(SEED + number), tmp_path / f"store {number}"
            try:
                counts.update(play(child, ledger, path, number))
            except AssertionError as error:
                raise AssertionError(f"round {number}: KILL_SEED={SEED} KILL_ROUNDS={number + 1}: {error}") from error
    counts.update(ledger.in_flight)
    with capsys.disabled():
        segments = sorted(int(file.stem) for file in path.glob("log/*.seg"))
        print(
            f"\nkilled {ROUNDS} times while writing: {counts['acks']} writes were acknowledged and are there, "
            f"{counts['kept']} more were in flight and kept; {counts['while opening']} times while opening; "
            f"{segments[-1]} segments were begun in the last store, and {len(segments)} are left"
        )


def play(child: Child, ledger: Ledger, path: Path, number: int) -> Counter[str]:
    """Write and die; perhaps die again while recovering, again and again; then look."""
    random, counts = Random(f"{SEED} round {number}"), Counter[str]()
    order = {
        "seed": ledger.seed,
        "path": str(path),
        "starts": [worker.done for worker in ledger.workers],
        "options": {
            "sync": random.choice(["commit", "commit", "os", "interval"]),
            "segment_bytes": random.choice([4096, 16384, 65536]),
            "interval_seconds": 0.001,
        },
        "writes": True,
        "compacts": random.random() < 0.25,
    }
    kill_after = random.choice([1, random.randrange(2, 20), random.randrange(20, 120), random.randrange(20, 120)])
    lines = child.run(order, kill_after=kill_after, spin=random.randrange(5_000))
    counts["acks"] += ledger.take(lines)
    while random.random() < 0.3:
        # Killed somewhere in the opening, before a write can have begun, or else the ledger would not know of it.
        lines = child.run(order | {"writes": False}, kill_after=0, spin=int(10 ** random.uniform(2, 6)))
        counts["while opening"] += ["opened"] not in lines
    with Store(FileStore(path, segment_bytes=4096)) as store:
        ledger.check(store)
        ledger.check_that_it_goes_on(store, number)
    return counts


# What the killing found, made small


def test_events_in_the_segment_of_a_truncation_are_there_after_reopening():
    disk = MemoryDisk()
    store = EngineStore(disk)
    append(store, 10)
    run(store.engine.roll_over(), disk.handlers)
    append(store, 5)
    store.commit([TruncateThrough("s", 12)])
    store.close()
    assert seqs(EngineStore(disk, seed=1)) == [13, 14, 15]


def test_a_truncation_beside_a_compaction_drops_no_more_than_it_says():
    disk = MemoryDisk()
    store = EngineStore(disk)
    for _ in range(2):
        append(store, 5)
        run(store.engine.roll_over(), disk.handlers)
    compaction = store.engine.compaction()
    has_truncated = False

    def read(request):
        nonlocal has_truncated
        if request.path == "log/00000002.seg" and not has_truncated:
            # The first segment has been copied, the second has not.
            has_truncated = True
            store.commit([TruncateThrough("s", 7)])
        return disk.read(request)

    run(compaction.copy(), disk.handlers | {Read: read})
    run(compaction.publish(), disk.handlers)
    assert has_truncated
    assert seqs(store) == [8, 9, 10]
    store.close()
    assert seqs(EngineStore(disk, seed=1)) == [8, 9, 10]


def append(store: EngineStore, count: int) -> None:
    for _ in range(count):
        store.commit([Append("s", (Draft("made", None),))])


def seqs(store: EngineStore) -> list[int]:
    return [event.seq for event in store.handlers[requests.Read](requests.Read("s")).events]
