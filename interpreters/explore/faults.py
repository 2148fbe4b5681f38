"""The faults that a request may meet, as a table, and which of them a request has."""

from typing import Any, NamedTuple

from persist_effects import codec
from persist_effects.requests import (
    CHANGES,
    Append,
    Conflict,
    ExpectSeq,
    Request,
    Sleep,
    Transact,
)


class Fault(NamedTuple):
    """What is said of a fault: what happens at request #{}, and what a program can do about it."""

    says: str
    remedy: str


SHARED = (
    "share state only through the store: what a program keeps elsewhere, another program sees, or the next run; "
    "make it anew within each program"
)
"""The remedy where programs are not functions of their answers."""

AT_A_RESTART = "let one transaction hold what belongs together, and repeat only what may be repeated: log.append_once"
_WITHOUT_STORE = "nothing was written: repeat the request, or let the error end the program"
_UNCERTAIN = "after an UncertainOutcome, repeat only what settles it: log.append_once, log.append_expect"

CRASHES = {
    "crash-before": Fault("the program is gone before #{} was carried out", AT_A_RESTART),
    "crash-during": Fault("#{} was carried out, and the program is gone before its answer came", AT_A_RESTART),
    "crash-after": Fault("the program went on from #{} to its next request or its end, and is gone", AT_A_RESTART),
}
_OUTAGES = {
    "unavailable-once": Fault("#{} raises StoreUnavailable, and nothing was carried out", _WITHOUT_STORE),
    "unavailable-for-good": Fault("from #{} on, everything raises StoreUnavailable", _WITHOUT_STORE),
}
_DOUBTS = {
    "uncertain-written": Fault("#{} raises UncertainOutcome, and was carried out", _UNCERTAIN),
    "uncertain-unwritten": Fault("#{} raises UncertainOutcome, and was not carried out", _UNCERTAIN),
}
_CONFLICTS = {
    "conflict-once": Fault(
        "#{} is answered with a Conflict, and was not carried out",
        "a conflict is a value: look at the answer, and read again what it was made of, as kv.update does",
    )
}
FAULTS = {**CRASHES, **_OUTAGES, **_DOUBTS, **_CONFLICTS}


def is_own(request: Request[Any]) -> bool:
    """Whether it is a request of the user's own, of which nothing is known."""
    return type(request) not in codec.STORE_REQUESTS


def asks_store(request: Request[Any]) -> bool:
    """Whether it cannot be answered where the store cannot be reached. Whoever sleeps asks nobody."""
    return not is_own(request) and type(request) is not Sleep


def faults_of(request: Request[Any], *, is_down: bool) -> tuple[str, ...]:
    """What may strike at a request. Where the store is down already, nothing new can go wrong with it."""
    if is_down:
        return ("crash-before", "crash-after")
    faults = [*CRASHES]
    if asks_store(request):
        faults += _OUTAGES
    if type(request) in CHANGES:
        faults += _DOUBTS
    if conflict_of(request) is not None:
        faults += _CONFLICTS
    return tuple(faults)


def conflict_of(request: Any) -> Conflict | None:
    """The conflict that a request would meet if another writer had come first, None where it expects nothing."""
    if isinstance(request, Transact):
        parts = (*((None, check) for check in request.checks), *enumerate(request.writes))
        conflicts = (_conflict_of_one(part, index) for index, part in parts)
        return next((conflict for conflict in conflicts if conflict is not None), None)
    return _conflict_of_one(request, 0)


def _conflict_of_one(request: Any, write: int | None) -> Conflict | None:
    expected = getattr(request, "expected", None)
    if expected is None or _is_own_check(request):
        return None
    if isinstance(request, Append | ExpectSeq):
        return Conflict("stream", request.stream, expected, expected + 1, write)
    return Conflict("key", request.key, expected, expected + 1, write)


def _is_own_check(request: Any) -> bool:
    # A request of the user's may have a field of this name, and be answered with anything.
    return isinstance(request, Request) and is_own(request)
