"""What must be true of events, and of what was answered to those who appended them: without the explorer's checker.

Each value is written by one client, in one stream: by one request, or where that was not acknowledged by another one
that has the same.
"""

from collections import Counter, defaultdict
from typing import Any

from overlapping import Asked

from persist_effects import Event, StoreUnavailable
from persist_effects.requests import Answered, Append, Appended, Conflict, Failed, KvGet, KvPut, Transact


def append_problems(asked: list[Asked], events: list[Event]) -> list[str]:
    """What is wrong with events, and with what was answered to those who appended them.

    Args:
        asked: All that was asked.
        events: All events that are there, by position. None was ever dropped.

    Returns:
        What is wrong, in words; nothing, if nothing is.
    """
    there: dict[Any, list[Event]] = defaultdict(list)
    for event in events:
        there[_frozen(event.data)].append(event)
    return [
        *_numbers_that_are_wrong(events),
        *(f"{value} is there {len(found)} times" for value, found in there.items() if len(found) > 1),
        *(problem for one in asked for problem in _wrong_with_answer(one, there)),
        *_never_written(asked, there),
        *_halves(asked, there),
    ]


def _frozen(value: Any) -> Any:
    """What the clients write are lists; `append_once` keeps dicts of its own under its keys."""
    return tuple(value) if isinstance(value, list) else str(value)


def _numbers_that_are_wrong(events: list[Event]) -> list[str]:
    found = []
    last: Counter[str] = Counter()
    position = 0
    for event in events:
        if event.position <= position:
            found.append(f"position {event.position} comes after {position}")
        position = event.position
        if event.seq != last[event.stream] + 1:
            found.append(f"{event.stream}: {event.seq} comes after {last[event.stream]}")
        last[event.stream] = event.seq
    return found


def _writes(request: Any) -> tuple[Any, ...]:
    return request.writes if isinstance(request, Transact) else (request,)


def _wrong_with_answer(one: Asked, there: dict[Any, list[Event]]) -> list[str]:
    """Whether each acknowledged event is where the answer says, and nowhere else."""
    if isinstance(one.outcome, Failed) or isinstance(one.outcome.value, Conflict):
        return []
    answers = one.outcome.value if isinstance(one.request, Transact) else [one.outcome.value]
    found = []
    for write, answer in zip(_writes(one.request), answers, strict=True):
        if not isinstance(write, Append):
            continue
        assert isinstance(answer, Appended)
        first = answer.position - len(write.events) + 1
        for index, draft in enumerate(write.events):
            expected = write.stream, answer.first_seq + index, first + index, draft.type
            told = [(event.stream, event.seq, event.position, event.type) for event in there[_frozen(draft.data)]]
            if told != [expected]:
                found.append(f"{draft.data} was acknowledged as {expected}, and there is {told}")
    return found


def _never_written(asked: list[Asked], there: dict[Any, list[Event]]) -> list[str]:
    """What is there though whoever appended it was told that nothing was written."""
    may_be: set[Any] = set()
    refused: set[Any] = set()
    for one in asked:
        values = {
            _frozen(draft.data) for write in _writes(one.request) if isinstance(write, Append) for draft in write.events
        }
        is_refused = isinstance(one.outcome, Failed) and isinstance(one.outcome.error, StoreUnavailable)
        if is_refused or (isinstance(one.outcome, Answered) and isinstance(one.outcome.value, Conflict)):
            refused |= values
        else:
            may_be |= values
    return [f"{value} was not written, it was said, and is there" for value in sorted(refused - may_be) if there[value]]


def _halves(asked: list[Asked], there: dict[Any, list[Event]]) -> list[str]:
    """What was written by half: some events of a request, or a value whose events are not there."""
    found = []
    shown = {
        _frozen(one.outcome.value.value)
        for one in asked
        if isinstance(one.request, KvGet) and isinstance(one.outcome, Answered) and one.outcome.value is not None
    }
    for one in asked:
        drafts = [draft for write in _writes(one.request) if isinstance(write, Append) for draft in write.events]
        written = [draft for draft in drafts if there[_frozen(draft.data)]]
        if 0 < len(written) < len(drafts):
            found.append(f"of {drafts} there is only {written}")
        puts = [write for write in _writes(one.request) if isinstance(write, KvPut)]
        if drafts and not written and any(_frozen(put.value) in shown for put in puts):
            found.append(f"{puts} is there, and {drafts} is not")
    return found
