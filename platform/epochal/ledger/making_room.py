"""Which running jobs make room for one that waits: they give workers back, or leave. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, islice

from epochal.ledger.capacity import Demand, Node, fit, freed
from epochal.ledger.contenders import Running, Waiting

_TRIED = 2_000
"""Sets of jobs looked at for the fewest that make enough room; then they are picked one by one."""

Resize = tuple[str, int]
"""A job's id, and how many workers it may have from now on."""


def room_for(
    job: Waiting, running: Sequence[Running], nodes: Sequence[Node]
) -> tuple[tuple[Running, ...], tuple[Resize, ...]]:
    """Who leaves, and who goes on with fewer workers, so that ``job`` fits; neither where that would not be enough.

    Giving workers back costs a job only time, and so as few as possible leave.
    """
    givers = sorted((one for one in running if one.here and one.spare and job.order < one.order), key=_cost)
    leanest = {one.id: replace(one, world_size=None, granted=one.workers - one.spare) for one in givers}
    emptiest = nodes
    for one in givers:
        emptiest = freed(emptiest, one.demand.with_workers(one.spare))
    leave: tuple[Running, ...] = ()
    if not fit(emptiest, job.demand):
        leave = victims(job, [leanest.get(one.id, one) for one in running], emptiest)
        if not leave:
            return (), ()
    gone, left = {one.id for one in leave}, nodes
    for one in running:
        left = freed(left, one.share) if one.id in gone else left
    return leave, tuple(_given(job, [one for one in givers if one.id not in gone], left))


def _given(job: Waiting, givers: Iterable[Running], left: Sequence[Node]) -> Iterator[Resize]:
    """No more than is needed: of the cheapest job first."""
    for one in givers:
        workers, least = one.workers, one.workers - one.spare
        while workers > least and not fit(left, job.demand):
            left = freed(left, one.demand.with_workers(one.demand.step))
            workers -= one.demand.step
        if workers < one.workers:
            yield one.id, workers


def victims(job: Waiting, running: Iterable[Running], nodes: Sequence[Node]) -> tuple[Running, ...]:
    """The fewest running jobs that make room for ``job`` by leaving; none where that would not be enough."""
    may_go = [one for one in running if one.here and one.preemptible and one.leaving_since is None]
    cheapest = sorted((one for one in may_go if one.priority < job.priority), key=_cost)
    if not fits_without(job, nodes, _shares(cheapest)):
        return ()
    for some in islice(_sets(cheapest), _TRIED):
        if fits_without(job, nodes, _shares(some)):
            return some
    return _one_by_one(job, cheapest, nodes)


def fits_without(job: Waiting, nodes: Sequence[Node], shares: Iterable[Demand]) -> bool:
    """Whether it fits once the workers of these have left."""
    left = tuple(nodes)
    for share in shares:
        left = freed(left, share)
    return fit(left, job.demand) > 0


def _shares(jobs: Iterable[Running]) -> list[Demand]:
    return [one.share for one in jobs]


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
        if fits_without(job, nodes, _shares(rest)):
            chosen = rest
    return tuple(chosen)
