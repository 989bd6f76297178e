"""Segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field
from torch import nn

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.drawing import coloured, tiles
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, Samples, fitting
from epochal.catalog.tasks.chosen_loss import ChosenLoss, chosen_loss
from epochal.errors import EpochalError
from epochal.spec.section import Choice

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import Metric, MetricCollection

Name = Literal["accuracy", "iou", "dice"]


class SegmentationParams(Params):
    loss: Choice = Choice(name="cross_entropy")
    """A loss over classes and its parameters; `epochal losses` lists them."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["accuracy", "iou"]
    """What is measured at validation over all pixels, besides the loss; iou (intersection over union) and dice are
    means over the classes."""


class Segmentation(NamedMetrics):
    """Outputs (batch, height, width, classes) against class numbers (batch, height, width)."""

    known_metrics = get_args(Name)

    def __init__(self, loss: ChosenLoss, metrics: list[str], info: DataInfo) -> None:
        self._loss = loss
        self._info = info
        self.metric_names = tuple(metrics)
        self._classes = info.target.classes or 0

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target = batch["target"]
        outputs = fitting(self._info.call(model, batch), (*target.shape, self._classes), "segmentation")
        loss = self._loss.of(outputs.flatten(0, -2), target.flatten())  # to which a pixel is a sample
        return Loss(loss.total, loss.counts_for(target.numel()), outputs)

    def metrics(self) -> MetricCollection:
        from torchmetrics import classification as of

        known: dict[str, Callable[[], Metric]] = {
            "accuracy": lambda: of.MulticlassAccuracy(self._classes, average="micro"),
            "iou": lambda: of.MulticlassJaccardIndex(self._classes),
            "dice": lambda: of.MulticlassF1Score(self._classes, average="macro"),  # of sets of pixels it is the same
        }
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        metrics.update(outputs.flatten(0, -2), batch["target"].flatten())

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        """Pictures, what should be found on them, and what is; the classes have the colours of ``PALETTE``."""
        x, target, found = samples.batch["input"], samples.batch["target"], samples.outputs.argmax(-1)
        if x.dim() != 4:
            return {}
        rows = [[x[i], coloured(target[i]), coloured(found[i])] for i in range(min(8, len(x)))]
        return {"masks": tiles(rows, "data, target, found")}


def build(params: SegmentationParams, info: DataInfo) -> Segmentation:
    classes = info.target.classes
    if classes is None or len(info.target.shape) != 2:
        raise EpochalError("segmentation needs a class for each pixel as target, (height, width)")
    loss = chosen_loss(params.loss, "class", info.target)
    return Segmentation(loss, list(params.metrics), info)


ENTRY = TaskEntry(
    summary="A class for each pixel; metrics accuracy, intersection over union and Dice",
    source="https://lightning.ai/docs/torchmetrics/stable/classification/jaccard_index.html",
    params=SegmentationParams,
    build=build,
)
