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


class Action(Enum):
    """Which of the ledger's calls ends the attempt."""

    FINISH = auto()
    RETRY = auto()
    """By this agent, at once: the job keeps its place."""
    REQUEUE = auto()
    """By whoever leases it next."""
    PAUSE = auto()
    STOPPED = auto()


@dataclass(frozen=True)
class Decision:
    """What to tell the ledger."""

    action: Action
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


def next_action(ending: Ending, state: JobState, failed: Sequence[Reason], terms: Terms) -> Decision:
    """What to do about a job that is in ``state``, and whose earlier attempts ``failed`` for these reasons.

    >>> next_action(Ending(Reason.INFRASTRUCTURE, "rank 0"), JobState.RUNNING, [], Terms(Retry(infra=1), True)).action
    <Action.RETRY: 2>
    """
    reason, message = ending.reason, ending.message
    if reason in (None, Reason.INTERRUPTED) and state is JobState.STOPPING:
        return Decision(Action.STOPPED, Reason.STOPPED_BY_USER)
    if reason in (None, Reason.INTERRUPTED):
        action = Action.REQUEUE if terms.hands_back else Action.PAUSE
        return Decision(action, Reason.INTERRUPTED, message or _OUTSIDE, ending.lost)
    if reason is Reason.PENDING_TIMEOUT and terms.hands_back:
        return Decision(Action.REQUEUE, Reason.INTERRUPTED, message)
    if ending.failed and may_retry(terms.retry, [*failed, reason]):
        return Decision(Action.REQUEUE if terms.leaves else Action.RETRY, reason, message)
    return Decision(Action.FINISH, reason, message)


def decide(source: JobSource, lease: Lease, ending: Ending, terms: Terms) -> Callable[[], Job | Lease]:
    """Decide by what the ledger knows: the call that carries it out, which may be repeated.

    It gives the job as it is then, or the lease of the next attempt.
    """
    decision = decision_on(source, lease, ending, terms)
    return lambda: _carry_out(source, lease, decision)


def decision_on(source: JobSource, lease: Lease, ending: Ending, terms: Terms) -> Decision:
    """``next_action`` by what the ledger knows."""
    state, failed = lease.job.state, []
    if ending.reason in (None, Reason.INTERRUPTED):
        state = source.job(lease.job_id).state
    elif ending.failed:
        attempts = source.attempts(lease.job_id)
        failed = [one.reason for one in attempts if one.outcome is Outcome.FAILED and one.reason]
    return next_action(ending, state, failed, terms)


def _carry_out(source: JobSource, lease: Lease, decision: Decision) -> Job | Lease:
    if decision.action is Action.STOPPED:
        return source.stopped(lease)
    if decision.action is Action.RETRY:
        again = source.lease_again(lease, LEASE_SECONDS, decision.reason, decision.message)
        return again or source.job(lease.job_id)
    if decision.action is Action.REQUEUE:
        return source.retry(lease, decision.reason, decision.message, decision.lost)
    if decision.action is Action.PAUSE:
        return source.pause(lease, decision.reason, decision.message)
    state = JobState.SUCCEEDED if decision.reason is Reason.COMPLETED else JobState.FAILED
    return source.finish(lease, state, decision.reason, decision.message)
