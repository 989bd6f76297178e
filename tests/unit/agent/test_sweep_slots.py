"""Which of a sweep's slots leave, and which join; on a real Ray: ``test_sweep_service.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray import JobID, PlacementGroupID
from ray.util.placement_group import PlacementGroup

from epochal.agent import sweep_slots
from epochal.agent.sweep_program import _Listener
from epochal.agent.sweep_slots import Orders, SlotPool
from epochal.engine import place as places
from epochal.engine import slot as slots
from epochal.engine.events import Done, Started
from epochal.engine.payload import TrialSegment
from epochal.engine.place import GangRequest, Place, Seat
from epochal.engine.slot import Attempt, Slot
from epochal.ledger.states import JobState
from epochal.ledger.values import Renewed


def groups(count: int) -> list[PlacementGroup]:
    return [PlacementGroup(PlacementGroupID.of(JobID.from_int(1))) for _ in range(count)]


@dataclass
class Room:
    """A place on a cluster with room for so many ``groups`` more."""

    request: GangRequest
    free: int
    given: list[list[Seat]] = field(default_factory=list)

    def groups(self) -> list[list[Seat]]:
        return self.given

    def add(self, workers: int) -> list[list[Seat]]:
        count = min(self.free, workers // self.request.step)
        self.free -= count
        added = [[Seat(group, bundle, "a", 0) for bundle in range(self.request.step)] for group in groups(count)]
        self.given += added
        return added

    def give_up(self, seats: list[Seat]) -> None:
        self.given.remove(seats)
        self.free += 1


class Pool:
    """Of slots of two workers each, three at first, on a cluster with room for five."""

    def __init__(self) -> None:
        self.place = Room(GangRequest("sweep", (2, 10), step=2), 5)
        self.place.add(6)
        self.told: list[int] = []
        self.named: list[Any] = []
        self.orders = Orders(lambda: self.told.append(2 * len(self.place.given)))
        make: Any = lambda number, seats: Slot(cast(Any, None), number, seats)  # noqa: E731
        self.pool = SlotPool(cast(Any, self.place), self.orders, make, self.named.append)
        self.slots = self.pool.begin()

    def grant(self, workers: int | None) -> None:
        self.orders.heard(Renewed(JobState.RUNNING, granted=workers))

    def leaving(self) -> list[int]:
        return [slot.number for slot in self.slots if self.pool.leaves(slot)]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(sweep_slots, "_TRY_SECONDS", 0.0)
    return Pool()


@pytest.mark.parametrize(("granted", "leaving"), [(6, []), (5, [1]), (4, [1]), (2, [1, 2]), (1, [1, 2])])
def test_as_many_leave_as_are_not_granted_and_the_first_stays(pool: Pool, granted: int, leaving: list[int]) -> None:
    pool.grant(granted)
    assert pool.leaving() == pool.leaving() == leaving
    assert len(pool.pool) == 3 - len(leaving)
    assert pool.pool.joining() == []


def test_room_is_given_back_once_a_slot_has_left_and_its_number_taken_again(pool: Pool) -> None:
    pool.grant(4)
    assert pool.leaving() == [1]
    assert pool.told == []
    pool.pool.left(pool.slots[1])
    assert pool.told == [4]
    assert pool.named == [[0, 1, 4, 5]]
    pool.grant(8)
    assert [slot.number for slot in pool.pool.joining()] == [1, 3]
    assert pool.told == [4, 8]
    assert pool.pool.joining() == []


def test_what_is_granted_is_looked_for_until_it_is_there(pool: Pool) -> None:
    pool.place.free = 0
    pool.grant(8)
    assert pool.pool.joining() == []
    pool.place.free = 1
    assert [slot.number for slot in pool.pool.joining()] == [3]
    assert pool.told == [8]


def test_where_nobody_grants_workers_a_sweep_grows_into_the_room_there_is(pool: Pool) -> None:
    """As `epochal run` does where a moment before its first look something else had the room."""
    pool.grant(None)
    assert pool.leaving() == []
    assert [slot.number for slot in pool.pool.joining()] == [3, 4]
    pool.place.free = 1
    assert pool.pool.joining() == [], "it has asked for no more"


def test_slots_that_hold_up_a_job_are_interrupted_but_never_the_first(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(sweep_slots.time, "monotonic", lambda: now)
    pool.grant(2)
    assert pool.pool.overdue() == []
    now = sweep_slots.PATIENCE - 1
    assert pool.pool.overdue() == []
    now += 1
    assert [slot.number for slot in pool.pool.overdue()] == [1, 2]
    assert pool.pool.overdue() == []
    assert pool.pool.leaves(pool.slots[2])
    now += sweep_slots.PATIENCE
    assert [slot.number for slot in pool.pool.overdue()] == [1]
    pool.grant(6)
    assert pool.pool.overdue() == []
    now += sweep_slots.PATIENCE
    pool.grant(2)
    assert pool.pool.overdue() == [], "its time begins anew"


def test_a_slot_that_stays_samples_its_node_once_the_first_one_there_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three slots the first is on one node, the others on another."""
    made = groups(3)
    nodes = dict(zip(made, ("near", "far", "far"), strict=True))
    monkeypatch.setattr(places, "_known", lambda group: {"bundles_to_node_id": {0: nodes[group]}})
    monkeypatch.setattr(places, "remove_placement_group", lambda group: None)
    gangs: list[list[Seat]] = []

    class Kept:
        """Workers that do whatever they are told."""

        is_over = False

        def __init__(self, attempt: Attempt, number: int, seats: list[Seat]) -> None:
            self.seats = seats
            gangs.append(seats)

        def train(self, segments: list[TrialSegment], number: int, ending: set[int]) -> list[Done]:
            return [Done(0, None) for _ in segments]

        def close(self) -> None:
            gangs.remove(self.seats)

    monkeypatch.setattr(slots, "_Kept", Kept)
    place = Place(cast(Any, None), GangRequest("sweep", (1, 3), step=1), made, 1)
    make: Any = lambda number, seats: Slot(cast(Any, None), number, seats)  # noqa: E731
    pool = SlotPool(place, Orders(lambda: None), make, lambda numbers: None)
    sitting = pool.begin()
    segment: Any = "a segment"
    for slot in sitting:
        slot.train([segment])
    assert [gang[0].local_rank for gang in gangs] == [0, 0, 1]
    sitting[1].close()
    pool.left(sitting[1])
    kept = gangs[0]
    for slot in (sitting[0], sitting[2]):
        slot.train([segment])
        slot.train([segment])
    assert [(gang[0].node, gang[0].local_rank) for gang in gangs] == [("near", 0), ("far", 0)]
    assert gangs[0] is kept, "who is the first on its node already keeps its workers"


def test_workers_of_a_slot_that_has_left_are_not_named() -> None:
    told: list[tuple[int, list[int]]] = []
    tell: Any = SimpleNamespace(started=lambda size, ranks: told.append((size, [one.rank for one in ranks])))
    place: Any = SimpleNamespace(world_size=3)
    listener = _Listener(tell, cast(Any, None), place)
    for number in range(3):
        listener.started({number: Started(0, 100 + number, 1.0, "node", "host", "cpu")})
    place.world_size = 2
    listener.resized([0, 2])
    assert told[-2:] == [(3, [0, 1, 2]), (2, [0, 2])]
