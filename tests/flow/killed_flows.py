"""Flows that are run while their hosts are killed, and what each of them must have come to.

Each appends its effects to a stream of its own, and each activity notes itself in a file that is named as its key.
"""

import os
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from persist_effects import Effect, flow, kv, log
from persist_effects.following.handling import Retry

EFFECTS = "effects/"
COUNT = "count"
"""A key that flows count up, each once or some times: they meet there."""

PLACE = "FLOW_NOTES"
"""Where activities note themselves: a directory, named by the environment."""

SOON = 0.02
STEPS = 10


def note(key: str, *what: Any) -> int:
    """Add a line to the file of a key. Returns how many there are."""
    path = Path(os.environ[PLACE], quote(key, safe=""))
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    try:
        os.write(descriptor, (repr(what) + "\n").encode())
    finally:
        os.close(descriptor)
    return len(path.read_text().splitlines())


# Activities


@flow.activity(repeat="keyed")
def weigh(flow_id: str, number: int, *, key: str) -> int:
    note(key, "weigh", flow_id, number)
    return number + 1


@flow.activity(repeat="keyed", retry=Retry(times=1000, wait_seconds=SOON, factor=1))
def knock(flow_id: str, number: int, *, key: str) -> str:
    """Answers every second time."""
    if note(key, "knock", flow_id, number) % 2:
        raise ConnectionError("nobody is there")
    return f"who is at {number}?"


@flow.activity(repeat="keyed")
async def book(flow_id: str, number: int, *, key: str) -> None:
    note(key, "book", flow_id, number)


@flow.activity(repeat="keyed")
def unbook(flow_id: str, number: int, *, key: str) -> None:
    note(key, "unbook", flow_id, number)


ACTIVITIES = (weigh, knock, book, unbook)


# Flows


def _append(flow_id: str, *data: Any) -> Effect[Any]:
    return log.append(EFFECTS + flow_id, "did", list(data))


def _count() -> Effect[int]:
    return kv.update(COUNT, lambda before: before + 1, 0)


def stepping(flow_id: str):
    total = 0
    for number in range(STEPS):
        total += yield from flow.call(weigh, flow_id, number)
        yield from _append(flow_id, number, total)
    yield from _count()
    return total


def _booked(flow_id: str, number: int):
    yield from flow.call(book, flow_id, number)
    yield from _append(flow_id, "booked", number)


def _unbooked(flow_id: str, number: int):
    yield from flow.call(unbook, flow_id, number)
    yield from _append(flow_id, "unbooked", number)


def _trip(flow_id: str, end: Callable[[], Effect[Any]], saga: flow.Saga):
    for number in range(3):
        yield from saga.step(_booked(flow_id, number), undo=partial(_unbooked, flow_id, number))
    yield from end()
    raise LookupError("no more tickets")


def failing(flow_id: str):
    yield from flow.saga(partial(_trip, flow_id, _count))


def cancelled(flow_id: str):
    yield from flow.saga(partial(_trip, flow_id, lambda: flow.signal("which nobody sends")))


def ticking(flow_id: str):
    for number in range(3):
        yield from flow.sleep(SOON * number)
        yield from _append(flow_id, number)
    place, _ = yield from flow.first_of(flow.signal("go"), flow.sleep(3600))
    yield from _append(flow_id, "won", place)
    try:
        yield from flow.signal("which nobody sends", timeout=SOON)
    except TimeoutError:
        yield from _append(flow_id, "late")


def told(flow_id: str):
    # One that was sent by a host that then was killed may have been sent again.
    heard = set()
    while len(heard) < 3:
        number = yield from flow.signal("number", returns=int)
        if number not in heard:
            heard.add(number)
            yield from _append(flow_id, "heard")
    return sorted(heard)


def family(flow_id: str):
    sums = yield from flow.all_of(*(flow.child(leaf, f"{flow_id}.{number}") for number in range(2)))
    alone = yield from flow.child(leaf, f"{flow_id}.2")
    yield from _append(flow_id, *sums, alone)
    return alone


def leaf(flow_id: str):
    weight = yield from flow.call(weigh, flow_id, 7)
    yield from _append(flow_id, weight)
    yield from _count()
    return weight


def fanning(flow_id: str):
    answers = yield from flow.all_of(*(flow.call(knock, flow_id, number) for number in range(5)))
    yield from _append(flow_id, *answers)
    return len(answers)


def renewed(flow_id: str, left: int = 3):
    yield from flow.call(weigh, flow_id, left)
    yield from _append(flow_id, left)
    yield from _count()
    if left:
        flow.continue_as_new(flow_id, left - 1)
    return left


FLOWS = (stepping, failing, cancelled, ticking, told, family, leaf, fanning, renewed)


# What they must have come to


class Expected(NamedTuple):
    """What a flow comes to.

    ``effects`` are those of each stream, ``calls`` the activities with their arguments, ``counts`` how often it counts.
    """

    state: str
    result: Any
    effects: dict[str, list[Any]]
    calls: list[tuple[Any, ...]]
    counts: int = 0
    commands: tuple[list[Any], ...] = ()
    """What others must tell it, so that it ends."""


def _of_stepping(name: str) -> Expected:
    totals = [(number + 1) * (number + 2) // 2 for number in range(STEPS)]
    effects = [[number, total] for number, total in enumerate(totals)]
    return Expected("completed", totals[-1], {name: effects}, [("weigh", name, each) for each in range(STEPS)], 1)


def _of_trip(state: str, counts: int, commands: tuple[list[Any], ...], name: str) -> Expected:
    effects = [["booked", each] for each in range(3)] + [["unbooked", each] for each in (2, 1, 0)]
    calls = [(what, name, each) for what in ("book", "unbook") for each in range(3)]
    return Expected(state, None, {name: effects}, calls, counts, commands)


def _of_cancelled(name: str) -> Expected:
    return _of_trip("cancelled", 0, (["cancel", name],), name)


def _of_ticking(name: str) -> Expected:
    effects = [[0], [1], [2], ["won", 0], ["late"]]
    return Expected("completed", None, {name: effects}, [], 0, (["send", name, "go", None],))


def _of_told(name: str) -> Expected:
    commands = tuple(["send", name, "number", each] for each in range(3))
    return Expected("completed", [0, 1, 2], {name: [["heard"]] * 3}, [], 0, commands)


def _of_family(name: str) -> Expected:
    leaves = [f"{name}.{each}" for each in range(3)]
    effects = {name: [[8, 8, 8]], **{each: [[8]] for each in leaves}}
    return Expected("completed", 8, effects, [("weigh", each, 7) for each in leaves], 3)


def _of_fanning(name: str) -> Expected:
    effects = [[f"who is at {each}?" for each in range(5)]]
    return Expected("completed", 5, {name: effects}, [("knock", name, each) for each in range(5)])


def _of_renewed(name: str) -> Expected:
    left = [3, 2, 1, 0]
    return Expected("completed", 0, {name: [[each] for each in left]}, [("weigh", name, each) for each in left], 4)


KINDS: dict[str, Callable[[str], Expected]] = {
    "stepping": _of_stepping,
    "failing": partial(_of_trip, "failed", 1, ()),
    "cancelled": _of_cancelled,
    "ticking": _of_ticking,
    "told": _of_told,
    "family": _of_family,
    "fanning": _of_fanning,
    "renewed": _of_renewed,
}


# The judgement


def judge_flows(store: Any, flows: Iterable[tuple[str, str]], notes: Path, written: Iterable[Path]) -> list[str]:
    """Look at all that flows have done.

    Args:
        store: The store.
        flows: Their ids, and of which kind each is.
        notes: Where their activities noted themselves.
        written: Files that say which entries of journals were written, a line ``STREAM SEQ TOKEN`` for each.

    Returns:
        What is wrong.
    """
    expected = {flow_id: KINDS[kind](flow_id) for flow_id, kind in flows}
    counts = sum(each.counts for each in expected.values())
    return [
        *chain.from_iterable(_problems_of(store, flow_id, each) for flow_id, each in expected.items()),
        *_problems_of_calls(expected.values(), notes),
        *_problems_of_journals(written),
        *([] if store.run(kv.get_or(COUNT, 0)) == counts else [f"{COUNT} is not {counts}"]),
    ]


def _problems_of(store: Any, flow_id: str, expected: Expected) -> Iterable[str]:
    found = store.run(flow.outcome(flow_id))
    if found is None or (found.state, found.value) != (expected.state, expected.result):
        yield f"{flow_id}: {found}, and not {expected.state}, {expected.result}"
    if expected.state == "failed" and not (found and isinstance(found.error, LookupError)):
        yield f"{flow_id}: {found}, and no LookupError"
    for name, effects in expected.effects.items():
        there = [event.data for event in store.run(log.read(EFFECTS + name))]
        if not (is_undone(there) if expected.state == "cancelled" else there == effects):
            yield f"{flow_id}: effects of {name}: {there}, and not {effects}"


def is_undone(effects: list[Any]) -> bool:
    """Whether what was booked was unbooked, the last first. One may have been cancelled before it was booked."""
    booked = [number for what, number in effects if what == "booked"]
    unbooked = [number for what, number in effects if what == "unbooked"]
    in_order = [["booked", each] for each in booked] + [["unbooked", each] for each in unbooked]
    midway = [*booked, len(booked)]
    return effects == in_order and booked == list(range(len(booked))) and unbooked[::-1] in (booked, midway)


def _problems_of_calls(expected: Iterable[Expected], notes: Path) -> Iterable[str]:
    keys: dict[str, str] = {}
    for path in notes.iterdir():
        whats = set(path.read_text().splitlines())
        # It is empty where a host was killed between making it and writing to it.
        if len(whats) > 1:
            yield f"key {path.name} was handed to {sorted(whats)}"
        for what in whats:
            if keys.setdefault(what, path.name) != path.name:
                yield f"{what} was handed the keys {path.name} and {keys[what]}"
    certain = {repr(call) for each in expected if each.state != "cancelled" for call in each.calls}
    possible = {repr(call) for each in expected for call in each.calls}
    yield from (f"{call} was not run" for call in sorted(certain - keys.keys()))
    yield from (f"{call} was run" for call in sorted(keys.keys() - possible))


def _problems_of_journals(written: Iterable[Path]) -> Iterable[str]:
    entries = sorted(
        (stream, int(seq), token)
        for path in written
        for stream, seq, token in (line.rsplit(" ", 2) for line in path.read_text().splitlines())
    )
    superseded: dict[str, set[str]] = {}
    for (stream, seq, token), (stream_after, seq_after, token_after) in pairwise(entries):
        if stream != stream_after:
            continue
        if seq == seq_after:
            yield f"entry {seq} of {stream} was written by {token} and by {token_after}"
        if token != token_after:
            superseded.setdefault(stream, set()).add(token)
        if token_after in superseded.get(stream, ()):
            yield f"entry {seq_after} of {stream} was written by {token_after}, which was superseded before"
