"""The median rule ends trials that were never as good as half of the others are on average."""

from __future__ import annotations

import math

import pytest

from epochal.spec.job import JobSpec
from epochal.sweeps.trial_schedulers.median import MedianParams, interval_in_the_unit_of_min
from epochal.sweeps.trials import Asked, End, Reached, Run, TrialState
from epochal.units import Interval
from sweep_pieces import controller_of, sweep_spec

STOPPED = TrialState.STOPPED


def _spec(mode: str = "max", **scheduler: object) -> JobSpec:
    return sweep_spec(full=4, mode=mode, trials=9, scheduler={"name": "median", "min": "1ep", **scheduler})


def _ended(mode: str, curves: list[list[float]], startup: int = 2) -> dict[int, float]:
    """At which length each trial was stopped, trained one after the other."""
    controller, stopped = controller_of(_spec(mode, startup=startup)), {}
    for number, values in enumerate(curves):
        for length, value in enumerate(values, start=1):
            (run,) = controller.step(Asked(number if length > 1 else None))
            assert isinstance(run, Run)
            assert (run.trial, run.until) == (number, length)
            if End(number, STOPPED, f"worse than the median of the others at length {length}") in controller.step(
                Reached(number, float(length), value)
            ):
                stopped[number] = length
                break
    return stopped


def test_the_best_so_far_counts_against_the_others_averages() -> None:
    averages = [[0.5, 0.7, 0.9, 0.9], [0.1, 0.3, 0.5, 0.9]]
    assert _ended("max", [*averages, [0.3, 0.39]]) == {2: 2}
    assert _ended("max", [*averages, [0.3, 0.4, 0.4]]) == {2: 3}
    assert _ended("max", [*averages, [0.29]]) == {2: 1}
    assert _ended("max", [*averages, [0.9, 0.0, 0.0, 0.0]]) == {}


def test_lower_is_better_where_the_spec_says_so() -> None:
    assert _ended("min", [[0.5, 0.5, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3], [0.41]]) == {2: 1}
    assert _ended("min", [[0.5, 0.5, 0.5, 0.5], [0.3, 0.3, 0.3, 0.3], [0.4, 0.9, 0.9, 0.9]]) == {}


def test_nobody_is_ended_before_enough_others_have_come_as_far() -> None:
    assert _ended("max", [[0.9] * 4, [0.1] * 4], startup=2) == {}
    assert _ended("max", [[0.9] * 4, [0.1]], startup=1) == {1: 1}


def test_nan_is_worse_than_every_number() -> None:
    good = [[0.1] * 4, [0.1] * 4]
    assert _ended("max", [*good, [math.nan]]) == {2: 1}
    assert _ended("min", [*good, [math.nan]]) == {2: 1}
    assert _ended("max", [[math.nan] * 4, [math.nan] * 4, [math.nan] * 4]) == {}


def test_the_worse_half_ends_early_and_the_better_goes_on() -> None:
    stopped = _ended("max", [[quality / 10] * 4 for quality in (5, 6, 1, 9, 2, 8, 3, 10)])
    assert set(stopped) == {2, 4, 6}


def test_the_interval_may_be_another_than_the_first_length() -> None:
    controller = controller_of(_spec(min="2ep", interval=Interval(1, "epochs")))
    lengths = []
    for _ in range(3):
        (run,) = controller.step(Asked(0 if lengths else None))
        assert isinstance(run, Run)
        lengths.append(run.until)
        controller.step(Reached(0, run.until, 0.5))
    assert lengths == [2, 3, 4]


def test_a_worker_goes_on_with_the_trial_that_it_holds() -> None:
    controller = controller_of(_spec())
    controller.step(Asked()), controller.step(Asked())
    controller.step(Reached(0, 1.0, 0.5))
    controller.step(Reached(1, 1.0, 0.5))
    assert [command.trial for command in controller.step(Asked(1)) if isinstance(command, Run)] == [1]
    assert [command.trial for command in controller.step(Asked(1)) if isinstance(command, Run)] == [0]


@pytest.mark.parametrize(("interval", "count"), [("1ep", 0), ("50steps", 1)], ids=["epochs", "steps"])
def test_the_interval_is_in_the_unit_of_min(interval: str, count: int) -> None:
    params = MedianParams(interval=Interval.parse(interval))
    assert len(list(interval_in_the_unit_of_min(params, _spec()))) == count
