"""A sweep's child runs against real MLflow: each trial has one, whole, whatever is down or killed meanwhile."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flaky_proxy import FlakyProxy

from epochal.sweeps.trials import Measured, Trial, TrialState
from epochal.tracking.connection import connect
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.runs import list_runs
from epochal.tracking.sent_trials import SweepTrials
from epochal.tracking.server import TrackingServer
from epochal.tracking.sync_state import SyncState
from epochal.tracking.syncer import Synced, sync
from epochal.tracking.tracker import Tracker, pending_folders, sync_all
from epochal.tracking.trial_runs import TrialRuns, trial_folder

PARAMS = {
    "model.name": "mlp",
    "data.name": "digits",
    "objective.metric": "val/accuracy",
    "objective.mode": "max",
    "train.epochs": "4",
    "train.optimizer.lr": "0.001",
}


def make_sweep(storage: Path, name: str) -> Path:
    folder = storage / "jobs" / name
    DesiredRun(job_id=name, experiment=name, name="search", params=PARAMS, tags={"team": "vision"}).save(folder)
    return folder


def trial(number: int, state: TrialState = TrialState.RUNNING, lengths: int = 0, **changes: Any) -> Trial:
    curve = tuple(Measured(float(length), value(number, length)) for length in range(1, lengths + 1))
    return Trial(
        number, {"train.optimizer.lr": 10.0**-number, "model.params.hidden": [8, number]}, state, 4.0, curve, **changes
    )


def value(number: int, length: int) -> float:
    return 0.5 + 0.01 * number + 0.1 * length


def train(folder: Path, number: int, steps: int = 10) -> None:
    """What the worker of a trial leaves in the trial's own folder."""
    spool = MetricSpool(trial_folder(folder, number), "attempt-1")
    for step in range(1, steps + 1):
        spool.log(step, {"train/loss": 1.0 / step, "val/accuracy": value(number, step)}, timestamp=1_700_000_000 + step)
    spool.close()


def finish(folder: Path, status: str = "FINISHED") -> None:
    DesiredRun.load(folder).changed(status=status).save(folder)


def sync_until_done(uri: str, folder: Path) -> Synced:
    for _ in range(200):
        if not (synced := sync(uri, folder)).pending:
            return synced
    raise AssertionError(f"{synced.left} was never sent: {synced.problem}")


def children(uri: str, folder: Path) -> dict[int, Any]:
    """The child runs that MLflow has, by trial; a trial has one."""
    client = connect(uri)
    state = SyncState.load(folder)
    found = client.search_runs([state.experiment_id], f"tags.`mlflow.parentRunId` = '{state.run_id}'", max_results=1000)
    by_trial = {int(run.data.tags["epochal.trial"]): run for run in found}
    assert len(by_trial) == len(found)
    return by_trial


@pytest.fixture
def sweep(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return make_sweep(
        tmp_path / "storage", "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    )


def test_each_trial_has_a_child_run_that_can_be_compared(any_uri: str, sweep: Path) -> None:
    runs = TrialRuns(sweep)
    states = [TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED, TrialState.PAUSED]
    for number, state in enumerate(states):
        train(sweep, number)
        runs.record(trial(number))
        why, message = ("OUT_OF_MEMORY", "rank 0: no memory") if state is TrialState.FAILED else ("", "")
        runs.record(trial(number, state, lengths=4 - number, why=why, message=message))
    runs.record(trial(4, TrialState.WAITING))
    finish(sweep)
    assert not sync(any_uri, sweep).pending

    found = children(any_uri, sweep)
    assert [found[number].info.status for number in range(4)] == ["FINISHED", "FINISHED", "FAILED", "FINISHED"]
    assert sorted(found) == [0, 1, 2, 3], "a trial that never began has no run"
    for number, run in found.items():
        assert run.data.params == {
            "model.name": "mlp",
            "data.name": "digits",
            "objective.metric": "val/accuracy",
            "objective.mode": "max",
            "train.optimizer.lr": str(10.0**-number),
            "model.params.hidden": f"[8, {number}]",
        }
        assert run.data.metrics["objective"] == pytest.approx(value(number, 4 - number))
        assert run.data.metrics["val/accuracy"] == pytest.approx(value(number, 10))
        tags = run.data.tags
        assert tags["epochal.sweep"] == sweep.name
        assert (tags["epochal.architecture"], tags["epochal.dataset"], tags["team"]) == ("mlp", "digits", "vision")
        assert tags["epochal.trial_state"] == states[number]
        assert tags["mlflow.runName"] == f"search-trial-{number}"
    assert (found[2].data.tags["epochal.reason"], found[2].data.tags["mlflow.note.content"]) == (
        "OUT_OF_MEMORY",
        "rank 0: no memory",
    )
    curve = connect(any_uri).get_metric_history(found[0].info.run_id, "val/accuracy")
    assert [(point.step, point.timestamp) for point in curve] == [
        (step, (1_700_000_000 + step) * 1000) for step in range(1, 11)
    ]
    assert [run.job for run in list_runs(any_uri, job=sweep.name)] == [sweep.name], "a job has one run"


def test_what_is_sent_again_changes_nothing(any_uri: str, sweep: Path) -> None:
    runs = TrialRuns(sweep)
    train(sweep, 0)
    runs.record(trial(0, TrialState.COMPLETED, lengths=4))
    sync(any_uri, sweep)
    before = children(any_uri, sweep)[0]
    (sweep / "trials" / "sent.jsonl").unlink()
    assert not sync(any_uri, sweep).pending
    after = children(any_uri, sweep)[0]
    assert (after.info.run_id, after.data.to_dictionary()) == (before.info.run_id, before.data.to_dictionary())
    for metric in ("objective", "val/accuracy"):
        history = connect(any_uri).get_metric_history(after.info.run_id, metric)
        assert len(history) == len({point.step for point in history})


def test_a_trial_that_goes_on_after_a_crash_stays_in_its_run(sqlite_uri: str, sweep: Path) -> None:
    train(sweep, 0, steps=3)
    TrialRuns(sweep).record(trial(0, lengths=1))
    finish(sweep, "KILLED")
    sync(sqlite_uri, sweep)
    (killed,) = children(sqlite_uri, sweep).values()
    assert killed.info.status == "KILLED"

    DesiredRun.load(sweep).changed(status="RUNNING").save(sweep)
    runs = TrialRuns(sweep)
    runs.record(trial(0, lengths=1))
    sync(sqlite_uri, sweep)
    (again,) = children(sqlite_uri, sweep).values()
    assert (again.info.run_id, again.info.status) == (killed.info.run_id, "RUNNING")

    train(sweep, 0, steps=10)
    runs.record(trial(0, TrialState.COMPLETED, lengths=4))
    finish(sweep)
    assert not sync(sqlite_uri, sweep).pending
    (done,) = children(sqlite_uri, sweep).values()
    assert (done.info.run_id, done.info.status) == (killed.info.run_id, "FINISHED")
    steps = [point.step for point in connect(sqlite_uri).get_metric_history(done.info.run_id, "train/loss")]
    assert steps == list(range(1, 11))


def test_parameters_that_change_are_metrics_and_tags(sqlite_uri: str, sweep: Path) -> None:
    runs = TrialRuns(sweep)
    runs.record(trial(1))
    copied = {**trial(1).point, "train.optimizer.lr": 0.3}
    runs.record(replace(trial(1, lengths=2), point=copied, copied=0))
    runs.record(replace(trial(1, TrialState.COMPLETED, lengths=4), point=copied, copied=0))
    finish(sweep)
    assert not sync(sqlite_uri, sweep).pending
    (run,) = children(sqlite_uri, sweep).values()
    assert run.data.params["train.optimizer.lr"] == "0.1"
    assert run.data.tags["hparam.train.optimizer.lr"] == "0.3"
    assert "hparam.model.params.hidden" not in run.data.tags, "it did not change"
    history = connect(sqlite_uri).get_metric_history(run.info.run_id, "hparam/train.optimizer.lr")
    assert [(point.step, point.value) for point in history] == [(0, 0.1), (2, 0.3)]


def test_the_parent_names_the_best_trial(any_uri: str, sweep: Path) -> None:
    runs = TrialRuns(sweep)
    for number, length in ((0, 1), (1, 3), (2, 2)):
        runs.record(trial(number, TrialState.COMPLETED, lengths=length))
    runs.record(trial(3, TrialState.FAILED, lengths=4))
    runs.record(Trial(4, {}, TrialState.COMPLETED, curve=(Measured(1.0, float("nan")),)))
    finish(sweep)
    synced = sync(any_uri, sweep)
    assert not synced.pending
    parent = connect(any_uri).get_run(synced.run_id)
    best = children(any_uri, sweep)[1]
    named = {name: value for name, value in parent.data.tags.items() if name.startswith(("best.", "epochal.best"))}
    assert named == {
        "epochal.best_trial": "1",
        "epochal.best_run": best.info.run_id,
        "best.train.optimizer.lr": "0.1",
        "best.model.params.hidden": "[8, 1]",
    }
    history = connect(any_uri).get_metric_history(synced.run_id, "best/objective")
    assert [(point.step, point.value) for point in history] == [
        (1, value(0, 1)), (2, value(1, 1)), (3, value(1, 2)), (4, value(1, 3)), (9, value(3, 3)), (10, value(3, 4)),
    ]  # fmt: skip


def test_an_outage_and_lost_answers_double_nothing(
    flaky_mlflow: FlakyProxy, shared_mlflow_server: TrackingServer, sweep: Path
) -> None:
    flaky_mlflow.lose_answers = 0.3
    runs = TrialRuns(sweep)
    for number in range(8):
        train(sweep, number, steps=3)
        runs.record(trial(number))
        sync(flaky_mlflow.url, sweep)
        runs.record(trial(number, TrialState.COMPLETED, lengths=2))
    finish(sweep)
    assert list(pending_folders(sweep.parent.parent)) == [sweep]
    sync_until_done(flaky_mlflow.url, sweep)
    assert flaky_mlflow.lost > 5
    found = children(shared_mlflow_server.url, sweep)
    assert sorted(found) == list(range(8))
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert [found[number].data.metrics["objective"] for number in range(8)] == pytest.approx(
        [value(number, 2) for number in range(8)]
    )
    assert list(pending_folders(sweep.parent.parent)) == []


def test_what_an_agent_that_died_left_is_sent_by_whoever_comes_next(sqlite_uri: str, sweep: Path) -> None:
    runs = TrialRuns(sweep)
    for number in range(3):
        train(sweep, number)
        runs.record(trial(number, lengths=1))
    with (sweep / "trials" / "runs.jsonl").open("a") as file:
        file.write('{"trial":2,"at":17')  # killed in the middle of a line
    finish(sweep, "KILLED")
    done = sync_all(sqlite_uri, sweep.parent.parent)[sweep.name]
    assert not done.pending
    assert [run.info.status for run in children(sqlite_uri, sweep).values()] == ["KILLED"] * 3
    TrialRuns(sweep).record(trial(2, TrialState.STOPPED, lengths=2))
    assert sync_all(sqlite_uri, sweep.parent.parent)[sweep.name].left == ""
    assert children(sqlite_uri, sweep)[2].data.tags["epochal.trial_state"] == "STOPPED"


def test_a_child_that_somebody_deleted_keeps_nothing_waiting(sqlite_uri: str, sweep: Path) -> None:
    runs = TrialRuns(sweep)
    for number in range(2):
        runs.record(trial(number))
    sync(sqlite_uri, sweep)
    client = connect(sqlite_uri)
    client.delete_run(children(sqlite_uri, sweep)[0].info.run_id)
    for number in range(2):
        runs.record(trial(number, TrialState.COMPLETED, lengths=4))
    finish(sweep)
    assert not sync(sqlite_uri, sweep).pending
    assert [run.info.status for run in children(sqlite_uri, sweep).values()] == ["FINISHED"]


def test_what_mlflow_refuses_of_one_trial_is_named_and_the_rest_is_sent(sqlite_uri: str, sweep: Path) -> None:
    runs = TrialRuns(sweep)
    for number in range(2):
        refused = replace(
            trial(number, TrialState.COMPLETED, lengths=4), point={"bad//name": 1, "train.optimizer.lr": 0.5}
        )
        runs.record(refused)
    finish(sweep)
    synced = sync(sqlite_uri, sweep)
    assert not synced.pending
    assert [one.partition(":")[0] for one in synced.refused] == ["param bad//name of trial 0", "tag best.bad//name"]
    for run in children(sqlite_uri, sweep).values():
        assert run.data.params["train.optimizer.lr"] == "0.5"
        assert run.data.metrics["objective"] > 0


def test_tags_and_parameters_arrive_however_many_there_are(sqlite_uri: str, sweep: Path) -> None:
    """MLflow takes a hundred of each in one request."""
    point = {f"model.params.width{number}": number for number in range(130)}
    DesiredRun.load(sweep).changed(tags={f"tag{number}": "x" for number in range(130)}).save(sweep)
    runs = TrialRuns(sweep)
    runs.record(replace(trial(0), point=point))
    sync(sqlite_uri, sweep)
    runs.record(replace(trial(0, TrialState.COMPLETED, lengths=2), point=point))
    finish(sweep)
    assert not sync(sqlite_uri, sweep).pending
    run = children(sqlite_uri, sweep)[0]
    assert run.data.tags["epochal.trial_state"] == "COMPLETED"
    assert set(run.data.params) >= set(point)


def test_a_tracker_follows_a_sweep(sqlite_uri: str, sweep: Path) -> None:
    tracker = Tracker(sqlite_uri, sweep, every=0.05)
    runs = TrialRuns(sweep)
    for number in range(5):
        runs.record(trial(number))
        train(sweep, number, steps=2)
        runs.record(trial(number, TrialState.COMPLETED, lengths=1))
    tracker.update(status="FINISHED")
    assert not tracker.close().pending
    found = children(sqlite_uri, sweep)
    assert sorted(found) == list(range(5))
    trials = SweepTrials(sweep)
    trials.read()
    assert trials.run_ids == {number: run.info.run_id for number, run in found.items()}


@pytest.mark.slow
def test_two_hundred_trials(any_uri: str, sweep: Path) -> None:
    """The time is printed: a promise for it is a benchmark's business."""
    runs = TrialRuns(sweep)
    start = time.perf_counter()
    for number in range(200):
        runs.record(trial(number))
        runs.record(trial(number, TrialState.COMPLETED, lengths=4))
    written = time.perf_counter() - start
    for number in range(200):
        train(sweep, number, steps=5)
    finish(sweep)
    start = time.perf_counter()
    sync_until_done(any_uri, sweep)
    sent = time.perf_counter() - start
    print(f"200 trials: written down in {1000 * written:.0f} ms, sent in {sent:.1f} s, {sent * 5:.1f} ms each")
    assert len(children(any_uri, sweep)) == 200
