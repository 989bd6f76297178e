"""What makes a result depend on the number of workers is found by name, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dependent_models as models
import training_pieces as pieces
from epochal.catalog.data import Batch, DataInfo, Field, LoadedData, SampleSplit
from epochal.catalog.task import Loss, Task
from epochal.errors import CodeError, SpecError
from epochal.spec.job import JobSpec, Train
from epochal.training.batch_norm import CpuSyncBatchNorm, synchronise
from epochal.training.parallel import DDP, Many
from epochal.training.plan import plan
from epochal.training.setup import prepare
from epochal.training.sharding import FSDP
from epochal.training.shares import Habits, observe, problems, refuse_dependent
from epochal.training.worker import Worker

PLAIN = pieces.Classification
NOT_THE_SUM = "the loss of {} for four samples is not the sum of those for two and two"


def habits(model: Callable[[], nn.Module], task: Callable[[], Task] = PLAIN) -> Habits:
    return observe(lambda: (model(), task()), pieces.samples(4).tensors)


@pytest.mark.parametrize(
    ("model", "task", "found"),
    [
        (models.Plain, PLAIN, Habits()),
        (models.Unused, PLAIN, Habits()),
        (models.Plain, pieces.WeightedClassification, Habits()),
        (models.Plain, pieces.Tokens, Habits()),
        (models.Plain, models.Ignoring, Habits()),
        (pieces.dropping_mlp, PLAIN, Habits()),
        (pieces.normed_cnn, PLAIN, Habits()),
        (models.FunctionalDropout, PLAIN, Habits()),
        (models.Counter, PLAIN, Habits(counted=("passes",))),
        (
            models.SpectralNorm,
            PLAIN,
            Habits(counted=("first.parametrizations.weight.0._u", "first.parametrizations.weight.0._v")),
        ),
        (models.OwnStatistics, PLAIN, Habits(sampled=("mean",))),
        (models.MemoryBank, PLAIN, Habits(sampled=("bank",))),
        (models.FunctionalNorm, PLAIN, Habits(sampled=("mean", "var"))),
        (models.InstanceNorm, PLAIN, Habits(sampled=("norm.running_mean", "norm.running_var"))),
        (models.ActNorm, PLAIN, Habits(sampled=("scale",))),
        (models.LayerDrop, PLAIN, Habits(sometimes=("middle.weight", "middle.bias"))),
        (models.EveryThird, PLAIN, Habits(counted=("steps",))),
        (
            models.OwnNormalisation,
            PLAIN,
            Habits(mixing="what centred (Centred) gives for a sample depends on the others of its batch"),
        ),
        (models.Plain, models.Mean, Habits(mixing=NOT_THE_SUM.format("Mean"))),
        (models.Plain, models.Contrastive, Habits(mixing=NOT_THE_SUM.format("Contrastive"))),
        (models.Plain, models.MeanWeight, Habits(mixing=NOT_THE_SUM.format("MeanWeight"))),
    ],
)  # fmt: skip
def test_habits(model: Callable[[], nn.Module], task: Callable[[], Task], found: Habits) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    seen = habits(model, task)
    assert seen == found
    assert torch.equal(torch.get_rng_state(), before)


EVERYTHING = Habits(mixing="a mixes", sampled=("bank",), counted=("passes",), sometimes=("middle.weight",))


@pytest.mark.parametrize(
    ("job", "found", "paths"),
    [
        (pieces.spec(resources__workers=2), Habits(), []),
        (pieces.spec(resources__workers=2), Habits(mixing="a mixes"), ["resources.workers"]),
        (pieces.spec(micro_batch_size=2), Habits(mixing="a mixes"), ["train.micro_batch_size"]),
        (pieces.spec(resources__workers=2), Habits(sampled=("bank",)), ["resources.workers"]),
        (pieces.spec(micro_batch_size=2), Habits(sampled=("bank",)), []),
        (pieces.spec(resources__workers=2, varying_buffers=["ba*"]), Habits(sampled=("bank",)), []),
        (pieces.spec(resources__workers=2), Habits(counted=("passes",)), []),
        (
            pieces.spec(resources__workers=2, micro_batch_size=2),
            Habits(counted=("passes",)),
            ["train.micro_batch_size"],
        ),
        (pieces.spec(resources__workers=2, micro_batch_size=4), Habits(counted=("passes",)), []),
        (
            pieces.spec(resources__workers={"min": 1, "max": 2}, micro_batch_size=4),
            Habits(counted=("passes",)),
            ["train.micro_batch_size"],
        ),
        (pieces.spec(micro_batch_size=2, varying_buffers=["passes"]), Habits(counted=("passes",)), []),
        (pieces.spec(), Habits(sometimes=("a",)), []),
        (pieces.spec(resources__workers=3), Habits(sometimes=("a",)), ["train.find_unused_parameters"]),
        (pieces.spec(resources__workers=3, find_unused_parameters=True), Habits(sometimes=("a",)), []),
        (
            pieces.spec(resources__workers=3, resources__strategy="fsdp"),
            Habits(sometimes=("a",)),
            ["resources.strategy"],
        ),
        (
            pieces.spec(resources__workers=3, micro_batch_size=1),
            EVERYTHING,
            ["resources.workers", "resources.workers", "train.micro_batch_size", "train.find_unused_parameters"],
        ),
    ],
)
def test_what_is_refused(job: JobSpec, found: Habits, paths: list[str]) -> None:
    resources, train = job.resources, job.train
    counts = range(resources.min_workers, resources.max_workers + 1)
    split = any((train.micro_batch_size or 8) * count < 8 for count in counts)
    told = list(problems(found, job, split))
    assert [problem.path for problem in told] == paths
    assert all(problem.hint for problem in told)


NETS = """
import torch
from torch import nn
import dependent_models as models

def net(info, kind):
    if kind == "norm":
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    if kind == "activated":
        return nn.Sequential(nn.Linear(6, 8), models.Activated(8), nn.Linear(8, 3))
    if kind == "lazy":
        return nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 3))
    model = models.Plain() if kind in ("scalar", "double", "turned") else getattr(models, kind)()
    if kind == "scalar":
        model.scale = nn.Parameter(torch.tensor(1.0))
    if kind == "double":
        model.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))
    if kind == "turned":
        model.first.weight = nn.Parameter(torch.ones(6, 16).t())
    return model
"""


def job(kind: str, resources: dict[str, Any] | None = None, **train: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "version": 1,
            "name": "j",
            "model": {"name": "shares_nets:net", "params": {"kind": kind}},
            "data": {"name": "npz", "params": {"path": "t.npz", "validation": 0}},
            "train": {"epochs": 1, "global_batch_size": 8, **train},
            "resources": resources or {},
        }
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """26 samples: three batches of 8, and one of 2."""
    (tmp_path / "shares_nets.py").write_text(NETS)
    data = pieces.samples(26).tensors
    np.savez(tmp_path / "t.npz", x=data["input"].numpy(), y=data["target"].numpy())
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


TWO: dict[str, Any] = {"workers": 2}
SHARDED = {**TWO, "strategy": "fsdp"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (job("OwnStatistics", TWO), "resources.workers: a forward pass writes mean from the samples of its own worker"),
        (job("MemoryBank", {"workers": {"min": 1, "max": 3}}), "a forward pass writes bank from the samples"),
        (job("InstanceNorm", TWO), "a forward pass writes norm.running_mean, norm.running_var from the samples"),
        (job("OwnNormalisation", TWO), r"what centred \(Centred\) gives for a sample depends on"),
        (job("OwnNormalisation", micro_batch_size=2), "micro_batch_size: shares each batch out, and what centred"),
        (job("Counter", micro_batch_size=2), "each forward pass changes passes, and how many a step takes"),
        (job("LayerDrop", TWO), "middle.weight, middle.bias get a gradient from some forward passes only"),
    ],
)  # fmt: skip
def test_plan_and_workers_refuse_alike(folder: Path, spec: JobSpec, message: str) -> None:
    with pytest.raises(SpecError, match=message) as planned:
        plan(spec, folder)
    with pytest.raises(SpecError) as started:
        prepare(spec, folder)
    assert planned.value.problems == started.value.problems


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (job("norm", micro_batch_size=4), "splits the batch that the batch norm 1 normalises"),
        (job("norm", {"workers": {"min": 1, "max": 2}}, micro_batch_size=4), "splits the batch that the batch norm 1"),
        (job("norm", {"workers": {"min": 2, "max": 3}}, batch_norm="local"), "no sample for the batch norm 1"),
        (job("norm", TWO, batch_norm="local"), "a single sample, which the batch norm 1 cannot normalise"),
        (job("activated", TWO), "train.batch_norm: cannot take the statistics of 1 over all workers: Activated has"),
        (job("norm", global_batch_size=25), "a single sample, which the batch norm 1 cannot normalise"),
        (job("scalar", SHARDED), "resources.strategy: cannot shard scale, a scalar"),
        (job("double", SHARDED), "cannot shard scale, of torch.float64 beside torch.float32"),
        (job("turned", SHARDED), "cannot shard first.weight, which is not contiguous"),
    ],
)
def test_plan_refuses_what_batch_norms_and_fsdp_cannot_do(folder: Path, spec: JobSpec, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan(spec, folder)


@pytest.mark.parametrize(
    "spec",
    [
        job("norm", TWO),
        job("activated"),
        job("activated", {"workers": 2}, batch_norm="local", global_batch_size=7),
        job("norm", micro_batch_size=4, batch_norm="local"),
        job("norm", {"workers": 2}, micro_batch_size=4),
        job("OwnStatistics"),
        job("OwnStatistics", TWO, varying_buffers=["mean"]),
        job("Counter", TWO),
        job("LayerDrop", TWO, find_unused_parameters=True),
        job("Unused", TWO),
    ],
)
def test_what_does_not_depend_on_workers_or_is_asked_for_is_planned(folder: Path, spec: JobSpec) -> None:
    assert plan(spec, folder).steps_per_epoch == 4
    prepare(spec, folder)


def test_a_model_that_waits_for_its_first_batch_is_refused_on_any_number_of_workers(folder: Path) -> None:
    for workers in (1, 2):
        with pytest.raises(CodeError, match=r"has no size for 0\.weight, 0\.bias before its first batch"):
            plan(job("lazy", {"workers": workers}), folder)


@pytest.mark.parametrize("strategy", [DDP, partial(FSDP, block_parameters=1)])
def test_no_worker_trains_a_model_without_the_rest_of_its_batch_norms(strategy: Callable[..., Many]) -> None:
    """What is put in the place of one would normalise and leave the activation out."""
    model = nn.Sequential(nn.Linear(6, 8), models.Activated(8))
    with pytest.raises(SpecError, match=r"train\.batch_norm: cannot take the statistics of 1"):
        strategy(Worker(1, 2), Train()).wrap(model)
    assert type(model[1]) is models.Activated


def test_batch_norms_of_several_workers_stay_the_modules_that_the_model_knows() -> None:
    """One in a list of the model's own, or with a hook, was left as it was, or without it."""
    model, seen = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)), list[torch.Size]()
    known = [model[1]]
    model[1].register_forward_hook(lambda norm, inputs, output: seen.append(output.shape))
    synchronise(model, torch.device("cpu"))
    assert model[1] is known[0]
    assert isinstance(model[1], CpuSyncBatchNorm)
    model.eval()(torch.ones(4, 6))
    assert seen == [(4, 8)]


class WhereComputed(pieces.Classification):
    """Notes on what device it computes."""

    def __init__(self) -> None:
        self.devices: list[str] = []

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        self.devices.append(batch["input"].device.type)
        return super().loss(model, batch)


@pytest.mark.parametrize(("side", "looked_at"), [(512, False), (16, True)])
def test_large_pictures_are_not_run_through_on_the_cpu_beforehand(side: int, looked_at: bool) -> None:
    """Four of them took gigabytes, and tens of seconds, before each attempt of a training on GPUs."""
    info = DataInfo(Field((3, side, side)), Field((), torch.int64, 3))
    split = SampleSplit(8, lambda index: {"input": torch.zeros(3, side, side), "target": torch.tensor(index % 3)})
    data = LoadedData(split, None, info, "0", "made up")
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3)
    )
    task = WhereComputed()
    refuse_dependent(job("norm", TWO), data, model, task)
    assert task.devices == (["cpu"] * 3 if looked_at else ["meta"])
