"""Which job starts next, who makes room for it, and why the others wait: pure functions. No database, no clock, no Ray.

Jobs go by priority (higher first), then by order of arrival. One that does not fit now is passed by those that do. Once
it has waited ``PATIENCE``, the first such job suspends this backfill: for ``HOLD`` nobody behind it starts; then others
pass again for ``PATIENCE``, and so on. So nobody holds up a smaller job for longer than ``HOLD`` at once, and nobody
is passed for ever. Jobs that could never fit, or are over a quota, hold nobody back.

An elastic job begins with as many workers as fit, and as its quotas leave. One whose workers may come and go while it
runs (``Demand.step``: a sweep) has to give back what a job needs that comes before it and does not fit, down to its
least. A job that fits only if running ``preemptible`` jobs of lower priority leave has them leave: as few as possible,
of the lowest priority, those that started last. While they save their state and go, the room they leave is kept for it.
What is free, and nobody waits for whose priority is as high, goes to the jobs that may have more workers while they
run: the first in the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property

from epochal.ledger.capacity import Demand, Node, fit, fits_ever, placed, whole
from epochal.ledger.contenders import Running, Waiting
from epochal.ledger.making_room import Resize, fits_without, room_for
from epochal.ledger.usage import Usage
from epochal.ledger.values import Quota

PATIENCE = 300.0
"""Seconds for which a job that does not fit lets smaller ones pass, at first and after each hold."""

HOLD = 600.0
"""Seconds for which it then suspends backfill, at the most."""


@dataclass(frozen=True)
class Decision:
    """The job to start now, or those to ask to leave, or to go on with another number of workers; nothing of it where
    there is nothing to do.

    ``workers`` is how many the job that starts may have. ``holder`` is the job for which everybody behind it waits,
    where there is one: for it are ``preempt`` and ``resize``.
    """

    start: str | None = None
    preempt: tuple[str, ...] = ()
    holder: str | None = None
    expected: bool = False
    """The holder fits once those that were asked to make room have."""
    workers: int = 0
    resize: tuple[Resize, ...] = ()


class Verdict(Enum):
    """What the policy says of one queued job, when its turn comes, and of one cluster."""

    OVER_QUOTA = auto()
    NEVER_FITS = auto()
    STARTS = auto()
    PREEMPTS = auto()
    """Others are asked to make room for it, and everybody behind it waits."""
    ROOM_COMES = auto()
    """It fits once those that were asked to make room have: everybody behind it waits."""
    HOLDS = auto()
    """It has waited long: everybody behind it waits."""
    HELD = auto()
    """Somebody before it suspends backfill."""
    PASSED = auto()
    """It does not fit now, and those behind it may."""


@dataclass
class Scan:
    """One look through the queue for one cluster. Give it the jobs ``in_order``: a verdict depends on those before it.

    ``running`` are the jobs of all agents; of those elsewhere only they matter that make room.
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
    resize: tuple[Resize, ...] = ()
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
        known = self._ever.get(demand)  # many jobs ask for the same
        if known is None:
            known = self._ever[demand] = fits_ever(self.nodes, demand)
        return known

    def fits(self, demand: Demand) -> bool:
        """On what is left."""
        known = self._now.get(demand)
        if known is None:
            known = self._now[demand] = fit(self.left, demand) > 0
        return known

    def start(self, job: Waiting) -> None:
        """Set aside what a job takes that starts, for those behind it."""
        demand = job.demand.with_workers(self.granted(job))
        self.usage.add(replace(job, demand=demand))
        self.left = placed(self.left, demand)
        self.started.append(job)
        self._now.clear()  # there is less room now; what fits on idle nodes is as it was

    def granted(self, job: Waiting) -> int:
        """How many workers a job has that starts."""
        return whole(min(fit(self.left, job.demand), self.usage.workers_left(job)), job.demand)

    def grown(self, waiting: Sequence[Waiting]) -> tuple[Resize, ...]:
        """Of those that may have more workers the first, where none of the ``waiting``, who do not fit, has a claim."""
        elastic = (one for one in self.running if one.here and one.demand.step and one.leaving_since is None)
        for one in sorted(elastic, key=lambda one: one.order):
            more = one.demand.with_workers(0, one.demand.workers[1] - one.workers)
            free = whole(min(fit(self.left, more), self.usage.workers_left(one)), more)
            workers = one.workers + free
            known = one.workers if one.granted is None else one.granted
            if workers > known and not self._is_claimed(waiting, one):
                return ((one.id, workers),)
        return ()

    def _is_claimed(self, waiting: Sequence[Waiting], elastic: Running) -> bool:
        """Whether what is free should wait for one of the ``waiting``: it comes with others' leaving to room for it,
        beside what the elastic one would not give back to it."""
        idle = [replace(node, available=node.total) for node in self.nodes]
        kept, least = (
            placed(idle, elastic.demand.with_workers(count)) for count in (elastic.workers, elastic.demand.workers[0])
        )
        return any(
            job.priority >= elastic.priority and fit(least if job.order < elastic.order else kept, job.demand) > 0
            for job in waiting
        )

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
        if self._coming and fits_without(job, self.left, self._coming):
            return Verdict.ROOM_COMES
        if self._is_being_made:
            return None
        if not any(one.here and (one.preemptible or one.spare) for one in self.running):
            return None  # on most clusters, and cheaper to know than by trying
        leave, self.resize = room_for(job, self.running, self.left)
        self.preempt = tuple(one.id for one in leave)
        return Verdict.PREEMPTS if self.preempt or self.resize else None

    # Once for all of the queue: thousands may run.
    @cached_property
    def _coming(self) -> list[Demand]:
        return [one for one in map(self.leaving, self.running) if one]

    @cached_property
    def _is_being_made(self) -> bool:
        """Room, somewhere: one at a time over all clusters, else two of them would make room for the same job."""
        return any(makes_room(one, self.now) for one in self.running)

    def leaving(self, job: Running) -> Demand | None:
        """What of a running job will be free here soon."""
        if job.here and _goes(job, self.now):
            return job.share
        return job.demand.with_workers(job.gives) if job.here and _gives(job, self.now) else None


def decide(
    queue: Iterable[Waiting], running: Sequence[Running], nodes: Sequence[Node], quotas: Iterable[Quota], now: float
) -> Decision:
    """What the agent of ``nodes`` shall do next. ``running`` are the jobs of all agents.

    Of the jobs of a class (``jobs.queue_class``) the first is enough: what is said of it is said of the others.
    """
    scan = Scan(nodes, running, Usage.of(running, quotas), now)
    waiting = []
    for job in in_order(queue):
        verdict = scan.verdict(job)
        if verdict is Verdict.STARTS:
            return Decision(start=job.id, workers=scan.granted(job))
        if scan.holder:
            expected = scan.held_by is Verdict.ROOM_COMES
            return Decision(None, scan.preempt, job.id, expected, resize=scan.resize)
        if verdict is Verdict.PASSED:
            waiting.append(job)
    return Decision(resize=scan.grown(waiting))


def may_start(
    job: Waiting, running: Sequence[Running], nodes: Sequence[Node], quotas: Iterable[Quota], now: float
) -> int:
    """With how many workers ``job`` would start now, were it the first in the queue; 0: it would not."""
    scan = Scan(nodes, running, Usage.of(running, quotas), now)
    return scan.granted(job) if scan.verdict(job) is Verdict.STARTS else 0


def in_order(queue: Iterable[Waiting]) -> list[Waiting]:
    return sorted(queue, key=lambda job: job.order)


def holds(job: Waiting, now: float) -> bool:
    """Whether a job that does not fit may suspend backfill now, rather than let others pass."""
    return max(0.0, now - job.since) % (PATIENCE + HOLD) >= PATIENCE


def holds_until(job: Waiting, now: float) -> float:
    """When it lets others pass again."""
    waited = max(0.0, now - job.since)
    return now + (PATIENCE + HOLD) - waited % (PATIENCE + HOLD)


def makes_room(job: Running, now: float) -> bool:
    """Whether a job was asked to leave, or to give workers back, for another, and still has the time for it."""
    return (job.preemptible and _goes(job, now)) or _gives(job, now)


def _goes(job: Running, now: float) -> bool:
    return job.leaving_since is not None and now - job.leaving_since < HOLD


def _gives(job: Running, now: float) -> bool:
    return job.leaving_since is None and job.gives > 0 and now - job.granted_at < HOLD
