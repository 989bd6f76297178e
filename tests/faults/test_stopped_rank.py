"""SIGSTOP of a rank: it answers nobody and dies of nothing, so the watchdog has to notice; the job goes on exactly."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from served import STEPS, Served, endings, follow_each_other, ranks_of, slow_job_unbroken, succeeded

from epochal.engine.watchdog import DEFAULT_LIMITS
from epochal.ledger.states import Outcome, Reason

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NOTICED_SECONDS = DEFAULT_LIMITS["train"] + 30


def test_a_stopped_rank_is_a_hang_and_the_job_goes_on(tmp_path: Path) -> None:
    expected = slow_job_unbroken(tmp_path / "unbroken")
    assert [step for step, _ in expected] == list(range(1, STEPS + 1))
    with Served(tmp_path) as served:
        served.slow.touch()
        agent = served.agent("agent-1")
        job_id = served.submitted()
        served.until_step(job_id, 50)
        stopped = ranks_of(agent, job_id)[1]
        begun = time.monotonic()
        stopped.suspend()
        served.slow.unlink()
        served.until(lambda: not stopped.is_running(), "the stopped rank is ended", NOTICED_SECONDS)
        print(f"ended {time.monotonic() - begun:.0f} s after it was stopped")
        job = served.until_ended(job_id)
        attempts = served.ledger.attempts(job_id)
        assert succeeded(job), job
        assert endings(attempts) == [(Outcome.FAILED, Reason.HANG), (Outcome.SUCCEEDED, Reason.COMPLETED)]
        assert "rank 1: no progress for" in attempts[0].message
        assert follow_each_other(attempts)
        served.run_agrees(job, expected)
        assert not ranks_of(agent, job_id)
