"""What users ask of a sweep, in the caller's transaction; a sweep that has ended goes on where it is asked to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, exists, select

from epochal.ledger.states import EventKind, JobKind, JobState, Reason
from epochal.ledger.sweep_values import SweepRequest, asked
from epochal.ledger.tables import attempts, inputs, requests
from epochal.ledger.transitions import Step, advance
from epochal.ledger.values import Job

_IS_TAKEN = exists().where(inputs.c.job_id == requests.c.job_id, inputs.c.key == requests.c.key)


def to_request(row: Row[Any]) -> SweepRequest:
    return SweepRequest(row.seq, row.key, row.body, row.at, row.by)


def extended(connection: Connection, job: Job, step: Step, **columns: Any) -> Job:
    """Queue a sweep that has ended once more; the limits of its time count anew."""
    anew = {"ended_at": None, "losses": 0, "waited_seconds": 0.0, "ran_seconds": 0.0, "started_at": None}
    return advance(connection, job, step, **anew, **columns)


def extended_if_asked(connection: Connection, job: Job, wanted: JobState | None) -> Job:
    """``job``, or what it becomes where it is a sweep that has just succeeded, and was asked for more before its agent
    heard of that. ``wanted``: what it was asked to become by then.

    What was asked before the attempt began its agent has heard: where no input has come of it, the controller has
    refused it.
    """
    if job.kind is not JobKind.SWEEP or job.state is not JobState.SUCCEEDED:
        return job
    this = (attempts.c.job_id == job.id) & (attempts.c.epoch == job.epoch)
    since = select(attempts.c.leased_at).where(this).scalar_subquery()
    untaken = select(requests).where(requests.c.job_id == job.id, requests.c.at >= since, ~_IS_TAKEN)
    said = [asked(row.body) for row in connection.execute(untaken.order_by(requests.c.seq))]
    more = [str(one) for one in said if one.kind != "cancel"]
    if not more:
        return job
    message = f"asked while it finished: {'; '.join(more)}"
    again = extended(connection, job, Step(EventKind.EXTENDED, JobState.QUEUED, message=message))
    pause = Step(EventKind.PAUSED, JobState.PAUSED, Reason.STOPPED_BY_USER)
    return advance(connection, again, pause) if wanted is JobState.PAUSED else again
