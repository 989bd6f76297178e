"""Reconstruction: the input again. Of a variational autoencoder from latent numbers that are drawn, at a price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, get_args, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.drawing import curves, embedding, tiles
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, Samples, fitting, in_fp32
from epochal.catalog.tasks.chosen_loss import ChosenLoss, chosen_loss
from epochal.errors import EpochalError
from epochal.spec.section import Choice

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import MetricCollection

Name = Literal["mse", "mae"]


class ReconstructionParams(Params):
    loss: Choice = Choice(name="mse")
    """A loss over real values and its parameters; `epochal losses` lists them."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["mse"]
    """What is measured at validation, besides the loss: means over all values."""


class VariationalParams(ReconstructionParams):
    kl: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the divergence from a normal distribution beside the loss, which is summed over a sample's values."""


@runtime_checkable
class Variational(Protocol):
    """A model whose latent numbers are distributions."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of each, (batch, latent)."""

    def decode(self, latent: Tensor) -> Tensor:
        """(batch, ...) as the input."""


@runtime_checkable
class Encoding(Protocol):
    """A model with latent numbers."""

    def encode(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Those of each sample, (batch, latent), or their means and something else."""


class Reconstruction(NamedMetrics):
    """Outputs of the input's shape against the input."""

    known_metrics = get_args(Name)

    def __init__(self, loss: ChosenLoss, metrics: list[str], info: DataInfo) -> None:
        self._loss = loss
        self._info = info
        self.metric_names = tuple(metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        x = batch["input"]
        return self._loss.of(fitting(self._info.call(model, batch), x.shape, "reconstruction"), x)

    def metrics(self) -> MetricCollection:
        from torchmetrics import regression as of

        known: dict[str, Any] = {"mse": of.MeanSquaredError, "mae": of.MeanAbsoluteError}
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        metrics.update(outputs.flatten(), batch["input"].flatten())

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        """Inputs above what was made of them, and the latent numbers in the colours of the classes."""
        x, made, model, target = samples.batch["input"], samples.outputs, samples.model, self._info.target
        if x.dim() == 4:
            rebuilt = tiles([list(x[:12]), list(made[:12])], "above: the data; below: rebuilt")
        else:
            rebuilt = curves(x.flatten(1), made.flatten(1))
        pictures = {"reconstructions": rebuilt}
        if isinstance(model, Encoding):
            found = model.encode(x.to(next(samples.model.parameters()).device))
            latent = (found[0] if isinstance(found, tuple) else found).flatten(1).cpu()
            if target.classes is not None and target.shape == ():
                labels, legend = samples.batch["target"], "latent numbers; colours: classes"
            else:
                labels, legend = torch.zeros(len(x), dtype=torch.long), "latent numbers"
            pictures["embedding"] = embedding(latent, labels, legend)
        return pictures


class VariationalReconstruction(Reconstruction):
    """The evidence lower bound. Latent numbers are drawn in training, and are the means in validation."""

    def __init__(self, loss: ChosenLoss, metrics: list[str], info: DataInfo, kl: float) -> None:
        super().__init__(loss, metrics, info)
        self._kl = kl

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        if not isinstance(model, Variational):
            raise EpochalError(f"variational needs a model with encode and decode, not {type(model).__name__}")
        x = batch["input"]
        mean, log_variance = map(in_fp32, self._info.call(model.encode, batch))
        drawn = mean + (0.5 * log_variance).exp() * torch.randn_like(mean) if model.training else mean
        made = self._loss.of(fitting(model.decode(drawn), x.shape, "variational"), x)
        # The bound is of a sample as a whole, and losses over real values are means over those of a sample.
        error = made.total * x[:1].numel() if len(x) else made.total
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        logs = {"reconstruction": error, "divergence": divergence}
        return Loss(error + self._kl * divergence, made.weight, made.outputs, logs)

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        """Beside the reconstructions, what is made of latent numbers that are drawn."""
        pictures, x, model = dict(super().pictures(samples)), samples.batch["input"], samples.model
        if isinstance(model, Variational) and x.dim() == 4:
            mean, _ = model.encode(x[:1].to(next(samples.model.parameters()).device))
            latent = torch.randn(36, *mean.shape[1:], generator=torch.Generator().manual_seed(0)).to(mean.device)
            made = model.decode(latent).reshape(36, *x.shape[1:]).float().cpu()
            pictures["samples"] = tiles([list(made[row : row + 12]) for row in (0, 12, 24)], "made of drawn numbers")
        return pictures


def build(params: ReconstructionParams, info: DataInfo) -> Reconstruction:
    loss = _checked(params, info, "reconstruction")
    return Reconstruction(loss, list(params.metrics), info)


def build_variational(params: VariationalParams, info: DataInfo) -> VariationalReconstruction:
    loss = _checked(params, info, "variational")
    return VariationalReconstruction(loss, list(params.metrics), info, params.kl)


def _checked(params: ReconstructionParams, info: DataInfo, task: str) -> ChosenLoss:
    if not info.input.dtype.is_floating_point:
        raise EpochalError(f"{task} needs real values as input, and this dataset's are token ids")
    return chosen_loss(params.loss, "real")


ENTRY = TaskEntry(
    summary="The input again, from a model that reduces it; metrics mse and mae",
    source="https://lightning.ai/docs/torchmetrics/stable/regression/mean_squared_error.html",
    params=ReconstructionParams,
    build=build,
)
VARIATIONAL = TaskEntry(
    summary="The input again, from latent numbers that are drawn, for variational autoencoders",
    source="Kingma and Welling 2014, Auto-encoding variational Bayes, https://arxiv.org/abs/1312.6114",
    params=VariationalParams,
    build=build_variational,
)
