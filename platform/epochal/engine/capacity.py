"""What a gang asks for, what the nodes have, and whether it fits: pure functions over values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epochal.engine.code import Package
from epochal.errors import CapacityError
from epochal.units import Bytes

_TOLERANCE = 0.01
"""Of a CPU or GPU: a warm worker holds a ten-thousandth of a GPU while it starts."""


@dataclass(frozen=True)
class GangRequest:
    """The workers of a job. ``workers`` are the least and the most; of a range the most that fit are formed.

    ``memory`` is in bytes a worker. ``env`` is set in the workers' environment. ``package`` is put on their import
    path.
    """

    job: str
    workers: tuple[int, int]
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    package: Package | None = None

    @property
    def bundle(self) -> dict[str, float]:
        """One worker's share, in Ray's words."""
        bundle = {"CPU": self.cpus}
        if self.gpus:
            bundle["GPU"] = self.gpus
        if self.memory:
            bundle["memory"] = float(self.memory)
        return bundle

    @property
    def threads(self) -> int:
        """Threads a worker's tensor operations use."""
        return max(1, int(self.cpus))

    def __str__(self) -> str:
        low, high = self.workers
        count = str(low) if low == high else f"{low} to {high}"
        return f"{count} worker{'s' if high > 1 else ''} with {_amounts(self.bundle)} each"


@dataclass(frozen=True)
class Node:
    """A living node: what it has (``total``) and what is free of it (``available``), by Ray's resource names."""

    id: str
    host: str
    total: Mapping[str, float]
    available: Mapping[str, float]


def nodes_of(table: Iterable[Mapping[str, Any]], available: Mapping[str, Mapping[str, float]]) -> tuple[Node, ...]:
    """From Ray's table of nodes and its table of what is free, by node id."""
    return tuple(
        Node(row["NodeID"], row["NodeManagerAddress"], row["Resources"], available.get(row["NodeID"], {}))
        for row in table
        if row["Alive"]
    )


def room(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """How many workers of that ``bundle`` fit on what a node has."""
    return min(
        int((node.get(name, 0.0) + (0.0 if name == "memory" else _TOLERANCE)) / amount)
        for name, amount in bundle.items()
        if amount > 0
    )


def fit(nodes: Sequence[Node], request: GangRequest) -> int:
    """The number of workers to form now: as many as are free for, at most the request's most; 0 below its least."""
    low, high = request.workers
    count = min(high, sum(room(node.available, request.bundle) for node in nodes))
    return count if count >= low else 0


def check_possible(nodes: Sequence[Node], request: GangRequest) -> None:
    """Refuse what would not fit even on idle nodes.

    Raises:
        CapacityError: naming the biggest node and the smallest change that would fit.
    """
    if not nodes:
        raise CapacityError("the cluster has no nodes", "add one, or wait until one has joined")
    ever = sum(room(node.total, request.bundle) for node in nodes)
    if ever >= request.workers[0]:
        return
    biggest = max(nodes, key=lambda node: (node.total.get("GPU", 0), node.total.get("CPU", 0)))
    have = _amounts({name: biggest.total.get(name, 0.0) for name in request.bundle})
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    message = f"{request} can never fit: the cluster has {count}, the biggest with {have}"
    raise CapacityError(message, _smallest_change(nodes, request, ever))


def does_not_fit_now(nodes: Sequence[Node], request: GangRequest, seconds: float) -> CapacityError:
    """The error of a request for which there was no room within ``seconds``."""
    free = {name: sum(node.available.get(name, 0.0) for node in nodes) for name in request.bundle}
    message = f"no room for {request} within {seconds:g} s: {_amounts(free)} free on the whole cluster"
    return CapacityError(message, "wait for other jobs to end, stop one, or ask for less", permanent=False)


def _smallest_change(nodes: Sequence[Node], request: GangRequest, ever: int) -> str:
    if ever >= 1:
        return f"resources.workers={ever} would fit"
    changes = []
    for name, field_name in (("CPU", "cpus"), ("GPU", "gpus"), ("memory", "memory")):
        most = max(node.total.get(name, 0.0) for node in nodes)
        if name in request.bundle and request.bundle[name] > most:
            value = str(Bytes(int(most) >> 20 << 20)) if name == "memory" else f"{most:g}"
            changes.append(f"resources.{field_name}_per_worker={value}")
    if not changes:
        return "no node has all of it: ask for less of one resource"
    return f"at most {' and '.join(changes)} fits on a node"


def _amounts(resources: Mapping[str, float]) -> str:
    names = {"CPU": "CPU", "GPU": "GPU"}
    return ", ".join(
        f"{Bytes(int(amount)).human()} of memory" if name == "memory" else f"{amount:g} {names[name]}"
        for name, amount in resources.items()
    )
