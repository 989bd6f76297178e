"""Which worker groups grow and shrink, and which pods go: by example, and over many looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from epochal.agent.booking import Bookings
from epochal.agent.worker_groups import Change, Idleness, Pods, Scaler, as_told, decide
from epochal.errors import ConflictError, UnreachableError
from epochal.ledger.capacity import Demand, Node

GROUP = Pods("gpu", {"CPU": 8.0, "GPU": 8.0}, least=0, most=4, asked=2, idle=60.0, pods={"p1": "h1", "p2": "h2"})


def node(host: str, free: float = 8.0) -> Node:
    return Node(f"n-{host}", host, {"CPU": 8.0, "node:h": 1.0}, {"CPU": free})


@pytest.mark.parametrize(
    ("group", "needed", "idle", "told"),
    [
        (GROUP, 3, [], Change(GROUP, 3)),
        (GROUP, 9, [], Change(GROUP, 4)),
        (GROUP, 2, ["p1", "p2"], None),
        (GROUP, 1, ["p1", "p2"], Change(GROUP, 1, ("p1",))),
        (GROUP, 0, ["p2"], Change(GROUP, 1, ("p2",))),
        (GROUP, 0, [], None),
        (replace(GROUP, least=1), 0, ["p2", "p1"], Change(replace(GROUP, least=1), 1, ("p2",))),
        (replace(GROUP, least=3), 0, [], Change(replace(GROUP, least=3), 3)),
        (replace(GROUP, removed=frozenset({"p1"})), 0, ["p1"], None),
        (replace(GROUP, removed=frozenset({"gone"})), 2, [], Change(replace(GROUP, removed=frozenset({"gone"})), 2)),
    ],
    ids=["more", "most", "busy", "one", "idle", "none", "least", "below", "going", "gone"],
)
def test_what_changes(group: Pods, needed: int, idle: list[str], told: Change | None) -> None:
    assert decide(group, needed, idle) == told


def test_a_node_that_is_there_shows_the_shape_of_its_group() -> None:
    told = as_told(GROUP, [node("h1"), node("elsewhere")])
    assert (told.nodes, told.shape, told.asked, told.most) == (("n-h1",), {"CPU": 8.0}, 2, 4)
    assert as_told(GROUP, []).shape == {"CPU": 8.0, "GPU": 8.0}


def test_idle_is_what_has_had_no_work_all_the_time() -> None:
    idleness, group = Idleness(), replace(GROUP, pods={"p1": "h1", "p2": "h2", "p3": None})
    idleness.look([group], [node("h1"), node("h2", free=7)], 0.0)
    idleness.look([group], [node("h1"), node("h2")], 50.0)
    assert idleness.longest(group, 59.0) == []
    assert idleness.longest(group, 60.0) == ["p1", "p3"], "h2 worked until 50; p3 has not even a node"
    idleness.look([group], [node("h1", free=7), node("h2")], 70.0)
    assert idleness.longest(group, 110.0) == ["p3", "p2"]


@dataclass
class Groups:
    """Worker groups that do what they are told at once."""

    pods: dict[str, str | None] = field(default_factory=lambda: {"p1": "h1", "p2": "h2"})
    asked: int = 2
    told: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    error: Exception | None = None

    def read(self) -> Sequence[Pods]:
        if self.error:
            raise self.error
        return [replace(GROUP, asked=self.asked, pods=dict(self.pods))]

    def scale(self, group: Pods, asked: int, remove: Sequence[str]) -> None:
        self.asked = asked
        self.told.append((asked, tuple(remove)))
        for pod in remove:
            del self.pods[pod]


@dataclass
class Cluster:
    """Of nodes that can be drained, but for those that are busy."""

    busy: set[str] = field(default_factory=set)
    drained: list[str] = field(default_factory=list)
    there: tuple[Node, ...] = (node("h1"), node("h2"))

    def nodes(self) -> tuple[Node, ...]:
        return self.there

    def drain(self, node_id: str) -> bool:
        if node_id in self.busy:
            return False
        self.drained.append(node_id)
        return True


def scaler(groups: Groups, cluster: Cluster, needed: dict[str, int], now: list[float]) -> tuple[Scaler, Bookings]:
    source = SimpleNamespace(provision=lambda _agent, told: {one.name: needed.get(one.name, 0) for one in told})
    bookings = Bookings(lambda: now[0])
    agent: Any = SimpleNamespace(name="a/1", cluster=cluster, bookings=bookings, source=source)
    return Scaler(agent, groups, lambda: now[0]), bookings


def test_it_grows_at_once_and_shrinks_by_what_is_idle_once_it_is() -> None:
    groups, cluster, needed, now = Groups(), Cluster(), {"gpu": 4}, [0.0]
    looks, bookings = scaler(groups, cluster, needed, now)
    looks.look()
    assert groups.told == [(4, ())]
    needed["gpu"] = 1
    bookings.expect("job", 1, Demand((1, 1), cpus=8.0))
    bookings.place("job", 1, {"n-h1": 1})
    for now[0] in (1.0, 60.0, 61.0):
        looks.look()
    assert groups.told[1:] == [(3, ("p2",))]
    assert cluster.drained == ["n-h2"], "and never the one that trains"
    now[0] = 1000.0
    looks.look()
    assert "p1" in groups.pods


def test_a_node_that_got_work_in_the_last_moment_stays() -> None:
    groups, cluster, now = Groups(), Cluster(busy={"n-h1"}), [0.0]
    looks, _ = scaler(groups, cluster, {}, now)
    looks.look()
    now[0] = 60.0
    looks.look()
    assert groups.told == [(1, ("p2",))]
    assert cluster.drained == ["n-h2"]


def test_it_says_once_that_it_cannot_look_and_once_that_it_can_again(caplog: pytest.LogCaptureFixture) -> None:
    groups, now = Groups(), [0.0]
    looks, _ = scaler(groups, Cluster(), {}, now)
    for error in (UnreachableError("the API server does not answer"), UnreachableError("still not"), None):
        groups.error = error
        looks.attempt()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the worker groups cannot be looked after, which is tried again",
        "the worker groups are looked after again",
    ]
    groups.error = ConflictError("it has changed")
    looks.attempt()
    groups.error = ValueError("a bug")
    looks.attempt()
    assert "a bug" in caplog.text


class SlowGroups(Groups):
    """Its pods go when they like."""

    def read(self) -> Sequence[Pods]:
        named = frozenset(pod for _, remove in self.told for pod in remove)
        return [replace(GROUP, asked=self.asked, pods=dict(self.pods), removed=named)]

    def scale(self, group: Pods, asked: int, remove: Sequence[str]) -> None:
        self.asked = asked
        self.told.append((asked, tuple(remove)))


def test_a_pod_that_is_still_to_go_is_named_again() -> None:
    """Otherwise KubeRay would take another in its place, perhaps one that trains."""
    groups, now = SlowGroups(), [0.0]
    looks, bookings = scaler(groups, Cluster(), {}, now)
    bookings.expect("job", 1, Demand((1, 1), cpus=8.0))
    bookings.place("job", 1, {"n-h2": 1})
    for now[0] in (0.0, 60.0):
        looks.look()
    bookings.release("job", 1)
    for now[0] in (61.0, 130.0):
        looks.look()
    assert groups.told == [(1, ("p1",)), (0, ("p1", "p2"))]
