"""A job's folder as a training would leave it, and the check that MLflow has exactly that."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from epochal.tracking.connection import connect
from epochal.tracking.desired_run import (
    CheckpointPointer,
    DatasetUsed,
    DesiredRun,
    artifacts_folder,
    flatten,
    model_folder,
    note_checkpoint,
    write_atomically,
)
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.model import save_model

PARAMS = flatten({"train": {"lr": 1e-3, "epochs": 5}, "many": {str(index): index for index in range(150)}, "none": ""})


def loss(step: int) -> float:
    return 1.0 / (step + 3)


def make_job(folder: Path, job_id: str, experiment: str = "tracked") -> Path:
    """The folder of a job that has just started."""
    job = folder / "jobs" / job_id
    record = DesiredRun(
        job_id=job_id,
        experiment=experiment,
        name=f"{job_id}-name",
        description="what it is *for*",
        params=PARAMS,
        tags={"team": "vision"},
        dataset=DatasetUsed("digits", "d" * 64, "scikit-learn"),
    )
    record.save(job)
    return job


def train(job: Path, first: int, last: int, attempt: int = 1) -> None:
    """Steps ``first`` to ``last`` of the training, the last one not included."""
    writer = MetricSpool(job, f"attempt-{attempt}-rank-0")
    for step in range(first, last):
        writer.log(step, {"train/loss": loss(step), "perf/step_seconds": 0.25})
        if step % 50 == 49:
            writer.log(step, {"val/loss": loss(step) / 2})
    writer.flush()


def finish(job: Path, status: str = "FINISHED") -> DesiredRun:
    """Everything that the end of a job leaves behind."""
    write_atomically(artifacts_folder(job) / "environment.json", "{}")
    write_atomically(artifacts_folder(job) / "deep/spec.yaml", "version: 1")
    (job / "checkpoints/step-50").mkdir(parents=True, exist_ok=True)
    note_checkpoint(job, CheckpointPointer(50, "checkpoints/step-50", "ab", {}, best=True))
    shutil.copytree(Path(_saved_model().name) / "model", model_folder(job))
    record = DesiredRun.load(job).changed(status=status, reason="COMPLETED", tags={"attempts": "2"})
    record.save(job)
    return record


@cache
def _saved_model() -> TemporaryDirectory[str]:
    """A model as it is packaged, in ``model``: tracing one takes a second."""
    folder = TemporaryDirectory()
    save_model(nn.Linear(4, 2), np.ones((2, 4), "float32"), Path(folder.name) / "model")
    return folder


def curve(client: Any, run_id: str, metric: str) -> list[tuple[int, float]]:
    history = client.get_metric_history(run_id, metric)
    return sorted((point.step, point.value) for point in history)


def assert_all_arrived_once(uri: str, job: Path, steps: int, status: str = "FINISHED") -> str:
    """MLflow has one run of the job with one curve, and every other thing once; returns its id."""
    client = connect(uri)
    record = DesiredRun.load(job)
    experiment = client.get_experiment_by_name(record.experiment)
    runs = client.search_runs([experiment.experiment_id], f"tags.`epochal.job_id` = '{record.job_id}'")
    assert len(runs) == 1
    run = client.get_run(runs[0].info.run_id)
    run_id = str(run.info.run_id)
    assert curve(client, run_id, "train/loss") == [(step, loss(step)) for step in range(steps)]
    assert curve(client, run_id, "val/loss") == [(step, loss(step) / 2) for step in range(49, steps, 50)]
    assert run.data.params == PARAMS
    assert record.all_tags().items() <= run.data.tags.items()
    assert run.info.status == status
    assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["digits"]
    assert {entry.path for entry in client.list_artifacts(run_id)} == {"environment.json", "deep", "checkpoints.json"}
    assert [entry.path for entry in client.list_artifacts(run_id, "deep")] == ["deep/spec.yaml"]
    models = client.search_logged_models([experiment.experiment_id], f"source_run_id = '{run_id}'")
    assert [model.status for model in models] == ["READY"]
    assert [output.model_id for output in run.outputs.model_outputs] == [models[0].model_id]
    return run_id
