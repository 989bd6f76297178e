"""The result does not depend on the number of workers, nor on the strategy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import clip_grad_norm_

import training_pieces as pieces
from epochal.catalog.build import build_optimizer
from epochal.catalog.index import entries
from epochal.spec.job import Optimizer
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint, sharding
from epochal.training.batch_norm import synchronise
from epochal.training.control import NullControl
from epochal.training.fit import FitResult, fit
from epochal.training.loader import Loader
from epochal.training.sampler import Sampler
from epochal.training.worker import Worker
from loader_pieces import Noisy
from training_gang import GangError, TestGang

GANGS = [(1, "ddp"), (2, "ddp"), (3, "ddp"), (2, "fsdp"), (3, "fsdp")]
TWO_ARE_SLOW = [pytest.param(*gang, marks=pytest.mark.slow) if gang[0] == 2 else gang for gang in GANGS]
"""For what two workers do as three do it."""
SHARDED = [gang if gang == (3, "fsdp") else pytest.param(*gang, marks=pytest.mark.slow) for gang in GANGS]
"""For what the strategies do in the same code."""
OPTIMIZERS = [entry.name for entry in entries("optimizer") if not entry.needs]
TELLING = ("adagrad", "adamw", "asgd")
"""A state that is there from the start, that of each element, and one of scalars."""


def plain_loop(job: Any, weighted: bool = False, **changes: Any) -> dict[str, Any]:
    """What a person would write for one process: no part of the training package but the order of the samples."""
    setup = pieces.setup(job, changes.pop("build", pieces.mlp), **changes)
    model, optimizer, train = setup.model, setup.optimizer(dict(setup.model.named_parameters())), setup.data.train
    peak = optimizer.param_groups[0]["lr"]
    sampler = Sampler(len(train), job.train.global_batch_size, job.train.seed)
    class_weights = pieces.WeightedClassification.weights if weighted else None
    total = job.train.steps or job.train.epochs * sampler.steps_per_epoch
    losses, norms = [], []
    for step in range(total):
        epoch, index = divmod(step, sampler.steps_per_epoch)
        rows = sampler.order(epoch)[index * job.train.global_batch_size :][: job.train.global_batch_size]
        batch = train.fetch(rows.tolist())
        optimizer.param_groups[0]["lr"] = peak * (1 - step / total)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch["input"]), batch["target"], weight=class_weights)
        loss.backward()
        if job.train.clip_grad_norm:
            norms.append(float(clip_grad_norm_(model.parameters(), job.train.clip_grad_norm)))
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    rows = setup.data.validation.fetch(range(len(setup.data.validation)))
    with torch.no_grad():
        output = model(rows["input"])
        accuracy = (output.argmax(1) == rows["target"]).float().mean().item()
        validation = nn.functional.cross_entropy(output, rows["target"], weight=class_weights).item()
    return {"losses": losses, "norms": norms, "val/loss": validation, "val/accuracy": accuracy, "model": model}


def fitted(worker: Worker, job: Any, folder: Path, changes: dict[str, Any]) -> tuple[FitResult, dict[str, list[Any]]]:
    sharding.BLOCK_PARAMETERS = 100  # blocks of the small models are sharded on their own too
    recorder = MemoryRecorder()
    changes = dict(changes)
    result = fit(
        pieces.setup(job, changes.pop("build", pieces.mlp), **changes), worker, folder, recorder, NullControl()
    )
    return result, recorder.history


def of_gang(
    gang: TestGang, world_size: int, strategy: str, job: Any, folder: Path, **changes: Any
) -> tuple[FitResult, dict[str, list[Any]]]:
    sharded = job.resources.model_copy(update={"strategy": strategy, "workers": world_size})
    results = gang.run(world_size, fitted, job.model_copy(update={"resources": sharded}), folder, changes)
    assert all(result == results[0][0] for result, _ in results), "the workers disagree"
    return results[0]


def assert_same(run: tuple[FitResult, dict[str, list[Any]]], expected: dict[str, Any], rel: float = 2e-5) -> None:
    result, history = run
    assert [value for _, value in history["train/loss"]] == pytest.approx(expected["losses"], rel=rel)
    assert [step for step, _ in history["train/loss"]] == list(range(1, len(expected["losses"]) + 1))
    if expected["norms"]:
        assert [value for _, value in history["train/grad_norm"]] == pytest.approx(expected["norms"], rel=10 * rel)
    assert result.metrics["val/loss"] == pytest.approx(expected["val/loss"], rel=rel)
    assert result.metrics["val/accuracy"] == pytest.approx(expected["val/accuracy"])


@pytest.mark.parametrize(("world_size", "strategy"), TWO_ARE_SLOW)
def test_equals_a_plain_loop(gang: TestGang, tmp_path: Path, world_size: int, strategy: str) -> None:
    """25 samples in batches of 8: 3 do not divide 8, and the last batch of an epoch has a single sample."""
    job = pieces.spec(epochs=3, clip_grad_norm=0.5)
    expected = plain_loop(job)
    run = of_gang(gang, world_size, strategy, job, tmp_path)
    assert_same(run, expected)
    weights = load_file(tmp_path / (run[0].weights or ""))
    for name, value in expected["model"].state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "name", [name if name in TELLING else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
)
def test_every_optimizer_steps_on_shards_as_on_whole_parameters(gang: TestGang, tmp_path: Path, name: str) -> None:
    job = pieces.spec(epochs=2)
    build = partial(build_optimizer, Optimizer(name=name, lr=0.01))
    run = of_gang(gang, 3, "fsdp", job, tmp_path, optimizer=build)
    assert_same(run, plain_loop(job, optimizer=build), rel=1e-4)


@pytest.mark.parametrize(("world_size", "strategy"), SHARDED)
def test_accumulates_to_the_same(gang: TestGang, tmp_path: Path, world_size: int, strategy: str) -> None:
    job = pieces.spec(epochs=2, micro_batch_size=2)
    assert_same(of_gang(gang, world_size, strategy, job, tmp_path), plain_loop(job))


@pytest.mark.parametrize(("world_size", "strategy"), SHARDED[2::2])
def test_what_a_task_logs(gang: TestGang, tmp_path: Path, world_size: int, strategy: str) -> None:
    job = pieces.spec(epochs=2, micro_batch_size=2)
    _, one = of_gang(gang, 1, strategy, job, tmp_path / "one", task=pieces.Counting())
    _, many = of_gang(gang, world_size, strategy, job, tmp_path / "many", task=pieces.Counting())
    for name in ("train/right", "val/right", "val/accuracy"):
        assert [share for _, share in many[name]] == pytest.approx([share for _, share in one[name]])


@pytest.mark.parametrize(("world_size", "strategy"), SHARDED)
def test_weights_that_only_a_worker_knows(gang: TestGang, tmp_path: Path, world_size: int, strategy: str) -> None:
    job = pieces.spec(epochs=2, micro_batch_size=2, clip_grad_norm=0.5)
    run = of_gang(gang, world_size, strategy, job, tmp_path, task=pieces.WeightedClassification())
    assert_same(run, plain_loop(job, weighted=True))


@pytest.mark.parametrize(("world_size", "strategy"), SHARDED[1:])
@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_a_number_is_what_a_batch_counts_for(
    gang: TestGang, tmp_path: Path, world_size: int, strategy: str, precision: str
) -> None:
    job = pieces.spec(epochs=2, micro_batch_size=2, clip_grad_norm=0.5, precision=precision)
    run = of_gang(gang, world_size, strategy, job, tmp_path, task=pieces.Tokens())
    if precision == "fp32":
        assert_same(run, plain_loop(job))
    assert [loss for _, loss in run[1]["train/loss"]] == pytest.approx(plain_loop(job)["losses"], rel=0.02)


@pytest.mark.parametrize(("world_size", "strategy"), TWO_ARE_SLOW)
@pytest.mark.parametrize(
    "build", [pytest.param(pieces.normed_mlp, marks=pytest.mark.slow), pieces.normed_cnn], ids=["1d", "2d"]
)
def test_batch_norm_is_that_of_the_global_batch(
    gang: TestGang, tmp_path: Path, world_size: int, strategy: str, build: Callable[[], nn.Module]
) -> None:
    """SGD: Adam takes full steps on gradients that are zero but for rounding, as that of a bias before a norm."""
    job = pieces.spec(epochs=2)
    changes = {"build": build, "data": pieces.data(size=29), "optimizer": pieces.sgd}
    assert_same(of_gang(gang, world_size, strategy, job, tmp_path, **changes), plain_loop(job, **changes), rel=1e-4)


@pytest.mark.parametrize(("world_size", "strategy"), TWO_ARE_SLOW)
def test_a_batch_norm_that_would_see_a_single_sample_is_refused_on_any_number_of_workers(
    gang: TestGang, tmp_path: Path, world_size: int, strategy: str
) -> None:
    with pytest.raises(GangError) as caught:
        of_gang(gang, world_size, strategy, pieces.spec(epochs=2), tmp_path, build=pieces.normed_mlp)
    assert {str(error).splitlines()[-1] for error in caught.value.errors} == {
        "  train.global_batch_size: leaves a batch of a single sample, which the batch norm 1 cannot normalise"
        " (leave more of 25 samples, or set train.drop_last)"
    }


def test_validation_of_fewer_samples_than_workers(gang: TestGang, tmp_path: Path) -> None:
    job = pieces.spec(epochs=1)
    few = pieces.data(validation=2)
    runs = [
        of_gang(gang, world_size, strategy, job, tmp_path / f"{world_size}{strategy}", data=few)
        for world_size, strategy in [(1, "ddp"), (3, "ddp"), (3, "fsdp")]
    ]
    for result, _ in runs[1:]:
        assert result.metrics == pytest.approx(runs[0][0].metrics, rel=1e-5)


def moments(worker: Worker, sizes: list[int], weight: bool) -> Any:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(sum(sizes), 4, 3, generator=generator) * 3 + 7
    start = sum(sizes[: worker.rank])
    mine = x[start : start + sizes[worker.rank]].clone().requires_grad_(True)
    norm = nn.BatchNorm1d(4, affine=weight)
    synchronise(norm, worker.device)
    output = norm(mine)
    (output.square() * torch.arange(1.0, 4.0)).sum().backward()
    parameters = [parameter.grad for parameter in norm.parameters()]
    return output.detach(), mine.grad, norm.state_dict(), parameters


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("sizes", [[4, 4, 4], [5, 1, 0], [1, 0, 0]])
def test_synchronised_batch_norm_has_the_gradient_of_torchs_own(gang: TestGang, sizes: list[int], weight: bool) -> None:
    x = (torch.randn(sum(sizes), 4, 3, generator=torch.Generator().manual_seed(5)) * 3 + 7).requires_grad_(True)
    norm = nn.BatchNorm1d(4, affine=weight)
    output = norm(x)
    (output.square() * torch.arange(1.0, 4.0)).sum().backward()
    outputs, gradients, states, parameters = zip(*gang.run(3, moments, sizes, weight), strict=True)
    torch.testing.assert_close(torch.cat(outputs), output.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(gradients), x.grad, rtol=1e-3, atol=1e-4)
    for state in states:
        torch.testing.assert_close(state, dict(norm.state_dict()), check_dtype=True)
    for ours, theirs in zip(zip(*parameters, strict=True), norm.parameters(), strict=True):
        torch.testing.assert_close(sum(ours), theirs.grad, rtol=1e-4, atol=1e-4)


def test_loader_processes_give_the_same(gang: TestGang, tmp_path: Path) -> None:
    job = pieces.spec(epochs=2)
    read_ahead = job.data.model_copy(update={"loader_workers": 1})
    run = of_gang(gang, 2, "ddp", job.model_copy(update={"data": read_ahead}), tmp_path)
    assert_same(run, plain_loop(job))


@pytest.mark.parametrize(("world_size", "strategy"), SHARDED[1:])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_is_close(
    gang: TestGang, tmp_path: Path, world_size: int, strategy: str, precision: str
) -> None:
    job = pieces.spec(epochs=3, precision=precision, clip_grad_norm=1.0)
    run = of_gang(gang, world_size, strategy, job, tmp_path)
    assert [loss for _, loss in run[1]["train/loss"]] == pytest.approx(plain_loop(job)["losses"], rel=0.02)


@pytest.mark.parametrize(("world_size", "strategy"), SHARDED)
def test_overflow_in_one_shard_leaves_the_step_out_everywhere(
    gang: TestGang, tmp_path: Path, world_size: int, strategy: str
) -> None:
    """The scale that all come down to, and the steps that are left out, are those of one process."""
    job = pieces.spec(epochs=3, precision="fp16")
    changes = {"task": pieces.Loud(), "optimizer": pieces.quiet_sgd}
    _, history = of_gang(gang, world_size, strategy, job, tmp_path, **changes)
    _, alone = of_gang(gang, 1, "ddp", job, tmp_path / "alone", **changes)
    assert [loss for _, loss in history["train/loss"]] == pytest.approx(
        [loss for _, loss in alone["train/loss"]], rel=2e-3
    )
    scales = [
        checkpoint.read(folder / "checkpoints" / "step-00000012").state["precision"]["scale"]
        for folder in (tmp_path, tmp_path / "alone")
    ]
    assert scales[0] == scales[1] < 65536


def test_loader_processes_draw_the_same_wherever_a_training_resumes() -> None:
    sampler, loader = Sampler(25, 8, 0), Loader(Noisy(), torch.device("cpu"), workers=1, seed=1)
    whole = [loaded.batch["noise"] for loaded in loader.train(sampler.shares(1, 2, 0, 8), 1)]
    rest = [loaded.batch["noise"] for loaded in loader.train(sampler.shares(1, 2, 5, 8), 1)]
    assert [len(batch) for batch in whole] == [4, 4, 4, 0, 4, 4, 4, 0]
    torch.testing.assert_close(whole[5:], rest)


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "strategy"), [(2, "ddp"), (2, "fsdp")])
def test_compiled_is_the_same(gang: TestGang, tmp_path: Path, world_size: int, strategy: str) -> None:
    job = pieces.spec(epochs=2, compile=True, micro_batch_size=2)
    assert_same(of_gang(gang, world_size, strategy, job, tmp_path), plain_loop(job), rel=1e-4)
