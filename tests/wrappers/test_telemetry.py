"""What OpenTelemetry is told of requests, by its own exporters in memory."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from faltering import Batching, Faltering, Lost, Submitting
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from places import ROOT

from interpreters import Store
from interpreters.stores.memory import MemoryStore
from interpreters.wrappers import Observing, telemetry
from persist_effects import InvalidRequest, StoreUnavailable, all_of, kv, log, transact
from persist_effects.requests import Append, Draft, KvPut

KINDS = [MemoryStore, Batching, Submitting]
BACKENDS = ["asyncio", "trio"]


class Told:
    """A store of which OpenTelemetry is told, and what it was told."""

    def __init__(self, inner: MemoryStore, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        meters = MeterProvider(metric_readers=[self.reader])
        self.store = Store(telemetry(inner, tracer_provider=self.tracers, meter_provider=meters, **options))
        self.tracer = self.tracers.get_tracer("of the test")

    def spans(self) -> list[tuple[Any, ...]]:
        return [
            tuple((span.attributes or {}).get(f"persist.{name}") for name in ("op", "prefix", "outcome"))
            for span in self.exporter.get_finished_spans()
        ]

    def counts(self) -> Iterator[tuple[tuple[Any, ...], int]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            assert (metric.name, metric.unit) == ("persist.request.duration", "s")
            for point in metric.data.data_points:
                yield tuple(point.attributes[f"persist.{name}"] for name in ("op", "prefix", "outcome")), point.count


def told(kind: type[Any], *args: Any, **options: Any) -> Told:
    return Told(kind() if kind is MemoryStore else kind(0, *args), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_each_request_has_a_span_and_is_counted_and_timed(kind):
    found = told(kind)
    with found.store as store:
        store.run(log.append("orders/1", "placed", 1))
        store.run_many([log.append_expect("orders/1", 7, "placed", 1), log.append("orders/2", "placed", 1)])
        store.run(kv.get("color"))
        store.run(log.streams("orders/"))
    expected = [
        ("persist/append", "orders/", "ok"),
        ("persist/append", "orders/", "conflict"),
        ("persist/append", "orders/", "ok"),
        ("persist/kv-get", "", "ok"),
        ("persist/streams", "orders/", "ok"),
    ]
    assert found.spans() == expected
    assert dict(found.counts()) == {each: expected.count(each) for each in expected}


def test_a_transaction_tells_the_prefix_under_which_it_writes():
    found = told(MemoryStore)
    with found.store as store:
        placed = Append("orders/1", (Draft("placed", 1),))
        store.run(transact(placed, KvPut("orders/latest", 1)))
        store.run(transact(placed, KvPut("customers/1", 1)))
    assert [prefix for _, prefix, _ in found.spans()] == ["orders/", "*"]


def test_what_is_told_of_a_name_is_ones_own_choice():
    found = told(MemoryStore, prefix_of=lambda name: name[:2])
    found.store.run(kv.put("color", "red"))
    assert found.spans() == [("persist/kv-put", "co", "ok")]


@pytest.mark.parametrize("how", ["run", "run_many"])
@pytest.mark.parametrize("kind", [Faltering, Batching, Submitting, Lost])
def test_of_what_fails_the_span_has_failed(kind, how):
    found = Told(kind(1))
    with found.store as store:
        if how == "run":
            with pytest.raises(StoreUnavailable):
                store.run(kv.put("color", "red"))
        else:
            (outcome,) = store.run_many([kv.put("color", "red")], return_exceptions=True)
            assert isinstance(outcome, StoreUnavailable)
    (span,) = found.exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "StoreUnavailable"
    assert found.spans() == [("persist/kv-put", "", "StoreUnavailable")]


class Interrupted(MemoryStore):
    """Is interrupted in all that it does."""

    blocking = True

    def __init__(self) -> None:
        super().__init__()
        self.handlers = dict.fromkeys(self.handlers, self.interrupt)

    def interrupt(self, request: object) -> Any:
        raise KeyboardInterrupt

    def answer_all(self, requests: object) -> Any:
        raise KeyboardInterrupt


class InterruptedSubmitting(Interrupted):
    """Likewise, where it is submitted."""

    def submit(self, requests: object, done: object) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [Interrupted, InterruptedSubmitting])
def test_of_an_interrupt_the_span_has_ended_too(kind):
    found = Told(kind())
    with pytest.raises(KeyboardInterrupt):
        found.store.run(kv.put("color", "red"))
    with pytest.raises(KeyboardInterrupt):
        found.store.run_many([kv.put("color", "red")])
    assert found.spans() == [("persist/kv-put", "", "KeyboardInterrupt")] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_is_run_in_a_span_has_its_requests_in_it(kind):
    found = told(kind)
    with found.store as store, found.tracer.start_as_current_span("page") as page:
        store.run(kv.put("color", "red"))
        store.run(all_of(kv.get("color"), kv.get("size")))
    *requests, _ = found.exporter.get_finished_spans()
    assert [span.parent and span.parent.span_id for span in requests] == [page.get_span_context().span_id] * 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_of_tasks_no_request_is_in_the_span_of_another_one(kind, backend):
    found = told(kind)

    async def page(number: int) -> None:
        with found.tracer.start_as_current_span(f"page-{number}"):
            await found.store.arun(kv.put(f"page-{number}/color", "red"))

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(page, number)

    with found.store:
        anyio.run(work, backend=backend)
    spans = found.exporter.get_finished_spans()
    pages = {span.context.span_id: f"{span.name}/" for span in spans if span.name.startswith("page")}
    puts = [span for span in spans if span.name == "persist/kv-put"]
    assert (len(pages), len(puts)) == (20, 20)
    own = [span.parent and pages[span.parent.span_id] == span.attributes["persist.prefix"] for span in puts]
    assert own == ([True] if kind is MemoryStore else [None]) * 20


def test_off_nothing_stands_around_the_store_and_nothing_is_imported():
    code = (
        "import sys\n"
        "from interpreters.stores.memory import MemoryStore\n"
        "from interpreters.wrappers import telemetry\n"
        "inner = MemoryStore()\n"
        "assert telemetry(inner, is_on=False) is inner\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
        "sys.modules['opentelemetry'] = None\n"
        "try: telemetry(inner)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == (
        "[]\nInvalidRequest telemetry needs the package opentelemetry-api: pip install opentelemetry-api\n"
    )


def test_wrong_arguments_are_refused():
    with pytest.raises(InvalidRequest, match="prefix_of is an int, 7: give a function from a name to a prefix of it"):
        telemetry(MemoryStore(), prefix_of=7)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="observe is an int, 7: give a function of a request that returns one"):
        Observing(MemoryStore(), 7)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="what is observed is a str"):
        telemetry("memory:")  # type: ignore[arg-type]
