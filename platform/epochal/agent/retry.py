"""Whether a failed attempt is followed by another: a pure decision over the budgets of the spec."""

from __future__ import annotations

from collections.abc import Iterable

from epochal.ledger.states import Reason
from epochal.spec.job import Retry

_BUDGET = {
    Reason.INFRASTRUCTURE: "infra",
    Reason.HANG: "infra",
    Reason.OUT_OF_MEMORY: "oom",
    Reason.USER_ERROR: "user",
}
"""Which budget of ``retry`` a reason draws on; others (a loss that is not finite, a time limit) are never retried."""


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
