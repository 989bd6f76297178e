"""The connection to SQLite or PostgreSQL: transactions, and the one place where the library's errors become ours."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy.orm  # noqa: F401 - by the main thread, before one that imports mlflow meets a half-imported one
from sqlalchemy import Connection, Engine, create_engine, event, exc, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from epochal.errors import EpochalError, UnreachableError, UsageError
from epochal.ledger.documents import encode
from epochal.redaction import said
from epochal.urls import without_password

BUSY_SECONDS = 15.0
"""How long a SQLite transaction waits for another process's."""

IDLE_SECONDS = 0.25
"""Less than any database takes to start again."""

LIMITS = {
    "lock_timeout": 10_000,
    "statement_timeout": 30_000,
    # The host of a server may die inside a transaction, whose locks would be held until TCP notices, hours later.
    "idle_in_transaction_session_timeout": 15_000,
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
}
"""Settings of every PostgreSQL session, in ms and s. What ``options`` in the URL say comes after them, and counts."""

_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""The same from this end (libpq): the database's host may die, too."""

_TIMED_OUT = frozenset({"25P03", "25P04"})
"""SQLSTATEs of a transaction that took too long: of the kind that else are bugs of ours."""

ERRORS: dict[type[exc.SQLAlchemyError], type[EpochalError]] = {
    exc.OperationalError: UnreachableError,  # connection refused or lost, database locked, disk full, read-only
    exc.InterfaceError: UnreachableError,
    exc.TimeoutError: UnreachableError,  # every pooled connection is in use
    exc.ArgumentError: UsageError,  # not a URL, or one of another kind of database
}
"""What is the environment's fault. Any other error of the library is a bug of ours and shows its traceback."""
_HINTS: dict[type[EpochalError], str] = {
    UnreachableError: "is the database running and reachable, is its disk full or read-only? `epochal doctor` checks"
    " this machine",
    UsageError: "expected sqlite:///PATH or postgresql://USER@HOST/DATABASE",
}


def parsed(url: str) -> URL:
    """The URL of a ledger, of whatever database.

    Raises:
        UsageError: it is none.
    """
    with mapped_errors(without_password(url)):
        try:
            return make_url(url)
        except ValueError as error:  # SQLAlchemy leaves it to Python, which names what may be half of a password
            raise exc.ArgumentError("its port is no number") from error


_LOCK = 0x71756575  # "queu", for PostgreSQL's advisory locks

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgresql+psycopg": "postgresql+psycopg"}


class Database:
    """One database. Threads may share it; a forked child must open its own."""

    def __init__(self, url: str) -> None:
        with mapped_errors(without_password(url)):
            asked = parsed(url)
            if asked.drivername not in _DRIVERS:
                raise exc.ArgumentError(f"{asked.drivername} is not supported")
            self.url = asked.set(drivername=_DRIVERS[asked.drivername])
            self.label = asked.render_as_string(hide_password=True)
            """The URL as it was given, without its password."""
            self.is_sqlite = self.url.get_backend_name() == "sqlite"
            self.engine = _sqlite_engine(self.url) if self.is_sqlite else _server_engine(self.url)
        # On PostgreSQL each statement sees what is so when it begins, in a transaction as well: that would only cost.
        self._reading = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        snapshot = self.engine.execution_options(isolation_level="REPEATABLE READ")
        self._snapshot = self.engine if self.is_sqlite else snapshot
        # SQLite makes waiting writers poll, up to 100 ms apart; threads of one process can queue instead.
        self._writers: AbstractContextManager[Any] = threading.Lock() if self.is_sqlite else nullcontext()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write; committed at the end, rolled back on any error."""
        with self._writers, mapped_errors(self.label), self.engine.connect() as plain:
            connection = plain.execution_options(epochal_write=True)
            with connection.begin():
                yield connection

    def write_once(self) -> AbstractContextManager[Connection]:
        """For one statement, which is a transaction by itself: on PostgreSQL it takes one round trip, not three."""
        return self.write() if self.is_sqlite else self.read()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """To read only; on SQLite a snapshot."""
        with mapped_errors(self.label), self._reading.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """To read only, all as it is when the first question is asked; on PostgreSQL dearer than ``read``."""
        with mapped_errors(self.label), self._snapshot.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def one_at_a_time(connection: Connection) -> None:
    """Let only one transaction at a time go on from here; on SQLite one that writes is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


@contextmanager
def mapped_errors(where: str) -> Iterator[None]:
    """Raise ``ERRORS`` as what they mean to a user."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        ours = _meaning(error, where)
        if ours is None:
            raise
        raise ours from error


def _meaning(error: exc.SQLAlchemyError, where: str) -> EpochalError | None:
    detail = said(getattr(error, "orig", None) or error).splitlines()[0]
    if isinstance(getattr(error, "orig", None), sqlite3.DatabaseError) and type(error) is exc.DatabaseError:
        return EpochalError(
            f"the ledger {where} is not a usable database: {detail}",
            "move the file away to start a new ledger, or restore it from a backup",
        )
    timed_out = getattr(getattr(error, "orig", None), "sqlstate", None) in _TIMED_OUT
    for theirs, ours in ERRORS.items():
        if isinstance(error, theirs) or (timed_out and ours is UnreachableError):
            return ours(f"cannot use the ledger {where}: {detail}", _HINTS[ours])
    return None


def _server_engine(url: URL) -> Engine:
    if find_spec("psycopg") is None:
        raise UsageError("PostgreSQL needs the driver psycopg", "install it: pip install 'epochal[postgres]'")
    limits = [f"-c {name}={value}" for name, value in LIMITS.items()]
    theirs = url.query.get("options", ())
    options = " ".join([*limits, *([theirs] if isinstance(theirs, str) else theirs)])
    arguments = {"connect_timeout": 10, **_KEEPALIVES, "options": options}
    # Last in, first out: few who ask use the same few connections, which were used just now and need no ping.
    engine = create_engine(url, json_serializer=encode, pool_use_lifo=True, connect_args=arguments)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(_ping_if_idle, engine))
    return engine


def _note_use(connection: object, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_if_idle(engine: Engine, connection: Any, record: ConnectionPoolEntry, proxy: object) -> None:
    """After a restart of the database the pool's connections are dead, and the next caller must not notice.

    What ``pool_pre_ping`` does, but not for one that was used just now: on a busy server that is every tenth question.
    """
    if time.monotonic() - record.info.get("used_at", math.inf) < IDLE_SECONDS:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise exc.InvalidatePoolError from error


def _sqlite_engine(url: URL) -> Engine:
    in_memory = url.database in (None, "", ":memory:")
    if not in_memory:
        _create_privately(Path(str(url.database)))
    engine = create_engine(
        url,
        json_serializer=encode,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        **({"poolclass": StaticPool} if in_memory else {}),  # each connection would have a database of its own
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _create_privately(path: Path) -> None:
    """Make the file readable by its owner alone before SQLite would create it for everyone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise UnreachableError(
            f"cannot write the ledger {path}: {error.strerror}", "set EPOCHAL_HOME to a folder that you can write"
        ) from error


def _set_up_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is deferred and late; _begin_sqlite says it instead
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # an accepted job survives a power cut


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails where another wrote in between; an immediate one waits.
    writes = connection.get_execution_options().get("epochal_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
