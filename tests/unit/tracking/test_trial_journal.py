"""What is written down of a sweep's trials for MLflow."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from epochal.sweeps.trials import Measured, Trial, TrialState
from epochal.tracking.trial_runs import Journal, TrialRuns, journal_path


def test_a_value_that_early_stopping_replaces_is_written_down(tmp_path: Path) -> None:
    runs = TrialRuns(tmp_path)
    trial = Trial(0, {"lr": 0.1}, TrialState.RUNNING, 4.0, (Measured(1.0, math.nan), Measured(2.0, 0.5)))
    runs.record(trial)
    ended = replace(trial, state=TrialState.COMPLETED, curve=(*trial.curve[:1], Measured(2.0, 0.4)))
    for _ in range(2):
        runs.record(ended)
    assert len(journal_path(tmp_path).read_text().splitlines()) == 2, "what is known already is not written again"
    journal = Journal(tmp_path)
    journal.read()
    assert journal.runs[0].value == 0.4
    assert [(point.value, point.step) for point in journal.runs[0].metrics() if point.step == 2] == [(0.4, 2)]
    assert [(point.value, point.step) for point in journal.improvements("min")] == [(0.5, 2), (0.4, 3)]
