"""What every task of the catalog does with data that fits it."""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torchmetrics import MetricCollection

from epochal.catalog.data import Batch, DataInfo, Field
from epochal.catalog.entry import TaskEntry
from epochal.catalog.task import FeedsMetrics, Task
from epochal.catalog.tasks import TASKS
from epochal.errors import EpochalError

INFOS = (
    DataInfo(Field((6,)), Field((), torch.int64, classes=7)),
    DataInfo(Field((6,)), Field(())),
    DataInfo(Field((6,)), Field((3,))),
    DataInfo(Field((6,)), Field((4,), torch.int64, classes=7)),
    DataInfo(Field((6,)), Field((2, 3), torch.int64, classes=7)),
    DataInfo(Field((6,), torch.int64, classes=9), Field((2, 2, 2), torch.int64, classes=7)),
)
BUILT_IN = [name for name, _ in TASKS.built_in()]


def _fitting(entry: TaskEntry) -> list[DataInfo]:
    fitting = []
    for info in INFOS:
        try:
            entry.build(entry.params(), info)
        except EpochalError:
            continue
        fitting.append(info)
    return fitting


class Latent(nn.Module):
    """x: (batch, 6), to two latent numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)
        self.eval()  # drawn numbers would differ from pass to pass

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        return mean, log_variance

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(latent)


class Gan(nn.Module):
    """x: (batch, 6), to a verdict (batch,)."""

    latent = 2

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = nn.Linear(2, 6), nn.Linear(6, 1)
        self.eval()  # as for Latent

    def generate(self, noise: Tensor) -> Tensor:
        return self.generator(noise)

    def forward(self, x: Tensor) -> Tensor:
        return self.discriminator(x).flatten()


class Denoiser(nn.Linear):
    """x: (batch, 6), time: (batch,), to the noise in it."""

    def __init__(self) -> None:
        super().__init__(6, 6)
        self.eval()  # as for Latent

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x) + time[:, None] / 1000


def _model(info: DataInfo, entry: TaskEntry) -> nn.Module:
    if entry is TASKS.get("diffusion"):
        return Denoiser()
    if entry is TASKS.get("adversarial"):
        return Gan()
    if entry in (TASKS.get("reconstruction"), TASKS.get("variational")):
        return Latent() if entry is TASKS.get("variational") else nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(6, prod(info.target.predicted)), nn.Unflatten(1, (*info.target.predicted, 1)))


def _fed(task: Task, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
    if isinstance(task, FeedsMetrics):
        task.update(metrics, outputs, batch)
    else:
        metrics.update(outputs, batch["target"])


@pytest.fixture(params=BUILT_IN)
def entry(request: pytest.FixtureRequest) -> TaskEntry:
    return TASKS.get(request.param)


def test_some_data_fits_and_other_data_is_refused(entry: TaskEntry) -> None:
    assert 0 < len(_fitting(entry)) < len(INFOS)


def test_the_loss_of_a_batch_is_the_sum_over_its_parts(entry: TaskEntry) -> None:
    for info in _fitting(entry):
        task, batch = entry.build(entry.params(), info), info.example(10)
        model = _model(info, entry)
        parts = [
            {name: value[part] for name, value in batch.items()} for part in (slice(0, 3), slice(3, 3), slice(3, 10))
        ]
        whole, losses = task.loss(model, batch), [task.loss(model, part) for part in parts]
        torch.testing.assert_close(whole.total, torch.stack([loss.total for loss in losses]).sum())
        assert {len(output) for output in tree_leaves(whole.outputs)} == {10}
        sizes = [len(tree_leaves(loss.outputs)[0]) for loss in losses]
        assert whole.counts_for(10) == sum(loss.counts_for(size) for loss, size in zip(losses, sizes, strict=True))


def test_an_empty_batch_gives_a_zero_that_reaches_every_parameter(entry: TaskEntry) -> None:
    for info in _fitting(entry):
        task, model = entry.build(entry.params(), info), _model(info, entry)
        loss = task.loss(model, info.example(0)).total
        loss.backward()
        assert loss == 0
        assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_metrics_over_two_parts_are_those_over_the_whole(entry: TaskEntry) -> None:
    for info in _fitting(entry):
        task, batch = entry.build(entry.params(), info), info.example(10)
        outputs = task.loss(_model(info, entry), batch).outputs
        whole, parts = task.metrics(), task.metrics()
        _fed(task, whole, outputs, batch)
        for part in (slice(0, 4), slice(4, 10)):
            some = tree_map(operator.itemgetter(part), outputs)
            _fed(task, parts, some, {name: value[part] for name, value in batch.items()})
        torch.testing.assert_close(whole.compute(), parts.compute())
        assert all(value.isfinite() for value in whole.compute().values())
