"""Ctrl-C, and SIGKILL of the whole command: the run says so, and the job goes on exactly when it is resumed."""

from __future__ import annotations

import re
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from foreground import SHORT, SHORT_JOB, Curve, Foreground, epochal, history, run_status, title
from served import slow_job_unbroken

from epochal.cli.main import main


class NoCluster:
    """Stands for a Ray that would take seconds to start, and is not asked for any worker."""

    def nodes(self) -> tuple[()]:
        return ()

    def keep_warm(self, per_node: int) -> None:
        assert per_node == 0


def test_ctrl_c_saves_and_a_resumed_job_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On one worker. That several stop at the same step, and go on exactly, is for the tests of the agent's service."""
    alone = "resources.workers=1"
    job = Foreground.start(tmp_path, *SHORT_JOB, "-s", alone)
    job.wait_for_step(50)
    job.process.send_signal(signal.SIGINT)
    paused = job.finish()
    assert "state" in paused, paused
    assert (paused["exit"], paused["state"], paused["reason"]) == (130, "PAUSED", "STOPPED_BY_USER"), paused
    assert run_status(paused) == "KILLED"

    resumed = Foreground.start(tmp_path, "--resume", paused["job"]).finish()
    assert (resumed["exit"], resumed["state"], resumed["attempts"]) == (0, "SUCCEEDED", 2), resumed
    assert resumed["run_id"] == paused["run_id"]
    assert run_status(resumed) == "FINISHED"
    unbroken = slow_job_unbroken(tmp_path / "unbroken", *SHORT, alone)
    assert history(resumed["tracking_uri"], resumed["run_id"]) == unbroken

    monkeypatch.setenv("EPOCHAL_HOME", str(tmp_path))
    monkeypatch.setattr("epochal.agent.foreground.connect", lambda *_, **__: nullcontext(NoCluster()))
    assert main(["run", "--resume", paused["job"]]) == 4
    assert "train.init_from" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("grace", "times"), [("1s", 1), ("10m", 2)])
def test_ctrl_c_ends_a_training_that_is_stuck_after_its_grace_and_twice_at_once(
    tmp_path: Path, grace: str, times: int
) -> None:
    stuck = tmp_path / "stuck"
    changes = ("resources.workers=1", f"env.SLOW_WHILE={stuck}", "env.SLOW_SECONDS='1000'", "retry.infra=0")
    job = Foreground.start(tmp_path, *SHORT_JOB, *(part for one in changes for part in ("-s", one)), "--grace", grace)
    job.wait_for_step(20)
    stuck.touch()
    for _ in range(times):
        time.sleep(1)
        job.process.send_signal(signal.SIGINT)
    paused = job.finish(60)
    assert (paused["exit"], paused["state"], paused["reason"]) == (130, "PAUSED", "STOPPED_BY_USER"), paused
    assert re.search(r"killed [01] s after .*; (steps? \d+.* not saved|saved up to step)", paused["message"])


@pytest.mark.slow
def test_the_run_of_a_killed_command_is_closed_by_the_next_one(tmp_path: Path, unbroken: Curve) -> None:
    job = Foreground.start(tmp_path, *SHORT_JOB)
    job.wait_for_step(50)
    # Ray's own agents spend up to a minute telling the head, which is gone as well, before they end.
    processes = [process for process in job.descendants() if not re.match("ray::.*Agent", title(process))]
    job.process.kill()
    job.process.wait()
    for process in processes:
        process.wait(timeout=20)

    # The first command that looks closes it; a busy machine may take longer over that than one that only looks waits.
    sent = epochal(tmp_path, "runs", "sync", "--timeout", "240")
    assert sent.returncode == 0, sent.stderr
    listed = epochal(tmp_path, "runs", "list", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    assert listed.stderr == ""
    assert '"KILLED"' in listed.stdout
    assert "INTERRUPTED" in listed.stdout

    job_id = next((tmp_path / "storage" / "jobs").iterdir()).name
    resumed = Foreground.start(tmp_path, "--resume", job_id).finish()
    assert (resumed["exit"], resumed["state"]) == (0, "SUCCEEDED"), resumed
    assert history(resumed["tracking_uri"], resumed["run_id"]) == unbroken
