"""What the queue is short of: how many nodes each worker group should have. Pure functions; no database, no clock.

It decides nothing that the policy decides. It looks at the queue in the same order, and asks of each job: does it fit
on what is free? If not, would it on nodes that are being started, or on more of a group? The agent of the cluster has
its groups start these; once they have joined, the policy gives them jobs as it does all nodes.

A job counts for one cluster: for the first, by the agents' names, that could have room for it, so that two do not start
nodes for the same job. An elastic job counts with its least number of workers, for it starts as soon as these fit; a
sweep, which grows while it runs, with as many as it may have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Self

from epochal.ledger.capacity import CRUMBS, Demand, Group, Node, fit, placed, room
from epochal.ledger.contenders import Cluster, Running, Waiting
from epochal.ledger.usage import Usage
from epochal.ledger.values import Quota

LOOKED_AT = 2000
"""Jobs of the queue, the first in its order."""

_MOST_JOBS = 200
"""Of them: nodes are started for no more of them at once."""


@dataclass(frozen=True)
class Shortage:
    """``needed``: by agent and group how many nodes have work, or would have. ``waits``: by job the agent, and the
    groups, whose nodes it waits for."""

    needed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    waits: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)


def short_of(
    queue: Iterable[Waiting], running: Sequence[Running], clusters: Iterable[Cluster], quotas: Iterable[Quota]
) -> Shortage:
    """``queue`` is in the policy's order; ``running`` are the jobs of all agents, for the quotas."""
    usage = Usage.of(running, quotas)
    waits: dict[str, tuple[str, tuple[str, ...]]] = {}
    plans = [_Plan.of(one) for one in sorted(clusters, key=lambda one: one.agent)]
    served, refused = 0, set()
    for job in islice(queue, LOOKED_AT):
        if served == _MOST_JOBS:
            break
        if usage.excess(job):
            continue
        reach = [plan for plan in plans if job.storage in (None, plan.cluster.storage)]
        low, high = job.demand.workers
        most = max(low, min(high, usage.workers_left(job))) if job.demand.step else low
        demand = job.demand.with_workers(low, most)
        alike = (low, most, job.storage, tuple(sorted(demand.bundle.items())))
        if alike in refused:  # there is less room than when another such job found none
            continue
        counted = replace(job, demand=demand.with_workers(most))
        if any(plan.starts(demand) for plan in reach):
            usage.add(counted)
            served += 1
            continue
        for plan in reach:
            if groups := plan.take(demand):
                waits[job.id] = plan.cluster.agent, groups
                usage.add(counted)
                served += 1
                break
        else:
            refused.add(alike)
    for plan in plans:
        for one in plan.cluster.running:
            plan.grow(one, usage)
    return Shortage({plan.cluster.agent: plan.needed() for plan in plans if plan.cluster.groups}, waits)


@dataclass
class _Plan:
    """One cluster, its nodes as the queue so far would leave them."""

    cluster: Cluster
    there: tuple[Node, ...]
    coming: tuple[Node, ...]
    """Those that are being started, or would be."""
    spare: dict[str, int]
    """How many more each group may have."""

    @classmethod
    def of(cls, cluster: Cluster) -> Self:
        coming = [
            node
            for group in cluster.groups
            for node in _to_come(group, len(group.nodes), group.asked - len(group.nodes))
        ]
        spare = {group.name: group.most - max(group.asked, len(group.nodes)) for group in cluster.groups}
        return cls(cluster, cluster.nodes, tuple(coming), spare)

    def starts(self, demand: Demand) -> bool:
        """Whether it fits on nodes that are there, where it then has its share."""
        if not fit(self.there, demand):
            return False
        self.there = placed(self.there, demand)
        return True

    def take(self, demand: Demand) -> tuple[str, ...]:
        """Give it a share of nodes that are there, are coming, and of new ones; the groups of the last two. None where
        it has no room on them all."""
        new = self._new(demand)
        if new is None:
            return ()
        before = (*self.coming, *new)
        after = placed((*self.there, *before), demand)
        self.there, self.coming = after[: len(self.there)], after[len(self.there) :]
        for node in new:
            self.spare[node.host] -= 1
        pairs = zip(before, self.coming, strict=True)
        return tuple(dict.fromkeys(one.host for one, other in pairs if one.available != other.available))

    def _new(self, demand: Demand) -> list[Node] | None:
        """As few as are wanted beside those that are there or coming; None where not even the least fits."""
        (low, high), bundle = demand.workers, demand.bundle
        count = sum(room(node.available, bundle) for node in (*self.there, *self.coming))
        new: list[Node] = []
        # Of groups with GPUs only what asks for some gets new ones, unless no other group could do.
        for group in sorted(self.cluster.groups, key=lambda one: "GPU" not in bundle and one.shape.get("GPU", 0) > 0):
            each = room(group.shape, bundle)
            wanted = min(self.spare[group.name], -(-max(0, high - count) // each)) if each else 0
            new += _to_come(group, len(self.coming) + len(new), wanted)
            count += each * wanted
        return new if count >= low else None

    def grow(self, job: Running, usage: Usage) -> None:
        """What a running sweep could have beyond what it has."""
        more = min(job.demand.workers[1] - job.workers, usage.workers_left(job)) if job.here else 0
        if job.demand.step and job.leaving_since is None and more >= job.demand.step:
            self.take(job.demand.with_workers(job.demand.step, more))

    def needed(self) -> dict[str, int]:
        """How many nodes of each group have work, or would have."""
        group_of = {node: group.name for group in self.cluster.groups for node in group.nodes}
        counted = {group.name: 0 for group in self.cluster.groups}
        for node in filter(is_used, self.there):
            if name := group_of.get(node.id):
                counted[name] += 1
        for node in filter(is_used, self.coming):
            counted[node.host] += 1
        return counted


def is_used(node: Node) -> bool:
    """Whether anything runs on it, or has a share of it."""
    has = {name: node.total.get(name, 0.0) for name in ("CPU", "GPU")}
    return any(node.available.get(name, 0.0) < amount - CRUMBS for name, amount in has.items())


def _to_come(group: Group, begin: int, count: int) -> list[Node]:
    """Nodes that are not there yet; their host is the group's name."""
    return [Node(f"{group.name}/{begin + one}", group.name, group.shape, group.shape) for one in range(count)]
