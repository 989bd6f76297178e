"""Recommendation: what someone takes, ranked above what they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, fitting
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

Name = Literal["hit_rate", "ndcg"]


class RecommendationParams(Params):
    loss: Literal["softmax", "log"] = "softmax"
    """softmax: the one taken against all other candidates; log: each candidate by itself, taken or not."""
    k: Annotated[int, Field(ge=1)] = 10
    """How many of the best are recommended."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["hit_rate", "ndcg"]
    """What is measured at validation, besides the loss: how often the one taken is among the best `k`, and its gain:
    1 at the first place and less further down."""


class Recommendation(NamedMetrics):
    """Scores (batch, candidates) against the place of the one taken (batch,)."""

    known_metrics = get_args(Name)

    def __init__(self, params: RecommendationParams, info: DataInfo) -> None:
        self._params = params
        self._info = info
        self.metric_names = tuple(params.metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target, width = batch["target"], self._info.target.width
        scores = fitting(self._info.call(model, batch), (len(target), width), "recommendation")
        if self._params.loss == "softmax":
            return Loss(F.cross_entropy(scores, target, reduction="sum"), None, scores)
        taken = F.one_hot(target, width).to(scores.dtype)
        total = F.binary_cross_entropy_with_logits(scores, taken, reduction="sum") / width
        return Loss(total, None, scores)

    def metrics(self) -> MetricCollection:
        from torchmetrics import MeanMetric

        return self.named(dict.fromkeys(self.known_metrics, MeanMetric))

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        # Before it stand those of the same score too, and of none: a model that tells nothing apart hits nothing.
        own = outputs.gather(1, batch["target"][:, None])
        rank = (~(outputs < own)).sum(1)
        hit = (rank <= self._params.k).float()
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            metric.update(hit if name == "hit_rate" else hit / torch.log2(rank + 1))


def build(params: RecommendationParams, info: DataInfo) -> Recommendation:
    candidates = info.more.get("candidates")
    if candidates is None or info.target.shape or candidates.shape != (info.target.classes,):
        raise EpochalError(
            "recommendation needs a field candidates, and as target the place of the one taken among them",
            "use the dataset ratings, made up or of a table of yours",
        )
    if params.k >= candidates.shape[0]:
        raise EpochalError(
            f"k is {params.k}, and there are {candidates.shape[0]} candidates", "set a smaller task.params.k"
        )
    return Recommendation(params, info)


ENTRY = TaskEntry(
    summary="What someone takes above what they do not; metrics hit rate and NDCG among the best k",
    source="He et al. 2017, Neural collaborative filtering, https://arxiv.org/abs/1708.05031",
    params=RecommendationParams,
    build=build,
)
