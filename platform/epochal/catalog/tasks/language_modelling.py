"""Language modelling: the next token, for each token of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, Samples, fitting
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import Metric, MetricCollection

Name = Literal["perplexity", "accuracy", "top5"]
_IGNORED = -100
"""What torch's cross entropy leaves out."""


class LanguageModellingParams(Params):
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target's probability that is spread over the vocabulary, in training and in `val/loss`."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["perplexity", "accuracy"]
    """What is measured at validation, besides the loss, over all tokens."""


class LanguageModelling(NamedMetrics):
    """Outputs (batch, time, vocabulary) against token ids (batch, time). Losses are means over tokens.

    Where the data has the field ``record``, tokens count for which it is not 0.
    """

    known_metrics = get_args(Name)

    def __init__(self, params: LanguageModellingParams, info: DataInfo) -> None:
        self._params = params
        self._info = info
        self._vocabulary = info.target.classes or 0
        self.metric_names = tuple(params.metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target = batch["target"]
        outputs = fitting(self._info.call(model, batch), (*target.shape, self._vocabulary), "language-modelling")
        counts: float | Tensor = float(target.numel())
        if "record" in batch:
            counted = batch["record"] > 0
            target, counts = target.masked_fill(~counted, _IGNORED), counted.sum()
        total = F.cross_entropy(
            outputs.flatten(0, 1), target.flatten(), reduction="sum", label_smoothing=self._params.label_smoothing
        )
        return Loss(total, counts, outputs)

    def metrics(self) -> MetricCollection:
        from torchmetrics.classification import MulticlassAccuracy
        from torchmetrics.text import Perplexity

        known: dict[str, Callable[[], Metric]] = {
            "perplexity": Perplexity,
            "accuracy": lambda: MulticlassAccuracy(self._vocabulary, average="micro"),
            "top5": lambda: MulticlassAccuracy(self._vocabulary, average="micro", top_k=5),
        }
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        from torchmetrics.text import Perplexity

        logits, target = outputs.flatten(0, 1), batch["target"].flatten()
        if "record" in batch:
            counted = batch["record"].flatten() > 0
            logits, target = logits[counted], target[counted]
        for metric in metrics.values(copy_state=False):
            if isinstance(metric, Perplexity):
                metric.update(logits[None], target[None])
            else:
                metric.update(logits, target)

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        """What the model writes after the beginning of a few samples; nothing where it cannot be run alone."""
        if samples.model is None:
            return {}
        written = _continued(samples.model, samples.batch["input"][:_TEXTS])
        return {"text": "\n\n".join(_text(tokens, samples.classes) for tokens in written.tolist())}


_TEXTS, _PROMPT, _MORE = 3, 8, 64
"""Texts, tokens of their beginnings that are given, and tokens that follow."""


def _continued(model: nn.Module, tokens: Tensor) -> Tensor:
    """Tokens (texts, time) drawn one after the other, each from what the model gives for those before; of these it sees
    as many as it is trained on."""
    length, generator = tokens.shape[1], torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    written = tokens[:, :_PROMPT]
    for _ in range(_MORE):
        chances = model(written[:, -length:].to(device))[:, -1].float().cpu().softmax(-1)
        written = torch.cat([written, torch.multinomial(chances, 1, generator=generator)], 1)
    return written


def _text(tokens: Sequence[int], names: Sequence[str]) -> str:
    """Of names like ``0x41`` the bytes they are."""
    words = [names[token] for token in tokens]
    if all(len(word) == 4 and word.startswith("0x") for word in words):
        return bytes(int(word, 16) for word in words).decode(errors="replace")
    return ("" if all(len(word) == 1 for word in words) else " ").join(words)


def build(params: LanguageModellingParams, info: DataInfo) -> LanguageModelling:
    vocabulary = info.target.classes
    if vocabulary is None or len(info.target.shape) != 1:
        raise EpochalError(
            "language-modelling needs a token id as target for each place of a sequence", "use the dataset text"
        )
    if vocabulary < 5 and "top5" in params.metrics:
        raise EpochalError(f"the metric top5 needs 5 tokens or more, and this vocabulary has {vocabulary}")
    return LanguageModelling(params, info)


ENTRY = TaskEntry(
    summary="The next token for each token of a sequence; metrics perplexity and accuracy",
    source="https://lightning.ai/docs/torchmetrics/stable/text/perplexity.html",
    params=LanguageModellingParams,
    build=build,
)
