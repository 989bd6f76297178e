"""Jobs and their runs in folders of any name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tracked_job import make_job, train

from epochal.cli.main import main
from epochal.files import write_atomically
from epochal.ledger.ledger import Ledger
from epochal.settings import Home, sqlite_url
from epochal.tracking.connection import connect
from epochal.tracking.desired_run import artifacts_folder
from epochal.tracking.runs import list_runs
from epochal.tracking.syncer import sync
from odd_names import NOT_TEXT, every_name, home_named


def spec_in(folder: Path, table: str) -> Path:
    (folder / table).write_text("x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(40)))
    (folder / "code").mkdir()
    (folder / "code" / "nets.py").write_text("")
    spec = {
        "version": 1,
        "name": "odd",
        "model": {"name": "mlp"},
        "train": {"epochs": 1},
        "data": {"name": "csv", "params": {"path": table, "target": "y"}},
        "code": {"dir": "code"},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec, allow_unicode=True))
    return path


@every_name
def test_a_spec_with_code_and_data_of_that_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_named(name, tmp_path, monkeypatch)
    path = spec_in(home, name)
    for words in (["validate"], ["run", "--dry-run"], ["submit", "--dry-run"], ["plan"]):
        assert main([*words, str(path)]) == 0, capsys.readouterr().err
    assert list((home / "storage" / "code").glob("*.zip"))
    assert [one.name for one in home.parent.iterdir()] == [name]


def test_a_spec_in_a_folder_that_is_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / NOT_TEXT
    folder.mkdir()
    path = spec_in(folder, "table.csv")
    monkeypatch.chdir(folder)
    for words in (["validate"], ["run", "--dry-run"], ["submit", "--dry-run"], ["plan"]):
        for given in (path.name, str(path)):
            assert main([*words, given]) == 0, capsys.readouterr().err
    with Ledger.open(sqlite_url(tmp_path / "ledger.db")) as ledger:
        job = ledger.submit({"version": 1}, name="odd", origin={"folder": str(folder)})
        assert ledger.full_job(job.id).origin["folder"] == str(folder)
    assert os.fsencode(folder).endswith(b"r\xe9sultats")


@every_name
def test_runs_are_recorded_beside_it(name: str, tmp_path: Path, migrated_mlflow_db: Path) -> None:
    home = Home(tmp_path / name)
    home.root.mkdir()
    shutil.copyfile(migrated_mlflow_db, home.root / "mlflow.db")
    job = make_job(home.storage, "odd")
    train(job, 0, 3)
    write_atomically(artifacts_folder(job) / "environment.json", "{}")
    synced = sync(home.tracking_uri, job)
    assert not synced.pending, synced.problem
    assert [run.job for run in list_runs(home.tracking_uri)] == ["odd"]
    client = connect(home.tracking_uri)
    artifacts = {one.path for one in client.list_artifacts(synced.run_id)}
    assert artifacts
    kept = [path for path in home.artifacts.rglob("*") if path.is_file()]
    assert {path.name for path in kept} >= artifacts
    fetched = client.download_artifacts(synced.run_id, min(artifacts), str(tmp_path))
    assert Path(fetched).exists()
    assert {one.name for one in tmp_path.iterdir() if one.is_dir()} == {name}


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["", "http://mluser:s3cretPW@127.0.0.1:9/"], ids=["file", "away"])
def test_a_whole_run(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a home with all of it in its name; where the tracking URI has a password, nothing that it leaves has it."""
    home = tmp_path / "a b#c?d%20e;é'\"x"
    monkeypatch.setenv("EPOCHAL_HOME", str(home))
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (tmp_path / "job.yaml").write_text(
        "{version: 1, name: churn, model: {name: mlp}, data: {name: wine}, train: {epochs: 2}}"
    )
    command = [sys.executable, "-m", "epochal.cli.main", "run", str(tmp_path / "job.yaml"), "-o", "json"]
    done = subprocess.run(command, capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "SUCCEEDED"
    assert [one.name for one in tmp_path.iterdir() if one.is_dir()] == [home.name]
    assert b"s3cretPW" not in done.stdout + done.stderr
    assert not [path for path in home.rglob("*") if path.is_file() and b"s3cretPW" in path.read_bytes()]
    assert (home / "mlflow.db").exists() != bool(uri)
