"""What Prometheus scrapes: requests as they are answered, and what the ledger says at the moment of the scrape."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from epochal.errors import EpochalError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import ACTIVE
from epochal.server import held_metrics
from epochal.server.metric_table import TABLE, counter, gauge
from epochal.server.reconciler import KINDS, PARTS, Counts

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)
_WAIT_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


class Metrics:
    """This server's own metrics; every application has a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        requests = TABLE["epochal_http_requests_total"]
        self._requests = Counter(requests.name, requests.help, requests.labels, registry=self._registry)
        self._seconds = self._histogram("epochal_http_request_seconds", _REQUEST_SECONDS)
        self._queue_wait = self._histogram("epochal_queue_wait_seconds", _WAIT_SECONDS)

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

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        entry = TABLE[name]
        return Histogram(name, entry.help, entry.labels, buckets=buckets, registry=self._registry)


class _State(Collector):
    def __init__(self, ledger: Ledger, waiting: Callable[[], int], reconciler: Counts) -> None:
        self._ledger = ledger
        self._waiting = waiting
        self._reconciler = reconciler
        self._endings = held_metrics.Endings(ledger)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the ledger."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _one("epochal_long_polls", self._waiting())
        yield from self._of_ledger()
        yield from self._of_reconciler()

    def _of_ledger(self) -> Iterator[Metric]:
        try:
            found, ended = self._ledger.snapshot(), list(self._endings.collect())
        except EpochalError:
            yield _one("epochal_ledger_up", 0)
            return
        yield _one("epochal_ledger_up", 1)
        jobs = gauge("epochal_jobs")
        for state, count in found.counts.items():
            jobs.add_metric((state.value,), count)
        yield jobs
        yield _one("epochal_leases", sum(found.counts[state] for state in ACTIVE))
        yield _one("epochal_queue_oldest_seconds", found.oldest_seconds)
        yield _one("epochal_agents_alive", sum(agent.alive for agent in found.agents))
        yield from ended
        yield from held_metrics.of_agents(found.agents)
        yield from held_metrics.of_jobs(found.held, found.at)

    def _of_reconciler(self) -> Iterator[Metric]:
        counts = self._reconciler
        yield _counts("epochal_reconciler_done_total", KINDS, counts.done.copy())
        yield _counts("epochal_reconciler_errors_total", PARTS, counts.errors.copy())
        ticks, catch_ups = counter("epochal_reconciler_ticks_total"), counter("epochal_reconciler_catch_ups_total")
        ticks.add_metric((), counts.ticks)
        catch_ups.add_metric((), counts.catch_ups)
        yield from (ticks, catch_ups)
        now, lag = time.monotonic(), gauge("epochal_reconciler_lag_seconds")
        for part, at in counts.succeeded.items():
            lag.add_metric((part,), now - at)
        yield lag
        if counts.mlflow_up is not None:
            yield _one("epochal_mlflow_up", counts.mlflow_up)


def _one(name: str, value: float) -> Metric:
    metric = gauge(name)
    metric.add_metric((), value)
    return metric


def _counts(name: str, known: Iterable[str], counted: Mapping[str, int]) -> Metric:
    """Told from the beginning: Prometheus sees no increase in what it has not seen before."""
    metric = counter(name)
    for kind, count in {**dict.fromkeys(known, 0), **counted}.items():
        metric.add_metric((kind,), count)
    return metric
