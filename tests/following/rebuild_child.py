"""A process that takes part in a rebuild until it is done, or killed: `python rebuild_child.py ORDER`, as JSON.

An order says the store's ``url``, whether it is this process that ``rebuilds`` and whether it ``loads`` the store with
writers and readers meanwhile, how many events are a ``batch``, the ``seed`` of what is drawn, and what readers have
``seen``. One that only loads goes on until its stdin ends. What happens is told on stdout, a line for each:

- ``before PHASE NUMBER`` and ``after PHASE NUMBER``: a transaction of the follower, and that it is there. ``build`` and
  ``follow`` with the position reached, ``take-over``, and ``drop`` with how many keys are deleted;
- ``begins POSITION``: the first event that is handled;
- ``seen READER POSITION`` and ``took READER SECONDS``: how far a reader has seen the model, and its longest read;
- ``outdated``: the version before was told that it is; ``failed WORDS``; ``done``.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any

from rebuilt import AFTER, MODEL, filled, go_on_as_before, read, write

from interpreters import Store, open_store
from persist_effects import run
from persist_effects.following.records import head_key, next_key
from persist_effects.machine import Handlers
from persist_effects.requests import Conflict, KvDelete, KvPut, Transact

WRITERS = READERS = 4


def main() -> None:
    order = json.loads(sys.argv[1])
    with open_store(order["url"]) as store, ExitStack() as stack:
        if order["loads"]:
            stack.enter_context(loaded(store, order))
        if order["rebuilds"]:
            reached = run(filled(AFTER, order["batch"], say), telling(store.handlers))
            say("done", reached)
        else:
            say("loads")
            sys.stdin.read()


def say(*words: object) -> None:
    """One call for a line, so that lines of several threads stay whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


# The load


@contextmanager
def loaded(store: Store, order: dict[str, Any]):
    """Writers, readers and the version before, each a thread."""
    is_over = threading.Event()
    seen = order["seen"]
    jobs = [lambda number=number: write(store, drawn(order, "w", number), is_over) for number in range(WRITERS)]
    jobs += [
        lambda number=number: read(store, drawn(order, "r", number), is_over, seen, say, number)
        for number in range(READERS)
    ]
    jobs.append(lambda: go_on_as_before(store, is_over, say))
    threads = [threading.Thread(target=told_where_it_fails, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def drawn(order: dict[str, Any], *names: object) -> Random:
    return Random(" ".join(map(str, (order["seed"], *names))))


def told_where_it_fails(job: Callable[[], None]) -> None:
    try:
        job()
    except Exception:
        say("failed", json.dumps(traceback.format_exc()))


# What the follower does


def telling(rows: Handlers) -> Handlers:
    """The same rows, which tell of each transaction of the follower before and after."""

    def transact(request: Transact) -> Any:
        step = step_of(request)
        say("before", *step)
        answer = rows[Transact](request)
        if not isinstance(answer, Conflict):
            say("after", *step)
        return answer

    return {**rows, Transact: transact}


def step_of(request: Transact) -> tuple[str, int]:
    """Which phase of a rebuild a transaction is of, and its number."""
    first, *others = request.writes
    if isinstance(first, KvDelete):
        return "drop", len(request.writes)
    assert isinstance(first, KvPut), first
    if first.key == next_key(MODEL.name):
        return "build", first.value["position"]
    if others and isinstance(others[0], KvDelete):
        return "take-over", 0
    if others and isinstance(others[0], KvPut) and others[0].key == next_key(MODEL.name):
        return "begin", 0
    assert first.key == head_key(MODEL.name), first
    return "follow", first.value["position"]


if __name__ == "__main__":
    main()
