"""What a gang asks for, and the errors where it does not fit; the arithmetic is ``ledger.capacity``'s."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from epochal.engine.code import Package
from epochal.errors import CapacityError
from epochal.ledger import capacity
from epochal.ledger.capacity import Demand, Group, Node, amounts, room
from epochal.spec.environment import is_read_at_start

__all__ = [
    "Demand",
    "GangRequest",
    "Group",
    "Node",
    "check_possible",
    "does_not_fit_now",
    "fit",
    "nodes_of",
    "not_placed",
    "room",
]


@dataclass(frozen=True)
class GangRequest:
    """The workers of a job. ``workers`` are the least and the most; of a range the most that fit are formed. ``step``:
    those that sit, and come and go, together (``Demand``).

    ``memory`` is in bytes a worker. ``env`` is set in the workers' environment, ``secrets`` are names of what is in it
    already. ``package`` is put on their import path.
    """

    job: str
    workers: tuple[int, int]
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    package: Package | None = None
    secrets: tuple[str, ...] = ()
    step: int = 0

    @property
    def demand(self) -> Demand:
        return Demand(self.workers, self.cpus, self.gpus, self.memory, self.step)

    @property
    def bundle(self) -> dict[str, float]:
        """One worker's share, in Ray's words."""
        return self.demand.bundle

    @property
    def threads(self) -> int:
        """Threads a worker's tensor operations use: one a CPU, unless the job's ``env`` says otherwise."""
        told = self.env.get("OMP_NUM_THREADS", "")
        return int(told) if told.isdecimal() and int(told) else max(1, int(self.cpus))

    @property
    def env_at_start(self) -> dict[str, str]:
        """What of ``env`` has no effect once a process has started, or has imported torch."""
        return {name: value for name, value in self.env.items() if is_read_at_start(name)}

    def __str__(self) -> str:
        return str(self.demand)


def nodes_of(table: Iterable[Mapping[str, Any]], available: Mapping[str, Mapping[str, float]]) -> tuple[Node, ...]:
    """From Ray's table of nodes and its table of what is free, by node id."""
    return tuple(
        Node(row["NodeID"], row["NodeManagerAddress"], row["Resources"], available.get(row["NodeID"], {}))
        for row in table
        if row["Alive"]
    )


def fit(nodes: Sequence[Node], request: GangRequest) -> int:
    """The number of workers to form now: as many as are free for, at most the request's most; 0 below its least."""
    return capacity.fit(nodes, request.demand)


def check_possible(nodes: Sequence[Node], request: GangRequest, groups: Sequence[Group] = ()) -> None:
    """Refuse what would not fit even on idle nodes, those included that ``groups`` could come to have.

    Raises:
        CapacityError: naming the biggest node and the smallest change that would fit.
    """
    if not nodes and not groups:
        raise CapacityError("the cluster has no nodes", "add one, or wait until one has joined")
    if not capacity.fits_ever(nodes, request.demand, groups):
        message = capacity.never_fits(nodes, request.demand, groups)
        change = capacity.smallest_change([replace(node, available=node.total) for node in nodes], request.demand)
        raise CapacityError(message, f"{change} would fit" if change else "ask for less of one resource")


def does_not_fit_now(
    nodes: Sequence[Node], request: GangRequest, seconds: float, groups: Sequence[Group] = ()
) -> CapacityError:
    """The error of a request for which there was no room within ``seconds``; nodes of ``groups`` may be coming."""
    free = {name: sum(node.available.get(name, 0.0) for node in nodes) for name in request.bundle}
    message = f"no room for {request} within {seconds:g} s: {amounts(free)} free on the whole cluster"
    if coming := [capacity.started(group) for group in groups if len(group.nodes) < group.asked]:
        message += f", and nodes are being started: {'; '.join(coming)}"
        return CapacityError(message, "it starts once they have joined", permanent=False)
    return CapacityError(message, "wait for other jobs to end, stop one, or ask for less", permanent=False)


def not_placed(request: GangRequest, seconds: float) -> CapacityError:
    """The error of a request that there is room for, and that Ray did not place."""
    message = f"Ray did not place {request} within {seconds:g} s, though there is room: its machines are too busy"
    return CapacityError(message, "it is tried again; end other programs there, if it stays so", permanent=False)
