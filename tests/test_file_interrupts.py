"""Ctrl-C between any two steps of a thread that uses a file store: the others go on, and nothing is believed wrongly.

The interrupt is raised where Python would raise it, before a line, by a trace function: so each line has its turn.
"""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from interpreters import Store
from interpreters.file import engine, group, index, queries, reader, staging, store, writer
from interpreters.file import log as segments
from interpreters.file.store import FileStore
from persist_effects import StoreUnavailable, kv, log

LONG_SECONDS = 60.0
FILES = tuple(module.__file__ for module in (engine, group, index, queries, reader, segments, staging, store, writer))


class Interrupt:
    """Raises KeyboardInterrupt before the ``at``-th line that this thread runs of the files under test."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0
        self.place = ""

    def __enter__(self) -> "Interrupt":
        sys.settrace(self._calls)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(None)

    def _calls(self, frame, event, argument):
        return self._lines if frame.f_code.co_filename in FILES else None

    def _lines(self, frame, event, argument):
        if event == "line" and not self._is_seamless(frame):
            self.count += 1
            if self.count == self.at:
                self.place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
                raise KeyboardInterrupt
        return self._lines

    def _is_seamless(self, frame) -> bool:
        """Whether Python does not look for signals before the line: it only enters or leaves a block."""
        with open(frame.f_code.co_filename) as source:
            line = source.readlines()[frame.f_lineno - 1].strip()
        return line == "try:" or line.startswith("with ")


def lines_of(use: Callable[[Store], object], path) -> int:
    """How many places there are."""
    with Store(FileStore(path)) as opened:
        opened.run(kv.put("color", "red"))
        with Interrupt(0) as interrupt:
            use(opened)
    return interrupt.count


@pytest.mark.parametrize(
    "use",
    [lambda opened: opened.run(log.append("s", "made", "mine")), lambda opened: opened.run(kv.get("color"))],
    ids=["writing", "reading"],
)
def test_whichever_line_an_interrupt_comes_at_the_other_threads_go_on(use, tmp_path):
    places = lines_of(use, tmp_path / "counted")
    assert places > 12
    for at in range(1, places + 1):
        opened = Store(FileStore(tmp_path / str(at)))
        opened.run(kv.put("color", "red"))
        try:
            with Interrupt(at) as interrupt:
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
