"""Several writes as one: all of them happen, or none."""

from collections.abc import Iterable
from typing import Any, TypeVar, overload

from persist_effects.event import check_items
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import Check, Conflict, StoreWrite, Transact, Write

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")


# To checkers a list has one type for all of its places, so the answers of a few writes are a tuple to them.
@overload
def transact(
    first: StoreWrite[A | Conflict], /, *, checks: Iterable[Check] = (), noting: bool = False
) -> Effect[tuple[A] | Conflict]: ...
@overload
def transact(
    first: StoreWrite[A | Conflict],
    second: StoreWrite[B | Conflict],
    /,
    *,
    checks: Iterable[Check] = (),
    noting: bool = False,
) -> Effect[tuple[A, B] | Conflict]: ...
@overload
def transact(
    first: StoreWrite[A | Conflict],
    second: StoreWrite[B | Conflict],
    third: StoreWrite[C | Conflict],
    /,
    *,
    checks: Iterable[Check] = (),
    noting: bool = False,
) -> Effect[tuple[A, B, C] | Conflict]: ...
@overload
def transact(
    first: StoreWrite[A | Conflict],
    second: StoreWrite[B | Conflict],
    third: StoreWrite[C | Conflict],
    fourth: StoreWrite[D | Conflict],
    /,
    *,
    checks: Iterable[Check] = (),
    noting: bool = False,
) -> Effect[tuple[A, B, C, D] | Conflict]: ...
@overload
def transact(
    first: StoreWrite[A | Conflict],
    second: StoreWrite[B | Conflict],
    third: StoreWrite[C | Conflict],
    fourth: StoreWrite[D | Conflict],
    fifth: StoreWrite[E | Conflict],
    /,
    *,
    checks: Iterable[Check] = (),
    noting: bool = False,
) -> Effect[tuple[A, B, C, D, E] | Conflict]: ...
@overload
def transact(
    first: StoreWrite[A | Conflict],
    second: StoreWrite[B | Conflict],
    third: StoreWrite[C | Conflict],
    fourth: StoreWrite[D | Conflict],
    fifth: StoreWrite[E | Conflict],
    sixth: StoreWrite[F | Conflict],
    /,
    *,
    checks: Iterable[Check] = (),
    noting: bool = False,
) -> Effect[tuple[A, B, C, D, E, F] | Conflict]: ...
@overload
def transact(*writes: Write, checks: Iterable[Check] = (), noting: bool = False) -> Effect[list[Any] | Conflict]: ...
@program
def transact(*writes: Any, checks: Iterable[Check] = (), noting: bool = False) -> Effect[Any]:
    """Perform writes, all or nothing.

    Args:
        writes: `Append`, `TruncateThrough`, `Begin`, `KvPut`, `KvDelete` and `Sql` requests, at least one. Each sees
            those before it.
        checks: `ExpectSeq` and `ExpectRevision`, which are made first, on what was there before. They are for what the
            decision read and the transaction does not write: else two transactions may each pass by the other.
        noting: The last write, a put of a dict or an append of one draft, also keeps the answers of those before it,
            under ``"answers"`` in the dict or in the draft's meta.

    Returns:
        The list of the writes' answers; or the first `Conflict`, and then nothing was written. Type checkers know the
        answer of each of up to six writes, for which they take the list for a tuple: unpack it, or ask by index.

    Raises:
        InvalidRequest: If something in it cannot be stored, before anything is written.
        TooLarge: If a value is over the store's limit, likewise.

    >>> from interpreters import open_store
    >>> from persist_effects.requests import ExpectRevision, KvPut
    >>> store = open_store("memory:")
    >>> store.run(transact(KvPut("a", 1), KvPut("b", 2), checks=[ExpectRevision("c", 0)]))
    [1, 2]
    """
    checked = check_items("checks", checks, "a list of ExpectSeq and ExpectRevision")
    return (yield from perform(Transact(writes, checked, noting)))
