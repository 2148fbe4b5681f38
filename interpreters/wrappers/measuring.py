"""`telemetry`: a span and a measure of OpenTelemetry for each request that a store is asked. Extra ``otel``."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from interpreters.runtime.interpreter import Interpreter, check_interpreter
from interpreters.wrappers.observing import Observing
from persist_effects.errors import InvalidRequest, describe
from persist_effects.requests import Answered, Conflict, Outcome, Request, Transact

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

SCOPE = "persist_effects"
"""Under which name the spans and measures are made."""

DURATION = "persist.request.duration"
"""The histogram of how long requests take, in seconds. How many there were is its count."""

SEVERAL = "*"
"""Stands for the prefixes of a transaction that writes under several."""


def first_part(name: str) -> str:
    """What stands before the first slash of a name, and the slash; nothing where there is none.

    So there are as many prefixes as an application has kinds of streams and keys, and none tells about whom one is.

    >>> first_part("orders/1"), first_part("a7f3")
    ('orders/', '')
    """
    first, slash, _ = name.partition("/")
    return first + slash if slash else ""


def telemetry(
    inner: Interpreter,
    *,
    is_on: bool = True,
    tracer_provider: "TracerProvider | None" = None,
    meter_provider: "MeterProvider | None" = None,
    prefix_of: Callable[[str], str] = first_part,
) -> Interpreter:
    """A wrapper that makes a span of each request, and measures how long it takes. Needs the extra ``otel``.

    A span is named as the request's op, and has the attributes ``persist.op``, ``persist.prefix`` and
    ``persist.outcome``; so has the histogram ``persist.request.duration``. An outcome is ``ok``, ``conflict``, or the
    name of an error's class, by which the span has failed. No value and no whole name is told of, but in an error's
    message.

    A span's parent is the one that was there where the request was asked; where many tasks share a commit on a store
    that blocks, they are asked for together, and there is none.

    Args:
        inner: The interpreter inside, which is closed with this one.
        is_on: Whether anything is told. Off, it is the interpreter inside that is returned, and nothing is imported.
        tracer_provider: Makes the spans; None: the one that OpenTelemetry was set up with.
        meter_provider: Likewise, for measures.
        prefix_of: What is told of the name, or of the prefix, of streams and keys. Keep it to few.

    Returns:
        An interpreter.

    Raises:
        InvalidRequest: OpenTelemetry is not installed, or an argument is wrong.

    >>> from interpreters import open_store
    >>> from interpreters.wrappers import wrapped
    >>> from persist_effects import kv
    >>> with wrapped(open_store("memory:"), telemetry) as store:
    ...     store.run(kv.put("color", "red"))
    1
    """
    check_interpreter("what is observed", inner)
    if not callable(prefix_of):
        raise InvalidRequest(f"prefix_of is {describe(prefix_of)}: give a function from a name to a prefix of it")
    if not is_on:
        return inner
    try:
        import opentelemetry.trace  # noqa: F401
    except ModuleNotFoundError as error:
        raise InvalidRequest("telemetry needs the package opentelemetry-api: pip install opentelemetry-api") from error
    return Observing(inner, _Spans(tracer_provider, meter_provider, prefix_of).observe)


class _Spans:
    """Begins and ends the spans of requests."""

    def __init__(
        self,
        tracer_provider: "TracerProvider | None",
        meter_provider: "MeterProvider | None",
        prefix_of: Callable[[str], str],
    ) -> None:
        from opentelemetry import metrics, trace

        self._begin = trace.get_tracer(SCOPE, tracer_provider=tracer_provider).start_span
        self._kind = trace.SpanKind.CLIENT
        self._failed = trace.StatusCode.ERROR
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._took = meter.create_histogram(DURATION, unit="s", description="How long a store's requests take.").record
        self._prefix_of = prefix_of

    def observe(self, request: Request[Any]) -> Callable[[Outcome], None]:
        """Begin the span of a request, and return what ends it."""
        op = request.op
        attributes = {"persist.op": op, "persist.prefix": self._prefix(request)}
        span = self._begin(op, kind=self._kind, attributes=attributes)
        began = time.perf_counter()

        def end(outcome: Outcome) -> None:
            seconds = time.perf_counter() - began
            words = _words_of(outcome)
            span.set_attribute("persist.outcome", words)
            if not isinstance(outcome, Answered):
                span.set_attribute("error.type", words)
                span.set_status(self._failed, str(outcome.error))
            span.end()
            self._took(seconds, {**attributes, "persist.outcome": words})

        return end

    def _prefix(self, request: Request[Any]) -> str:
        if isinstance(request, Transact):
            prefixes = {self._prefix_of(_name_in(write)) for write in request.writes}
            return prefixes.pop() if len(prefixes) == 1 else SEVERAL if prefixes else ""
        return self._prefix_of(_name_in(request))


def _words_of(outcome: Outcome) -> str:
    if isinstance(outcome, Answered):
        return "conflict" if type(outcome.value) is Conflict else "ok"
    return type(outcome.error).__name__


def _name_in(request: object) -> str:
    """The name or prefix that a request is about, or nothing."""
    for field in ("stream", "key", "prefix"):
        name = getattr(request, field, None)
        if name is not None:
            return str(name)
    return ""
