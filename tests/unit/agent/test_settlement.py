"""What the ledger is told of an attempt's end."""

from __future__ import annotations

import pytest

from epochal.agent.settlement import Ending, Terms, Verb, Verdict, judge
from epochal.engine.failure import FailureKind
from epochal.ledger.states import JobState, Reason
from epochal.spec.job import Retry

SERVICE, FOREGROUND = Terms(Retry(infra=1), hands_back=True), Terms(Retry(infra=1), hands_back=False)
LEAVING = Terms(Retry(infra=1), hands_back=True, leaves=True)
NO_RAY = Ending(Reason.INTERRUPTED, "Ray was lost", lost=True)
RUNNING, STOPPING = JobState.RUNNING, JobState.STOPPING
STOPPED, DRAINED = Ending(None), Ending(Reason.INTERRUPTED, "shut down")
NO_ROOM, LOST = Ending(Reason.PENDING_TIMEOUT, "no room"), Ending(Reason.INFRASTRUCTURE, "rank 0")


@pytest.mark.parametrize(
    ("ending", "state", "terms", "verdict"),
    [
        (Ending(Reason.COMPLETED), RUNNING, SERVICE, Verdict(Verb.FINISH, Reason.COMPLETED)),
        (STOPPED, STOPPING, SERVICE, Verdict(Verb.STOPPED, Reason.STOPPED_BY_USER)),
        (DRAINED, STOPPING, SERVICE, Verdict(Verb.STOPPED, Reason.STOPPED_BY_USER)),
        (DRAINED, RUNNING, SERVICE, Verdict(Verb.RETRY, Reason.INTERRUPTED, "shut down")),
        (DRAINED, RUNNING, FOREGROUND, Verdict(Verb.PAUSE, Reason.INTERRUPTED, "shut down")),
        (NO_ROOM, RUNNING, SERVICE, Verdict(Verb.RETRY, Reason.INTERRUPTED, "no room")),
        (NO_ROOM, RUNNING, FOREGROUND, Verdict(Verb.FINISH, Reason.PENDING_TIMEOUT, "no room")),
        (LOST, RUNNING, SERVICE, Verdict(Verb.AGAIN, Reason.INFRASTRUCTURE, "rank 0")),
        (LOST, STOPPING, SERVICE, Verdict(Verb.AGAIN, Reason.INFRASTRUCTURE, "rank 0")),  # the ledger obeys the stop
        (LOST, RUNNING, LEAVING, Verdict(Verb.RETRY, Reason.INFRASTRUCTURE, "rank 0")),
        (LOST, RUNNING, FOREGROUND, Verdict(Verb.AGAIN, Reason.INFRASTRUCTURE, "rank 0")),
        (NO_RAY, RUNNING, SERVICE, Verdict(Verb.RETRY, Reason.INTERRUPTED, "Ray was lost", lost=True)),
        (Ending(Reason.TIMEOUT, "up"), RUNNING, SERVICE, Verdict(Verb.FINISH, Reason.TIMEOUT, "up")),
        (Ending(Reason.USER_ERROR, "x"), RUNNING, SERVICE, Verdict(Verb.FINISH, Reason.USER_ERROR, "x")),
    ],
)
def test_the_verdict(ending: Ending, state: JobState, terms: Terms, verdict: Verdict) -> None:
    assert judge(ending, state, [], terms) == verdict


def test_a_budget_that_is_used_up_ends_the_job() -> None:
    assert judge(LOST, RUNNING, [Reason.HANG], SERVICE).verb is Verb.FINISH


def test_what_asks_from_outside_the_ledger_is_no_stop_of_the_job() -> None:
    verdict = judge(STOPPED, RUNNING, [], SERVICE)
    assert (verdict.verb, verdict.reason) == (Verb.RETRY, Reason.INTERRUPTED)


@pytest.mark.parametrize("kind", FailureKind)
def test_every_way_a_gang_fails_is_a_reason(kind: FailureKind) -> None:
    assert Reason(kind).value == kind.value
