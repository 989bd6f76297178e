"""Files that are never sent to MLflow, and are told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from epochal.tracking.sync_model import why_not_sent
from epochal.tracking.sync_state import SyncState


def client(store: str) -> SimpleNamespace:
    return SimpleNamespace(get_run=lambda run_id: SimpleNamespace(info=SimpleNamespace(artifact_uri=store)))


@pytest.mark.parametrize("name", ["a#b.png", "deep/a?b.png", "%41b.png"])
def test_a_name_that_an_address_would_change(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    for store in ("mlflow-artifacts:/1/r/artifacts", "https://mlflow/api/2.0/mlflow-artifacts/artifacts"):
        assert "under another name" in why_not_sent(client(store), SyncState(), path, name, tmp_path)
    for store in ("/srv/artifacts", "file:///srv/artifacts", "s3://bucket/1"):
        assert why_not_sent(client(store), SyncState(), path, name, tmp_path) == ""


@pytest.mark.parametrize("name", ["100%.png", "é [1] +.png"])
def test_other_odd_names_are_sent(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert why_not_sent(client("mlflow-artifacts:/1"), SyncState(), tmp_path / name, name, tmp_path) == ""


def test_links(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    for name, to in (("out", "/etc/hostname"), ("gone", "removed"), ("itself", "itself"), ("fine", "there")):
        (folder / name).symlink_to(to)
    (folder / "there").touch()
    told = {path.name: why_not_sent(None, SyncState(), path, path.name, folder) for path in folder.iterdir()}
    assert told == {
        "out": "it is a link out of the jobs' folders, and is not followed",
        "gone": "it is a link that leads nowhere",
        "itself": "it is a link that leads nowhere",
        "fine": "",
        "there": "",
    }
