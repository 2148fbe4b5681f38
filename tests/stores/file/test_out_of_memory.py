"""No memory left, at any line of a write: what was written is written whole, and the error says whether it may be.

`StoreUnavailable`: nothing was written. `UncertainOutcome`: it may have been. A MemoryError itself comes from
before the store.
"""

import linecache
import threading
from collections.abc import Callable

import pytest
from interrupts import Interrupt

from interpreters import Store, open_store
from interpreters.stores import group, memory
from interpreters.stores.file import engine, frames, index, queries, segments, staging, store, writer
from interpreters.stores.file.store import FileStore
from interpreters.stores.group import GroupCommit
from persist_effects import Append, Draft, KvDelete, KvPut, StoreUnavailable, UncertainOutcome, kv, log, transact
from persist_effects.requests import Failed, TruncateThrough, Wait

pytestmark = pytest.mark.exploration

FILE = tuple(module.__file__ for module in (engine, frames, group, index, queries, segments, staging, store, writer))
MEMORY = (memory.__file__,)
HANDS_ON = ("return ", "if isinstance(outcome, Answered)")
"""Lines that need no memory, in which what a store has answered goes to the program."""

APPEND = Append("s", (Draft("made", "mine"), Draft("made", "mine")))
WRITES = {
    "append": [APPEND],
    "put": [KvPut("color", "blue")],
    "delete": [KvDelete("color")],
    "truncate": [TruncateThrough("old", 3)],
    "all of them": [APPEND, KvPut("color", "blue"), KvDelete("gone"), TruncateThrough("old", 3)],
}


def fill(opened: Store) -> None:
    opened.run(log.append_many("old", [Draft("made", n) for n in range(4)]))
    opened.run(kv.put("color", "red"))
    opened.run(kv.put("gone", 1))


def shown(opened: Store) -> list[object]:
    """All that a store holds."""
    events = [(event.stream, event.seq, event.data) for event in opened.run(log.page_all()).events]
    streams = opened.run(log.streams())
    by_stream = [(name, event.seq, event.data) for name in streams for event in opened.run(log.read(name, after=3))]
    keys = opened.run(kv.keys())
    last = [opened.run(log.last_seq(name)) for name in ("old", "s")]
    return [events, streams, by_stream, [(key, opened.run(kv.get(key))) for key in keys], last]


def is_spoilt(opened: Store) -> bool:
    try:
        opened.run(log.streams())
    except StoreUnavailable as refusal:
        return "may hold half of something" in str(refusal)
    return False


def write(opened: Store, writes) -> str:
    """The outcome of writes, in a word."""
    try:
        opened.run(perform_one(writes) if len(writes) == 1 else transact(*writes))
    except UncertainOutcome:
        return "uncertain"
    except StoreUnavailable:
        return "nothing written"
    except MemoryError:
        return "no memory"
    except KeyboardInterrupt:
        return "interrupted"
    return "written"


def perform_one(writes):
    return (yield writes[0])


def at_each_line(make: Callable[[str], Store], writes, files, error=MemoryError):
    """Each line of a write with its outcome: where it was, the store, and what it showed before and should after."""
    with make("counted") as opened:
        fill(opened)
        before = shown(opened)
        with Interrupt(0, files) as counting:
            assert write(opened, writes) == "written"
        after = shown(opened)
    assert counting.count > 5
    for at in range(1, counting.count + 1):
        opened = make(str(at))
        fill(opened)
        with Interrupt(at, files, error) as interrupt:
            outcome = write(opened, writes)
        yield interrupt, outcome, opened, before, after


def is_right(interrupt: Interrupt, outcome: str, found, before, after) -> bool:
    """Whether an outcome says what is there."""
    if outcome == "no memory":
        file, _, rest = interrupt.place.partition(":")
        line = linecache.getline(file, int(rest.split()[0])).strip()
        return found == before or line.startswith(HANDS_ON)
    return found in {"written": [after], "nothing written": [before]}.get(outcome, [before, after])


@pytest.mark.parametrize("writes", WRITES.values(), ids=WRITES)
def test_a_file_store_that_is_out_of_memory_says_whether_it_may_have_written(writes, tmp_path):
    outcomes = set()
    for interrupt, outcome, opened, before, after in at_each_line(
        lambda name: Store(FileStore(tmp_path / name, segment_bytes=4096)), writes, FILE
    ):
        outcomes.add(outcome)
        place = opened.interpreter.path
        opened.close()
        with Store(FileStore(place, segment_bytes=4096)) as again:
            found = shown(again)
        assert is_right(interrupt, outcome, found, before, after), f"{interrupt.place}: {outcome}"
    assert {"uncertain", "nothing written"} <= outcomes


def test_a_commit_too_large_for_the_memory_refuses_itself_and_the_next_one_is_written(tmp_path, monkeypatch):
    def encode(*arguments):
        raise MemoryError

    with open_store(f"file:{tmp_path / 'store'}") as opened:
        with monkeypatch.context() as patch:
            patch.setattr(writer, "encode_frames", encode)
            with pytest.raises(StoreUnavailable, match="nothing was written: this process has not enough memory"):
                opened.run(log.append("s", "made", "large"))
        assert opened.run(log.append("s", "made", "small")).seq == 1


def test_writers_that_wait_behind_one_that_is_out_of_memory_have_errors_of_their_own():
    entered, go = threading.Event(), threading.Event()

    def commit(requests):
        if not entered.is_set():
            entered.set()
            go.wait()
        raise MemoryError

    gathered = GroupCommit(commit)
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.extend(gathered.write([APPEND]))) for _ in range(3)]
    for thread in threads:
        thread.start()
        entered.wait()
    go.set()
    for thread in threads:
        thread.join()
    errors = [outcome.error for outcome in outcomes]
    assert all(isinstance(error, UncertainOutcome) for error in errors)
    assert len(set(map(id, errors))) == 3


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("writes", WRITES.values(), ids=WRITES)
def test_a_memory_store_whose_write_is_cut_short_is_whole_or_of_no_use_any_more(writes, error):
    for interrupt, outcome, opened, before, after in at_each_line(
        lambda _: open_store("memory:"), writes, MEMORY, error
    ):
        where = f"{interrupt.place}: {outcome}"
        if is_spoilt(opened):
            assert outcome in {"uncertain", "interrupted"}, where
            assert len(writes) > 1, where
            assert write(opened, [APPEND]) == "nothing written", where
            opened.close()
            continue
        found = shown(opened)
        assert is_right(interrupt, outcome, found, before, after), where
        assert write(opened, [APPEND]) == "written", where


def test_whoever_waits_for_an_event_is_woken_when_a_memory_store_has_become_of_no_use(monkeypatch):
    opened = open_store("memory:")

    def put(key, value):
        raise MemoryError

    woken = threading.Event()
    opened.interpreter.watch(Wait(5), woken.set)
    monkeypatch.setattr(opened.interpreter, "_apply_put", put)
    assert write(opened, [APPEND, KvPut("color", "blue")]) == "uncertain"
    assert woken.is_set()


def test_writes_of_one_batch_are_all_told_where_memory_was_lacking_for_one_of_them(tmp_path):
    batch = [Append("s", (Draft("made", number),)) for number in range(3)]

    def commit(name: str, at: int) -> Interrupt:
        with Store(FileStore(tmp_path / name, segment_bytes=4096)) as opened:
            with Interrupt(at, (staging.__file__,), MemoryError) as interrupt:
                outcomes = opened.interpreter.answer_all(batch)
            refused = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
            assert all(isinstance(outcome.error, StoreUnavailable) for outcome in refused), interrupt.place
            assert len(refused) == (len(batch) if interrupt.place else 0), interrupt.place
            assert opened.run(log.append("s", "made", "next")).seq == len(batch) - len(refused) + 1, interrupt.place
        return interrupt

    counted = commit("counted", 0)
    for at in range(1, counted.count + 1):
        commit(str(at), at)
