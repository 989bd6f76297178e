"""How agents keep their leases, and hear what is wanted of their jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Update, bindparam, exists, func, update

from epochal.errors import ConflictError, EpochalError, NotFoundError
from epochal.ledger.database import Database
from epochal.ledger.lease_operations import OF_ATTEMPT, shown, stale
from epochal.ledger.reading import find
from epochal.ledger.states import ACTIVE, JobState
from epochal.ledger.tables import attempts, jobs, now
from epochal.ledger.tokens import digest_of
from epochal.ledger.values import Held, Renewal, Renewed


class RenewalOperations:
    """What agents ask of the ledger every two seconds."""

    _database: Database

    def renew(self, lease: Held, ttl: float, progress: Mapping[str, Any] | None = None) -> Renewed:
        """Keep the lease for ``ttl`` seconds from now; the job's state says whether it was asked to stop.

        A lease that ran out can be renewed as long as nobody has noticed.
        """
        with self._database.write_once() as connection:
            values = {"job": lease.job_id, "attempt": lease.epoch, "ttl": ttl, "told": progress}
            row = connection.execute(_RENEW, values).first()
            if row is None:
                raise stale(find(connection, lease.job_id), lease)
            return _renewed(row)

    def renew_all(self, renewals: Sequence[Renewal], ttl: float) -> list[Renewed | EpochalError]:
        """Keep many leases at once: of each, in their order, what ``held`` and then ``renew`` would give or raise."""
        answers: dict[Renewal, Renewed | EpochalError] = {}
        with self._database.write_once() if len(renewals) == 1 else self._database.write() as connection:
            for renewal in sorted(renewals, key=attrgetter("job_id")):  # as all do who lock several jobs
                try:
                    answers[renewal] = _renewed_by_secret(connection, renewal, ttl)
                except (ConflictError, NotFoundError) as error:
                    answers[renewal] = error
        return [answers[renewal] for renewal in renewals]


def _renewal(*which: ColumnElement[bool]) -> Update:
    progress = func.coalesce(bindparam("told", type_=jobs.c.progress.type), jobs.c.progress)
    values = {"expires_at": now() + bindparam("ttl"), "updated_at": now(), "progress": progress}
    held = (jobs.c.id == bindparam("job"), jobs.c.epoch == bindparam("attempt"), jobs.c.state.in_(ACTIVE), *which)
    return (
        update(jobs).where(*held).values(values).returning(jobs.c.state, jobs.c.grace, jobs.c.requested, jobs.c.granted)
    )


_RENEW = _renewal()
_RENEW_BY_SECRET = _renewal(exists().where(OF_ATTEMPT, attempts.c.secret == bindparam("digest")))
"""Made once, as they are asked for all the time."""


def _renewed_by_secret(connection: Connection, renewal: Renewal, ttl: float) -> Renewed:
    job_id, epoch, secret = renewal.job_id, renewal.epoch, renewal.secret
    values = {"job": job_id, "attempt": epoch, "ttl": ttl, "told": renewal.progress, "digest": digest_of(secret)}
    row = connection.execute(_RENEW_BY_SECRET, values).first()
    if row is None:
        raise stale(find(connection, job_id), shown(connection, job_id, epoch, secret))
    return _renewed(row)


def _renewed(row: Row[Any]) -> Renewed:
    return Renewed(JobState(row.state), row.grace, row.requested, row.granted)
