"""A job's light columns: what the queue policy reads of it without reading its spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from epochal.ledger.capacity import Demand
from epochal.ledger.states import JobKind
from epochal.units import Duration


def columns_of(spec: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    """From the stored spec and origin; what they do not say, or not in a way that is understood, has its default."""
    demand = Demand.of(spec)
    queue, code = spec.get("queue"), origin.get("code")
    return {
        "queue": queue if isinstance(queue, str) and queue else "default",
        "preemptible": spec.get("preemptible") is True,
        "workers_min": demand.workers[0],
        "workers_max": demand.workers[1],
        "cpus": demand.cpus,
        "gpus": demand.gpus,
        "memory": demand.memory,
        "max_pending": _max_pending(spec),
        "kind": JobKind.SWEEP if isinstance(spec.get("sweep"), Mapping) else JobKind.TRAIN,
        "code_digest": code if isinstance(code, str) else None,
    }


def demand_of(row: Row[Any]) -> Demand:
    # A sweep takes workers, and gives them back, a trial's at a time.
    step = row.workers_min if row.kind == JobKind.SWEEP else 0
    return Demand((row.workers_min, row.workers_max), row.cpus, row.gpus, row.memory, step)


def _max_pending(spec: Mapping[str, Any]) -> float | None:
    limits = spec.get("limits")
    limit = limits.get("max_pending") if isinstance(limits, Mapping) else None
    try:
        return Duration.parse(limit).seconds if isinstance(limit, str) else None
    except ValueError:
        return None
