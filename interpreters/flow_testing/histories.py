"""Journals of flows as files, and whether the code of today still fits them.

Each flow has a file of JSON Lines, which reads well and shows in a diff what has changed. Values stand as
`persist_effects.json_values` writes them; an entry has a line, and so has each of its steps; a last line counts them,
so that a file that was cut is refused::

    {"format": "persist-effects flow", "version": 1, "flow_id": "o-1"}
    {"begun": {"flow": "order", "version": 1, "args": ["o-1", 500], "began": 1700000000000000}, "seq": 1, "at": …}
    {"steps": 1, "seq": 2, "at": 1700000000000000}
    {"step": "1", "asked": ["flow/call", "charge", ["o-1", 500]], "answer": "receipt 7"}
    {"end": {"entries": 2, "steps": 1}}

What a replay does not need is not there: which host wrote an entry, and that it took the flow over. What is
kept as bytes is shown as what it is. Where that would not give the same bytes again they stand as ``{"$encoded": …}``.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from interpreters.runtime.store import Store
from persist_effects import flow as flows_
from persist_effects import log
from persist_effects.errors import InvalidRequest, NoSuchFlow, PersistError, describe
from persist_effects.event import Event, check_name
from persist_effects.flow import journal
from persist_effects.flow.defining import Flows
from persist_effects.flow.journal import (
    ANSWER,
    CANCEL,
    ERROR,
    NOTED,
    PASSED,
    PATCHED,
    STARTED,
    JournalStep,
    path_in,
    told_path,
)
from persist_effects.json_values import decode_line, from_json, to_json
from persist_effects.machine import Effect
from persist_effects.trace.errors import errors_by_name
from persist_effects.trace.values import decode, encode

FORMAT, VERSION = "persist-effects flow", 1
_SUFFIX = ".jsonl"

_ARGS = ("args", "first_args")
"""What is encoded in the data of ``begun``: lists of arguments, each encoded."""

_ENCODED = "$encoded"

_NAMES_SHOWN = 10
_encode_line = msgspec.json.Encoder().encode


def export_histories(store: Store, directory: str | Path, *, flow_ids: Iterable[str] | None = None) -> int:
    """Write the journals of flows that go on as files, for `replay_histories`. A file of the same flow is replaced.

    A flow that has ended has no journal any more, and cannot stop a deployment.

    Args:
        store: Where the flows are.
        directory: Where the files go. It is made where it is not there.
        flow_ids: Which flows; None: all that go on.

    Returns:
        How many there were.

    Raises:
        NoSuchFlow: If a flow that was named does not go on. Nothing was written.

    >>> import tempfile
    >>> from interpreters import open_store
    >>> from persist_effects import flow
    >>> def trial(customer: str):
    ...     yield from flow.sleep(30 * 86_400)
    >>> with open_store("memory:") as store, tempfile.TemporaryDirectory() as directory:
    ...     _ = store.run(flow.begin("t-1", trial, "Ada"))
    ...     export_histories(store, directory), [path.name for path in Path(directory).iterdir()]
    (1, ['t-1.jsonl'])
    """
    if flow_ids is None:
        wanted = [each.flow_id for each in store.run(flows_.listing()) if each.ended is None]
    elif isinstance(flow_ids, str):
        raise InvalidRequest(f"flow_ids is {describe(flow_ids)}: give a list of ids")
    else:
        wanted = list(flow_ids)
    files = {}
    for flow_id in wanted:
        events = store.run(log.read(journal.journal_of(flow_id)))
        if events and events[0].type == journal.BEGUN:
            files[_file_name(flow_id)] = _lines_of(flow_id, events)
        elif flow_ids is not None:
            raise NoSuchFlow(flow_id, "it was never begun" if not events else "it has ended")
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (Path(directory) / name).write_bytes(b"".join(_encode_line(line) + b"\n" for line in lines))
    return len(files)


def replay_histories(
    flows: Iterable[Callable[..., Effect[Any]]], directory: str | Path, errors: Collection[type[Exception]] = ()
) -> int:
    """Run flows from recorded journals, and compare what they ask with what is recorded. Nothing is performed.

    In a test, before code is deployed that flows which go on will meet::

        def test_flows_that_go_on_fit_the_code():
            replay_histories([order, trial], "tests/histories")

    Args:
        flows: The code that is to be deployed.
        directory: Where `export_histories` has written.
        errors: Classes of errors that activities and flows raise, as for a `FlowHost`.

    Returns:
        How many journals fit.

    Raises:
        ExceptionGroup: If some do not: for each of them what was expected and what the code did, with its file in a
            note. `Nondeterministic` where it does something else, `NoSuchFlow` where the code is not there, and
            `InvalidRequest` where it takes other arguments, or what is recorded is not of the types that it gives.
        InvalidRequest: If there are no files there, or one is not what was written.

    >>> import tempfile
    >>> from interpreters.flow_testing import flow_test
    >>> from persist_effects import flow
    >>> def remind(customer: str) -> None: ...
    >>> def trial(customer: str):
    ...     yield from flow.sleep(30 * 86_400)
    >>> def changed_trial(customer: str):
    ...     yield from flow.call(remind, customer)
    ...     yield from flow.sleep(30 * 86_400)
    >>> with flow_test([trial]) as test, tempfile.TemporaryDirectory() as directory:
    ...     _ = test.start(trial, "t-1", "Ada")
    ...     test.run_until_idle()
    ...     _ = export_histories(test.store, directory)
    ...     fitting = replay_histories([trial], directory)
    ...     try:
    ...         replay_histories([flow.defined(name="trial")(changed_trial)], directory)
    ...     except ExceptionGroup as group:
    ...         print(fitting, group.exceptions[0].actual)
    1 step 1, call(remind, 'Ada')
    """
    code, kinds = Flows(flows), errors_by_name(errors)
    paths = sorted(Path(directory).glob(f"*{_SUFFIX}"))
    if not paths:
        raise InvalidRequest(
            f"{str(directory)!r} has no histories, files that end in {_SUFFIX}: write some with export_histories, or "
            "name the directory where they are"
        )
    misfits: dict[str, Exception] = {}
    for path in paths:
        flow_id, events = _read(path)
        try:
            flows_.check_history(flow_id, code, events, errors=kinds)
        except Exception as error:
            error.add_note(f"its history: {path}")
            misfits[path.name] = error
    if misfits:
        names = ", ".join([*misfits][:_NAMES_SHOWN]) + (", …" if len(misfits) > _NAMES_SHOWN else "")
        told = f"of {len(paths)} histories in {str(directory)!r}, {len(misfits)} do not fit the code: {names}"
        raise ExceptionGroup(told, list(misfits.values()))
    return len(paths)


_LONGEST_NAME = 200


def _file_name(flow_id: str) -> str:
    """The name of a flow's file. A long one is cut, with a part that tells it from others that begin alike."""
    name = quote(flow_id, safe="")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}~{blake2b(flow_id.encode(), digest_size=8).hexdigest()}"
    return name + _SUFFIX


# To lines


def _lines_of(flow_id: str, events: Iterable[Event]) -> Iterator[dict[str, Any]]:
    entries = steps = 0
    yield {"format": FORMAT, "version": VERSION, "flow_id": flow_id}
    for event in events:
        place = {"seq": event.seq, "at": event.at}
        if event.type == journal.BEGUN:
            entries += 1
            yield {"begun": _beginning_to_json(event.data), **place}
        elif event.type == journal.STEPS:
            entries += 1
            ours = journal.decode_steps(event.data["steps"])
            steps += len(ours)
            noted = {} if event.meta is None else {"noted": to_json(event.meta)}
            yield {"steps": len(ours), **place, **noted}
            yield from map(_step_to_json, ours)
    yield {"end": {"entries": entries, "steps": steps}}


def _beginning_to_json(data: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in data.items():
        if name in _ARGS and value is not None:
            shown[name] = [_encoded_to_json(part) for part in decode(value)]
        elif name != "token":
            shown[name] = to_json(value)
    return shown


def _step_to_json(step: JournalStep) -> dict[str, Any]:
    line: dict[str, Any] = {"step": told_path(step.path)}
    if step.kind == PATCHED:
        line["patched"] = step.known.decode()
    elif step.kind in (CANCEL, PASSED):
        line["cancelled" if step.kind == CANCEL else "passed over"] = True
    else:
        line["asked"] = _encoded_to_json(step.known)
        line.update(_outcome_to_json(step))
    return line if step.message is None else {**line, "message": step.message}


def _outcome_to_json(step: JournalStep) -> dict[str, Any]:
    outcome = step.outcome
    if step.kind == ANSWER:
        assert isinstance(outcome, bytes), "an answer is encoded"
        return {"answer": _encoded_to_json(outcome)}
    if step.kind == ERROR:
        assert isinstance(outcome, bytes), "an error is encoded"
        return {"error": [_encoded_to_json(each) for each in decode(outcome)]}
    if step.kind == NOTED:
        return {"noted": True}
    if isinstance(outcome, bytes):
        return {"began": outcome.decode()}
    return {"began": to_json(outcome)}


def _encoded_to_json(encoded: bytes) -> Any:
    """What bytes hold, where those are made of it again; else the bytes."""
    try:
        plain = to_json(decode(encoded))
        is_same = encode(from_json(plain)) == encoded
    except (PersistError, TypeError, ValueError):
        plain, is_same = None, False
    return plain if is_same else {_ENCODED: to_json(encoded)["$bytes"]}


# From lines


def _read(path: Path) -> tuple[str, list[Event]]:
    """The flow that a file is of, and its journal. Raises `InvalidRequest` for what was not exported."""
    reader = _Reader()
    number = 0
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            reader.take(decode_line(line))
        except (KeyError, TypeError, ValueError, AttributeError, PersistError) as error:
            raise InvalidRequest(f"{path}, line {number}: {_told_of_line(error)}: export the history anew") from error
    if not reader.has_ended:
        raise InvalidRequest(f'{path}: it has no last line, {{"end": …}}, so it was cut: export the history anew')
    return reader.flow_id, reader.events()


def _told_of_line(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


class _Reader:
    """Takes the lines of a file in order."""

    def __init__(self) -> None:
        self.flow_id = ""
        self.has_ended = False
        self._entries: list[tuple[dict[str, Any], list[JournalStep]]] = []
        self._steps = 0

    def take(self, line: Any) -> None:
        """Take the next line."""
        if not isinstance(line, dict):
            raise InvalidRequest(f"it is {describe(line)}, and not an object")
        if self.has_ended:
            raise InvalidRequest("there is more behind the last line")
        if not self.flow_id:
            if (line.get("format"), line.get("version")) != (FORMAT, VERSION):
                raise InvalidRequest(f'expected {{"format": "{FORMAT}", "version": {VERSION}}}')
            check_name("flow_id", line["flow_id"])
            self.flow_id = line["flow_id"]
        elif "end" in line:
            self._end(line["end"])
        elif "step" in line:
            self._entries[-1][1].append(_step_from_json(line))
            self._steps += 1
        elif "begun" in line or "steps" in line:
            self._entries.append((line, []))
        else:
            raise InvalidRequest(f"it is none of begun, steps, step and end, but {', '.join(line)}")

    def _end(self, counted: Any) -> None:
        found = {"entries": len(self._entries), "steps": self._steps}
        if counted != found:
            raise InvalidRequest(f"expected {counted}, found {found}: lines are missing, or there twice")
        self.has_ended = True

    def events(self) -> list[Event]:
        """The journal that the lines are of."""
        return [self._event(number, *entry) for number, entry in enumerate(self._entries, 1)]

    def _event(self, number: int, line: dict[str, Any], steps: list[JournalStep]) -> Event:
        stream = journal.journal_of(self.flow_id)
        if "begun" in line:
            data = _beginning_from_json(line["begun"])
            return Event(stream, line["seq"], journal.BEGUN, line["at"], data, number)
        data = {"steps": journal.encode_steps(steps)}
        noted = from_json(line["noted"]) if "noted" in line else None
        return Event(stream, line["seq"], journal.STEPS, line["at"], data, number, noted)


def _beginning_from_json(shown: dict[str, Any]) -> dict[str, Any]:
    return {
        name: encode([_encoded_from_json(part) for part in value])
        if name in _ARGS and value is not None
        else from_json(value)
        for name, value in shown.items()
    }


def _step_from_json(line: dict[str, Any]) -> JournalStep:
    path, message = path_in(line["step"]) if line["step"] else (), line.get("message")
    if "patched" in line:
        return JournalStep(path, line["patched"].encode(), PATCHED, None, message)
    if "cancelled" in line:
        return JournalStep(path, b"", CANCEL, None, message)
    if "passed over" in line:
        return JournalStep(path, b"", PASSED, None, message)
    return JournalStep(path, _encoded_from_json(line["asked"]), *_outcome_from_json(line), message)


def _outcome_from_json(line: dict[str, Any]) -> tuple[int, bytes | int | None]:
    if "answer" in line:
        return ANSWER, _encoded_from_json(line["answer"])
    if "error" in line:
        return ERROR, encode([_encoded_from_json(each) for each in line["error"]])
    if "noted" in line:
        return NOTED, None
    began = line["began"]
    return STARTED, began.encode() if isinstance(began, str) else from_json(began)


def _encoded_from_json(plain: Any) -> bytes:
    if isinstance(plain, dict) and plain.keys() == {_ENCODED}:
        found = from_json({"$bytes": plain[_ENCODED]})
        assert isinstance(found, bytes), "it is read as such"
        return found
    return encode(from_json(plain))
