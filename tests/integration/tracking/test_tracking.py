"""Tracking against real MLflow: everything arrives, once, whatever is down or killed meanwhile."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flaky_proxy import FlakyProxy
from killed_sync import CHANGES
from tracked_job import assert_all_arrived_once, curve, finish, loss, make_job, train

from epochal.tracking.connection import connect, prepare_sqlite
from epochal.tracking.desired_run import DesiredRun, artifacts_folder, write_atomically
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.reconcile import Truth, differences
from epochal.tracking.runs import list_runs
from epochal.tracking.server import TrackingServer
from epochal.tracking.sync_state import SyncState, can_still_be_sent
from epochal.tracking.syncer import Synced, sync
from epochal.tracking.tracker import Tracker, pending_folders, sync_all
from polling import until

HERE = Path(__file__).parent


BOTH = pytest.mark.parametrize("any_uri", ["sqlite", "server"], indirect=True)


def job_id(request: pytest.FixtureRequest) -> str:
    """Unique among all tests that share a server."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


@pytest.fixture
def job(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return make_job(tmp_path / "storage", job_id(request))


def sync_until_done(uri: str, job: Path, attempts: int = 200) -> Synced:
    for _ in range(attempts):
        synced = sync(uri, job)
        if not synced.pending:
            return synced
    raise AssertionError(f"{synced.left} was never sent: {synced.problem}")


@BOTH
def test_a_whole_job_arrives_once_however_often_it_is_sent(any_uri: str, job: Path) -> None:
    train(job, 0, 700)
    finish(job)
    start = time.perf_counter()
    synced = sync(any_uri, job)
    print(f"first sync of 1,414 metrics, 152 params, 3 artifacts and a model: {time.perf_counter() - start:.2f} s")
    assert not synced.pending
    assert synced.problem == ""
    run_id = assert_all_arrived_once(any_uri, job, 700)
    for forgotten in (False, True):
        if forgotten:
            (job / "sync_state.json").unlink()
        assert sync(any_uri, job).run_id == run_id
        assert_all_arrived_once(any_uri, job, 700)


@BOTH
def test_the_model_of_a_run_loads(any_uri: str, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    train(job, 0, 10)
    finish(job)
    synced = sync(any_uri, job)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", any_uri)
    for uri in (f"models:/{synced.model_id}", f"runs:/{synced.run_id}/model"):
        assert mlflow.pytorch.load_model(uri)(torch.ones(3, 4)).shape == (3, 2)
        loaded = mlflow.pyfunc.load_model(uri)
        assert loaded.predict(torch.ones(5, 4).numpy()).shape == (5, 2)
        assert (loaded.metadata.run_id, loaded.metadata.model_id) == (synced.run_id, synced.model_id)


def test_values_keep_their_time_and_exact_value(any_uri: str, job: Path) -> None:
    writer = MetricSpool(job, "attempt-1-rank-0")
    values = [0.1 + 0.2, 5e-324, float("nan"), float("inf"), float("-inf")]
    for step, value in enumerate(values):
        writer.log(step, {"odd": value}, timestamp=1_700_000_000 + step)
    writer.close()
    run_id = sync(any_uri, job).run_id
    history = connect(any_uri).get_metric_history(run_id, "odd")
    largest = sys.float_info.max
    assert [repr(point.value) for point in history] == [repr(v) for v in [*values[:3], largest, -largest]]
    assert [point.timestamp for point in history] == [1_700_000_000_000 + 1000 * step for step in range(5)]


def test_every_other_answer_is_lost(flaky_mlflow: FlakyProxy, shared_mlflow_server: TrackingServer, job: Path) -> None:
    train(job, 0, 800)
    finish(job)
    flaky_mlflow.lose_answers = 0.5
    sync_until_done(flaky_mlflow.url, job)
    print(f"{flaky_mlflow.lost} answers were lost")
    assert flaky_mlflow.lost > 5
    assert_all_arrived_once(shared_mlflow_server.url, job, 800)


def test_processes_killed_after_every_change_they_make(
    any_uri: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    job = make_job(tmp_path, job_id(request), experiment=job_id(request))
    train(job, 0, 1200)
    finish(job)
    command = [sys.executable, str(HERE / "killed_sync.py"), any_uri, str(job)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(CHANGES)
    assert_all_arrived_once(any_uri, job, 1200)


@pytest.mark.slow
def test_processes_killed_at_any_moment(shared_mlflow_server: TrackingServer, job: Path) -> None:
    train(job, 0, 10_000)
    finish(job)
    sent = lambda: sum(SyncState.load(job).offsets.values())  # noqa: E731
    script = (
        "import sys, pathlib; from epochal.tracking.connection import connect;"
        "from epochal.tracking.syncer import sync;"
        "connect(sys.argv[1]); sync(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    pauses = random.Random(0)
    for _ in range(3):
        before = sent()
        command = [sys.executable, "-c", script, shared_mlflow_server.url, str(job)]
        with subprocess.Popen(command) as process:
            # On a busy machine it may have sent all before this one looks again; then there is nothing left to kill.
            until(lambda before=before: sent() > before or process.poll() is not None, "it has sent something")
            time.sleep(pauses.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
    assert sent() > 0
    sync_until_done(shared_mlflow_server.url, job)
    assert_all_arrived_once(shared_mlflow_server.url, job, 10_000)


def test_a_resumed_job_goes_on_in_the_same_run(any_uri: str, job: Path) -> None:
    train(job, 0, 120)
    record = DesiredRun.load(job)
    record.changed(status="KILLED", reason="STOPPED_BY_USER").save(job)
    first = sync(any_uri, job)
    client = connect(any_uri)
    assert client.get_run(first.run_id).info.status == "KILLED"
    assert client.get_run(first.run_id).data.tags["epochal.reason"] == "STOPPED_BY_USER"
    DesiredRun.load(job).changed(status="RUNNING").save(job)
    assert sync(any_uri, job).run_id == first.run_id
    reopened = client.get_run(first.run_id)
    assert (reopened.info.status, reopened.data.tags["epochal.reason"]) == ("RUNNING", "")
    train(job, 100, 300, attempt=2)
    finish(job)
    assert sync(any_uri, job).run_id == first.run_id
    assert_all_arrived_once(any_uri, job, 300)


@pytest.mark.slow
def test_the_server_is_down_before_during_and_after(stopped_mlflow_server: TrackingServer, job: Path) -> None:
    server, notices = stopped_mlflow_server, list[str]()
    tracker = Tracker(server.url, job, notices.append, every=0.1)
    train(job, 0, 300)
    until(lambda: notices, "a notice")
    assert "cannot be reached" in notices[0]
    server.start()
    until(lambda: tracker.last.reachable and not tracker.last.pending, "everything is sent")
    assert notices[1] == "MLflow takes what there is of this job again"
    assert curve(connect(server.url), tracker.run_id, "train/loss")[-1] == (299, loss(299))
    server.kill()
    train(job, 300, 600, attempt=2)
    finish(job)
    tracker.update(status="FINISHED", reason="COMPLETED")
    synced = tracker.close(deadline_seconds=1)
    assert synced.pending
    assert not synced.reachable
    server.start()
    storage = job.parent.parent
    assert list(pending_folders(storage)) == [job]
    assert not sync_all("http://127.0.0.1:9", storage)[job.name].pending
    assert list(pending_folders(storage)) == []
    assert_all_arrived_once(server.url, job, 600)
    assert len(notices) == 3


def test_a_tracker_follows_a_running_job(flaky_mlflow: FlakyProxy, job: Path) -> None:
    tracker = Tracker(flaky_mlflow.url, job, every=0.05)
    client = connect(flaky_mlflow.url)
    until(lambda: tracker.run_id, "the run is opened")
    writer = MetricSpool(job, "attempt-1-rank-0")
    for step in range(3):
        writer.log(step, {"train/loss": loss(step)})
        writer.flush()
        until(lambda step=step: len(curve(client, tracker.run_id, "train/loss")) == step + 1, f"step {step} is sent")
    tracker.update(tags={"world_size": "2"})
    write_atomically(artifacts_folder(job) / "note.txt", "first")
    until(lambda: client.get_run(tracker.run_id).data.tags.get("world_size") == "2", "the tag is sent")
    until(lambda: [entry.path for entry in client.list_artifacts(tracker.run_id)] == ["note.txt"], "the note is sent")
    flaky_mlflow.down()
    writer.log(3, {"train/loss": loss(3)})
    writer.close()
    until(lambda: not tracker.last.reachable, "the outage is noticed")
    flaky_mlflow.up()
    tracker.update(status="FAILED", reason="USER_ERROR: rank 1: ValueError")
    synced = tracker.close()
    assert (synced.left, synced.problem) == ("", "")
    run = client.get_run(synced.run_id)
    assert (run.info.status, run.data.tags["epochal.reason"]) == ("FAILED", "USER_ERROR: rank 1: ValueError")
    assert curve(client, synced.run_id, "train/loss") == [(step, loss(step)) for step in range(4)]


def test_a_silent_server_does_not_hold_up_the_end(
    flaky_mlflow: FlakyProxy, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    flaky_mlflow.silent = True
    tracker = Tracker(flaky_mlflow.url, job, lambda _: None, every=0.1)
    start = time.perf_counter()
    tracker.update(status="FINISHED")
    synced = tracker.close(deadline_seconds=2)
    assert time.perf_counter() - start < 10
    assert synced.pending


def test_trackers_of_two_processes_do_not_get_in_each_others_way(any_uri: str, job: Path) -> None:
    train(job, 0, 3000)
    finish(job)
    results: list[Synced] = []
    threads = [threading.Thread(target=lambda: results.append(sync(any_uri, job))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(not result.pending for result in results)
    assert all(result.problem in ("", "another process is sending it") for result in results)
    assert_all_arrived_once(any_uri, job, 3000)


def test_two_jobs_that_make_the_same_experiment_at_once(any_uri: str, tmp_path: Path) -> None:
    name = f"together-{tmp_path.name}"
    jobs = [make_job(tmp_path / "storage", f"{name}-{index}", name) for index in range(4)]
    results: list[Synced] = []
    threads = [threading.Thread(target=lambda job=job: results.append(sync_until_done(any_uri, job))) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.run_id for result in results}) == 4


@BOTH
def test_what_mlflow_refuses_does_not_stop_the_rest(any_uri: str, job: Path) -> None:
    train(job, 0, 200)
    segment = job / "spool" / "attempt-0-other.jsonl"
    segment.write_text('{"s":0,"t":1,"m":{"good":1.0,"../bad":2.0,"also good":3.0}}\n')
    synced = sync(any_uri, job)
    assert not synced.pending
    assert len(synced.refused) == 1
    assert synced.refused[0].startswith("metric ../bad: ")
    metrics = connect(any_uri).get_run(synced.run_id).data.metrics
    assert (metrics["good"], metrics["also good"], "../bad" in metrics) == (1.0, 3.0, False)
    assert len(curve(connect(any_uri), synced.run_id, "train/loss")) == 200


@BOTH
def test_a_deleted_run_stays_deleted_until_it_is_restored(any_uri: str, job: Path) -> None:
    train(job, 0, 10)
    run_id = sync(any_uri, job).run_id
    client = connect(any_uri)
    client.delete_run(run_id)
    train(job, 10, 20, attempt=2)
    for _ in range(2):
        synced = sync(any_uri, job)
        assert (synced.pending, synced.deleted, synced.reachable) == (True, True, True)
        assert synced.problem == (
            f"its run was deleted in MLflow: `mlflow runs restore --run-id {run_id}` brings it back"
        )
    assert SyncState.load(job).problem == synced.problem
    assert not can_still_be_sent(job)
    client.restore_run(run_id)
    assert sync(any_uri, job).run_id == run_id
    assert len(curve(client, run_id, "train/loss")) == 20
    assert not list(pending_folders(job.parent.parent))
    assert SyncState.load(job).problem == ""


@pytest.mark.parametrize("begun", [False, True])
def test_a_deleted_experiment_is_named_and_gets_everything_once_it_is_restored(
    any_uri: str, job: Path, begun: bool
) -> None:
    client, name = connect(any_uri), f"deleted, begun: {begun}"
    replace(DesiredRun.load(job), experiment=name).save(job)
    if begun:
        sync(any_uri, job)
        experiment = client.get_experiment_by_name(name).experiment_id
    else:
        experiment = client.create_experiment(name)
    client.delete_experiment(experiment)
    train(job, 0, 10)
    synced = sync(any_uri, job)
    assert (synced.pending, synced.deleted, synced.reachable) == (True, True, True)
    remedy = f"`mlflow experiments restore --experiment-id {experiment}` brings it back"
    assert synced.problem == f"its experiment {name!r} was deleted in MLflow: {remedy}"
    client.restore_experiment(experiment)
    synced = sync(any_uri, job)
    assert not synced.pending
    assert len(curve(client, synced.run_id, "train/loss")) == 10


def test_a_tracker_tells_once_of_what_was_deleted_and_when_it_is_restored(any_uri: str, job: Path) -> None:
    client, told = connect(any_uri), []
    tracker = Tracker(any_uri, job, told.append, every=0.02)
    until(lambda: tracker.run_id, "the run is there")
    client.delete_run(tracker.run_id)
    train(job, 0, 10)
    until(lambda: told, "it was told of")
    time.sleep(0.2)
    assert len(told) == 1
    assert "what MLflow lacks of this job is kept" in told[0]
    assert f"mlflow runs restore --run-id {tracker.run_id}" in told[0]
    client.restore_run(tracker.run_id)
    until(lambda: told[1:], "it goes on")
    assert not tracker.close().pending
    assert told[1:] == ["MLflow takes what there is of this job again"]
    assert len(curve(client, tracker.run_id, "train/loss")) == 10


def test_another_database_gets_everything(sqlite_uri: str, job: Path, tmp_path: Path, migrated_mlflow_db: Path) -> None:
    train(job, 0, 60)
    finish(job)
    sync(sqlite_uri, job)
    other = tmp_path / "other.db"
    other.write_bytes(migrated_mlflow_db.read_bytes())
    assert not sync(f"sqlite:///{other}", job).pending
    assert_all_arrived_once(f"sqlite:///{other}", job, 60)


def test_an_unfinished_database_is_never_seen(tmp_path: Path) -> None:
    """Two processes make the same SQLite file, one of them killed at a random moment."""
    uri = f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}"
    script = (
        "import sys; from epochal.tracking.connection import prepare_sqlite, quiet_mlflow;"
        "quiet_mlflow(); print(flush=True); prepare_sqlite(sys.argv[1])"
    )
    with subprocess.Popen([sys.executable, "-c", script, uri], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        time.sleep(0.7)
        killed.send_signal(signal.SIGKILL)
    start = time.perf_counter()
    prepare_sqlite(uri)
    print(f"a new SQLite file: {time.perf_counter() - start:.2f} s")
    experiment = connect(uri).get_experiment("0")
    assert experiment.artifact_location == (tmp_path / "home" / "artifacts" / "0").as_uri()


def test_artifacts_of_a_sqlite_file_are_beside_it(sqlite_uri: str, job: Path, tmp_path: Path) -> None:
    write_atomically(artifacts_folder(job) / "x.txt", "x")
    run_id = sync(sqlite_uri, job).run_id
    assert (tmp_path / "tracking/artifacts/tracked" / run_id / "artifacts/x.txt").read_text() == "x"
    assert not (Path(os.getcwd()) / "mlruns").exists()


def test_one_damaged_folder_does_not_stop_the_others(sqlite_uri: str, job: Path) -> None:
    damaged = job.parent / "another"
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    results = sync_all(sqlite_uri, job.parent.parent)
    assert {name: synced.pending for name, synced in results.items()} == {job.name: False}


def test_sync_all_asks_a_dead_server_once(job: Path) -> None:
    jobs = [make_job(job.parent.parent, f"more-{index}") for index in range(3)]
    start = time.perf_counter()
    results = sync_all("http://127.0.0.1:9", job.parent.parent)
    assert time.perf_counter() - start < 5
    assert set(results) == {path.name for path in [job, *jobs]}
    assert not any(synced.reachable for synced in results.values())


def test_a_run_is_found_behind_a_thousand_newer_experiments(sqlite_uri: str, job: Path) -> None:
    """MLflow gives a thousand at a time, the newest first."""
    run_id = sync(sqlite_uri, job).run_id
    with sqlite3.connect(sqlite_uri.removeprefix("sqlite:///")) as database:
        row = "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time) VALUES (?, '', ?, ?)"
        later = int(time.time() * 1000) + 1000
        database.executemany(row, [(f"newer-{number}", "active", later + number) for number in range(1001)])
    assert [run.id for run in list_runs(sqlite_uri)] == [run_id]
    experiment = DesiredRun.load(job).experiment
    assert [run.id for run in list_runs(sqlite_uri, experiment)] == [run_id]
    truth = Truth("FINISHED", "COMPLETED", time.time())
    assert [found.run_id for found in differences(sqlite_uri, {}, lambda job, run: truth)] == [run_id]
