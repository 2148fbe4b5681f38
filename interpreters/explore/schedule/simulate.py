"""One interleaving of some programs on one store, drawn by a seed: `simulate`.

The same programs, the same contents of the store and the same seed give the same trace, in another process and on
another Python, if the programs share state only through the store: what they keep elsewhere, the next run sees. What
programs ask of time is virtual. The clock that stamps events is the store's own: where its times are answered, open it
with one that always says the same, such as
``open_store("memory:", clock=lambda: 0)``.
"""

import hashlib
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import msgspec

from interpreters.explore.faults import is_own
from interpreters.explore.limits import is_said_by_pytest, noted, thrown
from interpreters.explore.schedule.programs import Programs, named_programs
from interpreters.explore.schedule.recorded import RecordedStep, RecordedWorld
from interpreters.explore.schedule.telling import told_steps
from interpreters.explore.virtual import rows_but_of_time
from interpreters.runtime.interpreter import Interpreter
from interpreters.runtime.store import Store
from persist_effects import codec
from persist_effects.errors import InvalidRequest, PersistError, describe, error_to_record
from persist_effects.event import check_integer
from persist_effects.requests import Answered, Failed, Outcome, Request


class Traced(NamedTuple):
    """A step: which program asked what, and what came of it. None: its operation did not end."""

    program: str
    request: Request[Any]
    outcome: Outcome | None


class Simulated:
    """What became of the programs. Print it to see their steps.

    ``ended`` is ``"all"``, or why some outcomes are None: ``"deadlock"``, where the programs left wait for ever, or
    ``"hangs"``, where they asked for more than was allowed. ``seconds`` is the virtual time that passed.
    """

    def __init__(self, names: Sequence[str], world: RecordedWorld, ended: str) -> None:
        self.names = tuple(names)
        self.outcomes: tuple[Outcome | None, ...] = tuple(task.outcome for task in world.tasks)
        self.ended = ended
        self.seconds = world.now
        self._steps = world.trace

    @property
    def trace(self) -> list[Traced]:
        """All steps, in order."""
        return [Traced(self.names[step.index], step.request, step.outcome) for step in self._steps]

    @property
    def digest(self) -> str:
        """A SHA-256 of the trace and the outcomes, in hexadecimal."""
        digest = hashlib.sha256()
        for record in _records(self.names, self._steps, self.outcomes):
            digest.update(len(record).to_bytes(8, "big"))
            digest.update(record)
        return digest.hexdigest()

    def __str__(self) -> str:
        return "\n".join(told_steps(self.names, self._steps))


_STEPS_NOTED = 20


def simulate(programs: Programs, store: Store | Interpreter, seed: int, *, requests_limit: int = 100_000) -> Simulated:
    """Run the programs together on a store, whose turn it is drawn by the seed at every request.

    Nothing waits in real time: a `Wait` or a `Sleep` ends when nothing else can go on.

    Args:
        programs: Functions without arguments that make programs, in a list, or in a dict by name.
        store: The store, which stays open.
        seed: One seed is one order.
        requests_limit: A program that asks more often hangs.

    Returns:
        How the programs ended, and what happened. Errors that they raise are outcomes.

    Raises:
        InvalidRequest: If something is not a program, or not a store.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> def paint(color):
    ...     return lambda: kv.put("color", color)
    >>> store = open_store("memory:")
    >>> done = simulate({"one": paint("red"), "two": paint("blue")}, store, seed=3)
    >>> print(done)
    one  #1 persist/kv-put color 'red' → 1
    two  #1 persist/kv-put color 'blue' → 2
    >>> done.outcomes
    (Answered(value=1), Answered(value=2))
    """
    names, makers = named_programs(programs)
    check_integer("seed", seed)
    check_integer("requests_limit", requests_limit, 1)
    handlers = rows_but_of_time(_as_store(store))
    world: RecordedWorld | None = None

    def place() -> str:
        steps = "" if world is None else "".join(f"\n{line}" for line in told_steps(names, world.trace[-_STEPS_NOTED:]))
        return f"this ended `simulate` with seed={seed}. The last steps:{steps or ' none'}"

    with noted(place):
        world = RecordedWorld(makers, handlers)
        ended = _drawn(world, Random(seed), requests_limit)  # noqa: S311 - a choice that can be repeated, no secret
        for task in world.tasks:
            if isinstance(task.outcome, Failed) and is_said_by_pytest(task.outcome.error):
                raise thrown(task.outcome.error)
    return Simulated(names, world, ended)


def _drawn(world: RecordedWorld, random: Random, requests_limit: int) -> str:
    """Let programs go on, whose turn it is drawn, until all have ended or none can go on. Says which it was."""
    ended = "all"
    try:
        while ready := world.ready():
            if len(world.trace) >= requests_limit:
                ended = "hangs"
                break
            world.step(ready[0] if len(ready) == 1 else ready[random.randrange(len(ready))])
        if world.live and ended == "all":
            ended = "deadlock"
    finally:
        world.close()
    return ended


def _as_store(store: object) -> Store:
    if isinstance(store, Store):
        return store
    if callable(store) and not hasattr(store, "handlers"):
        raise InvalidRequest(f"store is the function {store!r:.80}: give the store that it makes, call it")
    found: Any = store
    return Store(found)


# The canonical encoding of a trace


def _records(
    names: Sequence[str], steps: Sequence[RecordedStep], outcomes: Sequence[Outcome | None]
) -> Iterator[bytes]:
    for step in steps:
        yield names[step.index].encode("utf-8", "surrogatepass")
        yield _record_of_request(step.request)
        yield _record_of_outcome(step.outcome)
    for outcome in outcomes:
        yield _record_of_outcome(outcome)


def _record_of_request(request: Any) -> bytes:
    if not isinstance(request, Request):
        return describe(type(request)).encode()
    if is_own(request):
        fields = [getattr(request, name) for name in request.__struct_fields__]
        return request.op.encode() + b"".join(map(_record_of_value, fields))
    try:
        return codec.encode_request(request)
    except PersistError as error:
        return f"{request.op} {error}".encode()


def _record_of_outcome(outcome: Outcome | None) -> bytes:
    match outcome:
        case Answered(value=value):
            return b"answered" + _record_of_value(value)
        case Failed(error=error):
            return b"failed" + repr(error_to_record(error)).encode("utf-8", "backslashreplace")
        case None:
            return b"none"


_encoder = msgspec.msgpack.Encoder(order="deterministic")


def _record_of_value(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Nothing is known of it that is the same in every process.
        return f"<{type(value).__name__}>".encode()
