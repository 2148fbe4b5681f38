"""Ctrl-C between any two steps of a thread that uses a file store: the others go on, and believe nothing wrong."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from interrupts import Interrupt, InterruptInside

from interpreters import Store
from interpreters.disk import requests as disk
from interpreters.stores import group
from interpreters.stores.file import engine, frames, index, queries, segments, staging, store, values, writer
from interpreters.stores.file.store import FileStore
from interpreters.stores.group import GroupCommit
from interpreters.threads import gates
from persist_effects import StoreUnavailable, UncertainOutcome, kv, log

pytestmark = pytest.mark.exploration

LONG_SECONDS = 60.0
FILES = tuple(
    module.__file__ for module in (engine, frames, group, index, queries, segments, staging, store, values, writer)
)


def lines_of(use: Callable[[Store], object], path) -> int:
    """How many places there are."""
    with Store(FileStore(path)) as opened:
        opened.run(kv.put("color", "red"))
        with Interrupt(0, FILES) as interrupt:
            use(opened)
    return interrupt.count


@pytest.mark.parametrize(
    "use",
    [
        lambda opened: opened.run(log.append("s", "made", "mine")),
        lambda opened: opened.run(log.last_seq("s")),
        lambda opened: opened.run(kv.get("color")),
    ],
    ids=["writing", "reading", "getting"],
)
def test_whichever_line_an_interrupt_comes_at_the_other_threads_go_on(use, tmp_path):
    places = lines_of(use, tmp_path / "counted")
    assert places > 12
    for at in range(1, places + 1):
        opened = Store(FileStore(tmp_path / str(at)))
        opened.run(kv.put("color", "red"))
        try:
            with Interrupt(at, FILES) as interrupt:
                use(opened)
        except KeyboardInterrupt:
            outcome = "interrupted"
        else:
            outcome = "went on"
        where = f"interrupt at {interrupt.place}, {outcome}"
        # Where it came in the middle of a commit, the store wants to be opened anew: in the middle of the index's
        # change, to read too.
        in_index = (index.__file__,) if outcome == "interrupted" else ()
        assert in_time(lambda opened=opened: read(opened)) == "red" or interrupt.place.startswith(in_index), where
        assert in_time(lambda opened=opened: written(opened)) in (True, "open it again"), where
        in_time(opened.close)
        with Store(FileStore(tmp_path / str(at))) as again:
            events = again.run(log.read("s"))
            assert [event.seq for event in events] == list(range(1, len(events) + 1)), where
            assert [event.data for event in events].count("mine") <= 1, where


def read(opened: Store):
    try:
        return opened.run(kv.get("color"))
    except StoreUnavailable:
        return "open it again"


def written(opened: Store):
    try:
        event = opened.run(log.append("s", "made", "another's"))
    except StoreUnavailable:
        return "open it again"
    return opened.run(log.read("s", after=event.seq - 1))[0].data == "another's"


def in_time(use: Callable[[], object]) -> object:
    """What it gives in another thread, which must not wait for ever."""
    given: Future[object] = Future()

    def work():
        try:
            given.set_result(use())
        except BaseException as error:
            given.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return given.result(LONG_SECONDS)


# An interrupt while another is dealt with


def interrupted_again_at(monkeypatch, holder: object, name: str):
    """Have the next call of a method interrupted before it has done anything."""
    real = getattr(holder, name)
    left = [KeyboardInterrupt]

    def call(*arguments, **options):
        if left:
            raise left.pop()
        return real(*arguments, **options)

    monkeypatch.setattr(holder, name, call)


def test_an_interrupt_while_another_one_is_noted_ends_the_writing_too(tmp_path, monkeypatch):
    opened = FileStore(tmp_path / "store")
    monkeypatch.setitem(opened._disk_rows, disk.Sync, interrupting(opened._disk_rows[disk.Sync]))
    interrupted_again_at(monkeypatch, opened._engine.log, "poison")
    with pytest.raises(KeyboardInterrupt):
        Store(opened).run(log.append("s", "made", "uncertain"))
    with pytest.raises(StoreUnavailable, match=r"a commit was interrupted.*open it again"):
        Store(opened).run(log.append("s", "made", "after it"))
    opened.close()
    with Store(FileStore(tmp_path / "store")) as again:
        assert [event.data for event in again.run(log.read("s"))] in ([], ["uncertain"])


def interrupting(row):
    """A row whose first call is carried out, and then interrupted."""
    left = [KeyboardInterrupt]

    def call(request):
        answer = row(request)
        if left:
            raise left.pop()
        return answer

    return call


def test_whoever_a_twice_interrupted_thread_committed_for_is_told(monkeypatch):
    def commit(requests):
        raise KeyboardInterrupt

    commits = GroupCommit(commit)
    waiting = group._Party(["write"])
    commits._waiting = [waiting]
    interrupted_again_at(monkeypatch, commits, "_settle")
    with pytest.raises(KeyboardInterrupt):
        commits.write(["write"])
    with pytest.raises(KeyboardInterrupt):
        in_time(lambda: commits.write(["the next"]))
    (outcome,) = waiting.outcomes
    assert isinstance(outcome.error, UncertainOutcome)
    assert "the thread that committed was interrupted" in str(outcome.error)
    assert not waiting.gate.locked()


def test_a_gate_opens_after_an_interrupt_at_any_step_of_opening_it():
    files = (gates.__file__, contextlib.__file__, threading.__file__)
    with InterruptInside(0, files) as counting:
        gates.Gate().open()
    assert counting.firsts
    for at in counting.firsts.values():
        gate = gates.Gate()
        with contextlib.suppress(KeyboardInterrupt), InterruptInside(at, files):
            gate.open()
        in_time(gate.open)
        assert in_time(lambda gate=gate: gate.wait(LONG_SECONDS)), at
