"""What a server counts, for Prometheus and whatever else reads OpenMetrics. Needs the extra ``metrics``."""

import threading
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from interpreters.stores.served.server import StoreServer
from interpreters.stores.served.tally import BOUNDS_SECONDS
from persist_effects.errors import StoreUnavailable


class ServerCollector(Collector):
    """Makes metrics of a server's counts, whenever it is asked.

    Args:
        server: The server.
    """

    def __init__(self, server: StoreServer) -> None:
        self._server = server

    def describe(self) -> list[Metric]:
        """Nothing: the names are known by their prefix."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics, as they are now."""
        tally, health = self._server.tally, self._server.health()
        requests = HistogramMetricFamily(
            "persist_effects_request_seconds", "How long answers took, by the kind of request.", labels=["op"]
        )
        for op, one in [*tally.latencies.items()]:
            requests.add_metric([op], buckets=_cumulated(one.counts), sum_value=one.seconds)
        yield requests
        for name, told, by_op in (
            ("waits_answered", "Waits that were answered.", tally.waited),
            ("errors", "Requests that were answered with an error.", tally.errors),
        ):
            counter = CounterMetricFamily(f"persist_effects_{name}", told, labels=["op"])
            for op, count in [*by_op.items()]:
                counter.add_metric([op], count)
            yield counter
        for name, told, count in (
            ("commits", "How often the store was given writes together.", health["commits"]),
            ("committed", "Writes that were given to it so.", health["committed"]),
            ("connections", "Clients that have come.", tally.connection_count),
            ("dropped", "Clients that were dropped, for which the log has the reason.", tally.dropped),
            ("received_bytes", "Bytes that came from clients.", tally.received_bytes),
            ("sent_bytes", "Bytes that went to clients.", tally.sent_bytes),
        ):
            yield CounterMetricFamily(f"persist_effects_{name}", told, value=count)
        yield GaugeMetricFamily("persist_effects_open_connections", "Clients now.", value=health["connections"])
        yield GaugeMetricFamily("persist_effects_waiters", "Waits that go on now.", value=health["waits"])


def _cumulated(counts: list[int]) -> list[tuple[str, float]]:
    buckets, below = [], 0
    for bound, count in zip([*map(str, BOUNDS_SECONDS), "+Inf"], [*counts], strict=True):
        below += count
        buckets.append((bound, float(below)))
    return buckets


def serve_metrics(server: StoreServer, host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Answer at a port of its own with the server's metrics, in a thread, until told to end.

    Args:
        server: The server.
        host: Where to listen.
        port: The port; 0: one that is free.

    Returns:
        The port, and what ends it.

    Raises:
        StoreUnavailable: If nobody can listen there.
    """
    registry = CollectorRegistry()
    registry.register(ServerCollector(server))
    try:
        listening, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise StoreUnavailable(f"metrics cannot be served at {host}:{port}: {error}: give another address") from error

    def end() -> None:
        listening.shutdown()
        listening.server_close()
        if thread is not threading.current_thread():
            thread.join()

    return int(listening.server_port), end
