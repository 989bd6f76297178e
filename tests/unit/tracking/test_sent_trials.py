"""What MLflow has of a sweep's trials, as several readers of its file see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.sweeps.trials import Trial, TrialState
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.sent_trials import SentTrial, SweepTrials
from epochal.tracking.sync_state import fingerprint
from epochal.tracking.trial_runs import Journal, TrialRuns, trial_folder


def test_a_file_that_was_written_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    """The tracker compacts it while the conductor, which links runs to trials, follows it."""
    writes, follows = SweepTrials(tmp_path), SweepTrials(tmp_path)
    (tmp_path / "trials").mkdir()
    writes.note(0, SentTrial("run-0"), "parent")
    path = tmp_path / "trials" / "sent.jsonl"
    size, changes = 0, 0
    while path.stat().st_size > size:
        size, changes = path.stat().st_size, changes + 1
        writes.note(0, SentTrial("run-0", changes), "parent")
        follows.read_sent()
    assert changes > 1000
    writes.note(1, SentTrial("run-1"), "parent")
    follows.read_sent()
    assert follows.run_ids == {0: "run-0", 1: "run-1"}


def test_the_trials_of_a_sweep_are_read_once_and_not_with_each_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thousand trials each look took a tenth of a second, every second."""
    DesiredRun(job_id="sweep", experiment="e", name="n").save(tmp_path)
    runs, followed = TrialRuns(tmp_path), []
    for number in range(3):
        runs.record(Trial(number, {"lr": 0.1}, TrialState.RUNNING))
        MetricSpool(trial_folder(tmp_path, number), "0").close()
    trials = SweepTrials(tmp_path)
    trials.read()
    whole = fingerprint(tmp_path)
    monkeypatch.setattr(Journal, "follow", lambda journal, raw: followed.append(raw))
    assert (fingerprint(tmp_path, trials), followed) == (whole, [])
    MetricSpool(trial_folder(tmp_path, 1), "1").close()
    assert fingerprint(tmp_path, trials) != whole
