"""Who competes for a cluster's room: jobs that wait for it, jobs that have it, and the cluster itself.

No database, no clock, no Ray.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from epochal.ledger.capacity import Demand, Group, Node

_READ_AT_ONCE = 200


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


@dataclass
class Ahead:
    """The queued jobs that are before one, by class (``jobs.queue_class``), each read when it is looked at.

    ``classes``: of each the priority, and its jobs' numbers in their order. ``read_all`` gives jobs by their numbers.
    """

    classes: Sequence[tuple[int, Sequence[int]]]
    read_all: Callable[[Sequence[int]], Iterable[Waiting]]
    _known: dict[int, Waiting] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        job: Waiting,
        classes: Iterable[Sequence[int]],
        read_all: Callable[[Sequence[int]], Iterable[Waiting]],
    ) -> Self:
        """``classes``: the numbers of all jobs of each class, in their order."""
        known = {one.number: one for one in read_all([numbers[0] for numbers in classes])}
        ahead = []
        for numbers in classes:
            priority = known[numbers[0]].priority
            before = numbers[: bisect_left(numbers, job.order, key=lambda number: (-priority, number))]
            ahead += [(priority, before)] if before else []
        return cls(ahead, read_all, known)

    def __iter__(self) -> Iterator[Waiting]:
        """All of them in their order."""
        orders = sorted((-priority, number) for priority, numbers in self.classes for number in numbers)
        for begin in range(0, len(orders), _READ_AT_ONCE):
            yield from self.read([number for _, number in orders[begin : begin + _READ_AT_ONCE]])

    def order(self, index: int, position: int) -> tuple[int, int]:
        """That of a job of the class ``index``, as ``Waiting.order``."""
        priority, numbers = self.classes[index]
        return -priority, numbers[position]

    def position(self, index: int, order: tuple[int, int]) -> int:
        """Of the first job of the class that is behind this order."""
        priority, numbers = self.classes[index]
        return bisect_left(numbers, order, key=lambda number: (-priority, number))

    def job(self, index: int, position: int) -> Waiting:
        numbers = self.classes[index][1]
        if numbers[position] not in self._known:
            self.read(numbers[position : position + _READ_AT_ONCE])  # where one starts, the next may too
        return self._known[numbers[position]]

    def read(self, numbers: Sequence[int]) -> list[Waiting]:
        missing = [number for number in numbers if number not in self._known]
        self._known |= {job.number: job for job in (self.read_all(missing) if missing else ())}
        return [self._known[number] for number in numbers]


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
