"""Learning rate schedules: the factor on the peak learning rate as a pure function of the step.

``step`` counts from 0 after the warm-up and ``total`` are the steps after it, ``seen`` what validations gave, so a
schedule needs no state and a resumed training goes on exactly. Lengths are given like the warm-up's: below 1 a fraction
of ``total``, otherwise a number of steps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import cos, inf, log, pi
from typing import Annotated, Any, Literal

from pydantic import Field

from epochal.catalog.entry import LrScheduleEntry, Params
from epochal.registry import Registry

Length = Annotated[float, Field(gt=0)]
Factor = Annotated[float, Field(ge=0, le=1)]


class ConstantParams(Params):
    pass


class LinearParams(Params):
    end: Factor = 0.0
    """Factor after the last step."""


class CosineParams(Params):
    end: Factor = 0.0
    """Factor after the last step."""


class StepParams(Params):
    every: Length = 0.3
    """Length of a stair: below 1 a fraction of the steps, otherwise a number of steps."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor from one stair to the next."""


class MultiStepParams(Params):
    milestones: Annotated[list[Length], Field(min_length=1)] = [0.5, 0.75]
    """Where the rate drops: below 1 fractions of the steps, otherwise numbers of steps."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor at each milestone."""


class ExponentialParams(Params):
    end: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Factor after the last step."""


class PolynomialParams(Params):
    power: Annotated[float, Field(gt=0)] = 2.0
    """Power of what is left of the training."""
    end: Factor = 0.0
    """Factor after the last step."""


class OneCycleParams(Params):
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Fraction of the steps in which the rate rises to its peak."""
    start: Annotated[float, Field(gt=0, le=1)] = 0.04
    """Factor at the first step."""
    end: Factor = 4e-6
    """Factor at the last step."""
    shape: Literal["cosine", "linear"] = "cosine"
    """How the rate moves between the three."""


class CosineRestartsParams(Params):
    first: Length = 0.25
    """Length of the first cycle: below 1 a fraction of the steps, otherwise a number of steps."""
    growth: Annotated[int, Field(ge=1)] = 1
    """Each cycle is this many times as long as the one before."""
    end: Factor = 0.0
    """Factor at the end of a cycle."""


class InverseSqrtParams(Params):
    timescale: Annotated[float, Field(gt=0)] = 1000.0
    """Steps; after three times as many the factor is a half."""


class ReduceOnPlateauParams(Params):
    metric: Annotated[str, Field(min_length=1)]
    """The metric that is watched, such as `val/loss`."""
    mode: Literal["min", "max"]
    """Whether lower or higher is better."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor from one stair to the next."""
    patience: Annotated[int, Field(ge=0)] = 10
    """Validations in a row without an improvement that are borne; the next one lowers the rate."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """The least change that counts as an improvement."""
    cooldown: Annotated[int, Field(ge=0)] = 0
    """Validations after a stair that do not count."""
    end: Factor = 0.0
    """No factor below this."""


def steps_of(length: float, total: int) -> int:
    """``length`` in steps, at least 1: below 1 it is a fraction of ``total``."""
    return max(1, round(length * total if length < 1 else length))


def _toward(end: float, share: float) -> float:
    """From 1 at ``share`` 0 to ``end`` at 1 and ever after."""
    return end + (1 - end) * (1 - min(share, 1.0))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + cos(pi * min(share, 1.0))) / 2


def _constant(params: ConstantParams, step: int, total: int) -> float:
    return 1.0


def _linear(params: LinearParams, step: int, total: int) -> float:
    return _toward(params.end, step / total)


def _cosine(params: CosineParams, step: int, total: int) -> float:
    return _half_cosine(1.0, params.end, step / total)


def _step(params: StepParams, step: int, total: int) -> float:
    return float(params.gamma ** (step // steps_of(params.every, total)))


def _multistep(params: MultiStepParams, step: int, total: int) -> float:
    milestones = sorted(steps_of(milestone, total) for milestone in params.milestones)
    return float(params.gamma ** bisect_right(milestones, step))


def _exponential(params: ExponentialParams, step: int, total: int) -> float:
    return float(params.end ** (step / total))


def _polynomial(params: PolynomialParams, step: int, total: int) -> float:
    return _toward(params.end, 1 - (1 - min(step / total, 1.0)) ** params.power)


def _one_cycle(params: OneCycleParams, step: int, total: int) -> float:
    peak, last = params.rise * total - 1, total - 1  # as torch counts, from step 0
    if peak > 0 and step <= peak:
        return _between(params.shape, params.start, 1.0, step / peak)
    return _between(params.shape, 1.0, params.end, (step - peak) / (last - peak) if last > peak else 1.0)


def _between(shape: str, start: float, end: float, share: float) -> float:
    return _half_cosine(start, end, share) if shape == "cosine" else start + (end - start) * min(share, 1.0)


def _cosine_restarts(params: CosineRestartsParams, step: int, total: int) -> float:
    length = steps_of(params.first, total)
    if params.growth == 1:
        return _half_cosine(1.0, params.end, step % length / length)
    # The lengths of the cycles are a geometric series. The logarithm of a whole power may come out just below it.
    cycle = int(log(step / length * (params.growth - 1) + 1, params.growth) + 1e-9)
    begun = length * (params.growth**cycle - 1) // (params.growth - 1)
    return _half_cosine(1.0, params.end, (step - begun) / (length * params.growth**cycle))


def _inverse_sqrt(params: InverseSqrtParams, step: int, total: int) -> float:
    return float((1 + step / params.timescale) ** -0.5)


def _reduce_on_plateau(params: ReduceOnPlateauParams, step: int, total: int, seen: Sequence[float]) -> float:
    return _reduced(params, tuple(seen))


@lru_cache(maxsize=16)  # between two validations all steps ask for the same
def _reduced(params: ReduceOnPlateauParams, seen: tuple[float, ...]) -> float:
    sign = 1 if params.mode == "min" else -1
    factor, best, stale, cooling = 1.0, inf, 0, 0
    for value in seen:
        better = sign * value < best - params.min_delta  # NaN never is
        best, stale = (sign * value, 0) if better else (best, stale + 1)
        if cooling:
            cooling, stale = cooling - 1, 0
        if stale > params.patience:
            factor, cooling, stale = max(factor * params.gamma, params.end), params.cooldown, 0
    return factor


_TORCHS = "https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.{}.html"


def _entry(build: Callable[[Any, int, int], float], params: type[Params], summary: str, source: str) -> LrScheduleEntry:
    if not source.startswith("https:"):
        source = _TORCHS.format(source)

    def blind(params: Any, step: int, total: int, seen: Sequence[float]) -> float:
        return build(params, step, total)

    return LrScheduleEntry(summary=summary, source=source, params=params, build=blind)


CONSTANT = _entry(_constant, ConstantParams, "The peak all the way", "ConstantLR")
LINEAR = _entry(_linear, LinearParams, "A straight line from the peak to the end", "LinearLR")
COSINE = _entry(_cosine, CosineParams, "Half a cosine from the peak to the end", "CosineAnnealingLR")
STEP = _entry(_step, StepParams, "Stairs of equal length", "StepLR")
MULTISTEP = _entry(_multistep, MultiStepParams, "A drop at each milestone", "MultiStepLR")
EXPONENTIAL = _entry(_exponential, ExponentialParams, "The same factor at every step", "ExponentialLR")
POLYNOMIAL = _entry(_polynomial, PolynomialParams, "A power of what is left of the training", "PolynomialLR")
ONE_CYCLE = _entry(_one_cycle, OneCycleParams, "Up to the peak, then far down (momentum stays)", "OneCycleLR")
COSINE_RESTARTS = _entry(
    _cosine_restarts, CosineRestartsParams, "Cosines that start again", "CosineAnnealingWarmRestarts"
)
INVERSE_SQRT = _entry(
    _inverse_sqrt, InverseSqrtParams, "One over the square root of the step", "https://arxiv.org/abs/1706.03762"
)
REDUCE_ON_PLATEAU = LrScheduleEntry(
    summary="A drop whenever a metric of the validations has stopped getting better",
    source=_TORCHS.format("ReduceLROnPlateau"),
    params=ReduceOnPlateauParams,
    build=_reduce_on_plateau,
)

LR_SCHEDULES: Registry[LrScheduleEntry] = Registry(
    "lr_schedule",
    {
        "constant": "epochal.catalog.schedules:CONSTANT",
        "linear": "epochal.catalog.schedules:LINEAR",
        "cosine": "epochal.catalog.schedules:COSINE",
        "step": "epochal.catalog.schedules:STEP",
        "multistep": "epochal.catalog.schedules:MULTISTEP",
        "exponential": "epochal.catalog.schedules:EXPONENTIAL",
        "polynomial": "epochal.catalog.schedules:POLYNOMIAL",
        "one_cycle": "epochal.catalog.schedules:ONE_CYCLE",
        "cosine_restarts": "epochal.catalog.schedules:COSINE_RESTARTS",
        "inverse_sqrt": "epochal.catalog.schedules:INVERSE_SQRT",
        "reduce_on_plateau": "epochal.catalog.schedules:REDUCE_ON_PLATEAU",
    },
)
