"""How flows stand, and what they came to: programs that only read, for anyone."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from persist_effects import kv, log
from persist_effects.clock import now
from persist_effects.errors import FlowFailed, InvalidRequest, NoSuchFlow
from persist_effects.flow import journal
from persist_effects.flow.defining import Flows
from persist_effects.flow.journal import Closed, FlowEnded, Open, OpenFlow
from persist_effects.flow.replay import Path
from persist_effects.flow.requests import check_flow_id, checked_tags
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import PAGE_SIZE, KvEntries, KvKeys
from persist_effects.trace.errors import NO_ERROR_KINDS, ErrorKinds


class FlowStatus(msgspec.Struct, frozen=True):
    """How a flow stands.

    ``state`` is ``waiting`` (in a queue, for its turn), ``running``, ``paused``, ``halted`` (its code does not fit its
    journal), ``set aside`` (it ended its hosts again and again), ``completed``, ``failed`` or ``cancelled``. ``began``
    and ``ended`` are microseconds since 1970. ``error`` is what halted or ended it, in words.
    """

    flow_id: str
    flow: str
    version: int
    state: str
    began: int
    ended: int | None = None
    run: int = 1
    queue: str = ""
    tags: dict[str, str] = {}
    error: str | None = None


@program
def status(flow_id: str) -> Effect[FlowStatus]:
    """How a flow stands.

    Args:
        flow_id: The flow.

    Returns:
        Its status.

    Raises:
        NoSuchFlow: If it was never begun.

    >>> from interpreters import open_store
    >>> from persist_effects.flow import begin
    >>> def greet(name: str):
    ...     yield
    >>> store = open_store("memory:")
    >>> store.run(begin("g-1", greet, "Ada", tags={"to": "Ada"}))
    True
    >>> store.run(status("g-1")).state
    'running'
    """
    check_flow_id(flow_id)
    standing = yield from kv.get(journal.OPEN + flow_id)
    if standing is not None:
        return _status_of(flow_id, standing)
    closed = yield from kv.get(journal.DONE + flow_id)
    if closed is None:
        raise NoSuchFlow(flow_id)
    return _status_of_ended(flow_id, closed)


def _status_of(flow_id: str, value: Any) -> FlowStatus:
    each = msgspec.convert(value, Open)
    state = journal.WAITING if each.queue and not each.owner and each.state == journal.RUNNING else each.state
    return FlowStatus(
        flow_id, each.flow, each.version, state, each.began, None, each.run, each.queue, each.tags, each.error
    )


def _status_of_ended(flow_id: str, value: Any) -> FlowStatus:
    each = msgspec.convert(value, Closed)
    return FlowStatus(
        flow_id, each.flow, each.version, each.state, each.began, each.ended, each.run, "", each.tags, each.error
    )


class FlowOutcome(NamedTuple):
    """What a flow has come to: its value, or the error that it raised."""

    state: str
    value: Any
    error: Exception | None


@program
def outcome(
    flow_id: str, *, returns: Any = Any, flows: Flows | None = None, errors: ErrorKinds = NO_ERROR_KINDS
) -> Effect[FlowOutcome | None]:
    """What a flow has come to.

    Args:
        flow_id: The flow.
        returns: As what its result is read.
        flows: The code of flows, which says as what it is read, where that is here.
        errors: Classes of errors by their names.

    Returns:
        Its outcome; None while it goes on.

    Raises:
        NoSuchFlow: If it was never begun.
    """
    check_flow_id(flow_id)
    events = yield from log.read_back(journal.journal_of(flow_id), 1)
    if not events:
        raise NoSuchFlow(flow_id)
    if events[0].type != journal.ENDED:
        return None
    return outcome_in(flow_id, msgspec.convert(events[0].data, FlowEnded), returns=returns, flows=flows, errors=errors)


def outcome_in(
    flow_id: str,
    ended: FlowEnded,
    *,
    returns: Any = Any,
    flows: Flows | None = None,
    errors: ErrorKinds = NO_ERROR_KINDS,
) -> FlowOutcome:
    """What a flow has come to, by the entry of its end: see `outcome`."""
    if ended.error is not None:
        return FlowOutcome(ended.state, None, journal.decode_raised(ended.error, errors))
    assert ended.result is not None, "it has one or the other"
    kind = returns if flows is None else flows.returned_by(ended.beginning.flow, ended.beginning.version)
    return FlowOutcome(ended.state, journal.decode_value(ended.result, kind, f"the result of flow {flow_id!r}"), None)


@program
def result(
    flow_id: str, *, returns: Any = Any, flows: Flows | None = None, errors: ErrorKinds = NO_ERROR_KINDS
) -> Effect[Any]:
    """The result of a flow that has ended.

    Args:
        flow_id: The flow.
        returns: As what it is read.
        flows: The code of flows, which says as what it is read, where that is here.
        errors: Classes of errors by their names.

    Returns:
        The result.

    Raises:
        FlowFailed: If it has raised, with that as the cause, or was cancelled.
        NoSuchFlow: If it was never begun.
        InvalidRequest: If it has not ended yet.
    """
    found = yield from outcome(flow_id, returns=returns, flows=flows, errors=errors)
    if found is None:
        raise InvalidRequest(f"flow {flow_id!r} has not ended yet: wait for it with FlowHost.result")
    return value_of(flow_id, found)


@program
def wait_for(
    flow_id: str,
    *,
    timeout: float | None = None,
    returns: Any = Any,
    flows: Flows | None = None,
    errors: ErrorKinds = NO_ERROR_KINDS,
) -> Effect[Any]:
    """Wait for the result of a flow.

    Args:
        flow_id: The flow.
        timeout: For how many seconds at the most; None: for ever.
        returns: As what it is read.
        flows: The code of flows, which says as what it is read, where that is here.
        errors: Classes of errors by their names.

    Returns:
        The result.

    Raises:
        FlowFailed: If it has raised, with that as the cause, or was cancelled.
        NoSuchFlow: If it was never begun.
        TimeoutError: If it has not ended by then.
    """
    found = yield from outcome(flow_id, returns=returns, flows=flows, errors=errors)
    if found is not None:
        return value_of(flow_id, found)
    # Its key is put when it ends, and no flow ends twice. Others whose ids begin alike end too.
    key, seen = journal.DONE + flow_id, 0
    began = 0 if timeout is None else (yield from now())
    left = math.inf if timeout is None else timeout
    while True:
        seen = yield from kv.wait(seen, key, left)
        found = yield from outcome(flow_id, returns=returns, flows=flows, errors=errors)
        if found is not None:
            return value_of(flow_id, found)
        if timeout is not None:
            left = timeout - ((yield from now()) - began) / 1e6
            if left <= 0:
                raise TimeoutError(f"flow {flow_id!r} has not ended within {timeout} seconds")


@program
def unended() -> Effect[dict[str, OpenFlow]]:
    """The flows that hosts should run: all that go on, but for those that were set aside.

    Returns:
        How each stands, by its id. An ``owner`` is the token of the host that runs it, empty where none does.
    """
    found = yield from kv.entries(journal.OPEN)
    flows = {
        key.removeprefix(journal.OPEN): OpenFlow(msgspec.convert(entry.value, Open), entry.revision)
        for key, entry in found
    }
    return {flow_id: each for flow_id, each in flows.items() if each.standing.state != journal.SET_ASIDE}


@program
def due_before(time: int) -> Effect[list[tuple[int, str, Path]]]:
    """The timers that are due before a time, by their keys.

    Args:
        time: Microseconds since 1970.

    Returns:
        When each is due, whose it is, and the path of its step.
    """
    found: list[tuple[int, str, Path]] = []
    after, end = journal.DUE, journal.due_key(time, "", ())
    while True:
        page = yield from perform(KvKeys(journal.DUE, after))
        for key in page:
            if key >= end:
                return found
            due, _, rest = key.removeprefix(journal.DUE).partition("/")
            flow_id, _, path = rest.rpartition("/")
            found.append((int(due), flow_id, journal.path_in(path)))
        if len(page) < PAGE_SIZE:
            return found
        after = page[-1]


def value_of(flow_id: str, found: FlowOutcome) -> Any:
    """The value of a flow that has ended. Raises `FlowFailed` where it has none.

    >>> value_of("o-1", FlowOutcome("completed", 7, None))
    7
    """
    if found.error is None:
        return found.value
    if found.state == journal.CANCELLED:
        raise FlowFailed(flow_id, "was cancelled")
    raise FlowFailed(flow_id, f"raised {type(found.error).__name__}: {found.error}") from found.error


@program
def listing(
    *,
    flow: str | None = None,
    state: str | None = None,
    prefix: str = "",
    tags: Mapping[str, str] | None = None,
    began_after: int = 0,
    began_before: int | None = None,
    limit: int | None = None,
) -> Effect[list[FlowStatus]]:
    """Flows, by their ids.

    Those that go on are looked through first, then those that have ended; what is asked for by ``state`` only among
    the ones or the others.

    Args:
        flow: Only those of this name.
        state: Only those in this state.
        prefix: Only those whose ids start with this.
        tags: Only those with these tags.
        began_after: Only those that began at or after this time, in microseconds since 1970.
        began_before: Only those that began before this time.
        limit: How many at most.

    Returns:
        The flows that were found.

    Raises:
        InvalidRequest: If there is no such state.

    >>> from interpreters import open_store
    >>> from persist_effects.flow import begin
    >>> def greet(name: str):
    ...     yield
    >>> store = open_store("memory:")
    >>> for number in range(3):
    ...     _ = store.run(begin(f"g-{number}", greet, "Ada"))
    >>> [each.flow_id for each in store.run(listing(flow="greet", limit=2))]
    ['g-0', 'g-1']
    """
    if state is not None and state not in (*_OPEN_STATES, *_ENDED_STATES):
        raise InvalidRequest(f"state is {state!r}: give one of {', '.join((*_OPEN_STATES, *_ENDED_STATES))}")
    wanted = checked_tags(tags)
    found: list[FlowStatus] = []
    for where, status_from in ((journal.OPEN, _status_of), (journal.DONE, _status_of_ended)):
        if state in (_ENDED_STATES if where == journal.OPEN else _OPEN_STATES):
            continue
        after = ""
        while limit is None or len(found) < limit:
            page = yield from perform(KvEntries(where + prefix, after))
            for key, entry in page:
                each = status_from(key.removeprefix(where), entry.value)
                if (
                    (flow is None or each.flow == flow)
                    and (state is None or each.state == state)
                    and wanted.items() <= each.tags.items()
                    and each.began >= began_after
                    and (began_before is None or each.began < began_before)
                ):
                    found.append(each)
            if len(page) < PAGE_SIZE:
                break
            after = page[-1][0]
    return found[:limit]


_OPEN_STATES = (journal.WAITING, journal.RUNNING, journal.PAUSED, journal.HALTED, journal.SET_ASIDE)
_ENDED_STATES = (journal.COMPLETED, journal.FAILED, journal.CANCELLED)
