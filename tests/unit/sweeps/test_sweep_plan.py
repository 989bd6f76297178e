"""What a sweep would try and cost, before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.spec import load_spec
from epochal.spec.job import JobSpec
from epochal.sweeps.check import check
from epochal.sweeps.plan import first_corner, plan_sweep

JOBS = Path(__file__).parents[3] / "jobs"


def sweep(name: str, *overrides: str) -> JobSpec:
    return load_spec(JOBS / "sweeps" / f"{name}.yaml", overrides, [check]).spec


def test_the_cost_is_that_of_the_rungs() -> None:
    planned = plan_sweep(sweep("tpe-asha"))
    assert [(rung.length, rung.trials) for rung in planned.rungs] == [(1, 27), (3, 9), (9, 3)]
    assert (planned.cost, planned.full_cost, planned.unit) == (27 * 1 + 9 * 2 + 3 * 6, 27 * 9, "epochs")


def test_without_a_trial_scheduler_all_train_to_the_end() -> None:
    planned = plan_sweep(sweep("random", "sweep.concurrency=3", "train={steps: 50}"))
    assert (planned.trials, planned.own_points, planned.cost, planned.unit) == (16, 1, 16 * 50, "steps")
    assert (planned.concurrency, planned.workers) == (3, 1)


def test_a_grid_has_no_more_trials_than_points() -> None:
    assert plan_sweep(sweep("grid", "sweep.trials=100")).trials == 12


def test_what_is_searched_is_told_in_words() -> None:
    told = {field.path: (field.draws, field.when) for field in plan_sweep(sweep("conditional")).space}
    assert told["model.params.channels"] == ("one of [16], [16, 32]", "model.name is cnn")
    assert told["train.optimizer.lr"] == ("loguniform 0.001 to 0.1", "")
    words = {field.path: field.draws for field in plan_sweep(sweep("random")).space}
    assert words["train.global_batch_size"] == "int 16 to 64 in steps of 16"
    assert words["model.params.activation"] == "always gelu"
    assert words["train.optimizer.lr"] == "lognormal about 0.00248, a factor of 2.72, from 4.53999e-05 to 0.1"
    assert words["model.params.dropout"] == "normal about 0.1, sigma 0.1, from 0 to 0.5"


def test_the_first_corner_is_a_training() -> None:
    trained = first_corner(sweep("conditional"))
    assert trained.sweep is None
    assert (trained.model.name, trained.model.params) == ("mlp", {"hidden": [32]})
    assert trained.train.optimizer.lr == pytest.approx(1e-3)
    assert first_corner(trained) == trained
