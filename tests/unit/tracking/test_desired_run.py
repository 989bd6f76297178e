"""The desired run: what MLflow should have, in keys and lengths that it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from epochal.errors import NotFoundError
from epochal.spec.job import JobSpec
from epochal.tracking.desired_run import (
    CheckpointPointer,
    DatasetUsed,
    DesiredRun,
    artifacts_folder,
    clean_key,
    flatten,
    note_checkpoint,
    params_of,
)

SPEC = {
    "version": 1,
    "name": "digits-cnn",
    "description": "a test",
    "tags": {"team": "vision"},
    "model": {"name": "cnn", "params": {"channels": [32, 64]}},
    "data": {"name": "digits"},
    "train": {"epochs": 5, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
    "objective": {"metric": "val/accuracy", "mode": "max"},
    "env": {"SOME_SETTING": "1"},
}


def record(**fields: object) -> DesiredRun:
    return DesiredRun(**{"job_id": "j1", "experiment": "digits", "name": "cnn", "start_time": 1.0, **fields})  # type: ignore[arg-type]


def test_a_spec_becomes_params_and_tags() -> None:
    made = DesiredRun.of("j1", JobSpec.model_validate(SPEC))
    assert (made.experiment, made.name, made.description, made.status) == (
        "digits-cnn",
        "digits-cnn",
        "a test",
        "RUNNING",
    )
    assert made.params["model.params.channels"] == "[32, 64]"
    assert made.params["train.optimizer.momentum"] == "0.9"
    assert made.params["objective.metric"] == "val/accuracy"
    assert not [name for name in made.params if name.startswith(("env", "tags", "name", "description"))]
    assert made.all_tags()["team"] == "vision"
    assert made.all_tags()["epochal.job_id"] == "j1"


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    made = record(dataset=DatasetUsed("digits", "d" * 64, "scikit-learn"), params={"a": "1"}, tags={"b": "2"})
    made.save(tmp_path)
    assert DesiredRun.load(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_record_of_a_newer_version_is_read(tmp_path: Path) -> None:
    record().save(tmp_path)
    stored = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**stored, "new_field": 1}))
    assert DesiredRun.load(tmp_path) == record()


def test_no_record_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        DesiredRun.load(tmp_path)


def test_status_sets_and_clears_the_end() -> None:
    failed = record().changed(status="FAILED", reason="OUT_OF_MEMORY", tags={"attempts": "1"})
    assert failed.end_time is not None
    resumed = failed.changed(status="RUNNING", tags={"world_size": "2"})
    assert (resumed.end_time, resumed.reason, resumed.tags) == (None, "", {"attempts": "1", "world_size": "2"})


def test_flatten_writes_values_as_text() -> None:
    tree = {"a": {"b": 1e-3, "c": None, "d": True, "e": {}, "f": []}, "g": "text"}
    assert flatten(tree) == {"a.b": "0.001", "a.c": "null", "a.d": "true", "a.e": "{}", "a.f": "[]", "g": "text"}
    assert params_of({"version": 1, "sweep": None, "train": {"epochs": 1}}) == {"train.epochs": "1"}


def test_long_and_odd_keys_are_cut_to_different_ones() -> None:
    long = [clean_key("x" * 300 + str(index)) for index in range(2)]
    assert long[0] != long[1]
    assert {len(key) for key in long} == {250}
    assert clean_key("a:b\n(c)") == "a_b__c_"
    assert len(record(params={"p": "x" * 9000}).all_params()["p"]) == 6000
    assert record(description="x" * 9000).all_tags()["mlflow.note.content"] == f"{'x' * 4999}…"
    assert record(description="x" * 5000).all_tags()["mlflow.note.content"] == "x" * 5000


def test_checkpoints_are_pointers_to_what_is_there(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        (tmp_path / f"checkpoints/step-{step}").mkdir(parents=True)
    note_checkpoint(tmp_path, CheckpointPointer(10, "checkpoints/step-10", "aa", {"val/loss": 1.0}, best=True))
    note_checkpoint(tmp_path, CheckpointPointer(20, "checkpoints/step-20", "bb", {"val/loss": 0.5}, best=True))
    (tmp_path / "checkpoints/step-10").rmdir()
    note_checkpoint(tmp_path, CheckpointPointer(30, "checkpoints/step-30", "cc"))
    stored = json.loads((artifacts_folder(tmp_path) / "checkpoints.json").read_text())
    assert stored["folder"] == str(tmp_path)
    assert [(entry["step"], entry["digest"], entry["best"]) for entry in stored["checkpoints"]] == [
        (20, "bb", True),
        (30, "cc", False),
    ]


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"checkpoints": [{}]}'])
def test_a_damaged_list_of_checkpoints_is_written_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = artifacts_folder(tmp_path) / "checkpoints.json"
    path.parent.mkdir()
    path.write_text(damage)
    (tmp_path / "checkpoints/step-10").mkdir(parents=True)
    note_checkpoint(tmp_path, CheckpointPointer(10, "checkpoints/step-10", "aa"))
    assert [entry["step"] for entry in json.loads(path.read_text())["checkpoints"]] == [10]
    assert f"{path} cannot be read and is written anew" in caplog.text
