"""What Prometheus scrapes: requests as they are answered, and what the ledger says at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from epochal.errors import EpochalError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import ACTIVE
from epochal.server.reconciler import Counts

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)
_WAIT_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


class Metrics:
    """This server's own metrics; every application has a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter(
            "epochal_http_requests", "Requests answered.", (*labels, "status"), registry=self._registry
        )
        told = "Time to answer, long polls included."
        self._seconds = Histogram(
            "epochal_http_request_seconds", told, labels, buckets=_REQUEST_SECONDS, registry=self._registry
        )
        self._queue_wait = Histogram(
            "epochal_queue_wait_seconds",
            "Time that a job was queued before it was leased, over all its attempts.",
            buckets=_WAIT_SECONDS,
            registry=self._registry,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        method = method if method in _METHODS else "other"  # clients may invent any number of them
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def leased(self, waited_seconds: float) -> None:
        self._queue_wait.observe(waited_seconds)

    def watch(self, ledger: Ledger, waiting: Callable[[], int], reconciler: Counts) -> None:
        """Ask these at each scrape."""
        self._registry.register(_State(ledger, waiting, reconciler))

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _State(Collector):
    def __init__(self, ledger: Ledger, waiting: Callable[[], int], reconciler: Counts) -> None:
        self._ledger = ledger
        self._waiting = waiting
        self._reconciler = reconciler

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the ledger."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("epochal_long_polls", "Requests that wait for something to tell.", self._waiting())
        yield from self._of_ledger()
        yield from self._of_reconciler()

    def _of_ledger(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("epochal_ledger_up", "Whether the database answers.")
        try:
            counts, agents = self._ledger.counts(), self._ledger.agents()
        except EpochalError:
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        jobs = GaugeMetricFamily("epochal_jobs", "Jobs by state.", labels=("state",))
        for state, count in counts.items():
            jobs.add_metric((state.value,), count)
        yield jobs
        leases = sum(counts[state] for state in ACTIVE)
        yield GaugeMetricFamily("epochal_leases", "Jobs that an agent holds.", leases)
        alive = sum(agent.alive for agent in agents)
        yield GaugeMetricFamily("epochal_agents_alive", "Agents that were heard of lately.", alive)

    def _of_reconciler(self) -> Iterator[Metric]:
        counts = self._reconciler
        done = CounterMetricFamily("epochal_reconciler_done", "What was reconciled, by kind.", labels=("kind",))
        for kind, count in counts.done.copy().items():
            done.add_metric((kind,), count)
        errors = CounterMetricFamily("epochal_reconciler_errors", "What failed, by part.", labels=("part",))
        for part, count in counts.errors.copy().items():
            errors.add_metric((part,), count)
        yield done
        yield errors
        yield CounterMetricFamily("epochal_reconciler_ticks", "How often leases were looked at.", counts.ticks)
        yield CounterMetricFamily("epochal_reconciler_catch_ups", "How often runs were looked at.", counts.catch_ups)
