"""How an attempt ended, whether another follows, and what the ledger is told: pure decisions, then carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from epochal.agent.port import JobSource
from epochal.backoff import pause_after
from epochal.ledger.states import JobState, Outcome, Reason
from epochal.ledger.values import LEASE_SECONDS, Job, Lease
from epochal.redaction import Redactor, without_credentials
from epochal.spec.job import Retry

_BUDGET = {
    Reason.INFRASTRUCTURE: "infra",
    Reason.HANG: "infra",
    Reason.OUT_OF_MEMORY: "oom",
    Reason.USER_ERROR: "user",
}
"""Which budget of ``retry`` a reason draws on; others (a loss that is not finite, a time limit) are never retried."""

QUICK_SECONDS = 30.0
"""An attempt that fails sooner than this has probably got nowhere."""

_LONGEST_PAUSE_SECONDS = 30.0

_OUTSIDE = "the training was asked to stop from outside"


@dataclass(frozen=True)
class Ending:
    """How an attempt ended.

    ``reason`` is None where the training stopped because it was asked to, PENDING_TIMEOUT where there was no room for
    it, INTERRUPTED where the agent gave it up. ``message`` names the first failing rank; ``result`` is what the first
    worker returned; ``lost``: Ray, or the agent itself, went down with it; ``refusal``: see ``Failed``; ``final``: more
    attempts would change nothing, whatever the reason (a sweep whose trials failed).
    """

    reason: Reason | None
    message: str = ""
    traceback: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    lost: bool = False
    refusal: bool = False
    final: bool = False

    @property
    def failed(self) -> bool:
        """Whether the training itself failed: what may be tried again at once."""
        return self.reason not in _NO_FAILURE

    def redacted(self, secrets: Sequence[str] = ()) -> Ending:
        """As it may be told, whatever a library has put into words: also without the values of these variables."""
        redactor = Redactor.of_variables(secrets)
        told, traced = (redactor.text(without_credentials(text)) for text in (self.message, self.traceback))
        return replace(self, message=told, traceback=traced)


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

    Whoever asked a job to stop or pause gets that, however the attempt ended meanwhile, unless it was done by then.

    >>> next_action(Ending(Reason.INFRASTRUCTURE, "rank 0"), JobState.RUNNING, [], Terms(Retry(infra=1), True)).action
    <Action.RETRY: 2>
    """
    reason, message = ending.reason, ending.message
    if state is JobState.STOPPING and reason is not Reason.COMPLETED:
        return Decision(Action.STOPPED, Reason.STOPPED_BY_USER, message if ending.failed or reason is None else "")
    if reason in (None, Reason.INTERRUPTED):
        action = Action.REQUEUE if terms.hands_back else Action.PAUSE
        return Decision(action, Reason.INTERRUPTED, message or _OUTSIDE, ending.lost)
    if reason is Reason.PENDING_TIMEOUT and terms.hands_back:
        return Decision(Action.REQUEUE, Reason.INTERRUPTED, message)
    if ending.failed and not ending.final and may_retry(terms.retry, [*failed, reason]):
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
    if ending.reason is not Reason.COMPLETED:
        state = source.job(lease.job_id).state
    if ending.failed:
        attempts = source.attempts(lease.job_id)
        failed = [one.reason for one in attempts if one.outcome is Outcome.FAILED and one.reason]
    return next_action(ending, state, failed, terms)


def _carry_out(source: JobSource, lease: Lease, decision: Decision) -> Job | Lease:
    if decision.action is Action.STOPPED:
        return source.stopped(lease, decision.message)
    if decision.action is Action.RETRY:
        again = source.lease_again(lease, LEASE_SECONDS, decision.reason, decision.message)
        return again or source.job(lease.job_id)
    if decision.action is Action.REQUEUE:
        return source.retry(lease, decision.reason, decision.message, decision.lost)
    if decision.action is Action.PAUSE:
        return source.pause(lease, decision.reason, decision.message)
    state = JobState.SUCCEEDED if decision.reason is Reason.COMPLETED else JobState.FAILED
    return source.finish(lease, state, decision.reason, decision.message)


def may_retry(retry: Retry, failed: Iterable[Reason]) -> bool:
    """Whether another attempt is allowed after attempts that ``failed`` for these reasons, the newest last.

    >>> may_retry(Retry(infra=1), [Reason.INFRASTRUCTURE])
    True
    >>> may_retry(Retry(infra=1), [Reason.INFRASTRUCTURE, Reason.HANG])
    False
    """
    budgets = [_BUDGET.get(reason) for reason in failed]
    if not budgets or budgets[-1] is None:
        return False
    return budgets.count(budgets[-1]) <= int(getattr(retry, budgets[-1]))


def pause_before_next(quick_failures: int) -> float:
    """Seconds to wait after so many attempts in a row that failed within ``QUICK_SECONDS``.

    A worker that was lost once is replaced at once; a cluster that breaks every attempt is given time.

    >>> [pause_before_next(failures) for failures in range(5)]
    [0.0, 0.0, 1.0, 2.0, 4.0]
    """
    return 0.0 if quick_failures < 2 else pause_after(quick_failures - 1, 1.0, _LONGEST_PAUSE_SECONDS)
