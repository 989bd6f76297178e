"""What agents ask of the ledger about a job that they leased: keep the lease, tell how it went.

Every call but ``expire`` carries the lease. It is refused with ``StaleLeaseError`` once someone else has
ended the attempt; a call repeated because its answer got lost changes nothing and gets the same answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from hmac import compare_digest
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, bindparam, func, insert, or_, select, update

from epochal.errors import ConflictError, NotFoundError, StaleLeaseError
from epochal.ledger.database import Database
from epochal.ledger.reading import find, is_overdue
from epochal.ledger.resizing import how_resized
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.sweep_requests import extended_if_asked
from epochal.ledger.tables import agents, attempts, documents, events, jobs, now
from epochal.ledger.tokens import digest_of
from epochal.ledger.transitions import (
    BOOKKEEPING,
    Step,
    advance,
    annotate,
    end_attempt,
    full,
    locked,
    obedient,
    record,
    to_attempt,
    to_job,
)
from epochal.ledger.values import Attempt, Held, Job, Lease, LeaseKey
from epochal.urls import without_password

MOST_LOSSES = 3
"""Attempts in a row, with no new checkpoint, that went down with their agent: then the job itself is suspected."""

STARTS_FOR_A_LOSS = 3
"""As many attempts that were lost before all of their workers had started count as one: nothing of the job's own has
run in them, and a machine on which every start takes minutes loses them one after the other."""


class LeaseOperations:
    """What an agent can change."""

    _database: Database

    def held(self, job_id: str, epoch: int, secret: str) -> LeaseKey:
        """The lease of an attempt, live or ended, for who shows its secret: the agent that leased it, and nobody else.

        Raises:
            NotFoundError: no job has exactly this id.
            StaleLeaseError: the job has no such attempt.
            ConflictError: it is another's, or its agent is no client of a server and showed no secret for it.
        """
        with self._database.read() as connection:
            return shown(connection, job_id, epoch, secret)

    def running(self, lease: Held, world_size: int, detail: Mapping[str, Any] | None = None) -> Job:
        """The gang trains, with this many workers; told again, their number has changed.

        The job stays STOPPING where it was asked to stop meanwhile.
        """
        said = {"world_size": world_size, **(detail or {})}
        with self._database.write() as connection:
            job = held_by(connection, lease)
            if job.state is JobState.STARTING:
                begun = {"started_at": now(), "first_started_at": func.coalesce(jobs.c.first_started_at, now())}
                job = advance(connection, job, Step(EventKind.RUNNING, JobState.RUNNING, detail=said), **begun)
            # None: it trains for the first time, and is STOPPING since before that.
            elif (before := _attempt(connection, job).world_size) not in (None, world_size):
                message = how_resized(connection, job, before, world_size)
                job = annotate(connection, job, Step(EventKind.RESIZED, message=message, detail=said))
            values = {"world_size": world_size, "detail": said}
            started = func.coalesce(attempts.c.started_at, job.updated_at)
            connection.execute(update(attempts).where(_newest_of(job)).values(**values, started_at=started))
            return job

    def set_run(self, lease: Held, run_id: str, tracking_uri: str, experiment_id: str | None = None) -> Job:
        """The job's MLflow run. After a short training it is known only once the attempt has ended.

        Of ``tracking_uri`` the password is left out: whoever may read jobs reads it.
        """
        tracking_uri = without_password(tracking_uri)
        with self._database.write() as connection:
            job = _locked(connection, lease.job_id)
            said = {"run_id": run_id, "tracking_uri": tracking_uri, "experiment_id": experiment_id}
            if job.epoch == lease.epoch and said == {name: getattr(job, name) for name in said}:
                return job
            if job.epoch != lease.epoch or job.run_id is not None:
                _require(job, lease)
            return annotate(connection, job, Step(EventKind.RUN_SET, detail=said), **said)

    def set_data(self, lease: Held, data: Mapping[str, Any]) -> None:
        """What the attempt took its data for."""
        with self._database.write() as connection:
            job = held_by(connection, lease)
            connection.execute(update(documents).where(documents.c.job_id == job.id).values(data=dict(data)))

    def saved(self, lease: Held, step: int, path: str) -> None:
        """A checkpoint is complete. It is kept with the attempt as its newest: an event each would be thousands."""
        newest = {"checkpoint_step": step, "checkpoint_path": path, "checkpoint_at": now()}
        with self._database.write() as connection:
            job = held_by(connection, lease)
            connection.execute(update(attempts).where(_newest_of(job)).values(newest))
            something_is_saved(connection, job)

    def note(
        self,
        about: Held | Job | str,
        kind: EventKind,
        message: str = "",
        detail: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Job:
        """Record an event, with a ``key`` of the job's once; by a lease only as long as it is held, but for what MLflow
        takes of the newest attempt, which may be known only afterwards."""
        step = Step(EventKind(kind), message=message, detail=detail or {}, key=key)
        with self._database.write() as connection:
            about = find(connection, about) if isinstance(about, str) else about
            job = _locked(connection, about.id if isinstance(about, Job) else about.job_id)
            if not isinstance(about, Job) and (step.kind is not EventKind.TRACKING or job.epoch != about.epoch):
                _require(job, about)
            known = (events.c.job_id == job.id) & (events.c.key == key)
            if key is not None and connection.scalar(select(events.c.id).where(known)) is not None:
                return job
            return annotate(connection, job, step)

    def finish(self, lease: Held, state: JobState, reason: Reason, message: str = "") -> Job:
        """The job has ended for good: SUCCEEDED (and COMPLETED), FAILED or, where that was asked for, STOPPED.

        A sweep that has SUCCEEDED, while its user asked for more of it, is QUEUED again at once, or PAUSED.

        Raises:
            ConflictError: STOPPED without a request to stop; SUCCEEDED of a job that never trained.
        """
        if not state.is_terminal or (state is JobState.SUCCEEDED) != (reason is Reason.COMPLETED):
            raise ValueError(f"a job cannot finish as {state} with the reason {reason}")
        return self._end(lease, Step(EventKind.of(state), state, reason, message))

    def retry(self, lease: Held, reason: Reason, message: str = "", lost: bool = False) -> Job:
        """The attempt has failed or was handed back; the job queues again.

        A job that was asked to stop or pause does that instead. ``lost``: its Ray, or its agent, went down with it; a
        job of which that is said ``MOST_LOSSES`` times in a row, with no new checkpoint, is PAUSED.
        """
        return self._end(lease, Step(EventKind.REQUEUED, JobState.QUEUED, reason, message), obey=True, lost=lost)

    def lease_again(self, lease: Held, ttl: float, reason: Reason, message: str = "") -> Lease | None:
        """The attempt has failed and its agent makes the next one: the job keeps its place, and nobody can take it.

        It has been weighed against quotas and room when it was leased, and gives nothing back in between, so that is
        not done again. None where the job was asked to stop, pause or make room meanwhile, and has become that.
        """
        with self._database.write() as connection:
            job = _locked(connection, lease.job_id)
            if _leased_again(connection, job, lease, reason):
                return lease_of(connection, job, lease.agent, lease.secret)
            if _ended_so(connection, job, lease, (reason,)):
                return None
            _require(job, lease)
            step = Step(EventKind.REQUEUED, JobState.QUEUED, reason, message)
            # No loss: the agent is there to ask, and so did not go down with it.
            _end_with(connection, job, obedient(job, step), reason, losses=0)
            again = None if job.wanted else take(connection, lease.agent, ttl, job.id, lease.secret, job.granted)
            return lease_of(connection, again, lease.agent, lease.secret) if again else None

    def pause(self, lease: Held, reason: Reason = Reason.STOPPED_BY_USER, message: str = "") -> Job:
        """The attempt has ended and the job waits for ``resume``; one that was asked to stop is STOPPED instead."""
        return self._end(lease, Step(EventKind.PAUSED, JobState.PAUSED, reason, message), obey=True)

    def stopped(self, lease: Held, message: str = "") -> Job:
        """The gang of a STOPPING job has ended as asked: the job becomes what was wanted."""
        with self._database.write() as connection:
            job = _locked(connection, lease.job_id)
            if _ended_so(connection, job, lease, (Reason.STOPPED_BY_USER, Reason.PREEMPTED)):
                return job
            _require(job, lease)
            target, reason = job.wanted or JobState.STOPPED, job.reason or Reason.STOPPED_BY_USER
            step = Step(EventKind.of(target), target, reason, "; ".join(filter(None, (job.message, message))))
            return _end_with(connection, job, step, reason)

    def expire(
        self,
        then: JobState = JobState.QUEUED,
        dead_agents: Collection[str] = (),
        living_agents: Collection[str] = (),
    ) -> list[Attempt]:
        """End the attempts whose lease has run out, or whose agent is known to be dead, as INTERRUPTED; but none whose
        agent is known to live.

        Their jobs become ``then`` (QUEUED, or PAUSED to wait for the user), or what they were asked to be.
        """
        lost = or_(is_overdue() & jobs.c.owner.not_in(living_agents), jobs.c.owner.in_(dead_agents))
        with self._database.read() as connection:
            found = [row.id for row in connection.execute(select(jobs.c.id).where(lost).order_by(jobs.c.number))]
        ended = []
        for identity in found:  # a transaction each, between which renewals come to their turn: one may save the next
            with self._database.write() as connection:
                ended.append(lose_lease(connection, identity, lost, then))
        return [attempt for attempt in ended if attempt]

    def _end(self, lease: Held, step: Step, obey: bool = False, lost: bool = False) -> Job:
        """``obey``: a job that was asked for something stronger meanwhile becomes that."""
        reason = step.reason or Reason.COMPLETED
        with self._database.write() as connection:
            job = _locked(connection, lease.job_id)
            if _ended_so(connection, job, lease, (reason,)):
                return job
            _require(job, lease)
            if lost:
                return _lose(connection, job, step)
            ended = _end_with(connection, job, obedient(job, step) if obey else step, reason)
            return ended if job.wanted is JobState.STOPPED else extended_if_asked(connection, ended, job.wanted)


def take(
    connection: Connection,
    agent: str,
    ttl: float,
    job_id: str | None = None,
    secret: str = "",
    granted: int | None = None,
) -> Job | None:
    """Lease ``job_id``, or the first queued job by priority and arrival; None where there is none to take.

    ``granted``: how many workers it may have; None: as many as it asks for and are free. A job that has checkpoints is
    taken only by an agent that has their storage.
    """
    name, _, incarnation = agent.partition("/")
    by = {"agent_name": name, "incarnation": incarnation}
    taking = {**by, "taker": agent, "ttl": ttl, "job": job_id, "workers": granted}
    row = connection.execute(_TAKE if job_id else _TAKE_FIRST, taking).first()
    if row is None:
        return None
    job = to_job(row)
    shown = digest_of(secret) if secret else None
    attempt = {"job_id": job.id, "epoch": job.epoch, "agent": agent, "leased_at": job.entered_at, "secret": shown}
    connection.execute(_BEGIN, {**attempt, **by})
    record(connection, job, JobState.QUEUED, Step(EventKind.LEASED, detail={"agent": agent}))
    return job


def lease_of(connection: Connection, job: Job, agent: str, secret: str) -> Lease:
    return Lease(full(connection, job), job.epoch, agent, job.expires_at or job.entered_at, secret)


def something_is_saved(connection: Connection, job: Job) -> None:
    """In the storage of the newest attempt's agent, which others need to go on; the job is not suspected any more."""
    held = select(attempts.c.storage).where(_newest_of(job)).scalar_subquery()
    stale = (jobs.c.losses > 0) | jobs.c.storage.is_distinct_from(held)
    connection.execute(update(jobs).where(jobs.c.id == job.id, stale).values(losses=0, storage=held))


def lose_lease(
    connection: Connection, identity: str, lost: ColumnElement[bool], then: JobState, message: str = ""
) -> Attempt | None:
    """End the attempt of a job of which ``lost`` is true as INTERRUPTED; None where that is not so any more."""
    job = locked(connection, select(jobs).where(jobs.c.id == identity, lost))
    if job is None:
        return None  # renewed or ended meanwhile
    message = message or f"the agent {job.owner} went away: it did not renew its lease"
    step = Step(EventKind.LEASE_EXPIRED, then, Reason.INTERRUPTED, message)
    return _attempt(connection, _lose(connection, job, step))


def _lose(connection: Connection, job: Job, step: Step) -> Job:
    """End an attempt that its agent, or its Ray, has not survived."""
    lost = connection.scalar(select(jobs.c.losses).where(jobs.c.id == job.id)) or 0
    losses = lost + (1 if job.started_at is None else STARTS_FOR_A_LOSS)
    if step.state is JobState.QUEUED and losses >= MOST_LOSSES * STARTS_FOR_A_LOSS:
        said = "attempts in a row were lost with their agent or its Ray, with no new checkpoint in between"
        message = f"{said}: the job itself may be the cause; the last: {step.message}"
        step = replace(step, state=JobState.PAUSED, message=message)
    return _end_with(connection, job, obedient(job, step), step.reason or Reason.INTERRUPTED, losses=losses)


OF_ATTEMPT = (attempts.c.job_id == jobs.c.id) & (attempts.c.epoch == bindparam("attempt"))
_HOLDER = (
    select(jobs.c.epoch, jobs.c.state, attempts.c.agent, attempts.c.secret)
    .outerjoin(attempts, OF_ATTEMPT)
    .where(jobs.c.id == bindparam("job"))
)
"""Made once, as it is asked for all the time."""


def shown(connection: Connection, job_id: str, epoch: int, secret: str) -> LeaseKey:
    row = connection.execute(_HOLDER, {"job": job_id, "attempt": epoch}).first()
    if row is None:
        raise NotFoundError("job", job_id, hint="agents give the whole id")
    if row.agent is None:
        raise StaleLeaseError(job_id, epoch, row.epoch, JobState(row.state))
    if not compare_digest(row.secret or "", digest_of(secret)):
        raise ConflictError(f"attempt {epoch} of {job_id} is another's: this is not its secret", "leave it alone")
    return LeaseKey(job_id, epoch, row.agent, secret)


_STORAGE = (
    select(agents.c.storage)
    .where(agents.c.name == bindparam("agent_name"), agents.c.incarnation == bindparam("incarnation"))
    .scalar_subquery()
)
"""By its heartbeats, of an agent that sends some."""


def _taking(*which: ColumnElement[bool]) -> Update:
    at_hand = or_(jobs.c.storage.is_(None), jobs.c.storage == _STORAGE)
    waiting = select(jobs.c.number).where(jobs.c.state == JobState.QUEUED, at_hand, *which)
    # One that somebody takes, or changes, at this moment is passed over instead of waited for.
    first = waiting.order_by(jobs.c.priority.desc(), jobs.c.number).limit(1).with_for_update(skip_locked=True)
    values = {
        "state": JobState.STARTING,
        "epoch": jobs.c.epoch + 1,
        "owner": bindparam("taker"),
        "expires_at": now() + bindparam("ttl"),
        "granted": bindparam("workers"),
        "granted_at": now(),
        "reason": None,
        "message": "",
        "started_at": None,
        "progress": None,
        **BOOKKEEPING,
    }
    this = (jobs.c.number == first.scalar_subquery()) & (jobs.c.state == JobState.QUEUED)
    return update(jobs).where(this).values(values).returning(jobs)


_TAKE_FIRST, _TAKE = _taking(), _taking(jobs.c.id == bindparam("job"))
_BEGIN = insert(attempts).values(storage=_STORAGE, message="", detail={})


def _end_with(connection: Connection, job: Job, step: Step, why: Reason, **columns: Any) -> Job:
    moved = advance(connection, job, step, **columns)
    end_attempt(connection, moved, why, step.message)
    return moved


def _locked(connection: Connection, identity: str) -> Job:
    return locked(connection, select(jobs).where(jobs.c.id == identity)) or find(connection, identity)


def held_by(connection: Connection, lease: Held) -> Job:
    """
    Raises:
        StaleLeaseError: the attempt is over.
    """
    return _require(_locked(connection, lease.job_id), lease)


def _require(job: Job, lease: Held) -> Job:
    if job.epoch != lease.epoch or not job.state.is_active:
        raise stale(job, lease)
    return job


def stale(job: Job, lease: Held) -> StaleLeaseError:
    return StaleLeaseError(job.id, lease.epoch, job.epoch, job.state)


def _ended_so(connection: Connection, job: Job, lease: Held, reasons: Collection[Reason]) -> bool:
    """Whether this lease's attempt has ended for one of ``reasons``: the call is a repetition."""
    over = job.epoch == lease.epoch and not job.state.is_active
    return over and _attempt(connection, job).reason in reasons


def _leased_again(connection: Connection, job: Job, lease: Held, reason: Reason) -> bool:
    """Whether ``lease_again`` was asked this before, and its answer got lost."""
    if job.epoch != lease.epoch + 1 or job.owner != lease.agent:
        return False
    this = (attempts.c.job_id == job.id) & (attempts.c.epoch == lease.epoch)
    return connection.scalar(select(attempts.c.reason).where(this)) == reason


def _newest_of(job: Job) -> ColumnElement[bool]:
    return (attempts.c.job_id == job.id) & (attempts.c.epoch == job.epoch)


def _attempt(connection: Connection, job: Job) -> Attempt:
    return to_attempt(connection.execute(select(attempts).where(_newest_of(job))).one())
