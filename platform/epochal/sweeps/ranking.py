"""Which of two values of the objective is better, and how far a trial may train."""

from __future__ import annotations

import math
from collections.abc import Callable

from epochal.errors import UsageError
from epochal.spec.job import JobSpec, Mode
from epochal.spec.sweep_rules import ADD_OBJECTIVE

Rank = tuple[bool, float, int]
"""Of a trial: the lower, the better. No two are equal."""


def ranking(mode: Mode) -> Callable[[float, int], Rank]:
    """``rank(value, number)`` of a trial's value. NaN is worse than every number; of equal values the trial with the
    lower number is better.

    >>> rank = ranking("max")
    >>> sorted([(0.5, 1), (math.nan, 0), (0.9, 2), (0.9, 1)], key=lambda measured: rank(*measured))
    [(0.9, 1), (0.9, 2), (0.5, 1), (nan, 0)]
    """
    sign = -1.0 if mode == "max" else 1.0
    return lambda value, number: (True, 0.0, number) if math.isnan(value) else (False, sign * value, number)


def mode_of(spec: JobSpec) -> Mode:
    """The direction of the spec's objective.

    Raises:
        UsageError: it has none.
    """
    if spec.objective is None:
        raise UsageError(f"{spec.name} has no objective to compare trials by", ADD_OBJECTIVE)
    return spec.objective.mode


def full_length(spec: JobSpec) -> float:
    """As long as a trial may train: epochs, or steps where the spec counts in these."""
    return float(spec.train.epochs or spec.train.steps or 0)


def next_length(length: float, interval: float, full: float) -> float:
    """``interval`` further, and at last the full length.

    >>> next_length(2.0, 2.0, 5.0), next_length(4.0, 2.0, 5.0), next_length(0.8999999999999999, 0.1, 1.0)
    (4.0, 5.0, 1.0)
    """
    after = length + interval
    # What is missing by rounding would be a segment without a step.
    return after if after < full - interval / 1e6 else full
