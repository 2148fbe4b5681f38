"""The workers of a group, as processes that are killed, stopped and interrupted, and what their effects must be."""

import json
import os
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event as Flag
from threading import Thread
from typing import NamedTuple

from crew_child import EFFECTS, NAME, PREFIX
from served_stores import PATIENCE_SECONDS
from server_processes import python_process

from interpreters import Store, open_store
from persist_effects import Event, kv, log
from persist_effects.following.records import hash_of, members_prefix

CHILD = Path(__file__).with_name("crew_child.py")
KINDS = KILLED, STOPPED, STOPPED_IN_HANDLER, INTERRUPTED = "killed", "stopped", "stopped in its handler", "interrupted"
"""What may befall a worker."""

STREAMS = 64
WRITE_SECONDS = 0.02
"""How long the writer pauses between two events."""

UNSEEN = 8
"""How many events may wait for their effects while others are appended. A partition that stands still because the crew
is busy with a backlog would say nothing of leases."""


class Size(NamedTuple):
    """Of how many workers a crew is, and how they share."""

    workers: int = 8
    partitions: int = 16
    lease_seconds: float = 3.0


class Worker:
    """A process that follows as a member. ``name`` is the member's; None: one that the store makes up."""

    def __init__(self, url: str, size: Size, name: str | None) -> None:
        order = {
            "url": url,
            "member": name,
            "partitions": size.partitions,
            "lease_seconds": size.lease_seconds,
        }
        self.name = name
        self.is_stopped = False
        self.told = Counter[str]()
        self.key = ""
        """Where it gives signs of life."""
        self._process = python_process(CHILD, json.dumps(order), stdout=subprocess.PIPE)
        self._rest = b""

    def listen(self, seconds: float = 0.0) -> bool:
        """Take in what it has told, waiting so long for the first of it. Whether it told anything."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return False
        piece = os.read(self._process.stdout.fileno(), 65536)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for word, *more in (line.decode().split(" ", 1) for line in lines):
            self.told[word] += 1
            if word == "lives":
                (self.key,) = more
        return bool(piece)

    def wait_for(self, word: str) -> None:
        """Wait until it tells something."""
        while not self.told[word]:
            assert self.listen(PATIENCE_SECONDS), f"a worker did not say {word!r}: it ended with {self.ended()}"

    def ended(self) -> int | None:
        return self._process.poll()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        """Stop it as it stands."""
        self.signal(signal.SIGSTOP)
        self.is_stopped = True

    def stop_in_handler(self) -> None:
        """Stop it once its handler was asked for an event, and before anything is written of it."""
        self.told["stops"] = 0
        self.signal(signal.SIGUSR1)
        self.wait_for("stops")
        self.is_stopped = True

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)
        self.is_stopped = False

    def end(self, number: int) -> None:
        """End it by a signal, and take in all it has told. One that does not end tells where it stands."""
        self.signal(number)
        try:
            code = self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGABRT)
            code = self._process.wait(PATIENCE_SECONDS)
        while self.listen():
            pass
        assert code == (-number if number == signal.SIGKILL else 0), f"a worker ended with {code}"
        self.close()

    def close(self) -> None:
        with self._process:
            self._process.kill()


class Crew:
    """Workers of one group, and what befell them. Times are microseconds since 1970, as those of events."""

    def __init__(self, url: str, size: Size, random: Random) -> None:
        self._url, self._size, self._random = url, size, random
        self.told = Counter[str]()
        self.blows = Counter[str]()
        self.blown_at: list[int] = []
        self.writes_took: list[float] = []
        """How many seconds each append of the writer beside them took: what a busy machine makes of any write."""
        self._silent: list[str] = []
        self._names = [f"w{number}" if number % 2 else None for number in range(size.workers)]
        self.workers = [self._new() for _ in range(size.workers)]
        for worker in self.workers:
            worker.wait_for("lives")

    def _new(self) -> Worker:
        # Half have names, which others take over that are begun for them, as where a supervisor starts them again.
        return Worker(self._url, self._size, self._names.pop())

    def strike(self, kinds: list[str]) -> None:
        """Have a blow befall some workers, each another one; those that are gone are begun anew.

        Args:
            kinds: What befalls them, each one of `KINDS`, and fewer than there are.
        """
        struck = self._random.sample(self.workers, len(kinds))
        for kind, worker in zip(kinds, struck, strict=True):
            self._strike(kind, worker)

    def _strike(self, kind: str, worker: Worker) -> None:
        self.blows[kind] += 1
        if kind == STOPPED:
            worker.stop()
        elif kind == STOPPED_IN_HANDLER:
            worker.stop_in_handler()
        else:
            worker.end(signal.SIGKILL if kind == KILLED else signal.SIGINT)
            self.told.update(worker.told)
            self.workers.remove(worker)
            self._names.append(worker.name)
        self._silent.append(worker.key)
        self.blown_at.append(_now())

    def until_noticed(self) -> None:
        """Wait until the others have taken those for dead who were struck, and have their partitions."""
        keys, self._silent = set(self._silent), []
        names = {key.removeprefix(members_prefix(NAME)) for key in keys}
        with open_store(self._url) as store:
            while True:
                kept = store.run(kv.entries("follow-"))
                if not any(key in keys or entry.value.get("owner") in names for key, entry in kept):
                    return
                store.run(kv.wait(max(entry.revision for _, entry in kept), "follow-", 1.0))

    def heal(self) -> None:
        """Begin others for those that are gone, and let those go on that were stopped."""
        for worker in self.workers:
            if worker.is_stopped:
                worker.go_on()
        begun = [self._new() for _ in range(self._size.workers - len(self.workers))]
        self.workers += begun
        for worker in begun:
            worker.wait_for("lives")
        for worker in self.workers:
            worker.listen()

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


@contextmanager
def crew_at_work(url: str, size: Size, seed: int) -> Iterator[Crew]:
    """Workers of one group, beside a writer."""
    is_over, failures = Flag(), list[Exception]()
    crew = Crew(url, size, Random(seed))
    writer = Thread(target=_write, args=(url, Random(seed), is_over, crew.writes_took, failures))
    try:
        writer.start()
        yield crew
        is_over.set()
        writer.join()
        assert not failures, failures
        _end(url, crew)
    finally:
        is_over.set()
        crew.close()


def _write(url: str, random: Random, is_over: Flag, took: list[float], failures: list[Exception]) -> None:
    try:
        with open_store(url) as store:
            unseen = reached = 0
            while not is_over.wait(WRITE_SECONDS):
                effects = store.run(log.read_all(reached, EFFECTS))
                reached = effects[-1].position if effects else reached
                unseen -= len(effects)
                if unseen < UNSEEN:
                    began = time.monotonic()
                    store.run(log.append(f"{PREFIX}{random.randrange(STREAMS)}", "made", None))
                    took.append(time.monotonic() - began)
                    unseen += 1
    except Exception as error:
        failures.append(error)


def _end(url: str, crew: Crew) -> None:
    """Wait until all events have had their effects, and have all workers end as by Ctrl-C."""
    with open_store(url) as store:
        events = len(store.run(log.read_all(prefix=PREFIX)))
        patience_ends = time.monotonic() + PATIENCE_SECONDS
        while (there := len(store.run(log.read_all(prefix=EFFECTS)))) < events:
            assert time.monotonic() < patience_ends, _say_stuck(store, events, there)
            store.run(log.wait(store.run(log.head(EFFECTS)), EFFECTS, 1.0))
    for worker in crew.workers:
        worker.end(signal.SIGINT)
        crew.told.update(worker.told)


def _say_stuck(store: Store, events: int, there: int) -> str:
    parts = {key: entry.value for key, entry in store.run(kv.entries("follow"))}
    return f"of {events} events {there} took effect, and then no more: {parts}"


def _now() -> int:
    return time.time_ns() // 1000


# What the effects must be


class Judged(NamedTuple):
    """What is wrong with the effects, and the longest that an event waited for its own, in seconds.

    Args:
        problems: What is wrong.
        events: How many events there are.
        since_appended: From when an event was appended.
        since_turn: From when it was appended and the one before it in its partition had taken effect.
        since_blow: The same, but from the last blow where that is later: how long a partition stood still.
        where: The event for which it stood still the longest.
    """

    problems: list[str]
    events: int
    since_appended: float
    since_turn: float
    since_blow: float
    where: str


def judge_effects(store: Store, size: Size, blown_at: list[int]) -> Judged:
    """Look at all effects: each event's is there once, in order within its stream.

    Args:
        store: The store.
        size: How the workers share.
        blown_at: When blows fell, in order.
    """
    events = {(event.stream, event.seq): event for event in store.run(log.read_all(prefix=PREFIX))}
    effects = store.run(log.read_all(prefix=EFFECTS))
    seqs: dict[str, list[int]] = {}
    for effect in effects:
        stream, seq = effect.data
        seqs.setdefault(stream, []).append(seq)
    lengths = Counter(stream for stream, _ in events)
    problems = [
        f"of {stream} there are {lengths[stream]} events, and these took effect: {seqs.get(stream)}"
        for stream in sorted(lengths | seqs.keys())
        if seqs.get(stream) != list(range(1, lengths[stream] + 1))
    ]
    return Judged(problems, len(events), *_longest(events, effects, size, blown_at))


def _longest(
    events: dict[tuple[str, int], Event], effects: list[Event], size: Size, blown_at: list[int]
) -> tuple[float, float, float, str]:
    longest, where = [0, 0, 0], ""
    before: dict[int, int] = {}
    blows = iter(sorted(blown_at))
    last_blow, next_blow = 0, next(blows, None)
    for effect in effects:
        stream, seq = effect.data
        part = hash_of(stream) % size.partitions
        while next_blow is not None and next_blow <= effect.at:
            last_blow, next_blow = next_blow, next(blows, None)
        appended = events[stream, seq].at if (stream, seq) in events else effect.at
        turn = max(appended, before.get(part, 0))
        waited = (effect.at - appended, effect.at - turn, effect.at - max(turn, last_blow))
        if waited[-1] > longest[-1]:
            where = (
                f"event {seq} of {stream!r}, partition {part}, took effect at {effect.at}, {effect.at - appended} us "
                f"after it was appended, {effect.at - turn} after its turn came, {effect.at - last_blow} after a blow"
            )
        longest = [max(pair) for pair in zip(longest, waited, strict=True)]
        before[part] = effect.at
    appended, turn, blow = (micros / 1_000_000 for micros in longest)
    return appended, turn, blow, where
