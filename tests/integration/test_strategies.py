"""What the strategies keep in memory, and what a task may do with the model under them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import training_pieces as pieces
from epochal.catalog.data import Batch
from epochal.catalog.task import Loss
from epochal.errors import TrainingError
from epochal.tracking.recorder import NullRecorder
from epochal.training import sharding
from epochal.training.control import NullControl
from epochal.training.fit import FitResult, fit
from epochal.training.parallel import DDP
from epochal.training.worker import Worker
from live_tensors import LiveTensors
from training_gang import GangError, TestGang

WIDTH, BLOCKS = 96, 8
BLOCK = WIDTH * WIDTH
"""The parameters of a block's matrix. On three workers no part of one, in any format, is as large as a whole one."""


def stack() -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)) for _ in range(BLOCKS)))


def whole_matrices(worker: Worker, precision: str, micro_batches: int) -> tuple[int, int, int]:
    """A step of an ``fsdp`` training: matrices alive as a whole, in any format, after the forward pass and between
    micro-batches, where nothing but shards should be; and the most at any time. Of ``BLOCKS`` there are."""
    strategy = sharding.FSDP(worker, pieces.spec(precision=precision).train, BLOCK)
    strategy.wrap(stack())
    sizes = {BLOCK * 2, BLOCK * 4}

    def whole(live: LiveTensors) -> int:
        return sum(size in sizes for size in live.sizes())

    with LiveTensors() as live:
        for _ in range(micro_batches):
            with strategy.accumulating(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = strategy.run(lambda: strategy.module(torch.randn(5, WIDTH)).square().sum())
            after_forward = whole(live)
            loss.backward()
            del loss
            between = whole(live)
    return after_forward, between, live.peak


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_fsdp_keeps_no_matrix_whole(gang: TestGang, precision: str, micro_batches: int) -> None:
    for after_forward, between, peak in gang.run(3, whole_matrices, precision, micro_batches):
        assert (after_forward, between) == (0, 0)
        shards = BLOCKS * BLOCK * 4 / 3
        width = 2 if precision == "bf16" else 4
        # What `epochal plan` counts for a step, over weights and gradients.
        assert peak < 2 * shards + (4 * width + 4) * BLOCK * 1.1


class Autoencoder(nn.Module):
    """Has no ``forward`` that a task would call; and a head that none uses, or every other step only."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pieces.FEATURES, 8), nn.Tanh())
        self.decoder = nn.Linear(8, pieces.CLASSES)
        self.spare = nn.Linear(8, pieces.CLASSES)


class ByParts(pieces.Classification):
    """Calls the model's parts by their names."""

    def loss(self, model: Any, batch: Batch) -> Loss:
        output = model.decoder(model.encoder(batch["input"]))
        return Loss(F.cross_entropy(output, batch["target"], reduction="sum"), None, output)


class Alternating(ByParts):
    """Uses the spare head in every other training step."""

    steps = 0

    def loss(self, model: Any, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        self.steps += model.training
        if model.training and self.steps % 2:
            spare = model.spare(model.encoder(batch["input"])).square().sum()
            return loss._replace(total=loss.total + spare)
        return loss


def fitted(worker: Worker, job: Any, folder: Path, task: type[pieces.Classification]) -> FitResult:
    return fit(pieces.setup(job, Autoencoder, task=task()), worker, folder, NullRecorder(), NullControl())


def weights_after(gang: TestGang, world_size: int, folder: Path, task: Any, **train: Any) -> dict[str, Tensor]:
    train.setdefault("resources__strategy", "ddp")
    job = pieces.spec(epochs=2, resources__workers=world_size, **train)
    results = gang.run(world_size, fitted, job, folder, task)
    return load_file(folder / results[0].weights)


def assert_same_weights(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    for name, value in others.items():
        torch.testing.assert_close(some[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_task_sees_the_users_module_and_may_leave_parts_of_it_out(
    gang: TestGang, tmp_path: Path, strategy: str, micro_batch_size: int | None
) -> None:
    """The part left out gets no gradient, and so no weight decay either: as on one worker."""
    alone = weights_after(gang, 1, tmp_path / "1", ByParts)
    changes = {"micro_batch_size": micro_batch_size, "resources__strategy": strategy}
    assert_same_weights(weights_after(gang, 2, tmp_path / "2", ByParts, **changes), alone)


def test_parts_that_are_left_out_in_some_steps_only_have_to_be_asked_for(gang: TestGang, tmp_path: Path) -> None:
    alone = weights_after(gang, 1, tmp_path / "1", Alternating)
    asked = weights_after(gang, 2, tmp_path / "2", Alternating, find_unused_parameters=True)
    assert_same_weights(asked, alone)
    with pytest.raises(GangError) as raised:
        weights_after(gang, 2, tmp_path / "3", Alternating)
    told = [error for error in raised.value.errors if isinstance(error, TrainingError)]
    assert told
    assert "find_unused_parameters" in (told[0].hint or "")


def looks(worker: Worker, build: Callable[[], nn.Module]) -> bool:
    strategy = DDP(worker, pieces.spec().train)
    strategy.wrap(build())
    strategy.run(lambda: F.linear(torch.ones(1, 8), next(strategy.module.parameters())).sum())
    return bool(strategy._replica.find_unused_parameters)


def one_matrix() -> nn.Module:
    return nn.Linear(8, 1, bias=False)


def a_matrix_and_a_bias() -> nn.Module:
    return nn.Linear(8, 1)


def test_models_that_use_all_of_their_parameters_are_not_slowed_down(gang: TestGang) -> None:
    assert gang.run(2, looks, one_matrix) == [False, False]
    assert gang.run(2, looks, a_matrix_and_a_bias) == [True, True]
