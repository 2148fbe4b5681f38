"""Commands for durable flows: which there are, what one has done, and what to tell it.

Those that tell a flow something write to its inbox: the host that runs it does what they say, or the next one that
begins.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec
import typer

from interpreters.cli.exits import exit_codes
from interpreters.cli.inputs import AnyUrl, AsJson, Yes, confirm, reading_any, value_in, writing_any
from interpreters.cli.output import lines_of_numbers, lines_of_table, print_answer, printable, time_of
from persist_effects import flow
from persist_effects.errors import InvalidRequest
from persist_effects.flow import FlowStatus, HistoryEntry, UnresolvedCall
from persist_effects.flow.journal import path_in, told_path
from persist_effects.machine import Effect

FlowId = Annotated[str, typer.Argument(metavar="ID", help="The flow's id.")]
AtEntry = Annotated[int, typer.Option("--at", help="The last entry of its journal that is kept: its number in `show`.")]

_HEAD = ("ID", "FLOW", "VERSION", "STATE", "RUN", "BEGAN", "ENDED", "TAGS")
_HISTORY_HEAD = ("ENTRY", "AT", "STEP", "KIND", "ASKED", "OUTCOME")


def list_flows(
    url: AnyUrl,
    *,
    name: Annotated[str | None, typer.Option("--flow", help="Only those of this name.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only those that are running, paused, halted, set-aside, completed, …")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only those with this tag, KEY=VALUE. May stand often.")] = None,
    prefix: Annotated[str, typer.Option(help="Only those whose ids begin with this.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell of flows, by their ids: first those that go on, then those that have ended."""
    with exit_codes(as_json), reading_any(url) as store:
        wanted = None if state is None else state.replace("-", " ")
        tags = dict(map(_tag_in, tag or []))
        found = store.run(flow.listing(flow=name, state=wanted, prefix=prefix, tags=tags, limit=limit))
        print_answer({"flows": found}, as_json, lambda _: _lines_of_flows(found))


def show(url: AnyUrl, flow_id: FlowId, as_json: AsJson = False) -> None:
    """Tell all of one flow: how it stands, what it has done, and the calls that wait to be resolved."""
    with exit_codes(as_json), reading_any(url) as store:
        found: FlowStatus = store.run(flow.status(flow_id))
        history, waiting = store.run(flow.history(flow_id)), store.run(flow.unresolved(flow_id))
        answer = {**msgspec.to_builtins(found), "history": history, "unresolved": waiting}
        print_answer(answer, as_json, lambda _: _lines_of(found, history, waiting))


def signal(
    url: AnyUrl,
    flow_id: FlowId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the signal is called.")],
    data: Annotated[str, typer.Argument(metavar="JSON", help="What it says.")] = "null",
    as_json: AsJson = False,
) -> None:
    """Send a signal to a flow that goes on. It is kept until the flow asks for it."""
    with exit_codes(as_json):
        _tell(url, flow_id, partial(flow.send, flow_id, name, value_in(data)), f"sent: {name} to {flow_id}", as_json)


def cancel(url: AnyUrl, flow_id: FlowId, as_json: AsJson = False) -> None:
    """Cancel a flow that goes on. It cleans up first."""
    with exit_codes(as_json):
        _tell(url, flow_id, partial(flow.cancel, flow_id), f"asked for: {flow_id} is cancelled", as_json)


def pause(url: AnyUrl, flow_id: FlowId, as_json: AsJson = False) -> None:
    """Have a flow begin nothing more until it is resumed."""
    with exit_codes(as_json):
        _tell(url, flow_id, partial(flow.pause, flow_id), f"asked for: {flow_id} is paused", as_json)


def resume(url: AnyUrl, flow_id: FlowId, as_json: AsJson = False) -> None:
    """Have a flow that was paused go on."""
    with exit_codes(as_json):
        _tell(url, flow_id, partial(flow.resume, flow_id), f"asked for: {flow_id} goes on", as_json)


def retry(url: AnyUrl, flow_id: FlowId, as_json: AsJson = False) -> None:
    """Have a flow that was halted or set aside be taken up again."""
    with exit_codes(as_json):
        _tell(url, flow_id, partial(flow.retry, flow_id), f"asked for: {flow_id} is taken up again", as_json)


def resolve(
    url: AnyUrl,
    flow_id: FlowId,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The call's path, as `show` tells it: 3, or 3.1.2.")],
    value: Annotated[str | None, typer.Argument(metavar="JSON", help="What the call returned.")] = None,
    *,
    error: Annotated[str | None, typer.Option(metavar="TEXT", help="It raised a RuntimeError that says this.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what came of a call that is never repeated, and of which nobody knows, so that the flow goes on."""
    with exit_codes(as_json):
        if (value is None) == (error is None):
            raise InvalidRequest("give what the call returned, as JSON, or what it raised, --error TEXT: one of both")
        path = path_in(step)
        raised = None if error is None else RuntimeError(error)
        answer = None if value is None else value_in(value)
        line = f"sent: what came of step {step} of {flow_id}"
        _tell(url, flow_id, partial(_resolve, flow_id, path, answer, raised), line, as_json)


def fork(
    url: AnyUrl,
    flow_id: FlowId,
    new_id: Annotated[str, typer.Argument(metavar="NEW", help="The id of the new flow.")],
    at: AtEntry,
    as_json: AsJson = False,
) -> None:
    """Begin a new flow that has done what another one had, up to an entry, and goes on from there."""
    with exit_codes(as_json), writing_any(url) as store:
        store.run(flow.fork(flow_id, new_id, at))
        answer = {"flow_id": flow_id, "new_id": new_id, "at": at}
        print_answer(answer, as_json, lambda _: [f"forked: {flow_id} at entry {at}, as {new_id}"])


def rewind(url: AnyUrl, flow_id: FlowId, at: AtEntry, yes: Yes = False, as_json: AsJson = False) -> None:
    """Have a flow that is paused, halted or set aside go on from an entry. Asks first, unless --yes is given."""
    with exit_codes(as_json), writing_any(url) as store:
        store.run(flow.status(flow_id))
        confirm(f"What flow {flow_id!r} did after entry {at} is dropped from its journal, and done again.", yes)
        store.run(flow.rewind(flow_id, at))
        print_answer({"flow_id": flow_id, "at": at}, as_json, lambda _: [f"rewound: {flow_id} to entry {at}"])


# What is asked


def _tell(url: str, flow_id: str, make: Callable[[], Effect[int | None]], line: str, as_json: bool) -> None:
    with writing_any(url) as store:
        answer = {"flow_id": flow_id, "message": store.run(make())}
        print_answer(answer, as_json, lambda _: [line])


def _resolve(flow_id: str, path: tuple[int, ...], value: Any, error: Exception | None) -> Effect[int]:
    waiting = yield from flow.unresolved(flow_id)
    if path not in [call.path for call in waiting]:
        those = ", ".join(told_path(call.path) for call in waiting) or "none"
        raise InvalidRequest(
            f"step {told_path(path)} of flow {flow_id!r} does not wait to be resolved: those that do: {those}"
        )
    return (yield from flow.resolve(flow_id, path, value, error=error))


def _tag_in(text: str) -> tuple[str, str]:
    """A tag and its value.

    >>> _tag_in("customer=7")
    ('customer', '7')
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequest(f"a tag is {text!r}: give KEY=VALUE")
    return name, value


# What is printed


def _lines_of_flows(found: list[FlowStatus]) -> list[str]:
    return lines_of_table(_HEAD, [_row(each) for each in found]) if found else ["there is no such flow"]


def _row(each: FlowStatus) -> list[str]:
    numbers = [each.flow, str(each.version), each.state, str(each.run), time_of(each.began), _ended(each)]
    return [printable(text) for text in (each.flow_id, *numbers, _tags(each))]


def _ended(each: FlowStatus) -> str:
    return "-" if each.ended is None else time_of(each.ended)


def _tags(each: FlowStatus) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(each.tags.items())) or "-"


def _lines_of(found: FlowStatus, history: list[HistoryEntry], waiting: list[UnresolvedCall]) -> list[str]:
    numbers = {
        "id": found.flow_id,
        "flow": found.flow,
        "version": found.version,
        "state": found.state,
        "run": found.run,
        "began": time_of(found.began),
        "ended": _ended(found),
        "queue": found.queue or "-",
        "tags": printable(_tags(found)),
        "error": printable(found.error or "-"),
    }
    rows = [_row_of_history(entry) for entry in history]
    return [*lines_of_numbers(numbers), *lines_of_table(_HISTORY_HEAD, rows), *map(_line_of_unresolved, waiting)]


def _row_of_history(entry: HistoryEntry) -> list[str]:
    """One row for people.

    >>> _row_of_history(HistoryEntry(2, 0, 1, "started", (3, 1), "sleep(…)", due=60_000_000))[2:]
    ['3.1', 'started', 'sleep(…)', 'due 1970-01-01T00:01:00+00:00']
    """
    outcome = entry.outcome if entry.due is None else f"due {time_of(entry.due)}"
    told = [printable(text) or "-" for text in (told_path(entry.path), entry.kind, entry.asked, outcome)]
    return [str(entry.seq), time_of(entry.at), *told]


def _line_of_unresolved(call: UnresolvedCall) -> str:
    """One line for people.

    >>> _line_of_unresolved(UnresolvedCall((3,), "call(charge, 500)", 4, 0))
    'unresolved: step 3: call(charge, 500), begun at 1970-01-01T00:00:00+00:00, with no outcome'
    """
    asked = printable(call.asked)
    return f"unresolved: step {told_path(call.path)}: {asked}, begun at {time_of(call.at)}, with no outcome"
