"""The read side's values: extents, comparisons, pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from epochal.tracking import runs
from epochal.tracking.metric_spool import Point
from epochal.tracking.runs import RunInfo, compared, extent, list_runs, main_metrics, trial_runs
from epochal.tracking.trial_runs import STATE_TAG, TRIAL_TAG


def run(id: str, metrics: dict[str, float], params: dict[str, str]) -> RunInfo:
    return RunInfo(id, "n", "j", "e", "1", "FINISHED", "", 1.0, 3.5, metrics, params, {}, "", ())


def history(*values: float) -> list[Point]:
    return [Point("loss", value, 0, step) for step, value in enumerate(values)]


def test_extent_names_the_steps() -> None:
    reached = extent(history(3.0, math.nan, 1.0, 2.0, math.nan))
    assert reached is not None
    assert (reached.last, reached.best("min"), reached.best("max")) == (2.0, (1.0, 2), (3.0, 0))
    assert extent([]) is None


def test_only_parameters_that_differ_are_compared() -> None:
    one = run("1", {"val/loss": 1.0, "system/n/cpu": 5.0}, {"lr": "0.1", "epochs": "5", "only": "x"})
    two = run("2", {"val/loss": 2.0, "train/loss": 3.0}, {"lr": "0.2", "epochs": "5"})
    comparison = compared([one, two], [{"best val/loss": 0.5}, {}])
    assert comparison.params == {"lr": ("0.1", "0.2"), "only": ("x", None)}
    assert comparison.metrics == {"best val/loss": (0.5, None), "val/loss": (1.0, 2.0), "train/loss": (None, 3.0)}
    assert list(comparison.metrics) == ["best val/loss", "val/loss", "train/loss"]


def test_main_metrics_are_about_the_training() -> None:
    names = ["system/n/cpu", "perf/step_seconds", "train/loss", "val/loss", "val/accuracy"]
    assert main_metrics(dict.fromkeys(names, 0.0)) == ["val/accuracy", "val/loss", "train/loss"]


def test_no_database_means_no_runs_and_makes_none(tmp_path: Path) -> None:
    assert list_runs(f"sqlite:///{tmp_path / 'mlflow.db'}") == []
    assert list(tmp_path.iterdir()) == []


def test_trials_that_trained_to_the_end_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in ``epochal sweep status`` and ``sweep best``: at a short length a value may be good by luck."""
    known = [
        ("0", "STOPPED", 0.99), ("1", "COMPLETED", 0.8), ("2", "FAILED", 0.95), ("3", "COMPLETED", 0.9),
        ("4", "COMPLETED", math.nan), ("5", "PAUSED", 0.97),
    ]  # fmt: skip
    found = [
        replace(
            run(number, {"objective": value}, {}),
            tags={TRIAL_TAG: number, STATE_TAG: state},
            status="FAILED" if state == "FAILED" else "FINISHED",
        )
        for number, state, value in known
    ]
    monkeypatch.setattr(runs, "_search", lambda *arguments, **options: iter(found))
    sweep = run("sweep", {}, {"objective.mode": "max"})
    assert [one.id for one in trial_runs("", sweep)] == ["3", "1", "0", "5", "2", "4"]
