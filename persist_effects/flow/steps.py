"""What a flow's code says: its steps. Each is a program, as those of the facets are, which a flow may use too."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

from persist_effects.clock import new_id
from persist_effects.errors import Cancelled, FlowContinued, InvalidRequest, describe, text_of
from persist_effects.flow.defining import activity_code, flow_code
from persist_effects.flow.requests import Branches, Call, Child, Local, Patched, Signal, check_retry, identity_of_call
from persist_effects.following.handling import Retry
from persist_effects.machine import Effect, check_fresh, perform
from persist_effects.programs import program
from persist_effects.requests import Request, check_seconds

A = TypeVar("A")
P = ParamSpec("P")


@program
def call(
    activity: Callable[..., Any], *args: Any, retry: Retry | None = None, timeout: float | None = None
) -> Effect[Any]:
    """Run an activity: a function that does something outside. What comes of it is kept in the journal.

    Where the host is lost before that, the activity is run again, or what its `persist_effects.flow.activity` says.

    Args:
        activity: The function. The host must know it.
        args: Its arguments. They are kept too, and must be the same whenever the flow gets here.
        retry: How often it is tried again where it raises; None: as the activity says.
        timeout: After how many seconds of one try TimeoutError is raised here; None: as the activity says.

    Returns:
        What it returns.

    Raises:
        InvalidRequest: If it is not an activity; or if an argument, or what it returns, cannot be kept as what it is.
        Exception: What it raises, as what it was, with its cause, once it was tried as often as is said.

    >>> def charge(order: str, cents: int) -> str: ...
    >>> next(call(charge, "o-1", 500)).args
    ('o-1', 500)
    """
    name, _, repeat, usual_retry, usual_timeout, returns = activity_code(activity)
    if retry is None:
        retry = usual_retry
    else:
        check_retry(retry)
    if timeout is None:
        timeout = usual_timeout
    else:
        check_seconds("timeout", timeout)
    known = identity_of_call(name, args)
    return (yield from perform(Call(name, args, repeat, retry, timeout, returns, known)))


@program
def signal(name: str, *, timeout: float | None = None, returns: Any = Any) -> Effect[Any]:
    """Wait for a signal: something that others tell this flow. One that came before it was asked for was kept.

    Args:
        name: What the signal is called. Signals of one name are received in the order in which they were sent.
        timeout: For how many seconds at most; None: for ever.
        returns: The type of what is sent.

    Returns:
        What was sent.

    Raises:
        TimeoutError: If none came in time.
        InvalidRequest: If what was sent is not of that type.

    >>> next(signal("approved", timeout=60)).timeout
    60
    """
    return (yield from perform(Signal(name, timeout, returns)))


@program
def child(flow: Callable[..., Effect[A]], *args: Any, flow_id: str | None = None) -> Effect[A]:
    """Begin another flow, which has a journal of its own, and wait until it has ended.

    Where this one is cancelled meanwhile, so is the child.

    Args:
        flow: The other flow. The host must know it.
        args: Its arguments.
        flow_id: Its id; None: this one's, a dot, and the path of this step.

    Returns:
        What it returns.

    Raises:
        FlowExists: If there is another flow of that id.
        FlowFailed: If it was cancelled.
        Exception: What it raises, as what it was.

    >>> def ship(order: str): yield
    >>> next(child(ship, "o-1")).flow
    'ship'
    """
    code = flow_code(flow)
    return cast(A, (yield from perform(Child(code.name, code.version, args, flow_id, code.returns))))


@program
def all_of(*branches: Effect[Any] | Request[Any]) -> Effect[tuple[Any, ...]]:
    """Go on with several programs together, each as its own steps are answered, until all have ended.

    Where one raises, the others are cancelled, and once they have cleaned up it is raised here.

    Args:
        branches: Programs, such as calls, and requests.

    Returns:
        Their values, in order.

    >>> from persist_effects.flow.replay import Replay
    >>> def both():
    ...     return (yield from all_of(signal("a"), signal("b")))
    >>> replay = Replay(both())
    >>> replay.begin()
    >>> list(replay.waiting)
    [(1, 1, 1), (1, 2, 1)]
    """
    return cast(tuple[Any, ...], (yield from perform(Branches("all", _programs(branches)))))


@program
def first_of(*branches: Effect[Any] | Request[Any]) -> Effect[tuple[int, Any]]:
    """Go on with several programs together until the first has ended. The others are cancelled, and clean up.

    What those have committed stays. What comes of an activity of theirs later is not kept.

    Args:
        branches: Programs, such as calls, and requests; at least one.

    Returns:
        The place of the one that has won, from 0, and its value.

    Raises:
        InvalidRequest: If there are none. Where the first that ended has raised, that is raised.

    >>> from persist_effects import sleep
    >>> from persist_effects.flow.replay import Replay
    >>> from persist_effects.requests import Answered
    >>> def paid_in_time():
    ...     place, _ = yield from first_of(signal("paid"), sleep(3600))
    ...     return place == 0
    >>> replay = Replay(paid_in_time())
    >>> replay.begin()
    >>> replay.feed((1, 1, 1), Answered(None))
    >>> replay.end, replay.withdrawn
    (Answered(value=True), [(1, 2, 1)])
    """
    if not branches:
        raise InvalidRequest("flow.first_of has no branches, of which one could be the first: give at least one")
    return cast(tuple[int, Any], (yield from perform(Branches("first", _programs(branches)))))


def _programs(branches: tuple[Any, ...]) -> tuple[Effect[Any], ...]:
    programs = tuple(perform(each) if isinstance(each, Request) else each for each in branches)
    check_fresh(*programs)
    return programs


@program
def local(reading: Effect[A], *, returns: Any = Any) -> Effect[A]:
    """Run a program that only reads. Its value alone is kept in the journal, and not what each read was answered.

    Args:
        reading: The program, such as ``log.read("orders/7")`` or a `project` over many pages.
        returns: The type of its value, as in ``flow.local(log.read("orders/7"), returns=list[Event])``.

    Returns:
        Its value.

    Raises:
        InvalidRequest: If it asks for something else than a read, or its value cannot be kept as its type.

    >>> from persist_effects import kv
    >>> asked = next(local(kv.get("color")))
    >>> asked.name
    'get'
    >>> next(asked.program)
    KvGet(key='color')
    """
    check_fresh(reading)
    name = getattr(reading, "__name__", "program")
    return cast(A, (yield from perform(Local(name, reading, returns))))


@program
def patched(change: str) -> Effect[bool]:
    """Whether a change of this flow's code is in force for this flow: not for one that had got past it without.

    Ask it around what was changed, and keep what was there for the flows that go on without::

        if (yield from flow.patched("ask for fraud")):
            yield from flow.call(ask_for_fraud, order)

    It is decided once for each flow and change, and is no step, so that asking it changes no journal.

    Args:
        change: What the change is called.

    Returns:
        Whether it is in force.

    >>> next(patched("ask for fraud")).change
    'ask for fraud'
    """
    return (yield from perform(Patched(change)))


def continue_as_new(*args: Any) -> NoReturn:
    """End this run of the flow, and begin another, with these arguments and an empty journal. Its id stays.

    For flows that never end, whose journal would grow for ever. What is in the inbox and was not read stays there. The
    newest version of the code is taken. It raises `FlowContinued`, so that ``finally`` blocks run before.

    Args:
        args: The arguments of the next run.

    >>> continue_as_new("customer 7", 13)
    Traceback (most recent call last):
    persist_effects.errors.FlowContinued: ('customer 7', 13)
    """
    raise FlowContinued(*args)


@program
def random() -> Effect[float]:
    """A random number, from 0 up to but not 1: it is the same whenever the flow is run from its journal.

    Returns:
        The number.

    >>> from interpreters import open_store
    >>> 0 <= open_store("memory:").run(random()) < 1
    True
    """
    fresh = yield from new_id()
    # The identifier names its time in its first bits: what is drawn of it must not show.
    return int.from_bytes(blake2b(fresh.encode(), digest_size=8).digest()) / 2**64


class Saga:
    """Steps with their undo: see `saga`."""

    def __init__(self) -> None:
        self._undos: list[Callable[[], Effect[Any]]] = []

    @program
    def step(self, doing: Effect[A], undo: Callable[[], Effect[Any]]) -> Effect[A]:
        """Carry out a step, and keep how it is undone.

        It is kept before the step begins, since one that is cancelled midway may have been done all the same. Where the
        step raises, it was not done, and is not undone.

        Args:
            doing: The step, such as a call.
            undo: Makes the program that undoes it. It must bear that there is nothing to undo.

        Returns:
            The step's value. What it raises is raised.
        """
        self._undos.append(undo)
        try:
            return (yield from doing)
        except Exception:
            self._undos.remove(undo)
            raise

    @program
    def undo_all(self) -> Effect[list[Exception]]:
        """Undo the steps that were carried out, the last one first. One that fails does not keep the others from it.

        Returns:
            What the undos raised.
        """
        errors = []
        while self._undos:
            try:
                yield from self._undos.pop()()
            except Exception as error:
                errors.append(error)
        return errors


@program
def saga(body: Callable[[Saga], Effect[A]]) -> Effect[A]:
    """Run steps that are undone, the last one first, where a later one raises, or the flow is cancelled.

    Args:
        body: A generator function that is given a `Saga`, with whose ``step(doing, undo)`` it carries out each step.

    Returns:
        What it returns.

    Raises:
        ExceptionGroup: If undos raised too: of the error that came first, and theirs.

    >>> from interpreters import open_store
    >>> from persist_effects import kv
    >>> def body(saga):
    ...     yield from saga.step(kv.put("seat", "Ada"), undo=lambda: kv.delete("seat"))
    ...     raise LookupError("no more tickets")
    >>> store = open_store("memory:")
    >>> store.run(saga(body))
    Traceback (most recent call last):
    LookupError: no more tickets
    >>> store.run(kv.has("seat"))
    False
    """
    if not callable(body):
        raise InvalidRequest(f"a saga is {describe(body)}: give a generator function of one argument, a Saga")
    steps = Saga()
    try:
        return (yield from body(steps))
    except (Exception, Cancelled) as error:
        errors = yield from steps.undo_all()
        if errors and isinstance(error, Exception):
            # A journal keeps its text, and not the errors in it.
            what = (
                f"a saga failed with {_told(error)}, and what was to undo it raised {' and '.join(map(_told, errors))}"
            )
            raise ExceptionGroup(what, [error, *errors]) from error
        for each in errors:
            error.add_note(f"what was to undo it raised {_told(each)}")
        raise


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}"
