"""What the ledger is told of an attempt's end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from epochal.agent.retry_policy import Action, Decision, Ending, Terms, may_retry, next_action
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
    ("ending", "state", "terms", "decision"),
    [
        (Ending(Reason.COMPLETED), RUNNING, SERVICE, Decision(Action.FINISH, Reason.COMPLETED)),
        (STOPPED, STOPPING, SERVICE, Decision(Action.STOPPED, Reason.STOPPED_BY_USER)),
        (DRAINED, STOPPING, SERVICE, Decision(Action.STOPPED, Reason.STOPPED_BY_USER)),
        (DRAINED, RUNNING, SERVICE, Decision(Action.REQUEUE, Reason.INTERRUPTED, "shut down")),
        (DRAINED, RUNNING, FOREGROUND, Decision(Action.PAUSE, Reason.INTERRUPTED, "shut down")),
        (NO_ROOM, RUNNING, SERVICE, Decision(Action.REQUEUE, Reason.INTERRUPTED, "no room")),
        (NO_ROOM, RUNNING, FOREGROUND, Decision(Action.FINISH, Reason.PENDING_TIMEOUT, "no room")),
        (LOST, RUNNING, SERVICE, Decision(Action.RETRY, Reason.INFRASTRUCTURE, "rank 0")),
        (LOST, STOPPING, SERVICE, Decision(Action.STOPPED, Reason.STOPPED_BY_USER, "rank 0")),
        (
            Ending(None, "rank 0: killed"),
            STOPPING,
            SERVICE,
            Decision(Action.STOPPED, Reason.STOPPED_BY_USER, "rank 0: killed"),
        ),
        (
            Ending(None, "rank 0: killed"),
            RUNNING,
            FOREGROUND,
            Decision(Action.PAUSE, Reason.INTERRUPTED, "rank 0: killed"),
        ),  # the ledger did not hear of Ctrl-C
        (Ending(Reason.COMPLETED), STOPPING, SERVICE, Decision(Action.FINISH, Reason.COMPLETED)),
        (LOST, RUNNING, LEAVING, Decision(Action.REQUEUE, Reason.INFRASTRUCTURE, "rank 0")),
        (LOST, RUNNING, FOREGROUND, Decision(Action.RETRY, Reason.INFRASTRUCTURE, "rank 0")),
        (NO_RAY, RUNNING, SERVICE, Decision(Action.REQUEUE, Reason.INTERRUPTED, "Ray was lost", lost=True)),
        (Ending(Reason.TIMEOUT, "up"), RUNNING, SERVICE, Decision(Action.FINISH, Reason.TIMEOUT, "up")),
        (Ending(Reason.USER_ERROR, "x"), RUNNING, SERVICE, Decision(Action.FINISH, Reason.USER_ERROR, "x")),
    ],
)
def test_the_decision(ending: Ending, state: JobState, terms: Terms, decision: Decision) -> None:
    assert next_action(ending, state, [], terms) == decision


@pytest.mark.parametrize("hands_back", [True, False])
@pytest.mark.parametrize("retry", [Retry(infra=0, oom=0, user=0), Retry(infra=3, oom=3, user=3)])
@pytest.mark.parametrize("reason", [None, *sorted(set(Reason) - {Reason.COMPLETED})])
def test_who_stops_or_pauses_a_job_sees_that_however_the_attempt_ended(
    reason: Reason | None, retry: Retry, hands_back: bool
) -> None:
    decision = next_action(Ending(reason, "rank 1"), STOPPING, [], Terms(retry, hands_back))
    assert (decision.action, decision.reason) == (Action.STOPPED, Reason.STOPPED_BY_USER)


def test_a_budget_that_is_used_up_ends_the_job() -> None:
    assert next_action(LOST, RUNNING, [Reason.HANG], SERVICE).action is Action.FINISH


def test_a_sweep_whose_trials_failed_is_not_tried_again() -> None:
    assert next_action(replace(LOST, final=True), RUNNING, [], SERVICE).action is Action.FINISH


def test_what_asks_from_outside_the_ledger_is_no_stop_of_the_job() -> None:
    decision = next_action(STOPPED, RUNNING, [], SERVICE)
    assert (decision.action, decision.reason) == (Action.REQUEUE, Reason.INTERRUPTED)


@pytest.mark.parametrize("kind", FailureKind)
def test_every_way_a_gang_fails_is_a_reason(kind: FailureKind) -> None:
    assert Reason(kind).value == kind.value


INFRA, HANG, OOM, USER = Reason.INFRASTRUCTURE, Reason.HANG, Reason.OUT_OF_MEMORY, Reason.USER_ERROR


@pytest.mark.parametrize(
    ("failed", "again"),
    [
        ([INFRA], True),
        ([INFRA, INFRA], True),
        ([INFRA, INFRA, INFRA], False),
        ([INFRA, HANG, INFRA], False),  # a hang draws on the same budget
        ([OOM], False),
        ([USER], True),
        ([USER, INFRA, USER], False),
        ([INFRA, INFRA, USER], True),  # each budget counts its own
        ([Reason.NON_FINITE_LOSS], False),
        ([Reason.TIMEOUT], False),
        ([], False),
    ],
)
def test_each_kind_of_failure_has_its_budget(failed: list[Reason], again: bool) -> None:
    assert may_retry(Retry(infra=2, oom=0, user=1), failed) is again


def test_what_lets_in_elsewhere_is_not_told() -> None:
    token = "ep_" + "x" * 43
    ending = Ending(Reason.INFRASTRUCTURE, f"Illegal header value b'Bearer {token}'", f"Traceback: {token}", lost=True)
    told = Ending(Reason.INFRASTRUCTURE, "Illegal header value b'Bearer ***'", "Traceback: ***", lost=True)
    assert ending.redacted() == told
