"""Regression: one or more real values for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field
from torch import Tensor, nn

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.drawing import curves, scatter
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, Samples, fitting
from epochal.catalog.tasks.chosen_loss import ChosenLoss, chosen_loss
from epochal.errors import EpochalError
from epochal.spec.section import Choice

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import MetricCollection


Metric = Literal["mae", "rmse", "r2"]


class RegressionParams(Params):
    loss: Choice = Choice(name="mse")
    """A loss over real values and its parameters; `epochal losses` lists them."""
    metrics: Annotated[list[Metric], Field(min_length=1)] | None = None
    """What is measured at validation, besides the loss; null is all that fit. r2 is for one value a sample."""


class Regression(NamedMetrics):
    """Outputs of the target's shape against real values (batch, ...)."""

    known_metrics = get_args(Metric)

    def __init__(self, loss: ChosenLoss, metrics: Sequence[Metric], info: DataInfo) -> None:
        self._loss = loss
        self._info = info
        self.metric_names = tuple(metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target = batch["target"]
        return self._loss.of(fitting(self._info.call(model, batch), target.shape, "regression"), target)

    def unmeasurable(self, samples: int, targets: Tensor | None) -> Mapping[str, str]:
        if samples < 2:
            return {"r2": "it needs two validation samples, and there is one"}
        if targets is not None and (targets == targets[0]).all():
            return {"r2": "it needs validation targets that differ, and all are the same"}
        return {}

    def metrics(self) -> MetricCollection:
        from torchmetrics import regression as of

        known: dict[str, Any] = {
            "mae": of.MeanAbsoluteError,
            "rmse": lambda: of.MeanSquaredError(squared=False),
            "r2": of.R2Score,
        }
        return self.named(known)

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        targets = samples.batch["target"].reshape(len(samples.batch["target"]), -1)
        guesses = samples.outputs.reshape(targets.shape)
        if targets.shape[1] == 1:
            return {"predictions": scatter(targets[:, 0], guesses[:, 0])}
        return {"predictions": curves(targets, guesses)}


def build(params: RegressionParams, info: DataInfo) -> Regression:
    if info.target.classes is not None:
        raise EpochalError("regression needs real values as target, and this dataset's are classes")
    metrics: list[Metric] = ["mae", "rmse", "r2"] if info.target.shape == () else ["mae", "rmse"]
    if params.metrics and not set(params.metrics) <= set(metrics):
        raise EpochalError("the metric r2 needs one value a sample as target", "set task.params.metrics to [mae, rmse]")
    weighed = info.target if len(info.target.shape) < 2 else None
    return Regression(chosen_loss(params.loss, "real", weighed), params.metrics or metrics, info)


ENTRY = TaskEntry(
    summary="One or more real values for each sample; metrics mae, rmse and r2",
    source="https://lightning.ai/docs/torchmetrics/stable/regression/r2_score.html",
    params=RegressionParams,
    build=build,
)
