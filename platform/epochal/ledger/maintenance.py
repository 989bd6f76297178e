"""Looking after the database: is it there, has anything changed, a copy of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Set
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, select

from epochal.errors import NotFoundError, UnreachableError, UsageError
from epochal.files import sync
from epochal.ledger.database import Database, parsed
from epochal.ledger.migrations import HEAD
from epochal.ledger.schema import prepare, version
from epochal.ledger.states import ACTIVE, EventKind, JobState
from epochal.ledger.tables import attempts, events, jobs, quotas
from epochal.ledger.values import News
from epochal.redaction import said

_WINDOW = 256
"""More than the transactions that can be under way at once."""


class Maintenance:
    """What a server and an operator ask of the database itself."""

    _database: Database

    def ping(self) -> None:
        """
        Raises:
            UnreachableError: the database does not answer.
        """
        with self._database.read() as connection:
            connection.execute(select(1))

    def news(self, seen: Set[int] | None) -> News:
        """What events have told since the look that saw ``seen``: cheap to ask again and again."""
        its_attempt = (attempts.c.job_id == events.c.job_id) & (attempts.c.epoch == events.c.epoch)
        elastic = (jobs.c.workers_min < jobs.c.workers_max).label("elastic")
        columns = events.c.job_id, events.c.kind, events.c.previous, events.c.state, attempts.c.agent, elastic
        query = select(*columns).join(jobs, jobs.c.id == events.c.job_id).outerjoin(attempts, its_attempt)
        with self._database.read() as connection:
            found = newest_events(connection)
            unseen = found.difference(seen or ())
            fresh = connection.execute(query.where(events.c.id.in_(unseen))).all() if unseen else []
            agents = [row.agent.partition("/")[0] for row in fresh if _leaves_room(row)]
            queued = any(JobState.QUEUED in (row.previous, row.state) and row.state not in ACTIVE for row in fresh)
            queued = queued or bool(agents and connection.execute(select(quotas.c.name).limit(1)).first())
        missed = seen is None or max(seen, default=0) <= max(found, default=0) - _WINDOW
        return News(found, frozenset(row.job_id for row in fresh), frozenset(agents), queued, missed)


def newest_events(connection: Connection) -> frozenset[int]:
    """The numbers of the newest events. PostgreSQL numbers them before they are committed, so one may come to light
    after a higher one: each is known by its own number."""
    newest = select(func.max(events.c.id)).scalar_subquery()
    return frozenset(connection.scalars(select(events.c.id).where(events.c.id > newest - _WINDOW)))


def _leaves_room(event: Row[*tuple[Any, ...]]) -> bool:
    """Whether an agent has more room for it: its job has left, or takes less than it might have."""
    left = event.previous in ACTIVE and event.state not in ACTIVE
    begun = event.state == JobState.RUNNING != event.previous
    resized = event.kind in (EventKind.RESIZE_REQUESTED, EventKind.RESIZED)
    return event.agent is not None and (left or (begun and event.elastic) or resized)


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring the tables to this version's; the versions before (None: there were none) and after.

    Raises:
        UnreachableError, UsageError, ConflictError: as ``Ledger.open``.
    """
    with closing(Database(url)) as database:
        with database.read() as connection:
            before = version(connection)
        prepare(database)
        return before, HEAD


def back_up(url: str, path: Path) -> None:
    """Copy a SQLite ledger, of whatever version and perhaps in use, to a new file, readable by its owner alone; all of
    it, or no file.

    Raises:
        NotFoundError: there is no such ledger.
        UsageError: it is in PostgreSQL, or ``path`` is taken.
        UnreachableError: the copy cannot be written.
    """
    require_file(url)
    unfinished = path.with_name(f"{path.name}.unfinished")
    with closing(Database(url)) as database:
        if not database.is_sqlite:
            raise UsageError("a ledger in PostgreSQL is not backed up by Epochal", "use pg_dump, as for any database")
        if path.exists():
            raise UsageError(f"{path} exists", "give the name of a new file")
        try:
            os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            with closing(sqlite3.connect(unfinished)) as target, database.read() as connection:
                source: Any = connection.connection.driver_connection
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
            unfinished.replace(path)
            sync(path.absolute().parent)
        except (OSError, sqlite3.Error) as error:
            unfinished.unlink(missing_ok=True)
            hint = "is its disk full or read-only?"
            raise UnreachableError(f"cannot write the backup {path}: {said(error)}", hint) from error


def require_file(url: str) -> None:
    """To be called before a SQLite ledger is opened that must be there: opening it would create it.

    Raises:
        NotFoundError: there is no such file.
    """
    parts = parsed(url)
    if parts.get_backend_name() == "sqlite" and parts.database and not Path(parts.database).exists():
        raise NotFoundError("ledger", parts.database, hint="name the one that is meant with --ledger")
