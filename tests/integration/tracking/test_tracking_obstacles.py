"""Whatever keeps MLflow from taking a run is said wherever a person looks, with the remedy, and made up for later."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from flaky_proxy import FlakyProxy
from gate import Gate
from tracked_job import assert_all_arrived_once, curve, finish, make_job, train

from epochal.cli.main import main
from epochal.doctor import ledger as doctor
from epochal.doctor.check import Status
from epochal.doctor.services import reconciler as judged
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.server.reconciler import Reconciler, Timing
from epochal.settings import home
from epochal.tracking.connection import connect, sqlite_path
from epochal.tracking.server import TrackingServer
from epochal.tracking.sync_state import SyncState, sync_state_path
from epochal.tracking.syncer import BEING_SENT, sync
from epochal.tracking.tracker import Tracker
from polling import until
from running_server import SPEC, RunningServer, settings_in


@dataclass
class Case:
    """A job that is about to be recorded at ``uri``."""

    request: pytest.FixtureRequest
    name: str
    uri: str = ""
    folder: Path = field(default_factory=Path)
    sent_to: str = ""
    """Where, once it is mended, it is; default: ``uri``."""

    @property
    def gate(self) -> Gate:
        gate: Gate = self.request.getfixturevalue("gate")
        self.uri = gate.url
        return gate

    @property
    def server(self) -> TrackingServer:
        server: TrackingServer = self.request.getfixturevalue("shared_mlflow_server")
        self.uri = server.url
        return server

    @property
    def file(self) -> Path:
        self.uri = self.request.getfixturevalue("sqlite_uri")
        return sqlite_path(self.uri)

    @property
    def run_id(self) -> str:
        return SyncState.load(self.folder).run_id


def answering(status: int, body: str, path: str = "/", longer_than: int = -1) -> Callable[[Case], Iterator[None]]:
    def cause(case: Case) -> Iterator[None]:
        case.gate.refuse(status, body, path, longer_than)
        yield
        case.gate.open()

    return cause


def deleted_run(case: Case) -> Iterator[None]:
    client = connect(case.server.url)
    client.delete_run(case.run_id)
    yield
    client.restore_run(case.run_id)


def deleted_experiment(case: Case) -> Iterator[None]:
    client = connect(case.server.url)
    found = client.get_experiment_by_name(case.name)
    experiment = found.experiment_id if found else client.create_experiment(case.name)
    client.delete_experiment(experiment)
    yield
    client.restore_experiment(experiment)


def deleted_for_good(case: Case) -> Iterator[None]:
    """As `mlflow gc` does it, once the tracker has seen that the run is deleted."""
    client = connect(case.server.url)
    run_id = case.run_id
    client.delete_run(run_id)
    train(case.folder, 0, 20)
    until(lambda: SyncState.load(case.folder).deleted, "that is seen")
    with sqlite3.connect(sqlite_path(case.server.plan.command[5])) as database:
        for table in ("metrics", "latest_metrics", "params", "tags"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_id,))
        database.execute("DELETE FROM runs WHERE run_uuid = ?", (run_id,))
    yield
    sync_state_path(case.folder).unlink()


def artifacts_of_a_server(case: Case) -> Iterator[None]:
    experiment = connect(case.server.url).create_experiment(case.name)
    in_the_way = sqlite_path(case.server.plan.command[5]).parent / "artifacts" / experiment
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("")
    yield
    in_the_way.unlink()


def artifacts_of_a_file(case: Case) -> Iterator[None]:
    in_the_way = case.file.parent / "artifacts"
    in_the_way.write_text("")
    yield
    in_the_way.unlink()


def schema(version: str) -> Callable[[Case], Iterator[None]]:
    def cause(case: Case) -> Iterator[None]:
        whole = case.file.read_bytes()
        with sqlite3.connect(case.file) as database:
            database.execute("UPDATE alembic_version SET version_num = ?", (version,))
        yield
        case.file.write_bytes(whole)

    return cause


def nobody_there(case: Case) -> Iterator[None]:
    proxy: FlakyProxy = case.request.getfixturevalue("flaky_mlflow")
    case.uri = proxy.url
    proxy.down()
    yield
    proxy.up()


def wrong_address(uri: str) -> Callable[[Case], Iterator[None]]:
    def cause(case: Case) -> Iterator[None]:
        case.uri = uri
        yield
        case.sent_to = case.server.url

    return cause


HTML = "<html><body>nginx</body></html>"
RIGHTS = ("MLFLOW_TRACKING_USERNAME",)
ADDRESS = ("does not answer as MLflow does", "MLFLOW_TRACKING_URI has to be")
QUOTA = '{"error_code": "RESOURCE_EXHAUSTED", "message": "quota of 1,000 runs"}'
LATER = True  # once the run is there

CAUSES = {
    "run-deleted": (deleted_run, LATER, ("its run was deleted", "`mlflow runs restore --run-id")),
    "experiment-deleted": (deleted_experiment, False, ("was deleted", "`mlflow experiments restore")),
    "experiment-deleted-later": (deleted_experiment, LATER, ("was deleted", "`mlflow experiments restore")),
    "run-deleted-for-good": (deleted_for_good, LATER, ("for good", "sync_state.json")),
    "artifacts-of-a-server": (artifacts_of_a_server, False, ("artifact store", "make it writable")),
    "artifacts-of-a-file": (artifacts_of_a_file, False, ("artifact store", "make it writable")),
    "older-schema": (schema("0584bdc529eb"), False, ("another version", "`mlflow db upgrade")),
    "newer-schema": (schema("ffffffffffff"), False, ("another version", "`pip install --upgrade mlflow`")),
    "401": (answering(401, "You are not authenticated."), False, ("does not know who asks", *RIGHTS)),
    "401-later": (answering(401, "You are not authenticated."), LATER, ("does not know who asks", *RIGHTS)),
    "403": (answering(403, "Permission denied"), False, ("forbids it", "edit this experiment")),
    "403-of-runs": (answering(403, "Permission denied", "/runs/"), False, ("forbids it", "edit this experiment")),
    "403-of-files": (answering(403, "Permission denied", "-artifacts/"), False, ("artifact store", "forbids it")),
    "413": (answering(413, HTML, "log-batch"), False, ("too large", "client_max_body_size")),
    "413-of-files": (answering(413, HTML, "-artifacts/"), False, ("artifact store", "too large")),
    "429": (answering(429, "slow down", "log-batch"), False, ("takes no more for now", "raise its quota")),
    "quota": (answering(400, QUOTA, "runs/create"), False, ("takes no more for now", "raise its quota")),
    "400-of-a-proxy": (answering(400, HTML, "log-batch"), LATER, ("refuses it",)),
    "404-of-a-proxy": (answering(404, HTML), LATER, ADDRESS),
    "500": (answering(500, "boom", "log-batch"), False, ("fails at it", "its own log")),
    "502": (answering(502, HTML), False, ("cannot be reached", "start it")),
    "mlflow-2": (answering(404, HTML, "logged-models"), False, ("logged models", "upgrade that server")),
    "a-page": (answering(200, HTML), False, ADDRESS),
    "empty-answers": (answering(200, ""), False, ADDRESS),
    "another-product": (answering(404, '{"detail": "Not Found"}'), False, ADDRESS),
    "a-login-page": (answering(302, ""), False, ADDRESS),
    "nobody-there": (nobody_there, False, ("cannot be reached", "start it")),
    "no-uri": (wrong_address("foo://x"), False, ("is no address of MLflow", "MLFLOW_TRACKING_URI has to be")),
    "no-scheme": (wrong_address("localhost:5000"), False, ("is no address of MLflow", "MLFLOW_TRACKING_URI has to be")),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(settings_in(tmp_path_factory.mktemp("server"))) as running:
        yield running


@pytest.fixture
def gate(shared_mlflow_server: TrackingServer) -> Iterator[Gate]:
    with Gate(shared_mlflow_server.url) as gate:
        yield gate


QUICKLY = ("403",)
"""Of each way to fail one; the words of the others are in ``test_obstacle_words.py``."""


def sent_by_hand(capsys: pytest.CaptureFixture[str]) -> dict[str, str] | None:
    """What `runs sync` says of the one job that it could not send; None while somebody else sends it."""
    assert main(["runs", "sync", "-o", "json"]) == 5
    (told,) = json.loads(capsys.readouterr().out)
    return None if told["problem"] == BEING_SENT else told


@pytest.mark.parametrize(
    "name", [name if name in QUICKLY else pytest.param(name, marks=pytest.mark.slow) for name in CAUSES]
)
def test_it_is_said_everywhere_and_made_up_for(
    name: str,
    server: RunningServer,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cause, later, words = CAUSES[name]
    case, ledger = Case(request, f"obstacle-{name}"), server.ledger
    job = ledger.submit(SPEC, name=name)
    lease = ledger.lease("agent/1", 60, job.id)
    assert lease is not None
    ledger.running(lease, world_size=1)
    case.folder = make_job(home().served.storage, job.id, experiment=case.name)
    breaking = cause(case)
    if later:
        case.uri = case.gate.url if name[0] == "4" else case.server.url
    else:
        next(breaking)
    note = lambda message: ledger.note(lease, EventKind.TRACKING, message)  # noqa: E731
    tracker = Tracker(case.uri, case.folder, note, every=0.02)
    if later:
        until(lambda: tracker.run_id, "the run is there")
        next(breaking)
    train(case.folder, 0, 60)
    ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    finish(case.folder)
    tracker.update(status="FINISHED", reason="COMPLETED", tags={"attempts": "2"})
    until(
        lambda: tracker.last.obstacle not in ("", "deleted run" if name == "run-deleted-for-good" else ""), "it is seen"
    )
    assert tracker.close(0.2).pending

    monkeypatch.setenv("MLFLOW_TRACKING_URI", case.uri)
    monkeypatch.setenv("EPOCHAL_SERVER", server.url)
    monkeypatch.setenv("EPOCHAL_TOKEN", server.ledger.create_token("ada", "admin")[1])
    told = server.admin.get(f"/jobs/{job.id}/events").json()["events"]
    kept = [event["message"] for event in told if event["kind"] == "tracking"]
    # On a busy machine a connection may break beside the cause, which is told again after that.
    assert all(one != before for before, one in pairwise(kept))
    assert len(set(kept)) <= 2
    assert main(["status", job.id]) == main(["events", job.id, "-o", "json"]) == 0
    shown = capsys.readouterr().out
    (synced,) = until(lambda: _synced(capsys), "the tracker has ended the call that it was in")
    (found,) = [check for check in doctor.look(home()) if check.name == "tracking"]
    assert found.status is Status.WARN
    for text in (" ".join(kept), " ".join(shown.split()), synced["problem"], found.found):
        for word in words:
            assert word in text

    assert next(breaking, None) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", case.sent_to or case.uri)
    at_once = Timing(closing=0.0)
    Reconciler(ledger, case.sent_to or case.uri, timing=at_once, storage=home().served.storage).catch_up()
    assert main(["runs", "sync"]) == 0
    assert_all_arrived_once(case.sent_to or case.uri, case.folder, 60)
    checks = {check.name: check.found for check in doctor.look(home())}
    assert checks["tracking"] == "MLflow has everything"
    assert checks["refused by MLflow"] == "nothing"
    last = [event.message for event in ledger.events(job.id) if event.kind == EventKind.TRACKING][-1]
    assert last == "MLflow takes what there is of this job again" or name == "run-deleted-for-good"


def _synced(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What `epochal runs sync` says; nothing while somebody else sends."""
    assert main(["runs", "sync", "-o", "json"]) == 5
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return [] if any(one["problem"] == BEING_SENT for one in found) else found


def test_a_restored_run_gets_what_was_written_meanwhile(shared_mlflow_server: TrackingServer, tmp_path: Path) -> None:
    """Deleted and restored again and again, at any moment, while its job writes."""
    uri, client = shared_mlflow_server.url, connect(shared_mlflow_server.url)
    job = make_job(tmp_path, "now-and-then")
    tracker = Tracker(uri, job, lambda news: None, every=0.01)
    run_id = until(lambda: tracker.run_id, "the run is there")
    for begin in range(0, 400, 20):
        client.delete_run(run_id)
        train(job, begin, begin + 20)
        client.restore_run(run_id)
    finish(job)
    tracker.update(status="FINISHED", reason="COMPLETED", tags={"attempts": "2"})
    tracker.close(0.0)
    until(lambda: not sync(uri, job).pending, "all is sent")
    assert SyncState.load(job).refused == []
    assert len(curve(client, run_id, "train/loss")) == 400


@pytest.mark.slow
def test_a_proxy_that_takes_small_requests_only_gets_everything_in_such(gate: Gate, tmp_path: Path) -> None:
    job = make_job(tmp_path, "small-requests")
    train(job, 0, 1200)
    finish(job)
    gate.refuse(413, HTML, "log-batch", longer_than=20_000)
    assert not sync(gate.url, job).pending
    assert_all_arrived_once(gate.url, job, 1200)


def test_the_run_of_a_job_that_somebody_deleted_is_no_agreement(
    server: RunningServer, shared_mlflow_server: TrackingServer
) -> None:
    ledger, uri = server.ledger, shared_mlflow_server.url
    job = ledger.submit(SPEC, name="deleted-after-all")
    lease = ledger.lease("agent/1", 60, job.id)
    assert lease is not None
    ledger.running(lease, world_size=1)
    folder = make_job(home().served.storage, job.id)
    train(folder, 0, 20)
    finish(folder)
    synced = sync(uri, folder)
    ledger.set_run(lease, synced.run_id, uri, synced.experiment_id)
    ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    reconciler = Reconciler(ledger, uri, timing=Timing(closing=0.0), storage=home().served.storage)
    assert [found for found in reconciler.plan() if found.job_id == job.id] == []
    connect(uri).delete_run(synced.run_id)
    again = Reconciler(ledger, uri, timing=Timing(closing=0.0), storage=home().served.storage)
    (found,) = [found for found in again.plan() if found.job_id == job.id]
    assert f"`mlflow runs restore --run-id {synced.run_id}`" in found.message
    again.catch_up()
    assert connect(uri).get_run(synced.run_id).info.lifecycle_stage == "deleted"
    check = judged([found], tended=True)
    assert "agree, but for what somebody deleted" in check.found
    assert "mlflow runs restore" in check.found
