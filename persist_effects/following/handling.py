"""Letting events take effect: the handler is asked, and what it writes is one transaction with the checkpoint.

Where a handler fails, the event is tried again as often as was said, with a wait between; then the follower stops,
skips the event, or sets it aside. What is set aside takes its stream with it: later events of that stream are set aside
too, so that they take effect in their order once the first one does.
"""

from collections.abc import Callable, Sequence
from types import GeneratorType
from typing import Any, Literal

import msgspec

from persist_effects.errors import (
    Abandoned,
    CorruptStore,
    Diverged,
    InternalError,
    InvalidRequest,
    Spinning,
    StoreUnavailable,
    Truncated,
    UncertainOutcome,
    UnhandledEffect,
    describe_type,
)
from persist_effects.event import Draft, Event, check_integer
from persist_effects.following.checkpoint import CHECKPOINT, Checkpoint
from persist_effects.following.records import Aside, Reached, aside_stream, plain
from persist_effects.machine import Effect, perform
from persist_effects.requests import Append, Conflict, KvDelete, KvPut, Read, Sleep, Write

FollowHandler = Callable[..., Effect[Sequence[Write]] | Sequence[Write]]
"""A function of an event, and of a version of the read model where there is one. Returns writes, or a program."""

OnError = Literal["stop", "skip", "set-aside"]
ON_ERROR: tuple[OnError, ...] = ("stop", "skip", "set-aside")

_NOT_THE_EVENTS = (
    Abandoned,
    CorruptStore,
    Diverged,
    InternalError,
    Spinning,
    StoreUnavailable,
    UncertainOutcome,
    UnhandledEffect,
)
"""What a handler meets that no other event would spare it."""

_SAID_CHARACTERS = 2_000
"""How much of an error's words is kept."""

_ATTEMPTS = 100
"""How often a follower tries the same events that meet conflicts: more often than a busy neighbour makes it lose."""


class Retry(msgspec.Struct, frozen=True):
    """How often a handler that fails is asked again for the same event, and how long is waited before.

    Before the first time ``wait_seconds``, and before each further one ``factor`` times as long as before, at most
    ``longest_seconds``. The wait is a request, so that it takes no time where time is virtual.

    >>> [Retry(4, wait_seconds=1, factor=3, longest_seconds=20).seconds_before(time) for time in (1, 2, 3, 4)]
    [1.0, 3.0, 9.0, 20.0]
    """

    times: int = 0
    wait_seconds: float = 1.0
    factor: float = 2.0
    longest_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_integer("times", self.times)
        for name in ("wait_seconds", "longest_seconds", "factor"):
            given, least = getattr(self, name), 1 if name == "factor" else 0
            if type(given) not in (int, float) or not least <= given < 1e9:
                raise InvalidRequest(f"{name} is {given!r}: give a number from {least} on")

    def seconds_before(self, time: int) -> float:
        """How long is waited before a handler is asked again for the so-and-so-manieth time, from 1 on."""
        return float(min(self.longest_seconds, self.wait_seconds * self.factor ** min(time - 1, 100)))


def pause(seconds: float) -> Effect[None]:
    """Wait, and do nothing else.

    >>> next(pause(5))
    Sleep(seconds=5)
    """
    yield from perform(Sleep(seconds))


class Handling:
    """Has a handler's writes take effect, event by event or by batches, and knows what to do where it fails.

    Args:
        name: The follower's name.
        handler: Says what an event is to write.
        batch: How many events share a transaction.
        on_error: What comes after the last try.
        retry: How often, and when, it is tried again.
    """

    def __init__(
        self,
        name: str,
        handler: FollowHandler,
        batch: int,
        on_error: OnError,
        retry: Retry,
    ) -> None:
        self._name = name
        self._handler = handler
        self.batch = self._batch = batch
        self._on_error = on_error
        self._retry = retry
        self.pause = pause
        """Waits so many seconds before a handler is asked again."""
        self._model: tuple[Any, ...] = ()
        self._attempts_left = _ATTEMPTS
        self._lost: str | None = None
        # By position: events that met too many conflicts, and how often the handler has failed.
        self._hopeless: dict[int, InvalidRequest] = {}
        self._failures: dict[int, int] = {}

    def fill(self, model: Any | None) -> None:
        """Say which version of the read model is to be filled."""
        self._model = () if model is None else (model,)

    def reloaded(self, has_moved: bool) -> None:
        """A checkpoint was read again: where it has not moved since a conflict, the same events are tried again."""
        lost, self._lost = self._lost, None
        if has_moved:
            # Another follower of this name let these events take effect: the race was lost, and nothing is wrong.
            self._attempts_left = _ATTEMPTS
            self._hopeless.clear()
        elif lost is not None:
            self._attempts_left -= 1

    def handle(self, checkpoint: Checkpoint[Any], events: Sequence[Event]) -> Effect[bool]:
        """Let these events take effect, batch by batch. False: something changed meanwhile, so load and begin anew."""
        size = self._batch
        for first in range(0, len(events), size):
            batch = events[first : first + size]
            while batch:
                handled = yield from self._handle_some(checkpoint, batch)
                if not handled:
                    return False
                batch = batch[handled:]
        self._batch = self.batch
        return True

    def _handle_some(self, checkpoint: Checkpoint[Any], batch: Sequence[Event]) -> Effect[int]:
        """Let the first events of a batch take effect, up to one that fails, or that one. How many; 0: begin anew."""
        held = (yield from self._held_back(checkpoint, batch)) if checkpoint.has_asides else {}
        writes, error, count = yield from self._writes_for(batch, held)
        if error is not None:
            if not count:
                return (yield from self._failed(checkpoint, batch[0], error))
            batch = batch[:count]
        more = _held_more(batch, held) if held else []
        writes += [KvPut(checkpoint.aside_key(aside.stream), plain(aside), revision) for aside, revision in more]
        answers = yield from self._commit(checkpoint, batch, writes)
        if answers is None:
            return 0
        for (aside, _), revision in zip(more, answers[len(answers) - len(more) :], strict=True):
            checkpoint.note_aside(aside, revision)
        return count

    def _commit(
        self, checkpoint: Checkpoint[Any], batch: Sequence[Event], writes: Sequence[Write]
    ) -> Effect[list[Any] | None]:
        """The answers of these writes, in one transaction with the checkpoint. None: begin anew."""
        try:
            answers = yield from checkpoint.advance(batch[-1].position, writes)
        except InvalidRequest as error:
            # What the handler has written is refused. In a batch nobody knows for which event, so they go one by one.
            if len(batch) == 1:
                return [] if (yield from self._failed(checkpoint, batch[0], error)) else None
            self._batch = 1
            return None
        if isinstance(answers, Conflict):
            self._note_lost(batch, answers)
            return None
        self._attempts_left = _ATTEMPTS
        if self._failures:
            for event in batch:
                self._failures.pop(event.position, None)
        return answers

    def _note_lost(self, batch: Sequence[Event], conflict: Conflict) -> None:
        self._lost = self._say_stuck(batch, conflict)
        # Handlers of one batch do not see each other's writes, so the next try lets them go one by one. A
        # checkpoint that has moved says only that another follower was quicker.
        is_last_attempt = self._attempts_left <= 1
        if is_last_attempt or conflict.write not in {CHECKPOINT, None}:
            self._batch = 1
        if is_last_attempt:
            self._hopeless[batch[0].position] = InvalidRequest(self._lost)

    # Asking the handler

    def _writes_for(
        self, events: Sequence[Event], held: dict[str, tuple[Aside, int]]
    ) -> Effect[tuple[list[Write], Exception | None, int]]:
        """What the handler writes for the first of these events, the error that ends them, and how many they are."""
        writes: list[Write] = []
        for count, event in enumerate(events):
            if held and event.stream in held:
                continue
            try:
                if self._hopeless:
                    self._raise_if_hopeless(event)
                said = self._handler(event, *self._model)
                if type(said) is GeneratorType:
                    said = yield from said
                if not isinstance(said, list | tuple):
                    raise self._no_writes(event, said)
            except _NOT_THE_EVENTS:
                raise
            except Exception as error:
                return writes, error, count
            writes += said
        return writes, None, len(events)

    def _raise_if_hopeless(self, event: Event) -> None:
        hopeless = self._hopeless.pop(event.position, None)
        if hopeless is not None:
            self._attempts_left = _ATTEMPTS
            raise hopeless

    def _no_writes(self, event: Event, said: object) -> InvalidRequest:
        return InvalidRequest(
            f"the handler of follower {self._name!r} gave {describe_type(said)} for the event at position "
            f"{event.position}: give a list of writes, an empty one where there are none"
        )

    # Where it fails

    def _failed(self, checkpoint: Checkpoint[Any], event: Event, error: Exception) -> Effect[int]:
        """Do what is to be done about an event whose handler has failed. 1: it is behind us; 0: begin anew."""
        failures = self._failures[event.position] = self._failures.get(event.position, 0) + 1
        if failures <= self._retry.times:
            yield from self.pause(self._retry.seconds_before(failures))
            return 0
        del self._failures[event.position]
        if self._on_error == "stop":
            error.add_note(self._say_stopped(event, failures))
            raise error
        answers = yield from self._pass_by(checkpoint, event, error, failures)
        return 0 if isinstance(answers, Conflict) else 1

    def _pass_by(
        self, checkpoint: Checkpoint[Any], event: Event, error: Exception, failures: int
    ) -> Effect[list[Any] | Conflict]:
        record: Reached = checkpoint.record
        if self._on_error == "skip":
            return (yield from checkpoint.advance(event.position, skipped=record.skipped + 1))
        yield from checkpoint.asides()
        aside = Aside(event.stream, event.seq, event.seq, event.position)
        held = KvPut(checkpoint.aside_key(event.stream), plain(aside), 0)
        writes: list[Write] = [held, self._told(event, error, failures)]
        answers = yield from checkpoint.advance(event.position, writes, aside=record.aside + 1)
        if not isinstance(answers, Conflict):
            checkpoint.note_aside(aside, answers[CHECKPOINT + 1])
        return answers

    def _told(self, event: Event, error: Exception, failures: int) -> Append:
        """The event that says what was set aside, and why. It refers to the event: its data stays where it is."""
        said = {
            "stream": event.stream,
            "seq": event.seq,
            "position": event.position,
            "type": event.type,
            "error": f"{type(error).__name__}: {error}"[:_SAID_CHARACTERS],
            "tried": failures,
        }
        return Append(aside_stream(self._name), (Draft("set-aside", said),))

    def _say_stopped(self, event: Event, failures: int) -> str:
        tried = "" if failures == 1 else f" {failures} times"
        return (
            f"raised{tried} by the handler of follower {self._name!r} for event {event.seq} of stream "
            f"{event.stream!r}, type {event.type!r}, position {event.position}. The follower stopped before it: mend "
            "the handler and follow again, or go past such events by on_error='set-aside' or 'skip'"
        )

    def _say_stuck(self, events: Sequence[Event], conflict: Conflict) -> str:
        first, last = events[0], events[-1]
        return (
            f"follower {self._name!r} cannot go on: what its handler writes for the events at positions "
            f"{first.position} to {last.position} met a conflict {_ATTEMPTS} times, the last time {conflict}: "
            "the handler must expect the revisions and sequences that it reads, and leave the writing to the follower"
        )

    # What was set aside

    def _held_back(self, checkpoint: Checkpoint[Any], batch: Sequence[Event]) -> Effect[dict[str, tuple[Aside, int]]]:
        """Of the streams of a batch, those of which events were set aside."""
        asides = yield from checkpoint.asides()
        return {event.stream: asides[event.stream] for event in batch if event.stream in asides}

    def try_again(self, checkpoint: Checkpoint[Any], types: Sequence[str] | None, skips: bool) -> Effect[bool]:
        """Let what was set aside take effect, each stream up to the first event that fails again. False: begin anew."""
        asides = yield from checkpoint.asides()
        for aside, revision in sorted(asides.values(), key=lambda found: found[0].position):
            if not (yield from self._try_stream(checkpoint, aside, revision, types, skips)):
                return False
        answers = yield from checkpoint.advance(checkpoint.position, retry=False)
        return not isinstance(answers, Conflict)

    def _try_stream(
        self, checkpoint: Checkpoint[Any], aside: Aside, revision: int, types: Sequence[str] | None, skips: bool
    ) -> Effect[bool]:
        key = checkpoint.aside_key(aside.stream)
        after = aside.first - 1
        while after < aside.through:
            page = yield from perform(Read(aside.stream, after, aside.through))
            if page.hole is not None and not skips:
                raise Truncated(page.hole.stream, page.hole.first_left)
            after = page.next
            for event in page.events:
                if types is not None and event.type not in types:
                    continue
                aside = Aside(aside.stream, event.seq, aside.through, event.position)
                tried = yield from self._tried_again(checkpoint, aside, revision, event)
                if not isinstance(tried, list):
                    return tried
                revision = tried[CHECKPOINT + 1]
        # The last of them was truncated, and is passed over.
        gone = KvDelete(key, revision)
        answers = yield from checkpoint.advance(checkpoint.position, [gone], aside=checkpoint.record.aside - 1)
        checkpoint.note_no_aside(aside.stream)
        return not isinstance(answers, Conflict)

    def _tried_again(
        self, checkpoint: Checkpoint[Any], aside: Aside, revision: int, event: Event
    ) -> Effect[list[Any] | bool]:
        """The answers where it took effect and others follow; True: the stream is done with; False: begin anew."""
        key, stream = checkpoint.aside_key(aside.stream), aside.stream
        left = msgspec.structs.replace(aside, first=event.seq + 1)
        is_last = event.seq == aside.through
        after: Write = KvDelete(key, revision) if is_last else KvPut(key, plain(left), revision)
        writes, error, _ = yield from self._writes_for([event], {})
        answers: list[Any] | Conflict | None = None
        if error is None:
            count = checkpoint.record.aside - is_last
            try:
                answers = yield from checkpoint.advance(checkpoint.position, [after, *writes], aside=count)
            except InvalidRequest as refused:
                error = refused
        if answers is None:
            assert error is not None, "it was refused, or the handler has failed"
            left, is_last = aside, False
            still: list[Write] = [KvPut(key, plain(aside), revision), self._told(event, error, 1)]
            answers = yield from checkpoint.advance(checkpoint.position, still)
        if isinstance(answers, Conflict):
            self._note_lost([event], answers)
            return False
        if is_last:
            checkpoint.note_no_aside(stream)
        else:
            checkpoint.note_aside(left, answers[CHECKPOINT + 1])
        return True if is_last or error is not None else answers


def _held_more(events: Sequence[Event], held: dict[str, tuple[Aside, int]]) -> list[tuple[Aside, int]]:
    """What is to be set aside too of streams of which others are, and the revisions of what is kept of them now."""
    newest = {event.stream: event.seq for event in events if event.stream in held}
    return [
        (msgspec.structs.replace(held[stream][0], through=seq), held[stream][1])
        for stream, seq in newest.items()
        if seq > held[stream][0].through
    ]
