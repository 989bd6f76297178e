"""The rows of a sweep in the fault matrix: SIGKILL of every part, down for a while, and its trials are the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import product

import pytest
from foreground import last_step
from matrix import ROWS, STRIKE_AT_STEP, VICTIMS, Case, Row, overlaps, spec, strike
from served import follow_each_other
from stack import Stack
from swept import SWEEP, Swept, Trainings, reached

from agent_jobs import slowed
from postgres import binaries

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed (apt install postgresql)"),
    pytest.mark.timeout(600),
]

TRIALS = 12
MOMENTS = ("queued", "running", "ending")
CASES = [
    Case(*case)
    for case in product(VICTIMS, MOMENTS, (0, 30))
    # Ray or the agent replaces a killed worker; nobody can keep it down, and at the end there is none.
    if not (case[0] == "worker" and (case[2] or case[1] == "ending"))
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def submitted(stack: Stack, moment: str) -> str:
    """The sweep at that moment: of ``ending`` all trials are over, and the job is not."""
    before = stack.client.submit(spec()).job.id if moment == "queued" else None
    changes = (*slowed(0.02), f"sweep.trials={TRIALS}", "sweep.concurrency=1")
    job_id = str(stack.client.submit(SWEEP, changes).id)
    if before is not None:
        stack.until(lambda: last_step(stack.job_folder(before)) >= STRIKE_AT_STEP, f"step {STRIKE_AT_STEP}")
        return job_id
    folder = stack.job_folder(job_id)
    if moment == "running":
        stack.until(lambda: reached(folder) >= TRIALS // 2, "half of its trials")
    else:
        stack.until(lambda: _is_ending(stack, job_id), "all of its trials")
    return job_id


def _is_ending(stack: Stack, job_id: str) -> bool:
    trials = stack.client.trials(job_id)
    return len(trials) == TRIALS and all(one.state.is_over for one in trials)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_costs_a_sweep_nothing_that_counts(
    stack: Stack, case: Case, trainings: Trainings, pytestconfig: pytest.Config
) -> None:
    begun = time.monotonic()
    row = Row(f"sweep {case}")
    pytestconfig.stash.setdefault(ROWS, []).append(row)
    with overlaps() as doubled:
        job_id = submitted(stack, case.moment)
        strike(stack, case)
        job = stack.until(lambda: (now := stack.client.job(job_id)).state.is_terminal and now, f"{job_id} ends", 240)
    with suppress(AssertionError):  # what is missing the judge says
        stack.until(lambda: all(one.run_id for one in stack.client.trials(job_id)), "its trials' runs are known", 90)
    attempts = stack.client.attempts(job_id)
    row.problems += list(Swept.of(stack.client, stack.mlflow.url, job_id).problems(trainings, ordered=True))
    row.problems += [f"two processes at once: {one}" for one in doubled]
    row.problems += [] if follow_each_other(attempts) else ["two attempts were live at once"]
    row.ended, row.attempts, row.seconds = f"{job.state} ({job.reason})", len(attempts), time.monotonic() - begun
    assert not row.problems, row
