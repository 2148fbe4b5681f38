"""The read model that is rebuilt while processes are killed: who fills it, who uses it, and what it must be in the end.

Each event puts a key of its own, which must not be there: what took effect twice in a generation is a conflict.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from random import Random
from typing import Any

from interpreters import Store
from persist_effects import Draft, Event, InvalidRequest, ReadModel, follow, followers, kv, log
from persist_effects.machine import Effect, perform
from persist_effects.requests import PAGE_SIZE, Entry, KvEntries, KvPut

MODEL = ReadModel("rebuilt")
PREFIX = "a/"
STREAMS = 64
BEFORE, AFTER = 1, 2
"""The versions: the one that is seen at first, and the one that is built beside it."""

PHASES = ("build", "take-over", "drop")
"""What a rebuild does, one after the other."""

WRITE_SECONDS, READ_SECONDS = 0.02, 0.01
"""How long each writer and each reader pauses, so that the load is the same however fast a store is."""

Say = Callable[..., None]


def event_key(position: int) -> str:
    return f"e/{position:019}"


def filling(version: int, told: Say = lambda *_: None) -> Callable[..., list[KvPut]]:
    """The handler of a version, which tells of the first event that it is asked for."""
    is_first = True

    def fill(event: Event, model: Any) -> list[KvPut]:
        nonlocal is_first
        if is_first:
            is_first = False
            told("begins", event.position)
        return [
            model.put(event_key(event.position), [version, event.stream, event.seq], expected=0),
            model.put("through", event.position),
        ]

    return fill


def filled(version: int, batch: int, told: Say = lambda *_: None, timeout: float = 0.0) -> Effect[int]:
    return follow(MODEL, PREFIX, filling(version, told), version=version, batch=batch, timeout=timeout)


def append_first(store: Store, events: int) -> None:
    """Append so many events, a thousand at once."""
    for first in range(0, events, 1000):
        drafts = [Draft("made", number) for number in range(first, min(events, first + 1000))]
        store.run(log.append_many(f"{PREFIX}{first // 1000 % STREAMS}", drafts))


# Who uses it meanwhile


def write(store: Store, random: Random, is_over: threading.Event) -> None:
    """A writer: appends to any of the streams, again and again."""
    while not is_over.wait(WRITE_SECONDS):
        store.run(log.append(f"{PREFIX}{random.randrange(STREAMS)}", "made", None))


def read(store: Store, random: Random, is_over: threading.Event, seen: int, say: Say) -> None:
    """A reader: what it has seen once is seen ever after, in each version."""
    longest = 0.0
    while not is_over.wait(READ_SECONDS):
        began = time.monotonic()
        through = store.run(MODEL.get_or("through", 0))
        took = time.monotonic() - began
        assert through >= seen, f"the model went through {seen}, and then through {through}"
        if through > seen:
            seen = through
            say("seen", seen)
        page = store.run(log.page_all(random.randrange(max(1, seen)), PREFIX, limit=1))
        for event in page.events:
            if event.position <= seen:
                began = time.monotonic()
                value = store.run(MODEL.get(event_key(event.position)))
                took = max(took, time.monotonic() - began)
                assert value is not None, (
                    f"the event at {event.position} is not in the model, which went through {seen}"
                )
                assert value[1:] == [event.stream, event.seq], f"{value} is there of {event}"
        if took > longest:
            longest = took
            say("took", f"{longest:.4f}")


def go_on_as_before(store: Store, is_over: threading.Event, say: Say) -> None:
    """The release before goes on as well, until it is told that it is the release before."""
    try:
        while not is_over.is_set():
            store.run(filled(BEFORE, 100, timeout=0.1))
    except InvalidRequest as error:
        if f"has version {AFTER}" not in str(error):
            raise
        say("outdated")


# What it must be


def problems_of_model(store: Store) -> list[str]:
    """What is wrong with the model, after the newer version has come to the end of the log."""
    followed = store.run(followers.registered(MODEL.name))
    found = [f"a version is still being built: {followed.building}"] if followed.building is not None else []
    kept = store.run(kv.keys("follow"))
    found += [f"kept of the follower: {kept}"] if kept != [f"follow/{MODEL.name}"] else []
    pairs = zip_longest(_expected(store), _entries(store))
    wrong = (f"{expected} should be in the model, and {entry} is" for expected, entry in pairs if expected != entry)
    return found + [problem for problem, _ in zip(wrong, range(5), strict=False)]


def _expected(store: Store) -> Iterator[tuple[str, Any]]:
    """A plain fold of the log: what is to be in the model, of one generation alone."""
    start, last, seqs = f"model/{MODEL.name}/{AFTER}/", 0, Counter[str]()
    for event in _events(store):
        seqs[event.stream] += 1
        assert event.seq == seqs[event.stream], event
        last = event.position
        yield f"{start}{event_key(last)}", [AFTER, event.stream, event.seq]
    yield f"{start}through", last


def _events(store: Store) -> Iterator[Event]:
    after, head = 0, 1
    while after < head:
        page = store.run(log.page_all(after, PREFIX))
        after, head = page.next, page.head
        yield from page.events


def _entries(store: Store) -> Iterator[tuple[str, Any]]:
    """All that is there of the model, of whichever generation."""
    prefix, after, size = f"model/{MODEL.name}/", "", PAGE_SIZE
    while size == PAGE_SIZE:
        page = store.run(_page(prefix, after))
        size = len(page)
        for after, entry in page:
            yield after, entry.value


def _page(prefix: str, after: str) -> Effect[list[tuple[str, Entry]]]:
    return (yield from perform(KvEntries(prefix, after)))
