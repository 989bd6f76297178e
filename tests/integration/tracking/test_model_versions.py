"""MLflow's model registry, on a real server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tracked_job import finish, make_job, train

from epochal.errors import ConflictError, UsageError
from epochal.tracking.connection import connect
from epochal.tracking.model_versions import register
from epochal.tracking.runs import get_run
from epochal.tracking.syncer import sync


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.slow), "server"])
def uri(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_uri"))
    return str(request.getfixturevalue("shared_mlflow_server").url)


def test_a_runs_model_is_registered_once_and_has_the_alias(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    jobs = [make_job(tmp_path / "storage", name) for name in ("registered-first", "registered-later")]
    for one in jobs:
        train(one, 0, 10)
        finish(one)
        sync(uri, one)
    runs = [get_run(uri, one.name) for one in jobs]
    assert [register(uri, run, "registered") for run in (runs[0], runs[0], runs[1])] == ["1", "1", "2"]
    named = connect(uri).get_model_version_by_alias("registered", "best")
    assert (str(named.version), named.run_id, named.tags["epochal.model_id"]) == ("2", runs[1].id, runs[1].models[0])
    assert register(uri, runs[0], "registered") == "1"
    assert connect(uri).get_model_version_by_alias("registered", "best").version in (1, "1")
    assert not (tmp_path / "mlflow.db").exists(), "MLflow's own default"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert mlflow.pytorch.load_model("models:/registered@best")(torch.ones(3, 4)).shape == (3, 2)
    with pytest.raises(ConflictError, match="has no model"):
        register(uri, replace(runs[0], models=()), "registered")
    with pytest.raises(UsageError, match="does not accept"):
        register(uri, runs[0], "registered", "v7")
