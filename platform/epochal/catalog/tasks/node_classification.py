"""Node classification: a class for each node of a graph, of which some count."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field
from torch import nn

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, fitting
from epochal.catalog.tasks.chosen_loss import ChosenLoss, chosen_loss
from epochal.errors import EpochalError
from epochal.spec.section import Choice

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

Name = Literal["accuracy", "f1"]


class NodeClassificationParams(Params):
    loss: Choice = Choice(name="cross_entropy")
    """A loss over classes and its parameters; `epochal losses` lists them."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["accuracy"]
    """What is measured at validation over the nodes that count, besides the loss; f1 is a mean over the classes."""


class NodeClassification(NamedMetrics):
    """Outputs (batch, nodes, classes) against classes (batch, nodes); a node counts where ``counted`` is 1."""

    known_metrics = get_args(Name)

    def __init__(self, loss: ChosenLoss, metrics: list[str], info: DataInfo) -> None:
        self._loss = loss
        self._info = info
        self.metric_names = tuple(metrics)
        self._classes = info.target.width

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target, counted = batch["target"], batch["counted"].bool()
        outputs = fitting(self._info.call(model, batch), (*target.shape, self._classes), "node-classification")
        loss = self._loss.of(outputs[counted], target[counted])
        return Loss(loss.total, counted.sum() if loss.weight is None else loss.weight, outputs)

    def metrics(self) -> MetricCollection:
        from torchmetrics import classification as of

        known: dict[str, Callable[[], Metric]] = {
            "accuracy": lambda: of.MulticlassAccuracy(self._classes, average="micro"),
            "f1": lambda: of.MulticlassF1Score(self._classes, average="macro"),
        }
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        counted = batch["counted"].bool()
        metrics.update(outputs[counted], batch["target"][counted])


def build(params: NodeClassificationParams, info: DataInfo) -> NodeClassification:
    classes, shape = info.target.classes, info.target.shape
    if classes is None or len(shape) != 1 or "counted" not in info.more or info.more["counted"].shape != shape:
        told = (
            "node-classification needs a class for each node as target, and the field counted: 1 for those that count"
        )
        raise EpochalError(told, "use the dataset karate-club, or one of your own with both")
    return NodeClassification(chosen_loss(params.loss, "class", info.target), list(params.metrics), info)


ENTRY = TaskEntry(
    summary="A class for each node of a graph, of which some count in training and others in validation",
    source="Kipf and Welling 2017, Semi-supervised classification with graph convolutional networks, "
    "https://arxiv.org/abs/1609.02907",
    params=NodeClassificationParams,
    build=build,
)
