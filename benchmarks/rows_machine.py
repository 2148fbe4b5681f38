"""What stepping a program costs."""

from collections.abc import Callable, Generator, Mapping
from typing import Any

from benchmarks.table import Bound, Row, cost_ns
from persist_effects import Request, perform, run
from persist_effects.machine import Effect


class Double(Request[int], frozen=True, tag="benchmarks/double"):
    """A user's own request."""

    number: int


def answer_double(request: Double) -> int:
    return request.number * 2


HANDLERS: dict[type[Request[Any]], Callable[[Any], Any]] = {Double: answer_double}


def performing(count: int) -> Effect[None]:
    for number in range(count):
        yield from perform(Double(number))


def yielding(count: int) -> Generator[Double, int, None]:
    for number in range(count):
        yield Double(number)


def drive_bare(program: Generator[Any, Any, None], handlers: Mapping[type, Callable[[Any], Any]]) -> None:
    """The least that a loop with a handler table can do: one look-up and one call for each request."""
    send = program.send
    try:
        request = next(program)
        while True:
            request = send(handlers[type(request)](request))
    except StopIteration:
        return


ROWS = (
    Row(
        name="perform a typed request, against a bare generator loop",
        unit="ns",
        bound=Bound.AT_MOST,
        must=2.0,
        # Many short rounds: the two sides differ by little, so a noisy neighbour must not decide.
        operations=50_000,
        rounds=41,
        ours=lambda count: cost_ns(count, lambda: run(performing(count), HANDLERS)),
        peer=lambda count: cost_ns(count, lambda: drive_bare(yielding(count), HANDLERS)),
    ),
)
