"""Why each queued job waits: the policy's own verdicts, job by job, and what starts set aside. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Self

from epochal.errors import some
from epochal.ledger.capacity import (
    Demand,
    Node,
    amounts,
    fit,
    fits_ever,
    lack_of,
    most_workers,
    never_fits,
    smallest_change,
    started,
    total_of,
)
from epochal.ledger.contenders import Ahead, Cluster, Running, Waiting
from epochal.ledger.json_values import iso
from epochal.ledger.policy import Scan, Verdict, holds_until, in_order, makes_room
from epochal.ledger.shortage import Shortage, short_of
from epochal.ledger.usage import Excess, Usage
from epochal.ledger.values import Quota, Why, WhyKind

AHEAD = 10
"""How many of those ahead are named."""

HIGHEST_PRIORITY = 100

_SHOWN_NODES = 1_000


def explain(
    queue: Iterable[Waiting],
    running: Sequence[Running],
    clusters: Sequence[Cluster],
    quotas: Iterable[Quota],
    now: float,
) -> Iterator[tuple[str, Why]]:
    """Job id and why, for every queued job in their order.

    ``running`` are the jobs of all agents. What a job takes that starts now is set aside from those behind it.
    """
    ordered = in_order(queue)
    known = {job.number: job for job in ordered}
    play = _Play.of(ordered, lambda numbers: [known[one] for one in numbers], running, clusters, list(quotas), now)
    for job in ordered:
        turn = play.look(job)
        yield job.id, turn.tell()
        play.wait(turn.waits_for, job.priority, [job.number])


def explain_one(
    job: Waiting,
    ahead: Ahead,
    running: Sequence[Running],
    clusters: Sequence[Cluster],
    quotas: Iterable[Quota],
    now: float,
) -> Why:
    """What ``explain`` says of ``job``, with a look only at those ahead of it on which that depends.

    Once a job has had to wait, those of its class behind it have to: a start takes room and leaves none. But it may
    bring them over a quota, and who is over one waits for no room.
    """
    play = _Play.of(chain(ahead, (job,)), ahead.read, running, clusters, list(quotas), now)
    # By their orders, of each class the next job that has not had its turn, until one of the class has to wait.
    turns = [(ahead.order(index, 0), index, 0) for index in range(len(ahead.classes))]
    heapify(turns)
    waiting: dict[int, tuple[int, tuple[_Stage, ...]]] = {}

    def waited(index: int, end: int | None = None) -> None:
        begin, stages = waiting[index]
        priority, numbers = ahead.classes[index]
        play.wait(stages, priority, numbers[begin:end])

    while turns:
        order, index, position = heappop(turns)
        turn = play.look(ahead.job(index, position))
        if not turn.starts:
            waiting[index] = position, turn.waits_for
            continue
        following = [(index, position + 1)]
        if play.usage.quotas:  # those who waited up to here have their turn again, as they may be over one now
            following += [(other, ahead.position(other, order)) for other in waiting]
            for other, position in following[1:]:
                waited(other, position)
            waiting.clear()
        for index, position in following:
            if position < len(ahead.classes[index][1]):
                heappush(turns, (ahead.order(index, position), index, position))
    for index in waiting:
        waited(index)
    return play.look(job).tell()


def _not_of(cluster: Cluster, running: Iterable[Running]) -> list[Running]:
    here = {job.id for job in cluster.running}
    return [job for job in running if job.id not in here]


@dataclass(frozen=True)
class _Outlook:
    """What is to be said about a demand and what is left of a cluster."""

    free: str
    lack: str
    change: str

    @classmethod
    def of(cls, nodes: Sequence[Node], demand: Demand) -> _Outlook:
        free = total_of({name: node.available.get(name, 0.0) for name in demand.bundle} for node in nodes)
        return cls(amounts(free), lack_of(nodes, demand), smallest_change(nodes, demand))


@dataclass(eq=False)
class _Stage:
    """One cluster while the queue is looked through."""

    cluster: Cluster
    scan: Scan
    known: dict[Demand, _Outlook] = field(default_factory=dict)
    """Many jobs ask for the same."""

    def outlook(self, demand: Demand) -> _Outlook:
        if demand not in self.known:
            self.known[demand] = _Outlook.of(self.scan.left, demand)
        return self.known[demand]

    def start(self, job: Waiting) -> None:
        self.scan.start(job)
        self.known.clear()

    def hope(self, job: Waiting, verdict: Verdict, count_ahead: int) -> WhyKind:
        """What is to be told of a job that waits."""
        if verdict in (Verdict.PREEMPTS, Verdict.ROOM_COMES):
            return WhyKind.STARTS_NEXT
        if verdict is Verdict.HELD:
            return WhyKind.HELD_BACK if self.scan.fits(job.demand) else WhyKind.BEHIND
        return WhyKind.BEHIND if count_ahead else WhyKind.NO_ROOM_NOW


@dataclass(frozen=True)
class _Turn:
    """What comes of a job's look at all clusters. ``tell`` says it, until the next job has had its own."""

    tell: Callable[[], Why]
    starts: bool = False
    waits_for: tuple[_Stage, ...] = ()
    """The clusters on which it waits for room."""


@dataclass
class _Row:
    """Those who wait for room on the same clusters: how many, and the orders of the last."""

    count: int = 0
    last: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class _Play:
    clusters: Sequence[Cluster]
    stages: list[_Stage]
    usage: Usage
    shortage: Shortage
    read: Callable[[Sequence[int]], Iterable[Waiting]]
    """Queued jobs by their numbers."""
    rows: dict[tuple[_Stage, ...], _Row] = field(default_factory=dict)
    passed: dict[tuple[object, ...], tuple[_Stage, ...]] = field(default_factory=dict)
    """Where a job of each kind has had to wait: those like it have to as well."""

    @classmethod
    def of(
        cls,
        queue: Iterable[Waiting],
        read: Callable[[Sequence[int]], Iterable[Waiting]],
        running: Sequence[Running],
        clusters: Sequence[Cluster],
        quotas: Sequence[Quota],
        now: float,
    ) -> Self:
        usage, known = Usage.of(running, quotas), [one for one in clusters if one.nodes or one.groups]
        # Of what runs elsewhere a scan asks only whether room is being made there.
        going = [replace(one, here=False) for one in running if makes_room(one, now)]
        stages = [_Stage(one, Scan(one.nodes, [*one.running, *_not_of(one, going)], usage, now)) for one in known]
        grows = any(one.groups for one in clusters)
        short = short_of(queue, running, clusters, quotas) if grows else Shortage()
        return cls(clusters, stages, usage, short, read)

    def wait(self, stages: tuple[_Stage, ...], priority: int, numbers: Sequence[int]) -> None:
        """Jobs of one priority, in their order, wait for room on these clusters."""
        if stages and numbers:
            row = self.rows.setdefault(stages, _Row())
            row.count += len(numbers)
            row.last = sorted([*row.last, *((-priority, one) for one in numbers[-AHEAD:])])[-AHEAD:]

    def look(self, job: Waiting) -> _Turn:
        """Give the job its turn."""
        if not self.stages:
            return _Turn(_no_agent)
        if excess := self.usage.excess(job):
            return _Turn(partial(_over_quota, excess))
        reach = [stage for stage in self.stages if job.storage in (None, stage.cluster.storage)]
        if not reach:
            return _Turn(partial(self._far_from_storage, job))
        kind = job.priority, job.demand, job.storage
        if kind in self.passed:
            return _Turn(partial(self._waits, job, reach, {}), False, self.passed[kind])
        possible = tuple(stage for stage in reach if stage.scan.fits_ever(job.demand))
        for stage in possible:
            if stage.scan.holder is None and stage.scan.fits(job.demand):
                before = stage.scan.started
                told = partial(_starts, tuple(one.id for one in before[-AHEAD:][::-1]), len(before))
                stage.start(job)
                return _Turn(told, starts=True)
        self.passed[kind] = possible
        verdicts = {stage: stage.scan.verdict(job) for stage in possible}
        return _Turn(partial(self._waits, job, reach, verdicts), False, possible)

    def _waits(self, job: Waiting, reach: Sequence[_Stage], verdicts: Mapping[_Stage, Verdict]) -> Why:
        """By the cluster where there is the most hope. ``verdicts``: those that were made of it for the first time."""
        possible = self.passed[job.priority, job.demand, job.storage]
        if not possible or job.id in self.shortage.waits:
            return self._not_here(job, reach)
        found = []
        for stage in possible:
            verdict, count = verdicts.get(stage) or stage.scan.verdict(job), self._count_ahead(stage)
            found.append((stage.hope(job, verdict, count), stage))
        hope, stage = min(found, key=lambda one: _HOPE.index(one[0]))
        holder, ahead, count = stage.scan.holder, self._ahead(stage), self._count_ahead(stage)
        if hope is WhyKind.STARTS_NEXT:
            return Why(hope, f"room is being made for it: {_room(stage.scan)}", ahead)
        if holder is None or holder is job:
            return _no_room(job, stage, ahead, count)
        return _held_back(stage, holder) if hope is WhyKind.HELD_BACK else _no_room(job, stage, (holder.id,), count)

    def _count_ahead(self, stage: _Stage) -> int:
        return len(stage.scan.started) + sum(row.count for stages, row in self.rows.items() if stage in stages)

    def _ahead(self, stage: _Stage) -> tuple[str, ...]:
        """Those that one who waits now is behind, nearest first."""
        orders = sorted(order for stages, row in self.rows.items() if stage in stages for order in row.last)
        names = {job.number: job.id for job in self.read([number for _, number in orders[-AHEAD:]])}
        waiting = [names[number] for _, number in orders[-AHEAD:]]
        recent = [*(job.id for job in stage.scan.started[-AHEAD:]), *waiting]
        return tuple(recent[-AHEAD:][::-1])

    def _not_here(self, job: Waiting, reach: Sequence[_Stage]) -> Why:
        """Of one that no node that is there is for."""
        if job.id not in self.shortage.waits:
            return _nowhere(job, reach)
        agent, groups = self.shortage.waits[job.id]
        stage = next(stage for stage in self.stages if stage.cluster.agent == agent)
        needed = self.shortage.needed[agent]
        told = [started(one, needed[one.name]) for one in stage.cluster.groups if one.name in groups]
        message = f"nodes are being started for it: {'; '.join(told)}"
        return Why(WhyKind.PROVISIONING, message, change=stage.outlook(job.demand).change)

    def _far_from_storage(self, job: Waiting) -> Why:
        there = [one.agent for one in self.clusters if one.storage == job.storage]
        who = f"agents there: {some(there, AHEAD)}, with no node now" if there else "no agent there is known"
        message = f"its checkpoints are in the storage {job.storage}; {who}"
        anew = f"`epochal stop {job.id}`, then `epochal retry {job.id}` begins anew elsewhere"
        change = f"start {there[0] if there else 'an agent'} there; {anew}"
        return Why(WhyKind.OTHER_STORAGE, message, change=change)


def _no_agent() -> Why:
    message = "no agent that is alive has told of a node"
    change = "start an agent with `epochal agent`; `epochal up` starts its own, and `epochal doctor` says how that is"
    return Why(WhyKind.NO_AGENT, message, change=change)


def _starts(ahead: tuple[str, ...], count: int) -> Why:
    if not ahead:
        return Why(WhyKind.RUNS_NOW, "it is the next to start")
    return Why(WhyKind.STARTS_NEXT, f"there is room for it: it starts after {_named(ahead, count)}", ahead)


def _room(scan: Scan) -> str:
    """Who makes it, and how: those that are to be asked, or were."""
    resize = dict(scan.resize)
    if scan.held_by is Verdict.PREEMPTS:
        given = {one.id: one.workers - resize[one.id] for one in scan.running if one.id in resize}
        leave = list(scan.preempt)
    else:
        coming = [one for one in scan.running if scan.leaving(one)]
        given = {one.id: one.gives for one in coming if one.leaving_since is None}
        leave = [one.id for one in coming if one.leaving_since is not None]
    told = [
        f"{name} gives {count} worker{'s' if count > 1 else ''} back as its trials reach their next rung"
        for name, count in given.items()
    ]
    if leave:
        how = "saves its state and leaves" if len(leave) == 1 else "save their state and leave"
        told.append(f"{some(leave)} {how}")
    return "; ".join(told)


_HOPE = (WhyKind.STARTS_NEXT, WhyKind.HELD_BACK, WhyKind.BEHIND, WhyKind.NO_ROOM_NOW)
"""Of what keeps a job from several clusters, the one to tell."""


def _nowhere(job: Waiting, stages: Sequence[_Stage]) -> Why:
    """It fits on no cluster as it is: never, or not while those before it have the nodes that groups may have. Told by
    the cluster that comes nearest."""
    if any(fits_ever(stage.cluster.nodes, job.demand, stage.cluster.groups) for stage in stages):
        wanted = "every node that the groups may have is taken, or wanted by jobs before it"
        return Why(WhyKind.NO_ROOM_NOW, f"no room now for {job.demand}: {wanted}")
    near = max((stage.cluster for stage in stages), key=lambda one: most_workers(one.nodes, job.demand, one.groups))
    idle = [replace(node, available=node.total) for node in near.nodes]
    for one in near.groups:  # no more of them than could matter
        count = min(one.missing, job.demand.workers[0], _SHOWN_NODES)
        idle += [Node(f"{one.name}/{number}", f"of group {one.name}", one.shape, one.shape) for number in range(count)]
    message = never_fits(near.nodes, job.demand, near.groups)
    return Why(WhyKind.NEVER_FITS, message, (), lack_of(idle, job.demand), smallest_change(idle, job.demand))


def _no_room(job: Waiting, stage: _Stage, ahead: tuple[str, ...], count: int) -> Why:
    here = stage.outlook(job.demand)
    if not ahead:
        message = f"no room now for {job.demand}: {here.free} free on the whole cluster"
        return Why(WhyKind.NO_ROOM_NOW, message, (), here.lack, here.change)
    change = here.change
    if stage.scan.started and fit(stage.cluster.nodes, job.demand):
        change = change or _priority_above(stage.scan.started[0].priority)
    message = f"no room for {job.demand} behind {_named(ahead, count)}: {here.free} left"
    return Why(WhyKind.BEHIND, message, ahead, here.lack, change)


def _held_back(stage: _Stage, holder: Waiting) -> Why:
    if stage.scan.held_by is Verdict.HOLDS:
        until = iso(holds_until(holder, stage.scan.now))
        message = f"{holder.id} has waited long and suspends backfill until {until}"
    else:
        message = f"room is being made for {holder.id}, which goes first"
    return Why(WhyKind.HELD_BACK, message, (holder.id,), change=_priority_above(holder.priority))


def _priority_above(other: int) -> str:
    return f"priority={other + 1}" if other < HIGHEST_PRIORITY else ""


def _over_quota(excess: Excess) -> Why:
    quota = excess.quota
    of = f"{quota.kind} {excess.owner}"
    unit = {"jobs": "running jobs", "cpus": "CPUs", "gpus": "GPUs"}[excess.what]
    message = f"over the quota of {of}: {excess.needed:g} {unit} with it, and {excess.limit:g} allowed"
    return Why(
        WhyKind.OVER_QUOTA,
        message,
        shortfall=f"{excess.needed - excess.limit:g} {unit}",
        change=f"raise the quota of {of} from {excess.limit:g} to {excess.needed:g} {unit}",
    )


def _named(ahead: tuple[str, ...], count: int) -> str:
    return ahead[0] if count <= 1 else f"{ahead[0]} and {count - 1} more"
