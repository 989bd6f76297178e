"""How an attempt ended, and what the ledger is told about it: a pure decision, and its carrying out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from epochal.agent.port import JobSource
from epochal.agent.retry import may_retry
from epochal.ledger.states import JobState, Outcome, Reason
from epochal.ledger.values import LEASE_SECONDS, Job, Lease
from epochal.spec.job import Retry

_OUTSIDE = "the training was asked to stop from outside"


@dataclass(frozen=True)
class Ending:
    """How an attempt ended.

    ``reason`` is None where the training stopped because it was asked to, PENDING_TIMEOUT where there was no room for
    it, INTERRUPTED where the agent gave it up. ``message`` names the first failing rank; ``result`` is what the first
    worker returned; ``lost``: Ray, or the agent itself, went down with it.
    """

    reason: Reason | None
    message: str = ""
    traceback: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    lost: bool = False

    @property
    def failed(self) -> bool:
        """Whether the training itself failed: what may be tried again at once."""
        return self.reason not in _NO_FAILURE


_NO_FAILURE = (None, Reason.COMPLETED, Reason.TIMEOUT, Reason.PENDING_TIMEOUT, Reason.INTERRUPTED)


class Verb(Enum):
    """Which of the ledger's calls ends the attempt."""

    FINISH = auto()
    AGAIN = auto()
    """By this agent, at once: the job keeps its place."""
    RETRY = auto()
    """By whoever leases it next."""
    PAUSE = auto()
    STOPPED = auto()


@dataclass(frozen=True)
class Verdict:
    """What to tell the ledger."""

    verb: Verb
    reason: Reason
    message: str = ""
    lost: bool = False


@dataclass(frozen=True)
class Terms:
    """What decides beside the ending: the job's budgets, whether what cannot go on returns to the queue, and whether
    the agent ``leaves`` and makes no further attempt.

    A command in the foreground does not hand jobs back: nobody would take them.
    """

    retry: Retry
    hands_back: bool
    leaves: bool = False


def judge(ending: Ending, state: JobState, failed: Sequence[Reason], terms: Terms) -> Verdict:
    """The verdict on a job that is in ``state``, and whose earlier attempts ``failed`` for these reasons.

    >>> judge(Ending(Reason.INFRASTRUCTURE, "rank 0"), JobState.RUNNING, [], Terms(Retry(infra=1), True)).verb
    <Verb.AGAIN: 2>
    """
    reason, message = ending.reason, ending.message
    if reason in (None, Reason.INTERRUPTED) and state is JobState.STOPPING:
        return Verdict(Verb.STOPPED, Reason.STOPPED_BY_USER)
    if reason in (None, Reason.INTERRUPTED):
        verb = Verb.RETRY if terms.hands_back else Verb.PAUSE
        return Verdict(verb, Reason.INTERRUPTED, message or _OUTSIDE, ending.lost)
    if reason is Reason.PENDING_TIMEOUT and terms.hands_back:
        return Verdict(Verb.RETRY, Reason.INTERRUPTED, message)
    if ending.failed and may_retry(terms.retry, [*failed, reason]):
        return Verdict(Verb.RETRY if terms.leaves else Verb.AGAIN, reason, message)
    return Verdict(Verb.FINISH, reason, message)


def decide(source: JobSource, lease: Lease, ending: Ending, terms: Terms) -> Callable[[], Job | Lease]:
    """Look at what the ledger knows and judge; the call that carries the verdict out, which may be repeated.

    It gives the job as it is then, or the lease of the next attempt.
    """
    verdict = verdict_on(source, lease, ending, terms)
    return lambda: _carry_out(source, lease, verdict)


def verdict_on(source: JobSource, lease: Lease, ending: Ending, terms: Terms) -> Verdict:
    """``judge`` by what the ledger knows."""
    state, failed = lease.job.state, []
    if ending.reason in (None, Reason.INTERRUPTED):
        state = source.job(lease.job_id).state
    elif ending.failed:
        attempts = source.attempts(lease.job_id)
        failed = [one.reason for one in attempts if one.outcome is Outcome.FAILED and one.reason]
    return judge(ending, state, failed, terms)


def _carry_out(source: JobSource, lease: Lease, verdict: Verdict) -> Job | Lease:
    if verdict.verb is Verb.STOPPED:
        return source.stopped(lease)
    if verdict.verb is Verb.AGAIN:
        again = source.lease_again(lease, LEASE_SECONDS, verdict.reason, verdict.message)
        return again or source.job(lease.job_id)
    if verdict.verb is Verb.RETRY:
        return source.retry(lease, verdict.reason, verdict.message, verdict.lost)
    if verdict.verb is Verb.PAUSE:
        return source.pause(lease, verdict.reason, verdict.message)
    state = JobState.SUCCEEDED if verdict.reason is Reason.COMPLETED else JobState.FAILED
    return source.finish(lease, state, verdict.reason, verdict.message)
