"""Optimizers with a state of their own kind, on one worker."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import training_pieces as pieces
from epochal.catalog.build import build_optimizer
from epochal.spec.job import JobSpec, Optimizer
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.segment import RESUMED, WHOLE
from epochal.training.worker import Worker

LBFGS: dict[str, Any] = {"name": "lbfgs", "lr": 0.5, "max_iter": 3, "history_size": 2}


def train(job: JobSpec, folder: Path, choice: dict[str, Any], resume: bool = False) -> list[tuple[int, float]]:
    recorder, build = MemoryRecorder(), partial(build_optimizer, Optimizer(**choice))
    setup = pieces.setup(job, pieces.dropping_mlp, optimizer=build)
    fit(setup, Worker(), folder, recorder, NullControl(), RESUMED if resume else WHOLE)
    return recorder.history["train/loss"]


@pytest.mark.parametrize("choice", [LBFGS, {"name": "muon", "lr": 0.02}], ids=lambda choice: choice["name"])
def test_a_checkpoint_holds_all_of_its_state(tmp_path: Path, choice: dict[str, Any]) -> None:
    job = pieces.spec(epochs=5, checkpoint__every="10steps", checkpoint__keep={"latest": 9}, micro_batch_size=5)
    unbroken = train(job, tmp_path, choice)
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000020")
    assert train(job, tmp_path, choice, resume=True) == unbroken[10:]


def test_a_step_goes_over_its_batch_several_times(tmp_path: Path) -> None:
    """As torch's own does with the mean loss of the batch."""
    job = pieces.spec(epochs=4, global_batch_size=25, micro_batch_size=10)
    recorder = MemoryRecorder()
    setup = partial(pieces.setup, job, lr_factor=lambda step, total, seen=(): 1.0)
    build = partial(build_optimizer, Optimizer(**LBFGS))
    fit(setup(optimizer=build), Worker(), tmp_path, recorder, NullControl())
    plain = setup()
    optimizer = torch.optim.LBFGS(plain.model.parameters(), 0.5, 3, history_size=2, line_search_fn="strong_wolfe")
    batch = plain.data.train.fetch(range(25))

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = nn.functional.cross_entropy(plain.model(batch["input"]), batch["target"])
        found.backward()
        return found

    losses = [float(optimizer.step(loss).detach()) for _ in range(4)]
    assert [value for _, value in recorder.history["train/loss"]] == pytest.approx(losses, rel=1e-3)
    assert losses[-1] < 0.7 * losses[0]
