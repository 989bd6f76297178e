"""Schedules against torch's own schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as torchs

from epochal.catalog.build import build_lr_schedule
from epochal.spec.job import LrSchedule

TOTAL, PEAK = 60, 0.5


def _torchs_rates(make: Callable[[Optimizer], Any], steps: int) -> list[float]:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


CASES: list[tuple[dict[str, Any], Callable[[Optimizer], Any]]] = [
    ({"name": "constant"}, lambda o: torchs.ConstantLR(o, factor=1.0)),
    ({"name": "linear", "end": 0.1}, lambda o: torchs.LinearLR(o, 1.0, 0.1, TOTAL)),
    ({"name": "cosine"}, lambda o: torchs.CosineAnnealingLR(o, TOTAL)),
    ({"name": "cosine", "end": 0.2}, lambda o: torchs.CosineAnnealingLR(o, TOTAL, eta_min=0.2 * PEAK)),
    ({"name": "step", "every": 7, "gamma": 0.5}, lambda o: torchs.StepLR(o, 7, 0.5)),
    ({"name": "step", "every": 0.25, "gamma": 0.5}, lambda o: torchs.StepLR(o, 15, 0.5)),
    ({"name": "multistep", "milestones": [20, 0.5], "gamma": 0.3}, lambda o: torchs.MultiStepLR(o, [20, 30], 0.3)),
    ({"name": "exponential", "end": 0.05}, lambda o: torchs.ExponentialLR(o, 0.05 ** (1 / TOTAL))),
    ({"name": "polynomial", "power": 3.0}, lambda o: torchs.PolynomialLR(o, TOTAL, 3.0)),
    ({"name": "one_cycle"}, lambda o: torchs.OneCycleLR(o, PEAK, TOTAL, cycle_momentum=False)),
    (
        {"name": "one_cycle", "rise": 0.5, "start": 0.1, "end": 0.001, "shape": "linear"},
        lambda o: torchs.OneCycleLR(
            o, PEAK, TOTAL, pct_start=0.5, div_factor=10, final_div_factor=100, anneal_strategy="linear",
            cycle_momentum=False,
        ),
    ),
    ({"name": "cosine_restarts", "first": 9}, lambda o: torchs.CosineAnnealingWarmRestarts(o, 9)),
    (
        {"name": "cosine_restarts", "first": 4, "growth": 2, "end": 0.1},
        lambda o: torchs.CosineAnnealingWarmRestarts(o, 4, 2, eta_min=0.1 * PEAK),
    ),
    (
        {"name": "cosine_restarts", "first": 2, "growth": 3},
        lambda o: torchs.CosineAnnealingWarmRestarts(o, 2, 3),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "make"), CASES, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_rates_are_those_of_torch(choice: dict[str, Any], make: Callable[[Optimizer], Any]) -> None:
    factor = build_lr_schedule(LrSchedule.model_validate(choice))
    ours = [PEAK * factor(step, TOTAL, ()) for step in range(TOTAL)]
    assert ours == pytest.approx(_torchs_rates(make, TOTAL), rel=1e-6, abs=1e-9)


def test_inverse_sqrt_halves_after_three_timescales() -> None:
    schedule = LrSchedule.model_validate({"name": "inverse_sqrt", "timescale": 100})
    assert build_lr_schedule(schedule)(300, 1000, ()) == pytest.approx(0.5)


def test_a_warm_up_below_one_is_a_share_of_all_steps() -> None:
    half, counted = (build_lr_schedule(LrSchedule(warmup=warmup)) for warmup in (0.5, 30.0))
    assert [half(step, 60, ()) for step in range(60)] == [counted(step, 60, ()) for step in range(60)]
    assert half(29, 60, ()) == pytest.approx(30 / 31)
    assert half(30, 60, ()) == 1.0


LOSSES = [5.0, 4.0, 4.0, 4.1, 3.9, 3.95, math.nan, 3.85, 3.86, 3.9, 3.84, 3.84, 3.84, 3.84, 3.84, 3.84]


@pytest.mark.parametrize("params", [{}, {"cooldown": 2}, {"min_delta": 0.1}, {"end": 0.2}, {"patience": 0}], ids=str)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_on_a_plateau_the_rate_is_torchs(mode: str, params: dict[str, Any]) -> None:
    values = LOSSES if mode == "min" else [-loss for loss in LOSSES]
    chosen = {"gamma": 0.5, "patience": 1, "cooldown": 0, "min_delta": 0.0, "end": 0.0, **params}
    factor = build_lr_schedule(
        LrSchedule.model_validate({"name": "reduce_on_plateau", "metric": "val/x", "mode": mode, **chosen})
    )
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = torchs.ReduceLROnPlateau(
        optimizer, mode, chosen["gamma"], chosen["patience"], chosen["min_delta"], "abs", chosen["cooldown"],
        min_lr=PEAK * chosen["end"], eps=0,
    )  # fmt: skip
    for count, value in enumerate(values, start=1):
        scheduler.step(value)
        assert PEAK * factor(0, 1, values[:count]) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert optimizer.param_groups[0]["lr"] < PEAK
