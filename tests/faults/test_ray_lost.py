"""kill -9 of Ray's own processes: the agent notices, hands its jobs back, and ends so that it is started again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from foreground import title

from agent_jobs import SLOW_CODE, Curve, curve, ended, submit, wait_for_step
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Outcome, Reason
from epochal.ledger.values import Job, Role
from epochal.settings import Home
from epochal.urls import free_port
from polling import until

NOTICED_SECONDS = 30.0
LONG = ("train.steps=300", "checkpoint.every=50steps", "train.validate_every=300steps")
"""Longer than it takes to notice that the GCS is gone, which the workers do not."""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    place = Home(tmp_path / "home").served
    place.root.mkdir(parents=True)
    return place


@pytest.fixture
def ledger(home: Home) -> Iterator[Ledger]:
    with Ledger.open(home.ledger_url) as ledger:
        yield ledger


@pytest.fixture
def start_agent(home: Home, ledger: Ledger, tmp_path: Path) -> Iterator[Start]:
    """Starts `epochal agent` against a server of its own; both are ended with the test."""
    token, port = tmp_path / "agent-token", free_port()
    token.write_text(ledger.create_token("lost", Role.AGENT)[1])
    place = {"EPOCHAL_HOME": str(home.root.parent), "MLFLOW_TRACKING_URI": home.tracking_uri}
    environ = {**os.environ, **place, "PYTHONPATH": str(SLOW_CODE)}
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "epochal.cli.main", *arguments]
        with (tmp_path / f"{arguments[0]}.log").open("ab") as log:
            started.append(subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return started[-1]

    start("server", "--port", str(port))
    server = f"http://127.0.0.1:{port}"
    yield lambda: start("agent", "--server", server, "--token-file", str(token), "--name", "lost", "--warm", "0")
    for process in reversed(started):
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def processes_of_ray(agent: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    children = psutil.Process(agent.pid).children(recursive=True)
    return [child for child in children if re.search(rf"/{name}(\s|$)", title(child))]


@pytest.fixture
def unbroken(home: Home, ledger: Ledger, start_agent: Start) -> tuple[subprocess.Popen[bytes], Curve]:
    """An agent, and the loss of a training of its that nobody interrupted."""
    agent = start_agent()
    job = ended(ledger, submit(ledger, *LONG))
    assert job.state is JobState.SUCCEEDED, job.message
    return agent, curve(home, job)


def handed_back(home: Home, ledger: Ledger, agent: subprocess.Popen[bytes], killed: str, *changes: str) -> Job:
    """A job whose agent's Ray has lost those processes while it trained."""
    job = submit(ledger, *LONG, *changes)
    wait_for_step(home, job, 40)
    family = psutil.Process(agent.pid).children(recursive=True)
    begun = time.monotonic()
    for process in processes_of_ray(agent, killed):
        process.kill()
    assert agent.wait(NOTICED_SECONDS) == 5
    print(f"{killed}: the agent was gone after {time.monotonic() - begun:.1f} s")
    attempt = ledger.attempts(job.id)[0]
    assert (attempt.outcome, attempt.reason) == (Outcome.INTERRUPTED, Reason.INTERRUPTED)
    assert ledger.job(job.id).state is JobState.QUEUED
    until(lambda: not [one for one in family if one.is_running() and title(one)], "nothing is left of that Ray")
    return job


@pytest.mark.slow
def test_a_job_of_a_lost_ray_is_handed_back(home: Home, ledger: Ledger, start_agent: Start) -> None:
    handed_back(home, ledger, start_agent(), "raylet", "resources.workers=1")


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["raylet", "gcs_server"])
def test_jobs_of_a_lost_ray_go_on_exactly(
    home: Home, ledger: Ledger, start_agent: Start, unbroken: tuple[subprocess.Popen[bytes], Curve], killed: str
) -> None:
    agent, expected = unbroken
    job = handed_back(home, ledger, agent, killed)
    start_agent()
    job = ended(ledger, job)
    assert (job.state, job.epoch) == (JobState.SUCCEEDED, 2)
    assert curve(home, job) == expected
