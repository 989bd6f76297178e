"""Which job starts next, who makes room for it, and why the others wait: pure functions. No database, no clock, no Ray.

Jobs go by priority (higher first), then by order of arrival. One that does not fit now is passed by those that do. Once
it has waited ``PATIENCE``, the first such job suspends this backfill: for ``HOLD`` nobody behind it starts; then others
pass again for ``PATIENCE``, and so on. So nobody holds up a smaller job for longer than ``HOLD`` at once, and nobody
is passed for ever. Jobs that could never fit, or are over a quota, hold nobody back.

A job that fits only if running ``preemptible`` jobs of lower priority leave has them leave: as few as possible, of the
lowest priority, those that started last. While they save their state and go, the room they leave is kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import combinations, islice

from epochal.ledger.capacity import Demand, Node, fit, fits_ever, freed, placed, total_of
from epochal.ledger.states import JobKind
from epochal.ledger.values import Quota, QuotaKind

PATIENCE = 300.0
"""Seconds for which a job that does not fit lets smaller ones pass, at first and after each hold."""

HOLD = 600.0
"""Seconds for which it then suspends backfill, at the most."""

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
    kind: JobKind = JobKind.TRAIN

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


class Verdict(Enum):
    """What the policy says of one queued job, when its turn comes, and of one cluster."""

    OVER_QUOTA = auto()
    NEVER_FITS = auto()
    STARTS = auto()
    PREEMPTS = auto()
    """Others are asked to leave for it, and everybody behind it waits."""
    ROOM_COMES = auto()
    """It fits once those that were asked to leave have left: everybody behind it waits."""
    HOLDS = auto()
    """It has waited long: everybody behind it waits."""
    HELD = auto()
    """Somebody before it suspends backfill."""
    PASSED = auto()
    """It does not fit now, and those behind it may."""


@dataclass
class Scan:
    """One look through the queue for one cluster. Give it the jobs ``in_order``: a verdict depends on those before it.

    ``running`` are the jobs of all agents: quotas count them all.
    """

    nodes: Sequence[Node]
    running: Sequence[Running]
    usage: Usage
    now: float
    left: tuple[Node, ...] = ()
    """What is free of the nodes, less what starts in this scan."""
    started: list[Waiting] = field(default_factory=list)
    holder: Waiting | None = None
    held_by: Verdict | None = None
    """What makes it the holder: PREEMPTS, ROOM_COMES or HOLDS."""
    preempt: tuple[str, ...] = ()
    _ever: dict[Demand, bool] = field(default_factory=dict)
    _now: dict[Demand, bool] = field(default_factory=dict)
    _passed: set[tuple[int, Demand]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.left = tuple(self.nodes)

    def verdict(self, job: Waiting) -> Verdict:
        if self.usage.excess(job):
            return Verdict.OVER_QUOTA
        if not self.fits_ever(job.demand):
            return Verdict.NEVER_FITS
        if self.holder:
            return Verdict.HELD
        return Verdict.STARTS if self.fits(job.demand) else self._without_room(job)

    def fits_ever(self, demand: Demand) -> bool:
        if demand not in self._ever:  # many jobs ask for the same
            self._ever[demand] = fits_ever(self.nodes, demand)
        return self._ever[demand]

    def fits(self, demand: Demand) -> bool:
        """On what is left."""
        if demand not in self._now:
            self._now[demand] = fit(self.left, demand) > 0
        return self._now[demand]

    def start(self, job: Waiting) -> None:
        """Set aside what a job takes that starts, for those behind it."""
        self.usage.add(job)
        self.left = placed(self.left, job.demand)
        self.started.append(job)
        self._now.clear()

    def _without_room(self, job: Waiting) -> Verdict:
        alike = job.priority, job.demand  # what is true of one is true of those like it
        if alike in self._passed:
            return Verdict.PASSED
        is_first = not self._passed
        self._passed.add(alike)
        found = self._makes_room(job) or (Verdict.HOLDS if is_first and holds(job, self.now) else None)
        if found:
            self.holder, self.held_by = job, found
        return found or Verdict.PASSED

    def _makes_room(self, job: Waiting) -> Verdict | None:
        gone = [one for one in self.running if one.here and _goes(one, self.now)]
        if gone and _fits_without(job, self.left, gone):
            return Verdict.ROOM_COMES
        # One at a time over all clusters: else two of them would make room for the same job.
        if any(_goes(one, self.now) and one.preemptible for one in self.running):
            return None
        self.preempt = tuple(one.id for one in victims(job, self.running, self.left))
        return Verdict.PREEMPTS if self.preempt else None


def decide(
    queue: Iterable[Waiting], running: Sequence[Running], nodes: Sequence[Node], quotas: Iterable[Quota], now: float
) -> Decision:
    """What the agent of ``nodes`` shall do next. ``running`` are the jobs of all agents.

    Of the jobs of a class (``jobs.queue_class``) the first is enough: what is said of it is said of the others.
    """
    scan = Scan(nodes, running, Usage.of(running, quotas), now)
    for job in in_order(queue):
        if scan.verdict(job) is Verdict.STARTS:
            return Decision(start=job.id)
        if scan.holder:
            return Decision(None, scan.preempt, job.id, scan.held_by is Verdict.ROOM_COMES)
    return Decision()


def may_start(
    job: Waiting, running: Sequence[Running], nodes: Sequence[Node], quotas: Iterable[Quota], now: float
) -> bool:
    """Whether ``job`` would start now, were it the first in the queue."""
    return Scan(nodes, running, Usage.of(running, quotas), now).verdict(job) is Verdict.STARTS


def in_order(queue: Iterable[Waiting]) -> list[Waiting]:
    return sorted(queue, key=lambda job: job.order)


def holds(job: Waiting, now: float) -> bool:
    """Whether a job that does not fit may suspend backfill now, rather than let others pass."""
    return max(0.0, now - job.since) % (PATIENCE + HOLD) >= PATIENCE


def holds_until(job: Waiting, now: float) -> float:
    """When it lets others pass again."""
    waited = max(0.0, now - job.since)
    return now + (PATIENCE + HOLD) - waited % (PATIENCE + HOLD)


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
