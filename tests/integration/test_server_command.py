"""`epochal server` as a process: it starts light and at once, and stops within seconds."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from epochal.cli.main import main
from epochal.ledger import schema
from epochal.ledger.database import Database
from polling import until
from running_server import SPEC

EPOCHAL = [sys.executable, "-m", "epochal.cli.main"]
HEAVY = ("torch", "ray", "mlflow", "numpy", "pandas")
PROBE = f"""
import sys
from epochal.server.app import create_app
print([name for name in {HEAVY!r} if name in sys.modules])
"""


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    process = subprocess.Popen(
        [*EPOCHAL, "server", "--port", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()
        secret = (Path(os.environ["EPOCHAL_HOME"]) / "token").read_text().strip()
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=40) as client:
            yield process, client
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_nothing_heavy_is_imported() -> None:
    probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert probe.stdout.strip() == "[]"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=str)
def test_it_stops_within_five_seconds_though_many_wait(number: signal.Signals) -> None:
    answers: list[tuple[int, bool]] = []
    with started() as (process, client):
        job = client.post("/api/v1/jobs", json={"spec": SPEC}).json()["job"]["id"]
        newest = client.get(f"/api/v1/jobs/{job}/events").json()["events"][-1]["id"]

        def waits() -> None:
            query = {"after": newest, "wait": 30}
            answer = httpx.get(
                f"{client.base_url}/api/v1/jobs/{job}/events", params=query, headers=client.headers, timeout=40
            )
            answers.append((answer.status_code, answer.json()["done"]))

        threads = [threading.Thread(target=waits) for _ in range(20)]
        for thread in threads:
            thread.start()
        until(lambda: "epochal_long_polls 20.0" in client.get("/metrics").text, "20 who wait")
        process.send_signal(number)
        began = time.monotonic()
        assert process.wait(20) == 0
        stopping = time.monotonic() - began
        for thread in threads:
            thread.join()
    assert answers == [(200, False)] * 20, "answered, not cut off"
    assert stopping < 5


def test_a_killed_server_has_lost_nothing_that_it_accepted() -> None:
    with started() as (process, client):
        accepted = [client.post("/api/v1/jobs", json={"spec": SPEC}).json()["job"]["id"] for _ in range(20)]
        process.kill()
        process.wait()
    with started() as (process, client):
        assert {job["id"] for job in client.get("/api/v1/jobs").json()["jobs"]} == set(accepted)


def test_the_token_is_not_in_the_arguments_or_the_output(epochal_home: Path) -> None:
    with started("--single-user") as (process, client):
        secret = (epochal_home / "token").read_text().strip()
        assert client.get("/api/v1/whoami").json()["role"] == "admin"
        assert client.get("/api/v1/nope").status_code == 404
        assert secret not in " ".join(psutil.Process(process.pid).cmdline())
        process.terminate()
        output = "".join(process.communicate())
    assert secret not in output
    assert (epochal_home / "token").stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(epochal_home / "ledger.db") as database:
        assert secret not in "\n".join(database.iterdump())


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """What the command says where it is told what it cannot use: in this process, for it never begins to serve."""

    def said(*options: str, code: int = 2) -> str:
        assert main(["server", *options]) == code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return captured.err

    return said


def test_what_cannot_be_used_is_told(refused: Refused, epochal_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}" in refused("--port", port)
    assert not epochal_home.exists(), "nothing is opened before the port is ours"
    assert "single user" in refused("--single-user", "--host", "0.0.0.0", "--port", "0")
    assert "nonsense" in refused("--storage", "nonsense://x", "--port", "0")
    assert "not supported" in refused("--ledger", "mysql://x", "--port", "0")
    assert "expected USER:ROLE=FILE" in refused("--token", "pool:root=token", "--port", "0")
    assert "none cannot be read" in refused("--token", "pool:agent=none", "--port", "0")


def test_older_ledger_is_left_to_a_person_where_asked(refused: Refused, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    with closing(Database(url)) as database, database.write() as connection:
        schema.migrate(connection, "0001")
    assert "epochal db upgrade" in refused("--no-upgrade", "--ledger", url, "--port", "0", code=4)
    with closing(Database(url)) as database, database.read() as connection:
        assert schema.version(connection) == "0001"
