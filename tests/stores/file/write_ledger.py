"""What was acknowledged to the workers of a test that interrupts or kills them, and whether a store still has it."""

import json
from collections import Counter
from copy import deepcopy
from typing import Any

from file_disks import contents
from file_killed_child import WORKERS, write_of

from interpreters import Store
from persist_effects import kv, log
from persist_effects.requests import Append, KvDelete, KvPut, Request, Transact, TruncateThrough


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

    def __init__(self, seed: int, workers: int = WORKERS) -> None:
        self.seed = seed
        self.workers = [Worker(number) for number in range(workers)]
        self.highest_position = 0
        self.highest_revision = 0
        self.in_flight = Counter[str]()

    def take(self, lines: list[list[str]]) -> int:
        """Note the acknowledgements among a child's lines; how many there were."""
        acks = [line for line in lines if line[0] == "ack"]
        for _, worker, number, answer in acks:
            assert self.workers[int(worker)].done == int(number), "a worker's writes are acknowledged in order"
            self.acknowledge(int(worker), json.loads(answer))
        return len(acks)

    def acknowledge(self, worker: int, answer: Any) -> None:
        """Note that a worker's next write was answered, in plain numbers."""
        state = self.workers[worker]
        write = write_of(self.seed, worker, state.done)
        state.carry_out(write)
        self._note(write, answer)

    def may_have_one_more(self, worker: int) -> bool:
        """Whether a write of this worker may be in flight. Of a killed process, who knows."""
        return worker < len(self.workers)

    def check(self, store: Store) -> None:
        """Every acknowledged write is there, and of each worker at most one more, whole."""
        shown = contents(store.handlers)
        found = self.by_worker(shown)
        positions = [event.position for event in shown["all"]]
        assert positions == sorted(set(positions)), "positions grow"
        by_stream: dict[str, list[Any]] = {}
        for event in shown["all"]:
            by_stream.setdefault(event.stream, []).append(event)
        for stream in shown["streams"]:
            events, among_all = shown[f"stream {stream}"][1], by_stream.get(stream, [])
            assert events == among_all, (
                f"stream {stream} is by itself as it is among all: {_numbers(events)}, {_numbers(among_all)} among all"
            )
        for key in shown["keys"]:
            self.highest_revision = max(self.highest_revision, shown[f"key {key}"].revision)
        for number, part in found.items():
            self._check_worker(number, part)
        assert shown["position"] >= self.highest_position, "the highest position went back"
        self.highest_position = shown["position"]

    def by_worker(self, shown: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """A store's contents, as `Worker.expects` puts them, by the worker that wrote them."""
        found: dict[int, dict[str, Any]] = {worker.number: {} for worker in self.workers}
        for stream in shown["streams"]:
            last_seq, events, _ = shown[f"stream {stream}"]
            if stream != "goes on":
                found[int(stream[0])][f"stream {stream}"] = (last_seq, [(event.seq, event.data) for event in events])
        for key in shown["keys"]:
            entry = shown[f"key {key}"]
            assert entry is not None, f"key {key} is listed, but is not there"
            if key != "goes on":
                found[int(key[0])][f"key {key}"] = entry.value
        return found

    def _check_worker(self, number: int, found: dict[str, Any]) -> None:
        acknowledged = self.workers[number]
        if found == acknowledged.expects():
            self.in_flight["lost"] += 1
            return
        one_more = deepcopy(acknowledged)
        one_more.carry_out(write_of(self.seed, number, acknowledged.done))
        wanted = one_more.expects()
        different = [what for what in {*found, *wanted} if found.get(what) != wanted.get(what)]
        assert found == wanted, (
            f"worker {number} has {acknowledged.done} writes acknowledged: neither they, nor they and the next, "
            f"{write_of(self.seed, number, acknowledged.done)}, give what was found: {different}"
        )
        assert self.may_have_one_more(number), (
            f"worker {number} has {acknowledged.done} writes acknowledged, none was in flight, yet the next is there"
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


def _numbers(events: list[Any]) -> list[tuple[int, int]]:
    return [(event.seq, event.position) for event in events]
