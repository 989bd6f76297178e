"""What every trial scheduler does, whatever the order in which trials come to their lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.spec.job import JobSpec
from epochal.sweeps.check import trial_scheduler_of
from epochal.sweeps.controller import Controller
from epochal.sweeps.inputs import from_json, to_json
from epochal.sweeps.trial_schedulers import TRIAL_SCHEDULERS
from epochal.sweeps.trials import (
    Added,
    Asked,
    Cancelled,
    Extended,
    Failed,
    Finish,
    Input,
    Interrupted,
    Reached,
    Repeated,
    Run,
    Trial,
    TrialState,
)
from simulated_sweep import Simulation
from sweep_pieces import LR, Draws, controller_of, sweep_spec

FULL, TRIALS = 9, 14
NAMES = [name for name, _ in TRIAL_SCHEDULERS.built_in()]


def _spec(name: str, mode: str = "max", trials: int = TRIALS) -> JobSpec:
    scheduler = {"name": name, "min": "1ep"}
    return sweep_spec(full=FULL, mode=mode, trials=trials, failure_budget=TRIALS, scheduler=scheduler)


def _quality(run: Run) -> float:
    """Rises with length, and most for a learning rate about a half."""
    return float((1 - abs(run.point[LR] - 0.5)) * math.log1p(run.until))


def _simulated(name: str, slots: int, seed: int = 0, outcome: Callable[[Run], float | None] = _quality) -> Simulation:
    return Simulation(controller_of(_spec(name)), outcome, slots, seed).run()


@pytest.mark.parametrize("slots", range(1, 9))
@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_ends_and_so_does_every_trial(name: str, slots: int) -> None:
    for seed in range(5):
        simulation = _simulated(name, slots, seed)
        controller = simulation.controller
        assert controller.is_finished
        assert [command for command in simulation.commands if isinstance(command, Finish)] == [Finish()]
        assert len(controller.trials) == TRIALS
        assert all(trial.state in (TrialState.COMPLETED, TrialState.STOPPED) for trial in controller.trials.values())
        assert controller.best is not None
        assert controller.best.state is TrialState.COMPLETED


@pytest.mark.parametrize("name", NAMES)
def test_what_is_trained_is_about_what_the_rungs_say(name: str) -> None:
    rungs = trial_scheduler_of(_spec(name)).rungs(TRIALS)
    lengths = [rung.length for rung in rungs]
    assert lengths == sorted(lengths)
    assert (lengths[-1], rungs[0].trials) == (FULL, TRIALS)
    planned = sum(
        (rung.length - before) * rung.trials for rung, before in zip(rungs, [0.0, *lengths[:-1]], strict=True)
    )
    for seed in range(10):
        trained = _simulated(name, slots=3, seed=seed).trained
        assert trained <= 1.5 * planned
        assert trained <= FULL * TRIALS


@pytest.mark.parametrize("name", NAMES)
def test_no_rung_is_apart_by_rounding_alone(name: str) -> None:
    """Ten times a tenth is 0.9999999999999999 in binary: a segment without a step would lead from there to 1."""
    spec = sweep_spec(full=1, trials=TRIALS, scheduler={"name": name, "min": "0.1ep"})
    lengths = [0.0, *(rung.length for rung in trial_scheduler_of(spec).rungs(TRIALS))]
    assert lengths[-1] == 1
    assert all(after - before > 0.01 for before, after in pairwise(lengths))


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("name", NAMES)
def test_better_ones_are_trained_longer(name: str, mode: str) -> None:
    sign = 1 if mode == "max" else -1
    simulation = Simulation(controller_of(_spec(name, mode)), lambda run: sign * _quality(run), slots=2).run()
    lengths = sorted((abs(trial.point[LR] - 0.5), trial.length) for trial in simulation.controller.trials.values())
    better, worse = lengths[: TRIALS // 2], lengths[TRIALS // 2 :]
    assert sum(length for _, length in better) >= sum(length for _, length in worse)
    assert simulation.controller.best is not None
    assert abs(simulation.controller.best.point[LR] - 0.5) <= lengths[2][0] or name == "pbt"


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_worse_than_every_number(name: str) -> None:
    for seed in range(10):
        half = Random(seed).sample(range(TRIALS), TRIALS // 2)
        simulation = _simulated(name, 3, seed, lambda run: math.nan if run.trial in half else _quality(run))  # noqa: B023
        best = simulation.controller.best
        assert best is not None
        assert best.number not in half
        if name in ("asha", "hyperband"):
            lengths = [simulation.controller.trials[number].length for number in half]
            assert max(lengths) < FULL
    nothing = _simulated(name, 3, 0, lambda run: math.nan).controller
    assert nothing.is_finished
    assert nothing.best is None


@pytest.mark.parametrize("name", NAMES)
def test_trials_that_fail_cost_themselves(name: str) -> None:
    for seed in range(10):
        lost = Random(seed).sample(range(TRIALS), 3)
        simulation = _simulated(name, 3, seed, lambda run: None if run.trial in lost else _quality(run))  # noqa: B023
        controller = simulation.controller
        assert simulation.commands[-1] == Finish()
        assert all(trial.state.is_over for trial in controller.trials.values())
        assert len(controller.trials) == TRIALS
        failed = [trial.number for trial in controller.trials.values() if trial.state is TrialState.FAILED]
        assert failed == sorted(lost)


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_goes_on_once_it_is_extended(name: str) -> None:
    for slots in (1, 4):
        simulation = _simulated(name, slots)
        before = {number: trial.curve for number, trial in simulation.controller.trials.items()}
        simulation.tell(Extended(8))
        simulation.run()
        trials = simulation.controller.trials
        assert simulation.controller.is_finished
        assert len(trials) == TRIALS + 8
        assert all(trial.state.is_over for trial in trials.values())
        assert all(trials[number].curve[: len(curve)] == curve for number, curve in before.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_that_is_broken_at_any_moment_ends_as_an_unbroken_one(name: str) -> None:
    unbroken = _simulated(name, slots=1)
    for answers in range(1, 30, 3):
        broken = Simulation(controller_of(_spec(name)), _quality, slots=1).run(answers)
        broken.tell(Asked())
        broken.lose()
        replayed = controller_of(_spec(name))
        for told in broken.inputs:
            replayed.step(told)
        broken.controller = replayed
        broken.run()
        assert broken.controller.trials == unbroken.controller.trials


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(choices=st.lists(st.integers(0, 1_000), max_size=80), points=st.integers(0, 20))
def test_the_same_inputs_give_the_same_trials_and_commands(name: str, choices: list[int], points: int) -> None:
    """As they are written down: without what was asked and had no answer."""
    searcher = Draws(points)
    controller = controller_of(_spec(name, trials=6), searcher)
    inputs, answers = [], []
    for choice in choices:
        legal = _legal(controller.trials)
        inputs.append(legal[choice % len(legal)])
        answers.append(controller.step(inputs[-1]))
        assert sum(isinstance(command, Run) for command in answers[-1]) <= isinstance(inputs[-1], Asked)
    again = controller_of(_spec(name, trials=6), searcher)
    for told, answer in zip(inputs, answers, strict=True):
        if answer or not isinstance(told, Asked):
            assert again.step(from_json(to_json(told, answer))) == answer
    assert again.trials == controller.trials
    assert again.best == controller.best
    _ends(again)


def _ends(controller: Controller) -> None:
    """Whatever it was told, the sweep comes to its end with one worker."""
    controller.step(Interrupted())
    while commands := controller.step(Asked()):
        for command in commands:
            if isinstance(command, Run):
                controller.step(Reached(command.trial, command.until, _quality(command)))
    assert controller.is_finished
    assert all(trial.state.is_over for trial in controller.trials.values())


def _legal(trials: Mapping[int, Trial]) -> list[Input]:
    """What the controller may be told of these trials."""
    may: list[Input] = [Asked(), Asked(), *(Asked(number) for number in trials)]
    may += [Interrupted(), Extended(2), Added(({LR: 0.25},)), *(Repeated(number, 1) for number in list(trials)[:1])]
    for number, trial in trials.items():
        if trial.state is TrialState.RUNNING:
            may += [Reached(number, trial.until, value) for value in (0.1, 0.2, 0.3, 0.5, math.inf)]
            may += [Reached(number, trial.until * 0.99, 0.4, done=True), Failed(number, "HANG", "no step")]
        if not trial.state.is_over:
            may.append(Cancelled(number))
    return may
