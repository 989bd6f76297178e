"""MLflow servers for the tests that need real ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flaky_proxy import FlakyProxy

from epochal.tracking.server import TrackingServer
from epochal.urls import free_port


@pytest.fixture
def stopped_mlflow_server(tmp_path: Path, sqlite_uri: str) -> Iterator[TrackingServer]:
    """A real MLflow server that is not running yet: ``start()``, ``stop()``, ``kill()``; always on the same port."""
    server = TrackingServer(sqlite_uri, port=free_port(), log=tmp_path / "mlflow-server.log")
    yield server
    server.stop()


@pytest.fixture
def mlflow_server(stopped_mlflow_server: TrackingServer) -> TrackingServer:
    """The same, running."""
    return stopped_mlflow_server.start()


@pytest.fixture(scope="session")
def shared_mlflow_server(
    tmp_path_factory: pytest.TempPathFactory, migrated_mlflow_db: Path
) -> Iterator[TrackingServer]:
    """One real MLflow server for every test that does not stop it: starting one takes five seconds."""
    folder = tmp_path_factory.mktemp("shared-mlflow")
    shutil.copyfile(migrated_mlflow_db, folder / "mlflow.db")
    with TrackingServer(f"sqlite:///{folder / 'mlflow.db'}", port=free_port(), log=folder / "server.log") as server:
        yield server


@pytest.fixture
def flaky_mlflow(shared_mlflow_server: TrackingServer) -> Iterator[FlakyProxy]:
    """The shared server behind a forwarder that can be taken down or lose answers."""
    with FlakyProxy(shared_mlflow_server.url) as proxy:
        yield proxy


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def any_uri(request: pytest.FixtureRequest) -> str:
    """The same code sends to either: what differs between the two is tried with both by tests that say so."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_uri"))
    return str(request.getfixturevalue("shared_mlflow_server").url)
