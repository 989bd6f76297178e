from __future__ import annotations

import math

import pytest

from epochal.errors import TrainingError
from epochal.training.best import Best


def after(best: Best, *values: float) -> Best:
    for step, value in enumerate(values, start=1):
        best = best.after(step, {"val/loss": value})
    return best


def test_least_is_best() -> None:
    best = after(Best("val/loss", "min"), 3.0, 1.0, 2.0, 1.0)
    assert (best.value, best.step, best.stale) == (1.0, 2, 2)


def test_greatest_is_best() -> None:
    best = after(Best("val/loss", "max"), 3.0, 1.0, 4.0)
    assert (best.value, best.step, best.stale) == (4.0, 3, 0)


def test_a_gain_has_to_exceed_the_least_change() -> None:
    assert after(Best("val/loss", "min", min_delta=0.5), 3.0, 2.6, 2.5).stale == 2
    assert after(Best("val/loss", "min", min_delta=0.5), 3.0, 2.4).stale == 0


def test_nan_is_never_better() -> None:
    best = after(Best("val/loss", "max"), math.nan, 1.0, math.nan)
    assert (best.value, best.stale) == (1.0, 1)


def test_unknown_metric_is_refused_with_the_closest() -> None:
    with pytest.raises(TrainingError) as raised:
        Best("val/acuracy", "max").after(1, {"val/loss": 1.0, "val/accuracy": 0.5})
    assert "val/accuracy" in raised.value.hint


def test_goes_on_from_its_state_unless_the_metric_changed() -> None:
    best = after(Best("val/loss", "min"), 3.0, 4.0)
    assert Best("val/loss", "min").restored(best.state()) == best
    assert Best("val/accuracy", "max").restored(best.state()).value is None
