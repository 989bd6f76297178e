"""Which failures are followed by another attempt."""

from __future__ import annotations

import pytest

from epochal.agent.retry import may_retry
from epochal.ledger.states import Reason
from epochal.spec.job import Retry

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
