"""`Observing`: tells of each request when it is asked, and of its outcome."""

from collections.abc import Callable, Sequence
from typing import Any

from interpreters.runtime.interpreter import AnswerAll, Interpreter, OnOutcome, Submit
from interpreters.wrappers.around import Around
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handler
from persist_effects.requests import Answered, Failed, Outcome, Request

Observe = Callable[[Request[Any]], Callable[[Outcome], None]]
"""Is called with a request before it is asked, and returns what is called with its outcome. Neither raises.

The outcome may come in another thread than the one that asks, and of an interrupt it is `Failed` with that.
"""


class Observing(Around):
    """An interpreter around another one, which tells of each request that is asked, and of what came of it.

    Programs are given what they would be given without it. A task that waits asks for the newest number when it has
    begun and when it was told of something, and each time that is a `Wait` without a timeout.

    Args:
        inner: The interpreter inside, which is closed with this one.
        observe: Is told.

    Raises:
        InvalidRequest: An argument is wrong.

    >>> from interpreters import open_store
    >>> from interpreters.wrappers import wrapped
    >>> from persist_effects import kv
    >>> def observe(request):
    ...     print("asked", request)
    ...     return print
    >>> wrapped(open_store("memory:"), lambda inner: Observing(inner, observe)).run(kv.has("color"))
    asked KvHas(key='color')
    Answered(value=False)
    False
    """

    def __init__(self, inner: Interpreter, observe: Observe) -> None:
        if not callable(observe):
            raise InvalidRequest(
                f"observe is {describe(observe)}: give a function of a request that returns one of its outcome"
            )
        super().__init__(inner, _Told(observe))


class _Told:
    """What is done around each request."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe

    def row(self, inner: Handler) -> Handler:
        observe = self._observe

        def answer(request: Request[Any]) -> Any:
            come = observe(request)
            try:
                answer = inner(request)
            except BaseException as error:
                come(_failed(error))
                raise
            come(Answered(answer))
            return answer

        return answer

    def answer_all(self, inner: AnswerAll, requests: Sequence[Request[Any]]) -> list[Outcome]:
        observed = list(map(self._observe, requests))
        try:
            outcomes = inner(requests)
        except BaseException as error:
            for come in observed:
                come(_failed(error))
            raise
        for come, outcome in zip(observed, outcomes, strict=True):
            come(outcome)
        return outcomes

    def submit(self, inner: Submit, requests: Sequence[Request[Any]], done: OnOutcome) -> None:
        observed = dict(enumerate(map(self._observe, requests)))

        def take(index: int, outcome: Outcome) -> None:
            come = observed.pop(index, None)
            if come is not None:
                come(outcome)
            done(index, outcome)

        try:
            inner(requests, take)
        except BaseException as error:
            # It is the outcome of all that has none yet.
            for index in list(observed):
                come = observed.pop(index, None)
                if come is not None:
                    come(_failed(error))
            raise


def _failed(error: BaseException) -> Failed:
    # An interrupt too: who observes is told of an end in any case.
    return Failed(error)  # type: ignore[arg-type]
