"""Plateaus, what tasks log, and gradient checkpointing, on one worker."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import training_pieces as pieces
from epochal.catalog.build import build_lr_schedule
from epochal.catalog.data import Batch
from epochal.catalog.task import Loss
from epochal.errors import SpecError, TrainingError
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.segment import RESUMED, WHOLE
from epochal.training.worker import Worker


def train(job: JobSpec, folder: Path, resume: bool = False, **changes: Any) -> dict[str, list[tuple[int, float]]]:
    recorder = MemoryRecorder()
    setup = pieces.setup(job, changes.pop("build", pieces.mlp), **changes)
    fit(setup, Worker(), folder, recorder, NullControl(), RESUMED if resume else WHOLE)
    return recorder.history


PLATEAU = {"name": "reduce_on_plateau", "metric": "val/loss", "mode": "min", "gamma": 0.5, "patience": 0}


def test_a_plateau_lowers_the_rate_and_is_remembered(tmp_path: Path) -> None:
    job = pieces.spec(epochs=5, lr_schedule=PLATEAU, checkpoint__every="10steps", checkpoint__keep={"latest": 9})
    changes: dict[str, Any] = {"task": pieces.AtTheAnswer(), "lr_factor": build_lr_schedule(job.train.lr_schedule)}
    unbroken = train(job, tmp_path, **changes)["train/lr"]
    assert [rate / 0.01 for _, rate in unbroken[::4]] == pytest.approx([1, 1, 0.5, 0.25, 0.125])
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000020")
    assert train(job, tmp_path, resume=True, **changes)["train/lr"] == unbroken[10:]


def test_a_plateau_of_a_metric_that_there_is_not_is_told(tmp_path: Path) -> None:
    job = pieces.spec(lr_schedule={**PLATEAU, "metric": "val/los"})
    with pytest.raises(TrainingError, match="gives no metric 'val/los'") as told:
        train(job, tmp_path, lr_factor=build_lr_schedule(job.train.lr_schedule))
    assert told.value.hint.startswith("did you mean 'val/loss'")


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_what_a_task_logs_is_shown_as_a_mean(tmp_path: Path, micro_batch_size: int | None) -> None:
    job = pieces.spec(micro_batch_size=micro_batch_size)
    plain = train(job, tmp_path / "plain")
    history = train(job, tmp_path / "counting", task=pieces.Counting())
    assert history["val/accuracy"] == plain["val/accuracy"]
    assert [share for _, share in history["val/right"]] == pytest.approx([share for _, share in plain["val/accuracy"]])
    assert history["train/loss"] == plain["train/loss"]
    assert [step for step, _ in history["train/right"]] == list(range(1, 9))
    assert all((8 * share).is_integer() for _, share in history["train/right"])


class Forgetful(pieces.Counting):
    """Logs nothing in a step whose first sample is of class 0."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss._replace(logs={}) if batch["target"][0] == 0 else loss


class Taken(pieces.Counting):
    name = "lr"


class Twice(pieces.Counting):
    name = "accuracy"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Forgetful, "the task logs .* for a batch, and for one before"),
        (Taken, "the task logs lr, which every training does"),
        (Twice, "the task logs accuracy, a metric of it too"),
    ],
)
def test_what_a_task_cannot_log_is_told(tmp_path: Path, task: type[pieces.Counting], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        train(pieces.spec(), tmp_path, task=task())


class Deep(nn.Module):
    """x: (batch, features): blocks whose activations are kept, or computed again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(pieces.FEATURES, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Dropout(0.2), nn.Linear(64, 16)) for _ in range(4)
        )
        self.last = nn.Linear(16, pieces.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


class Kept:
    """How many bytes autograd keeps of all forward passes."""

    bytes = 0

    def pack(self, tensor: Tensor) -> Tensor:
        self.bytes += tensor.nbytes
        return tensor


def test_gradient_checkpointing_keeps_less_and_changes_nothing(tmp_path: Path) -> None:
    histories, kept = [], []
    for number, chosen in enumerate((False, True)):
        job, held = pieces.spec(epochs=2, gradient_checkpointing=chosen), Kept()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda tensor: tensor):
            histories.append(train(job, tmp_path / str(number), build=Deep))
        kept.append(held.bytes)
    assert histories[0]["train/loss"] == histories[1]["train/loss"]
    assert kept[1] < 0.7 * kept[0]


def test_what_has_no_repeated_parts_cannot_be_recomputed(tmp_path: Path) -> None:
    job = pieces.spec(gradient_checkpointing=True)
    with pytest.raises(SpecError, match=r"train\.gradient_checkpointing"):
        train(job, tmp_path, build=partial(nn.Linear, pieces.FEATURES, pieces.CLASSES))
