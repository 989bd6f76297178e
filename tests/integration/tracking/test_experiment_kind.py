"""Experiments are of the kind that MLflow shows runs of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tracked_job import make_job

from epochal.tracking.connection import connect
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.syncer import sync


@pytest.mark.parametrize("before", ["none", "untagged", "changed"])
def test_an_experiment_is_of_the_kind_whose_page_shows_runs(sqlite_uri: str, tmp_path: Path, before: str) -> None:
    job = make_job(tmp_path / "storage", "kind")
    client, name, kind = connect(sqlite_uri), f"kind, {before}", "mlflow.experimentKind"
    replace(DesiredRun.load(job), experiment=name).save(job)
    if before != "none":
        tags = {kind: "genai_development"} if before == "changed" else {}
        client.create_experiment(name, tags=tags)
    sync(sqlite_uri, job)
    expected = "genai_development" if before == "changed" else "custom_model_development"
    assert client.get_experiment_by_name(name).tags[kind] == expected
