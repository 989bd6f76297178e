"""MLflow down for the whole training: the job does not notice, and everything arrives once it is back."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from foreground import SHORT_JOB, STEPS, Curve, Foreground, epochal, history, run_status

from epochal.tracking.server import TrackingServer
from epochal.urls import free_port


@pytest.mark.slow
def test_everything_arrives_once_when_mlflow_comes_back(tmp_path: Path, unbroken: Curve) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    job = Foreground.start(tmp_path, *SHORT_JOB, MLFLOW_TRACKING_URI=uri).finish()
    assert (job["exit"], job["state"], job["run_id"]) == (0, "SUCCEEDED", ""), job
    assert job["unsent"]

    with TrackingServer(f"sqlite:///{tmp_path / 'server.db'}", "127.0.0.1", port, tmp_path / "server.log"):
        sent = epochal(tmp_path, "runs", "sync", "-o", "json", MLFLOW_TRACKING_URI=uri)
        assert sent.returncode == 0, sent.stderr
        run = {"tracking_uri": uri, "run_id": json.loads(sent.stdout)[0]["run"]}
        assert run_status(run) == "FINISHED"
        assert history(uri, run["run_id"]) == unbroken
        accuracy = history(uri, run["run_id"], "val/accuracy")
        assert max(Counter(step for step, _ in accuracy).values()) == 1
        assert accuracy[-1][0] == STEPS
