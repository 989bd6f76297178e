"""Which value of a metric is the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from epochal.errors import TrainingError, did_you_mean
from epochal.spec.job import EarlyStopping, Mode, Objective


@dataclass(frozen=True)
class Best:
    """The best value of one metric, the step it was seen at, and for how many validations there was no better one.

    >>> best = Best("val/loss", "min").after(10, {"val/loss": 0.5}).after(20, {"val/loss": 0.6})
    >>> best.value, best.step, best.stale
    (0.5, 10, 1)
    """

    metric: str
    mode: Mode
    min_delta: float = 0.0
    value: float | None = None
    step: int = 0
    stale: int = 0

    @classmethod
    def of(cls, wanted: Objective | EarlyStopping) -> Best:
        return cls(wanted.metric, wanted.mode, getattr(wanted, "min_delta", 0.0))

    def after(self, step: int, metrics: Mapping[str, float]) -> Best:
        """The best after a validation at ``step``. NaN is never better.

        Raises:
            TrainingError: the metric is not among ``metrics``.
        """
        value = value_of(self.metric, metrics)
        if self.beaten_by(value):
            return replace(self, value=value, step=step, stale=0)
        return replace(self, stale=self.stale + 1)

    def beaten_by(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.value is None:
            return True
        gain = self.value - value if self.mode == "min" else value - self.value
        return gain > self.min_delta

    def state(self) -> dict[str, Any]:
        return {"metric": self.metric, "value": self.value, "step": self.step, "stale": self.stale}

    def restored(self, state: Mapping[str, Any]) -> Best:
        """With what a checkpoint says, unless that was about another metric."""
        if state.get("metric") != self.metric:
            return self
        return replace(self, value=state["value"], step=state["step"], stale=state["stale"])


def value_of(metric: str, metrics: Mapping[str, float]) -> float:
    """
    Raises:
        TrainingError: the metric is not among ``metrics``.
    """
    if metric not in metrics:
        raise TrainingError(f"the validation gives no metric {metric!r}", did_you_mean(metric, tuple(metrics)))
    return metrics[metric]
