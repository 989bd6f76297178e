"""Who competes for a cluster's room: jobs that wait for it, jobs that have it, and the cluster itself.

No database, no clock, no Ray.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from epochal.ledger.capacity import Demand, Group, Node


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

    ``world_size`` is the number of its workers, once known; ``granted`` how many it may have, and ``granted_at`` since
    when: fewer than it has, and it gives some back, more, and it takes them; None where it was leased past the policy.
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
    number: int = 0
    granted: int | None = None
    granted_at: float = 0.0

    @property
    def order(self) -> tuple[int, int]:
        return -self.priority, self.number

    @property
    def workers(self) -> int:
        """That it has now, or may take at any moment."""
        if self.world_size is None:
            return self.demand.workers[1] if self.granted is None else self.granted
        return max(self.world_size, self.granted or 0) if self.demand.step else self.world_size

    @property
    def share(self) -> Demand:
        """What they take."""
        return self.demand.with_workers(self.workers)

    @property
    def spare(self) -> int:
        """Workers that it can do without, and was not asked for yet."""
        if not self.demand.step or self.leaving_since is not None or self.gives:
            return 0
        return max(0, self.workers - self.demand.workers[0])

    @property
    def gives(self) -> int:
        """Workers that it was asked to give back, and has."""
        if not self.demand.step or self.granted is None or self.world_size is None:
            return 0
        return max(0, self.world_size - self.granted)


@dataclass(frozen=True)
class Cluster:
    """The nodes of one agent, none where it is gone, and of all that run its leased jobs (``here`` is true of them)."""

    nodes: tuple[Node, ...]
    running: tuple[Running, ...] = ()
    agent: str = ""
    storage: str | None = None
    groups: tuple[Group, ...] = ()
    """Of which it could have more nodes."""
