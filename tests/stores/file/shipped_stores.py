"""A store that is written and shipped on disks in memory, beside a memory store that is written the same.

What the memory store held after each write is kept as an export, so that whatever is restored can be compared with it.
"""

import io
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest
from file_disks import EngineStore, Workload

from interpreters import Store, jsonl
from interpreters.disk.crashing import CrashDisk
from interpreters.stores.file.upkeep.shipping.restoring import Cut, Restored, restore_store
from interpreters.stores.file.upkeep.shipping.shipper import Shipped, Shipper
from interpreters.stores.file.upkeep.shipping.targets import BackupTarget, DirectoryTarget, objects_on
from interpreters.stores.memory import MemoryStore
from persist_effects import InvalidRequest, run
from persist_effects.machine import Handlers
from persist_effects.requests import Request

SEGMENT_BYTES = 1500
START = 1_700_000_000_000_000


class Killed(BaseException):
    """The shipper's process is gone."""


def exported(store: Store) -> bytes:
    """All that a store holds, as lines."""
    lines = io.BytesIO()
    jsonl.export(store, lines)
    return lines.getvalue()


class ShippedStore:
    """The store, its disk, its target's disk and its shipper; and the memory store's states, one after each write."""

    def __init__(self, seed: int = 0, keep_days: float | None = None, target: BackupTarget | None = None) -> None:
        self.seed = seed
        self.now = START
        self.keep_days = keep_days
        self.source = CrashDisk()
        self.target = CrashDisk()
        self.objects = target or DirectoryTarget(self.target.handlers)
        self.memory = MemoryStore(clock=lambda: self.now)
        self.workload = Workload(seed)
        self.openings = 0
        self.store = self._opened()
        self.shipper = self.new_shipper()
        self.states = [exported(Store(self.memory))]
        self.counters = [(0, 0)]
        # For the log, and for each that a compaction made of it: the positions that were shipped, look after look.
        self.bases: list[list[int]] = [[0]]

    def _opened(self) -> EngineStore:
        self.openings += 1
        seed = self.seed * 1000 + self.openings
        return EngineStore(self.source, segment_bytes=SEGMENT_BYTES, seed=seed, clock=lambda: self.now)

    # What is done to the store

    def write(self, request: Request | None = None) -> None:
        """Write the same to both, and keep what the memory store holds then."""
        self.now += 1_000_000
        request = request or self.workload.next()
        answer = self.store.commit([request])[0]
        assert answer == self.memory.handlers[type(request)](request)
        index = self.store.engine.index
        self.states.append(exported(Store(self.memory)))
        self.counters.append((index.position, index.revision))

    def compact(self) -> None:
        run(self.store.engine.compact(), self.source.handlers)
        self.bases.append([])

    def close_and_open(self) -> None:
        self.store.close()
        self.store = self._opened()

    def kill_writer(self) -> None:
        """The writer's process is gone, and another opens what it left."""
        self.source = CrashDisk(self.source.image())
        self.store = self._opened()

    def lose_power(self, random: Random) -> None:
        """What was not synced is gone, or some of it."""
        states = list(islice(self.source.states(), 20))
        self.source = CrashDisk(random.choice(states).image)
        self.store = self._opened()

    # What is done to the target

    def new_shipper(self) -> Shipper:
        return Shipper(lambda: self.now, self.keep_days)

    def handlers(self) -> Handlers:
        return {**self.source.handlers, **objects_on(self.objects)}

    def look(self) -> Shipped:
        shipped = run(self.shipper.look(), self.handlers())
        self.bases[-1].append(shipped.position)
        return shipped

    def put_elsewhere(self, target: CrashDisk) -> None:
        """The target's disk is this one from now on, as after a loss of power; and the shipper is a new one."""
        self.target = target
        self.objects = DirectoryTarget(target.handlers)
        self.shipper = self.new_shipper()

    # What comes of it

    def restored(self, cut: Cut | None = None) -> tuple[Restored, bytes]:
        """What is restored from the target, as it is, and its export."""
        into = CrashDisk()
        handlers = {**into.handlers, **objects_on(self.objects)}
        restored = run(restore_store(cut or Cut(), Random(7).randbytes), handlers)
        return restored, exported(Store(EngineStore(CrashDisk(into.image()), segment_bytes=SEGMENT_BYTES, seed=77)))

    def check_newest(self) -> None:
        """What was shipped is what there is."""
        assert self.restored()[1] == self.states[-1]

    def state_at(self, position: int) -> bytes:
        """What the memory store held before the first event past a position."""
        return self.states[bisect_left(self.counters, position + 1, key=lambda both: both[0]) - 1]

    def must_have(self, position: int) -> bool:
        """Whether a position was shipped, with all that came before the next event."""
        return any(
            looks[0] <= position < looks[-1] or (looks is self.bases[-1] and position == looks[-1])
            for looks in self.bases
            if looks
        )

    def check_every_position(self) -> int:
        """Restore every position. Returns how many could be; the others were compacted away unshipped."""
        restorable = 0
        for position in range(self.counters[-1][0] + 1):
            try:
                found = self.restored(Cut(position=position))[1]
            except InvalidRequest:
                assert not self.must_have(position), f"position {position}"
                continue
            restorable += 1
            if self.must_have(position):
                assert found == self.state_at(position), f"position {position}"
            else:
                assert found in self.states
        return restorable


def histories(seed: int) -> Iterator[ShippedStore]:
    """One store, after each thing that a history chosen by a seed does to it."""
    random = Random(f"{seed} history")
    shipped = ShippedStore(seed)
    for _ in range(60):
        action = random.choices(
            [
                shipped.write,
                shipped.look,
                shipped.compact,
                shipped.close_and_open,
                shipped.kill_writer,
                lambda: shipped.lose_power(random),
                lambda: setattr(shipped, "shipper", shipped.new_shipper()),
            ],
            [40, 16, 2, 3, 2, 2, 4],
        )[0]
        action()
        yield shipped
    shipped.look()
    yield shipped


# Looks, which the shipping as it is passes, and which wrong ones are not to


def look_at_every_position(seeds: range = range(12)) -> None:
    """Restore every position of some histories."""
    for seed in seeds:
        for shipped in histories(seed):
            last = shipped
        last.check_newest()
        assert last.check_every_position() > 0


def look_at_every_crash(seeds: range = range(1)) -> int:
    """Kill the shipper before each request to its target's disk, with the power or without. Returns how many states.

    Whatever is left, all that an earlier look had shipped is restored, and the next shipper goes on.
    """
    count = 0
    for seed in seeds:
        shipped, random = ShippedStore(seed), Random(seed)
        index = 0
        for step in range(6):
            for _ in range(random.randrange(1, 6)):
                shipped.write()
            if step in (2, 4):
                shipped.compact() if step == 2 else shipped.kill_writer()
            count += _kill_at_each_request(shipped, index)
            shipped.shipper = shipped.new_shipper()
            shipped.look()
            index = len(shipped.states) - 1
            shipped.check_newest()
    return count


def _kill_at_each_request(shipped: ShippedStore, index: int) -> int:
    """Look with a shipper that is killed before its first request, its second and so on, each on the same target."""
    target, count = shipped.target, 0
    for number in range(10_000):
        killed = target.copy()
        killed.watch(lambda current, _, number=number: _kill() if current == number else None)
        shipped.put_elsewhere(killed)
        try:
            run(shipped.shipper.look(), shipped.handlers())
        except Killed:
            killed.watch(lambda *_: None)
            for image in [killed.image(), *(state.image for state in islice(killed.states(), 5))]:
                count += 1
                _check_goes_on(shipped, CrashDisk(image), index)
            continue
        shipped.put_elsewhere(target)
        return count
    raise AssertionError("a look ends")


def _kill() -> None:
    raise Killed


def _check_goes_on(shipped: ShippedStore, target: CrashDisk, index: int) -> None:
    shipped.put_elsewhere(target)
    try:
        found = shipped.restored()[1]
    except InvalidRequest:
        assert index == 0, "what was shipped once can be restored"
    else:
        assert found in shipped.states[index:]
    run(shipped.shipper.look(), shipped.handlers())
    shipped.check_newest()


def look_at_a_kept_log(keep_days: float = 2.0) -> None:
    """What was before a compaction is kept for as long as was said, and no longer."""
    shipped = ShippedStore(3, keep_days=keep_days)
    day = 24 * 60 * 60 * 1_000_000
    for _ in range(10):
        shipped.write()
    shipped.look()
    middle = shipped.counters[-1][0] - 1
    shipped.write()
    shipped.compact()
    shipped.look()
    shipped.now += int((keep_days - 0.1) * day)
    shipped.write()
    shipped.close_and_open()
    shipped.look()
    assert shipped.restored(Cut(position=middle))[1] == shipped.state_at(middle)
    before = len(shipped.objects.list("segment."))
    shipped.now += int(0.2 * day)
    shipped.close_and_open()
    shipped.look()
    with pytest.raises(InvalidRequest, match="a compaction took it"):
        shipped.restored(Cut(position=middle))
    assert len(shipped.objects.list("segment.")) < before + 1
    assert len(shipped.objects.list("catalog.")) == 1
    shipped.check_newest()
