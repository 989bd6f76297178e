"""Elastic jobs: the ledger says how many workers one may have, and its agent tells when it has them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select

from epochal.ledger.states import EventKind
from epochal.ledger.tables import events, jobs, now
from epochal.ledger.transitions import Step, annotate, locked
from epochal.ledger.values import Job


def ask_to_resize(connection: Connection, identity: str, workers: int, holder: str | None) -> None:
    """Let a running job have so many workers from now on, fewer to make room for ``holder``. Its agent hears of it with
    the next renewal of the lease, and tells when that is so (``LeaseOperations.running``)."""
    job = locked(connection, select(jobs).where(jobs.c.id == identity))
    if job is None or not job.state.is_active:
        return  # it has ended since it was read
    message = f"to {workers} worker{'s' if workers > 1 else ''}"
    message += f" for {holder}, as its trials reach their next rung" if holder else ": there is room for it"
    detail = {"workers": workers, "for": holder}
    step = Step(EventKind.RESIZE_REQUESTED, message=message, detail=detail)
    annotate(connection, job, step, granted=workers, granted_at=now())


def how_resized(connection: Connection, job: Job, before: int | None, workers: int) -> str:
    """``2 -> 1 for JOB``; without the end where it takes more than before, or was not asked to take less."""
    asked = _newest(connection, job, EventKind.RESIZE_REQUESTED)
    holder = asked.detail.get("for") if asked is not None and asked.epoch == job.epoch else None
    told = f"{before} -> {workers}"
    return f"{told} for {holder}" if holder and workers < (before or 0) else told


def resized(connection: Connection, job: Job) -> str:
    """How the number of its workers changed last in this attempt; empty where it has not."""
    last = _newest(connection, job, EventKind.RESIZED)
    return last.message if last is not None and last.epoch == job.epoch else ""


def _newest(connection: Connection, job: Job, kind: EventKind) -> Row[Any] | None:
    this = (events.c.job_id == job.id) & (events.c.kind == kind)
    return connection.execute(select(events).where(this).order_by(events.c.id.desc()).limit(1)).first()
