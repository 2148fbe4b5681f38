"""Ctrl-C between any two steps of a thread that uses a store on a database: others go on, and nothing is doubled."""

from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from interrupts import Interrupt
from postgres_server import new_store_url

from interpreters import open_store
from interpreters.disk import turns
from interpreters.stores import group, grouped
from interpreters.stores.postgres import batches, pool, questions, server
from interpreters.stores.postgres import store as postgres
from interpreters.stores.sqlite import database, reading, writing
from interpreters.stores.sqlite import store as sqlite
from persist_effects import Draft, kv, log, transact
from persist_effects.requests import Append, KvPut

pytestmark = pytest.mark.exploration

LONG_SECONDS = 60.0

SHARED = (group, grouped)
MODULES = {
    "sqlite": (*SHARED, turns, sqlite, database, reading, writing),
    "postgresql": (*SHARED, postgres, server, pool, questions, batches),
}

USES: dict[str, Any] = {
    "an append": lambda opened: opened.run(log.append("s", "made", "mine")),
    "a transaction": lambda opened: opened.run(transact(Append("s", (Draft("made", "mine"),)), KvPut("k", 1))),
    "a read": lambda opened: opened.run(log.last_seq("s")),
    "a page": lambda opened: opened.run(log.page_all()),
    "a wait": lambda opened: opened.run(log.wait(0, "s", timeout=0)),
}


def url_of(scheme: str, directory: Path) -> str:
    return new_store_url(sync="interval") if scheme == "postgresql" else f"sqlite:{directory}/app.db?sync=os"


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("scheme", MODULES)
def test_whichever_line_an_interrupt_comes_at_other_threads_read_and_write_on(scheme, use, tmp_path):
    files = tuple(module.__file__ for module in MODULES[scheme])
    url = url_of(scheme, tmp_path)
    with open_store(url) as opened:
        opened.run(kv.put("color", "red"))
        with Interrupt(0, files) as counted:
            USES[use](opened)
        assert counted.count > 12
        for at in range(1, counted.count + 1):
            before = opened.run(log.last_seq("s"))
            try:
                with Interrupt(at, files) as interrupt:
                    USES[use](opened)
            except KeyboardInterrupt:
                outcome = "interrupted"
            else:
                outcome = "went on"
            where = f"{scheme}, {use}: interrupt at {interrupt.place}, {outcome}"
            assert in_time(lambda: opened.run(kv.get("color"))) == "red", where
            event: Any = in_time(lambda: opened.run(log.append("s", "made", "another's")))
            # What was interrupted is there once, or not at all.
            assert event.seq - before in (1, 2), where
            assert event.seq == opened.run(log.last_seq("s")), where
    with open_store(url) as again:
        events = again.run(log.read("s"))
        assert [each.seq for each in events] == list(range(1, len(events) + 1))


def in_time(use: Any) -> object:
    """What it gives in another thread, which must not wait for ever."""
    given: Future[object] = Future()

    def work() -> None:
        try:
            given.set_result(use())
        except BaseException as error:
            given.set_exception(error)

    Thread(target=work, daemon=True).start()
    return given.result(LONG_SECONDS)
