"""A place: room on the cluster for the workers of a job, all of them or none, kept over its attempts."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from epochal.engine.capacity import GangRequest, Group, check_possible, does_not_fit_now, fit, not_placed
from epochal.engine.connection import Connection
from epochal.ledger.capacity import most_workers

__all__ = ["GangRequest", "Place", "Seat", "reserve"]

GROUP_PREFIX = "epochal:"
"""What the names of our placement groups begin with."""

_CREATE_SECONDS = 15.0
"""For Ray to make a group of room that there is: on a busy machine seconds, and nobody else would get it sooner."""

_GROW_SECONDS = 5.0
"""The same for more room while a sweep trains, which goes on without."""

_LOOK_SECONDS = 1

_FREED_SECONDS = 1.0
"""After which Ray counts as free what others have just given back: so long more of an elastic range is waited for."""


@dataclass(frozen=True)
class Seat:
    """A worker's part of a place: a bundle of a placement group, on a node."""

    group: PlacementGroup
    bundle: int
    node: str
    local_rank: int


def reserve(
    connection: Connection,
    request: GangRequest,
    timeout: float,
    given_up: Callable[[], bool] = lambda: False,
    groups: Callable[[], Sequence[Group]] = tuple,
) -> Place:
    """Reserve room for the workers, all of them or none; of an elastic range the most that fit now, or in a moment.

    ``timeout`` is in seconds. Once the room is ``given_up`` nobody waits for it any longer. ``groups`` tells of which
    the cluster could have more nodes.

    Raises:
        CapacityError: the workers can never fit, or did not within the timeout.
    """
    begun = time.monotonic()
    deadline = begun + timeout
    while True:
        nodes = connection.nodes()
        more = [group.among(nodes) for group in groups()]
        check_possible(nodes, request, more)
        workers = fit(nodes, request)
        # A gang stays as large as it begins; more of a sweep's workers may join later.
        waits = not request.step and time.monotonic() < min(begun + _FREED_SECONDS, deadline)
        fewer = workers < min(request.workers[1], most_workers(nodes, request.demand))
        # Asking only once there is room: a group that is refused is looked at again much later.
        if (
            workers
            and not (fewer and waits)
            and (created := _created(connection, request, workers, _CREATE_SECONDS, given_up))
        ):
            return Place(connection, request, created, request.step or workers)
        if time.monotonic() >= deadline or given_up():
            nodes = connection.nodes() if workers else nodes
            still = workers and fit(nodes, request)
            raise not_placed(request, _CREATE_SECONDS) if still else does_not_fit_now(nodes, request, timeout, more)
        time.sleep(0.02)


def _created(
    connection: Connection,
    request: GangRequest,
    workers: int,
    seconds: float,
    given_up: Callable[[], bool] = lambda: False,
) -> list[PlacementGroup]:
    """A group for all of them, or for each of those that come and go together. Empty where fewer than the request's
    least have room after all."""
    each = request.step or workers
    groups: list[PlacementGroup] = [
        # Ray refuses a second group of one name, and that of the attempt before may still be on its way out.
        placement_group(
            [request.bundle] * each, strategy="PACK", name=f"{GROUP_PREFIX}{request.job}:{uuid.uuid4().hex[:8]}"
        )
        for _ in range(workers // each)
    ]
    deadline, one = time.monotonic() + seconds, replace(request, workers=(each, each))

    def waits() -> bool:
        """For as long as the room seems to be there: what Ray says is free may have been taken a moment ago."""
        return time.monotonic() < deadline and not given_up() and fit(connection.nodes(), one) > 0

    there = _made(groups, waits)
    if len(there) * each < request.workers[0]:
        there = []
    for group in groups:
        if group not in there:  # each was waited for: Ray 2.60 never frees the room of one that it is just making
            remove_placement_group(group)
    return there


def _made(groups: Sequence[PlacementGroup], waits: Callable[[], bool]) -> list[PlacementGroup]:
    """Those that Ray has made, and has within the second after nobody waits any longer: one for all of them. It counts
    in seconds, and without any time it always says no."""
    there, left = [], list(groups)
    while left and waits():
        if left[0].wait(_LOOK_SECONDS):
            there.append(left.pop(0))
    if left and left[0].wait(_LOOK_SECONDS):
        there.append(left.pop(0))
    return there + [group for group in left if _known(group).get("state") == "CREATED"]


class Place:
    """Reserved room for ``world_size`` workers; for some of them it can be given up, and for more be added, where they
    come and go (``GangRequest.step``). Use it as a context manager.

    Each of the ``groups`` has room for ``each`` workers. One thread changes them; any may look.
    """

    def __init__(
        self, connection: Connection, request: GangRequest, groups: Sequence[PlacementGroup], each: int
    ) -> None:
        self.connection = connection
        self.request = request
        self._each = each
        self._parts: dict[PlacementGroup, ExitStack] = {group: ExitStack() for group in groups}
        self._lost_node = False

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def world_size(self) -> int:
        return self._each * len(self._parts)

    @property
    def is_whole(self) -> bool:
        """Whether all of it is there still: a node that is lost takes its part along."""
        # A GCS that has forgotten a group knows nothing of it.
        return not self._lost_node and all(_known(group).get("state") == "CREATED" for group in list(self._parts))

    def lose_node(self, node_id: str) -> None:
        """That node of it does not answer; Ray takes a minute longer to notice."""
        self._lost_node = True
        self.connection.leave_out(node_id)

    @property
    def workers_by_node(self) -> Mapping[str, int]:
        """How many workers each node has room for, by node id."""
        return Counter(seat.node for seat in self.seats())

    def seats(self) -> list[Seat]:
        """Each worker's; of each group those on one node follow each other."""
        return [seat for seats in self.groups() for seat in seats]

    def groups(self) -> list[list[Seat]]:
        """The seats of those that sit together."""
        used: Counter[str] = Counter()
        return [_seats(group, used) for group in list(self._parts)]

    def add(self, workers: int) -> list[list[Seat]]:
        """Reserve room for at most so many more, as there is room for now: the seats of each group of them."""
        request = replace(self.request, workers=(self._each, workers))
        count = fit(self.connection.nodes(), request)
        added = _created(self.connection, request, count, _GROW_SECONDS) if count else []
        self._parts |= {group: ExitStack() for group in added}
        return [seats for seats in self.groups() if seats[0].group in added]

    def give_up(self, seats: Sequence[Seat]) -> None:
        """Give the room of a group back."""
        self._remove(seats[0].group)

    def before_closing(self, group: PlacementGroup, ends: Callable[[], None]) -> None:
        """Have ``ends`` called before the room is given back."""
        self._parts[group].callback(ends)

    def close(self) -> None:
        """Give all of it up."""
        with ExitStack() as stack:  # whatever one raises, the others are given up too
            for group in list(self._parts):
                stack.callback(self._remove, group)

    def _remove(self, group: PlacementGroup) -> None:
        """End what is left of those who were in it first."""
        self._parts.pop(group).close()
        remove_placement_group(group)


def _known(group: PlacementGroup) -> dict[str, Any]:
    known: dict[str, Any] = placement_group_table(group)
    return known


def _seats(group: PlacementGroup, used: Counter[str]) -> list[Seat]:
    """``used`` counts the workers by node, over all groups of a place."""
    node_of: dict[int, str] = _known(group)["bundles_to_node_id"]
    order = list(dict.fromkeys(node_of[bundle] for bundle in sorted(node_of)))
    seats = []
    for bundle in sorted(node_of, key=lambda bundle: (order.index(node_of[bundle]), bundle)):
        node = node_of[bundle]
        seats.append(Seat(group, bundle, node, used[node]))
        used[node] += 1
    return seats
