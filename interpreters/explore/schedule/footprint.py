"""Which requests may change places without anybody noticing: what each reads, and what it writes.

Two requests depend on each other where one writes what the other reads or writes. The places are streams and keys by
their names, the names under a prefix, blobs, and the order of all streams.

**Positions and revisions** are numbers that the store chooses, and swapping two writes anywhere swaps theirs. Programs
take them for tokens: they compare a revision with another of the same key, and a position with another of the same
prefix. So by themselves they count for nothing, and two puts under different keys commute, as do two appends to
different streams. But whoever asks for the order of all streams, by `ReadAll` or `Wait`, sees it: once any program, or
the check, does so, all appends depend on one another, and on those requests. Likewise all changes of keys, once
somebody waits for one by `KvWait`.

With an invariant, which looks at the store after each request, all that writes depends on one another.

What is the user's own, and what takes time, depends on everything.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from persist_effects.requests import (
    Advance,
    Append,
    Begin,
    BlobGet,
    BlobHas,
    BlobPut,
    ExpectSeq,
    KvDelete,
    KvEntries,
    KvGet,
    KvHas,
    KvKeys,
    KvPut,
    KvWait,
    LastSeq,
    NewId,
    Now,
    Read,
    ReadAll,
    Request,
    Sql,
    Streams,
    Transact,
    TruncateThrough,
    Wait,
)

Touched = tuple[str, str]
"""What is read or written: its sort, and its name."""

POSITIONS: Touched = ("order", "positions")
REVISIONS: Touched = ("order", "revisions")
ORDERS = frozenset({POSITIONS, REVISIONS})
"""The orders of all streams and of all keys, which count only once somebody asks for them."""

WATCHED: Touched = ("order", "watched")
"""What every write changes, where something looks at the store after each of them."""

_BLOBS: Touched = ("blobs", "")
_TABLES: Touched = ("tables", "")


class Footprint(NamedTuple):
    """What a request reads and writes. ``prefixes`` are read: all places of that sort whose names begin so."""

    reads: frozenset[Touched] = frozenset()
    writes: frozenset[Touched] = frozenset()
    prefixes: frozenset[Touched] = frozenset()


EVERYTHING = None
"""The footprint of what may touch anything."""

NOTHING = Footprint()


def _reads(*places: Touched) -> Footprint:
    return Footprint(reads=frozenset(places))


def _writes(*places: Touched) -> Footprint:
    return Footprint(writes=frozenset(places))


def _lists(*places: Touched) -> Footprint:
    return Footprint(prefixes=frozenset(places))


def _of_transaction(request: Transact) -> Footprint:
    checked = (
        ("stream", check.stream) if isinstance(check, ExpectSeq) else ("key", check.key) for check in request.checks
    )
    written = (place for write in request.writes for place in _ROWS[type(write)](write).writes)
    return Footprint(reads=frozenset(checked), writes=frozenset(written))


_ROWS: dict[type, Callable[[Any], Footprint]] = {
    Append: lambda request: _writes(("stream", request.stream), POSITIONS),
    Begin: lambda request: _writes(("stream", request.stream), POSITIONS),
    Advance: lambda request: _writes(POSITIONS, REVISIONS),
    TruncateThrough: lambda request: _writes(("stream", request.stream)),
    Read: lambda request: _reads(("stream", request.stream)),
    LastSeq: lambda request: _reads(("stream", request.stream)),
    ReadAll: lambda request: Footprint(reads=frozenset([POSITIONS]), prefixes=frozenset([("stream", request.prefix)])),
    Streams: lambda request: _lists(("stream", request.prefix)),
    KvPut: lambda request: _writes(("key", request.key), REVISIONS),
    KvDelete: lambda request: _writes(("key", request.key), REVISIONS),
    KvGet: lambda request: _reads(("key", request.key)),
    KvHas: lambda request: _reads(("key", request.key)),
    KvKeys: lambda request: _lists(("key", request.prefix)),
    KvEntries: lambda request: _lists(("key", request.prefix)),
    # Of which tables, nobody looks.
    Sql: lambda request: _writes(_TABLES),
    Transact: _of_transaction,
    BlobPut: lambda request: _writes(_BLOBS),
    BlobGet: lambda request: _reads(_BLOBS),
    BlobHas: lambda request: _reads(_BLOBS),
    # Virtual time moves where something takes time, and that depends on everything.
    Now: lambda request: NOTHING,
    NewId: lambda request: NOTHING,
}


def orders_seen_by(request: object) -> frozenset[Touched]:
    """Which orders a request asks for.

    >>> orders_seen_by(ReadAll())
    frozenset({('order', 'positions')})
    """
    if isinstance(request, ReadAll | Wait):
        return frozenset({POSITIONS})
    return frozenset({REVISIONS}) if isinstance(request, KvWait) else frozenset()


def footprint_of(request: Request[Any], *, orders: frozenset[Touched]) -> Footprint | None:
    """What a request reads and writes; None for everything. ``orders`` are those that count.

    With `WATCHED` among them, all that writes depends on one another: whoever looks at the store in between sees which
    write came first.

    >>> footprint_of(KvGet("color"), orders=frozenset())
    Footprint(reads=frozenset({('key', 'color')}), writes=frozenset(), prefixes=frozenset())
    >>> WATCHED in footprint_of(KvPut("color", "red"), orders=frozenset({WATCHED})).writes
    True
    """
    if isinstance(request, Wait | KvWait) and not request.timeout:
        return Footprint(reads=orders_seen_by(request))
    row = _ROWS.get(type(request))
    if row is None:
        return EVERYTHING
    found = row(request)
    if WATCHED in orders and found.writes:
        found = found._replace(writes=found.writes | {WATCHED})
    uncounted = ORDERS - orders
    return found._replace(writes=found.writes - uncounted) if uncounted else found


def are_dependent(one: Footprint | None, other: Footprint | None) -> bool:
    """Whether it matters which of the two requests comes first.

    >>> from persist_effects.event import Draft
    >>> to_a, to_b = (Append(stream, (Draft("made", 1),)) for stream in "ab")
    >>> for orders in (frozenset(), ORDERS):
    ...     are_dependent(footprint_of(to_a, orders=orders), footprint_of(to_b, orders=orders))
    False
    True
    """
    if one is None or other is None:
        return True
    return (
        not one.writes.isdisjoint(other.writes)
        or not one.writes.isdisjoint(other.reads)
        or not one.reads.isdisjoint(other.writes)
        or _is_listed(one.prefixes, other.writes)
        or _is_listed(other.prefixes, one.writes)
    )


def _is_listed(prefixes: Iterable[Touched], written: Iterable[Touched]) -> bool:
    return any(sort == of and name.startswith(prefix) for sort, prefix in prefixes for of, name in written)
