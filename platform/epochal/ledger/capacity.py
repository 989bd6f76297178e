"""What jobs ask for, what nodes have, and what fits where: arithmetic over values. No database, no clock, no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from epochal.ledger.json_values import Value
from epochal.units import Bytes

CRUMBS = 0.01
"""Of a CPU or GPU: Ray rounds, and shares do not add up to the last digit."""

MOST_WORKERS = 100_000
"""Workers of a job, or CPUs of one: more than a spec may ask for is not read from one."""

_LARGEST = 2**60

_DEFAULT_TRIALS = 32
"""Of a sweep whose spec does not say how many, as ``spec.sweep.Sweep`` has it."""


@dataclass(frozen=True)
class Node(Value):
    """A living node: what it has (``total``) and what is free of it (``available``), by Ray's resource names.

    ``CPU`` and ``GPU`` are counts, ``memory`` is in bytes.
    """

    id: str
    host: str
    total: Mapping[str, float]
    available: Mapping[str, float]


@dataclass(frozen=True)
class Group(Value):
    """Nodes of one shape that a cluster can have more of, or fewer: a worker group on Kubernetes."""

    name: str
    shape: Mapping[str, float]
    """What one of them has, by Ray's resource names."""
    most: int
    """So many it can have."""
    asked: int
    """So many it has, or is starting."""
    nodes: tuple[str, ...] = ()
    """The ids of those that are there."""
    waits: tuple[str, ...] = ()
    """What keeps those that are being started, as Kubernetes says of their pods."""

    @property
    def missing(self) -> int:
        """How many more nodes it could come to have than are there."""
        return max(0, self.most - len(self.nodes))

    def among(self, nodes: Sequence[Node]) -> Group:
        """The same without those of its nodes that are gone since it was told: ``nodes`` are all that live."""
        living = {node.id for node in nodes}
        return replace(self, nodes=tuple(node for node in self.nodes if node in living))


@dataclass(frozen=True)
class Demand:
    """What a job needs: ``workers`` at the least and at the most, and what each reserves (``memory`` in bytes).

    ``step``: so many workers at a time may join or leave while it runs, the trials of a sweep for instance; with 0 it
    keeps, as long as an attempt lasts, those that it has begun with.
    """

    workers: tuple[int, int] = (1, 1)
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int | None = None
    step: int = 0

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # looked up by, many times
        return hash((self.workers, self.cpus, self.gpus, self.memory, self.step))

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Demand:
        """Of a stored job spec; what it does not say, or not in a way that is understood, has the spec's default.

        A sweep wants the workers of one trial at the least, and of as many as may run at a time at the most.
        """
        resources = _section(spec, "resources")
        low, high = _workers(resources.get("workers"))
        step = 0
        if isinstance(sweep := spec.get("sweep"), Mapping):
            high, step = min(MOST_WORKERS, high * _at_a_time(sweep)), low
        return cls(
            (low, high),
            _number(resources.get("cpus_per_worker")) or 1.0,
            _number(resources.get("gpus_per_worker")),
            _memory(resources.get("memory_per_worker")),
            step,
        )

    @cached_property
    def bundle(self) -> dict[str, float]:
        """One worker's share, in Ray's words."""
        bundle = {"CPU": self.cpus}
        if self.gpus:
            bundle["GPU"] = self.gpus
        if self.memory:
            bundle["memory"] = float(self.memory)
        return bundle

    @property
    def most(self) -> Mapping[str, float]:
        """What all its workers may take together."""
        return {name: amount * self.workers[1] for name, amount in self.bundle.items()}

    def with_workers(self, low: int, high: int | None = None) -> Demand:
        return replace(self, workers=(low, low if high is None else high))

    def at_most(self, granted: int | None) -> Demand:
        """The same with no more workers than its job may have; None: nobody has said how many that are."""
        return self if granted is None else self.with_workers(self.workers[0], granted)

    def __str__(self) -> str:
        low, high = self.workers
        count = str(low) if low == high else f"{low} to {high}"
        return f"{count} worker{'s' if high > 1 else ''} with {amounts(self.bundle)} each"


def room(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """How many workers of that ``bundle`` fit on what a node has."""
    least = MOST_WORKERS
    for name, amount in bundle.items():  # a plain loop: this is asked for every kind of job and every node
        if amount > 0:
            count = int((node.get(name, 0.0) + (0.0 if name == "memory" else CRUMBS)) / amount)
            if count < least:
                least = count
                if not least:
                    break
    return least


def fit(nodes: Sequence[Node], demand: Demand) -> int:
    """The number of workers to form now: as many as are free for, at most the demand's most; 0 below its least."""
    low, high = demand.workers
    bundle = demand.bundle
    count = min(high, sum(room(node.available, bundle) for node in nodes))
    return whole(count, demand) if count >= low else 0


def whole(count: int, demand: Demand) -> int:
    """So many workers, less what is left over where they come and go several at a time."""
    return count - count % demand.step if demand.step else count


def fits_ever(nodes: Sequence[Node], demand: Demand, groups: Sequence[Group] = ()) -> bool:
    """Whether its least number of workers fits on idle nodes, those included that ``groups`` could come to have."""
    return most_workers(nodes, demand, groups) >= demand.workers[0]


def placed(nodes: Sequence[Node], demand: Demand) -> tuple[Node, ...]:
    """The nodes once as many workers as fit, at most the demand's most, have their share: node by node, in order."""
    left, bundle, after = demand.workers[1], demand.bundle, list[Node]()
    for node in nodes:
        if not left:
            return (*after, *nodes[len(after) :])
        here = min(left, room(node.available, bundle))
        left -= here
        after.append(_changed(node, bundle, -here) if here else node)
    return tuple(after)


def freed(nodes: Sequence[Node], demand: Demand) -> tuple[Node, ...]:
    """The nodes once the workers of ``demand`` have left, from wherever that much is in use, in order."""
    left, bundle, after = demand.workers[1], demand.bundle, list[Node]()
    for node in nodes:
        if not left:
            return (*after, *nodes[len(after) :])
        used = {name: total - node.available.get(name, 0.0) for name, total in node.total.items()}
        here = min(left, room(used, bundle))
        left -= here
        after.append(_changed(node, bundle, here) if here else node)
    return tuple(after)


def most_workers(nodes: Sequence[Node], demand: Demand, groups: Sequence[Group] = ()) -> int:
    """How many of its workers fit on idle nodes, those included that ``groups`` could come to have."""
    bundle = demand.bundle
    there = sum(room(node.total, bundle) for node in nodes)
    return there + sum(room(group.shape, bundle) * group.missing for group in groups)


def lack_of(nodes: Sequence[Node], demand: Demand) -> str:
    """What is missing for the least number of workers: on the nearest node, where none has room for even one.

    >>> lack_of([Node("a", "host-a", {"CPU": 4}, {"CPU": 3})], Demand((4, 4)))
    'room for 1 more worker: 1 CPU'
    >>> lack_of([Node("a", "host-a", {"CPU": 2}, {"CPU": 0})], Demand((2, 2)))
    'room for 2 workers: 2 CPU'
    """
    bundle, low = demand.bundle, demand.workers[0]
    count = sum(room(node.available, bundle) for node in nodes)
    if count >= low or not nodes:
        return ""
    more = low - count
    if count or (more > 1 and any(room(node.total, bundle) for node in nodes)):
        missing = {name: amount * more for name, amount in bundle.items()}
        workers = f"{more}{' more' if count else ''} worker{'s' if more > 1 else ''}"
        return f"room for {workers}: {amounts(missing)}"
    nearest = _nearest(nodes, bundle)
    return f"{amounts(_lack(nearest, bundle))} on the node {nearest.host}"


def never_fits(nodes: Sequence[Node], demand: Demand, groups: Sequence[Group] = ()) -> str:
    """The sentence about a demand that not even idle nodes, and all that ``groups`` could have, could meet."""
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    have = [f"the cluster has {count}"]
    if nodes:
        biggest = max(nodes, key=lambda node: (node.total.get("GPU", 0), node.total.get("CPU", 0)))
        have[0] += f", the biggest with {_of(biggest.total, demand)}"
    have += [f"group {one.name} could have {one.most} with {_of(one.shape, demand)} each" for one in groups]
    return f"{demand} can never fit: {'; '.join(have)}"


def started(group: Group, needed: int = 0) -> str:
    """How far a group is that has, or is to have, ``needed`` nodes, and what keeps the rest."""
    why = f" ({'; '.join(group.waits)})" if group.waits else ""
    return f"group {group.name} has {len(group.nodes)} of {max(needed, group.asked)} nodes{why}"


def _of(amounts_of_node: Mapping[str, float], demand: Demand) -> str:
    """Of what is asked for."""
    return amounts({name: amounts_of_node.get(name, 0.0) for name in demand.bundle})


def smallest_change(nodes: Sequence[Node], demand: Demand) -> str:
    """What to ask for instead, so that it fits on what is free of the nodes; empty where next to nothing is free.

    >>> smallest_change([Node("a", "host-a", {"CPU": 4}, {"CPU": 3})], Demand((4, 4)))
    'resources.workers=3'
    """
    smaller = that_fits(nodes, demand)
    if smaller is None:
        return ""
    changes = [
        ("workers", f"{smaller.workers[0]}", smaller.workers[0] != demand.workers[0]),
        ("cpus_per_worker", f"{smaller.cpus:g}", smaller.cpus != demand.cpus),
        ("gpus_per_worker", f"{smaller.gpus:g}", smaller.gpus != demand.gpus),
        ("memory_per_worker", f"{Bytes(smaller.memory or 0)}", smaller.memory != demand.memory),
    ]
    return " and ".join(f"resources.{name}={value}" for name, value, changed in changes if changed)


def that_fits(nodes: Sequence[Node], demand: Demand) -> Demand | None:
    """The demand, with fewer workers or, where not even one fits, with smaller ones, so that it fits; None: nothing."""
    count = min(demand.workers[0], sum(room(node.available, demand.bundle) for node in nodes))
    if count:
        return demand.with_workers(count)
    if not nodes:
        return None
    free = _nearest(nodes, demand.bundle).available
    smaller = replace(
        demand,
        cpus=min(demand.cpus, _tidy(free.get("CPU", 0.0))),
        gpus=min(demand.gpus, float(int(free.get("GPU", 0.0) + CRUMBS))),
        memory=demand.memory and min(demand.memory, int(free.get("memory", 0.0)) >> 20 << 20),
    )
    usable = smaller.cpus > 0 and (demand.memory is None or bool(smaller.memory))
    return that_fits(nodes, smaller) if usable else None


def amounts(resources: Mapping[str, float]) -> str:
    """
    >>> amounts({"CPU": 2.0, "memory": 2.0**30})
    '2 CPU, 1 GiB of memory'
    """
    return ", ".join(
        f"{Bytes(max(0, int(amount))).human()} of memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in resources.items()
    )


def total_of(resources: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sum, by resource."""
    found: dict[str, float] = {}
    for one in resources:
        for name, amount in one.items():
            found[name] = found.get(name, 0.0) + amount
    return found


def _changed(node: Node, bundle: Mapping[str, float], workers: int) -> Node:
    available = dict(node.available)
    for name, amount in bundle.items():
        available[name] = min(node.total.get(name, 0.0), available.get(name, 0.0) + amount * workers)
    return replace(node, available=available)


def _nearest(nodes: Sequence[Node], bundle: Mapping[str, float]) -> Node:
    """The one that lacks the smallest part of a worker's share."""
    return min(nodes, key=lambda node: sum(amount / bundle[name] for name, amount in _lack(node, bundle).items()))


def _lack(node: Node, bundle: Mapping[str, float]) -> dict[str, float]:
    return {
        name: amount - node.available.get(name, 0.0)
        for name, amount in bundle.items()
        if room(node.available, {name: amount}) < 1
    }


def _tidy(cpus: float) -> float:
    """Rounded down to a hundredth: nobody asks for 3.9999 CPUs."""
    return int(cpus * 100 + 1e-6) / 100


def _section(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = spec.get(name)
    return found if isinstance(found, Mapping) else {}


def _workers(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        low = int(_number(value.get("min"))) or 1
        return low, max(low, int(_number(value.get("max"))))
    count = int(_number(value)) or 1
    return count, count


def _at_a_time(sweep: Mapping[str, Any]) -> int:
    """How many trials; where the spec does not say, all of them."""
    return int(_number(sweep.get("concurrency")) or _number(sweep.get("trials"))) or _DEFAULT_TRIALS


def _number(value: Any) -> float:
    """0 where it is none, or none that a spec can have."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_WORKERS
    return float(value) if usable else 0.0


def _memory(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            return int(Bytes.parse(value))
        except ValueError:
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST else None
