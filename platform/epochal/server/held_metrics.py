"""What agents and their jobs are doing, as metrics: by what agents tell the ledger, so that no cluster needs a port for
it. A job's are gone once its attempt has ended."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric

from epochal.ledger.ledger import Ledger
from epochal.ledger.monitoring import HeldJob
from epochal.ledger.states import JobKind, JobState, Outcome, Reason
from epochal.ledger.values import AgentInfo
from epochal.server.metric_table import STEP_PARTS, TABLE, USES, counter, gauge

_LOSSES = {"train": "train/loss", "validation": "val/loss"}
_TRIALS = {"wanted": "trials", "done": "done", "running": "running", "failed": "failed"}
_ENDS: tuple[Reason, ...] = tuple(reason for reason in Reason if reason is not Reason.PENDING_TIMEOUT)
"""What attempts end by."""
_LOST = tuple(one for one in _ENDS if Outcome.of(one) in (Outcome.FAILED, Outcome.INTERRUPTED))


class Endings:
    """Counts the attempts that have ended since this server was first asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: frozenset[int] | None = None
        # From the beginning: Prometheus sees no increase in what it has not seen before.
        self._ended = Counter({(Outcome.of(reason), reason): 0 for reason in _ENDS})
        self._lost: dict[Reason, float] = dict.fromkeys(_LOST, 0.0)
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            self._seen, fresh = self._ledger.ended_attempts(self._seen)
            for one in fresh:
                self._ended[one.outcome, one.reason] += 1
                if one.lost_seconds:
                    self._lost[one.reason] = self._lost.get(one.reason, 0.0) + one.lost_seconds
            ended, lost = counter("epochal_attempts_ended_total"), counter("epochal_lost_worker_seconds_total")
            for (outcome, reason), count in self._ended.items():
                ended.add_metric((outcome, reason), count)
            for reason, seconds in self._lost.items():
                lost.add_metric((reason,), seconds)
        yield from (ended, lost)


class _Gauges:
    """The gauges of many things, each with its own labels; what is no number is left out."""

    def __init__(self, prefix: str) -> None:
        self.families = {name: gauge(name) for name in TABLE if name.startswith(prefix) and TABLE[name].kind == "gauge"}

    def set(self, name: str, labels: Sequence[str], value: Any) -> None:
        if _is_number(value):
            self.families[name].add_metric(labels, value)


def of_agents(agents: Sequence[AgentInfo]) -> Iterator[Metric]:
    """Of one that is silent only that, and nothing once it has left in order."""
    gauges, groups = _Gauges("epochal_agent_"), _Gauges("epochal_group_")
    uses = {name: counter(f"epochal_{name}_total") for name in ("worker_seconds", "gpu_seconds")}
    for agent in agents:
        detail = agent.detail
        if agent.alive or not detail.get("draining"):  # one that has left in order is not missed
            gauges.set("epochal_agent_up", (agent.name,), int(agent.alive))
        if not agent.alive:
            continue
        gauges.set("epochal_agent_jobs", (agent.name,), detail.get("jobs"))
        gauges.set("epochal_agent_nodes", (agent.name,), len(agent.nodes))
        gauges.set("epochal_agent_warm_workers", (agent.name,), detail.get("warm"))
        warnings = agent.warnings
        gauges.set("epochal_agent_warnings", (agent.name,), len(warnings) if isinstance(warnings, Sequence) else None)
        for one in agent.groups:
            for state, count in (("ready", len(one.nodes)), ("asked", one.asked), ("most", one.most)):
                groups.set("epochal_group_nodes", (agent.name, one.name, state), count)
        gauges.set("epochal_agent_unsent_bytes", (agent.name,), detail.get("unsent_bytes"))
        for name, resource in (("epochal_agent_cpus", "CPU"), ("epochal_agent_gpus", "GPU")):
            total = sum(node.total.get(resource, 0.0) for node in agent.nodes)
            gauges.set(name, (agent.name, "total"), total)
            gauges.set(name, (agent.name, "free"), sum(node.available.get(resource, 0.0) for node in agent.nodes))
        for name, metric in uses.items():
            for use in USES:  # and no other, whatever an agent tells
                seconds = _within(detail, name).get(use, 0.0)
                if _is_number(seconds):
                    metric.add_metric((agent.name, use), seconds)
    yield from (*gauges.families.values(), *groups.families.values(), *uses.values())


def of_jobs(held: Sequence[HeldJob], now: float) -> Iterator[Metric]:
    """``now``: by the database's clock."""
    jobs, sweeps = _Gauges("epochal_job_"), _Gauges("epochal_sweep_")
    for one in held:
        job, attempt = one.job, one.attempt
        labels = (job.id, job.name)
        progress = job.progress or {}
        jobs.set("epochal_job_attempt", labels, job.epoch)
        jobs.set("epochal_job_running", labels, int(job.state is JobState.RUNNING))
        jobs.set("epochal_job_workers", labels, attempt.world_size)
        jobs.set("epochal_job_checkpoint_step", labels, attempt.checkpoint_step)
        if attempt.started_at is not None and job.kind is JobKind.TRAIN:  # a sweep's trials have their own
            since = max(attempt.started_at, attempt.checkpoint_at or 0.0)
            jobs.set("epochal_job_checkpoint_age_seconds", labels, max(0.0, now - since))
            jobs.set("epochal_job_step", labels, progress.get("step", 0))
            jobs.set("epochal_job_stepping", labels, int(progress.get("phase") == "train"))
        jobs.set("epochal_job_total_steps", labels, progress.get("total_steps"))
        jobs.set("epochal_job_samples_per_second", labels, progress.get("samples_per_second"))
        for split, name in _LOSSES.items():
            jobs.set("epochal_job_loss", (*labels, split), _within(progress, "metrics").get(name))
        for part in STEP_PARTS:
            jobs.set("epochal_job_step_seconds", (*labels, part), _within(progress, "step_seconds").get(part))
        ranks = _within(progress, "ranks")
        jobs.set("epochal_job_slowest_rank", labels, ranks.get("rank"))
        for which in ("slowest", "mean"):
            jobs.set("epochal_job_rank_seconds", (*labels, which), ranks.get(which))
        for state, name in _TRIALS.items():
            sweeps.set("epochal_sweep_trials", (*labels, state), progress.get(name))
        sweeps.set("epochal_sweep_best", labels, _within(progress, "best").get("value"))
    yield from (*jobs.families.values(), *sweeps.families.values())


def _within(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of what an agent told: one agent that tells nonsense must not keep Prometheus from all others."""
    part = document.get(name)
    return part if isinstance(part, Mapping) else {}


def _is_number(value: Any) -> bool:
    # Not ``isfinite``, which raises for a whole number that no float can hold: JSON has such.
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max
