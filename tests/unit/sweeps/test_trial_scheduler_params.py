"""What is wrong with a trial scheduler's parameters is told before a sweep begins."""

from __future__ import annotations

from typing import Any

import pytest

from epochal.sweeps.check import check
from sweep_pieces import LR, sweep_spec

WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"name": "asha", "eta": 1}, 9, "sweep.trial_scheduler.eta: expected at least 2, got 1"),
    ({"name": "asha", "eat": 3}, 9, "sweep.trial_scheduler.eat: unknown"),
    ({"name": "asha", "mni": "2ep"}, 9, "sweep.trial_scheduler.mni: unknown parameter (did you mean 'min'?)"),
    ({"name": "hyperband", "eta": "3"}, 9, "sweep.trial_scheduler.eta: expected a whole number"),
    ({"name": "none", "eta": 3}, 9, "sweep.trial_scheduler.eta: unknown"),
    ({"name": "median", "interval": "10steps"}, 9, "sweep.trial_scheduler.interval: expected epochs"),
    ({"name": "pbt", "quantile": 0.6}, 9, "sweep.trial_scheduler.quantile: expected at most 0.5"),
    ({"name": "pbt"}, 1, "sweep.trials: pbt needs a population of at least 2, got 1"),
    ({"name": "asha", "eta": 4}, 3, "sweep.trials: expected at least eta (4)"),
    ({"name": "ahsa"}, 9, "sweep.trial_scheduler.name: no trial scheduler is named 'ahsa'"),
]


def _problems(scheduler: dict[str, Any], trials: int, space: dict[str, Any] | None = None) -> list[str]:
    sweep = {"space": space} if space else {}
    tree = sweep_spec(trials=trials, scheduler=scheduler, **sweep).model_dump(mode="json", exclude_unset=True)
    return [str(problem) for problem in check(tree)]


@pytest.mark.parametrize(("scheduler", "trials", "said"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_parameter_is_one_problem_with_its_path(scheduler: dict[str, Any], trials: int, said: str) -> None:
    (problem,) = _problems(scheduler, trials)
    assert problem.startswith(said)


@pytest.mark.parametrize(
    "scheduler",
    [
        {"name": "none"},
        {"name": "median", "interval": "2ep", "startup": 3},
        {"name": "asha", "eta": 2, "min": "2ep"},
        {"name": "hyperband", "eta": 2},
        {"name": "pbt", "quantile": 0.5, "resample": 0.0},
    ],
    ids=lambda scheduler: scheduler["name"],
)
def test_right_ones_are_no_problem(scheduler: dict[str, Any]) -> None:
    assert _problems(scheduler, trials=9) == []


def test_pbt_searches_only_what_can_change_in_training() -> None:
    space = {LR: 0.1, "model.params.hidden": {"choice": [[1], [2]]}}
    (problem,) = _problems({"name": "pbt"}, 9, space)
    assert problem.startswith("sweep.space.model.params.hidden: pbt changes trials while they train")


@pytest.mark.parametrize(
    ("optimizer", "field", "choice", "fits"),
    [
        ("adam", "name", ["adam", "sgd"], False),
        ("adam", "amsgrad", [True, False], False),
        ("rmsprop", "centered", [True, False], False),
        ("rmsprop", "momentum", [0.0, 0.9], False),
        ("rmsprop", "momentum", [0.5, 0.9], True),
        ("sgd", "momentum", [0.0, 0.9], True),
        ("lbfgs", "history_size", [5, 10], False),
        ("adamw", "weight_decay", [0.0, 0.1], True),
    ],
    ids=str,
)
def test_pbt_copies_a_state_that_fits(optimizer: str, field: str, choice: list[Any], fits: bool) -> None:
    base = sweep_spec(trials=9, scheduler={"name": "pbt"}, space={LR: 0.1}).model_dump(mode="json", exclude_unset=True)
    base["train"]["optimizer"] = {"name": optimizer}
    base["sweep"]["space"] = {f"train.optimizer.{field}": {"choice": choice}}
    told = [problem.message for problem in check(base)]
    assert told == (
        []
        if fits
        else [
            f"a copy goes on with the optimizer's state of another trial, which fits no other train.optimizer.{field}"
        ]
    )
    whole = [{"name": optimizer, field: value} for value in choice]
    base["sweep"]["space"] = {
        "train.optimizer": {"choice": whole if field != "name" else [{"name": one} for one in choice]}
    }
    assert len(check(base)) == (0 if fits else 1)
