"""TPE with ASHA finds in a quarter of the epochs what random search finds, over curves of real trainings."""

from __future__ import annotations

import json
import math
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from epochal.spec.job import JobSpec
from epochal.sweeps.controller import Controller
from epochal.sweeps.trials import Run
from simulated_sweep import Simulation

PATHS = {
    "lr": "train.optimizer.lr",
    "alpha": "train.optimizer.weight_decay",
    "momentum": "train.optimizer.momentum",
    "width": "model.params.hidden",
}
RANDOM_TRIALS, TPE_TRIALS, EPOCHS = 32, 60, 27
RECORDED = Path(__file__).parents[2] / "support" / "digits_curves.json"
"""Made by ``tests/support/record_curves.py``."""


@cache
def _recorded() -> tuple[dict[str, list[float]], dict[tuple[float, ...], list[float | None]]]:
    document = json.loads(RECORDED.read_text(encoding="utf-8"))
    grid = document["grid"]
    return grid, dict(zip(product(*grid.values()), document["curves"], strict=True))


def _loss(run: Run) -> float:
    """Of the training that was recorded nearest to the point."""
    grid, curves = _recorded()
    nearest = [
        min(recorded, key=lambda value: abs(math.log((value + 1e-9) / (run.point[PATHS[name]] + 1e-9))))
        for name, recorded in grid.items()
    ]
    loss = curves[tuple(nearest)][round(run.until) - 1]
    return math.nan if loss is None else loss


def _spec(search: dict[str, Any], scheduler: dict[str, Any], trials: int) -> JobSpec:
    grid, _ = _recorded()
    space = {PATHS[name]: {"choice": grid[name]} for name in ("momentum", "width")}
    for name in ("lr", "alpha"):
        space[PATHS[name]] = {"dist": "loguniform", "low": grid[name][0], "high": grid[name][-1]}
    document = {
        "version": 1,
        "name": "recorded",
        "model": {"name": "mlp"},
        "data": {"name": "digits"},
        "train": {"epochs": EPOCHS},
        "objective": {"metric": "val/loss", "mode": "min"},
        "sweep": {"search": search, "trial_scheduler": scheduler, "trials": trials, "space": space},
    }
    return JobSpec.model_validate(document)


def _best(spec: JobSpec, seed: int, budget: float) -> float:
    """The lowest loss that a sweep on four workers has found once so many epochs are trained."""
    simulation, best = Simulation(Controller.of(spec), _loss, slots=4, seed=seed), math.inf
    while not simulation.controller.is_finished:
        simulation.run(answers=1)
        if simulation.trained > budget:
            break
        if simulation.controller.best is not None:
            best = simulation.controller.best.curve[-1].value
    return best


@pytest.mark.slow
def test_tpe_with_asha_needs_a_quarter_of_the_epochs_of_random_search() -> None:
    full = RANDOM_TRIALS * EPOCHS
    leads = []
    for seed in range(20):
        search = {"seed": seed}
        random = _best(_spec({"name": "random", **search}, {"name": "none"}, RANDOM_TRIALS), seed, full)
        asha = {"name": "asha", "eta": 3, "min": "1ep"}
        leads.append(random - _best(_spec({"name": "tpe", **search}, asha, TPE_TRIALS), seed, full / 4))
    assert median(leads) >= 0
