"""What a process that died left behind is reconciled, from the ledger's side and the run's."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil
import pytest

from epochal.agent.reconcile import foreground_name, is_dead, settle_interrupted
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.settings import Home
from epochal.spec.job import JobSpec
from epochal.tracking.desired_run import DesiredRun

SPEC = JobSpec.model_validate(
    {"version": 1, "name": "left", "model": {"name": "cnn"}, "data": {"name": "digits"}, "train": {"epochs": 1}}
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def running_job(ledger: Ledger, home: Home, agent: str, ttl: float = 60.0) -> str:
    job = ledger.submit(SPEC.model_dump(mode="json"), name=SPEC.name)
    lease = ledger.lease(agent, ttl, job.id)
    assert lease is not None
    ledger.running(lease, 1)
    DesiredRun.of(job.id, SPEC).save(home.job(job.id))
    return job.id


def name_of_a_dead_process() -> str:
    """Its number lives on in another process: this one."""
    return f"run@{socket.gethostname()}/{os.getpid()}/1"


def test_a_process_knows_whether_another_is_alive() -> None:
    assert not is_dead(foreground_name())
    assert is_dead(name_of_a_dead_process())
    assert is_dead(f"run@{socket.gethostname()}/{2**31 - 1}/1"), "no such number"
    # Nobody here can tell.
    assert not is_dead("run@another-host/1/1")
    assert not is_dead("agent-7")


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_makes_no_process_dead(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    name = foreground_name()
    create_time, boot_time = psutil.Process.create_time, psutil.boot_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600 * hours)
    monkeypatch.setattr(psutil, "boot_time", lambda: boot_time() + 3600 * hours)
    assert not is_dead(name)


def test_a_job_of_a_dead_process_waits_and_its_run_is_closed(home: Home) -> None:
    with Ledger.open(home.ledger_url) as ledger:
        job = running_job(ledger, home, name_of_a_dead_process())
        assert [attempt.job_id for attempt in settle_interrupted(ledger, home)] == [job]
        assert (ledger.job(job).state, ledger.job(job).reason) == (JobState.PAUSED, Reason.INTERRUPTED)
        record = DesiredRun.load(home.job(job))
        assert (record.status, record.reason) == ("KILLED", "INTERRUPTED")
        assert settle_interrupted(ledger, home) == []


@pytest.mark.parametrize("ttl", [60.0, -60.0])
def test_a_job_of_a_living_process_is_left_alone(home: Home, ttl: float) -> None:
    """Also of one that has not renewed its lease, as it was stopped."""
    with Ledger.open(home.ledger_url) as ledger:
        job = running_job(ledger, home, foreground_name(), ttl)
        assert settle_interrupted(ledger, home) == []
        assert ledger.job(job).state is JobState.RUNNING
        assert DesiredRun.load(home.job(job)).status == "RUNNING"


def test_a_run_left_open_by_one_who_died_in_between_is_closed(home: Home) -> None:
    with Ledger.open(home.ledger_url) as ledger:
        job = running_job(ledger, home, name_of_a_dead_process())
        ledger.expire(then=JobState.PAUSED, dead_agents=[ledger.job(job).owner or ""])  # and dies before the record
        settle_interrupted(ledger, home)
        record = DesiredRun.load(home.job(job))
        assert record.status == "KILLED"
        assert record.end_time == ledger.job(job).entered_at, "it ended when it died, not when somebody noticed"
