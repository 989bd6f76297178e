"""`epochal runs` and `ui` say what MLflow does not have yet, and what they reconcile on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.cli.mlflow_pages import recorded_at
from epochal.ledger.ledger import Ledger
from epochal.settings import home
from epochal.spec.load import load_spec
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.sync_state import SyncState

QUICKSTART = Path(__file__).parents[2] / "jobs" / "quickstart.yaml"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def folder() -> Path:
    """A job's folder, whose run is on a tracking server that is away."""
    folder = home().job("digits-cnn-1")
    DesiredRun.of("digits-cnn-1", load_spec(QUICKSTART).spec).save(folder)
    SyncState(uri=NOBODY, run_id="r").save(folder)
    return folder


def test_what_mlflow_does_not_have_yet_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recorded_at() == home().tracking_uri
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("warning: MLflow does not have ")
    assert f"MLflow at {NOBODY} cannot be reached" in told.err
    assert "of digits-cnn-1 yet" in told.err
    assert "`epochal runs sync` sends it" in told.err


def test_a_job_that_is_running_is_not_missed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own process sends what it tells, moments later."""
    from epochal.tracking.sync_state import folder_lock

    with folder_lock(folder) as mine:
        assert mine
        recorded_at()
    assert capsys.readouterr().err == ""


def test_a_job_that_was_left_behind_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    home().root.mkdir(parents=True)
    with Ledger.open(home().ledger_url) as ledger:
        job = ledger.submit({"version": 1}, name="lost")
        ledger.lease("gone", 0.0, job.id)
    recorded_at()
    assert f"{job.id} was left behind by a process that died; it is PAUSED now" in capsys.readouterr().err
