"""Classification: one of several classes for each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.drawing import confusion
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, Samples, fitting
from epochal.catalog.tasks.chosen_loss import ChosenLoss, chosen_loss
from epochal.errors import EpochalError
from epochal.spec.section import Choice

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import Metric, MetricCollection

Name = Literal["accuracy", "top5", "f1", "precision", "recall", "auroc"]


class ClassificationParams(Params):
    loss: Choice = Choice(name="cross_entropy")
    """A loss over classes and its parameters; `epochal losses` lists them."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["accuracy"]
    """What is measured at validation, besides the loss; f1, precision, recall and auroc are means over the classes that
    there are."""


class Classification(NamedMetrics):
    """Outputs (batch, classes) against class numbers (batch,)."""

    known_metrics = get_args(Name)

    def __init__(self, loss: ChosenLoss, metrics: list[str], info: DataInfo) -> None:
        self._loss = loss
        self._info = info
        self.metric_names = tuple(metrics)
        self._classes = info.target.width

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target = batch["target"]
        outputs = fitting(self._info.call(model, batch), (len(target), self._classes), "classification")
        return self._loss.of(outputs, target)

    @property
    def scalars(self) -> Mapping[str, float]:
        return self._loss.scalars

    def with_scalars(self, values: Mapping[str, Tensor]) -> Classification:
        return Classification(self._loss.with_scalars(values), list(self.metric_names), self._info)

    def unmeasurable(self, samples: int, targets: Tensor | None) -> Mapping[str, str]:
        one = samples < 2 or (targets is not None and len(torch.unique(targets)) < 2)
        return {"auroc": "it needs two classes among the validation samples, and there is one"} if one else {}

    def metrics(self) -> MetricCollection:
        from torchmetrics import classification as of

        from epochal.catalog.ranking_metrics import ClassAUROC

        macro: dict[str, Any] = {"num_classes": self._classes, "average": "macro"}
        known: dict[str, Callable[[], Metric]] = {
            "accuracy": lambda: of.MulticlassAccuracy(self._classes, average="micro"),
            "top5": lambda: of.MulticlassAccuracy(self._classes, average="micro", top_k=5),
            "f1": lambda: of.MulticlassF1Score(**macro),
            "precision": lambda: of.MulticlassPrecision(**macro),
            "recall": lambda: of.MulticlassRecall(**macro),
            # binned, so that its state stays small
            "auroc": lambda: ClassAUROC(self._classes, average="none", thresholds=200),
        }
        return self.named(known)

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        return {"confusion": confusion(samples.batch["target"], samples.outputs.argmax(1), samples.classes)}


def build(params: ClassificationParams, info: DataInfo) -> Classification:
    classes = info.target.classes
    if classes is None or info.target.shape != ():
        raise EpochalError("classification needs one class a sample as target", "for real values use regression")
    if classes < 5 and "top5" in params.metrics:
        raise EpochalError(f"the metric top5 needs 5 classes or more, and this dataset has {classes}")
    loss = chosen_loss(params.loss, "class", info.target)
    return Classification(loss, list(params.metrics), info)


ENTRY = TaskEntry(
    summary="One of several classes for each sample; metrics accuracy and others",
    source="https://lightning.ai/docs/torchmetrics/stable/classification/accuracy.html",
    params=ClassificationParams,
    build=build,
)
