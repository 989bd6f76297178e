"""The reconciler's slow part: a real MLflow server, a real ledger, and what agents that died left in storage."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flaky_proxy import FlakyProxy
from tracked_job import assert_all_arrived_once, curve, finish, make_job, train

from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Lease
from epochal.server.reconciler import Reconciler, Timing
from epochal.sweeps.trials import Trial, TrialState
from epochal.tracking.connection import connect
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.server import TrackingServer
from epochal.tracking.syncer import sync
from epochal.tracking.tracker import Tracker
from epochal.tracking.trial_runs import TrialRuns
from polling import until

AT_ONCE = Timing(closing=0.0)
IN_A_WHILE = Timing(closing=60.0)

Make = Callable[[], "Started"]


@dataclass
class Started:
    """A job that an agent trains, with its run and its folder."""

    ledger: Ledger
    uri: str
    storage: Path
    lease: Lease
    folder: Path
    run_id: str

    @property
    def id(self) -> str:
        return self.lease.job_id

    def finish(self, state: JobState, reason: Reason) -> None:
        self.ledger.finish(self.lease, state, reason)

    def agent_dies(self, then: JobState = JobState.QUEUED) -> None:
        self.ledger.expire(then, dead_agents=["agent/1"])

    def reconciler(self, timing: Timing = AT_ONCE, uri: str | None = None) -> Reconciler:
        return Reconciler(self.ledger, uri or self.uri, timing=timing, storage=self.storage)

    @property
    def run(self) -> tuple[str, str]:
        """Status and reason."""
        run = connect(self.uri).get_run(self.run_id)
        return run.info.status, run.data.tags["epochal.reason"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def start(ledger: Ledger, shared_mlflow_server: TrackingServer, tmp_path: Path) -> Make:
    def started() -> Started:
        storage, uri = tmp_path / "storage", shared_mlflow_server.url
        job = ledger.submit({"version": 1}, name="digits-cnn")
        lease = ledger.lease("agent/1", 60, job.id)
        assert lease is not None
        ledger.running(lease, world_size=2)
        folder = make_job(storage, job.id, experiment="reconciled")
        train(folder, 0, 60)
        run_id = sync(uri, folder).run_id
        ledger.set_run(lease, run_id, uri)
        return Started(ledger, uri, storage, lease, folder, run_id)

    return started


@pytest.mark.parametrize(
    ("state", "reason", "status"),
    [
        (JobState.SUCCEEDED, Reason.COMPLETED, "FINISHED"),
        (JobState.FAILED, Reason.USER_ERROR, "FAILED"),
    ],
)
def test_the_run_of_a_job_that_ended_is_closed(start: Make, state: JobState, reason: Reason, status: str) -> None:
    job = start()
    job.finish(state, reason)
    assert job.run[0] == "RUNNING"
    reconciler = job.reconciler()
    found = {finding.job_id: finding.kind for finding in reconciler.plan() if finding.kind == "run"}
    assert found == {job.id: "run"}
    assert job.run[0] == "RUNNING"
    reconciler.catch_up()
    assert job.run == (status, reason.value)
    ended = connect(job.uri).get_run(job.run_id).info.end_time
    assert ended == pytest.approx((job.ledger.job(job.id).ended_at or 0) * 1000, abs=2)


def test_a_run_whose_agent_died_waits_as_its_job_does_and_is_closed_when_it_pauses(start: Make) -> None:
    job = start()
    job.agent_dies()
    reconciler = job.reconciler(IN_A_WHILE)
    reconciler.catch_up()
    assert job.run == ("SCHEDULED", "INTERRUPTED")
    job.ledger.request_pause(job.id)
    job.reconciler().catch_up()
    assert job.run == ("KILLED", "STOPPED_BY_USER")


def test_a_resumed_job_opens_its_run_again(start: Make) -> None:
    job = start()
    job.agent_dies()
    job.reconciler().catch_up()
    assert job.run[0] == "SCHEDULED"
    lease = job.ledger.lease("agent/2", 60, job.id)
    assert lease is not None
    job.ledger.running(lease, world_size=2)
    tracker = Tracker(job.uri, job.folder)
    tracker.close()
    assert job.run == ("RUNNING", "")
    connect(job.uri).set_terminated(job.run_id, "KILLED")
    job.reconciler().catch_up()
    assert job.run[0] == "RUNNING"


def test_agents_get_time_to_close_their_runs_themselves(start: Make) -> None:
    job = start()
    job.finish(JobState.SUCCEEDED, Reason.COMPLETED)
    reconciler = job.reconciler(IN_A_WHILE)
    assert reconciler.plan() == []
    reconciler.catch_up()
    assert job.run[0] == "RUNNING"


def test_a_run_that_was_closed_wrongly_is_corrected(start: Make) -> None:
    job = start()
    connect(job.uri).set_terminated(job.run_id, "FINISHED")
    job.finish(JobState.FAILED, Reason.OUT_OF_MEMORY)
    reconciler = job.reconciler()
    reconciler.catch_up()
    assert job.run == ("FAILED", "OUT_OF_MEMORY")
    assert reconciler.counts.done["run"] == 1
    reconciler.catch_up()
    assert reconciler.counts.done["run"] == 1


def test_a_run_that_the_ledger_never_heard_of_is_found_by_its_job(start: Make, ledger: Ledger) -> None:
    """The agent died between making the run and telling the ledger."""
    job = start()
    other = ledger.submit({"version": 1}, name="other")
    folder = make_job(job.storage / "elsewhere", other.id, experiment="reconciled")
    run_id = sync(job.uri, folder).run_id
    ledger.request_stop(other.id)
    job.reconciler().catch_up()
    assert connect(job.uri).get_run(run_id).info.status == "KILLED"


def test_runs_of_other_ledgers_are_left_alone(start: Make) -> None:
    job = start()
    folder = make_job(job.storage / "elsewhere", "of-another-ledger", experiment="reconciled")
    foreign = sync(job.uri, folder).run_id
    job.finish(JobState.SUCCEEDED, Reason.COMPLETED)
    job.reconciler().catch_up()
    assert connect(job.uri).get_run(foreign).info.status == "RUNNING"
    assert job.run[0] == "FINISHED"


def test_what_a_dead_agent_left_in_storage_is_sent(start: Make) -> None:
    job = start()
    train(job.folder, 60, 120)
    finish(job.folder)
    DesiredRun.load(job.folder).changed(status="RUNNING").save(job.folder)
    job.agent_dies(then=JobState.PAUSED)
    reconciler = job.reconciler()
    assert {finding.kind for finding in reconciler.plan()} == {"spool", "run"}
    reconciler.catch_up()
    assert assert_all_arrived_once(job.uri, job.folder, 120, "KILLED") == job.run_id
    assert job.run == ("KILLED", "INTERRUPTED")
    assert reconciler.plan() == []


def test_the_spool_of_a_living_agent_is_its_own(start: Make) -> None:
    job = start()
    train(job.folder, 60, 120)
    job.reconciler().catch_up()
    assert len(curve(connect(job.uri), job.run_id, "train/loss")) == 60


def test_an_outage_is_told_once_and_made_up_for(
    start: Make, flaky_mlflow: FlakyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    job = start()
    job.finish(JobState.SUCCEEDED, Reason.COMPLETED)
    reconciler = job.reconciler(uri=flaky_mlflow.url)
    flaky_mlflow.down()
    caplog.set_level(logging.WARNING, logger="epochal")
    for _ in range(3):
        reconciler.catch_up()
    assert {finding.kind for finding in reconciler.plan()} == {"tracking"}
    assert reconciler.counts.errors == {"runs": 3}
    assert len([record for record in caplog.records if "runs failed" in record.message]) == 1
    flaky_mlflow.up()
    reconciler.catch_up()
    assert job.run[0] == "FINISHED"
    assert reconciler.counts.done["run"] == 1


def test_a_silent_tracking_server_delays_no_lease(start: Make, flaky_mlflow: FlakyProxy) -> None:
    job = start()
    job.ledger.renew(job.lease, ttl=0.05)
    flaky_mlflow.silent = True
    timing = Timing(tick=0.02, catch_up=0.02, lease=0.3, late=60.0, closing=0.0)
    reconciler = job.reconciler(timing, flaky_mlflow.url)
    stop = threading.Event()
    thread = threading.Thread(target=reconciler.run, args=(stop,))
    thread.start()
    try:
        until(lambda: job.ledger.job(job.id).state is JobState.QUEUED, "the lease has ended", 8)
    finally:
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


def test_trials_that_nobody_can_close_end_with_their_sweep(start: Make) -> None:
    sweep = start()
    runs = TrialRuns(sweep.folder)
    runs.record(Trial(0, {}, TrialState.RUNNING))
    runs.record(Trial(1, {}, TrialState.STOPPED))
    sync(sweep.uri, sweep.folder)
    client = connect(sweep.uri)
    found = client.search_runs(
        [client.get_run(sweep.run_id).info.experiment_id], f"tags.`mlflow.parentRunId` = '{sweep.run_id}'"
    )
    runs_of = {run.data.tags["epochal.trial"]: run.info.run_id for run in found}
    sweep.reconciler().catch_up()
    assert client.get_run(runs_of["0"]).info.status == "RUNNING", "its sweep runs"
    (sweep.folder / "run.json").unlink()  # with the machine that the agent was on
    sweep.finish(JobState.FAILED, Reason.OUT_OF_MEMORY)
    sweep.reconciler().catch_up()
    assert client.get_run(runs_of["0"]).info.status == "KILLED"
    assert client.get_run(runs_of["1"]).info.status == "FINISHED"
