"""A place: room on the cluster for the workers of a job, all of them or none, kept over its attempts."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from epochal.engine.capacity import GangRequest, check_possible, does_not_fit_now, fit
from epochal.engine.connection import Connection

__all__ = ["GangRequest", "Place", "Seat", "reserve"]

GROUP_PREFIX = "epochal:"
"""What the names of our placement groups begin with."""

_CREATE_SECONDS = 5.0


@dataclass(frozen=True)
class Seat:
    """A worker's part of a place: a bundle of the placement group, on a node."""

    bundle: int
    node: str
    local_rank: int


def reserve(
    connection: Connection, request: GangRequest, timeout: float, given_up: Callable[[], bool] = lambda: False
) -> Place:
    """Reserve room for the workers, all of them or none; of an elastic range the most that fit now.

    ``timeout`` is in seconds. Once the room is ``given_up`` nobody waits for it any longer.

    Raises:
        CapacityError: the workers can never fit, or did not within the timeout.
    """
    deadline = time.monotonic() + timeout
    while True:
        nodes = connection.nodes()
        check_possible(nodes, request)
        # Asking only once there is room: a group that is refused is looked at again much later.
        if (workers := fit(nodes, request)) and (group := _created(request, workers, timeout)) is not None:
            return Place(connection, request, group, workers)
        if time.monotonic() >= deadline or given_up():
            raise does_not_fit_now(nodes, request, timeout)
        time.sleep(0.02)


def _created(request: GangRequest, workers: int, timeout: float) -> PlacementGroup | None:
    name = f"{GROUP_PREFIX}{request.job}:{uuid.uuid4().hex[:8]}"
    group: PlacementGroup = placement_group([request.bundle] * workers, strategy="PACK", name=name)
    if group.wait(min(_CREATE_SECONDS, timeout)):
        return group
    remove_placement_group(group)
    return None


class Place:
    """Reserved room for ``world_size`` workers. Use it as a context manager."""

    def __init__(self, connection: Connection, request: GangRequest, group: PlacementGroup, world_size: int) -> None:
        self.connection = connection
        self.request = request
        self.group = group
        self.world_size = world_size
        self._exits = ExitStack()
        self._lost_node = False

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_whole(self) -> bool:
        """Whether all of it is there still: a node that is lost takes its part along."""
        if self._lost_node:
            return False
        known: dict[str, Any] = placement_group_table(self.group)
        return known.get("state") == "CREATED"  # a GCS that has forgotten it knows nothing

    def lose_node(self, node_id: str) -> None:
        """That node of it does not answer; Ray takes a minute longer to notice."""
        self._lost_node = True
        self.connection.leave_out(node_id)

    @property
    def workers_by_node(self) -> Mapping[str, int]:
        """How many workers each node has room for, by node id."""
        return Counter(self._nodes().values())

    def seats(self) -> list[Seat]:
        """Each rank's; ranks of one node follow each other."""
        node_of = self._nodes()
        order = list(dict.fromkeys(node_of[bundle] for bundle in sorted(node_of)))
        used: Counter[str] = Counter()
        seats = []
        for bundle in sorted(node_of, key=lambda bundle: (order.index(node_of[bundle]), bundle)):
            node = node_of[bundle]
            seats.append(Seat(bundle, node, used[node]))
            used[node] += 1
        return seats

    def before_closing(self, ends: Callable[[], None]) -> None:
        """Have ``ends`` called before the room is given back."""
        self._exits.callback(ends)

    def close(self) -> None:
        """End what is left of those who were in it, and give the room back."""
        self._exits.close()
        remove_placement_group(self.group)

    def _nodes(self) -> dict[int, str]:
        """The node of each bundle."""
        nodes: dict[int, str] = placement_group_table(self.group)["bundles_to_node_id"]
        return nodes
