"""Losses by torch's names.

Each returns the sum over the samples of the batch; where a sample has several values, its loss is their mean. Divided
by the batch's weight this is what torch's ``reduction="mean"`` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from epochal.catalog.entry import LossEntry, Params
from epochal.registry import Registry

Weights = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]


class NoParams(Params):
    pass


class WeightedParams(Params):
    class_weights: Weights | Literal["balanced"] | None = None
    """What a sample of each class counts for, in the order of the classes; null counts each for one, and `balanced`
    makes the training samples of each class count for the same together."""


class CrossEntropyParams(WeightedParams):
    label_smoothing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the target's probability that is spread over all classes."""


class MultiMarginParams(WeightedParams):
    p: Literal[1, 2] = 1
    """Power of the margin's violation."""
    margin: Positive = 1.0
    """How far the target's output should be above the others."""


class FocalParams(WeightedParams):
    gamma: Annotated[float, Field(ge=0)] = 2.0
    """How much less a sample counts the surer the model is of it; 0 is cross entropy."""


class SigmoidFocalParams(Params):
    gamma: Annotated[float, Field(ge=0)] = 2.0
    """How much less a value counts the surer the model is of it; 0 is binary cross entropy."""
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """What a target of 1 counts for, and one of 0 for the rest to 1; null counts both for one. The paper's is 0.25."""


class CategoricalHingeParams(Params):
    margin: Positive = 1.0
    """How far the target's output should be above the highest of the others."""


class BinaryParams(Params):
    pos_weight: Weights | Literal["balanced"] | None = None
    """What a target of 1 counts for beside one of 0, for each of a sample's values; null is 1, and `balanced` makes the
    ones and the zeros of the training samples count for the same together, in each of the values."""


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


def balanced(counts: Sequence[int]) -> list[float]:
    """Weights with which classes of so many samples count alike: samples / (classes * samples of the class).

    A class without any has the weight of one sample.
    """
    total = sum(counts)
    return [total / (len(counts) * max(count, 1)) for count in counts]


def balanced_ones(labels: Sequence[tuple[int, int]]) -> list[float]:
    """What a 1 of each label counts for, of so many zeros and ones, so that both count for the same: zeros / ones.

    Where there is no 1 it is as if there were one; where there is no 0 there is nothing to balance.
    """
    return [zeros / max(ones, 1) if zeros else 1.0 for zeros, ones in labels]


def weights_of(params: WeightedParams, like: Tensor) -> Tensor | None:
    """The class weights as a tensor (classes,) on the device of ``like``; ``chosen_loss`` has made numbers of them."""
    if params.class_weights is None or params.class_weights == "balanced":
        return None
    return _vector(tuple(params.class_weights), like.device)


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


def _focal(params: FocalParams, output: Tensor, target: Tensor) -> Tensor:
    log_p = output.log_softmax(1).gather(1, target[:, None])[:, 0]
    losses = -_unsure(log_p, params.gamma) * log_p
    weights = weights_of(params, output)
    return losses.sum() if weights is None else (losses * weights[target]).sum()


def _unsure(log_p: Tensor, gamma: float) -> Tensor:
    """(1 - p) ** gamma; never of zero, where a power below 1 has no gradient."""
    return torch.expm1(log_p).neg().clamp_min(torch.finfo(log_p.dtype).tiny) ** gamma


def _sigmoid_focal(params: SigmoidFocalParams, output: Tensor, target: Tensor) -> Tensor:
    losses = sigmoid_focal(output, target, params.gamma, params.alpha)
    return losses.sum() / prod(output.shape[1:])


def sigmoid_focal(output: Tensor, target: Tensor, gamma: float, alpha: float | None) -> Tensor:
    """The focal loss (Lin et al. 2017) of each value's sigmoid, in the shape of ``output`` and ``target``."""
    entropy = F.binary_cross_entropy_with_logits(output, target, reduction="none")
    p = output.sigmoid()
    right = p * target + (1 - p) * (1 - target)
    losses = entropy * (1 - right).clamp_min(torch.finfo(output.dtype).tiny) ** gamma
    return losses if alpha is None else losses * (alpha * target + (1 - alpha) * (1 - target))


def _categorical_hinge(params: CategoricalHingeParams, output: Tensor, target: Tensor) -> Tensor:
    if not len(output):  # no maximum over an empty batch
        return output.sum()
    own = output.gather(1, target[:, None])
    others = output.scatter(1, target[:, None], -torch.inf).amax(dim=1, keepdim=True)
    return (others - own + params.margin).clamp_min(0).sum()


def _bce_with_logits(params: BinaryParams, output: Tensor, target: Tensor) -> Tensor:
    given = params.pos_weight
    weights = None if given is None or given == "balanced" else _vector(tuple(given), output.device)
    total = F.binary_cross_entropy_with_logits(output, target, pos_weight=weights, reduction="sum")
    return total / prod(output.shape[1:])


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
FOCAL = LossEntry(
    summary="Cross entropy in which samples count the less the surer the model is of them, for rare classes",
    source="Lin et al. 2017, Focal loss for dense object detection, https://arxiv.org/abs/1708.02002",
    params=FocalParams,
    build=_focal,
    target_kind="class",
    weight=_sum_of_weights,
    scalars=("gamma",),
)
CATEGORICAL_HINGE = LossEntry(
    summary="How far the highest of the other classes comes within a margin of the target's",
    source="Crammer and Singer 2001, On the algorithmic implementation of multiclass kernel-based vector machines",
    params=CategoricalHingeParams,
    build=_categorical_hinge,
    target_kind="class",
)


def _real(loss: Callable[..., Tensor], params: type[Params], summary: str, name: str) -> LossEntry:
    """A loss over real values, whose parameters are the keyword arguments of torch's function."""

    def build(given: Params, output: Tensor, target: Tensor) -> Tensor:
        return loss(output, target, reduction="sum", **dict(given)) / prod(output.shape[1:])

    return LossEntry(summary=summary, source=f"{_DOCS}{name}.html", params=params, build=build, target_kind="real")


MSE = _real(F.mse_loss, NoParams, "Mean squared error", "MSELoss")
L1 = _real(F.l1_loss, NoParams, "Mean absolute error; `mae` and `l1` are the same", "L1Loss")
SMOOTH_L1 = _real(
    F.smooth_l1_loss, SmoothL1Params, "Squared near zero and absolute beyond, with slope 1", "SmoothL1Loss"
)
HUBER = _real(F.huber_loss, HuberParams, "Squared near zero and absolute beyond, with slope delta", "HuberLoss")
POISSON_NLL = _real(
    F.poisson_nll_loss, PoissonParams, "Negative log likelihood of counts, Poisson distributed", "PoissonNLLLoss"
)
BCE_WITH_LOGITS = LossEntry(
    summary="Binary cross entropy of each output's sigmoid, for targets between 0 and 1",
    source=f"{_DOCS}BCEWithLogitsLoss.html",
    params=BinaryParams,
    build=_bce_with_logits,
    target_kind="real",
)
SIGMOID_FOCAL = LossEntry(
    summary="Binary cross entropy in which values count the less the surer the model is of them, for rare labels",
    source="Lin et al. 2017, Focal loss for dense object detection, https://arxiv.org/abs/1708.02002",
    params=SigmoidFocalParams,
    build=_sigmoid_focal,
    target_kind="real",
    scalars=("gamma",),
)

LOSSES: Registry[LossEntry] = Registry(
    "loss",
    {
        "cross_entropy": "epochal.catalog.losses:CROSS_ENTROPY",
        "nll": "epochal.catalog.losses:NLL",
        "multi_margin": "epochal.catalog.losses:MULTI_MARGIN",
        "focal": "epochal.catalog.losses:FOCAL",
        "categorical_hinge": "epochal.catalog.losses:CATEGORICAL_HINGE",
        "mse": "epochal.catalog.losses:MSE",
        "l1": "epochal.catalog.losses:L1",
        "mae": "epochal.catalog.losses:L1",
        "smooth_l1": "epochal.catalog.losses:SMOOTH_L1",
        "huber": "epochal.catalog.losses:HUBER",
        "poisson_nll": "epochal.catalog.losses:POISSON_NLL",
        "bce_with_logits": "epochal.catalog.losses:BCE_WITH_LOGITS",
        "sigmoid_focal": "epochal.catalog.losses:SIGMOID_FOCAL",
    },
)
