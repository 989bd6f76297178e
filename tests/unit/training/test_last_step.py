"""What a training does at its last step, with parts of the data that are empty, and where it fails."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import played_pieces
import training_pieces as pieces
from epochal.catalog.data import Batch
from epochal.catalog.task import Loss
from epochal.errors import NonFiniteLossError, TrainingError
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.segment import RESUMED, WHOLE
from epochal.training.worker import Worker


def test_the_last_checkpoint_has_what_its_weights_were_measured_at(tmp_path: Path) -> None:
    """Its step is due for a checkpoint and not for a validation: it was saved before that, and was no candidate for
    the best."""
    job = pieces.spec(
        epochs=3, validate_every="2ep", checkpoint__every="1ep", checkpoint__keep={"latest": 5, "best": 1},
        objective__metric="val/loss", objective__mode="min",
    )  # fmt: skip
    result = fit(pieces.setup(job), Worker(), tmp_path, MemoryRecorder(), NullControl(), WHOLE)
    folder = tmp_path / checkpoint.FOLDER
    manifests = {step: checkpoint.read(folder / checkpoint.name_of(step)) for step in checkpoint.steps(folder)}
    assert {step: one.validated for step, one in manifests.items()} == {4: 0, 8: 8, 12: 12}
    assert manifests[12].metrics["val/loss"] == result.metrics["val/loss"]
    assert result.best == (result.metrics["val/loss"], 12)
    recorder = MemoryRecorder()
    again = fit(pieces.setup(job), Worker(), tmp_path, recorder, NullControl(), RESUMED)
    assert again.best == result.best
    assert "val/loss" not in recorder.history


def test_an_empty_part_of_the_data_is_as_none(tmp_path: Path) -> None:
    """What was called validation, and test, was of the training samples."""
    nothing = pieces.samples(0)
    setup = replace(pieces.setup(pieces.spec()), data=replace(pieces.data(), validation=nothing, test=nothing))
    recorder = MemoryRecorder()
    result = fit(setup, Worker(), tmp_path, recorder, NullControl(), WHOLE)
    assert set(result.metrics) == {"train/loss"}
    assert not [name for name in recorder.history if name.startswith(("val/", "test/"))]


@dataclass(frozen=True)
class Opened(played_pieces.Walks):
    """Counts its environments that are open."""

    counts: list[int] = None  # type: ignore[assignment]

    def make(self) -> Any:
        self.counts[0] += 1
        made = super().make()
        made.close = lambda: self.counts.__setitem__(0, self.counts[0] - 1)  # type: ignore[method-assign]
        return made


def test_what_the_data_has_open_is_closed_where_a_training_fails(tmp_path: Path) -> None:
    """At once, and not when the error is forgotten: a kept worker trains the next trial meanwhile."""
    counts = [0]
    job = pieces.spec(epochs=None, steps=40, global_batch_size=24, validate_every="20steps")
    setup = played_pieces.setup(job, "actor-critic", Opened(counts=counts))
    with torch.no_grad():
        next(setup.model.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteLossError) as failed:
        fit(setup, Worker(), tmp_path, MemoryRecorder(), NullControl(), WHOLE)
    assert counts == [0]
    assert failed.value.step == 1


class OfEachSample(pieces.Classification):
    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return super().loss(model, batch)._replace(total=model(batch["input"]).square().sum(1))


class OfPlainNumbers(pieces.Classification):
    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return super().loss(model, batch)._replace(logs={"length": 3.0, "width": torch.ones(())})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (OfEachSample(), "OfEachSample.loss gives total, and"),
        (OfPlainNumbers(), "OfPlainNumbers.loss gives length, and"),
    ],
)
def test_sums_that_are_no_scalars_are_told_as_such(tmp_path: Path, task: pieces.Classification, told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        fit(pieces.setup(pieces.spec(), task=task), Worker(), tmp_path, MemoryRecorder(), NullControl(), WHOLE)
