"""Retention that knows its followers: through which event all that are registered have seen a stream.

A follower is registered from its first checkpoint on, until it is forgotten. It has seen what took effect, was skipped,
or was passed over as of no interest; not what it has set aside, nor what a version that is being built has yet to see.
"""

from typing import Literal

from persist_effects.errors import FollowersBehind, InvalidRequest
from persist_effects.event import check_integer, check_name
from persist_effects.following.checkpoint import asides_of, extent
from persist_effects.following.records import (
    ASIDE_STREAMS,
    HEADS,
    Record,
    kept_in,
    next_key,
    record_in,
)
from persist_effects.machine import Effect, perform
from persist_effects.requests import PAGE_SIZE, KvEntries, KvGet, LastSeq, Read

Unseen = Literal["keep", "refuse", "drop"]
"""What becomes of events that a follower has not seen: they are kept, and what comes before is dropped; or that is
refused, with the names of these followers; or they are dropped."""

UNSEEN: tuple[Unseen, ...] = ("keep", "refuse", "drop")


def droppable(stream: str, seq: int, unseen: Unseen) -> Effect[int]:
    """Through which event a stream may be truncated, where it is to be through ``seq``.

    Args:
        stream: The stream's name.
        seq: Through which event is wanted.
        unseen: What becomes of events that a follower has not seen.

    Returns:
        The sequence number, at most ``seq``.

    Raises:
        FollowersBehind: If it is to be refused.
        InvalidRequest: If ``unseen`` is none of these.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(droppable("orders/1", 5, "keep"))
    5
    """
    check_name("stream name", stream)
    check_integer("seq", seq)
    if unseen not in UNSEEN:
        raise InvalidRequest(f"unseen is {unseen!r}: give one of {', '.join(UNSEEN)}")
    if unseen == "drop":
        return seq
    seen = yield from _seen_by_each(stream, seq)
    through = min(seen.values(), default=seq)
    if through >= seq:
        return seq
    if unseen == "refuse":
        raise FollowersBehind(stream, seq, through, sorted(name for name, one in seen.items() if one == through))
    return through


def _seen_by_each(stream: str, seq: int) -> Effect[dict[str, int]]:
    """By name: through which event, at most ``seq``, each follower of a stream has seen it."""
    seen: dict[str, int] = {}
    after = ""
    while True:
        page = yield from perform(KvEntries(HEADS, after))
        for key, entry in page:
            name = key[len(HEADS) :]
            record = record_in(entry, name)
            if record is not None and not record.is_forgotten and _follows(record, stream):
                seen[name] = yield from _seen_by(name, record, stream, seq)
        if len(page) < PAGE_SIZE:
            return seen
        after = page[-1][0]


def _follows(record: Record, stream: str) -> bool:
    is_told_aside = stream.startswith(ASIDE_STREAMS) and not record.prefix.startswith(ASIDE_STREAMS)
    return stream.startswith(record.prefix) and not is_told_aside


def _seen_by(name: str, record: Record, stream: str, seq: int) -> Effect[int]:
    generations = [record]
    if record.building:
        found = yield from perform(KvGet(next_key(name)))
        generations += [] if found is None else [kept_in(found, Record, next_key(name))]
    through = seq
    for one in generations:
        position, _ = yield from extent(name, one)
        through = yield from _last_seq_at(stream, position, through)
        aside = (yield from asides_of(name, one.generation)).get(stream)
        if aside is not None:
            through = min(through, aside[0].first - 1)
    return through


def _last_seq_at(stream: str, position: int, seq: int) -> Effect[int]:
    """The last event of a stream through ``seq`` that stands at a position or before it."""
    page = yield from perform(Read(stream, limit=1))
    if not page.events:
        return seq
    low = page.events[0].seq - 1
    high = min(seq, (yield from perform(LastSeq(stream))))
    if high <= low or (yield from _position_of(stream, high)) <= position:
        return seq
    # All through `low` are at the position or before, or gone; that at `high` is after it.
    while high - low > 1:
        middle = (low + high) // 2
        if (yield from _position_of(stream, middle)) <= position:
            low = middle
        else:
            high = middle
    return low


def _position_of(stream: str, seq: int) -> Effect[int]:
    """The position of an event; 0 where it was dropped meanwhile."""
    page = yield from perform(Read(stream, after=seq - 1, until=seq, limit=1))
    return page.events[0].position if page.events else 0
