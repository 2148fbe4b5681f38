"""A process that takes part in a rebuild until it is done, or killed: `python rebuild_child.py ORDER`, as JSON.

An order says the store's ``url``, whether it is this process that ``rebuilds`` and whether it ``loads`` the store with
writers and readers meanwhile, how many events are a ``batch``, the ``seed`` of what is drawn, what readers have
``seen``, and at which ``point`` the process is to be killed: in which phase, after how many events or keys of it, and
whether before the transaction that comes to it. There it says so, and goes no further than that one transaction. One
that only loads goes on until its stdin ends. What happens is told on stdout, a line for each:

- ``PHASE COUNT POSITION``: a transaction of the follower took place: ``build`` with its events and the position that
  they reach, ``take-over``, ``drop`` with its keys, and ``follow`` once it has taken over;
- ``point PHASE``: it is to be killed;
- ``begins POSITION``: the first event that is handled;
- ``seen READER POSITION`` and ``took READER SECONDS``: how far a reader has seen the model, and its longest read;
- ``outdated``: the version before was told that it is; ``failed WORDS``; ``done``.
"""

import json
import os
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any, NamedTuple

from rebuilt import AFTER, MODEL, PHASES, filled, go_on_as_before, read, write

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
            reached = run(filled(AFTER, order["batch"], say), telling(store.handlers, order["point"]))
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
        lambda number=number: read(store, drawn(order, "r", number), is_over, seen, say_of(number))
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


def say_of(number: int) -> Callable[..., None]:
    return lambda word, *words: say(word, number, *words)


def drawn(order: dict[str, Any], *names: object) -> Random:
    return Random(" ".join(map(str, (order["seed"], *names))))


def told_where_it_fails(job: Callable[[], None]) -> None:
    try:
        job()
    except Exception:
        say("failed", json.dumps(traceback.format_exc()))


# What the follower does


class Step(NamedTuple):
    """A transaction of the follower: in which phase, of how many events or keys, and which position it reaches."""

    phase: str
    count: int
    position: int


def telling(rows: Handlers, point: tuple[str, int, bool] | None) -> Handlers:
    """The same rows, which tell of each transaction of the follower, and go no further than a point."""
    counts = Counter[str]()

    def is_at_point(step: Step) -> bool:
        if point is None or step.phase not in PHASES:
            return False
        here = PHASES.index(step.phase), counts[step.phase] + step.count
        return here >= (PHASES.index(point[0]), point[1])

    def transact(request: Transact) -> Any:
        step = step_of(request)
        is_last = is_at_point(step)
        if point is not None and is_last:
            say("point", step.phase)
            if point[2]:
                threading.Event().wait()
        answer = rows[Transact](request)
        if not isinstance(answer, Conflict):
            counts[step.phase] += step.count
            say(*step)
        if is_last:
            threading.Event().wait()
        return answer

    return {**rows, Transact: transact}


def step_of(request: Transact) -> Step:
    first, *others = request.writes
    if isinstance(first, KvDelete):
        return Step("drop", len(request.writes), 0)
    assert isinstance(first, KvPut), first
    if first.key == next_key(MODEL.name):
        # Of each event there are two writes.
        return Step("build", len(others) // 2, first.value["position"])
    if others and isinstance(others[0], KvDelete):
        return Step("take-over", 1, first.value["position"])
    if others and others[0] == KvPut(next_key(MODEL.name), others[0].value, 0):
        return Step("begin", 1, 0)
    assert first.key == head_key(MODEL.name), first
    return Step("follow", len(others) // 2, first.value["position"])


if __name__ == "__main__":
    main()
