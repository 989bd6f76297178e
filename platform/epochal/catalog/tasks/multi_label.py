"""Multi-label classification: several labels for each sample, each of which it has or has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field
from torch import Tensor, nn

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, fitting
from epochal.catalog.tasks.chosen_loss import ChosenLoss, chosen_loss
from epochal.errors import EpochalError
from epochal.spec.section import Choice

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

Name = Literal["accuracy", "exact_match", "f1", "precision", "recall", "auroc", "average_precision"]


class MultiLabelParams(Params):
    loss: Choice = Choice(name="bce_with_logits")
    """A loss over real values and its parameters; `pos_weight` (a number for each label, or `balanced`) and
    `sigmoid_focal` are for rare labels."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["accuracy", "f1"]
    """What is measured at validation, besides the loss: means over the labels, but for exact_match, the share of the
    samples that have every label right. auroc and average_precision leave out labels that no sample has."""


class MultiLabel(NamedMetrics):
    """Outputs (batch, labels), whose sigmoid is the probability of each, against 0 and 1 (batch, labels)."""

    known_metrics = get_args(Name)
    suitable = "zeros and ones, one for each label"

    def __init__(self, loss: ChosenLoss, metrics: list[str], info: DataInfo) -> None:
        self._loss = loss
        self._info = info
        self.metric_names = tuple(metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target = batch["target"]
        return self._loss.of(fitting(self._info.call(model, batch), target.shape, "multi-label"), target)

    def unsuitable(self, targets: Tensor) -> Tensor:
        return ((targets != 0) & (targets != 1)).any(dim=1).nonzero().flatten()

    def unmeasurable(self, samples: int, targets: Tensor | None) -> Mapping[str, str]:
        told: dict[str, str] = {}
        if targets is not None and bool((targets == targets[:1]).all()):
            told["auroc"] = "it needs a label that some validation samples have and others not"
            if not targets.any():
                told["average_precision"] = "it needs a label that some validation samples have"
        return told

    def metrics(self) -> MetricCollection:
        from torchmetrics import classification as of

        from epochal.catalog.ranking_metrics import LabelAUROC, LabelAveragePrecision

        labels = self._info.target.width
        binned: dict[str, Any] = {"average": "none", "thresholds": 200}  # so that their state stays small
        known: dict[str, Callable[[], Metric]] = {
            "accuracy": lambda: of.MultilabelAccuracy(labels),
            "exact_match": lambda: of.MultilabelExactMatch(labels),
            "f1": lambda: of.MultilabelF1Score(labels),
            "precision": lambda: of.MultilabelPrecision(labels),
            "recall": lambda: of.MultilabelRecall(labels),
            "auroc": lambda: LabelAUROC(labels, **binned),
            "average_precision": lambda: LabelAveragePrecision(labels, **binned),
        }
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        # torchmetrics would take outputs for probabilities where all of a batch happen to be between 0 and 1.
        metrics.update(outputs.float().sigmoid(), batch["target"].int())


def build(params: MultiLabelParams, info: DataInfo) -> MultiLabel:
    if info.target.classes is not None or len(info.target.shape) != 1 or info.target.shape[0] < 2:
        told = f"multi-label needs a 0 or 1 for each of several labels as target, and this one is {info.target.shape}"
        raise EpochalError(told, "for one class a sample use classification")
    loss = chosen_loss(params.loss, "real", info.target)
    return MultiLabel(loss, list(params.metrics), info)


ENTRY = TaskEntry(
    summary="Several labels for each sample, each of which it has or has not; metrics accuracy, f1 and others",
    source="https://lightning.ai/docs/torchmetrics/stable/classification/f1_score.html",
    params=MultiLabelParams,
    build=build,
)
