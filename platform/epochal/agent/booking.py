"""What a cluster has free for the next job, as the agent knows it before Ray does.

Ray tells what is available with a delay, and knows nothing of a job that was leased and has not reserved its place yet.
The agent knows what its own gangs hold; Ray is asked only for what *others* take on a shared cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from epochal.agent.worker_time import WorkerTime
from epochal.ledger.capacity import CRUMBS, Demand, Node, placed
from epochal.ledger.values import HeldShare

SETTLE_SECONDS = 1.0
"""For so long after a gang of ours came or went Ray may still tell of the time before."""

Amounts = Mapping[str, Mapping[str, float]]
"""Resources by name, by node id."""


@dataclass(frozen=True)
class Share:
    """What one job takes: its demand, and by node how many workers have their place; None while it looks for one."""

    epoch: int
    demand: Demand
    placement: Mapping[str, int] | None = None

    @property
    def workers(self) -> int:
        return self.demand.workers[1] if self.placement is None else sum(self.placement.values())


def own(shares: Iterable[Share]) -> dict[str, dict[str, float]]:
    """What the placed ones among ``shares`` hold on each node."""
    taken: dict[str, dict[str, float]] = {}
    for share in shares:
        for node, workers in (share.placement or {}).items():
            here = taken.setdefault(node, {})
            for name, amount in share.demand.bundle.items():
                here[name] = here.get(name, 0.0) + amount * workers
    return taken


def taken_by_others(nodes: Sequence[Node], ours: Amounts) -> dict[str, dict[str, float]]:
    """What is neither available on a node, by Ray's word, nor held by us."""
    return {
        node.id: {
            name: surplus
            for name, total in node.total.items()
            if (surplus := total - node.available.get(name, 0.0) - ours.get(node.id, {}).get(name, 0.0)) > CRUMBS
        }
        for node in nodes
    }


def free(nodes: Sequence[Node], shares: Sequence[Share], others: Amounts) -> tuple[Node, ...]:
    """The nodes with what is free of each: of their total, less what gangs of ours hold, what the jobs that still look
    for a place will take, and what ``others`` have."""
    ours = own(shares)
    left = tuple(replace(node, available=_less(node, ours, others)) for node in nodes)
    for share in shares:
        if share.placement is None:
            left = placed(left, share.demand)
    return left


def _less(node: Node, *taken: Amounts) -> dict[str, float]:
    here = [amounts.get(node.id, {}) for amounts in taken]
    return {name: max(0.0, total - sum(one.get(name, 0.0) for one in here)) for name, total in node.total.items()}


class Bookings:
    """The shares of the jobs that an agent carries, and what their workers do with the ``time``. Threads may share one;
    ``changed`` is told of every change."""

    def __init__(self, clock: Callable[[], float], changed: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._changed = changed
        self._shares: dict[str, Share] = {}
        self._lock = threading.Lock()
        self._changed_at = float("-inf")
        self._others: Amounts = {}
        self.time = WorkerTime(clock)

    def expect(self, job_id: str, epoch: int, demand: Demand) -> None:
        """The job was leased. One that has kept its place from the attempt before goes on having it."""
        with self._lock:
            before = self._shares.get(job_id)
            self._shares[job_id] = Share(epoch, demand, before.placement if before else None)
        self._changed()

    def place(self, job_id: str, epoch: int, placement: Mapping[str, int]) -> None:
        """Its gang has these places (workers by node id)."""
        with self._lock:
            if self._is_of(job_id, epoch):
                share = self._shares[job_id] = replace(self._shares[job_id], placement=dict(placement))
                self.time.has_room(job_id, share.workers, share.workers * share.demand.gpus)
            self._changed_at = self._clock()
        self._changed()

    def release(self, job_id: str, epoch: int) -> None:
        """That attempt has no gang any more, and looks for no place. Doing it again does nothing."""
        with self._lock:
            if not self._is_of(job_id, epoch):
                return
            del self._shares[job_id]
            self.time.gives_back(job_id)
            self._changed_at = self._clock()
        self._changed()

    def told(self, nodes: Sequence[Node]) -> tuple[tuple[Node, ...], list[HeldShare]]:
        """For a heartbeat: the nodes, as Ray tells them now, with what is free, and whose share is missing there."""
        with self._lock:
            seen = taken_by_others(nodes, own(self._shares.values()))
            settled = self._clock() - self._changed_at >= SETTLE_SECONDS
            # What Ray is late to tell of a change of ours would look like something of others.
            self._others = seen if settled else _least(seen, self._others)
            held: list[HeldShare] = [(job_id, one.epoch, one.workers) for job_id, one in self._shares.items()]
            return free(nodes, list(self._shares.values()), self._others), held

    def _is_of(self, job_id: str, epoch: int) -> bool:
        """A job that was handed back may have come again before the attempt before has cleared away."""
        return job_id in self._shares and self._shares[job_id].epoch == epoch


def _least(seen: Amounts, before: Amounts) -> Amounts:
    """What others took before, as far as they still may."""
    return {
        node: {name: min(amount, before.get(node, {}).get(name, 0.0)) for name, amount in taken.items()}
        for node, taken in seen.items()
    }
