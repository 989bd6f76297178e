"""What is left to send, without asking MLflow."""

from __future__ import annotations

from pathlib import Path

from epochal.tracking.desired_run import DatasetUsed, DesiredRun, artifacts_folder, model_folder, write_atomically
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.sync_state import SyncState, artifact_files, fingerprint, folder_lock, is_pending, outstanding


def job(folder: Path) -> DesiredRun:
    record = DesiredRun(job_id="j1", experiment="e", name="n", params={"a": "1"}, dataset=DatasetUsed("d", "1", "s"))
    record.save(folder)
    return record


def all_sent(folder: Path, record: DesiredRun) -> SyncState:
    state = SyncState(uri="u", run_id="r", status=record.status, params=list(record.all_params()))
    state.tags, state.dataset = record.all_tags(), "1"
    state.settled = fingerprint(folder)
    state.save(folder)
    return state


def test_everything_is_left_at_first(tmp_path: Path) -> None:
    record = job(tmp_path)
    writer = MetricSpool(tmp_path, "a")
    writer.log(0, {"loss": 1.0})
    writer.close()
    write_atomically(artifacts_folder(tmp_path) / "sub/x.txt", "x")
    write_atomically(model_folder(tmp_path) / "MLmodel", "flavors: {}")
    left = outstanding(tmp_path, record, SyncState())
    assert left.run
    assert left.artifacts == ("sub/x.txt",)
    size = writer.path.stat().st_size
    assert f"the run, 1 parameter, 7 tags, the dataset, {size} bytes of metrics, 1 artifact, the model" in str(left)


def test_nothing_is_left_of_what_was_sent_until_something_changes(tmp_path: Path) -> None:
    record = job(tmp_path)
    assert is_pending(tmp_path)
    state = all_sent(tmp_path, record)
    assert not outstanding(tmp_path, record, state)
    assert not is_pending(tmp_path)
    record.changed(status="KILLED").save(tmp_path)
    assert is_pending(tmp_path)


def test_a_new_artifact_or_metric_is_seen(tmp_path: Path) -> None:
    record = job(tmp_path)
    all_sent(tmp_path, record)
    write_atomically(artifacts_folder(tmp_path) / "deep/er/x.txt", "x")
    assert is_pending(tmp_path)
    (artifacts_folder(tmp_path) / "deep/er/x.txt").unlink()
    assert not is_pending(tmp_path)
    writer = MetricSpool(tmp_path, "a")
    writer.log(0, {"loss": 1.0})
    writer.flush()
    assert is_pending(tmp_path)


def test_files_being_written_are_not_artifacts(tmp_path: Path) -> None:
    write_atomically(artifacts_folder(tmp_path) / "x.txt", "x")
    (artifacts_folder(tmp_path) / ".x.txt.123.tmp").write_text("half")
    assert list(artifact_files(tmp_path)) == ["x.txt"]


def test_a_link_is_followed_within_the_jobs_folders_alone(tmp_path: Path) -> None:
    """Code of a job writes there, and the agent reads more than that code may."""
    secret = tmp_path / "token"
    secret.write_text("secret")
    folder = tmp_path / "jobs" / "one"
    write_atomically(artifacts_folder(folder) / "x.txt", "x")
    (artifacts_folder(folder) / "same.txt").symlink_to("x.txt")
    (artifacts_folder(folder) / "away.txt").symlink_to(secret)
    found = artifact_files(folder)
    assert {name: stamp[:1] for name, stamp in found.items()} == {"x.txt": [1], "same.txt": [1], "away.txt": []}
    (artifacts_folder(folder) / "latest").symlink_to("removed")
    (artifacts_folder(folder) / "itself").symlink_to("itself")
    assert artifact_files(folder) == found | {"latest": [], "itself": []}
    artifacts_folder(folder).rename(folder / "elsewhere")
    artifacts_folder(folder).symlink_to(tmp_path)
    assert artifact_files(folder)["token"] == []


def test_a_damaged_memory_means_sending_again(tmp_path: Path) -> None:
    job(tmp_path)
    (tmp_path / "sync_state.json").write_text('{"run_id": "r"')
    assert SyncState.load(tmp_path) == SyncState()
    assert is_pending(tmp_path)


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with folder_lock(tmp_path) as mine, folder_lock(tmp_path) as also_mine:
        assert (mine, also_mine) == (True, False)
    with folder_lock(tmp_path) as mine:
        assert mine
