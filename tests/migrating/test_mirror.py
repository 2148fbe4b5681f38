"""A store that is moved into another one while programs use it: nothing is lost or doubled, whatever comes."""

import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from postgres_server import new_store_url
from stores_of_a_move import read_model, stopping_after

from interpreters import Store, open_store
from interpreters.conformance import StoreConformance
from interpreters.migrating import STATE, Mirror
from interpreters.stores.memory import MemoryStore
from persist_effects import (
    Draft,
    Event,
    InvalidRequest,
    kv,
    log,
    subscription,
    transact,
)
from persist_effects.requests import Append, KvDelete, KvPut, KvWait, Wait

LONG_SECONDS = 60.0
PAIRS = (("memory", "file"), ("file", "sqlite"), ("file", "postgresql"), ("postgresql", "file"))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    numbers = count()
    opened = []

    def interpreter(kind: str) -> Any:
        if kind == "postgresql":
            where = new_store_url(sync="interval")
        else:
            where = "memory:" if kind == "memory" else f"{kind}:{tmp_path}/{next(numbers)}?sync=os"
        opened.append(open_store(where).interpreter)
        return opened[-1]

    yield interpreter
    for each in opened:
        each.close()


class TestBeforeTheCut(StoreConformance):
    def open_store(self) -> Store:
        return Store(Mirror(MemoryStore(), MemoryStore(), in_background=False))


# Under load


class Writer:
    """Writes to a stream of its own and to shared ones, and knows what it was acknowledged."""

    def __init__(self, store: Store, number: int) -> None:
        self.store = store
        self.random = Random(number)
        self.stream = f"own/{number}"
        self.appended = 0
        self.keys: dict[str, Any] = {}

    def step(self) -> None:
        key = f"{self.stream}/{self.random.randrange(5)}"
        match self.random.randrange(6):
            case 0 | 1:
                self.store.run(log.append(self.stream, "made", self.appended + 1))
                self.appended += 1
            case 2:
                drafts = [Draft("made", self.appended + 1), Draft("made", self.appended + 2)]
                self.store.run(log.append_many(self.stream, drafts))
                self.appended += 2
            case 3:
                self.store.run(kv.put(key, self.appended))
                self.keys[key] = self.appended
            case 4:
                self.store.run(kv.delete(key))
                self.keys.pop(key, None)
            case _:
                event = (Draft("made", self.appended + 1),)
                self.store.run(transact(Append(self.stream, event), KvPut(key, "both"), KvPut("shared", self.stream)))
                self.appended += 1
                self.keys[key] = "both"

    def look(self, store: Store) -> None:
        assert [event.data for event in store.run(log.read(self.stream))] == list(range(1, self.appended + 1))
        assert {key: entry.value for key, entry in store.run(kv.entries(self.stream + "/"))} == self.keys


class Follower:
    """Reads all streams from a position of its own, which it keeps to itself, and waits for more."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seen: list[tuple[str, int]] = []
        self.position = 0

    def until(self, is_over: Callable[[], bool]) -> None:
        while True:
            over = is_over()
            page = self.store.run(log.page_all(after=self.position, prefix="own/", limit=7))
            self.seen += [(event.stream, event.seq) for event in page.events]
            self.position = page.next
            if page.next >= page.head:
                if over:
                    return
                self.store.run(log.wait(page.next, "own/", timeout=0.05))


def in_threads(*uses: Callable[[], object]) -> None:
    """Have each done in a thread, and raise what one of them raised."""
    errors: list[BaseException] = []

    def work(use: Callable[[], object]) -> None:
        try:
            use()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(use,), daemon=True) for use in uses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_SECONDS)
        assert not thread.is_alive()
    for error in errors:
        raise error


class Move:
    """Eight writers, a follower with a checkpoint in the store and one without, and a move that begins among them."""

    def __init__(self, moving: Mirror) -> None:
        self.moving = moving
        self.store = Store(moving)
        self.writers = [Writer(self.store, number) for number in range(8)]
        self.plain = Follower(self.store)
        self._steps = count()
        self._arrived = {at: threading.Event() for at in (200, 500)}
        self._are_done = threading.Event()

    def run(self) -> None:
        in_threads(self._write_all, self._follow, lambda: self.plain.until(self._are_done.is_set))
        self._follow_once()

    def _write_all(self) -> None:
        try:
            in_threads(*(lambda writer=writer: self._write(writer) for writer in self.writers), self._move)
        finally:
            self._are_done.set()

    def _write(self, writer: Writer) -> None:
        for _ in range(100):
            writer.step()
            step = next(self._steps)
            if step in self._arrived:
                self._arrived[step].set()

    def _move(self) -> None:
        self._arrived[200].wait(LONG_SECONDS)
        self.moving.cut()
        assert self.moving.moving().answering == "new"
        self._arrived[500].wait(LONG_SECONDS)
        self.moving.roll_back()
        self.moving.cut()

    def _follow(self) -> None:
        while not self._are_done.is_set():
            self._follow_once()

    def _follow_once(self) -> None:
        self.store.run(subscription.follow("marker", "own/", self._mark, batch=10))

    def _mark(self, event: Event) -> list[Append]:
        return [Append("marks", (Draft("seen", [event.stream, event.seq]),))]

    def marked(self) -> list[tuple[str, int]]:
        return [tuple(event.data) for event in self.store.run(log.read("marks"))]


@pytest.mark.parametrize(("old_kind", "new_kind"), PAIRS)
def test_a_store_is_moved_and_moved_back_under_load_and_nothing_is_lost_or_doubled(old_kind, new_kind, make):
    moving = Mirror(make(old_kind), make(new_kind))
    move = Move(moving)
    move.run()
    for writer in move.writers:
        writer.look(move.store)
        own = [seq for stream, seq in move.plain.seen if stream == writer.stream]
        assert own == list(range(1, writer.appended + 1))
    expected = sorted((writer.stream, seq) for writer in move.writers for seq in range(1, writer.appended + 1))
    assert sorted(move.plain.seen) == expected
    assert sorted(move.marked()) == expected
    moving.catch_up()
    assert read_model(moving._stores[0], but=STATE) == read_model(moving._stores[1], but=STATE)
    move.store.close()


# Positions


def test_whoever_goes_on_from_a_position_of_before_a_cut_sees_each_event_once(make):
    moving = Mirror(make("memory"), make("memory"), in_background=False)
    with Store(moving) as store:
        for number in range(9):
            store.run(log.append(f"s/{number % 3}", "made", number))
        old = [event.position for event in store.run(log.read_all())]
        store.run(log.truncate_through("s/1", 2))
        moving.cut()
        for number in range(9, 15):
            store.run(log.append(f"s/{number % 3}", "made", number))
        left = [number for number in range(15) if number not in (1, 4)]

        def after(position):
            return [event.data for event in store.run(log.page_all(after=position)).events]

        for number, position in enumerate(old):
            assert after(position) == [each for each in left if each > number]
        new = {event.data: event.position for event in store.run(log.read_all())}
        moving.roll_back()
        for number, position in [*enumerate(old), *new.items()]:
            assert after(position) == [each for each in left if each > number]
        store.run(log.append("s/0", "made", 15))
        moving.cut()
        for number, position in [*enumerate(old), *new.items()]:
            assert after(position) == [each for each in [*left, 15] if each > number]


def test_what_expects_a_revision_of_before_a_cut_conflicts(make):
    moving = Mirror(make("memory"), make("file"), in_background=False)
    with Store(moving) as store:
        revisions = [store.run(kv.put("color", number)) for number in range(5)]
        moving.cut()
        for revision in revisions:
            assert store.run(kv.put_expect("color", revision, "lost")) is not None
        assert store.run(kv.get("color")) == 4


def test_who_waits_goes_on_waiting_across_a_cut_and_is_told(make):
    moving = Mirror(make("memory"), make("memory"), in_background=False)
    with Store(moving) as store:
        position = store.run(log.append("s/1", "made", 1)).position
        told = [threading.Event() for _ in range(3)]
        ends = [
            moving.watch(Wait(position, "s/", 60.0), told[0].set),
            moving.watch(Wait(position, "t/", 60.0), told[1].set),
            moving.watch(KvWait(0, "color", 60.0), told[2].set),
        ]
        moving.cut()
        assert [each.is_set() for each in told] == [False, False, False]
        store.run(log.append("s/1", "made", 2))
        store.run(kv.put("color", "red"))
        assert [each.is_set() for each in told] == [True, False, True]
        for end in ends:
            end()
        store.run(log.append("t/1", "made", 1))
        assert not told[1].is_set()
        assert not moving._watched


# Writers that pass by


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda: log.append("s", "made", 2), r"past this mirror somebody wrote event 2 of stream 's', of type 'made'"),
        (lambda: log.truncate_through("s", 1), r"stream 's', which was begun or truncated"),
        (lambda: log.begin("other", 5), r"stream 'other', which was begun or truncated"),
        (lambda: kv.put("color", "blue"), r"key 'color', which was put"),
        (lambda: kv.put("other", "blue"), r"key 'other', which was put"),
        (lambda: kv.delete("color"), r"key 'color', which was deleted"),
    ],
)
@pytest.mark.parametrize("new_kind", ["memory", "sqlite"])
def test_a_writer_that_bypasses_the_mirror_is_named_and_the_next_cut_passes(write, message, new_kind, make):
    old = make("memory")
    moving = Mirror(old, make(new_kind), in_background=False)
    with Store(moving) as store:
        store.run(log.append("s", "made", 1))
        store.run(kv.put("color", "red"))
        moving.catch_up()
        Store(old).run(write())
        with pytest.raises(InvalidRequest, match=message):
            moving.cut()
        assert moving.moving().answering == "old"
        store.run(log.append("s", "made", "more"))
        moving.cut()
        assert moving.moving().answering == "new"
        moving.catch_up()
        assert read_model(moving._stores[0], but=STATE) == read_model(moving._stores[1], but=STATE)


# Stopped, killed, interrupted


def do_everything(store: Store, random: Random) -> None:
    for number in range(random.randint(1, 6)):
        name = f"s/{random.randrange(3)}"
        match random.randrange(6):
            case 0 | 1:
                store.run(log.append_many(name, [Draft("made", number)] * random.randint(1, 3)))
            case 2:
                store.run(log.truncate_through(name, random.randrange(1, 9)))
            case 3:
                store.run(kv.put(f"key/{random.randrange(4)}", number))
            case 4:
                store.run(transact(KvDelete(f"key/{random.randrange(4)}"), KvPut("last", number)))
            case _:
                store.run(subscription.follow("some", "s/", lambda event: [], skip_truncated=True))


class Stop(Exception):
    """The process is gone."""


@pytest.mark.parametrize(("old_kind", "new_kind"), [("memory", "file"), ("file", "sqlite"), ("sqlite", "postgresql")])
@pytest.mark.parametrize("which", [0, 1])
def test_a_move_that_dies_at_any_request_goes_on_and_one_of_the_two_answers(old_kind, new_kind, which, make):
    for requests in count(0, 3):
        stores = make(old_kind), make(new_kind)
        random = Random(requests)
        do_everything(Store(stores[0]), random)
        given = list(stores)
        given[which] = stopping_after(stores[which], requests, Stop)
        moving = None
        try:
            moving = Mirror(*given, in_background=False)
            move_to_and_fro(moving, random)
        except Stop:
            expected = read_model(Store(stores[0 if moving is None else moving._lead]), but=STATE)
        else:
            break
        again = Mirror(*stores, in_background=False)
        for _ in range(3):
            assert read_model(again._leading, but=STATE) == expected, f"stopped after {requests} requests"
            (again.roll_back if again.moving().answering == "new" else again.cut)()
        again.close()
    assert requests >= 50


def move_to_and_fro(moving: Mirror, random: Random) -> None:
    store = Store(moving)
    for _ in range(2):
        do_everything(store, random)
        moving.catch_up()
        do_everything(store, random)
        moving.cut()
        do_everything(store, random)
        moving.catch_up()
        moving.roll_back()
    moving.cut()
