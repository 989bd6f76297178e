"""The document that tells where a training is."""

from __future__ import annotations

import json
import math

from epochal.agent.progress import POINTS, ProgressLog, thinned
from epochal.training.control import Progress


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    log = ProgressLog()
    for step in range(1, 5001):
        log.add(Progress("train", step, 10_000, 0, 10.0, {"train/loss": 1 / step}), now=step * 0.01)
    document = log.document()
    history = document["loss_history"]
    assert len(history) == POINTS
    assert (history[0], history[-1]) == ([1, 1.0], [5000, 0.0002])
    assert [step for step, _ in history] == sorted({step for step, _ in history})
    assert document["eta_seconds"] == 50.0
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_what_is_not_finite_is_left_out() -> None:
    log = ProgressLog()
    metrics = {"train/loss": math.nan, "val/accuracy": 0.5, "perf/samples_per_second": 12.0}
    log.add(Progress("validate", 1, 2, 0, 1.0, metrics), now=0.0)
    document = log.document()
    assert document["metrics"] == {"val/accuracy": 0.5, "perf/samples_per_second": 12.0}
    assert (document["samples_per_second"], document["loss_history"], document["eta_seconds"]) == (12.0, [], None)


def test_the_pace_starts_over_where_the_training_went_back() -> None:
    log = ProgressLog()
    for now, step in ((0.0, 90), (1.0, 100), (2.0, 50), (3.0, 60)):
        log.add(Progress("train", step, 160, 0, 1.0, {"train/loss": 1.0}), now)
    assert log.document()["eta_seconds"] == 10.0


def test_a_step_that_was_reached_since_the_last_report_is_told_and_an_earlier_one_is_not() -> None:
    log = ProgressLog()
    assert not log.reached(3), "before the first report"
    log.add(Progress("train", 20, 30, 1, 3.0, {"train/loss": 1.0}), now=0.0)
    assert (log.reached(23), log.reached(22), log.reached(23)) == (True, False, False)
    document = log.document()
    assert (document["step"], document["loss_history"]) == (23, [[20, 1.0]])


def test_a_validation_that_begins_between_two_reports_is_told() -> None:
    log = ProgressLog()
    log.add(Progress("train", 20, 30, 1, 3.0, {"train/loss": math.nan}), now=0.0)
    told = (log.reached(20, "train"), log.reached(20, "validate"), log.reached(20), log.reached(20, "validate"))
    assert told == (False, True, False, False)
    assert log.document()["phase"] == "validate"


def test_nothing_is_told_before_the_first_report() -> None:
    assert ProgressLog().document() == {}
    assert thinned([]) == []
