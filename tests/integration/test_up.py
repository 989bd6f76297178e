"""`epochal up` and `epochal down` with the real MLflow, server, agent and Ray, as a person types them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from epochal.local.port import is_free
from epochal.settings import home
from local_services import Here
from odd_names import home_named

QUICKSTART = "jobs/quickstart.yaml"


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
