"""How `epochal run` ends, and how it exits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from epochal.agent import foreground_job
from epochal.agent.foreground_job import ForegroundJob
from epochal.agent.observer import SilentObserver
from epochal.agent.summary import Summary
from epochal.engine.connection import Connection
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.settings import DEFAULT_RETENTION, Home


@pytest.mark.parametrize(
    ("state", "refused", "code"),
    [
        ("SUCCEEDED", False, 0),
        ("FAILED", False, 1),
        ("FAILED", True, 2),
        ("STOPPED", False, 130),
        ("PAUSED", True, 130),
    ],
)
def test_exit_codes(state: str, refused: bool, code: int) -> None:
    assert Summary("job", state, "", "", 1, 1.0, "", "", "", refused=refused).exit_code == code


def test_a_sweep_that_is_asked_for_more_as_it_ends_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried: list[int] = []

    def trained(agent: Any, lease: Any, observer: Any) -> Any:
        def run() -> Any:
            source: Ledger = agent.source
            source.running(lease, 1)
            if not carried:
                source.ask(lease.job_id, {"kind": "extend", "trials": 1}, "late")
            carried.append(lease.epoch)
            return source.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)

        return SimpleNamespace(run=run, tracking=None)

    monkeypatch.setattr(foreground_job, "JobRunner", trained)
    job = ForegroundJob(Home(tmp_path), "sqlite:///unused", DEFAULT_RETENTION, SilentObserver())
    job._job = job._ledger.submit({"version": 1, "sweep": {"trials": 1}}, name="small-sweep")
    job.run(cast("Connection", None), lambda: None)
    assert job._ledger.job(job._job.id).state is JobState.SUCCEEDED
    assert carried == [1, 2]
    job.close()
