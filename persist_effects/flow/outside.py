"""What others do with a flow: begin it, tell it something, ask how it stands. Programs, which any store runs.

They write to the flow's inbox, never to its journal: the host that owns it takes messages from there.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from persist_effects import kv, log
from persist_effects.clock import now
from persist_effects.errors import FlowExists, FlowFailed, InvalidRequest, NoSuchFlow, describe, repr_of
from persist_effects.event import check_integer, check_name
from persist_effects.flow import journal
from persist_effects.flow.defining import Flows, flow_code
from persist_effects.flow.journal import (
    Beginning,
    BegunFlow,
    Closed,
    FlowEnded,
    Open,
    OpenFlow,
    beginning_writes,
    begun_of,
    message,
)
from persist_effects.flow.replay import Path
from persist_effects.flow.requests import check_flow_id
from persist_effects.machine import Effect, all_of, perform
from persist_effects.programs import program
from persist_effects.requests import (
    PAGE_SIZE,
    Conflict,
    ExpectRevision,
    KvEntries,
    KvGet,
    KvKeys,
    KvPut,
    Transact,
    Write,
)
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
def begin(
    flow_id: str,
    flow: Callable[..., Effect[Any]],
    *args: Any,
    tags: Mapping[str, str] | None = None,
    queue: str = "",
    priority: int = 0,
    token: bytes = b"",
) -> Effect[bool]:
    """Begin a flow. One of the same id, of the same code and arguments, is the same flow: nothing happens.

    Args:
        flow_id: Its id, up to 300 bytes.
        flow: The flow: a generator function.
        args: Its arguments.
        tags: By which it is found in lists.
        queue: In which queue it waits for its turn, on any host that has this queue; empty: in none.
        priority: Those in a queue with a higher one have their turn first.
        token: Of the host that begins with it at once; empty: whichever host comes first.

    Returns:
        Whether it was begun now.

    Raises:
        FlowExists: If there is another flow of this id, or was one.
        InvalidRequest: If something cannot be kept, or is not what the flow takes.

    >>> from interpreters import open_store
    >>> def greet(name: str):
    ...     return f"hello {name}"
    ...     yield
    >>> store = open_store("memory:")
    >>> store.run(begin("g-1", greet, "Ada")), store.run(begin("g-1", greet, "Ada"))
    (True, False)
    >>> store.run(begin("g-1", greet, "Bob"))
    Traceback (most recent call last):
    persist_effects.errors.FlowExists: flow 'g-1' is 'greet' with other arguments, and not 'greet' with ('Bob',): ...
    """
    begun = yield from begin_as(flow_id, flow, *args, tags=tags, queue=queue, priority=priority, token=token)
    return begun is not None


@program
def begin_as(
    flow_id: str,
    flow: Callable[..., Effect[Any]],
    *args: Any,
    tags: Mapping[str, str] | None = None,
    queue: str = "",
    priority: int = 0,
    token: bytes = b"",
) -> Effect[BegunFlow | None]:
    """Begin a flow, as `begin` does, for a host that is to run it.

    Args:
        flow_id: Its id.
        flow: The flow.
        args: Its arguments.
        tags: By which it is found in lists.
        queue: In which queue of the host it waits for its turn.
        priority: Those with a higher one have their turn first.
        token: The host's token.

    Returns:
        What it was begun with, for `persist_effects.flow.conduct`; None where it was there.

    Raises:
        FlowExists: If there is another flow of this id, or was one.
        InvalidRequest: If something cannot be kept, or is not what the flow takes.
    """
    check_flow_id(flow_id)
    check_integer("priority", priority, -(2**31))
    if queue != "":
        check_name("the name of a queue", queue)
    code = flow_code(flow)
    encoded = code.encode_args(args)
    kept = _checked_tags(tags)
    began = yield from now()
    begun = begun_of(Beginning(code.name, code.version, encoded, began, tags=kept, token=token), queue, priority)
    done = yield from perform(Transact(beginning_writes(flow_id, begun)))
    if not isinstance(done, Conflict):
        return begun
    there = yield from _beginning_of(flow_id)
    wanted = f"{code.name!r} with {repr_of(args)}"
    if there is None:
        raise FlowExists(flow_id, wanted, "not there any more")
    if there.flow != code.name:
        raise FlowExists(flow_id, wanted, repr(there.flow))
    if (there.first_args or there.args) != encoded:
        raise FlowExists(flow_id, wanted, f"{there.flow!r} with other arguments")
    return None


def _checked_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    given = {} if tags is None else tags
    if not isinstance(given, Mapping) or not all(type(part) is str for pair in given.items() for part in pair):
        raise InvalidRequest(f"tags is {describe(tags)}: give a dict of str, {{'customer': '7'}}")
    return dict(given)


def _beginning_of(flow_id: str) -> Effect[Beginning | None]:
    """What a flow was begun with, be it that it goes on or has ended."""
    events = yield from log.read(journal.journal_of(flow_id), limit=1)
    if not events:
        return None
    (event,) = events
    if event.type == journal.ENDED:
        return msgspec.convert(event.data, FlowEnded).beginning
    return msgspec.convert(event.data, Beginning)


@program
def send(flow_id: str, name: str, data: Any = None) -> Effect[int]:
    """Send a signal to a flow that goes on. It is kept until the flow asks for it.

    Args:
        flow_id: The flow.
        name: What the signal is called.
        data: What it says.

    Returns:
        Its number in the flow's inbox.

    Raises:
        NoSuchFlow: If there is none, or it has ended. Nothing was sent.

    >>> from interpreters import open_store
    >>> open_store("memory:").run(send("o-7", "approved"))
    Traceback (most recent call last):
    persist_effects.errors.NoSuchFlow: there is no flow 'o-7' that goes on: it was never begun
    """
    check_name("signal", name)
    return (yield from _tell(flow_id, "signal", {"name": name, "data": data}))


@program
def cancel(flow_id: str) -> Effect[int]:
    """Cancel a flow that goes on: `Cancelled` is raised where it waits, and its ``finally`` blocks are carried out.

    One that waits in a queue does not wait for its turn.

    Args:
        flow_id: The flow.

    Returns:
        The number of the message in its inbox.

    Raises:
        NoSuchFlow: If there is none, or it has ended.
    """
    return (yield from _tell(flow_id, "cancel", {}))


@program
def pause(flow_id: str) -> Effect[int]:
    """Have a flow begin nothing more until it is resumed. What it has begun goes on.

    Args:
        flow_id: The flow.

    Returns:
        The number of the message in its inbox.

    Raises:
        NoSuchFlow: If there is none, or it has ended.
    """
    return (yield from _tell(flow_id, "pause", {}))


@program
def resume(flow_id: str) -> Effect[int]:
    """Have a flow that was paused go on.

    Args:
        flow_id: The flow.

    Returns:
        The number of the message in its inbox.

    Raises:
        NoSuchFlow: If there is none, or it has ended.
    """
    return (yield from _tell(flow_id, "resume", {}))


@program
def resolve(flow_id: str, path: Path, value: Any = None, *, error: Exception | None = None) -> Effect[int]:
    """Say what came of a call that must not be repeated, and of which nobody knows, so that the flow goes on.

    Args:
        flow_id: The flow.
        path: The call's path, as `unresolved` gives it.
        value: What it returned.
        error: What it raised, in the place of a value.

    Returns:
        The number of the message in the flow's inbox.

    Raises:
        NoSuchFlow: If there is none, or it has ended.
    """
    encoded = None if error is not None else journal.encode_value(value, Any, "what came of it")[0]
    raised = None if error is None else journal.encode_raised(error)
    return (yield from _tell(flow_id, "resolve", {"path": list(path), "value": encoded, "error": raised}))


@program
def retry(flow_id: str) -> Effect[None]:
    """Have a flow that was halted or set aside be taken up again.

    Args:
        flow_id: The flow.

    Raises:
        InvalidRequest: If it is running or paused.
        NoSuchFlow: If there is none, or it has ended.
    """
    entry, standing = yield from open_of(flow_id)
    if standing.state not in (journal.HALTED, journal.SET_ASIDE):
        raise InvalidRequest(
            f"flow {flow_id!r} is {standing.state}: only one that is {journal.HALTED} or {journal.SET_ASIDE} is taken "
            "up again, and a paused one is resumed"
        )
    extent = yield from log.last_seq(journal.journal_of(flow_id))
    again = msgspec.structs.replace(standing, state=journal.RUNNING, error=None, owner=b"", retried=extent)
    put = KvPut(journal.OPEN + flow_id, again, entry.revision)
    done = yield from perform(Transact((put, message(flow_id, "begun", None))))
    if isinstance(done, Conflict):
        yield from retry(flow_id)


def _tell(flow_id: str, kind: str, data: Any) -> Effect[int]:
    """Put a message into the inbox of a flow, for as long as it goes on."""
    while True:
        entry, standing = yield from open_of(flow_id)
        key = journal.OPEN + flow_id
        writes: tuple[Write, ...] = (message(flow_id, kind, data),)
        checks: tuple[ExpectRevision, ...] = (ExpectRevision(key, entry.revision),)
        if kind == "cancel" and standing.queue and not standing.owner:
            # What only ends need not wait for its turn.
            out_of_line = msgspec.structs.replace(standing, queue="")
            writes, checks = (*writes, KvPut(key, out_of_line, entry.revision)), ()
        told = yield from perform(Transact(writes, checks))
        if not isinstance(told, Conflict):
            return int(told[0].last_seq)


def open_of(flow_id: str) -> Effect[tuple[Any, Open]]:
    """The key of a flow that goes on, as an entry and read. Raises `NoSuchFlow` where there is none."""
    check_flow_id(flow_id)
    entry = yield from perform(KvGet(journal.OPEN + flow_id))
    if entry is None:
        closed = yield from kv.get(journal.DONE + flow_id)
        ended = "it was never begun" if closed is None else f"it has ended, {msgspec.convert(closed, Closed).state}"
        raise NoSuchFlow(flow_id, ended)
    return entry, msgspec.convert(entry.value, Open)


# How flows stand


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
def own(flow_ids: Iterable[str], token: bytes) -> Effect[list[str]]:
    """Have flows whose turn in their queue has come belong to a host. Of several hosts, one gets each.

    Args:
        flow_ids: The flows.
        token: The host's.

    Returns:
        Those that belong to it now. The others have ended, or are another's.

    >>> from interpreters import open_store
    >>> def greet(name: str):
    ...     yield
    >>> store = open_store("memory:")
    >>> store.run(begin("g-1", greet, "Ada", queue="mail"))
    True
    >>> store.run(own(["g-1", "g-2"], b"one host")), store.run(own(["g-1"], b"another"))
    (['g-1'], [])
    """
    asked = tuple(flow_ids)
    entries = yield from all_of(*(KvGet(journal.OPEN + flow_id) for flow_id in asked))
    owned, puts = [], {}
    for flow_id, entry in zip(asked, entries, strict=True):
        if entry is None:
            continue
        standing = msgspec.convert(entry.value, Open)
        if standing.owner == token:
            owned.append(flow_id)
        elif not standing.owner:
            mine = msgspec.structs.replace(standing, owner=token)
            puts[flow_id] = KvPut(journal.OPEN + flow_id, mine, entry.revision)
    answers = yield from all_of(*puts.values())
    taken = (flow_id for flow_id, answer in zip(puts, answers, strict=True) if not isinstance(answer, Conflict))
    return [*owned, *taken]


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
    wanted = _checked_tags(tags)
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
