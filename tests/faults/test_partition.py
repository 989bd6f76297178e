"""The network between an agent and its server breaks while a job trains; another agent takes the job over meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from served import (
    SLOW_JOB,
    Served,
    endings,
    follow_each_other,
    last_step,
    ranks_of,
    seconds_until,
    slow_job_unbroken,
    succeeded,
)

from epochal.ledger.states import Outcome, Reason
from epochal.ledger.values import LEASE_SECONDS
from epochal.tracking.server import plan_server
from namespaces import Namespace, bridged

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs `ip` (iproute2)"),
]

TAKEN_OVER_SECONDS = LEASE_SECONDS + 60
FENCED_SECONDS = 5.0
"""The old workers look for a newer attempt four times a second; a busy machine lets them wait for their turn."""
CHANGES = ("train.steps=900", "train.validate_every=900steps")


@pytest.fixture
def spaces() -> Iterator[list[Namespace]]:
    with bridged(f"ep{os.getpid() % 100000}", 3) as spaces:
        yield spaces


@contextmanager
def mlflow(space: Namespace, uri: str, log: Path) -> Iterator[str]:
    """MLflow's server in a namespace; its URL there."""
    plan = plan_server(uri, space.address)
    environ = {**os.environ, **plan.environment}
    with log.open("wb") as output:
        process = subprocess.Popen(space.command(*plan.command), env=environ, stdout=output, stderr=output)
    try:
        yield plan.url
    finally:
        process.terminate()
        process.wait(30)


def test_a_job_moves_to_another_agent_and_comes_out_the_same(tmp_path: Path, spaces: list[Namespace]) -> None:
    expected = slow_job_unbroken(tmp_path / "unbroken", *CHANGES)
    middle, left, right = spaces
    runs = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    with (
        mlflow(middle, runs, tmp_path / "mlflow.log") as tracking_uri,
        Served(tmp_path, tracking_uri, middle.command(), middle.address) as served,
    ):
        served.runs = runs
        served.slow.touch()
        first = served.agent("left", left.command())
        served.until_alive("left")
        changes = [part for change in (*CHANGES, f"env.SLOW_WHILE={served.slow}") for part in ("-s", change)]
        job_id = served.commanded(SLOW_JOB, *changes, within=middle.command())
        folder = served.home.job(job_id)
        second = served.agent("right", right.command())
        served.until_step(job_id, 50)
        served.until_alive("right")
        served.until(lambda: served.ledger.job(job_id).run_id, "its run is told")

        old = list(ranks_of(first, job_id).values())
        left.cut()
        cut, at = time.time(), last_step(folder)
        served.until((folder / "attempts" / "2").exists, "the other agent goes on", TAKEN_OVER_SECONDS)
        assert len(old) == 2
        fenced = seconds_until(lambda: not any(one.is_running() for one in old), 4 * FENCED_SECONDS)
        attempts = served.ledger.attempts(job_id)
        print(f"taken over {attempts[1].leased_at - cut:.1f} s after the cut, old workers gone {fenced:.2f} s later")
        assert last_step(folder) > at, "the training went on without its server"
        assert fenced < FENCED_SECONDS
        assert [one.agent.partition("/")[0] for one in attempts] == ["left", "right"]
        served.until(lambda: ranks_of(second, job_id), "the second attempt's workers")

        left.mend()
        mended = time.time()
        served.until(
            lambda: any(one.name == "left" and one.seen_at > mended for one in served.ledger.agents()), "left is back"
        )
        time.sleep(3)
        assert not ranks_of(first, job_id)
        assert first.running
        served.slow.unlink()
        job = served.until_ended(job_id)
        attempts = served.ledger.attempts(job_id)
        assert succeeded(job), job
        assert endings(attempts) == [
            (Outcome.INTERRUPTED, Reason.INTERRUPTED),
            (Outcome.SUCCEEDED, Reason.COMPLETED),
        ]
        assert follow_each_other(attempts)
        served.run_agrees(job, expected)

        assert second.stop() == 0
        again = served.until_ended(served.commanded(SLOW_JOB, *changes, within=middle.command()))
        assert succeeded(again), "the agent that was cut off is as good as before"
        assert served.ledger.attempts(again.id)[0].agent.startswith("left/")
