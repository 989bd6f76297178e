"""What the controller of a sweep commands, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from epochal.errors import ConflictError, NotFoundError, UsageError
from epochal.spec.job import JobSpec
from epochal.sweeps.check import trial_scheduler_of
from epochal.sweeps.controller import STOPPED_BY_USER, Controller
from epochal.sweeps.inputs import from_json, to_json
from epochal.sweeps.searcher import learnt_from
from epochal.sweeps.trials import (
    Added,
    Asked,
    Cancelled,
    Copy,
    End,
    Extended,
    Failed,
    Finish,
    Input,
    Interrupted,
    Measured,
    Point,
    Reached,
    Repeated,
    Run,
    Trial,
    TrialState,
)
from sweep_pieces import LR, Draws, controller_of, sweep_spec

ASHA = {"name": "asha", "eta": 2, "min": "1ep"}
COMPLETED, FAILED, PAUSED = TrialState.COMPLETED, TrialState.FAILED, TrialState.PAUSED
RUNNING, STOPPED, WAITING = TrialState.RUNNING, TrialState.STOPPED, TrialState.WAITING


def asked(controller: Controller, holds: int | None = None) -> Run:
    (run,) = controller.step(Asked(holds))
    assert isinstance(run, Run)
    return run


def states(controller: Controller) -> list[TrialState]:
    return [trial.state for trial in controller.trials.values()]


def test_a_free_worker_gets_a_new_point_and_its_trial_is_over_at_the_full_length() -> None:
    controller = controller_of(sweep_spec(full=9, trials=2))
    run = asked(controller)
    assert run == Run(0, Draws().suggest(0, ()) or {}, 9.0)
    assert states(controller) == [RUNNING]
    assert controller.step(Reached(0, 9.0, 0.5)) == [End(0, COMPLETED)]
    assert controller.trials[0].curve == (Measured(9.0, 0.5),)


def test_the_sweep_finishes_once_with_the_last_trial() -> None:
    controller = controller_of(sweep_spec(trials=2))
    asked(controller), asked(controller)
    assert controller.step(Asked()) == []
    assert controller.step(Reached(1, 9.0, 0.5)) == [End(1, COMPLETED)]
    assert controller.step(Reached(0, 9.0, 0.6)) == [End(0, COMPLETED), Finish()]
    assert controller.is_finished
    assert controller.step(Asked()) == []


def test_an_exhausted_searcher_ends_the_sweep_when_somebody_asks() -> None:
    for looked in (False, True):
        controller = controller_of(sweep_spec(trials=5), Draws(points=1))
        asked(controller)
        if looked:
            assert controller.step(Asked()) == []
        assert controller.step(Reached(0, 9.0, 0.5)) == [End(0, COMPLETED)]
        assert controller.step(Asked()) == [Finish()]


def test_an_interrupted_segment_is_trained_again_before_all_else_lowest_number_first() -> None:
    controller = controller_of(sweep_spec(trials=5))
    runs = [asked(controller) for _ in range(3)]
    assert controller.step(Interrupted((2, 1))) == []
    assert states(controller) == [RUNNING, WAITING, WAITING]
    assert [asked(controller), asked(controller)] == runs[1:]
    assert asked(controller).trial == 3
    controller.step(Interrupted())
    assert states(controller) == [WAITING] * 4
    assert [asked(controller).trial for _ in range(5)] == [0, 1, 2, 3, 4]


def test_an_interrupted_trial_that_was_cancelled_does_not_come_back() -> None:
    controller = controller_of(sweep_spec(trials=1))
    asked(controller)
    controller.step(Interrupted())
    stopped = End(0, STOPPED, "ended by its user")
    assert controller.step(Cancelled(0)) == [stopped, Finish()]
    assert controller.trials[0].why == STOPPED_BY_USER


def test_a_trial_that_is_done_early_is_completed_where_it_ended() -> None:
    controller = controller_of(sweep_spec(trials=1))
    asked(controller)
    assert controller.step(Reached(0, 4.0, 0.5, done=True)) == [End(0, COMPLETED), Finish()]
    assert controller.trials[0].length == 4.0


def test_paused_trials_are_ended_with_the_sweep_and_may_be_promoted_once_it_is_extended() -> None:
    controller = controller_of(sweep_spec(full=2, trials=2, scheduler=ASHA))
    asked(controller), asked(controller)
    controller.step(Reached(0, 1.0, 0.5))
    controller.step(Reached(1, 1.0, 0.6))
    assert states(controller) == [PAUSED, PAUSED]
    assert asked(controller).trial == 1
    *_, end, finish = controller.step(Reached(1, 2.0, 0.7))
    assert (end, finish) == (End(0, STOPPED, "not promoted before the sweep ended"), Finish())

    assert controller.step(Extended(2)) == []
    assert (controller.is_finished, states(controller)) == (False, [PAUSED, COMPLETED])
    asked(controller), asked(controller)
    controller.step(Reached(2, 1.0, 0.1))
    controller.step(Reached(3, 1.0, 0.2))
    assert asked(controller) == Run(0, controller.trials[0].point, 2.0)
    assert controller.step(Reached(0, 2.0, 0.9))[-1] == Finish()
    assert states(controller) == [COMPLETED, COMPLETED, STOPPED, STOPPED]


def test_a_trial_that_the_user_has_ended_is_not_promoted_after_an_extension() -> None:
    controller = controller_of(sweep_spec(full=2, trials=2, scheduler=ASHA))
    asked(controller), asked(controller)
    controller.step(Reached(0, 1.0, 0.9))
    controller.step(Cancelled(0))
    assert controller.step(Reached(1, 1.0, 0.1))[-1] == Finish()
    controller.step(Extended(2))
    asked(controller), asked(controller)
    controller.step(Reached(2, 1.0, 0.3))
    controller.step(Reached(3, 1.0, 0.2))
    assert asked(controller).trial == 2
    assert states(controller)[0] is STOPPED


def test_more_failures_than_the_budget_end_what_runs_and_fail_the_sweep() -> None:
    controller = controller_of(sweep_spec(trials=5, failure_budget=1))
    for _ in range(3):
        asked(controller)
    assert controller.step(Failed(0, "HANG", "no step")) == [End(0, FAILED, "no step")]
    commands = controller.step(Failed(2, "OUT_OF_MEMORY", "none is left"))
    assert commands[:2] == [End(2, FAILED, "none is left"), End(1, STOPPED, "the sweep failed")]
    said = "2 trials failed, and failure_budget is 1; the last, trial 2, with OUT_OF_MEMORY: none is left"
    assert commands[2:] == [Finish(said, "OUT_OF_MEMORY")]
    assert controller.trials[2].why == "OUT_OF_MEMORY"


def test_what_ran_when_the_sweep_failed_is_trained_on_once_it_is_extended_and_failures_count_anew() -> None:
    controller = controller_of(sweep_spec(trials=2, failure_budget=0))
    runs = [asked(controller) for _ in range(2)]
    assert isinstance(controller.step(Failed(0, "HANG", "x"))[-1], Finish)
    controller.step(Extended(1))
    assert states(controller) == [FAILED, WAITING]
    assert asked(controller) == runs[1]
    assert asked(controller).trial == 2


def test_points_that_were_added_come_next_and_beyond_the_count() -> None:
    controller = controller_of(sweep_spec(trials=1))
    own: Point = {LR: 0.25}
    controller.step(Added((own, own)))
    assert [asked(controller).point for _ in range(2)] == [own, own]
    assert asked(controller).point == Draws().suggest(0, ())
    assert controller.step(Asked()) == []


def test_the_specs_own_points_come_first_and_count() -> None:
    own: Point = {LR: 0.25}
    controller = controller_of(sweep_spec(trials=2, points=[own]))
    assert asked(controller).point == own
    assert asked(controller).point == Draws().suggest(0, ())
    assert controller.step(Asked()) == []


def test_what_a_point_of_the_users_leaves_out_is_drawn_the_same_each_time() -> None:
    space = {path: {"dist": "uniform", "low": 0.1, "high": 0.9} for path in (LR, "train.optimizer.weight_decay")}
    points = []
    for _ in range(2):
        controller = controller_of(sweep_spec(trials=2, space=space, points=[{LR: 0.25}, {}]))
        controller.step(Added(({LR: 0.75},)))
        points.append([asked(controller).point for _ in range(3)])
    assert points[0] == points[1]
    assert [point[LR] for point in points[0][:2]] == [0.75, 0.25]
    assert len({point["train.optimizer.weight_decay"] for point in points[0]}) == 3


def test_a_repeat_has_another_seed_and_trains_to_the_full_length_at_once() -> None:
    controller = controller_of(sweep_spec(full=4, trials=2, scheduler=ASHA))
    point = asked(controller).point
    controller.step(Repeated(0, 2))
    first, second = asked(controller), asked(controller)
    assert first == Run(1, {**point, "train.seed": 1}, 4.0)
    assert second == Run(2, {**point, "train.seed": 2}, 4.0)
    controller.step(Repeated(2, 1))
    controller.step(Repeated(0, 1))
    assert [asked(controller).point["train.seed"] for _ in range(2)] == [3, 4]
    assert controller.step(Reached(1, 4.0, 0.3)) == [End(1, COMPLETED)]


def test_trials_that_were_repeated_change_no_decision_about_others() -> None:
    plain, repeated = (controller_of(sweep_spec(full=4, trials=4, scheduler=ASHA)) for _ in range(2))
    for controller in (plain, repeated):
        asked(controller)
    repeated.step(Repeated(0, 1))
    asked(repeated)
    repeated.step(Reached(1, 4.0, 0.9))
    assert plain.step(Reached(0, 1.0, 0.5)) == repeated.step(Reached(0, 1.0, 0.5))
    assert asked(plain).point == asked(repeated).point


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("scheduler", [ASHA, {"name": "pbt", "min": "1ep"}], ids=["asha", "pbt"])
def test_best_is_known_after_whatever_happens(mode: str, scheduler: dict[str, Any]) -> None:
    draw = Random(f"{mode} {scheduler}")
    controller = controller_of(sweep_spec(4, mode, scheduler, trials=30, failure_budget=30))
    sign = -1 if mode == "max" else 1
    for _ in range(400):
        running = [trial for trial in controller.trials.values() if trial.state is RUNNING]
        if len(running) < 4 and controller.step(Asked()):
            continue
        if not running:
            break
        trial = draw.choice(running)
        value = draw.choice([math.nan, *(draw.random() for _ in range(5))])
        reached = Reached(trial.number, trial.until, value)
        others = [Failed(trial.number, "USER_ERROR", "raised"), Interrupted((trial.number,)), Cancelled(trial.number)]
        controller.step(draw.choice([*[reached] * 9, *others]))
        measured = [one for one in controller.trials.values() if one.curve and one.state is not FAILED]
        numbers = [one for one in measured if not math.isnan(one.curve[-1].value)]
        order = [(one.state is not COMPLETED, sign * one.curve[-1].value, one.number) for one in numbers]
        assert controller.best == (controller.trials[min(order)[-1]] if order else None)
    assert len(controller.trials) > 10


def test_best_is_by_the_newest_value_without_failed_ones_and_nan() -> None:
    controller = controller_of(sweep_spec(trials=4))
    assert controller.best is None
    for number, value in enumerate([math.nan, 0.5, 0.5]):
        asked(controller)
        controller.step(Reached(number, 9.0, value))
    assert controller.best is controller.trials[1]
    lowest = controller_of(sweep_spec(trials=3, mode="min"))
    for number, value in enumerate([0.5, 0.4, math.inf]):
        asked(lowest)
        lowest.step(Reached(number, 9.0, value))
    assert lowest.best is lowest.trials[1]


class Looks:
    """A searcher that keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[Trial]]] = []

    def suggest(self, number: int, history: Sequence[Trial]) -> Point | None:
        self.seen.append((number, list(history)))
        return {LR: 0.5}


def test_a_searcher_is_shown_all_trials_and_counts_its_own() -> None:
    earlier = (Trial(-1, {LR: 0.1}, COMPLETED, 9.0, (Measured(9.0, 0.3),)),)
    searcher, spec = Looks(), sweep_spec(trials=2)
    controller = Controller(spec, searcher, trial_scheduler_of(spec), earlier)
    controller.step(Added(({LR: 0.25},)))
    asked(controller), asked(controller)
    controller.step(Reached(0, 9.0, 0.7))
    asked(controller)
    assert [number for number, _ in searcher.seen] == [0, 1]
    assert searcher.seen[1][1] == [earlier[0], controller.trials[0], controller.trials[1]]


def test_a_replay_does_not_ask_the_searcher_for_what_it_has_chosen_before() -> None:
    spec = sweep_spec(trials=3, points=[{LR: 0.25}])
    controller, told = controller_of(spec, Draws(points=1)), [Asked(), Asked(), Reached(0, 9.0, 0.5), Asked()]
    written = [to_json(one, controller.step(one)) for one in told]
    searcher = Looks()
    replayed = controller_of(spec, searcher)
    for one in written[:-1]:
        replayed.step(from_json(one))
    assert replayed.trials == controller.trials
    assert searcher.seen == []
    assert replayed.step(from_json(written[-1]))
    assert [number for number, _ in searcher.seen] == [1]


def test_the_point_of_a_promoted_trial_begins_no_other_in_a_replay() -> None:
    spec = sweep_spec(full=3, trials=9, scheduler={"name": "hyperband", "min": "1ep"})
    controller, told = controller_of(spec, Draws(points=1)), [Asked(), Reached(0, 1.0, 0.5), Asked()]
    answers = [controller.step(one) for one in told]
    assert answers[2] == [Run(0, controller.trials[0].point, 3.0)]
    replayed = controller_of(spec, Draws(points=1))
    written = [to_json(one, answer) for one, answer in zip(told, answers, strict=True)]
    assert [replayed.step(from_json(one)) for one in written] == answers


REFUSED: list[tuple[Input, type[Exception], str]] = [
    (Asked(9), NotFoundError, "no trial is named '9'"),
    (Reached(9, 1.0, 0.5), NotFoundError, "this sweep has 3"),
    (Reached(0, 2.0, 0.5), ConflictError, "was to train to length 1, not 2"),
    (Reached(0, 0.5, 0.5), ConflictError, "was to train to length 1, not 0.5"),
    (Reached(0, 2.0, 0.5, done=True), ConflictError, "was to train to length 1, not 2"),
    (Reached(1, 1.0, 0.5), ConflictError, "trial 1 is PAUSED, and trains no segment"),
    (Failed(1, "HANG", ""), ConflictError, "trial 1 is PAUSED"),
    (Interrupted((0, 1)), ConflictError, "trial 1 is PAUSED"),
    (Cancelled(2), ConflictError, "trial 2 is STOPPED already"),
    (Repeated(9, 1), NotFoundError, "no trial is named '9'"),
    (Repeated(0, 0), UsageError, "at least one of times"),
    (Extended(0), UsageError, "at least one of trials"),
    (Added(()), UsageError, "at least one of points"),
]


@pytest.mark.parametrize(("told", "error", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_is_refused_and_changes_nothing(told: Input, error: type[Exception], said: str) -> None:
    controller, untouched = (_in_the_middle(sweep_spec(full=4, trials=9, scheduler=ASHA)) for _ in range(2))
    with pytest.raises(error, match=said):
        controller.step(told)
    assert controller.trials == untouched.trials
    for onward in (Asked(), Reached(0, 1.0, 0.9), Asked(0), Asked(), Interrupted(), Asked()):
        assert controller.step(onward) == untouched.step(onward)


def _in_the_middle(spec: JobSpec) -> Controller:
    """Trial 0 runs, 1 is paused, 2 was cancelled."""
    controller = controller_of(spec)
    for told in (Asked(), Asked(), Asked(), Reached(1, 1.0, 0.4), Cancelled(2)):
        controller.step(told)
    return controller


def test_the_spec_names_the_searcher_and_the_trial_scheduler() -> None:
    spec = sweep_spec(full=4, trials=4, scheduler=ASHA, search={"name": "random", "seed": 3})
    controller, other = Controller.of(spec), Controller.of(spec)
    assert asked(controller) == asked(other)
    assert controller.trials[0].until == 1.0
    assert 0.0001 <= controller.trials[0].point[LR] <= 1


def test_a_name_that_is_not_known_is_refused() -> None:
    with pytest.raises(NotFoundError, match="no trial scheduler is named 'asah'"):
        Controller.of(sweep_spec(scheduler={"name": "asah"}))


def test_no_controller_without_a_sweep() -> None:
    spec = sweep_spec()
    with pytest.raises(UsageError, match="is no sweep"):
        Controller(spec.model_copy(update={"sweep": None}), Draws(), trial_scheduler_of(spec))


def test_a_copy_is_commanded_at_once_and_the_trial_goes_on_with_another_point() -> None:
    controller = controller_of(sweep_spec(full=3, trials=2, scheduler={"name": "pbt", "quantile": 0.5}))
    asked(controller), asked(controller)
    controller.step(Reached(0, 1.0, 0.9))
    assert controller.step(Reached(1, 1.0, 0.1)) == [Copy(1, 0, 1.0)]
    trial = controller.trials[1]
    assert (trial.state, trial.until, trial.copied) == (WAITING, 2.0, 0)
    assert trial.point != Draws().suggest(1, ())


def test_it_is_told_what_a_warm_start_brings() -> None:
    spec = sweep_spec(search={"name": "tpe", "from": "earlier-1"})
    points = [{LR: 0.1}, {LR: 0.2}, {LR: 7.0}, {"train.seed": 1}]
    earlier = [Trial(number - 4, point, curve=(Measured(1.0, 0.5),)) for number, point in enumerate(points)]
    earlier.append(Trial(-5, {LR: 0.3}))
    others = "; the others were not measured, or are no points of this space"
    assert learnt_from(spec, earlier) == f"tpe learns from 2 of the 5 trials of earlier-1{others}"
    assert learnt_from(spec, earlier[:2]) == "tpe learns from 2 of the 2 trials of earlier-1"
    failed = Trial(-6, {LR: 0.2}, TrialState.FAILED)  # what diverges is worth knowing
    assert learnt_from(spec, [failed]) == "tpe learns from 1 of the 1 trials of earlier-1"
    assert learnt_from(sweep_spec(), []) == ""
