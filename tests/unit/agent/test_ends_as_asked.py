"""Who stops a job sees STOPPED, who pauses it PAUSED, whatever its state, its budgets and its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from epochal.agent.in_process import LedgerSource
from epochal.agent.retry_policy import Ending, Terms, decide
from epochal.errors import ConflictError
from epochal.ledger.states import ACTIVE, JobState, Reason
from epochal.ledger.values import GRACE_SECONDS, Job, Lease
from epochal.spec.job import Retry

COMMANDS: dict[str, Callable[[LedgerSource, str], Job]] = {
    "stop": lambda ledger, job: ledger.request_stop(job),
    "stop --now": lambda ledger, job: ledger.request_stop(job, grace=0),
    "pause": lambda ledger, job: ledger.request_pause(job),
    "preempt": lambda ledger, job: ledger.preempt(job),
}
GRACES = {"stop": GRACE_SECONDS, "stop --now": 0, "pause": GRACE_SECONDS, "preempt": None}
WORKERS = {
    "answer": Ending(None),
    "stuck in forward": Ending(Reason.HANG, "rank 1: no progress for 60 s"),
    "killed after the grace": Ending(None, "rank 1: killed 30 s after it was asked to end"),
    "dead": Ending(Reason.INFRASTRUCTURE, "rank 1: the worker's process died"),
    "wrong": Ending(Reason.USER_ERROR, "rank 1: ValueError"),
}
QUEUED, STARTING, RUNNING, STOPPING, PAUSED, _, FAILED, STOPPED = JobState
ENDS = {
    "stop": {QUEUED: STOPPED, STARTING: STOPPED, RUNNING: STOPPED, STOPPING: STOPPED, PAUSED: STOPPED},
    "pause": {QUEUED: PAUSED, STARTING: PAUSED, RUNNING: PAUSED, STOPPING: PAUSED, PAUSED: PAUSED},
    "preempt": {QUEUED: QUEUED, STARTING: QUEUED, RUNNING: QUEUED},
}
ENDS["stop --now"] = ENDS["stop"]
"""Of a job in each state; where a state is missing the command is refused. STOPPING is one that was paused just now."""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerSource]:
    with LedgerSource.open(f"sqlite:///{tmp_path_factory.mktemp('asked') / 'ledger.db'}") as ledger:
        yield ledger


def job_in(ledger: LedgerSource, state: JobState) -> tuple[str, Lease | None]:
    job = ledger.submit({"version": 1}, name="asked").id
    lease = None if state is QUEUED else ledger.lease("agent/1", 60, job)
    if lease is not None and state is not STARTING:
        ledger.running(lease, 2)
    if lease is not None and state is FAILED:
        ledger.finish(lease, FAILED, Reason.USER_ERROR, "over")
    if state is PAUSED and lease is not None:
        ledger.pause(lease)
    if state is STOPPING:
        ledger.request_pause(job)
    assert ledger.job(job).state is state
    return job, lease


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("budget", [pytest.param(0, marks=pytest.mark.slow), 3])  # without one it cannot go on anyway
@pytest.mark.parametrize("state", sorted(ACTIVE))
@pytest.mark.parametrize("command", COMMANDS)
def test_a_job_with_workers(ledger: LedgerSource, command: str, state: JobState, budget: int, workers: str) -> None:
    job, lease = job_in(ledger, state)
    assert lease is not None
    if state in ENDS[command]:
        asked = COMMANDS[command](ledger, job)
        assert (asked.state, asked.grace) == (STOPPING, GRACES[command])
    else:
        with pytest.raises(ConflictError, match="will be PAUSED"):
            COMMANDS[command](ledger, job)
    terms = Terms(Retry(infra=budget, oom=budget, user=budget), hands_back=True)
    decide(ledger, lease, WORKERS[workers], terms)()
    ended = ledger.job(job)
    assert ended.state is ENDS[command].get(state, PAUSED)
    assert ended.reason is (Reason.PREEMPTED if ended.state is QUEUED else Reason.STOPPED_BY_USER)
    assert (WORKERS[workers].message in ended.message, ended.grace) == (True, None)


@pytest.mark.parametrize("state", [QUEUED, PAUSED, FAILED])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_job_without_workers(ledger: LedgerSource, command: str, state: JobState) -> None:
    job, _ = job_in(ledger, state)
    before = ledger.job(job)
    if state in ENDS[command]:
        asked = COMMANDS[command](ledger, job)
        assert (asked.state, asked.grace) == (ENDS[command][state], None)
    else:
        with pytest.raises(ConflictError, match=f"is {state}"):
            COMMANDS[command](ledger, job)
        assert ledger.job(job) == before


@pytest.mark.parametrize(("command", "then"), [("stop", STOPPED), ("pause", PAUSED), ("preempt", QUEUED)])
def test_a_job_whose_agent_is_dead(ledger: LedgerSource, command: str, then: JobState) -> None:
    job, _ = job_in(ledger, RUNNING)
    COMMANDS[command](ledger, job)
    ledger.expire(dead_agents=["agent/1"])
    assert ledger.job(job).state is then
