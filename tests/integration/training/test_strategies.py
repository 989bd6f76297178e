"""What the strategies keep in memory, and what a task may do with the model under them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import suppress
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
from epochal.tracking.recorder import MemoryRecorder, NullRecorder
from epochal.training import sharding
from epochal.training.batch_norm import running_statistics
from epochal.training.control import NullControl
from epochal.training.fit import FitResult, fit
from epochal.training.parallel import DDP
from epochal.training.precision import Precision
from epochal.training.sampler import Sampler
from epochal.training.worker import Worker
from live_tensors import LiveTensors
from polling import until
from training_gang import GangError, TestGang

WIDTH, BLOCKS = 96, 8
BLOCK = WIDTH * WIDTH
"""The parameters of a block's matrix. On three workers no part of one, in any format, is as large as a whole one."""


def stack() -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)) for _ in range(BLOCKS)))


def whole_matrices(worker: Worker, precision: str, micro_batches: int) -> tuple[int, int, int]:
    """A step of an ``fsdp`` training: matrices alive as a whole, in any format, after the forward pass and between
    micro-batches, where nothing but shards should be; and the most at any time. Of ``BLOCKS`` there are."""
    spec = pieces.spec(precision=precision).train
    strategy = sharding.FSDP(worker, spec, BLOCK)
    strategy.wrap(stack())
    precise = Precision(spec.precision, worker.device, strategy.gradient_scale)
    sizes = {BLOCK * 2, BLOCK * 4}

    def whole(live: LiveTensors) -> int:
        # gloo's thread lets go of what it has sent a moment after whoever waited for it has gone on.
        def found() -> int:
            return sum(size in sizes for size in live.sizes())

        with suppress(AssertionError):
            until(lambda: not found(), "none is whole", seconds=10)
        return found()

    with LiveTensors() as live:
        for _ in range(micro_batches):
            with strategy.accumulating(), precise.forward():
                loss = strategy.run(lambda: strategy.module(torch.randn(1, WIDTH)).square().sum())
            after_forward = whole(live)
            loss.backward()
            del loss
            between = whole(live)
    return after_forward, between, live.peak


@pytest.mark.parametrize(
    ("precision", "micro_batches"),
    [
        pytest.param("fp32", 3, marks=pytest.mark.slow),
        pytest.param("bf16", 1, marks=pytest.mark.slow),
        ("bf16", 3),
        pytest.param("fp16", 3, marks=pytest.mark.slow),
    ],
)
def test_fsdp_keeps_no_matrix_whole(gang: TestGang, precision: str, micro_batches: int) -> None:
    for after_forward, between, peak in gang.run(3, whole_matrices, precision, micro_batches):
        assert (after_forward, between) == (0, 0)
        shards = BLOCKS * BLOCK * 4 / 3
        width = 4 if precision == "fp32" else 2
        # What `epochal plan` counts for a step, over weights and gradients.
        assert peak < 2 * shards + (4 * width + 6) * BLOCK


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


@pytest.mark.parametrize("micro_batch_size", [pytest.param(None, marks=pytest.mark.slow), 2])
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


def with_local_norms(worker: Worker, job: Any, folder: Path) -> tuple[FitResult, list[Tensor]]:
    # SGD: Adam takes full steps on gradients that are zero but for rounding, as that of a bias before a norm.
    made = pieces.setup(job, pieces.normed_cnn, data=pieces.data(size=32), optimizer=pieces.sgd)
    result = fit(made, worker, folder, NullRecorder(), NullControl())
    return result, [one.clone() for one in running_statistics(made.model)]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_local_batch_norms_agree_when_the_model_is_used(gang: TestGang, tmp_path: Path, strategy: str) -> None:
    """The gradient is that of two halves with statistics of their own; running statistics are their mean."""
    job = pieces.spec(epochs=2, batch_norm="local", resources__workers=2, resources__strategy=strategy)
    (result, mine), (other, theirs) = gang.run(2, with_local_norms, job, tmp_path)
    assert result == other
    assert all(torch.equal(one, another) for one, another in zip(mine, theirs, strict=True))

    torch.manual_seed(0)
    model, data = pieces.normed_cnn(), pieces.data(size=32).train
    halves = [model, copy.deepcopy(model)]
    optimizer, sampler = pieces.sgd(dict(model.named_parameters())), Sampler(32, 8, 0)
    for step in range(8):
        optimizer.param_groups[0]["lr"] = 0.1 * pieces.falling(step, 8)
        optimizer.zero_grad()
        halves[1].load_state_dict({**dict(halves[1].state_dict()), **dict(model.named_parameters())})
        halves[1].zero_grad()
        for rank, half in enumerate(halves):
            share = next(sampler.shares(rank, 2, step, step + 1))
            batch = data.fetch(share.indices)
            (F.cross_entropy(half(batch["input"]), batch["target"], reduction="sum") / 8).backward()
        for parameter, same in zip(model.parameters(), halves[1].parameters(), strict=True):
            parameter.grad += same.grad
        optimizer.step()
    expected = [sum(pair) / 2 for pair in zip(*map(running_statistics, halves), strict=True)]
    for one, mean in zip(mine, expected, strict=True):
        torch.testing.assert_close(one, mean, rtol=1e-3, atol=1e-5)
    weights = load_file(tmp_path / (result.weights or ""))
    for name, value in model.named_parameters():
        torch.testing.assert_close(weights[name], value.detach(), rtol=1e-3, atol=1e-4)


class Straggling(pieces.Classification):
    """Rank 1 takes longer for its forward pass: so long that it does on a busy machine, too."""

    def __init__(self, rank: int) -> None:
        self._seconds = 0.2 * (rank == 1)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        time.sleep(self._seconds)
        return super().loss(model, batch)


def steps_with_a_straggler(worker: Worker, folder: Path, strategy: str) -> dict[str, float]:
    """The newest ``perf/`` metrics."""
    job = pieces.spec(epochs=None, steps=10, resources__strategy=strategy)
    recorder = MemoryRecorder()
    fit(pieces.setup(job, task=Straggling(worker.rank)), worker, folder, recorder, NullControl())
    return {name: values[-1][1] for name, values in recorder.history.items() if name.startswith("perf/")}


def test_the_slow_rank_is_named_though_all_take_the_same_time_for_a_step(gang: TestGang, tmp_path: Path) -> None:
    first, *_ = gang.run(3, steps_with_a_straggler, tmp_path, "ddp")
    assert first["perf/slowest_rank"] == 1
    assert first["perf/slowest_rank_seconds"] >= 0.2
    assert first["perf/slowest_rank_seconds"] > 1.5 * first["perf/mean_rank_seconds"]
    assert first["perf/forward_backward_seconds"] >= 0.2, "rank 0 waits for it"


def test_nobody_is_called_slow_where_ranks_wait_for_each_other_in_the_forward_pass(
    gang: TestGang, tmp_path: Path
) -> None:
    first, *_ = gang.run(2, steps_with_a_straggler, tmp_path, "fsdp")
    assert "perf/slowest_rank" not in first
    assert first["perf/forward_backward_seconds"] > 0
