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
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

from file_disks import EngineStore, MemoryDisk, contents
from file_killed_child import WORKERS, write_of

from interpreters import Store
from interpreters.disk import Read
from interpreters.file.store import FileStore
from persist_effects import Draft, kv, log, requests, run
from persist_effects.requests import Append, KvDelete, KvPut, Request, Transact, TruncateThrough

ROUNDS = int(os.environ.get("KILL_ROUNDS", "200"))
SEED = int(os.environ.get("KILL_SEED", "0"))


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


class Worker:
    """What one worker's writes must have made of its streams and keys, if so many of them were carried out."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.done = 0
        self.streams: dict[str, list[Any]] = {}
        self.dropped: dict[str, int] = {}
        self.keys: dict[str, Any] = {}

    def carry_out(self, write: Request[Any]) -> None:
        """One more write."""
        for part in write.writes if isinstance(write, Transact) else (write,):
            match part:
                case Append(stream=stream, events=drafts):
                    self.streams.setdefault(stream, []).extend(draft.data for draft in drafts)
                case KvPut(key=key, value=value):
                    self.keys[key] = value
                case KvDelete(key=key):
                    self.keys.pop(key, None)
                case TruncateThrough(stream=stream, seq=seq):
                    last_seq = len(self.streams.get(stream, []))
                    self.dropped[stream] = max(self.dropped.get(stream, 0), min(seq, last_seq))
        self.done += 1

    def expects(self) -> dict[str, Any]:
        """Its part of a store's contents: sequence numbers and values, without positions and revisions."""
        shown: dict[str, Any] = {f"key {key}": value for key, value in self.keys.items()}
        for stream, values in self.streams.items():
            dropped = self.dropped.get(stream, 0)
            shown[f"stream {stream}"] = (len(values), list(enumerate(values, 1))[dropped:])
        return shown


class Ledger:
    """All that was acknowledged, and whether a store still has it."""

    def __init__(self) -> None:
        self.workers = [Worker(number) for number in range(WORKERS)]
        self.highest_position = 0
        self.highest_revision = 0
        self.in_flight = Counter[str]()

    def take(self, lines: list[list[str]]) -> int:
        """Note the acknowledgements among a child's lines; how many there were."""
        acks = [line for line in lines if line[0] == "ack"]
        for _, worker, number, answer in acks:
            state = self.workers[int(worker)]
            assert state.done == int(number), "a worker's writes are acknowledged in order"
            write = write_of(SEED, state.number, state.done)
            state.carry_out(write)
            self._note(write, json.loads(answer))
        return len(acks)

    def check(self, store: Store) -> None:
        """Every acknowledged write is there, and of each worker at most one more, whole."""
        shown = contents(store.handlers)
        found: dict[int, dict[str, Any]] = {number: {} for number in range(WORKERS)}
        positions = [event.position for event in shown["all"]]
        assert positions == sorted(set(positions)), "positions grow"
        by_stream: dict[str, list[Any]] = {}
        for event in shown["all"]:
            by_stream.setdefault(event.stream, []).append(event)
        for stream in shown["streams"]:
            last_seq, events, _ = shown[f"stream {stream}"]
            assert events == by_stream.get(stream, []), f"stream {stream} is by itself as it is among all"
            if stream != "goes on":
                found[int(stream[0])][f"stream {stream}"] = (last_seq, [(event.seq, event.data) for event in events])
        for key in shown["keys"]:
            entry = shown[f"key {key}"]
            assert entry is not None, f"key {key} is listed, but is not there"
            self.highest_revision = max(self.highest_revision, entry.revision)
            if key != "goes on":
                found[int(key[0])][f"key {key}"] = entry.value
        for number in range(WORKERS):
            self._check_worker(number, found[number])
        assert shown["position"] >= self.highest_position, "the highest position went back"
        self.highest_position = shown["position"]

    def _check_worker(self, number: int, found: dict[str, Any]) -> None:
        acknowledged = self.workers[number]
        if found == acknowledged.expects():
            self.in_flight["lost"] += 1
            return
        one_more = deepcopy(acknowledged)
        one_more.carry_out(write_of(SEED, number, acknowledged.done))
        wanted = one_more.expects()
        different = [what for what in {*found, *wanted} if found.get(what) != wanted.get(what)]
        assert found == wanted, (
            f"worker {number} has {acknowledged.done} writes acknowledged: neither they, nor they and the next, "
            f"{write_of(SEED, number, acknowledged.done)}, give what was found: {different}"
        )
        self.workers[number] = one_more
        self.in_flight["kept"] += 1

    def check_that_it_goes_on(self, store: Store, number: int) -> None:
        """The store takes writes, and no number that it gives goes back."""
        before = store.run(log.last_seq("goes on"))
        event = store.run(log.append("goes on", "made", number))
        assert event.seq == before + 1, f"sequence number {event.seq} follows {before}"
        assert event.position > self.highest_position, f"position {event.position} is not new"
        revision = store.run(kv.put("goes on", number))
        assert revision > self.highest_revision, f"revision {revision} is not above {self.highest_revision}"
        self.highest_position, self.highest_revision = event.position, revision

    def _note(self, write: Request[Any], answer: Any) -> None:
        parts = zip(write.writes, answer, strict=True) if isinstance(write, Transact) else [(write, answer)]
        for part, number in parts:
            if isinstance(part, Append):
                self.highest_position = max(self.highest_position, number["position"])
                assert number["last_seq"] <= len(self.workers[int(part.stream[0])].streams[part.stream])
            elif isinstance(part, KvPut):
                self.highest_revision = max(self.highest_revision, number)


def test_what_was_acknowledged_survives_the_process_and_nothing_is_there_by_half(tmp_path, capsys):
    ledger, counts = Ledger(), Counter[str]()
    path = tmp_path / "store"
    with Child() as child:
        for number in range(ROUNDS):
            try:
                counts.update(play(child, ledger, path, number))
            except AssertionError as error:
                raise AssertionError(f"round {number}: KILL_SEED={SEED} KILL_ROUNDS={number + 1}: {error}") from error
    with capsys.disabled():
        segments = sorted(int(file.stem) for file in path.glob("log/*.seg"))
        print(
            f"\nkilled {ROUNDS} times while writing: {counts['acks']} writes were acknowledged and are there, "
            f"{ledger.in_flight['kept']} more were in flight and kept; {counts['while opening']} times while opening; "
            f"{segments[-1]} segments were begun, and {len(segments)} are left"
        )


def play(child: Child, ledger: Ledger, path: Path, number: int) -> Counter[str]:
    """Write and die; perhaps die again while recovering, again and again; then look."""
    random, counts = Random(f"{SEED} round {number}"), Counter[str]()
    order = {
        "seed": SEED,
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
