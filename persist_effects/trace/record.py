"""Recording: a program runs as always, and what it asked and was answered is kept."""

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from persist_effects.codec import check_ops
from persist_effects.errors import Abandoned, InvalidRequest, UnhandledEffect
from persist_effects.machine import Handler, Handlers, outcomes_of, run, settled
from persist_effects.programs import refused
from persist_effects.requests import AllOf, Answered, Failed, Outcome, Request
from persist_effects.rows import UNSETTLED
from persist_effects.trace.diff import HasHandlers, handlers_of
from persist_effects.trace.errors import encode_error, full_name, is_foreign
from persist_effects.trace.format import Trace, by_op
from persist_effects.trace.replay import Replayable, fresh_program
from persist_effects.trace.values import (
    STORE_REQUESTS,
    check_answer_type,
    encode,
    encode_and_keep,
    encode_answer,
    encode_request,
    scalar_answer,
    shown,
)

A = TypeVar("A")


def record(program: Replayable[A], handlers: HasHandlers | Handlers) -> tuple[Outcome, Trace]:
    """Run a program on a store, or a handler table, as `machine.run` does, and record it.

    Requests and answers become bytes before anyone else gets them, so what is done to them later changes no trace.
    An interrupt is raised in the program, and then here.

    Args:
        program: The program, or a function that makes it.
        handlers: The store, or the table.

    Returns:
        How it ended, and its trace.

    Raises:
        InvalidRequest: If a request or an answer cannot be recorded, after `Abandoned` was raised in the program.

    >>> from persist_effects import log
    >>> from persist_effects.requests import LastSeq
    >>> outcome, trace = record(log.last_seq("orders/1"), {LastSeq: lambda request: 4})
    >>> outcome, len(trace)
    (Answered(value=4), 1)
    """
    try:
        table = handlers_of(handlers)
        check_ops("the handler table", table)
        recorder = _Recorder(table)
    except InvalidRequest:
        refused(program)
        raise
    fresh = fresh_program(program)
    outcome: Outcome | None = None
    try:
        outcome = Answered(run(fresh, recorder))
    except Exception as error:
        outcome = Failed(error)
    except Abandoned:
        if recorder.trouble is None:
            raise
    if recorder.trouble is not None:
        raise recorder.trouble
    assert outcome is not None, "a program is abandoned only for a trouble"
    return outcome, recorder.trace()


class _Recorder(dict[type[Request[Any]], Handler]):
    """A handler table that answers as another one does, and keeps what was answered. A row is made when first used."""

    def __init__(self, handlers: Handlers) -> None:
        super().__init__()
        self.trouble: BaseException | None = None
        self._handlers = handlers
        self._requests: list[bytes] = []
        self._outcomes: list[bytes] = []
        self._failed: set[int] = set()
        self._errors: set[type[Exception]] = set()
        self._kinds: set[type[Request[Any]]] = set()

    def trace(self) -> Trace:
        kinds = by_op(self._kinds)
        errors = {full_name(kind): kind for kind in self._errors if is_foreign(kind)}
        return Trace(self._requests, self._outcomes, self._failed, kinds, errors=errors)

    def __missing__(self, kind: type[Request[Any]]) -> Handler:
        # A KeyError tells the machine that this is not a request.
        if not (isinstance(kind, type) and issubclass(kind, Request)):
            raise KeyError(kind)
        try:
            row = self._handlers[kind]
        except KeyError:
            row = self._answer_parts if kind is AllOf else _refuse
        self._meet(kind)
        self[kind] = recorded = self._recording(kind, self._meeting_parts(row) if kind is AllOf else row)
        return recorded

    def _answer_parts(self, request: AllOf) -> list[Outcome]:
        return outcomes_of(request, self._handlers)

    def _recording(self, kind: type[Request[Any]], row: Handler) -> Handler:
        # Runs for every request that is recorded.
        keep_request, keep_outcome = self._requests.append, self._outcomes.append
        scalar = scalar_answer(kind)
        is_plain = kind in STORE_REQUESTS

        def answer_and_record(request: Request[Any]) -> Any:
            try:
                encoded = encode(request)
            except Exception:
                self._give_up(encode_request, request)
            try:
                answer = row(request)
                if type(answer) in UNSETTLED:
                    answer = settled(answer, row, request, self._handlers)
            except Exception as error:
                self._failed.add(len(self._requests))
                self._errors.add(type(error))
                keep_request(encoded)
                keep_outcome(encode_error(error))
                raise
            except BaseException as interrupt:
                self.trouble = self.trouble or interrupt
                raise
            try:
                if is_plain or type(answer) is scalar:
                    outcome = encode(answer)
                else:
                    outcome, answer = encode_and_keep(request, answer)
                    if kind is AllOf:
                        self._errors.update(_errors_in(answer))
            except Exception:
                self._give_up(encode_answer, request, answer)
            keep_request(encoded)
            keep_outcome(outcome)
            return answer

        return answer_and_record

    def _meeting_parts(self, row: Handler) -> Handler:
        def meet_and_answer(request: AllOf) -> Any:
            self._meet_parts(request)
            return row(request)

        return meet_and_answer

    def _meet_parts(self, request: AllOf) -> None:
        for part in request.requests:
            if isinstance(part, AllOf):
                self._meet_parts(part)
            else:
                self._meet(type(part))

    def _meet(self, kind: type[Request[Any]]) -> None:
        """Take note of a class of requests. Where its answers cannot be read, the program is given up."""
        if kind in STORE_REQUESTS or kind is AllOf or kind in self._kinds:
            return
        try:
            check_ops("the trace", {*self._kinds, kind})
            check_answer_type(kind)
        except InvalidRequest as error:
            self.trouble = self.trouble or error
            raise Abandoned from error
        self._kinds.add(kind)

    def _give_up(self, refuse: Callable[..., object], *what: Any) -> NoReturn:
        """Give up the program, for what cannot be recorded."""
        try:
            refuse(*what)
        except InvalidRequest as error:
            self.trouble = self.trouble or error
        except Exception as error:
            refusal = InvalidRequest(f"{shown(what[0])} or its answer cannot be recorded: {error}")
            self.trouble = self.trouble or refusal
        raise Abandoned


def _errors_in(outcomes: list[Outcome]) -> set[type[Exception]]:
    """The classes of the errors among the outcomes of requests that were performed at once."""
    found = {type(outcome.error) for outcome in outcomes if isinstance(outcome, Failed)}
    for outcome in outcomes:
        if isinstance(outcome, Answered) and isinstance(outcome.value, list):
            # Those of requests that were performed at once among them, or an answer, in which there are none.
            found |= _errors_in([part for part in outcome.value if isinstance(part, Answered | Failed)])
    return found


def _refuse(request: Request[Any]) -> NoReturn:
    raise UnhandledEffect(request.op, type(request).__name__)
