"""Why each queued job waits: the policy's own verdicts, job by job, and what starts set aside. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

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
from epochal.ledger.contenders import Cluster, Running, Waiting
from epochal.ledger.json_values import iso
from epochal.ledger.policy import Scan, Verdict, holds_until, in_order
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
    only: str | None = None,
) -> Iterator[tuple[str, Why]]:
    """Job id and why, for every queued job in their order, or ``only`` one.

    ``running`` are the jobs of all agents. What a job takes that starts now is set aside from those behind it.
    """
    quotas, ordered = list(quotas), in_order(queue)
    usage, known = Usage.of(running, quotas), [one for one in clusters if one.nodes or one.groups]
    stages = [_Stage(one, Scan(one.nodes, _seen_from(one, running), usage, now)) for one in known]
    grows = any(one.groups for one in clusters)
    play = _Play(clusters, stages, usage, short_of(ordered, running, clusters, quotas) if grows else Shortage())
    for job in ordered:
        if only in (None, job.id):
            yield job.id, play.look(job)()
        elif not play.waits_again(job):
            play.look(job)


def _seen_from(cluster: Cluster, running: Iterable[Running]) -> list[Running]:
    here = {job.id for job in cluster.running}
    return [*cluster.running, *(job for job in running if job.id not in here)]


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


@dataclass
class _Stage:
    """One cluster while the queue is looked through, and who waits for room on it."""

    cluster: Cluster
    scan: Scan
    waiting: list[str] = field(default_factory=list)
    known: dict[Demand, _Outlook] = field(default_factory=dict)
    """Many jobs ask for the same."""

    def outlook(self, demand: Demand) -> _Outlook:
        if demand not in self.known:
            self.known[demand] = _Outlook.of(self.scan.left, demand)
        return self.known[demand]

    def start(self, job: Waiting) -> None:
        self.scan.start(job)
        self.known.clear()

    def wait(self, job: Waiting) -> Verdict:
        self.waiting.append(job.id)
        return self.scan.verdict(job)

    @property
    def count_ahead(self) -> int:
        """Of the job that waits since last."""
        return len(self.scan.started) + len(self.waiting) - 1

    @property
    def ahead(self) -> tuple[str, ...]:
        """Those that it is behind, nearest first."""
        recent = [*(job.id for job in self.scan.started[-AHEAD:]), *self.waiting[-AHEAD - 1 : -1]]
        return tuple(recent[-AHEAD:][::-1])


@dataclass
class _Play:
    clusters: Sequence[Cluster]
    stages: list[_Stage]
    usage: Usage
    shortage: Shortage
    passed: dict[tuple[object, ...], list[_Stage]] = field(default_factory=dict)
    """Where a job of each kind has had to wait since one started last."""

    def waits_again(self, job: Waiting) -> bool:
        """Whether a job like it has had its turn, and had to wait: it has to as well, which takes no look."""
        stages = self.passed.get(_kind(job))
        for stage in stages or ():
            stage.waiting.append(job.id)
        return stages is not None

    def look(self, job: Waiting) -> Callable[[], Why]:
        """Give the job its turn; what there is to say of it, until the next has had its own."""
        if not self.stages:
            return _no_agent
        if excess := self.usage.excess(job):
            return partial(_over_quota, excess)
        reach = [stage for stage in self.stages if job.storage in (None, stage.cluster.storage)]
        if not reach:
            return partial(self._far_from_storage, job)
        possible = [stage for stage in reach if stage.scan.fits_ever(job.demand)]
        for stage in possible:
            if stage.scan.holder is None and stage.scan.fits(job.demand):
                before = stage.scan.started
                told = partial(_starts, tuple(one.id for one in before[-AHEAD:][::-1]), len(before))
                stage.start(job)
                self.passed.clear()
                return told
        self.passed[_kind(job)] = possible
        waits = [(stage, stage.wait(job)) for stage in possible]
        if not possible or job.id in self.shortage.waits:
            return partial(self._not_here, job, reach)
        return lambda: min((_waits(job, *one) for one in waits), key=lambda why: _HOPE.index(why.kind))

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


def _kind(job: Waiting) -> tuple[object, ...]:
    return job.priority, job.demand, job.user, job.queue, job.storage


def _no_agent() -> Why:
    message = "no agent that is alive has told of a node"
    change = "start an agent with `epochal agent`; `epochal up` starts its own, and `epochal doctor` says how that is"
    return Why(WhyKind.NO_AGENT, message, change=change)


def _starts(ahead: tuple[str, ...], count: int) -> Why:
    if not ahead:
        return Why(WhyKind.RUNS_NOW, "it is the next to start")
    return Why(WhyKind.STARTS_NEXT, f"there is room for it: it starts after {_named(ahead, count)}", ahead)


def _waits(job: Waiting, stage: _Stage, verdict: Verdict) -> Why:
    if verdict is Verdict.HELD and stage.scan.holder:
        return _behind_holder(job, stage, stage.scan.holder)
    if verdict in (Verdict.PREEMPTS, Verdict.ROOM_COMES):
        return Why(WhyKind.STARTS_NEXT, f"room is being made for it: {_room(stage.scan)}", stage.ahead)
    return _no_room(job, stage, stage.ahead)


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


def _no_room(job: Waiting, stage: _Stage, ahead: tuple[str, ...]) -> Why:
    here = stage.outlook(job.demand)
    if not ahead:
        message = f"no room now for {job.demand}: {here.free} free on the whole cluster"
        return Why(WhyKind.NO_ROOM_NOW, message, (), here.lack, here.change)
    change = here.change
    if stage.scan.started and fit(stage.cluster.nodes, job.demand):
        change = change or _priority_above(stage.scan.started[0].priority)
    message = f"no room for {job.demand} behind {_named(ahead, stage.count_ahead)}: {here.free} left"
    return Why(WhyKind.BEHIND, message, ahead, here.lack, change)


def _behind_holder(job: Waiting, stage: _Stage, holder: Waiting) -> Why:
    scan = stage.scan
    if not scan.fits(job.demand):
        return _no_room(job, stage, (holder.id,))
    if scan.held_by is Verdict.HOLDS:
        until = iso(holds_until(holder, scan.now))
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
