"""Means of weights, against torch's own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

import training_pieces as pieces
from epochal.catalog.data import Batch
from epochal.catalog.task import Loss
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import weights
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.segment import RESUMED
from epochal.training.worker import Worker

KINDS: dict[str, tuple[dict[str, Any], int, Any]] = {
    "ema": ({"kind": "ema", "decay": 0.8}, 0, get_ema_multi_avg_fn(0.8)),
    "swa": ({"kind": "swa", "start": 0.5}, 6, get_swa_multi_avg_fn()),
    "late ema": ({"kind": "ema", "decay": 0.8, "start": 4}, 4, get_ema_multi_avg_fn(0.8)),
}


class Watching(pieces.Classification):
    """Gives torch's mean the weights that a step begins with: those after the step before."""

    def __init__(self, start: int, average: Any) -> None:
        self.start, self.average, self.steps = start, average, 0
        self.means: AveragedModel | None = None

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        if model.training:
            self.look(model)
            self.steps += 1
        return super().loss(model, batch)

    def look(self, model: nn.Module) -> None:
        if self.steps > self.start:
            if self.means is None:
                self.means = AveragedModel(model, multi_avg_fn=self.average)
            self.means.update_parameters(model)


def trained(job: JobSpec, folder: Path, **changes: Any) -> dict[str, list[tuple[int, float]]]:
    recorder = MemoryRecorder()
    fit(pieces.setup(job, **changes), Worker(), folder, recorder, NullControl(), RESUMED)
    return recorder.history


def assert_near(found: Mapping[str, Tensor], expected: nn.Module) -> None:
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_means_are_torchs_and_what_is_validated(tmp_path: Path, kind: str) -> None:
    average, start, function = KINDS[kind]
    task = Watching(start, function)
    history = trained(pieces.spec(epochs=3, average=average), tmp_path, task=task)
    last = pieces.mlp()
    last.load_state_dict(load_file(tmp_path / weights.LAST))
    task.look(last)
    means = load_file(tmp_path / weights.FILE)
    assert task.means is not None
    assert_near(means, task.means.module)
    plain = trained(pieces.spec(epochs=3), tmp_path / "plain")
    assert history["train/loss"] == plain["train/loss"]
    assert_near(load_file(tmp_path / "plain" / weights.FILE), last)
    model = pieces.mlp()
    model.load_state_dict(means)
    held_out = pieces.data().validation
    assert held_out is not None
    rows = held_out.fetch(range(len(held_out)))
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model.eval()(rows["input"]), rows["target"]).item()
    assert history["val/loss"][-1][1] == pytest.approx(loss, rel=1e-5)
    assert history["val/loss"][-1][1] != plain["val/loss"][-1][1]


@pytest.mark.parametrize("kind", KINDS)
def test_they_go_on_exactly(tmp_path: Path, kind: str) -> None:
    job = pieces.spec(epochs=3, average=KINDS[kind][0], checkpoint__every="5steps", checkpoint__keep={"latest": 9})
    unbroken = trained(job, tmp_path)
    means = load_file(tmp_path / weights.FILE)
    (tmp_path / weights.FILE).unlink()
    for step in (10, 12):
        shutil.rmtree(tmp_path / "checkpoints" / f"step-{step:08d}", ignore_errors=True)
    assert trained(job, tmp_path)["val/loss"] == unbroken["val/loss"][1:]
    assert all(torch.equal(value, means[name]) for name, value in load_file(tmp_path / weights.FILE).items())


def test_who_starts_from_a_checkpoint_starts_from_its_means(tmp_path: Path) -> None:
    trained(pieces.spec(epochs=3, average={"decay": 0.8}), tmp_path)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    found, means = weights.read(checkpoint), load_file(tmp_path / weights.FILE)
    assert found.keys() == means.keys()
    assert all(torch.equal(value, means[name]) for name, value in found.items())


def test_a_fraction_leaves_the_last_step_at_least(tmp_path: Path) -> None:
    trained(pieces.spec(epochs=3, average={"start": 0.99}), tmp_path)
    assert (tmp_path / weights.LAST).exists()
