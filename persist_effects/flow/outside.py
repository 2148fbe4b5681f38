"""What others do with a flow: begin it, and tell it something. Programs, which any store runs.

They write to the flow's inbox, never to its journal: the host that owns it takes messages from there.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from persist_effects import kv, log
from persist_effects.clock import now
from persist_effects.errors import FlowExists, InvalidRequest, NoSuchFlow, repr_of
from persist_effects.event import check_integer, check_name
from persist_effects.flow import journal
from persist_effects.flow.defining import flow_code
from persist_effects.flow.journal import (
    Beginning,
    BegunFlow,
    Closed,
    FlowEnded,
    Open,
    beginning_writes,
    begun_of,
    message,
)
from persist_effects.flow.replay import Path
from persist_effects.flow.requests import check_flow_id, checked_tags
from persist_effects.machine import Effect, all_of, perform
from persist_effects.programs import program
from persist_effects.requests import Conflict, ExpectRevision, KvGet, KvPut, Transact, Write


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
    kept = checked_tags(tags)
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
