"""SIGKILL of a worker: the job goes on from its last checkpoint by itself, and nobody can tell from its curve."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from foreground import SHORT_JOB, STEPS, Curve, Foreground, history, run_status


def killed(home: Path, rank: int, step: int) -> Curve:
    """The loss curve of a job whose ``rank`` is killed once it has logged ``step``."""
    job = Foreground.start(home, *SHORT_JOB)
    worker = job.worker(rank)
    job.wait_for_step(step)
    worker.kill()
    summary = job.finish()
    assert (summary["exit"], summary["state"], summary["attempts"]) == (0, "SUCCEEDED", 2), summary
    assert run_status(summary) == "FINISHED"
    return history(summary["tracking_uri"], summary["run_id"])


@pytest.mark.slow
def test_a_killed_worker_leaves_no_trace_in_the_curve(tmp_path: Path, unbroken: Curve) -> None:
    assert [step for step, _ in unbroken] == list(range(1, STEPS + 1))
    assert killed(tmp_path, rank=1, step=40) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rank", [0, 1])
def test_any_rank_may_be_killed_at_any_step(tmp_path: Path, unbroken: Curve, rank: int, seed: int) -> None:
    step = random.Random(f"{rank} {seed}").randrange(1, STEPS - 30)
    assert killed(tmp_path, rank, step) == unbroken
