"""Why each queued job waits: the policy played forward over what is free now. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from epochal.ledger.as_json import iso
from epochal.ledger.capacity import (
    Demand,
    Node,
    amounts,
    fit,
    fits_ever,
    lack_of,
    most_workers,
    never_fits,
    placed,
    smallest_change,
    total_of,
)
from epochal.ledger.policy import Decision, Excess, Running, Usage, Waiting, holds_until, in_order, without_room
from epochal.ledger.values import Quota, Why, WhyKind

AHEAD = 10
"""How many of those ahead are named."""

HIGHEST_PRIORITY = 100


@dataclass(frozen=True)
class Cluster:
    """The nodes of one agent, none where it is gone, and of all that run its leased jobs (``here`` is true of them)."""

    nodes: tuple[Node, ...]
    running: tuple[Running, ...] = ()
    agent: str = ""
    storage: str | None = None


def explain(
    queue: Iterable[Waiting],
    running: Sequence[Running],
    clusters: Sequence[Cluster],
    quotas: Iterable[Quota],
    now: float,
) -> Iterator[tuple[str, Why]]:
    """Job id and why, for every queued job in their order; what is not asked for is not computed.

    ``running`` are the jobs of all agents. What a job takes that starts now is set aside from those behind it.
    """
    stages = [_Stage(one, one.nodes) for one in clusters if one.nodes]
    play = _Play(clusters, stages, running, Usage.of(running, quotas), now)
    for job in in_order(queue):
        yield job.id, play.why(job)


@dataclass(frozen=True)
class _Outlook:
    """What is to be said about a demand and what is left of a cluster."""

    fits: bool
    free: str
    lack: str
    change: str

    @classmethod
    def of(cls, nodes: Sequence[Node], demand: Demand) -> _Outlook:
        free = total_of({name: node.available.get(name, 0.0) for name in demand.bundle} for node in nodes)
        return cls(fit(nodes, demand) > 0, amounts(free), lack_of(nodes, demand), smallest_change(nodes, demand))


@dataclass
class _Stage:
    """One cluster while the queue is played: what is left of it, who waits for room on it, who holds it."""

    cluster: Cluster
    left: tuple[Node, ...]
    waiting: list[str] = field(default_factory=list)
    started: list[Waiting] = field(default_factory=list)
    holder: Waiting | None = None
    until: float | None = None
    """Till when it is held; None: till those that were asked to leave have left."""
    known: dict[Demand, _Outlook] = field(default_factory=dict)
    """Many jobs ask for the same."""
    passed: set[tuple[int, Demand]] = field(default_factory=set)
    """Those whose like were let pass."""

    def outlook(self, demand: Demand) -> _Outlook:
        if demand not in self.known:
            self.known[demand] = _Outlook.of(self.left, demand)
        return self.known[demand]

    def start(self, job: Waiting) -> None:
        self.left = placed(self.left, job.demand)
        self.started.append(job)
        self.known.clear()

    @property
    def count_ahead(self) -> int:
        return len(self.started) + len(self.waiting)

    @property
    def ahead(self) -> tuple[str, ...]:
        """Those that a job looked at now is behind, nearest first."""
        recent = [*(job.id for job in self.started[-AHEAD:]), *self.waiting[-AHEAD:]]
        return tuple(recent[-AHEAD:][::-1])


@dataclass
class _Play:
    clusters: Sequence[Cluster]
    stages: list[_Stage]
    running: Sequence[Running]
    usage: Usage
    now: float

    def why(self, job: Waiting) -> Why:
        if not self.stages:
            message = "no agent that is alive has told of a node"
            return Why(WhyKind.NO_AGENT, message, change="start an agent with `epochal up` or `epochal agent`")
        if excess := self.usage.excess(job):
            return _over_quota(excess)
        reach = [stage for stage in self.stages if job.storage in (None, stage.cluster.storage)]
        if not reach:
            return self._far_from_storage(job)
        possible = [stage for stage in reach if fits_ever(stage.cluster.nodes, job.demand)]
        if not possible:
            return _never(job, reach)
        for stage in possible:
            if stage.holder is None and stage.outlook(job.demand).fits:
                return self._starts(job, stage)
        return min((self._waits(job, stage) for stage in possible), key=lambda why: _HOPE.index(why.kind))

    def _far_from_storage(self, job: Waiting) -> Why:
        there = [one.agent for one in self.clusters if one.storage == job.storage]
        who = f"agents there: {', '.join(there[:AHEAD])}, with no node now" if there else "no agent there is known"
        message = f"its checkpoints are in the storage {job.storage}; {who}"
        change = f"start {there[0] if there else 'an agent'} there; `epochal stop`, then `retry` begins anew elsewhere"
        return Why(WhyKind.OTHER_STORAGE, message, change=change)

    def _starts(self, job: Waiting, stage: _Stage) -> Why:
        ahead = tuple(one.id for one in stage.started[-AHEAD:][::-1])
        self.usage.add(job)
        stage.start(job)
        if not ahead:
            return Why(WhyKind.RUNS_NOW, "it is the next to start")
        return Why(WhyKind.STARTS_NEXT, f"there is room for it: it starts after {_named(ahead, len(ahead))}", ahead)

    def _waits(self, job: Waiting, stage: _Stage) -> Why:
        ahead, first = stage.ahead, not stage.waiting
        stage.waiting.append(job.id)
        if stage.holder:
            return _behind_holder(job, stage, stage.holder)
        plan = self._plan(job, stage, first)
        if plan is None:
            return _no_room(job, stage, ahead)
        stage.holder = job
        if plan.made:
            return Why(WhyKind.STARTS_NEXT, "room is being made for it: others save their state and leave", ahead)
        stage.until = holds_until(job, self.now)
        return _no_room(job, stage, ahead)

    def _plan(self, job: Waiting, stage: _Stage, first: bool) -> Decision | None:
        if (job.priority, job.demand) in stage.passed:
            return None
        stage.passed.add((job.priority, job.demand))
        running = [*stage.cluster.running, *self._elsewhere(stage)]
        return without_room(job, running, stage.left, self.now, first)

    def _elsewhere(self, stage: _Stage) -> list[Running]:
        here = {job.id for job in stage.cluster.running}
        return [job for job in self.running if job.id not in here]


_HOPE = (WhyKind.STARTS_NEXT, WhyKind.HELD_BACK, WhyKind.BEHIND, WhyKind.NO_ROOM_NOW)
"""Of what keeps a job from several clusters, the one to tell."""


def _never(job: Waiting, stages: Sequence[_Stage]) -> Why:
    """By the cluster that comes nearest."""
    nodes = max((stage.cluster.nodes for stage in stages), key=lambda nodes: most_workers(nodes, job.demand))
    idle = [replace(node, available=node.total) for node in nodes]
    message = never_fits(nodes, job.demand)
    return Why(WhyKind.NEVER_FITS, message, (), lack_of(idle, job.demand), smallest_change(idle, job.demand))


def _no_room(job: Waiting, stage: _Stage, ahead: tuple[str, ...]) -> Why:
    here = stage.outlook(job.demand)
    if not ahead:
        message = f"no room now for {job.demand}: {here.free} free on the whole cluster"
        return Why(WhyKind.NO_ROOM_NOW, message, (), here.lack, here.change)
    change = here.change
    if stage.started and fit(stage.cluster.nodes, job.demand):
        change = change or _priority_above(stage.started[0].priority)
    message = f"no room for {job.demand} behind {_named(ahead, stage.count_ahead - 1)}: {here.free} left"
    return Why(WhyKind.BEHIND, message, ahead, here.lack, change)


def _behind_holder(job: Waiting, stage: _Stage, holder: Waiting) -> Why:
    if not stage.outlook(job.demand).fits:
        return _no_room(job, stage, (holder.id,))
    if stage.until is None:
        message = f"room is being made for {holder.id}, which goes first"
    else:
        message = f"{holder.id} has waited long: it holds the cluster until {iso(stage.until)}, so that room gathers"
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
