"""The ledger's questions: jobs, attempts, events, the time."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select, true, union_all

from epochal.errors import ConflictError, NotFoundError
from epochal.ledger.database import Database
from epochal.ledger.states import ACTIVE, JobState
from epochal.ledger.tables import attempts, events, jobs, now
from epochal.ledger.transitions import count_by_state, full, locked, to_attempt, to_event, to_job
from epochal.ledger.values import Attempt, Event, FullJob, Job

_SHOWN = 5
_RUN_ID = re.compile("[0-9a-f]{8,32}")
_NEWEST = jobs.c.number.desc()


class Reader:
    """What can be asked of a ledger."""

    _database: Database

    def now(self) -> float:
        """The time by the database's clock, in seconds since 1970."""
        with self._database.read() as connection:
            return float(connection.execute(select(now())).scalar_one())

    def job(self, ref: str) -> Job:
        """The job with this id or unique prefix of one, or the newest of this name, or of this MLflow run.

        Raises:
            NotFoundError: there is none; the hint names the closest.
            ConflictError: the prefix fits several.
        """
        with self._database.read() as connection:
            return find(connection, ref)

    def full_job(self, ref: str) -> FullJob:
        """As ``job``, with its spec and origin."""
        with self._database.read() as connection:
            return full(connection, find(connection, ref))

    def jobs(
        self,
        states: Collection[JobState] = (),
        limit: int | None = None,
        *,
        name: str | None = None,
        submitted_by: str | None = None,
        queue: str | None = None,
        before: int | None = None,
    ) -> list[Job]:
        """Jobs, newest first; ``before`` a job's ``number``, to go on from the end of an earlier answer."""
        which = _which(name, submitted_by, queue)
        if before is not None:
            which.append(jobs.c.number < before)
        # The newest of each state by the index on (state, number): of all of them at once, every job would be sorted.
        newest = [
            select(select(jobs.c.number).where(jobs.c.state == state, *which).order_by(_NEWEST).limit(limit).subquery())
            for state in sorted(states)
        ]
        among = jobs.c.number.in_(union_all(*newest)) if newest else and_(true(), *which)
        query = select(jobs).where(among).order_by(_NEWEST).limit(limit)
        with self._database.read() as connection:
            return [to_job(row) for row in connection.execute(query)]

    def job_count(
        self,
        states: Collection[JobState] = (),
        *,
        name: str | None = None,
        submitted_by: str | None = None,
        queue: str | None = None,
    ) -> int:
        """How many jobs there are of those that ``jobs`` gives a part of."""
        which = _which(name, submitted_by, queue)
        if states:
            which.append(jobs.c.state.in_(sorted(states)))
        with self._database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(jobs).where(*which)).scalar_one())

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        with self._database.read() as connection:
            return count_by_state(connection)

    def attempts(self, job_id: str) -> list[Attempt]:
        """The attempts of a job, oldest first."""
        query = select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.epoch)
        with self._database.read() as connection:
            return [to_attempt(row) for row in connection.execute(query)]

    def events(self, job_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events of a job, oldest first, from the one following the id ``after``."""
        with self._database.read() as connection:
            return [to_event(row) for row in connection.execute(_later(job_id, after, limit))]

    def follow(self, job_id: str, after: int, limit: int) -> tuple[list[Event], bool]:
        """Its next events, and whether they are its last: it has ended.

        Raises:
            NotFoundError: no job has exactly this id.
        """
        state = select(jobs.c.state).where(jobs.c.id == job_id)
        with self._database.read() as connection:
            told = connection.scalar(state)  # first: on PostgreSQL its last event is among those read afterwards
            if told is None:
                raise NotFoundError("job", job_id)
            found = [to_event(row) for row in connection.execute(_later(job_id, after, limit))]
        return found, JobState(told).is_terminal and len(found) < limit

    def ended(self, before: float) -> set[str]:
        """The ids of the jobs that came to their final state before that time."""
        with self._database.read() as connection:
            return set(connection.scalars(select(jobs.c.id).where(has_ended(before))))

    def attempts_ended(self, after: float) -> list[tuple[str, int]]:
        """The attempts that ended after that time: their jobs' ids and their numbers."""
        query = select(attempts.c.job_id, attempts.c.epoch).where(attempts.c.ended_at > after)
        with self._database.read() as connection:
            return [(row.job_id, row.epoch) for row in connection.execute(query)]

    def unneeded_code(self, before: float) -> set[str]:
        """The digests of the code that was shipped with jobs that ended before that time, and with no other."""
        code, over = jobs.c.code_digest, has_ended(before)
        query = select(code).where(over, code.is_not(None)).except_(select(code).where(~over, code.is_not(None)))
        with self._database.read() as connection:
            return set(connection.scalars(query))

    def overdue(self) -> list[Job]:
        """Jobs whose lease has run out: what ``expire`` would end."""
        with self._database.read() as connection:
            return [to_job(row) for row in connection.execute(select(jobs).where(is_overdue()))]


def _which(name: str | None, submitted_by: str | None, queue: str | None) -> list[ColumnElement[bool]]:
    asked = ((jobs.c.name, name), (jobs.c.submitted_by, submitted_by), (jobs.c.queue, queue))
    return [column == wanted for column, wanted in asked if wanted is not None]


def _later(job_id: str, after: int, limit: int | None) -> Select[Any]:
    later = (events.c.job_id == job_id) & (events.c.id > after)
    return select(events).where(later).order_by(events.c.id).limit(limit)


def has_ended(before: float | ColumnElement[float]) -> ColumnElement[bool]:
    return jobs.c.state.in_([state for state in JobState if state.is_terminal]) & (jobs.c.entered_at < before)


def is_overdue() -> ColumnElement[bool]:
    """Whether a job's lease has run out. The states are named for the index on them."""
    return jobs.c.state.in_(ACTIVE) & (jobs.c.expires_at <= now())


def find_locked(connection: Connection, ref: str) -> Job:
    """As ``find``; nobody else changes it before this transaction ends."""
    found = find(connection, ref)
    return locked(connection, select(jobs).where(jobs.c.id == found.id)) or found


def find(connection: Connection, ref: str) -> Job:
    """See ``Reader.job``."""
    newest = select(jobs).order_by(jobs.c.number.desc())
    for exactly in (jobs.c.id == ref, jobs.c.name == ref):
        if row := connection.execute(newest.where(exactly).limit(1)).first():
            return to_job(row)
    starts = jobs.c.id.startswith(ref, autoescape=True)
    found = [to_job(row) for row in connection.execute(newest.where(starts).limit(_SHOWN + 1))] if ref else []
    if len(found) > 1:
        count = connection.execute(select(func.count()).select_from(jobs).where(starts)).scalar_one()
        shown = ", ".join(f"{job.id} ({job.state})" for job in found[:_SHOWN])
        more = f" and {count - _SHOWN:,} more" if count > _SHOWN else ""
        hint = "give more of the id; `epochal jobs` lists them"
        raise ConflictError(f"{ref!r} fits several jobs: {shown}{more}", hint)
    of_run = newest.where(jobs.c.run_id.startswith(ref)).limit(1)
    if not found and _RUN_ID.fullmatch(ref) and (row := connection.execute(of_run).first()):
        return to_job(row)
    if not found:
        recent = connection.execute(select(jobs.c.id, jobs.c.name).order_by(jobs.c.number.desc()).limit(100))
        known = tuple(dict.fromkeys(word for row in recent for word in (row.name, row.id)))
        raise NotFoundError("job", ref, known, "" if known else "this ledger holds no jobs yet")
    return found[0]
