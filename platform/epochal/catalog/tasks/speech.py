"""Speech recognition by CTC: what is said, without being told when (Graves et al. 2006)."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.datasets.speech import BLANK, SPACE, frames_needed
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

Name = Literal["cer", "wer"]


class SpeechParams(Params):
    metrics: Annotated[list[Name], Field(min_length=1)] = ["cer", "wer"]
    """What is measured at validation, besides the loss: of characters and of words, the wrong, missing and added ones
    over those that are said, by the likeliest token of each frame."""


class Speech(NamedMetrics):
    """Outputs (batch, frames, vocabulary), token 0 the blank, against token ids (batch, characters).

    ``length`` (batch,) of the input's frames and ``target_length`` (batch,) of the characters count. A model may give
    fewer frames than go in: the same share of them counts. The loss is a mean over characters.
    """

    known_metrics = get_args(Name)

    def __init__(self, params: SpeechParams, info: DataInfo) -> None:
        self._info = info
        self.metric_names = tuple(params.metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        target, said = batch["target"], batch["target_length"]
        outputs = self._checked(self._info.call(model, batch), len(target))
        counted = {"logits": outputs, "lengths": self._frames(outputs, batch)}
        if not len(target):  # torch refuses an empty batch here
            return Loss(outputs.sum(), said.sum(), counted)
        self._refuse_too_long(batch, counted["lengths"])
        likely = outputs.float().log_softmax(-1).transpose(0, 1)
        total = F.ctc_loss(likely, target, counted["lengths"], said, blank=BLANK, reduction="sum")
        return Loss(total, said.sum(), counted)

    def _checked(self, outputs: Any, samples: int) -> Tensor:
        width = self._info.target.width
        if isinstance(outputs, Tensor) and outputs.dim() == 3 and outputs.shape[::2] == (samples, width):
            return outputs
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        told = f"the model gives {found} for {samples} samples, and speech needs (batch, frames, {width})"
        raise EpochalError(told, "return the scores of each token for each frame")

    def _refuse_too_long(self, batch: Batch, frames: Tensor) -> None:
        """The loss of a text that is longer than its frames is infinite, whatever the model has learned."""
        needed = frames_needed(batch["target"], batch["target_length"])
        for row in (needed > frames).nonzero().flatten().tolist()[:1]:
            field = self._info.more.get("recording")
            name = field.names[int(batch["recording"][row])] if field and field.names else "a recording"
            given = f"{int(batch['length'][row])} frames, of which the model makes {int(frames[row])}"
            raise EpochalError(
                f"{name} has {given}, and CTC needs {int(needed[row])} for its {int(batch['target_length'][row])} "
                "characters: one each, and one between two that are the same",
                "shorten its text, take it out, or use a model that keeps more frames",
            )

    def _frames(self, outputs: Tensor, batch: Batch) -> Tensor:
        """How many of the outputs count, (batch,): one at least."""
        given, made = batch["input"].shape[1], outputs.shape[1]
        return ((batch["length"] * made + given - 1) // given).clamp(1, made)

    def metrics(self) -> MetricCollection:
        from torchmetrics.text import WordErrorRate

        # Both are WordErrorRate: of cer each token is a word.
        return self.named(dict.fromkeys(self.known_metrics, WordErrorRate))

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        made = [greedy(row[:count]) for row, count in zip(outputs["logits"], outputs["lengths"].tolist(), strict=True)]
        lengths = batch["target_length"].tolist()
        right = [row[:count] for row, count in zip(batch["target"].tolist(), lengths, strict=True)]
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            written = _tokens if name == "cer" else _words
            metric.update([written(one) for one in made], [written(one) for one in right])


def greedy(logits: Tensor) -> list[int]:
    """The likeliest token of each frame of ``logits`` (frames, vocabulary), each once in a row, without the blanks."""
    likeliest: list[int] = logits.argmax(-1).tolist()
    return [token for token, _ in groupby(likeliest) if token != BLANK]


def _tokens(tokens: list[int]) -> str:
    return " ".join(map(str, tokens))


def _words(tokens: list[int]) -> str:
    return " ".join("".join(" " if token == SPACE else f"{token}," for token in tokens).split())


def build(params: SpeechParams, info: DataInfo) -> Speech:
    needed = {"length", "target_length"}
    if info.target.classes is None or len(info.target.shape) != 1 or not needed <= info.more.keys():
        raise EpochalError(
            "speech needs token ids as target, and as fields length (of the input) and target_length",
            "use the dataset tones, or wav-folder for recordings of yours",
        )
    return Speech(params, info)


ENTRY = TaskEntry(
    summary="What is said in a recording, by CTC; metrics character and word error rate",
    source="Graves et al. 2006, Connectionist temporal classification, ICML",
    params=SpeechParams,
    build=build,
)
