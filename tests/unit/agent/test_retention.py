"""What is deleted of jobs that ended long ago, and what never is."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from epochal.agent.foreground_job import ForegroundJob
from epochal.agent.housekeeping import Housekeeper
from epochal.agent.in_process import LedgerSource
from epochal.agent.job_folder import ensure
from epochal.agent.job_runner import Agent
from epochal.agent.observer import SilentObserver
from epochal.agent.retention import ENDED, Pruner
from epochal.errors import NotFoundError, UnreachableError
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job
from epochal.names import checked_name
from epochal.settings import DEFAULT_RETENTION, Home, Retention
from epochal.spec.job import JobSpec
from epochal.tracking.desired_run import CheckpointPointer, DesiredRun, artifacts_folder, note_checkpoint
from epochal.tracking.metric_spool import MetricSpool
from polling import until

AT_ONCE = Retention(checkpoints=0, spools=0, logs=0, code=0)
SPEC = JobSpec.model_validate(
    {"version": 1, "name": "old", "model": {"name": "mlp"}, "data": {"name": "digits"}, "train": {"epochs": 1}}
)
PRUNED = {"checkpoints", "spool", "logs"}
KEPT = {"model", "artifacts"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def ledger(home: Home) -> Iterator[LedgerSource]:
    with LedgerSource.open(home.ledger_url) as opened:
        yield opened


def job_in(state: JobState, ledger: LedgerSource, home: Home, code: str | None = None) -> Path:
    """The folder of a job in that state, with something of each kind in it."""
    job = ledger.submit(SPEC.model_dump(mode="json"), name="old", origin={"code": code} if code else {})
    if state is not JobState.QUEUED:
        lease = ledger.lease("agent/1", 30, job.id)
        assert lease is not None
        ledger.running(lease, world_size=1)
        if state in (JobState.SUCCEEDED, JobState.FAILED):
            ledger.finish(lease, state, Reason.COMPLETED if state is JobState.SUCCEEDED else Reason.USER_ERROR)
        elif state is JobState.PAUSED:
            ledger.pause(lease)
        elif state is JobState.STOPPED:
            ledger.request_stop(job.id)
            ledger.stopped(lease)
    assert ledger.job(job.id).state is state
    folder = home.job(job.id)
    for name in sorted(PRUNED | KEPT):
        (folder / name / "below").mkdir(parents=True)
    return folder


def prune(ledger: LedgerSource, home: Home, retention: Retention, *needed: str) -> list[str]:
    return list(Pruner(ledger, home, retention, lambda: needed).prune())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {ENDED}


@pytest.mark.parametrize("state", [state for state in JobState if state not in (JobState.STARTING, JobState.STOPPING)])
def test_only_of_a_job_that_has_ended_for_good(state: JobState, ledger: LedgerSource, home: Home) -> None:
    folder = job_in(state, ledger, home)
    (folder / ".pruned-0123").mkdir()
    assert prune(ledger, home, DEFAULT_RETENTION) == []
    assert names(folder) == PRUNED | KEPT
    deleted = prune(ledger, home, AT_ONCE)
    assert names(folder) == (KEPT if state.is_terminal else PRUNED | KEPT)
    assert deleted == (
        [f"{kind} of {folder.name}" for kind in ("checkpoints", "spools", "logs")] if state.is_terminal else []
    )


def test_of_the_trials_of_a_sweep_too(ledger: LedgerSource, home: Home) -> None:
    folder = job_in(JobState.SUCCEEDED, ledger, home)
    trials = [folder / "trials" / f"{number:05d}" for number in range(2)]
    for path in (trials[0] / "checkpoints", trials[0] / "spool", trials[1] / "spool", trials[1] / "model"):
        path.mkdir(parents=True)
    assert len(prune(ledger, home, AT_ONCE)) == len(PRUNED)
    assert [names(trial) for trial in trials] == [set(), {"model"}]


def test_a_sweep_that_goes_on_has_not_ended_long_ago(ledger: LedgerSource, home: Home) -> None:
    folder = job_in(JobState.SUCCEEDED, ledger, home)
    prune(ledger, home, DEFAULT_RETENTION)
    assert (folder / ENDED).exists()
    running = job_in(JobState.RUNNING, ledger, home)
    (folder / ENDED).rename(running / ENDED)
    ensure(running, ledger.full_job(running.name), SPEC)
    assert prune(ledger, home, AT_ONCE) == [f"{kind} of {folder.name}" for kind in ("checkpoints", "spools", "logs")]


def test_a_sweep_that_waits_to_go_on_has_not_ended_long_ago(ledger: LedgerSource, home: Home) -> None:
    """Nobody has begun it anew, who would take the note away."""
    ended, waits = job_in(JobState.SUCCEEDED, ledger, home), job_in(JobState.QUEUED, ledger, home)
    prune(ledger, home, DEFAULT_RETENTION)
    (waits / ENDED).write_bytes((ended / ENDED).read_bytes())
    assert len(prune(ledger, home, AT_ONCE)) == len(PRUNED)
    assert names(waits) == PRUNED | KEPT
    assert not (waits / ENDED).exists()


def test_a_clock_that_is_ahead_makes_nothing_old(
    ledger: LedgerSource, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, a_year_on = job_in(JobState.SUCCEEDED, ledger, home), time.time() + 365 * 86_400
    with monkeypatch.context() as changed:
        changed.setattr(time, "time", lambda: a_year_on)
        assert prune(ledger, home, DEFAULT_RETENTION) == []
    assert names(folder) == PRUNED | KEPT


def test_an_agent_begins_with_it(ledger: LedgerSource, home: Home) -> None:
    folder = job_in(JobState.SUCCEEDED, ledger, home)
    no_cluster: Any = None
    keeper = Housekeeper(Agent("agent", ledger, no_cluster, home, "sqlite:///unused", AT_ONCE), set, set)
    keeper.start()
    until(lambda: names(folder) == KEPT, "what is old is deleted")
    keeper.close()


def test_each_kind_for_itself(ledger: LedgerSource, home: Home) -> None:
    folder = job_in(JobState.SUCCEEDED, ledger, home)
    assert prune(ledger, home, Retention(checkpoints=None, spools=3600, logs=0)) == [f"logs of {folder.name}"]
    assert names(folder) == (PRUNED | KEPT) - {"logs"}


def test_what_is_kept_for_longer_than_its_job_is_known_is_deleted_all_the_same(
    ledger: LedgerSource, home: Home
) -> None:
    folder = job_in(JobState.SUCCEEDED, ledger, home)
    prune(ledger, home, DEFAULT_RETENTION)
    list(ledger.prune(0.0, 0.0))
    with pytest.raises(NotFoundError):
        ledger.job(folder.name)
    assert prune(ledger, home, DEFAULT_RETENTION) == []
    assert len(prune(ledger, home, AT_ONCE)) == len(PRUNED)
    assert names(folder) == KEPT


def test_folders_of_other_ledgers_are_left_alone(ledger: LedgerSource, home: Home) -> None:
    folder = job_in(JobState.SUCCEEDED, ledger, home)
    others = [home.job("another-ledgers"), home.job(folder.name[:-1])]
    for other in others:
        (other / "checkpoints").mkdir(parents=True)
    prune(ledger, home, AT_ONCE)
    assert [names(other) for other in others] == [{"checkpoints"}] * 2


class Remote(LedgerSource):
    """Refuses names as a server's client does."""

    def job(self, ref: str) -> Job:
        return super().job(checked_name("job", ref))


def test_a_folder_that_no_job_can_be_called_as_holds_up_no_other(home: Home) -> None:
    with Remote.open(home.ledger_url) as ledger:
        folder = job_in(JobState.SUCCEEDED, ledger, home)
        copied = home.job(f"a copy of {folder.name}")
        shutil.copytree(folder, copied)
        assert prune(ledger, home, AT_ONCE) == [
            f"{kind} of {folder.name}" for kind in ("checkpoints", "spools", "logs")
        ]
    assert names(copied) == PRUNED | KEPT


def test_metrics_that_mlflow_does_not_have_are_kept(ledger: LedgerSource, home: Home) -> None:
    folder = job_in(JobState.SUCCEEDED, ledger, home)
    DesiredRun.of(folder.name, SPEC).save(folder)
    recorder = MetricSpool(folder, "rank-0")
    recorder.log(1, {"train/loss": 0.5})
    recorder.close()
    prune(ledger, home, AT_ONCE)
    assert recorder.path.exists()
    assert not (folder / "checkpoints").exists()


def test_the_run_names_no_checkpoint_that_was_deleted(ledger: LedgerSource, home: Home) -> None:
    folder = job_in(JobState.SUCCEEDED, ledger, home)
    (folder / "checkpoints" / "step-00000005").mkdir()
    note_checkpoint(folder, CheckpointPointer(5, "checkpoints/step-00000005", "digest"))
    noted = artifacts_folder(folder) / "checkpoints.json"
    prune(ledger, home, DEFAULT_RETENTION)
    assert len(json.loads(noted.read_text())["checkpoints"]) == 1
    prune(ledger, home, AT_ONCE)
    assert json.loads(noted.read_text())["checkpoints"] == []


def test_code_is_deleted_that_is_old_and_that_nobody_needs(ledger: LedgerSource, home: Home) -> None:
    home.packages.mkdir(parents=True)
    for digest in ("needed", "old", "new"):
        (home.packages / f"{digest}.zip").touch()
        if digest != "new":
            os.utime(home.packages / f"{digest}.zip", (0, 0))
    assert prune(ledger, home, DEFAULT_RETENTION, "needed") == ["code old"]
    assert names(home.packages) == {"needed.zip", "new.zip"}
    assert prune(ledger, home, Retention(code=None)) == []


def test_code_that_another_deletes_at_this_moment_is_left_to_it(ledger: LedgerSource, home: Home) -> None:
    home.packages.mkdir(parents=True)
    (home.packages / "gone.zip").symlink_to(home.packages / "was-here")
    (home.packages / "old.zip").touch()
    os.utime(home.packages / "old.zip", (0, 0))
    assert prune(ledger, home, DEFAULT_RETENTION) == ["code old"]


def test_what_cannot_be_deleted_keeps_nobody_from_hearing_how_a_job_ended(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    observer = SilentObserver()
    monkeypatch.setattr(observer, "notice", told.append)
    job = ForegroundJob(home, "sqlite:///unused", DEFAULT_RETENTION, observer)

    def full(*_: object) -> None:
        raise UnreachableError("cannot use the ledger: database or disk is full")

    monkeypatch.setattr(job._ledger, "prune", full)
    job._prune()
    job.close()
    assert told == [
        "what is as old as --retain says could not be deleted: cannot use the ledger: database or disk is full"
    ]
