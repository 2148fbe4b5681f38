"""A store that is moved into another one while programs use it: nothing is lost or doubled, whatever comes."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from itertools import count, product
from pathlib import Path
from random import Random
from typing import Any

import nats_cluster
import postgres_server
import pytest
from fewer import FEWER
from interrupts import InterruptInside
from lagging import LaggingMemoryStore
from stores_of_a_move import read_model, stopping_after

from interpreters import Store, open_store
from interpreters.conformance import StoreConformance
from interpreters.migrating import STATE, Mirror, mirroring
from interpreters.never_run import Lost, Watcher
from interpreters.stores.memory import MemoryStore
from persist_effects import (
    Draft,
    Event,
    InvalidRequest,
    StoreClosed,
    StoreUnavailable,
    Truncated,
    UncertainOutcome,
    kv,
    log,
    subscription,
    transact,
)
from persist_effects.requests import WRITES, Append, KvDelete, KvPut, KvWait, Wait

LONG_SECONDS = 60.0
PAIRS = (
    ("memory", "file"), ("file", "sqlite"), ("file", "postgresql"), ("postgresql", "file"), ("lagging", "lagging"),
    ("file", "nats"), ("nats", "file"), ("postgresql", "nats"),
)  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    numbers = count()
    opened = []

    def interpreter(kind: str) -> Any:
        if kind == "lagging":
            return LaggingMemoryStore()
        if kind == "postgresql":
            where = postgres_server.new_store_url(sync="interval")
        elif kind == "nats":
            where = nats_cluster.new_store_url()
        else:
            where = "memory:" if kind == "memory" else f"{kind}:{tmp_path}/{next(numbers)}?sync=os"
        opened.append(open_store(where).interpreter)
        return opened[-1]

    yield interpreter
    for each in opened:
        each.close()


class TestBeforeTheCut(StoreConformance):
    machine_settings = FEWER

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
            if over:
                self.store.wait_for_order()
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
        self.store.wait_for_order()
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


@pytest.mark.exploration
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
    # What its order does not show yet is not copied.
    moving._leading.wait_for_order()
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
        store.run(log.truncate_through("s/1", 2, unseen="drop"))
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
        (lambda: log.truncate_through("s", 1, unseen="drop"), r"stream 's', which was begun or truncated"),
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
                store.run(log.truncate_through(name, random.randrange(1, 9), unseen="drop"))
            case 3:
                store.run(kv.put(f"key/{random.randrange(4)}", number))
            case 4:
                store.run(transact(KvDelete(f"key/{random.randrange(4)}"), KvPut("last", number)))
            case _:
                store.run(subscription.follow("some", "s/", lambda event: [], skip_truncated=True))


class Stop(Exception):
    """The process is gone."""


@pytest.mark.exploration
@pytest.mark.parametrize(
    ("old_kind", "new_kind", "which"),
    [
        *product(["memory"], ["file"], [0, 1]),
        *product(["file"], ["sqlite"], [0, 1]),
        *product(["lagging"], ["lagging"], [0, 1]),
        ("sqlite", "postgresql", 1),
        ("file", "nats", 0),
        pytest.param("sqlite", "postgresql", 0, marks=pytest.mark.exploration),
        pytest.param("file", "nats", 1, marks=pytest.mark.exploration),
    ],
)
def test_a_move_that_dies_at_any_request_goes_on_and_one_of_the_two_answers(old_kind, new_kind, which, make):
    # Each cut to NATS waits for as long as others may not have heard of its advance.
    for requests in count(which, 29 if new_kind == "nats" else 3):
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


def test_a_copy_that_failed_goes_on_where_it_was(make):
    old, new = make("memory"), make("memory")
    failing = Failing(new)
    moving = Mirror(old, failing, in_background=False)
    with Store(moving) as store:
        random = Random(3)
        for _ in range(60):
            do_everything(store, random)
            failing.left = random.choice([0, 1, 2, 3, 5, 8, 1000])
            try:
                moving.catch_up()
            except StoreUnavailable:
                failing.left = 1000
            failing.left = 1000
            moving.catch_up()
            assert read_model(Store(new), but=STATE) == read_model(Store(old), but=STATE)


class Failing:
    """An interpreter that is away after so many writes."""

    blocking = True

    def __init__(self, interpreter: Any) -> None:
        self.left = 1000
        self.watch, self.close = interpreter.watch, interpreter.close
        self.handlers = {kind: self._counted(kind, row) for kind, row in interpreter.handlers.items()}
        self.error: BaseException = StoreUnavailable("it is away")
        self.is_written = False

    def _counted(self, kind, row):
        def ask(request):
            if kind in WRITES:
                self.left -= 1
                if self.left < 0:
                    if self.is_written:
                        row(request)
                    raise self.error
            return row(request)

        return ask if kind in WRITES else row


@pytest.mark.parametrize("is_written", [True, False])
@pytest.mark.parametrize("error", [UncertainOutcome("lost"), KeyboardInterrupt()], ids=["lost", "interrupted"])
def test_where_the_write_that_decides_a_cut_is_uncertain_no_store_answers_that_should_not(error, is_written, make):
    old, new = make("memory"), make("memory")
    failing = Failing(new)
    moving = Mirror(old, failing, in_background=False)
    store = Store(moving)
    store.run(log.append("s", "made", 1))
    moving.catch_up()
    failing.left, failing.error, failing.is_written = 0, error, is_written
    if is_written:
        # It was looked up, and is known.
        with contextlib.suppress(KeyboardInterrupt):
            moving.cut()
        failing.left = 1000
        assert moving.moving().answering == "new"
        store.run(log.append("s", "made", 2))
        assert Store(new).run(log.last_seq("s")) == 2
        return
    is_told = isinstance(error, Exception)
    with pytest.raises(
        StoreUnavailable if is_told else KeyboardInterrupt,
        match="whether the new store answers now is not known" if is_told else None,
    ):
        moving.cut()
    for program in (log.append("s", "made", 2), log.last_seq("s"), kv.wait(5)):
        with pytest.raises(StoreUnavailable, match="close the mirror and open it again"):
            store.run(program)
    again = Mirror(old, new, in_background=False)
    assert again.moving().answering == "old"
    again.cut()


def test_an_interrupt_at_any_step_of_a_cut_leaves_one_store_that_answers_or_none(make):
    """With what was acknowledged. None until both are opened again, where it came when it was being decided."""
    files = (mirroring.__file__,)

    def cut_with(interrupt):
        old, new = make("memory"), make("memory")
        moving = Mirror(old, new, in_background=False)
        store = Store(moving)
        store.run(log.append("s", "made", 1))
        moving.catch_up()
        # It may come right between making a program and running it.
        with contextlib.suppress(KeyboardInterrupt), Watcher(list[Lost]().append), interrupt:
            moving.cut()
        return old, new, moving, store

    counting = InterruptInside(0, files)
    cut_with(counting)
    assert len(counting.firsts) > 30
    answering = set()
    for place, at in counting.firsts.items():
        old, new, moving, store = cut_with(InterruptInside(at, files))
        expected = [1]
        try:
            store.run(log.append("s", "made", 2))
            expected = [1, 2]
        except StoreUnavailable:
            answering.add("none")
        else:
            answering.add(moving.moving().answering)
        again = Mirror(old, new, in_background=False)
        for _ in range(2):
            assert [event.data for event in again._leading.run(log.read("s"))] == expected, place
            (again.roll_back if again.moving().answering == "new" else again.cut)()
    assert answering == {"old", "new", "none"}


def test_writes_that_do_not_end_let_the_old_store_answer_on(make):
    old = make("memory")
    is_asked, is_over = threading.Event(), threading.Event()
    append = old.handlers[Append]

    def slow(request):
        is_asked.set()
        assert is_over.wait(LONG_SECONDS)
        return append(request)

    old.handlers = {**old.handlers, Append: slow}
    moving = Mirror(old, make("memory"), in_background=False)
    store = Store(moving)
    thread = threading.Thread(target=lambda: store.run(log.append("s", "made", 1)))
    thread.start()
    assert is_asked.wait(LONG_SECONDS)
    with pytest.raises(StoreUnavailable, match="1 writes are on their way for more than 0 s: the old store answers on"):
        moving.cut(timeout=0)
    is_over.set()
    thread.join(LONG_SECONDS)
    moving.cut()
    assert store.run(log.last_seq("s")) == 1
    store.close()


def test_an_outcome_that_is_not_known_is_nobody_elses(make):
    old = Failing(make("memory"))
    moving = Mirror(old, make("memory"), in_background=False)
    with Store(moving) as store:
        old.error, old.is_written = UncertainOutcome("lost"), True
        for program in (log.append("s", "made", 1), kv.put("color", "red"), kv.delete("color"), log.begin("t", 7)):
            old.left = 0
            with pytest.raises(UncertainOutcome):
                store.run(program)
        old.left = 1000
        moving.cut()
        assert store.run(log.streams()) == ["s", "t"]


def test_a_store_of_something_else_and_one_that_cannot_be_watched_are_refused(make):
    new = make("memory")
    Store(new).run(kv.put("color", "red"))
    with pytest.raises(InvalidRequest, match="the new store has key 'color': migrate into an empty store"):
        Mirror(make("memory"), new)
    blind = Failing(make("memory"))
    del blind.watch
    with pytest.raises(InvalidRequest, match=r"the old store, a Failing, has no watch\(request, notify\)"):
        Mirror(blind, make("memory"))


def test_a_move_that_is_finished_leaves_nothing_behind_and_copies_no_more(make):
    old, new = make("memory"), make("memory")
    moving = Mirror(old, new)
    store = Store(moving)
    store.run(log.append("s", "made", 1))
    with pytest.raises(InvalidRequest, match="the old store answers already"):
        moving.roll_back()
    moving.cut()
    moving.finish()
    moving.finish()
    with pytest.raises(InvalidRequest, match="this move was finished"):
        moving.roll_back()
    store.run(log.append("s", "made", 2))
    assert [Store(each).run(log.last_seq("s")) for each in (old, new)] == [1, 2]
    assert [Store(each).run(kv.keys()) for each in (old, new)] == [[], []]
    store.close()
    store.close()
    with pytest.raises(StoreClosed):
        store.run(log.last_seq("s"))


def test_a_forked_child_reads_and_is_told_to_write_in_its_parent(make):
    moving = Mirror(make("memory"), make("memory"))
    store = Store(moving)
    store.run(log.append("s", "made", 1))
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            assert store.run(log.last_seq("s")) == 1
            with pytest.raises(StoreUnavailable, match="this process was forked"):
                store.run(log.append("s", "made", 2))
            with pytest.raises(StoreUnavailable, match="this process was forked"):
                moving.catch_up()
            code = 0
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    store.run(log.append("s", "made", 2))
    moving.cut()
    store.close()


def test_a_follower_meets_the_holes_that_it_met_before_and_no_others(make):
    """Of streams that were dropped before anything was copied it is not known when; of who stood where it is."""

    def is_told(store, name):
        try:
            store.run(subscription.follow(name, "s/", lambda event: [], skip_truncated=False))
        except Truncated as truncated:
            return truncated.stream
        return None

    old, new = make("memory"), make("sqlite")
    store = Store(old)
    for number in range(12):
        store.run(log.append(f"s/{number % 4}", "made", number))
        if number % 3 == 2:
            store.run(subscription.follow(f"after {number}", "s/", lambda event: []))
    store.run(log.truncate_through("s/0", 1, unseen="drop"))
    store.run(log.truncate_through("s/1", 2, unseen="drop"))
    store.run(log.truncate_through("s/2", 3, unseen="drop"))
    moving = Mirror(old, new, in_background=False)
    moving.catch_up()
    followers = [f"after {number}" for number in (2, 5, 8, 11)]
    found = [is_told(Store(new), name) for name in followers]
    assert found == [is_told(Store(old), name) for name in followers]
    assert len(set(found)) > 2
    moving.close()
