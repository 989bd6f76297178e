"""Small models, tasks and data for the tests of the training loop, and job specs around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from epochal.catalog.data import Batch, DataInfo, Field, LoadedData, TensorSplit
from epochal.catalog.lean_torchmetrics import lean_torchmetrics
from epochal.catalog.task import Loss
from epochal.spec.job import JobSpec
from epochal.training.setup import Setup

with lean_torchmetrics():
    import torchmetrics

FEATURES, CLASSES = 6, 3


class Classification:
    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        outputs = model(batch["input"])
        return Loss(F.cross_entropy(outputs, batch["target"], reduction="sum"), None, outputs)

    def metrics(self) -> torchmetrics.MetricCollection:
        return torchmetrics.MetricCollection(
            {
                "accuracy": torchmetrics.classification.MulticlassAccuracy(CLASSES, average="micro"),
                "auroc": torchmetrics.classification.MulticlassAUROC(CLASSES),
            }
        )


class WeightedClassification(Classification):
    """Classes count differently, so that a batch's weight is known to its worker alone."""

    weights = torch.tensor([1.0, 2.0, 5.0])

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        outputs, target = model(batch["input"]), batch["target"]
        total = F.cross_entropy(outputs, target, weight=self.weights, reduction="sum")
        return Loss(total, self.weights[target].sum(), outputs)


class Tokens(Classification):
    """As if every sample had four tokens, counted with a plain number."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss._replace(total=4 * loss.total, weight=4 * len(batch["target"]))


class Uncounted(Classification):
    """Nothing counts, as in a batch of padding."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss._replace(total=0 * loss.total, weight=0)


class Poisoned(Classification):
    """The loss is NaN for a batch that holds the value 1000."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss._replace(total=loss.total * torch.nan) if (batch["input"] == 1000).any() else loss


class Explosive(Classification):
    """The loss of a batch that holds the value 1000 is finite, its gradient is NaN."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        root = (loss.outputs * 0).sum().abs().sqrt()
        return loss._replace(total=loss.total + root) if (batch["input"] == 1000).any() else loss


class Loud(Classification):
    """Gradients that overflow in fp16 until the loss scale has come down."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss._replace(total=loss.total * 300)


class Counting(Classification):
    """Logs how many samples it has right, and keeps its outputs in a mapping."""

    name = "right"

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        right = (loss.outputs.argmax(1) == batch["target"]).sum()
        return loss._replace(outputs={"classes": loss.outputs.argmax(1)}, logs={self.name: right})

    def update(self, metrics: torchmetrics.MetricCollection, outputs: Any, batch: Batch) -> None:
        metrics.update(outputs["classes"], batch["target"])


class AtTheAnswer(Classification):
    """The loss does not change, so that nothing ever gets better."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss._replace(total=loss.total * 0 + len(batch["target"]))


def mlp(dropout: float = 0.0, norm: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 16),
        nn.BatchNorm1d(16) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(16, 8),
        nn.Tanh(),
        nn.Linear(8, CLASSES),
    )


def dropping_mlp() -> nn.Module:
    return mlp(dropout=0.3)


def normed_mlp() -> nn.Module:
    return mlp(norm=True)


def normed_cnn() -> nn.Module:
    """x: (batch, features): seen as a picture with one channel of 2 x 3 pixels."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 3 * 4, CLASSES),
    )


def samples(size: int, seed: int = 0) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, FEATURES, generator=generator)
    answer = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(99))
    return TensorSplit({"input": inputs, "target": (inputs @ answer).argmax(1)})


def data(size: int = 25, validation: int = 11) -> LoadedData:
    info = DataInfo(Field((FEATURES,)), Field((), torch.int64, CLASSES))
    return LoadedData(samples(size), samples(validation, 1) if validation else None, info, "0", "made up")


def spec(**train: Any) -> JobSpec:
    """A job spec; keywords with a dot's double underscore set other sections: ``checkpoint__every="3steps"``."""
    sections: dict[str, Any] = {"checkpoint": {"every": "1000ep"}, "resources": {}}
    for name in [name for name in train if "__" in name]:
        section, field = name.split("__")
        sections.setdefault(section, {})[field] = train.pop(name)
    chosen = {"epochs": 2, "global_batch_size": 8, **train}
    named = {"version": 1, "name": "test", "model": {"name": "mine"}, "data": {"name": "mine"}}
    return JobSpec.model_validate({**named, "train": chosen, **sections})


def adamw(parameters: Mapping[str, nn.Parameter]) -> Optimizer:
    return torch.optim.AdamW(parameters.values(), lr=0.01, weight_decay=0.1)


def sgd(parameters: Mapping[str, nn.Parameter]) -> Optimizer:
    return torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9)


def quiet_sgd(parameters: Mapping[str, nn.Parameter]) -> Optimizer:
    """For losses 300 times as large."""
    return torch.optim.SGD(parameters.values(), lr=0.1 / 300)


def falling(step: int, total: int, seen: Sequence[float] = ()) -> float:
    return 1 - step / total


def setup(job: JobSpec, build: Callable[[], nn.Module] = mlp, **changes: Any) -> Setup:
    torch.manual_seed(job.train.seed)
    made = Setup(job, build(), Classification(), data(), adamw, falling)
    return replace(made, **changes)
