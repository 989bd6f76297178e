"""Hyperband fills the brackets of its paper and waits for whole rungs."""

from __future__ import annotations

import math

from epochal.sweeps.check import trial_scheduler_of
from epochal.sweeps.controller import Controller
from epochal.sweeps.trial_scheduler import Rung
from epochal.sweeps.trial_schedulers.asha import geometric_rungs
from epochal.sweeps.trial_schedulers.hyperband import brackets
from epochal.sweeps.trials import Asked, Cancelled, End, Extended, Failed, Reached, Run, TrialState
from sweep_pieces import controller_of, sweep_spec

SCHEDULER = {"name": "hyperband", "eta": 3, "min": "1ep"}

TABLE_1 = {
    4: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    3: [(34, 3), (11, 9), (3, 27), (1, 81)],
    2: [(15, 9), (5, 27), (1, 81)],
    1: [(8, 27), (2, 81)],
    0: [(5, 81)],
}
"""Of Li et al., "Hyperband", JMLR 18(185), 2018: (n_i, r_i) of each bracket s for R = 81 and eta = 3."""


def test_the_brackets_are_those_of_table_1() -> None:
    shapes = brackets(geometric_rungs(1, 3, 81), eta=3)
    table = {
        4 - begins: [(shape.quota(rung, shape.size), length) for rung, length in enumerate(shape.lengths)]
        for begins, shape in enumerate(shapes)
    }
    assert table == TABLE_1


def _all(controller: Controller) -> list[Run]:
    """All that may run now."""
    runs = []
    while commands := [command for command in controller.step(Asked()) if isinstance(command, Run)]:
        runs += commands
    return runs


def _reach(controller: Controller, runs: list[Run]) -> None:
    for run in runs:
        controller.step(Reached(run.trial, run.until, float(run.trial)))


def test_a_round_begins_and_promotes_as_the_table_says() -> None:
    controller = controller_of(sweep_spec(full=9, trials=17, scheduler=SCHEDULER))
    runs = _all(controller)
    assert [run.until for run in runs] == [1] * 9 + [3] * 5 + [9] * 3
    _reach(controller, runs)
    promoted = _all(controller)
    assert [(run.trial, run.until) for run in promoted] == [(8, 3), (7, 3), (6, 3), (13, 9)]
    _reach(controller, promoted)
    assert [(run.trial, run.until) for run in _all(controller)] == [(8, 9)]


def test_a_rung_waits_for_all_of_its_bracket_and_a_failed_trial_counts_as_the_worst() -> None:
    controller = controller_of(sweep_spec(full=9, trials=9, failure_budget=9, scheduler=SCHEDULER))
    runs = _all(controller)
    _reach(controller, runs[:8])
    assert _all(controller) == []
    controller.step(Failed(8, "HANG", "no step"))
    assert [run.trial for run in _all(controller)] == [7, 6, 5]


def test_nan_is_never_promoted() -> None:
    controller = controller_of(sweep_spec(full=9, trials=9, scheduler=SCHEDULER))
    for run in _all(controller):
        controller.step(Reached(run.trial, 1.0, 0.5 if run.trial == 4 else math.nan))
    assert [run.trial for run in _all(controller)] == [4]


def test_a_bracket_that_is_cut_promotes_its_share_and_always_one() -> None:
    controller = controller_of(sweep_spec(full=9, trials=2, scheduler=SCHEDULER))
    _reach(controller, _all(controller))
    assert [(run.trial, run.until) for run in _all(controller)] == [(1, 3)]


def test_an_extended_sweep_fills_the_bracket_up_and_promotes_what_that_has_room_for() -> None:
    controller = controller_of(sweep_spec(full=9, trials=3, scheduler=SCHEDULER))
    while runs := _all(controller):
        _reach(controller, runs)
    assert [trial.length for trial in controller.trials.values()] == [1, 1, 9]
    controller.step(Extended(7))
    runs = _all(controller)
    assert [run.until for run in runs] == [1] * 6 + [3]
    for run in runs:
        controller.step(Reached(run.trial, run.until, -1.0))
    assert [(run.trial, run.until) for run in _all(controller)] == [(1, 3), (0, 3), (9, 9)]


def test_another_takes_the_place_of_a_paused_trial_that_its_user_ends() -> None:
    controller = controller_of(sweep_spec(full=9, trials=9, scheduler=SCHEDULER))
    runs = _all(controller)
    _reach(controller, runs[:8])
    assert controller.step(Cancelled(7)) == [End(7, TrialState.STOPPED, "ended by its user")]
    _reach(controller, runs[8:])
    assert [run.trial for run in _all(controller)] == [8, 6, 5]


def test_rungs_count_the_trials_of_whole_and_of_cut_brackets() -> None:
    scheduler = trial_scheduler_of(sweep_spec(full=9, scheduler=SCHEDULER))
    assert scheduler.rungs(17) == (Rung(1, 17), Rung(3, 3 + 5 + 3), Rung(9, 1 + 1 + 3))
    assert scheduler.rungs(19) == (Rung(1, 19), Rung(3, 12), Rung(9, 6))
