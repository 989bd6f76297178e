"""Whether, and how soon, a failed attempt is followed by another: pure decisions."""

from __future__ import annotations

from collections.abc import Iterable

from epochal.backoff import pause_after
from epochal.ledger.states import Reason
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
