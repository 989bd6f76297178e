"""What an agent says is free: its own gangs at once, others as Ray tells them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from epochal.agent.booking import SETTLE_SECONDS, Bookings, Share, free, taken_by_others
from epochal.ledger.capacity import Demand, Node

TWO_CPUS = Demand(workers=(1, 1), cpus=2)


def node(name: str, cpus: float, available: float, gpus: float = 0.0) -> Node:
    total = {"CPU": cpus, "memory": 8e9} | ({"GPU": gpus} if gpus else {})
    return Node(name, name, total, {**total, "CPU": available})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def cpus(nodes: tuple[Node, ...]) -> list[float]:
    return [node.available["CPU"] for node in nodes]


def test_placed_and_pending_jobs_are_taken_off_whatever_ray_says_yet() -> None:
    nodes = (node("a", 4, 4), node("b", 4, 4))
    assert cpus(free(nodes, [], {})) == [4, 4]
    assert cpus(free(nodes, [Share(1, TWO_CPUS, {"b": 1})], {})) == [4, 2]
    assert cpus(free(nodes, [Share(1, TWO_CPUS)], {})) == [2, 4]
    assert cpus(free(nodes, [Share(1, TWO_CPUS, {"b": 2}), Share(1, Demand((2, 3), cpus=2))], {})) == [0, 0]


def test_what_others_take_is_what_ray_misses_beyond_our_own() -> None:
    nodes = (node("a", 4, 1),)
    assert taken_by_others(nodes, {}) == {"a": {"CPU": 3}}
    assert taken_by_others(nodes, {"a": {"CPU": 3.0}}) == {"a": {}}
    crumbs = replace(node("g", 4, 4, gpus=1), available={"CPU": 4, "memory": 8e9, "GPU": 0.9999})
    assert taken_by_others((crumbs,), {}) == {"g": {}}


def test_a_gang_that_has_left_frees_its_room_before_ray_knows() -> None:
    clock, told = Clock(), []
    bookings = Bookings(clock, lambda: told.append(clock.now))
    bookings.expect("job", 1, TWO_CPUS)
    assert bookings.told((node("a", 4, 4),)) == ((node("a", 4, 2),), [("job", 1, 1)])
    bookings.place("job", 1, {"a": 1})
    clock.now += 10
    assert cpus(bookings.told((node("a", 4, 2),))[0]) == [2]
    bookings.release("job", 1)
    assert bookings.told((node("a", 4, 2),)) == ((node("a", 4, 4),), [])  # Ray is late
    assert len(told) == 3


def test_others_count_once_our_own_changes_have_settled() -> None:
    clock = Clock()
    bookings = Bookings(clock)
    bookings.expect("job", 1, TWO_CPUS)
    bookings.place("job", 1, {"a": 1})
    busy = (node("a", 4, 0),)  # ours, and two of somebody else's
    assert cpus(bookings.told(busy)[0]) == [2]
    clock.now += SETTLE_SECONDS
    assert cpus(bookings.told(busy)[0]) == [0]
    bookings.release("job", 1)
    assert cpus(bookings.told(busy)[0]) == [2]  # what we left is free, what they had is not
    assert cpus(bookings.told((node("a", 4, 4),))[0]) == [4]  # they have left as well


def test_an_older_attempt_does_not_clear_away_a_newer_one() -> None:
    bookings = Bookings(Clock())
    bookings.expect("job", 1, TWO_CPUS)
    bookings.expect("job", 2, TWO_CPUS)
    bookings.place("job", 1, {"a": 1})
    bookings.release("job", 1)
    assert bookings.told((node("a", 4, 4),)) == ((node("a", 4, 2),), [("job", 2, 1)])


@pytest.mark.parametrize("placement", [None, {"gone": 1}])
def test_a_node_that_is_gone_takes_nothing_from_the_others(placement: dict[str, int] | None) -> None:
    left = free((node("a", 2, 2), node("b", 4, 4)), [Share(1, Demand(cpus=4), placement)], {})
    assert cpus(left) == ([2, 0] if placement is None else [2, 4])
