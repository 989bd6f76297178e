"""Which running jobs make room for one that waits: they give workers back, or leave. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, combinations, islice

from epochal.ledger.capacity import CRUMBS, Demand, Node, fit, freed
from epochal.ledger.contenders import Running, Waiting

_TRIED, _LOOKED_AT = 2_000, 200_000
"""Sets of jobs tried for the fewest that make enough room, and nodes looked at for that; then they are picked one by
one. Others who ask for a lease wait meanwhile."""

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
    enough = _first(job, cheapest, nodes)
    if not enough:
        return ()
    sets = _sets(cheapest, _fewest(job, cheapest, nodes))
    for some in islice(sets, min(_TRIED, _LOOKED_AT // len(nodes))):
        if fits_without(job, nodes, _shares(some)):
            return some
    return _without_others(job, enough, nodes)


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


def _sets(jobs: Sequence[Running], least: int) -> Iterator[tuple[Running, ...]]:
    """Every set of them of that size or more: the small ones first, and of one size the cheapest first."""
    for size in range(least, len(jobs) + 1):
        yield from combinations(jobs, size)


def _fewest(job: Waiting, cheapest: Sequence[Running], nodes: Sequence[Node]) -> int:
    """So many have to leave at the least: as many as would do if what is free were in one piece."""
    fewest = 1
    for name, amount in job.demand.bundle.items():
        missing = amount * job.demand.workers[0] - sum(node.available.get(name, 0.0) + CRUMBS for node in nodes)
        shares = sorted((one.share.bundle.get(name, 0.0) * one.workers for one in cheapest), reverse=True)
        enough = (count for count, total in enumerate(accumulate(shares), 1) if total >= missing)
        fewest = max(fewest, next(enough, len(cheapest)))
    return fewest


def _first(job: Waiting, cheapest: Sequence[Running], nodes: Sequence[Node]) -> Sequence[Running]:
    """As many of them, from the cheapest on, as make enough room together; none where all are not enough."""
    left = tuple(nodes)
    for count, one in enumerate(cheapest, 1):
        left = freed(left, one.share)
        if fit(left, job.demand):
            return cheapest[:count]
    return ()


def _without_others(job: Waiting, enough: Sequence[Running], nodes: Sequence[Node]) -> tuple[Running, ...]:
    """These less each that is not needed, the dearest looked at first."""
    chosen = list(enough)
    for one in reversed(enough):
        rest = [other for other in chosen if other is not one]
        if fits_without(job, nodes, _shares(rest)):
            chosen = rest
    return tuple(chosen)
