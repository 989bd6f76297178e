"""Validations in which a worker alone comes to nothing: the numbers are those of one worker, and nobody waits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torchmetrics
from torch import Tensor

import training_pieces as pieces
from epochal.catalog.data import Batch, SampleSplit
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.worker import Worker
from training_gang import TestGang

HELD = pieces.samples(4, 1).tensors


def read(index: int) -> Batch:
    """The last of them, and so all that the second of two workers has, cannot be read."""
    if index >= 2:
        raise OSError(f"no file {index}")
    return {name: tensor[index] for name, tensor in HELD.items()}


class Logging(pieces.Classification):
    """Logs beside its loss, and has metrics that keep their samples."""

    def loss(self, model: Any, batch: Batch) -> Any:
        loss = super().loss(model, batch)
        return loss._replace(logs={"right": (loss.outputs.argmax(1) == batch["target"]).sum()})


class FailsThere(torchmetrics.MeanMetric):
    """Its value cannot be had on the second worker."""

    def update(self, outputs: Tensor, target: Tensor) -> None:
        super().update(outputs.mean())

    def compute(self) -> Tensor:
        if dist.is_initialized() and dist.get_rank() == 1:
            raise ValueError("not here")
        return super().compute()


class Failing(pieces.Classification):
    def metrics(self) -> torchmetrics.MetricCollection:
        return torchmetrics.MetricCollection({"fails": FailsThere(), **super().metrics()})


def trained(worker: Worker, task: Any, skips: bool, folder: Path) -> dict[str, float]:
    job = pieces.spec(epochs=1, resources__workers=worker.world_size)
    data = pieces.data()
    if skips:
        job = job.model_copy(update={"data": job.data.model_copy(update={"on_error": "skip"})})
        data = replace(data, validation=SampleSplit(4, read))
    torch.set_num_threads(1)
    return fit(pieces.setup(job, task=task, data=data), worker, folder, MemoryRecorder(), NullControl()).metrics


def test_a_worker_of_whose_samples_none_can_be_read(gang: TestGang, tmp_path: Path) -> None:
    alone = gang.run(1, trained, Logging(), True, tmp_path / "1")[0]
    assert {"val/loss", "val/right", "val/accuracy", "val/auroc"} <= alone.keys()
    both = gang.run(2, trained, Logging(), True, tmp_path / "2")
    assert both[0] == both[1] == pytest.approx(alone, rel=1e-5)


def test_a_metric_whose_value_one_worker_cannot_compute(gang: TestGang, tmp_path: Path) -> None:
    first, second = gang.run(2, trained, Failing(), False, tmp_path)
    assert first == second
    assert "val/fails" not in first
    assert "val/accuracy" in first
