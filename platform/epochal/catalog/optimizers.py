"""The optimizers of torch that take dense gradients, by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, optim
from torch.optim import Optimizer

from epochal.catalog.entry import Group, OptimizerEntry, OptimizerNeed, Params
from epochal.catalog.lbfgs import Lbfgs
from epochal.catalog.muon import MuonWithAdamW
from epochal.registry import Registry

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
# Not strict: YAML has lists where torch wants tuples.
Betas = Annotated[tuple[Fraction, Fraction], Field(strict=False)]


class OptimizerParams(Params):
    weight_decay: NotNegative = 0.0
    """Weight of the L2 penalty."""


class SgdParams(OptimizerParams):
    momentum: Fraction = 0.0
    """Share of the last update that is kept."""
    dampening: Fraction = 0.0
    """Share of the gradient that momentum leaves out."""
    nesterov: bool = False
    """Look ahead along the momentum; needs momentum and no dampening."""


class MomentsParams(OptimizerParams):
    betas: Betas = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the denominator."""


class AdamParams(MomentsParams):
    amsgrad: bool = False
    """Divide by the largest running mean seen so far."""


class AdamWParams(AdamParams):
    weight_decay: NotNegative = 0.01
    """Decay of the weights, apart from the gradient."""


class NAdamParams(MomentsParams):
    momentum_decay: NotNegative = 0.004
    """How the momentum moves over time."""
    decoupled_weight_decay: bool = False
    """Decay the weights apart from the gradient."""


class RAdamParams(MomentsParams):
    decoupled_weight_decay: bool = False
    """Decay the weights apart from the gradient."""


class AdamaxParams(MomentsParams):
    betas: Betas = (0.9, 0.999)
    """Decay of the running mean of the gradient and of its largest value."""


class AdagradParams(OptimizerParams):
    lr_decay: NotNegative = 0.0
    """The learning rate is divided by one plus this times the steps done."""
    initial_accumulator_value: NotNegative = 0.0
    """What the sum of squared gradients starts from."""
    eps: Positive = 1e-10
    """Added to the denominator."""


class AdadeltaParams(OptimizerParams):
    rho: Fraction = 0.9
    """Decay of the running means of squared gradients and updates."""
    eps: Positive = 1e-6
    """Added to the denominator."""


class RMSpropParams(OptimizerParams):
    alpha: Fraction = 0.99
    """Decay of the running mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    momentum: Fraction = 0.0
    """Share of the last update that is kept."""
    centered: bool = False
    """Divide by the gradient's estimated standard deviation."""


class RpropParams(Params):
    """How steps change, and within what."""

    etas: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=1)]],
        Field(strict=False),
    ] = (0.5, 1.2)
    """Factors on a step after the gradient's sign changed, and after it stayed."""
    step_sizes: Annotated[tuple[Positive, Positive], Field(strict=False)] = (1e-6, 50.0)
    """Least and greatest step."""

    @model_validator(mode="after")
    def _least_first(self) -> Self:
        if self.step_sizes[0] > self.step_sizes[1]:
            raise ValueError(
                f"step_sizes: the least, {self.step_sizes[0]:g}, is above the greatest, {self.step_sizes[1]:g}"
            )
        return self


class ASGDParams(OptimizerParams):
    lambd: NotNegative = 1e-4
    """Decay term."""
    alpha: Positive = 0.75
    """Power of the learning rate's decay."""
    t0: NotNegative = 1e6
    """Step at which averaging starts."""


class AdafactorParams(OptimizerParams):
    beta2_decay: Annotated[float, Field(lt=0)] = -0.8
    """Power of the step by which the running mean of squared gradients decays."""
    d: Annotated[float, Field(ge=1)] = 1.0
    """Updates whose root mean square is above this are scaled down to it."""


class MuonParams(Params):
    weight_decay: NotNegative = 0.1
    """Decay of the weights, apart from the gradient."""
    momentum: Fraction = 0.95
    """Share of the last update that is kept."""
    nesterov: bool = True
    """Look ahead along the momentum."""
    scale: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How the rate depends on a matrix's shape. `match_rms_adamw` makes updates as large as AdamW's, so that one rate
    fits both (Liu et al. 2025, https://arxiv.org/abs/2502.16982)."""
    adamw: list[str] = []
    """Shell patterns of matrices that AdamW is to train as well: embeddings and the last layer, as Jordan advises."""
    betas: Betas = (0.9, 0.95)
    """AdamW's decay of the running means of the gradient and of its square."""


class LbfgsParams(Params):
    max_iter: Annotated[int, Field(ge=1, le=1000)] = 20
    """Iterations a step, on the same batch."""
    history_size: Annotated[int, Field(ge=1, le=1000)] = 10
    """Past iterations that it remembers; each takes as much memory as two gradients."""
    line_search: bool = True
    """Look for a step length that meets the strong Wolfe conditions; without, it is the learning rate."""


_FUSED: dict[Callable[..., Optimizer], frozenset[str]] = {
    optim.SGD: frozenset({"cpu", "cuda"}),
    optim.Adam: frozenset({"cpu", "cuda", "sharded"}),
    optim.AdamW: frozenset({"cpu", "cuda", "sharded"}),
    optim.Adagrad: frozenset({"cpu"}),
}
"""Where torch has the optimizer as one kernel: less than half the time of its loop for small models on CPU."""


def _built_by(optimizer: Callable[..., Optimizer]) -> Callable[[Any, Sequence[Group], float], Optimizer]:
    """A ``build`` whose parameters are the keyword arguments of torch's class."""

    def build(params: Params, groups: Sequence[Group], lr: float) -> Optimizer:
        trained = [parameter for group in groups for parameter in group["params"]]
        kinds = {one.device.type for one in trained}
        if any(is_sharded(one) for one in trained):
            kinds.add("sharded")
        if kinds and kinds <= _FUSED.get(optimizer, frozenset()):
            how = {"fused": True}
        elif "sharded" in kinds:
            # One call for all shards: torch's loop pays for the sharding of every operation, 3 to 10 times as much.
            how = {"foreach": True}
        else:
            how = {}
        return optimizer(groups, lr=lr, **params.model_dump(), **how)

    return build


def is_sharded(parameter: Tensor) -> bool:
    """Whether it is a ``DTensor``; without importing that, which takes a second."""
    return hasattr(parameter, "placements")


def _entry(
    optimizer: Callable[..., Optimizer], params: type[Params], summary: str, needs: tuple[OptimizerNeed, ...] = ()
) -> OptimizerEntry:
    name = getattr(optimizer, "__name__", "")
    source = f"https://docs.pytorch.org/docs/stable/generated/torch.optim.{name}.html"
    return OptimizerEntry(summary=summary, source=source, params=params, build=_built_by(optimizer), needs=needs)


def _muon(params: MuonParams, groups: Sequence[Group], lr: float) -> Optimizer:
    named = {name: one for group in groups for name, one in zip(group["names"], group["params"], strict=True)}
    matrices = [name for name, one in named.items() if one.dim() == 2]
    spared = set[str]()
    for pattern in params.adamw:
        matching = fnmatch.filter(matrices, pattern)
        if not matching:
            raise ValueError(f"no matrix that is trained matches {pattern!r}, of adamw")
        spared.update(matching)
    decay = {"weight_decay": params.weight_decay}
    muon = {**decay, "momentum": params.momentum, "nesterov": params.nesterov, "adjust_lr_fn": params.scale}
    return MuonWithAdamW(groups, lr, spared, muon, {**decay, "betas": params.betas})


def _lbfgs(params: LbfgsParams, groups: Sequence[Group], lr: float) -> Optimizer:
    if len(groups) > 1:
        raise ValueError("lbfgs treats all parameters alike: remove groups, which it cannot have")
    search = "strong_wolfe" if params.line_search else None
    return Lbfgs(groups, lr, params.history_size, max_iter=params.max_iter, line_search_fn=search)


SGD = _entry(optim.SGD, SgdParams, "Stochastic gradient descent, with or without momentum")
ADAM = _entry(optim.Adam, AdamParams, "Adaptive moments")
ADAMW = _entry(optim.AdamW, AdamWParams, "Adam with weight decay apart from the gradient")
NADAM = _entry(optim.NAdam, NAdamParams, "Adam with Nesterov momentum")
RADAM = _entry(optim.RAdam, RAdamParams, "Adam with a rectified start, which needs no warm-up")
ADAMAX = _entry(optim.Adamax, AdamaxParams, "Adam with the largest instead of the mean square gradient")
ADAGRAD = _entry(optim.Adagrad, AdagradParams, "Each parameter's step shrinks with its sum of squared gradients")
ADADELTA = _entry(optim.Adadelta, AdadeltaParams, "Adagrad over a window; meant for a learning rate of 1")
RMSPROP = _entry(optim.RMSprop, RMSpropParams, "Gradients divided by their running root mean square")
# torch indexes rprop's gradients with a mask, and sums adafactor's over rows: it can do neither with shards.
RPROP = _entry(
    optim.Rprop,
    RpropParams,
    "Step sizes from the gradients' signs, the learning rate the first; for batches of all the data",
    needs=("whole_matrices",),
)
ASGD = _entry(optim.ASGD, ASGDParams, "Averaged stochastic gradient descent")
ADAFACTOR = _entry(
    optim.Adafactor,
    AdafactorParams,
    "Adaptive steps whose state grows with rows and columns only",
    needs=("whole_matrices",),
)

MUON = OptimizerEntry(
    summary="Orthogonal updates for matrices, AdamW for the rest",
    source="https://kellerjordan.github.io/posts/muon/",
    params=MuonParams,
    build=_muon,
    needs=("whole_matrices",),
    named=True,
)
LBFGS = OptimizerEntry(
    summary="Quasi-Newton steps of several passes over a batch; for a learning rate of 1, and batches of all the data",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.LBFGS.html",
    params=LbfgsParams,
    build=_lbfgs,
    needs=("whole_matrices", "closure"),
)

OPTIMIZERS: Registry[OptimizerEntry] = Registry(
    "optimizer",
    {
        "sgd": "epochal.catalog.optimizers:SGD",
        "adam": "epochal.catalog.optimizers:ADAM",
        "adamw": "epochal.catalog.optimizers:ADAMW",
        "nadam": "epochal.catalog.optimizers:NADAM",
        "radam": "epochal.catalog.optimizers:RADAM",
        "adamax": "epochal.catalog.optimizers:ADAMAX",
        "adagrad": "epochal.catalog.optimizers:ADAGRAD",
        "adadelta": "epochal.catalog.optimizers:ADADELTA",
        "rmsprop": "epochal.catalog.optimizers:RMSPROP",
        "rprop": "epochal.catalog.optimizers:RPROP",
        "asgd": "epochal.catalog.optimizers:ASGD",
        "adafactor": "epochal.catalog.optimizers:ADAFACTOR",
        "muon": "epochal.catalog.optimizers:MUON",
        "lbfgs": "epochal.catalog.optimizers:LBFGS",
    },
)
