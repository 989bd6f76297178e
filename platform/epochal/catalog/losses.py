"""Losses by torch's names.

Each returns the sum over the samples of the batch; where a sample has several values, its loss is their mean. Divided
by the batch's weight this is what torch's ``reduction="mean"`` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from epochal.catalog.entry import LossEntry, Params
from epochal.registry import Registry

ClassWeights = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]


class NoParams(Params):
    pass


class WeightedParams(Params):
    class_weights: ClassWeights | None = None
    """What a sample of each class counts for, in the order of the classes; null counts each for one."""


class CrossEntropyParams(WeightedParams):
    label_smoothing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the target's probability that is spread over all classes."""


class MultiMarginParams(WeightedParams):
    p: Literal[1, 2] = 1
    """Power of the margin's violation."""
    margin: Positive = 1.0
    """How far the target's output should be above the others."""


class SmoothL1Params(Params):
    beta: Positive = 1.0
    """Where the loss goes over from squared to absolute."""


class HuberParams(Params):
    delta: Positive = 1.0
    """Where the loss goes over from squared to absolute."""


class PoissonParams(Params):
    log_input: bool = True
    """The output is the logarithm of the rate."""
    full: bool = False
    """Add Stirling's approximation of the term that only depends on the target."""
    eps: Positive = 1e-8
    """Added to the rate before its logarithm is taken, where `log_input` is false."""


def weights_of(params: WeightedParams, like: Tensor) -> Tensor | None:
    """The class weights as a tensor (classes,) on the device of ``like``."""
    return None if params.class_weights is None else _vector(tuple(params.class_weights), like.device)


@lru_cache(maxsize=16)
def _vector(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept, since copying to a GPU at every step would make the step wait."""
    return torch.tensor(values, device=device)


def _sum_of_weights(params: WeightedParams, target: Tensor) -> Tensor | None:
    weights = weights_of(params, target)
    return None if weights is None else weights[target].sum()


def _cross_entropy(params: CrossEntropyParams, output: Tensor, target: Tensor) -> Tensor:
    weights, smoothing = weights_of(params, output), params.label_smoothing

    def smoothed(share: float) -> Tensor:
        return F.cross_entropy(output, target, weights, reduction="sum", label_smoothing=share)

    if isinstance(smoothing, Tensor):  # torch wants a number; the loss is linear in it
        return (1 - smoothing) * smoothed(0.0) + smoothing * smoothed(1.0)
    return smoothed(smoothing)


def _nll(params: WeightedParams, output: Tensor, target: Tensor) -> Tensor:
    return F.nll_loss(output, target, weights_of(params, output), reduction="sum")


def _multi_margin(params: MultiMarginParams, output: Tensor, target: Tensor) -> Tensor:
    if not len(output):  # torch refuses an empty batch here
        return output.sum()
    return F.multi_margin_loss(output, target, params.p, params.margin, weights_of(params, output), reduction="sum")


_DOCS = "https://docs.pytorch.org/docs/stable/generated/torch.nn."

CROSS_ENTROPY = LossEntry(
    summary="Cross entropy of the softmax of the outputs",
    source=f"{_DOCS}CrossEntropyLoss.html",
    params=CrossEntropyParams,
    build=_cross_entropy,
    target_kind="class",
    weight=_sum_of_weights,
    scalars=("label_smoothing",),
)
NLL = LossEntry(
    summary="Negative log likelihood, for models whose outputs are log-probabilities",
    source=f"{_DOCS}NLLLoss.html",
    params=WeightedParams,
    build=_nll,
    target_kind="class",
    weight=_sum_of_weights,
)
MULTI_MARGIN = LossEntry(
    summary="Hinge loss over classes; torch's mean counts every sample for one, whatever its class weight",
    source=f"{_DOCS}MultiMarginLoss.html",
    params=MultiMarginParams,
    build=_multi_margin,
    target_kind="class",
)


def _real(loss: Callable[..., Tensor], params: type[Params], summary: str, name: str) -> LossEntry:
    """A loss over real values, whose parameters are the keyword arguments of torch's function."""

    def build(given: Params, output: Tensor, target: Tensor) -> Tensor:
        return loss(output, target, reduction="sum", **dict(given)) / prod(output.shape[1:])

    return LossEntry(summary=summary, source=f"{_DOCS}{name}.html", params=params, build=build, target_kind="real")


MSE = _real(F.mse_loss, NoParams, "Mean squared error", "MSELoss")
L1 = _real(F.l1_loss, NoParams, "Mean absolute error", "L1Loss")
SMOOTH_L1 = _real(
    F.smooth_l1_loss, SmoothL1Params, "Squared near zero and absolute beyond, with slope 1", "SmoothL1Loss"
)
HUBER = _real(F.huber_loss, HuberParams, "Squared near zero and absolute beyond, with slope delta", "HuberLoss")
POISSON_NLL = _real(
    F.poisson_nll_loss, PoissonParams, "Negative log likelihood of counts, Poisson distributed", "PoissonNLLLoss"
)
BCE_WITH_LOGITS = _real(
    F.binary_cross_entropy_with_logits,
    NoParams,
    "Binary cross entropy of each output's sigmoid, for targets between 0 and 1",
    "BCEWithLogitsLoss",
)

LOSSES: Registry[LossEntry] = Registry(
    "loss",
    {
        "cross_entropy": "epochal.catalog.losses:CROSS_ENTROPY",
        "nll": "epochal.catalog.losses:NLL",
        "multi_margin": "epochal.catalog.losses:MULTI_MARGIN",
        "mse": "epochal.catalog.losses:MSE",
        "l1": "epochal.catalog.losses:L1",
        "smooth_l1": "epochal.catalog.losses:SMOOTH_L1",
        "huber": "epochal.catalog.losses:HUBER",
        "poisson_nll": "epochal.catalog.losses:POISSON_NLL",
        "bce_with_logits": "epochal.catalog.losses:BCE_WITH_LOGITS",
    },
)
