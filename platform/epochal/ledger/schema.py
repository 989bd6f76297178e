"""Bring a database to the tables of this version: at once where it is empty, by migrations where it is older."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    exc,
    insert,
    inspect,
    select,
    text,
)

from epochal.errors import ConflictError, OlderLedgerError
from epochal.ledger.database import Database, mapped_errors
from epochal.ledger.migrations import HEAD, VERSION_TABLE
from epochal.ledger.tables import metadata

_version = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)
_UPGRADE = "`epochal db upgrade` brings it up to date; back it up first"
_LOCK = 0x45706F6368616C  # "Epochal", for PostgreSQL's advisory locks


def prepare(database: Database, upgrade: bool = True) -> None:
    """Create or upgrade the tables, once, whoever else opens the database at this moment.

    Raises:
        ConflictError: a newer version wrote it.
        OlderLedgerError: an older one did, and ``upgrade`` is False.
    """
    with database.read() as connection:
        found = version(connection)
    if found == HEAD:
        return
    if found is not None and not upgrade:
        _refuse_newer(found)
        raise OlderLedgerError(f"the ledger has tables of version {found}, older than this Epochal's {HEAD}", _UPGRADE)
    if database.is_sqlite:
        _use_wal(database)
    with database.write() as connection:
        _lock(connection)
        _bring_up(connection, version(connection))


def version(connection: Connection) -> str | None:
    """The revision of the tables; None where there are none yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(_version.c.version_num))


def migrate(connection: Connection, target: str = "head") -> None:
    """Run the migrations up to ``target``, from nothing if need be."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))  # a sign of ConfigParser's own
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, target)


def _bring_up(connection: Connection, found: str | None) -> None:
    if found is None:
        metadata.create_all(connection)
        _version.create(connection)
        connection.execute(insert(_version).values(version_num=HEAD))
    elif found != HEAD:
        _refuse_newer(found)
        migrate(connection)


def _refuse_newer(found: str) -> None:
    if not any((Path(__file__).parent / "migrations" / "versions").glob(f"v{found}_*.py")):
        raise ConflictError(
            f"the ledger has tables of version {found}, which is newer than this Epochal's {HEAD}",
            "upgrade Epochal: pip install --upgrade epochal",
        )


def _use_wal(database: Database) -> None:
    """Write-ahead logging, so that readers and the writer do not wait for each other. The file remembers it."""
    statement = "PRAGMA journal_mode = WAL"
    with mapped_errors(database.label):
        connection = database.engine.raw_connection()  # outside a transaction, where alone the mode can be changed
        try:
            connection.cursor().execute(statement)
        except sqlite3.OperationalError as error:
            raise exc.OperationalError(statement, None, error) from error
        finally:
            connection.close()


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = 0"))  # rewriting a table may take its time
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
