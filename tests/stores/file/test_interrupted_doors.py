"""Ctrl-C between any two lines of opening and closing a store: it can be opened again in the same process.

No lock, descriptor, thread or process is left. What was acknowledged before is there.
"""

import contextlib
import gc
import os
import sys
import threading
import warnings
from pathlib import Path

import msgspec
import pytest
from interrupts import Interrupt, InterruptInside
from server_processes import child_processes

import interpreters.stores.file as file_room
from interpreters import Store, open_store, opening
from interpreters.disk import real as real_disk
from interpreters.runtime import store as store_room
from interpreters.stores.file import store as file_store
from interpreters.stores.served import RemoteStore, client, doors, line
from interpreters.stores.served.wire import WIRE_VERSION
from persist_effects import kv

LONG_SECONDS = 60
SMALL = "segment_bytes=4096"
"""Of which a recovery reads little."""

FILES = (opening.__file__, store_room.__file__, file_room.__file__, file_store.__file__, real_disk.__file__)
SERVED = (opening.__file__, store_room.__file__, client.__file__, doors.__file__, line.__file__)


def left_behind() -> tuple[set[threading.Thread], int]:
    """The threads of this process, and how many descriptors it has."""
    gc.collect()
    return set(threading.enumerate()), len(os.listdir("/dev/fd"))


def is_as_before(before: tuple[set[threading.Thread], int]) -> bool:
    for thread in set(threading.enumerate()) - before[0]:
        # It has been told to end, and does.
        thread.join(LONG_SECONDS)
    threads, descriptors = left_behind()
    # What earlier tests left may end meanwhile.
    return threads <= before[0] and descriptors <= before[1]


@pytest.fixture(autouse=True)
def tidy():
    """What earlier tests left is gone before what this one leaves is looked for, and what stays is not looked at."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with open_store(f"file:{tmp_path / 'store'}?{SMALL}") as store:
        store.run(kv.put("color", "red"))
    return tmp_path / "store"


def sweep(use, files):
    """Interrupt a use at each line in turn, as it comes for the first time. Gives where, after each."""
    with Interrupt(0, files) as counting:
        use()
    assert len(counting.firsts) > 10
    for at in counting.firsts.values():
        with warnings.catch_warnings():
            # One that was on its way to whoever opened it is nobody's, and says so.
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                with Interrupt(at, files) as interrupt:
                    use()
            except KeyboardInterrupt:
                pass
            else:
                # The last ones may be of lines that do not come each time, such as those of a thread's waiting.
                assert not interrupt.place, f"the interrupt at {interrupt.place} was lost"
            yield interrupt.place


@pytest.mark.exploration
@pytest.mark.parametrize("options", ["?" + SMALL, "?mode=r"])
def test_an_interrupt_anywhere_while_a_file_store_is_opened_leaves_nothing_behind(path, options):
    before = left_behind()
    opened = []

    def use():
        opened.append(open_store(f"file:{path}{options}"))
        opened.pop().close()

    for place in sweep(use, FILES):
        # Opened before anything is collected by hand.
        with open_store(f"file:{path}?{SMALL}") as again:
            assert again.run(kv.get("color")) == "red", place
        if opened:
            opened.pop().close()
        assert is_as_before(before), place


@pytest.mark.exploration
def test_after_an_interrupt_anywhere_in_closing_it_the_store_can_be_closed_again_and_then_opened(path):
    before = left_behind()
    opened = [open_store(f"file:{path}?{SMALL}")]

    def use():
        opened[-1].close()

    for place in sweep(use, FILES):
        # Whoever still has it closes it again.
        opened[-1].close()
        with open_store(f"file:{path}?{SMALL}") as again:
            assert again.run(kv.get("color")) == "red", place
        opened[:] = []
        assert is_as_before(before), place
        opened[:] = [open_store(f"file:{path}?{SMALL}")]
    opened[0].close()


@pytest.mark.exploration
def test_after_two_interrupts_anywhere_in_closing_it_the_store_can_be_closed_again_and_then_opened(path, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    def closed_with(interrupt):
        store = open_store(f"file:{path}?{SMALL}")
        with monkeypatch.context() as patch:
            # The first one comes when it is about to seal the log.
            patch.setattr(store.interpreter, "_seal_and_let_go", interrupted)
            with contextlib.suppress(KeyboardInterrupt), interrupt:
                store.close()
        return store

    counting = InterruptInside(0, FILES)
    closed_with(counting).close()
    assert len(counting.firsts) > 10
    for place, at in counting.firsts.items():
        store = closed_with(InterruptInside(at, FILES))
        in_time(store.close, place)
        with open_store(f"file:{path}?{SMALL}") as again:
            assert again.run(kv.get("color")) == "red", place


def in_time(use, place):
    """Done in another thread, which must not wait for ever."""
    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(LONG_SECONDS)
    assert not thread.is_alive(), place


@pytest.fixture
def quick_server(tmp_path, monkeypatch):
    """In the place of a process that serves: one that says that the store is open, and ends when its stdin does."""
    script = tmp_path / "serve"
    body = msgspec.msgpack.encode([0, True, {"wire": WIRE_VERSION, "capabilities": None}])
    greeting = "".join(f"\\{byte:03o}" for byte in len(body).to_bytes(4, "big") + body)
    script.write_text(f"#!/bin/sh\nprintf '{greeting}' >&0\nexec cat >/dev/null\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.exploration
def test_an_interrupt_anywhere_while_a_process_is_spawned_leaves_none_behind(quick_server):
    before, children = left_behind(), child_processes()
    opened = []

    def use():
        opened.append(RemoteStore.spawn("memory:"))
        opened[-1].close()
        opened.pop()

    for place in sweep(use, SERVED):
        if opened:
            opened.pop().close()
        assert is_as_before(before), place
        # Others are servers that tests before this one were in need of, and may end meanwhile.
        assert child_processes() <= children, place


@pytest.mark.exploration
def test_an_interrupt_anywhere_while_a_served_store_is_closed_leaves_nothing_behind(quick_server):
    before, children = left_behind(), child_processes()
    opened = [Store(RemoteStore.spawn("memory:"))]
    for place in sweep(lambda: opened[-1].close(), SERVED):
        opened.pop().close()
        assert is_as_before(before), place
        # Others are servers that tests before this one were in need of, and may end meanwhile.
        assert child_processes() <= children, place
        opened.append(Store(RemoteStore.spawn("memory:")))
    opened.pop().close()
