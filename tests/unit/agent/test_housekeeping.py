"""What an agent looks at, once a minute, to find what one that died has left."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from epochal.agent.housekeeping import Housekeeper
from epochal.agent.in_process import LedgerSource
from epochal.agent.job_runner import Agent
from epochal.agent.kept_secrets import secret_path
from epochal.agent.logs import attempt_logs
from epochal.agent.run_closer import tell_runs
from epochal.engine.connection import Connection
from epochal.errors import UnreachableError
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.sweep_values import NewInput, TrialRecord
from epochal.ledger.values import Held
from epochal.settings import Home
from epochal.sweeps.trials import Trial, TrialState
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.sent_trials import SentTrial, SweepTrials
from epochal.tracking.sync_state import SyncState, fingerprint
from epochal.tracking.trial_runs import TrialRuns


def kept(home: Home, job_id: str) -> Path:
    """The folder of a job that has ended, all of which MLflow has."""
    folder = home.job(job_id)
    folder.mkdir(parents=True)
    DesiredRun(job_id=job_id, experiment="digits", name=job_id, status="FINISHED").save(folder)
    SyncState(run_id="r", settled=fingerprint(folder)).save(folder)
    return folder


def test_only_records_that_are_open_or_new_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, read, held = Home(tmp_path), list[str](), set[str]()
    load = DesiredRun.load

    def noted(folder: Path) -> DesiredRun:
        read.append(folder.name)
        return load(folder)

    monkeypatch.setattr(DesiredRun, "load", noted)
    with LedgerSource.open("sqlite://") as ledger:
        keeper = Housekeeper(Agent("a", ledger, cast("Connection", None), home, "sqlite://"), lambda: held, set[str])
        folders = [kept(home, f"job-{number}") for number in range(3)]
        keeper.tidy()
        assert sorted(read) == ["job-0", "job-1", "job-2"]
        read.clear()
        keeper.tidy()
        assert read == [], "those that are done with are not read again"
        load(folders[1]).changed(status="RUNNING").save(folders[1])
        held.add("job-1")
        keeper.tidy()
        assert set(read) == {"job-1"}, "it was resumed"


@pytest.mark.parametrize("page", ["", "https://mlflow.example.com"])
def test_links_to_a_run_begin_with_what_people_reach(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHAL_TRACKING_PAGE", page)
    with LedgerSource.open("sqlite://") as ledger:
        job = ledger.submit({"version": 1}, name="digits")
        lease = ledger.lease("a", 30, job.id)
        assert lease is not None
        SyncState(uri="http://mlflow:5000", run_id="r", experiment_id="1").save(tmp_path)
        tell_runs(ledger, lease, tmp_path, None)
        assert ledger.job(job.id).tracking_uri == (page or "http://mlflow:5000")


class WithoutLogStore(LedgerSource):
    def append_log(self, lease: Held, rank: int, offset: int, data: bytes) -> int:
        raise UnreachableError("the storage did not answer within 5 s")


def test_a_log_store_that_is_away_keeps_no_run_open(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with WithoutLogStore.open("sqlite://") as ledger:
        job = ledger.submit({"version": 1}, name="digits")
        lease = ledger.lease("a", 30, job.id)
        assert lease is not None
        folder = home.job(job.id)
        attempt_logs(folder, 1).mkdir(parents=True)
        (attempt_logs(folder, 1) / "rank-0.log").write_text("epoch 1\n")
        DesiredRun(job_id=job.id, experiment="digits", name="digits", status="RUNNING").save(folder)
        SyncState(uri="http://127.0.0.1:1", run_id="r").save(folder)
        ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR)
        agent = Agent("a", ledger, cast("Connection", None), home, "sqlite://")
        Housekeeper(agent, set[str], set[str]).tidy()
    assert DesiredRun.load(folder).status == "FAILED"


@pytest.mark.parametrize("has_secret", [True, False])
def test_what_became_of_a_run_after_its_attempt_is_told_once_by_who_has_its_secret(
    tmp_path: Path, has_secret: bool
) -> None:
    home = Home(tmp_path)
    with LedgerSource.open("sqlite://") as ledger:
        job = ledger.submit({"version": 1}, name="digits")
        lease = ledger.lease("a", 30, job.id, "s3cret")
        assert lease is not None
        ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR)
        folder = kept(home, job.id)
        if has_secret:
            secret_path(folder, lease.epoch).write_text(lease.secret)
        state = SyncState.load(folder)
        state.told = "away"
        state.refused = ["metric ../bad: no name"]
        state.save(folder)
        keeper = Housekeeper(Agent("a", ledger, cast("Connection", None), home, "sqlite://"), set[str], set[str])
        for _ in range(2):
            keeper.tidy()
        told = [event.message for event in ledger.events(job.id) if event.kind == EventKind.TRACKING]
    again = "MLflow takes what there is of this job again"
    assert told == ([again, "MLflow refuses to store metric ../bad: no name"] if has_secret else [])
    assert (SyncState.load(folder).told == "") is has_secret
    assert not secret_path(folder, lease.epoch).exists(), "nobody needs it any more"


def test_runs_that_mlflow_had_only_after_the_attempt_are_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with LedgerSource.open("sqlite://") as ledger:
        job = ledger.submit({"version": 1, "sweep": {"trials": 2}}, name="digits")
        lease = ledger.lease("a", 30, job.id, "s3cret")
        assert lease is not None
        trials = [Trial(number, {"train.seed": number}, TrialState.STOPPED) for number in range(2)]
        ledger.append_inputs(lease, 0, [NewInput({"kind": "asked"})], [TrialRecord.of(one) for one in trials])
        ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR)
        folder = kept(home, job.id)
        runs, sent = TrialRuns(folder), SweepTrials(folder)
        for trial in trials:
            runs.record(trial)
            sent.note(trial.number, SentTrial(f"r{trial.number}", changes=1, status="FINISHED", has_params=True), "r")
        SyncState(uri="sqlite:///mlflow.db", run_id="r", settled=fingerprint(folder)).save(folder)
        secret_path(folder, lease.epoch).write_text(lease.secret)
        Housekeeper(Agent("a", ledger, cast("Connection", None), home, "sqlite://"), set[str], set[str]).tidy()
        now = ledger.job(job.id)
        assert (now.run_id, now.tracking_uri) == ("r", "sqlite:///mlflow.db")
        assert [one.run_id for one in ledger.trials(job.id)] == ["r0", "r1"]
    assert not secret_path(folder, lease.epoch).exists()


@pytest.mark.parametrize("sent", [True, False])
def test_the_secret_of_an_attempt_is_kept_while_it_trains(tmp_path: Path, sent: bool) -> None:
    home = Home(tmp_path)
    with LedgerSource.open("sqlite://") as ledger:
        job = ledger.submit({"version": 1}, name="digits")
        assert ledger.lease("a", 30, job.id) is not None  # what is active is sent by its own attempt
        folder = kept(home, job.id)
        if sent:
            SyncState(uri="sqlite:///mlflow.db", run_id="r", settled=fingerprint(folder)).save(folder)
        secret_path(folder, 1).write_text("s3cret")
        Housekeeper(Agent("a", ledger, cast("Connection", None), home, "sqlite://"), set[str], set[str]).tidy()
    assert secret_path(folder, 1).exists()


def test_runs_that_a_killed_agent_did_not_come_to_tell_are_told_by_the_next(tmp_path: Path) -> None:
    """Those of a sweep and of its trials, which MLflow has only after its end."""
    home = Home(tmp_path)
    with LedgerSource.open("sqlite://") as ledger:
        job = ledger.submit({"version": 1, "sweep": {}}, name="digits")
        lease = ledger.lease("a", 30, job.id, "s3cret")
        assert lease is not None
        ledger.running(lease, world_size=1)
        trials = [TrialRecord(number, {}, TrialState.COMPLETED, value=0.5) for number in range(3)]
        ledger.append_inputs(lease, 0, [NewInput({"kind": "asked"})], trials)
        ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
        folder = kept(home, job.id)
        secret_path(folder, lease.epoch).write_text(lease.secret)
        (folder / "trials").mkdir()
        sent = SweepTrials(folder)
        for number in range(2):
            sent.note(number, SentTrial(f"r{number}"), "r")
        Housekeeper(Agent("a", ledger, cast("Connection", None), home, "sqlite://"), set[str], set[str]).tidy()
        assert ledger.job(job.id).run_id == "r"
        assert [(one.run_id, one.value) for one in ledger.trials(job.id)] == [("r0", 0.5), ("r1", 0.5), (None, 0.5)]
