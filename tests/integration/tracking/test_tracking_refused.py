"""What MLflow will never take, what is cut to what it takes, and what people change in a run."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException
from tracked_job import curve, finish, make_job, train

from epochal.doctor import ledger as doctor
from epochal.doctor.check import Status
from epochal.settings import home
from epochal.tracking.connection import connect, prepare_sqlite
from epochal.tracking.desired_run import DesiredRun, artifacts_folder, write_atomically
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.runs import list_runs
from epochal.tracking.server import TrackingServer
from epochal.tracking.syncer import sync
from epochal.tracking.tracker import Tracker

REFUSED = {
    "metric-up": ("metrics", "../bad"),
    "metric-slashes": ("metrics", "train//loss"),
    "metric-root": ("metrics", "/loss"),
    "metric-dot": ("metrics", "."),
    "param-up": ("params", "../bad"),
    "tag-up": ("tags", "../bad"),
    "tag-root": ("tags", "/team"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_mlflow_will_never_take_is_said_and_stops_nothing_else(case: str, sqlite_uri: str) -> None:
    kind, name = REFUSED[case]
    told: list[str] = []
    folder = make_job(home().storage, case)
    if kind == "metrics":
        spool = MetricSpool(folder, "another")
        spool.log(1, {name: 1.0})
        spool.close()
    else:
        record = DesiredRun.load(folder)
        record.changed(**{kind: {**getattr(record, kind), name: "x"}}).save(folder)
    train(folder, 0, 20)
    tracker = Tracker(sqlite_uri, folder, told.append)
    assert not tracker.close(30).pending
    assert len(curve(connect(sqlite_uri), tracker.run_id, "train/loss")) == 20
    (message,) = told
    assert message.startswith(f"MLflow refuses to store {kind[:-1]} {name}: ")
    (found,) = [check for check in doctor.look(home()) if check.name == "refused by MLflow"]
    assert found.status is Status.WARN
    assert f"{kind[:-1]} {name}" in found.found
    assert case in found.found


def test_a_dataset_that_mlflow_refuses_keeps_nothing_else_from_it(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise MlflowException("no such dataset", error_code=INVALID_PARAMETER_VALUE)

    monkeypatch.setattr("mlflow.MlflowClient.log_inputs", refused)
    folder = make_job(tmp_path, "odd-data")
    train(folder, 0, 20)
    synced = sync(sqlite_uri, folder)
    assert (synced.left, synced.refused) == ("", ("dataset digits: no such dataset",))
    assert len(curve(connect(sqlite_uri), synced.run_id, "train/loss")) == 20


def test_files_that_would_get_another_name_are_said_and_the_others_sent(
    shared_mlflow_server: TrackingServer, tmp_path: Path
) -> None:
    folder = make_job(tmp_path, "odd-files")
    odd, sent = ("a#b.txt", "a?c.txt", "a%41.txt"), {"a", "aA.txt", "100%.txt", "é [1].txt"}
    for name in (*odd, *sent):
        write_atomically(artifacts_folder(folder) / name, name)
    (artifacts_folder(folder) / "latest").symlink_to("removed")
    synced = sync(shared_mlflow_server.url, folder)
    assert synced.left == ""
    assert sorted(one.partition(":")[0] for one in synced.refused) == sorted(
        f"artifact {name}" for name in (*odd, "latest")
    )
    client = connect(shared_mlflow_server.url)
    assert {one.path for one in client.list_artifacts(synced.run_id)} == sent
    for name in ("a", "aA.txt"):
        assert Path(client.download_artifacts(synced.run_id, name)).read_text() == name


LONG = {
    "metric": ("metrics", "m" * 400, 1.0),
    "param": ("params", "p" * 400, "v" * 9000),
    "tag": ("tags", "t" * 400, "v" * 9000),
    "odd-metric": ("metrics", "loss:é%#?[0]", 1.0),
    "odd-param": ("params", "é:%#?[0]", "\x00 \n é"),
    "odd-tag": ("tags", "é:%#?[0]", "\n é"),
}


@pytest.mark.parametrize("case", LONG)
def test_what_is_too_long_or_odd_is_cut_to_what_mlflow_takes(case: str, sqlite_uri: str, tmp_path: Path) -> None:
    kind, name, value = LONG[case]
    folder = make_job(tmp_path, case)
    if kind == "metrics":
        spool = MetricSpool(folder, "another")
        spool.log(1, {name: value})
        spool.close()
    else:
        record = DesiredRun.load(folder)
        record.changed(**{kind: {name: value}}).save(folder)
    synced = sync(sqlite_uri, folder)
    assert not synced.pending
    assert synced.refused == ()
    (run,) = list_runs(sqlite_uri)
    assert getattr(run, kind)


@pytest.mark.parametrize(
    "change",
    [
        lambda client, run_id: client.set_terminated(run_id, "FAILED"),
        lambda client, run_id: client.update_run(run_id, name="another"),
        lambda client, run_id: client.set_tag(run_id, "mlflow.runName", ""),
        lambda client, run_id: client.set_tag(run_id, "epochal.job_id", "of-another"),
        lambda client, run_id: client.rename_experiment(client.get_run(run_id).info.experiment_id, f"r-{run_id}"),
        lambda client, run_id: client.log_param(run_id, "train.lr.mine", "5"),
    ],
    ids=["ended", "renamed", "no-name", "tag-changed", "experiment-renamed", "param-added"],
)
def test_what_people_change_in_a_run_keeps_nothing_from_it(sqlite_uri: str, tmp_path: Path, change: object) -> None:
    folder = make_job(tmp_path, "changed")
    train(folder, 0, 20)
    run_id = sync(sqlite_uri, folder).run_id
    client = connect(sqlite_uri)
    change(client, run_id)  # type: ignore[operator]
    train(folder, 20, 40)
    finish(folder)
    synced = sync(sqlite_uri, folder)
    assert (synced.left, synced.problem, synced.run_id) == ("", "", run_id)
    assert len(curve(client, run_id, "train/loss")) == 40
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_database_is_made_where_the_file_system_has_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    uri = f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}"
    prepare_sqlite(uri)
    assert connect(uri).get_experiment("0").name == "Default"
    assert [one.name for one in (tmp_path / "home").iterdir()] == ["mlflow.db"]
