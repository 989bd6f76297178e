"""What an agent needs: a real Ray, a real ledger and MLflow's own database."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_jobs import SLOW_CODE
from epochal.agent.in_process import LedgerSource
from epochal.agent.program import PackageProgram
from epochal.agent.retry_policy import Ending
from epochal.engine.connection import Connection, connect
from epochal.ledger.states import Reason
from epochal.settings import Home


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """One for all files of this folder: each takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SLOW_CODE), prepend=os.pathsep)
        with connect(token_path=tmp_path_factory.mktemp("ray") / "ray_token", cpus=2) as connection:
            yield connection


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def ledger(home: Home) -> Iterator[LedgerSource]:
    with LedgerSource.open(home.ledger_url) as ledger:
        yield ledger


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory, migrated_mlflow_db: Path) -> str:
    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    shutil.copyfile(migrated_mlflow_db, path)
    return f"sqlite:///{path}"


@pytest.fixture
def nothing_packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not look at packages, each of which takes a worker of its own."""
    monkeypatch.setattr(PackageProgram, "run", lambda *_: Ending(Reason.COMPLETED))
