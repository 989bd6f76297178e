"""What was left in the folders of jobs: closed as the job stands, since when; and only where nobody works at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.reconcile import JobFolders
from epochal.tracking.sync_state import SyncState, fingerprint
from epochal.tracking.syncer import Synced
from epochal.tracking.tracker import Tracker, pending_folders, sync_all
from polling import until


@dataclass(frozen=True)
class Ended:
    state: str
    reason: str | None = None
    entered_at: float = 17.0


def leave(storage: Path, job_id: str, status: str = "RUNNING") -> Path:
    folder = storage / "jobs" / job_id
    DesiredRun(job_id=job_id, experiment="e", name="n").changed(status=status).save(folder)
    return folder


def send_all(folder: Path) -> None:
    SyncState(settled=fingerprint(folder)).save(folder)


@pytest.mark.parametrize(
    ("job", "status", "reason", "end"),
    [
        (Ended("SUCCEEDED", "COMPLETED"), "FINISHED", "COMPLETED", 17.0),
        (Ended("FAILED", "HANG"), "FAILED", "HANG", 17.0),
        (Ended("PAUSED", "INTERRUPTED"), "KILLED", "INTERRUPTED", 17.0),
        (Ended("QUEUED"), "RUNNING", "", None),
    ],
    ids=lambda value: getattr(value, "state", ""),
)
def test_a_record_left_open_says_how_the_job_stands_and_since_when(
    tmp_path: Path, job: Ended, status: str, reason: str, end: float | None
) -> None:
    folder = leave(tmp_path, "one")
    JobFolders(tmp_path, {"one": job}.get).close_desired_runs()
    record = DesiredRun.load(folder)
    assert (record.status, record.reason, record.end_time) == (status, reason, end)


def test_only_jobs_that_nobody_works_at_are_touched(tmp_path: Path) -> None:
    held, idle = leave(tmp_path, "held"), leave(tmp_path, "idle")
    folders = JobFolders(tmp_path, {"idle": Ended("SUCCEEDED")}.get)
    folders.close_desired_runs()
    assert DesiredRun.load(held).status == "RUNNING"
    assert folders.unsent() == [idle]


def test_whose_a_folder_is_is_asked_only_where_something_is_left(tmp_path: Path) -> None:
    asked: list[str] = []

    def idle(job_id: str) -> Ended:
        asked.append(job_id)
        return Ended("SUCCEEDED")

    for folder in (leave(tmp_path, "done", "FINISHED"), leave(tmp_path, "paused", "KILLED")):
        send_all(folder)
    (tmp_path / "jobs" / "no-record").mkdir()
    folders = JobFolders(tmp_path, idle)
    assert (folders.unsent(), asked) == ([], [])
    leave(tmp_path, "paused")  # it goes on
    assert [path.name for path in folders.unsent()] == ["paused"]


@pytest.mark.parametrize("garbage", ["{", '"text"', '{"job_id": "x", "experiment": "e", "name": "n", "params": 5}'])
def test_a_damaged_folder_holds_up_no_other(tmp_path: Path, garbage: str, caplog: pytest.LogCaptureFixture) -> None:
    damaged, sound = leave(tmp_path, "a-damaged"), leave(tmp_path, "b-sound")
    (damaged / "run.json").write_text(garbage)
    folders = JobFolders(tmp_path, lambda _: Ended("SUCCEEDED"))
    assert folders.unsent() == list(pending_folders(tmp_path)) == [sound]
    folders.close_desired_runs()
    assert DesiredRun.load(sound).status == "FINISHED"
    assert str(damaged) in caplog.text


def test_metrics_that_mlflow_lacks_are_counted_of_jobs_that_run_too(tmp_path: Path) -> None:
    folders = JobFolders(tmp_path, dict[str, Ended]().get)
    running, ended = leave(tmp_path, "running"), leave(tmp_path, "ended", "FINISHED")
    assert folders.unsent_bytes() == 0
    sizes = []
    for folder in (running, ended):
        spool = MetricSpool(folder, "attempt-1-rank-0")
        spool.log(1, {"train/loss": 0.5}, 17.0)
        spool.close()
        sizes.append(spool.path.stat().st_size)
    assert folders.unsent_bytes() == sum(sizes)
    SyncState(offsets={"attempt-1-rank-0.jsonl": sizes[1]}).save(ended)
    assert folders.unsent_bytes() == sizes[0]
    (running / "sync_state.json").write_text("not JSON")
    (tmp_path / "jobs" / "no-record").mkdir()
    assert folders.unsent_bytes() == sizes[0], "one that is damaged is counted in full"


def test_a_folder_that_cannot_be_sent_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a-damaged", "b-sound"):
        leave(tmp_path, name, "FINISHED")

    def sync(uri: str, folder: Path, **_: object) -> Synced:
        if folder.name == "a-damaged":
            yaml.safe_load("[")  # as of a model's description that a disk has lost
        return Synced("run", "", "", "")

    monkeypatch.setattr("epochal.tracking.tracker.sync", sync)
    damaged, sound = sync_all("sqlite:///mlflow.db", tmp_path).values()
    assert (damaged.pending, damaged.reachable, damaged.problem[:11]) == (True, True, "ParserError")
    assert not sound.pending
    assert str(tmp_path / "jobs" / "a-damaged") in caplog.text


def test_whoever_cannot_be_told_keeps_no_metrics_from_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, sent = leave(tmp_path, "one"), []

    def sync(*_: object, **__: object) -> Synced:
        sent.append(1)
        return Synced("run", "", "", "", has_news=True)

    def notice(text: str) -> None:
        raise RuntimeError("nobody expected that")

    monkeypatch.setattr("epochal.tracking.tracker.sync", sync)
    SyncState(refused=["metric x: it is odd"]).save(folder)
    tracker = Tracker("sqlite:///mlflow.db", folder, notice, every=0.01)
    until(lambda: len(sent) > 2, "it goes on")
    tracker.close()
    assert "nobody expected that" in caplog.text
