"""What every learning rate schedule of the catalog does."""

from __future__ import annotations

import math

import pytest

from epochal.catalog.build import LrFactor, build_lr_schedule
from epochal.catalog.schedules import LR_SCHEDULES
from epochal.spec.job import LrSchedule

BUILT_IN = [name for name, _ in LR_SCHEDULES.built_in()]
REQUIRED = {"reduce_on_plateau": {"metric": "val/loss", "mode": "min"}}


def built(name: str, warmup: float) -> LrFactor:
    choice = {"name": name, "warmup": warmup, **REQUIRED.get(name, {})}
    return build_lr_schedule(LrSchedule.model_validate(choice))


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 5.0, 1000.0])
def test_factors_are_finite_and_never_above_the_peak(name: str, total: int, warmup: float) -> None:
    factor = built(name, warmup)
    factors = [factor(step, total, [0.5] * step) for step in range(total + 3)]
    assert all(math.isfinite(factor) and 0 <= factor <= 1 + 1e-9 for factor in factors)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_warm_up_rises_evenly_to_the_schedules_own_start(name: str) -> None:
    plain, warmed = (built(name, steps) for steps in (0.0, 4.0))
    start = plain(0, 100, ())
    rising = [warmed(step, 104, ()) for step in range(5)]
    assert rising == pytest.approx([start * share for share in (0.2, 0.4, 0.6, 0.8, 1.0)])
    assert [warmed(step + 4, 104, ()) for step in range(100)] == [plain(step, 100, ()) for step in range(100)]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_step_has_the_same_factor_however_one_gets_there(name: str) -> None:
    walked, fresh = (built(name, 0.05) for _ in range(2))
    assert [walked(step, 100, ()) for step in range(61)][-1] == fresh(60, 100, ())
    assert fresh(99, 100, ()) <= 1
