"""What many clients ask of one store while its server is killed again and again, and whether the answers can be true.

Each client asks, as its seed says, for writes of all kinds and for reads, in some groups of a stream and two keys. A
transaction stays within its group, so a history is judged by groups. Every value is written by one request only, so
that what is read later settles most writes of which nobody was told what came of them.
"""

import pickle
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, BinaryIO, NamedTuple

from histories import learn, problem_of, step

from persist_effects import Draft, Event, StoreUnavailable, UncertainOutcome, log, run
from persist_effects.machine import Handlers
from persist_effects.requests import (
    CHANGES,
    PAGE_SIZE_MAX,
    Answered,
    Append,
    Conflict,
    ExpectRevision,
    ExpectSeq,
    Failed,
    KvDelete,
    KvGet,
    KvPut,
    LastSeq,
    Outcome,
    Read,
    Transact,
)

GROUPS = 8
PREFIX = "orders/"
COUNTED = "count"
"""The key of what clients count together."""

OUTAGES = (StoreUnavailable, UncertainOutcome)


class Asked(NamedTuple):
    """One request of a client, when it was asked and answered, by a clock that is the same in all processes."""

    client: int
    ordinal: int
    group: int
    began: int
    ended: int
    request: Any
    outcome: Outcome


def stream_of(group: int) -> str:
    return f"{PREFIX}{group}"


def keys_of(group: int) -> tuple[str, str]:
    return f"color/{group}", f"shape/{group}"


class Client:
    """Asks one thing after the other, as its seed says, and notes what it is answered.

    Args:
        handlers: What answers.
        seed: What draws.
        number: Its number among the clients.
        note: Called with all that was asked.
    """

    def __init__(
        self, handlers: Handlers, seed: object, number: int, note: Any, clock: Any = time.monotonic_ns
    ) -> None:
        self._rows, self._number, self._note, self._clock = handlers, number, note, clock
        self._handlers = dict.fromkeys(handlers, self._ask)
        self._random = Random(f"{seed} {number}")
        self._ordinal = self._group = 0
        self._known: dict[str, int] = {}
        self._unsettled: list[tuple[int, str, Any]] = []

    def ask_something(self) -> None:
        """Ask for one thing more, which may take several requests."""
        random = self._random
        self._group = random.randrange(GROUPS)
        if self._unsettled and not random.randrange(3):
            self._append_once(*self._unsettled.pop(0))
        elif not random.randrange(8):
            self._append_once(self._group, f"{self._number} {self._ordinal}", self._value())
        else:
            with suppress(*OUTAGES):
                self._ask(self._drawn())

    def look(self) -> None:
        """Read all there is, as the last one to ask."""
        for self._group in range(GROUPS):
            after: int | None = 0
            while after is not None:
                page = self._ask(Read(stream_of(self._group), after, limit=PAGE_SIZE_MAX))
                after = page.next if page.next < page.head else None
            for key in keys_of(self._group):
                self._ask(KvGet(key))

    def _append_once(self, group: int, key: str, value: Any) -> None:
        self._group = group
        try:
            run(log.append_once(stream_of(group), key, "made", value), self._handlers)
        except OUTAGES:
            self._unsettled.append((group, key, value))

    def _ask(self, request: Any) -> Any:
        began = time.monotonic_ns()
        outcome: Outcome
        try:
            outcome = Answered(self._rows[type(request)](request))
        except Exception as error:
            outcome = Failed(error)
        self._note(Asked(self._number, self._ordinal, self._group, began, time.monotonic_ns(), request, outcome))
        self._ordinal += 1
        if isinstance(outcome, Failed):
            raise outcome.error
        learn(self._known, request, outcome.value)
        return outcome.value

    def _value(self) -> list[int]:
        return [self._number, self._ordinal]

    def _drawn(self) -> Any:
        random, value = self._random, self._value()
        stream, key = stream_of(self._group), random.choice(keys_of(self._group))
        drafts = tuple(Draft("made", [*value, index]) for index in range(random.choice([1, 1, 1, 3])))
        last_seq, revision = self._known.get(stream, 0), self._known.get(key, 0)
        checks = random.choice([(), (ExpectSeq(stream, last_seq),), (ExpectRevision(key, revision),)])
        return random.choice(
            [
                Append(stream, drafts),
                Append(stream, drafts, last_seq),
                Transact((Append(stream, drafts), KvPut(key, value)), checks),
                KvPut(key, value),
                KvPut(key, value, revision),
                KvDelete(key),
                KvDelete(key, revision),
                KvGet(key),
                LastSeq(stream),
                Read(stream, max(0, last_seq - 3), limit=20),
            ]
        )


# What comes of it


def written_in(path: Path) -> list[Any]:
    """What a process has written to a file, piece by piece."""
    found = []
    with path.open("rb") as file:
        while piece := _next_in(file):
            found.append(piece)
    return found


def _next_in(file: BinaryIO) -> Any:
    try:
        return pickle.load(file)
    except EOFError:
        return None


class Tally(NamedTuple):
    """How much was asked, and what it met."""

    asked: int
    uncertain: int
    unavailable: int
    conflicts: int


def tally_of(asked: list[Asked]) -> Tally:
    failed = Counter(type(one.outcome.error) for one in asked if isinstance(one.outcome, Failed))
    assert failed.keys() <= set(OUTAGES), failed
    conflicts = sum(isinstance(one.outcome, Answered) and isinstance(one.outcome.value, Conflict) for one in asked)
    return Tally(len(asked), failed[UncertainOutcome], failed[StoreUnavailable], conflicts)


def problems_in(asked: list[Asked], events: list[Event]) -> list[str]:
    """What is wrong with what clients were answered, and with the events that are there in the end.

    Args:
        asked: All that was asked; the last of it is what `Client.look` asks.
        events: All events, by position.

    Returns:
        What is wrong; nothing, if each group's history could have been done one by one, and all is there once.
    """
    found = []
    for group in range(GROUPS):
        part = [
            step((one.began, one.ended), one.request, one.outcome, (one.client, one.ordinal))
            for one in asked
            if one.group == group
        ]
        problem = problem_of(part, "client")
        if problem is not None:
            found.append(f"group {group}: {problem}")
    there = Counter(tuple(event.data) for event in events)
    found += [f"{value} is there {count} times" for value, count in there.items() if count > 1]
    acknowledged = {tuple(draft.data) for one in asked for draft in _acknowledged_in(one)}
    found += [f"{value} was acknowledged, and is not there" for value in sorted(acknowledged - there.keys())]
    return found


def _acknowledged_in(one: Asked) -> list[Draft]:
    if type(one.request) not in CHANGES or isinstance(one.outcome, Failed) or isinstance(one.outcome.value, Conflict):
        return []
    writes = one.request.writes if isinstance(one.request, Transact) else (one.request,)
    return [draft for write in writes if isinstance(write, Append) for draft in write.events]
