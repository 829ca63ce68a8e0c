"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

STAGES = ("read", "wait", "embed", "search")
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters, gauges and histograms of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        registry = self.registry
        self._requests = Counter(
            "tfdml_requests", "Requests answered, refused ones included.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "tfdml_request_seconds", "From a request's headers to its answer.", ["route"], buckets=_BUCKETS, registry=registry
        )
        stages = Histogram(
            "tfdml_stage_seconds",
            "Parts of a request: reading its body, waiting for its turn, embedding, searching.",
            ["stage"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.stages = {stage: stages.labels(stage) for stage in STAGES}
        self._refused = Counter(
            "tfdml_refused", "Requests that ended in a problem, by its kind.", ["reason"], registry=registry
        )
        searches = Counter("tfdml_searches", "Searches, by whether the nearest item matches.", ["match"], registry=registry)
        self._searches = {True: searches.labels("true"), False: searches.labels("false"), None: searches.labels("unknown")}
        self.embedder_failures = Counter("tfdml_embedder_failures", "Embeddings that could not be had.", registry=registry)
        self._in_flight = Gauge("tfdml_in_flight", "Requests that are being worked on.", registry=registry)
        self._waiting = Gauge("tfdml_waiting", "Requests that wait for their turn.", registry=registry)
        self._version = Gauge("tfdml_index_version", "The version that is served; 0 if there is none.", registry=registry)
        self._items = Gauge("tfdml_index_items", "Items of that version, added ones included.", registry=registry)
        self.ready = Gauge("tfdml_ready", "1 if the last look found the service ready.", registry=registry)
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is the address with its parameters unfilled, so there are few."""
        # Looking labels up costs more than counting.
        known = self._known.get((route, method, status))
        if known is None:
            known = self._requests.labels(route, method, str(status)), self._seconds.labels(route)
            self._known[route, method, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def refused(self, kind: str) -> None:
        self._refused.labels(kind).inc()

    def searched(self, match: bool | None) -> None:
        self._searches[match].inc()

    def watch(self, in_flight: Callable[[], float], waiting: Callable[[], float], held: Callable[[], tuple[int, int]]) -> None:
        """Where the gauges look when they are read. `held` gives the current version and its number of items."""
        self._in_flight.set_function(in_flight)
        self._waiting.set_function(waiting)
        self._version.set_function(lambda: held()[0])
        self._items.set_function(lambda: held()[1])

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
