"""A process that has a store on PostgreSQL open, and says by lines what it has done.

`python postgres_child.py URL write NAME` writes to a stream of its own and to one of all, until it is killed.
`… fork` forks once, `… fork-under-load ROUNDS` while a thread writes, and `… interrupted` writes on after each Ctrl-C.
"""

import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from interpreters import Store, open_store
from persist_effects import Conflict, Draft, kv, log, transact
from persist_effects.requests import Append, KvPut


def say(line: object) -> None:
    """In one step, so that no interrupt leaves a half of it."""
    os.write(1, f"{line}\n".encode())


def write(store: Store, name: str) -> None:
    number = store.run(log.last_seq(f"own/{name}"))
    while True:
        # What another of this name had under way when it was killed may still come.
        answer = store.run(
            transact(
                Append(f"own/{name}", (Draft("made", number),), number),
                Append("all", (Draft("made", [name, number]),)),
                KvPut(f"last/{name}", number),
            )
        )
        if not isinstance(answer, Conflict):
            say(number)
        number += 1


def in_child(act: Callable[[], None]) -> int:
    """Do something in a fork, and return its process; it must not go on as its parent, whatever happens."""
    number = os.fork()
    if number:
        return number
    try:
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(number: int) -> bool:
    return os.waitpid(number, 0)[1] == 0


def fork(store: Store) -> None:
    before = store.run(log.append("s", "made", "before"))
    # With a courier, which a child must not share.
    store.run(kv.put("k/parent", 0))
    waiting = threading.Thread(target=lambda: store.run(log.wait(before.position, "s", timeout=120)))
    waiting.start()
    woken, wake = os.pipe()

    def act() -> None:
        assert store.run(log.last_seq("s")) == 1
        event = store.run(log.append("s", "made", "child"))
        store.run(kv.put("k/child", 1))
        assert store.run(log.read("s"))[-1].data == "child"
        say("child")
        os.write(wake, b"\0")
        # By what the parent writes.
        assert store.run(log.wait(event.position, "s", timeout=120)) > event.position
        say("waited for")
        store.close()

    child = in_child(act)
    os.read(woken, 1)
    store.run(log.append("s", "made", "parent"))
    store.run(kv.put("k/parent", 1))
    assert ended(child)
    waiting.join()
    store.run(log.append("s", "made", "after"))
    say("parent")


class _Writing:
    """A thread that writes numbers until it is ended."""

    def __init__(self, store: Store) -> None:
        self.count = 0
        self._is_over = False
        self._store = store
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def go_on(self, by: int) -> None:
        """Return when it has written so many more."""
        with self._change:
            wanted = self.count + by
            assert self._change.wait_for(lambda: self.count >= wanted, 120)

    def end(self) -> None:
        self._is_over = True
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over:
            self._store.run(log.append("thread", "made", self.count))
            with self._change:
                self.count += 1
                self._change.notify_all()


def fork_under_load(store: Store, rounds: int) -> None:
    writing = _Writing(store)

    def act(stream: str) -> None:
        for number in range(10):
            store.run(log.append(stream, "made", number))
        assert [event.data for event in store.run(log.read(stream))] == list(range(10))

    for number in range(rounds):
        writing.go_on(3)
        child = in_child(lambda number=number: act(f"child/{number}"))
        writing.go_on(3)
        assert ended(child)
    writing.end()
    say(writing.count)


def interrupted(store: Store) -> None:
    is_over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_over.set())
    number = 0
    while not is_over.is_set():
        try:
            while not is_over.is_set():
                store.run(log.append_once("s", str(number), "made", number))
                say(number)
                number += 1
        except KeyboardInterrupt:
            say("interrupted")
    say(json.dumps([event.data for event in store.run(log.read("s"))]))


def main() -> None:
    url, part, *arguments = sys.argv[1:]
    parts: dict[str, Callable[..., Any]] = {"write": write, "fork": fork, "interrupted": interrupted}
    with open_store(url) as store:
        if part == "fork-under-load":
            fork_under_load(store, int(arguments[0]))
        else:
            parts[part](store, *arguments)


if __name__ == "__main__":
    # That there are threads when it forks is what is shown.
    warnings.simplefilter("ignore", DeprecationWarning)
    main()
