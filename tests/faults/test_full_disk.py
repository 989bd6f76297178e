"""The storage fills up under a training job: it says so, nothing is lost, and it succeeds once there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from foreground import Curve, last_step
from served import STEPS, Served, endings, follow_each_other, ranks_of, slow_job_unbroken, succeeded

from epochal.ledger.states import JobState, Outcome, Reason
from epochal.training import checkpoint

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("mount") is None, reason="needs `mount`"),
]
SIZE = "64m"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    return slow_job_unbroken(tmp_path_factory.mktemp("unbroken"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Its agents' storage is a small disk of its own, in memory."""
    served = Served(tmp_path)
    served.home.storage.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", served.home.storage],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr}")
    try:
        with served:
            yield served
    finally:
        subprocess.run(["umount", "--lazy", served.home.storage], check=True)


def fill(storage: Path) -> Callable[[], None]:
    """Leave not one byte; the call that gives them back."""
    ballast = storage / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast.unlink


def test_a_job_that_finds_no_room_fails_and_says_why(served: Served, expected: Curve) -> None:
    served.slow.touch()
    agent = served.agent("agent-1")
    job_id = served.submitted("retry.infra=1")
    folder = served.home.job(job_id)
    served.until_step(job_id, 50)
    free = fill(served.home.storage)
    kept = checkpoint.steps(folder / checkpoint.FOLDER)[0]
    failed = served.until_ended(job_id)
    print(f"{failed.state} ({failed.reason}) after {failed.epoch} attempts: {failed.message}")
    assert (failed.state, failed.reason) == (JobState.FAILED, Reason.INFRASTRUCTURE)
    assert "No space left on device" in failed.message
    attempts = served.ledger.attempts(job_id)
    assert endings(attempts) == [(Outcome.FAILED, Reason.INFRASTRUCTURE)] * 2
    assert follow_each_other(attempts)
    served.until(lambda: not ranks_of(agent, job_id), "its workers are gone")
    checkpoint.read(folder / checkpoint.FOLDER / checkpoint.name_of(kept))
    assert agent.running

    free()
    served.slow.unlink()
    again = served.until_ended(served.client.retry(job_id).id)
    assert succeeded(again), again
    served.run_agrees(again, expected)


def test_a_job_goes_on_exactly_once_there_is_room(served: Served, expected: Curve) -> None:
    served.slow.touch()
    served.agent("agent-1")
    job_id = served.submitted("retry.infra=1000", "checkpoint.every=40steps")
    served.until_step(job_id, 50)
    free = fill(served.home.storage)
    before = last_step(served.home.job(job_id))
    served.until(lambda: len(served.ledger.attempts(job_id)) > 1, "an attempt fails for want of room")
    free()
    served.slow.unlink()
    job = served.until_ended(job_id)
    assert succeeded(job), job
    attempts = served.ledger.attempts(job_id)
    assert set(endings(attempts[:-1])) == {(Outcome.FAILED, Reason.INFRASTRUCTURE)}
    assert follow_each_other(attempts)
    assert before < STEPS
    served.run_agrees(job, expected)
