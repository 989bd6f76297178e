"""What the running jobs take together, against the quotas: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from epochal.ledger.capacity import MOST_WORKERS, Demand, total_of
from epochal.ledger.contenders import Running, Waiting
from epochal.ledger.values import Quota, QuotaKind


@dataclass(frozen=True)
class Excess:
    """The first limit of a quota that a job would go over: ``needed`` is what the limit would have to be."""

    quota: Quota
    owner: str
    what: str
    limit: float
    needed: float


@dataclass(frozen=True)
class Usage:
    """What the running jobs take, against the quotas. An elastic job that waits counts with its least: it is given no
    more than what its quotas leave."""

    quotas: Mapping[tuple[QuotaKind, str], Quota]
    used: dict[tuple[QuotaKind, str], dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, running: Iterable[Running], quotas: Iterable[Quota]) -> Usage:
        usage = cls({(quota.kind, quota.name): quota for quota in quotas})
        for job in running:
            usage.add(job)
        return usage

    def add(self, job: Running | Waiting) -> None:
        for key in _owners(job) if self.quotas else ():
            self.used[key] = total_of((self.used.get(key, {}), _counted(job)))

    def excess(self, job: Waiting) -> Excess | None:
        """What keeps ``job`` from starting, of the quotas of its user and of its queue."""
        for kind, name in _owners(job) if self.quotas else ():
            quota = self._quota(kind, name)
            over = quota and _over(quota, name, self.used.get((kind, name), {}), _counted(job))
            if over:
                return over
        return None

    def workers_left(self, job: Running | Waiting) -> int:
        """How many workers more than those that are counted its quotas leave it."""
        most = MOST_WORKERS
        for key in _owners(job) if self.quotas else ():
            quota, used = self._quota(*key), self.used.get(key, {})
            for what, limit, each in _limits(quota, job.demand) if quota else ():
                if limit is not None and each > 0:
                    # Tenths of a CPU do not add up to the last digit.
                    most = min(most, int((limit - used.get(what, 0.0) + 1e-9) / each))
        return max(0, most)

    def _quota(self, kind: QuotaKind, name: str) -> Quota | None:
        return self.quotas.get((kind, name)) or self.quotas.get((kind, "*"))


def _owners(job: Running | Waiting) -> tuple[tuple[QuotaKind, str], ...]:
    return (QuotaKind.USER, job.user), (QuotaKind.QUEUE, job.queue)


def _counted(job: Running | Waiting) -> dict[str, float]:
    count = job.workers if isinstance(job, Running) else job.demand.workers[0]
    return {"jobs": 1.0, "cpus": job.demand.cpus * count, "gpus": job.demand.gpus * count}


def _limits(quota: Quota, demand: Demand) -> tuple[tuple[str, float | None, float], ...]:
    """What is limited of the workers of a job, and how much of it each takes."""
    return ("cpus", quota.cpus, demand.cpus), ("gpus", quota.gpus, demand.gpus)


def _over(quota: Quota, owner: str, used: Mapping[str, float], asked: Mapping[str, float]) -> Excess | None:
    for what, limit in (("jobs", quota.jobs), ("cpus", quota.cpus), ("gpus", quota.gpus)):
        needed = used.get(what, 0.0) + asked[what]
        if limit is not None and asked[what] > 0 and needed > limit + 1e-9:
            return Excess(quota, owner, what, limit, needed)
    return None
