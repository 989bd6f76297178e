"""Every metric that a server tells Prometheus: the one table that the server, the dashboards, the alerts and the page
about them share.

What the ledger knows, and what agents tell in their heartbeats, each server of a ledger tells alike: a query takes the
``max`` over servers. What a server counts itself (requests, waits) is its own: a query takes the ``sum``.

No label is called ``job``, ``instance``, ``pod`` or ``namespace``: Prometheus gives those to what it scrapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Kind = Literal["counter", "gauge", "histogram"]

_JOB = ("job_id", "job_name")
"""Only jobs that an agent holds have these metrics: as many series as jobs run, and they end with the job."""

USES = ("train", "data", "start", "validate", "checkpoint", "finish")
"""Of a worker's time: the first is what it is there for; `data` is waiting for the next batch, `start` everything from
its room to its first step, also after a failure."""

STEP_PARTS = ("data", "forward_backward", "optimizer")


@dataclass(frozen=True)
class Entry:
    """One metric, named as Prometheus shows it: a counter ends in ``_total``, what has a unit in that."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


ENTRIES = (
    # Of each server itself.
    Entry("epochal_http_requests_total", "counter", "Requests answered.", ("method", "route", "status")),
    Entry("epochal_http_request_seconds", "histogram", "Time to answer, long polls included.", ("method", "route")),
    Entry(
        "epochal_queue_wait_seconds",
        "histogram",
        "Time that a job was queued before it was leased, over all its attempts.",
    ),
    Entry("epochal_long_polls", "gauge", "Requests that wait for something to tell."),
    Entry("epochal_ledger_up", "gauge", "Whether the database answers."),
    Entry("epochal_mlflow_up", "gauge", "Whether the tracking server answers; asked every half minute."),
    Entry("epochal_reconciler_done_total", "counter", "What was reconciled, by kind.", ("kind",)),
    Entry("epochal_reconciler_errors_total", "counter", "What failed, by part.", ("part",)),
    Entry("epochal_reconciler_ticks_total", "counter", "How often leases were looked at."),
    Entry("epochal_reconciler_catch_ups_total", "counter", "How often runs were looked at."),
    Entry(
        "epochal_reconciler_lag_seconds", "gauge", "Time since a part last did all that there was for it.", ("part",)
    ),
    # Of the queue.
    Entry("epochal_jobs", "gauge", "Jobs by state.", ("state",)),
    Entry("epochal_leases", "gauge", "Jobs that an agent holds."),
    Entry("epochal_queue_oldest_seconds", "gauge", "The longest that a job in the queue has waited; 0: it is empty."),
    Entry(
        "epochal_attempts_ended_total", "counter", "Attempts that have ended, by what came of them.",
        ("outcome", "reason"),
    ),
    Entry(
        "epochal_lost_worker_seconds_total", "counter",
        "Training that has to be done again: since the newest checkpoint of attempts that failed, times their workers.",
        ("reason",),
    ),
    # Of agents, as they tell in their heartbeats.
    Entry("epochal_agents_alive", "gauge", "Agents that were heard of lately."),
    Entry("epochal_agent_up", "gauge", "Whether it was heard of lately; none once it has left in order.", ("agent",)),
    Entry("epochal_agent_jobs", "gauge", "Jobs that it holds.", ("agent",)),
    Entry("epochal_agent_nodes", "gauge", "Nodes of its Ray cluster.", ("agent",)),
    Entry("epochal_agent_warm_workers", "gauge", "Idle processes that the next job begins in.", ("agent",)),
    Entry("epochal_agent_cpus", "gauge", "CPUs of its nodes: `total`, and `free` of it.", ("agent", "state")),
    Entry("epochal_agent_gpus", "gauge", "GPUs of its nodes: `total`, and `free` of it.", ("agent", "state")),
    Entry("epochal_agent_warnings", "gauge", "What it warns of: `epochal doctor` tells it in words.", ("agent",)),
    Entry(
        "epochal_group_nodes", "gauge",
        "Nodes of a worker group on Kubernetes: `ready`, `asked` for, and the `most` that it can have.",
        ("agent", "group", "state"),
    ),
    Entry(
        "epochal_agent_unsent_bytes", "gauge",
        "Metrics of runs in its storage that MLflow does not have yet; looked at every minute.", ("agent",),
    ),
    Entry(
        "epochal_worker_seconds_total", "counter", "Time for which workers held their room, by its use.",
        ("agent", "use"),
    ),
    Entry("epochal_gpu_seconds_total", "counter", "The same times the GPUs of each worker.", ("agent", "use")),
    # Of each job that an agent holds.
    Entry("epochal_job_attempt", "gauge", "The number of its attempt: 1 is the first.", _JOB),
    Entry("epochal_job_running", "gauge", "Whether it trains; 0: its workers start, or end.", _JOB),
    Entry("epochal_job_stepping", "gauge", "Whether it does steps; 0: it validates, saves or exports.", _JOB),
    Entry("epochal_job_workers", "gauge", "Workers that it trains with.", _JOB),
    Entry("epochal_job_step", "gauge", "Optimizer steps done.", _JOB),
    Entry("epochal_job_total_steps", "gauge", "Optimizer steps that it is to do.", _JOB),
    Entry("epochal_job_loss", "gauge", "The newest training and validation loss.", (*_JOB, "split")),
    Entry("epochal_job_samples_per_second", "gauge", "Throughput over all workers.", _JOB),
    Entry(
        "epochal_job_step_seconds", "gauge",
        "Where the time of a step goes on rank 0: `data`, `forward_backward`, `optimizer`.", (*_JOB, "part"),
    ),
    Entry(
        "epochal_job_rank_seconds", "gauge",
        "What a rank takes for a step until it waits for the others: the `slowest`, and the `mean`; not under `fsdp`.",
        (*_JOB, "which"),
    ),
    Entry("epochal_job_slowest_rank", "gauge", "Which rank that is.", _JOB),
    Entry("epochal_job_checkpoint_step", "gauge", "The step of the newest checkpoint of this attempt.", _JOB),
    Entry(
        "epochal_job_checkpoint_age_seconds", "gauge",
        "Training that would be lost now: since the newest checkpoint, or without one since this attempt began.", _JOB,
    ),
    Entry("epochal_sweep_trials", "gauge", "Trials: `wanted`, `done`, `running`, `failed`.", (*_JOB, "state")),
    Entry("epochal_sweep_best", "gauge", "The best value of the objective so far.", _JOB),
)  # fmt: skip

TABLE = {entry.name: entry for entry in ENTRIES}

OF_OTHERS = {
    "up": "Prometheus: whether the last scrape went well.",
    "ray_node_cpu_utilization": "Ray: per cent of a node's CPUs that are busy.",
    "ray_node_mem_used": "Ray: bytes of memory in use on a node.",
    "ray_node_mem_total": "Ray: bytes of memory of a node.",
    "ray_node_gpus_utilization": "Ray: per cent of the time that a GPU is busy; only on nodes with GPUs.",
    "ray_node_gram_used": "Ray: MiB of a GPU's memory in use; only on nodes with GPUs.",
}
"""What the dashboards and alerts use beside these."""


def gauge(name: str) -> GaugeMetricFamily:
    entry = TABLE[name]
    return GaugeMetricFamily(name, entry.help, labels=entry.labels)


def counter(name: str) -> CounterMetricFamily:
    entry = TABLE[name]
    return CounterMetricFamily(name, entry.help, labels=entry.labels)
