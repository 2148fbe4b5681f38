"""What a flow may ask of its store, and what is refused before anything is written."""

from typing import Any, cast

from persist_effects.errors import InvalidRequest
from persist_effects.flow import journal
from persist_effects.flow.requests import told_request
from persist_effects.machine import Effect, perform
from persist_effects.requests import (
    READS,
    WAITS,
    Advance,
    Append,
    At,
    Begin,
    BlobGet,
    BlobHas,
    BlobPut,
    KvDelete,
    KvPut,
    NewId,
    Now,
    Request,
    Transact,
    TruncateThrough,
    Write,
    has_sql,
)


def only_reads(request: Request[Any]) -> Effect[Any]:
    """Performs what a program of `flow.local` asks, and refuses what does not only read."""
    if type(request) not in READS_OF_FLOWS and not isinstance(request, BlobGet | At):
        raise InvalidRequest(f"flow.local runs programs that only read, and this one asks {request.op}")
    check_question(request, may_be_large=True)
    return (yield from perform(request))


def check_question(request: Request[Any], *, may_be_large: bool = False) -> None:
    """Refuse what is no write, and what a flow does not ask. Large answers are for `flow.local` alone."""
    kind = type(request)
    if kind in WAITS:
        raise InvalidRequest(f"a flow does not ask {request.op}: wait for a signal, or wait in an activity")
    if kind is BlobGet and not may_be_large:
        raise InvalidRequest("a flow's journal holds no large bytes: read blobs in flow.local, or in an activity")
    if kind is At:
        of = type(cast(At, request).request)
        if of not in READS_OF_FLOWS:
            raise InvalidRequest(
                f"a flow does not ask {of.__name__} of another store, which cannot be in the transaction of its "
                "journal: do it in an activity"
            )


def writes_of(request: Request[Any]) -> tuple[tuple[Write, ...], tuple[Any, ...]]:
    """The writes and checks of a request that a flow may make."""
    if has_sql(request):
        raise InvalidRequest("a flow writes no SQL, whose answer cannot be noted in its journal: do it in an activity")
    if type(request) is Advance:
        raise InvalidRequest("a flow does not ask persist/advance: it is for moving stores")
    writes, checks = (request.writes, request.checks) if isinstance(request, Transact) else ((request,), ())
    if isinstance(request, Transact) and request.noting is True:
        raise InvalidRequest(
            "a flow notes what its writes were answered, so its transactions cannot: leave `noting` out, and use "
            "log.append in the place of log.append_once, since each step of a flow takes effect once"
        )
    for write in writes:
        name = write.stream if isinstance(write, _OF_STREAMS) else cast(KvPut | KvDelete, write).key
        if name.startswith(journal.OWN_STREAMS if isinstance(write, _OF_STREAMS) else journal.OWN_KEYS):
            raise InvalidRequest(f"{told_request(write)} writes what belongs to flows: use another name")
    return cast(Any, writes), checks


_OF_STREAMS = (Append, TruncateThrough, Begin)

READS_OF_FLOWS = READS | {Now, NewId, BlobHas, BlobPut}
