"""Room for a gang, as far as it needs no cluster: Ray is slow to make its group, or says no."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from epochal.engine import place as places
from epochal.engine.capacity import Group, Node
from epochal.engine.connection import Connection
from epochal.engine.place import GangRequest, reserve
from epochal.errors import CapacityError

TWO = {"CPU": 2.0}


@dataclass(eq=False)
class Cluster:
    """A Ray that makes a group after so many looks of a second, on a node of which ``free`` is free."""

    made_after: int
    free: dict[str, float]
    now: float = 0.0

    def nodes(self) -> tuple[Node, ...]:
        return (Node("n", "host", TWO, self.free),)

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return seconds > 0 and self.now > self.made_after


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster(5, TWO)
    monkeypatch.setattr(places, "placement_group", lambda *_, **__: cluster)
    monkeypatch.setattr(places, "remove_placement_group", lambda group: None)
    monkeypatch.setattr(places, "placement_group_table", lambda group: {})
    monkeypatch.setattr(places.time, "monotonic", lambda: cluster.now)
    return cluster


def reserved(cluster: Cluster, **more: Any) -> places.Place:
    return reserve(cast(Connection, cluster), GangRequest("job", (2, 2)), 2.0, **more)


def test_room_that_is_there_is_waited_for_while_a_busy_machine_makes_the_group(busy: Cluster) -> None:
    reserved(busy)
    assert busy.now == 6.0


def test_nobody_is_told_that_there_is_no_room_where_there_is(busy: Cluster) -> None:
    busy.made_after = 1000
    with pytest.raises(CapacityError) as refused:
        reserved(busy)
    assert refused.value.message == (
        "Ray did not place 2 workers with 1 CPU each within 15 s, though there is room: its machines are too busy"
    )
    assert not refused.value.permanent


def test_room_that_somebody_else_got_is_not_waited_for(busy: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(seconds: float) -> bool:
        busy.free = {"CPU": 0.0}
        busy.now += seconds
        return False

    monkeypatch.setattr(busy, "wait", wait)
    monkeypatch.setattr(places.time, "sleep", wait)
    with pytest.raises(CapacityError, match="no room for 2 workers with 1 CPU each within 2 s: 0 CPU free"):
        reserved(busy)
    assert busy.now < 4


def test_a_group_that_was_made_as_its_room_was_looked_at_is_taken(
    busy: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(seconds: float) -> bool:
        made, busy.free = busy.free != TWO, {"CPU": 0.0}
        busy.now += seconds
        return made and seconds > 0

    monkeypatch.setattr(busy, "wait", wait)
    reserved(busy)
    assert busy.now == 2.0


def test_a_group_that_nobody_wants_any_more_is_not_waited_for(busy: Cluster) -> None:
    with pytest.raises(CapacityError):
        reserved(busy, given_up=lambda: busy.now >= 1)
    assert busy.now == 2.0


def test_groups_that_are_not_made_cost_a_second_together(busy: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that takes room for four while somebody else gets that of two of them."""

    class Group:
        def __init__(self, state: str) -> None:
            self.state = state

        def wait(self, seconds: float) -> bool:
            busy.now += 0.0 if self.state == "CREATED" else seconds
            return self.state == "CREATED"

    made = iter([Group("CREATED"), Group("PENDING"), Group("CREATED"), Group("PENDING")])
    monkeypatch.setattr(places, "placement_group", lambda *_, **__: next(made))
    monkeypatch.setattr(places, "placement_group_table", lambda group: {"state": group.state})
    asked: list[float] = []

    def nodes() -> tuple[Node, ...]:
        asked.append(busy.now)
        return (Node("n", "host", {"CPU": 4.0}, {"CPU": 4.0 if len(asked) <= 2 else 0.0}),)

    monkeypatch.setattr(busy, "nodes", nodes)
    request = GangRequest("sweep", (1, 4), step=1)
    place = reserve(cast(Connection, busy), request, 2.0)
    assert (place.world_size, busy.now) == (2, 1.0)


def test_a_group_that_was_not_made_is_asked_for_again(busy: Cluster) -> None:
    busy.made_after = 20
    assert reserve(cast(Connection, busy), GangRequest("job", (2, 2)), 60.0).request.job == "job"
    assert busy.now == 21.0


def test_room_on_a_node_that_is_made_anew_comes(busy: Cluster) -> None:
    """Whose group was looked at last before the other node was lost."""
    busy.free = {"CPU": 2.0}
    waits = ("1 of 2 pods: its containers start",)
    group = Group("cpu", {"CPU": 2.0}, most=2, asked=2, nodes=("n", "lost"), waits=waits)

    def reserve_three(more: Group) -> CapacityError:
        with pytest.raises(CapacityError) as refused:
            reserve(cast(Connection, busy), GangRequest("job", (3, 3)), 0.0, groups=lambda: [more])
        return refused.value

    coming = reserve_three(group)
    assert not coming.permanent
    assert coming.message == (
        "no room for 3 workers with 1 CPU each within 0 s: 2 CPU free on the whole cluster, "
        "and nodes are being started: group cpu has 1 of 2 nodes (1 of 2 pods: its containers start)"
    )
    never = reserve_three(replace(group, most=1, asked=1))
    assert never.permanent
    assert "can never fit: the cluster has 1 node, the biggest with 2 CPU; group cpu could have 1" in never.message


@pytest.mark.parametrize(("freed_after", "workers"), [(0.5, 2), (1.5, 1)])
def test_an_elastic_gang_waits_a_moment_for_what_ray_has_not_counted_as_free_yet(
    busy: Cluster, monkeypatch: pytest.MonkeyPatch, freed_after: float, workers: int
) -> None:
    busy.made_after, busy.free = 0, {"CPU": 1.0}

    def sleep(seconds: float) -> None:
        busy.now += seconds
        busy.free = TWO if busy.now > freed_after else busy.free

    monkeypatch.setattr(places.time, "sleep", sleep)
    request = GangRequest("job", (1, 2))
    assert reserve(cast(Connection, busy), request, 2.0).world_size == workers
