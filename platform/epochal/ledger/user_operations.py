"""What users ask of the ledger: submit, stop, pause, resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, exc, insert, select

from epochal.errors import ConflictError
from epochal.ledger.database import Database
from epochal.ledger.demands import columns_of
from epochal.ledger.documents import digest
from epochal.ledger.ids import job_id, submission_key
from epochal.ledger.reading import find, find_locked
from epochal.ledger.states import EventKind, JobState, Reason, stronger
from epochal.ledger.tables import documents, jobs, now
from epochal.ledger.transitions import Step, advance, annotate, full, record, to_job
from epochal.ledger.values import GRACE_SECONDS, FullJob, Job

_ID_TRIES = 20

_SAME_FINISHED = (
    select(jobs)
    .where(jobs.c.spec_digest == bindparam("spec"), jobs.c.code_digest.is_not_distinct_from(bindparam("code")))
    .where(jobs.c.state == JobState.SUCCEEDED)
    .order_by(jobs.c.number.desc())
    .limit(1)
)


class UserOperations:
    """What a user, or the server for one, can change."""

    _database: Database

    def submit(
        self,
        spec: Mapping[str, Any],
        *,
        name: str,
        priority: int = 50,
        key: str | None = None,
        submitted_by: str = "",
        origin: Mapping[str, Any] | None = None,
    ) -> FullJob:
        """Queue a job. With a ``key``, doing it again gives the same job and queues nothing; another user may have the
        same key for another job.

        Args:
            spec: the resolved job spec, as JSON types.
            key: the client's own id for this submission.
            origin: where the spec came from: what agents and people want to know beside it, as JSON types.

        Raises:
            ConflictError: ``key`` was used for another spec, or other code.
        """
        own = submission_key(submitted_by, key)
        who = {"name": name, "key": own, "priority": priority, "submitted_by": submitted_by}
        return self._submit({**who, **_told(spec, origin or {})})

    def same_finished(self, spec_digest: str, code_digest: str | None) -> Job | None:
        """The newest job of this very spec and shipped code that has SUCCEEDED; None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(_SAME_FINISHED, {"spec": spec_digest, "code": code_digest}).first()
            return to_job(row) if row else None

    def retry_job(self, ref: str, submitted_by: str, message: str = "") -> FullJob:
        """Queue the spec of a job that has ended once more, as a new job; ``origin["retry_of"]`` is the old one's id,
        and ``message`` stands in its first event.

        Raises:
            ConflictError: it has not ended.
        """
        with self._database.read() as connection:
            job = full(connection, find(connection, ref))
        if not job.state.is_terminal:
            goes_on = f"`epochal resume {job.id}` goes on with it; "
            hint = f"{goes_on if job.state is JobState.PAUSED else ''}`epochal stop {job.id}` ends it"
            raise ConflictError(f"{job.id} is {job.state}: only a job that has ended can be retried", hint)
        who = {"name": job.name, "key": None, "priority": job.priority, "submitted_by": submitted_by}
        return self._submit({**who, **_told(job.spec, {**job.origin, "retry_of": job.id})}, message)

    def _submit(self, columns: Mapping[str, Any], message: str = "") -> FullJob:
        for again in range(_ID_TRIES):
            try:
                with self._database.write() as connection:
                    identity = job_id(columns["name"], again)
                    job = _by_key(connection, columns) or _insert(connection, columns, identity, message)
                with self._database.read() as connection:  # on SQLite others write meanwhile
                    return full(connection, job)
            except exc.IntegrityError as error:
                # Someone else may have taken this id, or this key, since we looked: SQLite names the column, PostgreSQL
                # the rule.
                if not any(name in str(error.orig) for name in ("jobs.id", "jobs.key", "jobs_id", "jobs_key")):
                    raise
        raise ConflictError(f"no free id for {columns['name']!r}: too many jobs of this name at once", "try again")

    def request_stop(self, ref: str, message: str = "", grace: float = GRACE_SECONDS) -> Job:
        """End a job for good. One with a live attempt becomes STOPPING until its agent has carried it out: its workers
        save their state, and are killed where they have not ended after ``grace`` seconds. Of several the least counts.

        Raises:
            ConflictError: it has already succeeded or failed.
        """
        return self._request(ref, JobState.STOPPED, EventKind.STOP_REQUESTED, message, grace)

    def request_pause(self, ref: str, message: str = "", grace: float = GRACE_SECONDS) -> Job:
        """Take a job off the cluster, or out of the queue, until ``resume``; ``grace`` as for ``request_stop``.

        Raises:
            ConflictError: it has ended, or is being stopped for good.
        """
        return self._request(ref, JobState.PAUSED, EventKind.PAUSE_REQUESTED, message, grace)

    def preempt(self, ref: str, message: str = "") -> Job:
        """Have a job checkpoint, leave the cluster and queue again, to make room for another.

        Raises:
            ConflictError: it has no live attempt and is not in the queue, or is being stopped or paused.
        """
        with self._database.write() as connection:
            return ask_to_leave(connection, ref, message)

    def resume(self, ref: str, message: str = "") -> Job:
        """Queue a PAUSED job again; it goes on from its newest checkpoint.

        Raises:
            ConflictError: it is not PAUSED.
        """
        with self._database.write() as connection:
            job = find_locked(connection, ref)
            if job.state is not JobState.PAUSED:
                hint = "nothing has to be resumed"
                if job.state.is_terminal:
                    hint = f"`epochal retry {job.id}` runs it once more, as a new job"
                elif job.state is JobState.STOPPING:
                    hint = (
                        "resume it once it is PAUSED" if job.wanted is JobState.PAUSED else f"it will be {job.wanted}"
                    )
                raise ConflictError(f"{job.id} is {job.state}, not PAUSED", hint)
            return advance(connection, job, Step(EventKind.RESUMED, JobState.QUEUED, message=message), losses=0)

    def _request(self, ref: str, wanted: JobState, kind: EventKind, message: str, grace: float) -> Job:
        step = Step(kind, reason=Reason.STOPPED_BY_USER, message=message, grace=grace)
        with self._database.write() as connection:
            return _asked(connection, find_locked(connection, ref), wanted, step)


def ask_to_leave(connection: Connection, identity: str, message: str) -> Job:
    """See ``UserOperations.preempt``."""
    step = Step(EventKind.PREEMPT_REQUESTED, reason=Reason.PREEMPTED, message=message)
    return _asked(connection, find_locked(connection, identity), JobState.QUEUED, step)


def _asked(connection: Connection, job: Job, wanted: JobState, step: Step) -> Job:
    grace = min((one for one in (job.grace, step.grace) if one is not None), default=None)
    step = replace(step, grace=grace, detail={} if grace is None else {"grace": grace})
    if job.state is wanted or (job.wanted is wanted and job.grace == grace):
        return job
    if job.state is JobState.STOPPING:
        if job.wanted and stronger(job.wanted, wanted) is not wanted:
            raise ConflictError(f"{job.id} is STOPPING and will be {job.wanted}: it cannot become {wanted}")
        message = step.message or (job.message if job.wanted is wanted else "")
        return annotate(connection, job, step, wanted=wanted, reason=step.reason, message=message, grace=grace)
    target = JobState.STOPPING if job.state.is_active else wanted
    if wanted is JobState.QUEUED and not job.state.is_active:
        raise ConflictError(f"{job.id} is {job.state}: it has nothing to give up")
    if target.is_active:
        return advance(connection, job, replace(step, state=target, wanted=wanted))
    return advance(connection, job, replace(step, state=target, grace=None, detail={}))


def _by_key(connection: Connection, columns: Mapping[str, Any]) -> Job | None:
    """The job that this key was used for before.

    Raises:
        ConflictError: for another spec, or other code.
    """
    if columns["key"] is None:
        return None
    row = connection.execute(select(jobs).where(jobs.c.key == columns["key"])).first()
    if row is None:
        return None
    job = to_job(row)
    for what in ("spec_digest", "code_digest"):
        if row._mapping[what] != columns[what]:
            other = "another spec" if what == "spec_digest" else "other code"
            own = columns["key"].partition("/")[2]
            raise ConflictError(f"the key {own!r} belongs to {job.id}, which has {other}", "use a new key")
    return job


def _told(spec: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a submission's spec and origin fill."""
    return {"spec": spec, "spec_digest": digest(spec), "origin": origin, **columns_of(spec, origin)}


_TIMES = {"submitted_at": now(), "entered_at": now(), "updated_at": now()}
_FRESH = {"state": JobState.QUEUED, "message": "", "epoch": 0, "waited_seconds": 0.0, "ran_seconds": 0.0}
_QUEUED = insert(jobs).values(_TIMES | _FRESH).returning(jobs)


def _insert(connection: Connection, columns: Mapping[str, Any], identity: str, message: str) -> Job:
    heavy = {name: columns[name] for name in ("spec", "origin")}
    light = {name: value for name, value in columns.items() if name not in heavy}
    job = to_job(connection.execute(_QUEUED, {**light, "id": identity}).one())
    connection.execute(insert(documents), heavy | {"job_id": identity})
    record(connection, job, None, Step(EventKind.SUBMITTED, message=message))
    return job
