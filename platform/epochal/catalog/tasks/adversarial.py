"""Adversarial: a generator whose samples a discriminator takes for real ones (Goodfellow et al. 2014)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, get_args, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import Loss, NamedMetrics, Phase, Samples, fitting, in_fp32
from epochal.catalog.tasks.made_pictures import made_pictures
from epochal.catalog.tasks.sample_noise import normal_of
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import Metric, MetricCollection

Name = Literal["frechet", "accuracy"]


class AdversarialParams(Params):
    loss: Literal["non_saturating", "hinge"] = "non_saturating"
    """`non_saturating` is Goodfellow's, `hinge` that of Lim and Ye 2017 (https://arxiv.org/abs/1705.02894)."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["frechet", "accuracy"]
    """What is measured at validation: how far made samples are from real ones (lower is better), and the share that the
    discriminator tells apart (0.5 where it can only guess)."""


@runtime_checkable
class Generative(Protocol):
    """A model that judges samples when it is called, and makes some of ``latent`` random numbers each."""

    latent: int
    generator: nn.Module
    discriminator: nn.Module

    def generate(self, noise: Tensor) -> Tensor:
        """noise: (batch, latent); samples (batch, ...) as the input."""


class Adversarial(NamedMetrics):
    """A verdict on each real and on each made sample: (batch,), above zero for real.

    Noise is drawn in training; in validation each sample has its own, always the same.
    """

    phases = (Phase("discriminator", ("discriminator.*",)), Phase("generator", ("generator.*",)))
    known_metrics = get_args(Name)

    def __init__(self, params: AdversarialParams, info: DataInfo) -> None:
        self._hinge = params.loss == "hinge"
        self._info = info
        self.metric_names = tuple(params.metrics)

    def loss(self, model: nn.Module, batch: Batch, phase: Phase | None = None) -> Loss:
        if not isinstance(model, Generative):
            told = "adversarial needs a model with generator, discriminator, latent and generate"
            raise EpochalError(f"{told}, not a {type(model).__name__}", "use dcgan")
        real = batch["input"]
        shape = (len(real), model.latent)
        noise = torch.randn(shape, device=real.device) if model.training else normal_of(real, shape[1:])
        made = fitting(model.generate(noise), real.shape, "adversarial")
        outputs = {"made": made}
        generators = discriminators = made.new_zeros(())
        if phase in (None, self.phases[0]):
            # Detached: to lower this loss is not the generator's.
            outputs |= {"real": self._verdict(model, real), "fake": self._verdict(model, made.detach())}
            discriminators = self._told_apart(outputs["real"], outputs["fake"])
        if phase in (None, self.phases[1]):
            verdict = self._verdict(model, made)
            generators = (-verdict if self._hinge else F.softplus(-verdict)).sum()
        logs = {"discriminator_loss": discriminators, "generator_loss": generators} if phase is None else {}
        return Loss(discriminators + generators, None, outputs, logs)

    def _verdict(self, model: nn.Module, samples: Tensor) -> Tensor:
        return in_fp32(fitting(model(samples), (len(samples),), "adversarial"))

    def _told_apart(self, real: Tensor, fake: Tensor) -> Tensor:
        if self._hinge:
            return F.relu(1 - real).sum() + F.relu(1 + fake).sum()
        return F.softplus(-real).sum() + F.softplus(fake).sum()

    def unmeasurable(self, samples: int, targets: Tensor | None) -> Mapping[str, str]:
        return {"frechet": "it needs two validation samples, and there is one"} if samples < 2 else {}

    def metrics(self) -> MetricCollection:
        from torchmetrics.classification import BinaryAccuracy

        from epochal.catalog.frechet import FrechetDistance

        known: dict[str, Callable[[], Metric]] = {
            "frechet": lambda: FrechetDistance(prod(self._info.input.shape)),
            "accuracy": BinaryAccuracy,
        }
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        from epochal.catalog.frechet import FrechetDistance

        for metric in metrics.values(copy_state=False):
            if isinstance(metric, FrechetDistance):
                metric.update(batch["input"], outputs["made"])
            else:
                real = outputs["real"]
                verdicts = torch.cat([real, outputs["fake"]]) > 0
                metric.update(verdicts, torch.cat([torch.ones_like(real), torch.zeros_like(real)]).long())

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        """Real samples in the first row, made ones in the others."""
        return made_pictures(samples.batch["input"], samples.outputs["made"])


def build(params: AdversarialParams, info: DataInfo) -> Adversarial:
    if not info.input.dtype.is_floating_point:
        raise EpochalError("adversarial needs an input of real values, and this one is of whole numbers")
    return Adversarial(params, info)


ENTRY = TaskEntry(
    summary="A generator against a discriminator, a phase of each step for each; metrics Frechet distance and accuracy",
    source="Goodfellow et al. 2014, Generative adversarial networks, https://arxiv.org/abs/1406.2661",
    params=AdversarialParams,
    build=build,
    phases=True,
)
