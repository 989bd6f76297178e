"""Forecasting: the next steps of a series from those before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import nn

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.drawing import curves
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, Samples, fitting
from epochal.catalog.tasks.chosen_loss import ChosenLoss, chosen_loss
from epochal.errors import EpochalError
from epochal.spec.section import Choice

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import MetricCollection

Name = Literal["mae", "rmse", "mase"]


class ForecastingParams(Params):
    loss: Choice = Choice(name="mse")
    """A loss over real values and its parameters; `epochal losses` lists them."""
    season: Annotated[int, Field(ge=1)] = 1
    """Steps after which the series repeats, for `mase`: 12 for months, 24 for hours; 1 where it does not."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["mae", "rmse", "mase"]
    """What is measured at validation over all steps ahead. mase is the mean absolute error over that of saying, in the
    window, what was a `season` before: below 1 is better than that."""


class Forecasting(NamedMetrics):
    """Outputs (batch, horizon) against the steps after a window (batch, time, features), those of its first feature."""

    known_metrics = get_args(Name)

    def __init__(self, loss: ChosenLoss, params: ForecastingParams, info: DataInfo) -> None:
        self._loss = loss
        self._season = params.season
        self._info = info
        self.metric_names = tuple(params.metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target = batch["target"]
        return self._loss.of(fitting(self._info.call(model, batch), target.shape, "forecasting"), target)

    def metrics(self) -> MetricCollection:
        from torchmetrics import MeanMetric
        from torchmetrics import regression as of

        known: dict[str, Any] = {
            "mae": of.MeanAbsoluteError,
            "rmse": lambda: of.MeanSquaredError(squared=False),
            "mase": MeanMetric,
        }
        return self.named(known)

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        return {"forecasts": curves(samples.batch["target"], samples.outputs)}

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        target = batch["target"]
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            if name != "mase":
                metric.update(outputs, target)
                continue
            values = batch["input"].flatten(2)[..., 0] if batch["input"].dim() > 2 else batch["input"]
            naive = (values[:, self._season :] - values[:, : -self._season]).abs().mean(1)
            error = (outputs - target).abs().mean(1)
            # The sum of the errors over the sum of the naive ones; a window that never changes counts for nothing.
            metric.update(torch.where(naive > 0, error / naive, 0.0), naive)


def build(params: ForecastingParams, info: DataInfo) -> Forecasting:
    window, target = info.input.shape, info.target
    if not info.input.dtype.is_floating_point or target.classes is not None or len(target.shape) != 1:
        raise EpochalError(
            "forecasting needs a window of real values, and as target the steps after it (horizon,)",
            "use the dataset series, of a table of yours, or air-passengers",
        )
    if "mase" in params.metrics and (len(window) not in (1, 2) or params.season >= window[0]):
        told = f"the metric mase looks {params.season} steps back in the window, which is {window}"
        raise EpochalError(told, "set a smaller task.params.season, a longer window, or leave mase out")
    return Forecasting(chosen_loss(params.loss, "real"), params, info)


ENTRY = TaskEntry(
    summary="The next steps of a series; metrics mae, rmse and mase",
    source="Hyndman and Koehler 2006, Another look at measures of forecast accuracy (mase)",
    params=ForecastingParams,
    build=build,
)
