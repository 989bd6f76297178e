"""The agent dies between any two of its writes to the ledger; the next one brings the job to the end it should have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil
import pytest
from foreground import Curve, history, run_status, title
from matrix import ROWS, Row
from served import HERE, Served, endings, follow_each_other, slow_job_unbroken
from stack import WORKER

from epochal.ledger.states import JobState, Outcome, Reason
from epochal.ledger.values import Job

STEPS = 120
SLOWLY = "env.SLOW_SECONDS='0.3'"
"""For half a minute in all: MLflow, which an agent loads once its first job trains, must have a run before its end."""
CHANGES = ("train.steps=120", "train.validate_every=120steps", "checkpoint.every=10steps")

Ending = tuple[Outcome, Reason]
COMPLETED: Ending = (Outcome.SUCCEEDED, Reason.COMPLETED)
INTERRUPTED: Ending = (Outcome.INTERRUPTED, Reason.INTERRUPTED)
FAILED: Ending = (Outcome.FAILED, Reason.INFRASTRUCTURE)
STOPPED: Ending = (Outcome.STOPPED, Reason.STOPPED_BY_USER)


@dataclass(frozen=True)
class Case:
    """SIGKILL ``when`` the ``number``th ``call`` is made; ``story`` is what becomes of the job meanwhile."""

    call: str
    when: Literal["before", "after"]
    endings: tuple[Ending, ...] = (INTERRUPTED, COMPLETED)
    story: Literal["it trains", "a worker dies", "its user stops it"] = "it trains"
    number: int = 1

    def __str__(self) -> str:
        return f"{self.when} {self.call} {self.number}"

    @property
    def slow(self) -> bool:
        """Whether the training must not be over before the call is made."""
        return self.call not in ("lease", "finish")


CASES = (
    Case("lease", "before", (COMPLETED,)),
    Case("lease", "after"),
    Case("running", "before"),
    Case("running", "after"),
    Case("set_data", "before"),
    Case("set_data", "after"),
    Case("set_run", "before"),
    Case("set_run", "after"),
    Case("saved", "before"),
    Case("saved", "after"),
    Case("saved", "before", number=3),
    Case("saved", "after", number=3),
    Case("renew", "before", number=2),
    Case("renew", "after", number=2),
    Case("finish", "before"),
    Case("finish", "after", (COMPLETED,)),
    Case("lease_again", "before", story="a worker dies"),
    Case("lease_again", "after", (FAILED, INTERRUPTED, COMPLETED), story="a worker dies"),
    Case("stopped", "before", (INTERRUPTED,), story="its user stops it"),
    Case("stopped", "after", (STOPPED,), story="its user stops it"),
)


class DoomedAgents:
    """One after the other; the order says of what the present one dies."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._order = served.folder / "order.json"
        self._token = served.token_file("doomed")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        served = self._served
        self._order.unlink(missing_ok=True)
        program = [sys.executable, HERE / "killed_agent.py", served.url, self._token, self._order]
        with (served.folder / "doomed.log").open("ab") as log:
            environ = {**os.environ, **served.environ}
            self._process = subprocess.Popen(program, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def doom(self, case: Case, job: str) -> None:
        order = asdict(case) | {"job": job}
        draft = self._order.with_suffix(".new")
        draft.write_text(json.dumps({name: order[name] for name in ("job", "call", "number", "when")}))
        draft.replace(self._order)

    def await_death(self, seconds: float = 120.0) -> None:
        assert self._process is not None
        assert self._process.wait(seconds) == -signal.SIGKILL

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()

    def rank(self, number: int) -> psutil.Process:
        assert self._process is not None
        for process in psutil.Process(self._process.pid).children(recursive=True):
            if (found := WORKER.search(title(process))) and int(found[1]) == number:
                return process
        raise AssertionError(f"there is no rank {number}")

    def stop(self) -> None:
        self._order.unlink(missing_ok=True)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    def log(self) -> str:
        with suppress(FileNotFoundError):
            return (self._served.folder / "doomed.log").read_text(errors="replace")[-4000:]
        return ""


def carry_out(served: Served, agents: DoomedAgents, case: Case) -> Job:
    """The job of a case at its end."""
    name = str(case).replace(" ", "-").replace("_", "-")
    if case.slow:
        served.slow.touch()
    agents.doom(case, name)
    job_id = served.submitted(*CHANGES, SLOWLY, f"name={name}")
    if case.story != "it trains":
        served.until_step(job_id, 25)
        if case.story == "a worker dies":
            agents.rank(1).kill()
        else:
            served.client.stop(job_id)
    agents.await_death()
    served.slow.unlink(missing_ok=True)
    agents.start()
    return served.until_ended(job_id)


def judge(served: Served, case: Case, job: Job, unbroken: Curve) -> Iterator[str]:
    """Everything that is wrong."""
    stopped = case.story == "its user stops it"
    right = (JobState.STOPPED, Reason.STOPPED_BY_USER) if stopped else (JobState.SUCCEEDED, Reason.COMPLETED)
    if (job.state, job.reason) != right:
        yield f"it is {job.state} ({job.reason}): {job.message}"
        return
    attempts = served.ledger.attempts(job.id)
    if endings(attempts) != list(case.endings):
        yield f"its attempts ended {[str(reason) for _, reason in endings(attempts)]}"
    if not follow_each_other(attempts):
        yield "two attempts were live at once"
    run_id = served.until(lambda: served.ledger.job(job.id).run_id, "the run is told")
    run = {"tracking_uri": served.tracking_uri, "run_id": run_id}
    status = "KILLED" if stopped else "FINISHED"
    try:
        served.until(lambda: run_status(run) == status, "the run is closed", 90)
    except AssertionError:
        yield f"its run is {run_status(run)}"
    curve = history(served.tracking_uri, run_id)
    if curve != (unbroken[: len(curve)] if stopped else unbroken):
        yield f"the curve of {len(curve)} points is not the unbroken one"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_agent_may_die_between_any_two_writes(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    unbroken = slow_job_unbroken(tmp_path / "unbroken", *CHANGES)
    assert len(unbroken) == STEPS
    rows = pytestconfig.stash.setdefault(ROWS, [])
    with Served(tmp_path) as served:
        agents = DoomedAgents(served)
        try:
            agents.start()
            for case in CASES:
                begun = time.monotonic()
                job = carry_out(served, agents, case)
                row = Row(f"agent {case}", f"{job.state} ({job.reason})", job.epoch)
                row.problems += judge(served, case, job, unbroken)
                row.seconds = time.monotonic() - begun
                rows.append(row)
                print(row, flush=True)
            assert not [row for row in rows if row.problems], agents.log()
        finally:
            agents.stop()
