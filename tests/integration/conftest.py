"""Databases for the tests that need real ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from databases import ledger_url, new_ledger_url, postgres  # noqa: F401 - fixtures
from epochal.tracking.connection import prepare_sqlite
from unsynced import no_waiting_for_the_disk  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def migrated_mlflow_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, made once: its migrations take a second."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    prepare_sqlite(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_uri(tmp_path: Path, migrated_mlflow_db: Path) -> str:
    """A tracking URI on an empty SQLite file of this test."""
    path = tmp_path / "tracking" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(migrated_mlflow_db, path)
    return f"sqlite:///{path}"
