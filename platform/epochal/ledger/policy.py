"""Which job starts next, who makes room for it, and why the others wait: pure functions. No database, no clock, no Ray.

Jobs go by priority (higher first), then by order of arrival. One that does not fit now is passed by those that do. Once
it has waited ``PATIENCE``, the first such job holds the cluster: for ``HOLD`` nobody behind it starts, so that room
gathers; then others pass again for ``PATIENCE``, and so on. So nobody holds back a smaller job for longer than ``HOLD``
at a time, and nobody is passed for ever. Jobs that could never fit, or are over a quota, hold nobody back.

A job that fits only if running ``preemptible`` jobs of lower priority leave has them leave: as few as possible, of the
lowest priority, those that started last. While they save their state and go, the room they leave is kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

from epochal.ledger.capacity import Demand, Node, fit, fits_ever, freed, total_of
from epochal.ledger.values import Quota, QuotaKind

PATIENCE = 300.0
"""Seconds for which a job that does not fit lets smaller ones pass, at first and after each hold."""

HOLD = 600.0
"""Seconds for which it then holds the cluster, at the most."""

_TRIED = 2_000
"""Sets of jobs looked at for the fewest that make enough room; then they are picked one by one."""


@dataclass(frozen=True)
class Waiting:
    """A queued job. ``number`` is its order of arrival, ``since`` when it came into the queue."""

    id: str
    number: int
    priority: int = 50
    demand: Demand = field(default_factory=Demand)
    user: str = ""
    queue: str = "default"
    since: float = 0.0
    storage: str | None = None
    """Where its checkpoints are, once it has some: only agents there can go on with it."""

    @property
    def order(self) -> tuple[int, int]:
        return -self.priority, self.number


@dataclass(frozen=True)
class Running:
    """A job that an agent has leased. ``started`` is when it was leased.

    ``world_size`` is the number of its workers, once known.
    ``here``: on the cluster that is asked about. ``leaving_since`` is when it was asked to make room, or to stop.
    """

    id: str
    priority: int = 50
    demand: Demand = field(default_factory=Demand)
    user: str = ""
    queue: str = "default"
    preemptible: bool = False
    started: float = 0.0
    here: bool = True
    leaving_since: float | None = None
    world_size: int | None = None

    @property
    def share(self) -> Demand:
        """What its gang has now."""
        return self.demand if self.world_size is None else self.demand.with_workers(self.world_size)


@dataclass(frozen=True)
class Decision:
    """The job to start now, or the jobs to ask to leave; neither where there is nothing to do.

    ``holder`` is the job for which everybody behind it waits, where there is one.
    """

    start: str | None = None
    preempt: tuple[str, ...] = ()
    holder: str | None = None
    expected: bool = False
    """The holder fits once those that were asked to leave have left."""

    @property
    def made(self) -> bool:
        """Whether room is being made for the holder."""
        return bool(self.preempt) or self.expected


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
    """What the running jobs take, against the quotas. An elastic job counts with the most workers it may have."""

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
            quota = self.quotas.get((kind, name)) or self.quotas.get((kind, "*"))
            over = quota and _over(quota, name, self.used.get((kind, name), {}), _counted(job))
            if over:
                return over
        return None


def decide(
    queue: Iterable[Waiting], running: Sequence[Running], nodes: Sequence[Node], quotas: Iterable[Quota], now: float
) -> Decision:
    """What the agent of ``nodes`` shall do next. ``running`` are the jobs of all agents: quotas count them all."""
    usage = Usage.of(running, quotas)
    passed: set[tuple[int, Demand]] = set()
    for job in in_order(queue):
        if usage.excess(job) or not fits_ever(nodes, job.demand):
            continue
        if fit(nodes, job.demand):
            return Decision(start=job.id)
        alike = job.priority, job.demand  # what is true of one is true of those like it
        if alike not in passed:
            decision = without_room(job, running, nodes, now, first=not passed)
            if decision is not None:
                return decision
            passed.add(alike)
    return Decision()


def in_order(queue: Iterable[Waiting]) -> list[Waiting]:
    return sorted(queue, key=lambda job: job.order)


def holds(job: Waiting, now: float) -> bool:
    """Whether a job that does not fit may hold the cluster now, rather than let others pass."""
    return max(0.0, now - job.since) % (PATIENCE + HOLD) >= PATIENCE


def holds_until(job: Waiting, now: float) -> float:
    """When it lets others pass again."""
    waited = max(0.0, now - job.since)
    return now + (PATIENCE + HOLD) - waited % (PATIENCE + HOLD)


def leaving(running: Iterable[Running], now: float) -> list[Running]:
    """Those on this cluster that are about to leave; one that takes longer than ``HOLD`` is not waited for."""
    return [job for job in running if job.here and _goes(job, now)]


def room_comes(job: Waiting, running: Sequence[Running], nodes: Sequence[Node], now: float) -> bool:
    """Whether ``job`` fits once those that were asked to leave have left."""
    gone = leaving(running, now)
    return bool(gone) and _fits_without(job, nodes, gone)


def without_room(
    job: Waiting, running: Sequence[Running], nodes: Sequence[Node], now: float, first: bool
) -> Decision | None:
    """What to do about a job that does not fit now; None: let others pass."""
    if room_comes(job, running, nodes, now):
        return Decision(holder=job.id, expected=True)
    # One at a time over all clusters: else two of them would make room for the same job.
    if not any(_goes(one, now) and one.preemptible for one in running):
        chosen = victims(job, running, nodes)
        if chosen:
            return Decision(preempt=tuple(one.id for one in chosen), holder=job.id)
    return Decision(holder=job.id) if first and holds(job, now) else None


def victims(job: Waiting, running: Iterable[Running], nodes: Sequence[Node]) -> tuple[Running, ...]:
    """The fewest running jobs that make room for ``job`` by leaving; none where that would not be enough."""
    may_go = [one for one in running if one.here and one.preemptible and one.leaving_since is None]
    cheapest = sorted((one for one in may_go if one.priority < job.priority), key=_cost)
    if not _fits_without(job, nodes, cheapest):
        return ()
    for some in islice(_sets(cheapest), _TRIED):
        if _fits_without(job, nodes, some):
            return some
    return _one_by_one(job, cheapest, nodes)


def _goes(job: Running, now: float) -> bool:
    return job.leaving_since is not None and now - job.leaving_since < HOLD


def _fits_without(job: Waiting, nodes: Sequence[Node], gone: Iterable[Running]) -> bool:
    left = tuple(nodes)
    for one in gone:
        left = freed(left, one.share)
    return fit(left, job.demand) > 0


def _cost(job: Running) -> tuple[int, float]:
    """Those of the lowest priority go first, then those that lose the least work."""
    return job.priority, -job.started


def _sets(jobs: Sequence[Running]) -> Iterator[tuple[Running, ...]]:
    """Every set of them: the small ones first, and of one size the cheapest first."""
    for size in range(1, len(jobs) + 1):
        yield from combinations(jobs, size)


def _one_by_one(job: Waiting, cheapest: Sequence[Running], nodes: Sequence[Node]) -> tuple[Running, ...]:
    """All of them, less each that is not needed, the dearest looked at first."""
    chosen = list(cheapest)
    for one in reversed(cheapest):
        rest = [other for other in chosen if other is not one]
        if _fits_without(job, nodes, rest):
            chosen = rest
    return tuple(chosen)


def _owners(job: Running | Waiting) -> tuple[tuple[QuotaKind, str], ...]:
    return (QuotaKind.USER, job.user), (QuotaKind.QUEUE, job.queue)


def _counted(job: Running | Waiting) -> dict[str, float]:
    most = job.demand.most
    return {"jobs": 1.0, "cpus": most["CPU"], "gpus": most.get("GPU", 0.0)}


def _over(quota: Quota, owner: str, used: Mapping[str, float], asked: Mapping[str, float]) -> Excess | None:
    for what, limit in (("jobs", quota.jobs), ("cpus", quota.cpus), ("gpus", quota.gpus)):
        needed = used.get(what, 0.0) + asked[what]
        if limit is not None and asked[what] > 0 and needed > limit + 1e-9:
            return Excess(quota, owner, what, limit, needed)
    return None
