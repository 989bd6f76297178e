"""`epochal up` and `epochal down` with the real MLflow, server, agent and Ray, as a person types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from epochal.local.port import is_free
from epochal.local.service_state import MARK, Services, read_services
from epochal.settings import home
from epochal.urls import free_port
from odd_names import home_named
from polling import until

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = "jobs/quickstart.yaml"
PATIENCE = 120.0


class Here:
    """The services of this test's home, on ports of their own."""

    def __init__(self) -> None:
        self.ports = (free_port(), free_port())
        self.folder = home().services

    def epochal(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "epochal.cli.main", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def up(self, cpus: int = 2) -> Services:
        server, mlflow = map(str, self.ports)
        came = self.epochal("up", "--port", server, "--mlflow-port", mlflow, "--cpus", str(cpus), "-o", "json")
        assert came.returncode == 0, came.stderr
        services = Services.from_json(came.stdout)
        assert services.ready
        return services

    def until(self, condition: Callable[[Services], Any], what: str) -> Services:
        return until(lambda: condition(found := read_services(self.folder)) and found, what, PATIENCE)

    def job(self, ref: str) -> dict[str, Any]:
        shown = self.epochal("status", ref, "-o", "json")
        assert shown.returncode == 0, shown.stderr
        found: dict[str, Any] = json.loads(shown.stdout)
        return found.get("job", found)

    def processes(self) -> list[str]:
        """Everything that carries the services' mark, or runs out of this home."""
        return [" ".join(command(one)) for one in psutil.process_iter() if self._is_ours(one)]

    def until_gone(self, seconds: float = 30.0) -> None:
        until(lambda: not self.processes(), "every process has ended", seconds)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get(MARK) == str(self.folder) or str(home().root) in " ".join(command(process))
        except psutil.Error:
            return False


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def here() -> Iterator[Here]:
    here = Here()
    yield here
    here.epochal("down", "--now")
    here.until_gone()


def test_from_nothing_to_a_finished_job_and_back_to_nothing(here: Here) -> None:
    services = here.up(cpus=1)  # as many warm workers, each of which costs the machine seconds
    assert [services.url(name) for name in ("server", "mlflow")] == [f"http://127.0.0.1:{port}" for port in here.ports]
    assert all(service.restarts == 0 for service in services.services)
    secrets = [path.read_text().strip() for path in (home().token, here.folder / "agent.token")]
    assert [path.stat().st_mode & 0o777 for path in (home().token, here.folder / "agent.token")] == [0o600, 0o600]

    again = here.epochal("up")
    assert again.returncode == 0
    assert "up already" in again.stderr
    assert services.url("server") in again.stdout
    assert str(home().token) in again.stdout
    ui = here.epochal("ui")
    assert ui.returncode == 0
    assert ui.stdout.startswith(f"{services.url('mlflow')}/#/experiments")

    job = here.epochal(
        "submit", QUICKSTART, "-s", "train.epochs=1", "-s", "resources.workers=1", "--no-check", "--follow"
    )
    assert job.returncode == 0, job.stderr
    commands = here.processes()
    assert commands
    assert not [line for line in commands if any(secret in line for secret in secrets)], "secrets are no arguments"

    down = here.epochal("down")
    assert down.returncode == 0, down.stderr
    assert "agent has ended (exit code 0)" in down.stderr
    assert here.processes() == []
    assert all(map(is_free, here.ports))
    assert "nothing is up" in here.epochal("down").stderr


@pytest.mark.slow
def test_killed_services_come_back_and_a_killed_supervisor_takes_all_with_it(here: Here) -> None:
    before = here.up()
    for service in before.services:
        os.kill(service.pid or 0, signal.SIGKILL)
    after = here.until(lambda found: found.ready and all(one.restarts for one in found.services), "all are back")
    assert [service.url for service in after.services] == [service.url for service in before.services]
    assert here.epochal("submit", QUICKSTART, "-s", "train.epochs=1", "--follow").returncode == 0

    os.kill(after.supervisor or 0, signal.SIGKILL)
    here.until_gone(seconds=60.0)
    assert here.up().supervisor != after.supervisor
    assert here.epochal("down", "--now").returncode == 0
    assert here.processes() == []


@pytest.mark.slow
def test_job_that_runs_is_saved_by_down_and_goes_on_after_up(here: Here) -> None:
    here.up()
    submitted = here.epochal("submit", QUICKSTART, "-s", "train.epochs=400", "--name", "long", "-o", "name")
    assert submitted.returncode == 0, submitted.stderr
    ref = submitted.stdout.strip()
    here.until(lambda _: here.job(ref)["state"] == "RUNNING", "it runs")
    time.sleep(2)
    down = here.epochal("down")
    assert down.returncode == 0, down.stderr
    assert f"save their state, and go on after the next `epochal up`: {ref}" in down.stderr
    assert here.processes() == []

    here.up()
    here.until(lambda _: here.job(ref)["state"] == "RUNNING", "it goes on")
    assert here.epochal("stop", ref).returncode == 0
    here.until(lambda _: here.job(ref)["state"] == "STOPPED", "it ends")
    events = json.loads(here.epochal("events", ref, "-o", "json").stdout)
    entered = [event["state"] for event in events if event["state"] != event["previous"]]
    assert entered.count("RUNNING") == 2
    assert entered.count("QUEUED") == 2, "it was submitted once, and handed back once"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my runs #1 %20", "it's Прогоны-é-測", "x" * 200], ids=["marks", "letters", "long"])
def test_in_a_home_of_an_odd_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    home_named(name, tmp_path, monkeypatch)
    here: Here = request.getfixturevalue("here")
    here.up(cpus=1)
    options = ["-s", "train.epochs=1", "-s", "resources.workers=1"]
    job = here.epochal("submit", QUICKSTART, *options, "--wait", "-o", "name")
    assert job.returncode == 0, job.stderr
    found = here.job(job.stdout.strip())
    assert found["state"] == "SUCCEEDED"
    assert here.epochal("logs", found["id"]).returncode == 0
    runs = json.loads(here.epochal("runs", "list", "-o", "json").stdout)
    assert [run["id"] for run in runs] == [found["run_id"]]
    down = here.epochal("down")
    assert down.returncode == 0, down.stderr
    assert here.processes() == []
