"""Looking after the database: is it there, has anything changed, a copy of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from epochal.errors import NotFoundError, UnreachableError, UsageError
from epochal.ledger.database import Database
from epochal.ledger.migrations import HEAD
from epochal.ledger.schema import prepare, version
from epochal.ledger.tables import events

_WINDOW = 256
"""More than the transactions that can be under way at once."""


class Upkeep:
    """What a server and an operator ask of the database itself."""

    _database: Database

    def ping(self) -> None:
        """
        Raises:
            UnreachableError: the database does not answer.
        """
        with self._database.read() as connection:
            connection.execute(select(1))

    def change_token(self) -> int:
        """A number that grows with every event, whoever wrote it: cheap to look at again and again."""
        # PostgreSQL numbers events before they are committed, so one may come to light after a higher one: the newest
        # are counted as well.
        newest = select(func.coalesce(func.max(events.c.id), 0).label("id")).subquery()
        recent = select(func.count()).where(events.c.id > newest.c.id - _WINDOW).scalar_subquery()
        with self._database.read() as connection:
            found = connection.execute(select(newest.c.id, recent)).one()
            return int(found[0]) * (_WINDOW + 1) + int(found[1])

    def backup(self, path: Path) -> None:
        """Copy a SQLite ledger that is in use to a new file, readable by its owner alone; all of it, or no file.

        Raises:
            UsageError: the ledger is in PostgreSQL, or ``path`` is taken.
            UnreachableError: the copy cannot be written.
        """
        _back_up(self._database, path)


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
    """See ``Upkeep.backup``; of a ledger of whatever version, which is left as it is.

    Raises:
        NotFoundError: there is no such file.
    """
    _check_exists(url)
    with closing(Database(url)) as database:
        _back_up(database, path)


def _check_exists(url: str) -> None:
    """Opening a SQLite database would create it."""
    _, is_sqlite, file = url.partition("sqlite:///")
    if is_sqlite and not Path(file).exists():
        raise NotFoundError("ledger", file, hint="give the one to back up with --ledger")


def _back_up(database: Database, path: Path) -> None:
    if not database.is_sqlite:
        raise UsageError("a ledger in PostgreSQL is not backed up by Epochal", "use pg_dump, as for any database")
    if path.exists():
        raise UsageError(f"{path} exists", "give the name of a new file")
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        _copy(database, unfinished)
        unfinished.replace(path)
    except (OSError, sqlite3.Error) as error:
        unfinished.unlink(missing_ok=True)
        raise UnreachableError(f"cannot write the backup {path}: {error}", "is its disk full or read-only?") from error


def _copy(database: Database, path: Path) -> None:
    with closing(sqlite3.connect(path)) as target, database.read() as connection:
        source: Any = connection.connection.driver_connection
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
