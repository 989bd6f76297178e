"""Population based training copies from the best and changes what is searched within its bounds."""

from __future__ import annotations

import math
from random import Random
from statistics import median
from typing import Any

import pytest

from epochal.spec.job import JobSpec
from epochal.sweeps.controller import Controller
from epochal.sweeps.trial_schedulers.pbt import (
    PbtParams,
    changes_training_only,
    explored,
    has_a_population,
    keeps_the_state,
)
from epochal.sweeps.trials import Asked, Copy, Reached, Run
from simulated_sweep import Simulation
from sweep_pieces import LR, controller_of, sweep_spec

PBT = {"name": "pbt", "min": "1ep"}
DECAY, MOMENTUM, BATCH, OPTIMIZER = (
    "train.optimizer.weight_decay",
    "train.optimizer.momentum",
    "train.global_batch_size",
    "train.optimizer.name",
)
SPACE: dict[str, Any] = {
    LR: {"dist": "loguniform", "low": 0.01, "high": 1.0},
    DECAY: {"dist": "uniform", "low": 0.0, "high": 1.0, "step": 0.1},
    BATCH: {"dist": "int", "low": 1, "high": 64},
    OPTIMIZER: {"choice": ["adamw", "sgd"]},
    MOMENTUM: {"choice": [0.0, 0.5, 0.9], "when": {OPTIMIZER: ["sgd"]}},
    "train.clip_grad_norm": 1.0,
}
POINT = {LR: 0.1, DECAY: 0.5, BATCH: 3, OPTIMIZER: "sgd", MOMENTUM: 0.5, "train.clip_grad_norm": 1.0, "train.seed": 7}


def _spec(**sweep: Any) -> JobSpec:
    return sweep_spec(**{"full": 9, "trials": 5, "scheduler": PBT, **sweep})


def _explored(resample: float) -> list[dict[str, Any]]:
    sweep = _spec(space=SPACE).sweep
    assert sweep is not None
    return [dict(explored(POINT, sweep.searched, Random(seed), resample)) for seed in range(200)]


def test_perturbation_multiplies_numbers_and_moves_choices_to_a_neighbour() -> None:
    changed = _explored(resample=0.0)
    assert {point[LR] for point in changed} == {0.1 * 0.8, 0.1 * 1.2}
    assert {point[DECAY] for point in changed} == {0.4, 0.6}
    assert {point[BATCH] for point in changed} == {2, 4}
    assert {point[MOMENTUM] for point in changed} == {0.0, 0.9}


def test_what_decides_on_others_constants_and_what_is_not_searched_stay() -> None:
    for resample in (0.0, 1.0):
        changed = _explored(resample)
        assert {(point[OPTIMIZER], point["train.clip_grad_norm"], point["train.seed"]) for point in changed} == {
            ("sgd", 1.0, 7)
        }
        assert all(point.keys() == POINT.keys() for point in changed)


def test_resampling_draws_from_the_whole_space() -> None:
    changed = _explored(resample=1.0)
    assert all(0.01 <= point[LR] <= 1 and 1 <= point[BATCH] <= 64 for point in changed)
    assert min(point[LR] for point in changed) < 0.02
    assert max(point[LR] for point in changed) > 0.5
    assert len({point[BATCH] for point in changed}) > 40
    assert all(type(point[BATCH]) is int for point in changed)
    assert {point[MOMENTUM] for point in changed} == {0.0, 0.5, 0.9}


@pytest.mark.parametrize(
    ("value", "bounds", "after"),
    [
        (0.95, (0.01, 1.0), {0.76, 1.0}),
        (0.011, (0.01, 1.0), {0.01, 0.0132}),
        (1, (1, 64), {1, 2}),
        (64, (1, 64), {51, 64}),
    ],
    ids=["high", "low", "int-low", "int-high"],
)
def test_numbers_stay_within_their_bounds(value: float, bounds: tuple[float, float], after: set[float]) -> None:
    low, high = bounds
    path, dist = (BATCH, "int") if isinstance(value, int) else (LR, "uniform")
    sweep = _spec(space={path: {"dist": dist, "low": low, "high": high}}).sweep
    assert sweep is not None
    found = {round(explored({path: value}, sweep.searched, Random(seed), 0.0)[path], 6) for seed in range(50)}
    assert found == after


def test_a_null_of_the_users_own_stays_or_is_drawn() -> None:
    path = "train.clip_grad_norm"
    sweep = _spec(space={path: {"dist": "uniform", "low": 0.5, "high": 2.0}}).sweep
    assert sweep is not None
    changed = [explored({path: None}, sweep.searched, Random(seed), 0.5)[path] for seed in range(20)]
    assert None in changed
    assert any(value is not None and 0.5 <= value <= 2.0 for value in changed)


def test_a_choice_at_the_edge_moves_the_only_way_and_a_value_of_the_users_own_stays() -> None:
    sweep = _spec(space={MOMENTUM: {"choice": [0.0, 0.5, 0.9]}}).sweep
    assert sweep is not None
    for value, after in [(0.0, {0.5}), (0.9, {0.5}), (0.7, {0.7})]:
        assert {explored({MOMENTUM: value}, sweep.searched, Random(seed), 0.0)[MOMENTUM] for seed in range(20)} == after


def _begun(controller: Controller, count: int) -> None:
    for _ in range(count):
        assert controller.step(Asked())


def test_the_worst_fifth_copies_from_the_best_fifth_at_the_same_length() -> None:
    controller = controller_of(_spec(trials=10))
    _begun(controller, 10)
    for number in range(2, 10):
        controller.step(Reached(number, 1.0, number / 10))
    (copy,) = controller.step(Reached(0, 1.0, 0.01))
    assert isinstance(copy, Copy)
    assert (copy.trial, copy.length) == (0, 1.0)
    assert copy.source in (8, 9)
    (better,) = [controller.step(Reached(1, 1.0, 0.75))]
    assert better == []


def test_nobody_copies_from_one_that_is_behind_or_diverged() -> None:
    controller = controller_of(_spec(trials=2, scheduler={**PBT, "quantile": 0.5}))
    _begun(controller, 2)
    controller.step(Reached(0, 1.0, 0.9))
    controller.step(Reached(1, 1.0, 0.8))
    controller.step(Asked()), controller.step(Asked())
    assert controller.step(Reached(1, 2.0, 0.1)) == []
    diverged = controller_of(_spec(trials=2, scheduler={**PBT, "quantile": 0.5}))
    _begun(diverged, 2)
    assert [diverged.step(Reached(number, 1.0, math.nan)) for number in (0, 1)] == [[], []]


def test_who_is_behind_goes_first_and_of_those_the_better() -> None:
    controller = controller_of(_spec(trials=5))
    values = [0.3, 0.5, 0.1, 0.9, 0.7]
    for number, value in enumerate(values):
        (run,) = controller.step(Asked())
        assert isinstance(run, Run)
        assert (run.trial, run.until) == (number, 1.0)
        controller.step(Reached(number, 1.0, value))
    order = []
    for _ in range(5):
        (run,) = controller.step(Asked(order[-1] if order else None))
        assert isinstance(run, Run)
        order.append(run.trial)
        controller.step(Reached(run.trial, run.until, values[run.trial]))
    assert order == [3, 4, 1, 0, 2]


def test_a_population_beats_its_own_start() -> None:
    """Each step a state gets better by how close its learning rate is to one that falls as training goes on."""

    def gained(seed: int) -> tuple[float, float]:
        spec = _spec(full=30, trials=12, search={"name": "random", "seed": seed})
        controller = controller_of(spec)
        quality: dict[int, dict[float, float]] = {}
        copies = 0

        def train(run: Run) -> float:
            nonlocal copies
            for command in simulation.commands[copies:]:
                if isinstance(command, Copy):
                    quality[command.trial] = dict(quality[command.source])
            copies = len(simulation.commands)
            states = quality.setdefault(run.trial, {0.0: 0.0})
            gain = math.exp(-((math.log(run.point[LR]) - math.log(0.5 * 0.9**run.until)) ** 2))
            states[run.until] = states[max(states)] + gain
            return states[run.until]

        simulation = Simulation(controller, train, slots=3, seed=seed)
        simulation.run()
        fixed = max(
            sum(math.exp(-((math.log(lr) - math.log(0.5 * 0.9**step)) ** 2)) for step in range(1, 31))
            for lr in (trial.point[LR] for trial in _firsts(spec))
        )
        best = controller.best
        assert best is not None
        return best.curve[-1].value, fixed

    results = [gained(seed) for seed in range(10)]
    assert median(adapted / fixed for adapted, fixed in results) > 1.1


def _firsts(spec: JobSpec) -> list[Any]:
    """The trials of the population as they begin."""
    controller = controller_of(spec)
    _begun(controller, 12)
    return list(controller.trials.values())


def test_only_what_can_change_in_training_is_searched() -> None:
    space = {LR: SPACE[LR], "model.params.hidden": {"choice": [1, 2]}}
    (problem,) = changes_training_only(PbtParams(), _spec(space=space))
    assert problem.path == "sweep.space.model.params.hidden"


@pytest.mark.parametrize(
    ("space", "refused"),
    [
        ({OPTIMIZER: {"choice": ["adamw", "sgd"]}}, [OPTIMIZER]),
        ({"train.optimizer": {"choice": [{"name": "sgd"}, {"name": "adamw"}]}}, ["train.optimizer"]),
        ({"train.optimizer": {"choice": [{"name": "sgd", "lr": 0.1}, {"name": "sgd", "lr": 0.2}]}}, []),
        ({"train.freeze": {"choice": [[], ["layers.*"]]}}, ["train.freeze"]),
        ({OPTIMIZER: "sgd", LR: SPACE[LR]}, []),
        (SPACE, []),  # a copy has the optimizer that others depend on from its source, as it has the state
    ],
)
def test_a_copy_has_the_optimizer_that_its_state_is_of(space: dict[str, Any], refused: list[str]) -> None:
    """It could not go on with the state: the trial failed."""
    found = keeps_the_state(PbtParams(), _spec(space=space))
    assert [problem.path for problem in found] == [f"sweep.space.{path}" for path in refused]


def test_a_population_has_at_least_two() -> None:
    (problem,) = has_a_population(PbtParams(), _spec(trials=1))
    assert problem.path == "sweep.trials"
    assert not list(has_a_population(PbtParams(), _spec(trials=2)))
