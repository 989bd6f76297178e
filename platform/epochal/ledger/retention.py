"""Deletes what the ledger knows of jobs that ended long ago, a few at a time, so that nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, func, or_, select

from epochal.ledger.database import Database
from epochal.ledger.reading import has_ended
from epochal.ledger.tables import agents, attempts, documents, events, inputs, jobs, now, requests, tokens, trials

_BATCH = 200
"""Jobs in one transaction."""

_Which = Select[str]
_Remove = Callable[[Connection, Sequence[str]], None]


class Pruning:
    """What goes by its age. Nothing of a job that may go on."""

    _database: Database

    def prune(self, events_for: float | None, jobs_for: float | None) -> Iterator[str]:
        """Delete what is older; what that was, batch by batch.

        Args:
            events_for: seconds for which the events of a job are kept once it has ended, its last one as long as the
                job; None: for ever.
            jobs_for: the same of the job itself, with its attempts, documents, trials and idempotency key, of tokens
                that are worthless, and of agents that were not heard of.
        """
        if events_for is not None:
            yield from self._in_batches(_with_old_events(events_for), _delete_events, "events of")
        if jobs_for is not None:
            yield from self._in_batches(_ended(jobs_for), _delete_jobs, "ledger's record of")
            before = now() - jobs_for
            worthless = or_(tokens.c.expires_at < before, tokens.c.revoked_at < before)
            yield from self._where(agents, agents.c.seen_at < before, "agents not heard of")
            yield from self._where(tokens, worthless, "worthless tokens")

    def _where(self, table: Table, old: ColumnElement[bool], what: str) -> Iterator[str]:
        with self._database.write() as connection:
            count = connection.execute(delete(table).where(old)).rowcount
        if count:
            yield f"{what} ({count})"

    def _in_batches(self, which: _Which, remove: _Remove, what: str) -> Iterator[str]:
        while True:
            with self._database.write() as connection:
                # Locked: a sweep that has ended may be extended at this moment, and is then no more to be deleted.
                batch = which.limit(_BATCH).with_for_update(skip_locked=True)
                found: list[str] = list(connection.scalars(batch).all())
                if found:
                    remove(connection, found)
            if not found:
                return
            more = f" and {len(found) - 1} more jobs" if len(found) > 1 else ""
            yield f"{what} {found[0]}{more}"


def _ended(seconds: float) -> _Which:
    return select(jobs.c.id).where(has_ended(now() - seconds)).order_by(jobs.c.number)


def _with_old_events(seconds: float) -> _Which:
    several = select(events.c.job_id).group_by(events.c.job_id).having(func.count() > 1)
    return _ended(seconds).where(jobs.c.id.in_(several))


def _delete_events(connection: Connection, job_ids: Sequence[str]) -> None:
    theirs = events.c.job_id.in_(job_ids)
    last = select(func.max(events.c.id)).where(theirs).group_by(events.c.job_id)
    connection.execute(delete(events).where(theirs, events.c.id.not_in(last)))


def _delete_jobs(connection: Connection, job_ids: Sequence[str]) -> None:
    for table in (events, attempts, documents, trials, inputs, requests):
        connection.execute(delete(table).where(table.c.job_id.in_(job_ids)))
    connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))
