"""Translation: one sequence of tokens from another, by models that are taught with the right tokens before each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, fitting
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

Name = Literal["bleu", "sequence_accuracy", "token_accuracy"]
_IGNORED = -100
"""What torch's cross entropy leaves out."""


class TranslationParams(Params):
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target's probability that is spread over the vocabulary, in training and in `val/loss`."""
    end: Annotated[int, Field(ge=0)] = 2
    """Token that ends a sequence."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["bleu", "sequence_accuracy"]
    """What is measured at validation, besides the loss. bleu and sequence_accuracy (the share of sequences that are
    right as a whole) are of what the model makes by itself, the likeliest token at each place: a pass for each."""


class Translation(NamedMetrics):
    """Outputs (batch, time, vocabulary) against token ids (batch, time), of which ``target_length`` (batch,) count.

    The model is called with the fields of its data, ``decoder_input`` among them: the target, moved by one.
    """

    known_metrics = get_args(Name)

    def __init__(self, params: TranslationParams, info: DataInfo) -> None:
        self._params = params
        self._info = info
        self._vocabulary = info.target.classes or 0
        self.metric_names = tuple(params.metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target = batch["target"]
        logits = self._logits(model, batch)
        counted = _counted(batch)
        total = F.cross_entropy(
            logits.flatten(0, 1),
            target.masked_fill(~counted, _IGNORED).flatten(),
            reduction="sum",
            label_smoothing=self._params.label_smoothing,
        )
        outputs = {"logits": logits}
        if not model.training and {"bleu", "sequence_accuracy"} & set(self.metric_names):
            outputs["tokens"] = self.decoded(model, batch)
        return Loss(total, counted.sum(), outputs)

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        shape = (*batch["target"].shape, self._vocabulary)
        return fitting(self._info.call(model, batch), shape, "translation")

    def decoded(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model makes by itself, (batch, time): at each place the likeliest token after those before it.

        By calls of the whole model, as many for every batch: so it works for any model, and one that is sharded too.
        """
        shown = torch.zeros_like(batch["decoder_input"])
        shown[:, 0] = batch["decoder_input"][:, 0]
        made = torch.zeros_like(batch["target"])
        for place in range(made.shape[1]):
            logits = self._logits(model, {**batch, "decoder_input": shown}).detach()
            made[:, place] = logits[:, place].argmax(-1)
            shown[:, place + 1 : place + 2] = made[:, place : place + 1]
        return made

    def metrics(self) -> MetricCollection:
        from torchmetrics import MeanMetric
        from torchmetrics.text import BLEUScore

        known: dict[str, Callable[[], Metric]] = {
            "bleu": BLEUScore,
            "sequence_accuracy": MeanMetric,
            "token_accuracy": MeanMetric,
        }
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        target, counted = batch["target"], _counted(batch)
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            if name == "bleu":
                made, right = (
                    self._sentences(outputs["tokens"]),
                    self._sentences(target.where(counted, self._params.end)),
                )
                metric.update(made, [[one] for one in right])
            elif name == "sequence_accuracy":
                metric.update(((outputs["tokens"] == target) | ~counted).all(1).float())
            else:
                metric.update((outputs["logits"].argmax(-1) == target)[counted].float())

    def _sentences(self, tokens: Tensor) -> list[str]:
        """As BLEU takes them, words between spaces: the ids before the end."""
        ended = [[*row, self._params.end] for row in tokens.tolist()]
        return [" ".join(map(str, row[: row.index(self._params.end)])) for row in ended]


def _counted(batch: Batch) -> Tensor:
    """Which places are not padding, (batch, time)."""
    target = batch["target"]
    return torch.arange(target.shape[1], device=target.device) < batch["target_length"][:, None]


def build(params: TranslationParams, info: DataInfo) -> Translation:
    shown = info.more.get("decoder_input")
    if info.target.classes is None or shown != info.target or "target_length" not in info.more:
        raise EpochalError(
            "translation needs token ids as target, and as fields decoder_input (it, moved by one) and target_length",
            "use the dataset dates; catalog/datasets/token_pairs.py makes these fields of pairs of sequences",
        )
    if params.end >= info.target.classes:
        raise EpochalError(f"end is the token {params.end}, and the vocabulary has {info.target.classes}")
    return Translation(params, info)


ENTRY = TaskEntry(
    summary="One sequence of tokens from another; metrics BLEU and accuracy of whole sequences",
    source="Papineni et al. 2002, BLEU, https://aclanthology.org/P02-1040/",
    params=TranslationParams,
    build=build,
)
