"""What the database library raises, as users see it."""

from __future__ import annotations

import pickle
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import exc

from epochal.errors import EpochalError, StaleLeaseError, UnreachableError, UsageError
from epochal.ledger import database, user_operations
from epochal.ledger.database import ERRORS, Database, mapped_errors
from epochal.ledger.ledger import Ledger
from epochal.ledger.maintenance import require_file
from epochal.settings import sqlite_url

BUGS = {
    exc.DataError, exc.IntegrityError, exc.InternalError, exc.NotSupportedError, exc.ProgrammingError,
    exc.DatabaseError, exc.DBAPIError,
}  # fmt: skip
"""Errors that only a mistake of ours can cause; ``DatabaseError`` itself is looked at by ``_meaning``."""


def driver_errors(kind: type[exc.SQLAlchemyError] = exc.DBAPIError) -> set[type[exc.SQLAlchemyError]]:
    """The error classes that stand for a driver's (PEP 249), down the tree."""
    return {kind}.union(*(driver_errors(child) for child in kind.__subclasses__()))


def test_map_is_complete() -> None:
    assert driver_errors() == BUGS | (set(ERRORS) & driver_errors())


@pytest.mark.parametrize("url", ["mysql://localhost/x", "nonsense", "sqlite+nonsense:///x", "http://localhost"])
def test_url_of_something_else(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Ledger.open(url)
    assert "sqlite:///PATH" in caught.value.hint


@pytest.mark.parametrize("use", [Ledger.open, require_file])
def test_url_with_a_port_that_is_no_number(use: Callable[[str], object]) -> None:
    """A password perhaps, in the wrong place."""
    with pytest.raises(UsageError, match="its port is no number") as caught:
        use("postgresql://ada@db:hunter2/ledger")
    assert "sqlite:///PATH" in caught.value.hint


def test_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the driver psycopg") as caught:
        Ledger.open("postgresql://localhost/ledger")
    assert "epochal[postgres]" in caught.value.hint


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError, match="cannot write the ledger") as caught:
        Ledger.open(f"sqlite:///{tmp_path / 'file' / 'ledger.db'}")
    assert "EPOCHAL_HOME" in caught.value.hint


def test_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("no database at all " * 100)
    with pytest.raises(EpochalError, match="not a usable database: file is not a database"):
        Ledger.open(f"sqlite:///{path}")
    assert path.read_text().startswith("no database")


def test_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.open(url) as ledger:
        other = Database(url)
        with other.write(), pytest.raises(UnreachableError, match="database is locked"):
            ledger.submit({}, name="digits")
        other.close()
        assert ledger.submit({}, name="digits").name == "digits"


def test_server_that_does_not_answer() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UnreachableError, match=r"cannot use the ledger postgresql://ada:\*\*\*@127") as caught:
        Ledger.open("postgresql://ada:secret@127.0.0.1:9/ledger")
    assert "secret" not in str(caught.value)


def test_bug_keeps_its_traceback() -> None:
    with pytest.raises(exc.InvalidRequestError), mapped_errors("x"):
        raise exc.InvalidRequestError("ours")


def test_error_in_the_middle_of_a_change_undoes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*ignored: object) -> None:
        raise RuntimeError("between two writes")

    with Ledger.open("sqlite://") as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(user_operations, "record", fail)
            with pytest.raises(RuntimeError, match="between two writes"):
                ledger.submit({}, name="digits")
        assert ledger.jobs() == []
        assert ledger.submit({}, name="digits").number == 1


def test_refusal_that_is_no_collision_is_a_bug() -> None:
    with Ledger.open("sqlite://") as ledger, pytest.raises(exc.IntegrityError, match="NOT NULL"):
        ledger.submit({}, name="digits", submitted_by=None)  # type: ignore[arg-type]


def test_stale_lease_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(StaleLeaseError("digits-1", 1, 2, "RUNNING")))
    assert str(error) == "attempt 1 of digits-1 is over: the job is RUNNING with attempt 2"
    assert error.exit_code == 4


@pytest.mark.parametrize("room", [0, 100, 4096, 20_000, 60_000])
def test_a_new_ledger_that_finds_no_room(tmp_path: Path, room: int) -> None:
    """A file may not grow further: like a disk that is full."""
    url = sqlite_url(tmp_path / "ledger.db")
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(UnreachableError, match="cannot use the ledger"):
            Ledger.open(url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Ledger.open(url) as ledger:
        assert ledger.jobs() == []
