"""A real server in this process, its client, and an agent that the test plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from restartable_server import SPEC, PlayedAgent, RestartableServer

from epochal.cli.main import main
from epochal.client import Client
from epochal.ledger.values import Job


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartableServer]:
    running = RestartableServer(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RestartableServer]:
    """One that the test may stop, with nobody else's jobs."""
    running = RestartableServer(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(server: RestartableServer) -> Iterator[Client]:
    with server.client() as connected:
        yield connected


@pytest.fixture
def agent(server: RestartableServer) -> Iterator[PlayedAgent]:
    played = PlayedAgent(server)
    with closing(played.ledger):
        yield played


@pytest.fixture
def submit(client: Client) -> Callable[..., Job]:
    """Queue a small job, with ``path=value`` overrides."""
    return lambda *overrides: client.submit(SPEC, overrides).job


@pytest.fixture
def connected(server: RestartableServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands talk to the server, and may."""
    monkeypatch.setenv("EPOCHAL_SERVER", server.url)
    monkeypatch.setenv("EPOCHAL_TOKEN", server.token)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command here: its exit code, stdout and stderr."""

    def called(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        told = capsys.readouterr()
        return code, told.out, told.err

    return called
