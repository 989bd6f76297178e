"""What fits on which nodes, and what is said about what never will."""

from __future__ import annotations

import pytest

from epochal.engine.capacity import GangRequest, Node, check_possible, does_not_fit_now, fit, nodes_of, room
from epochal.errors import CapacityError

GIB = 2.0**30


def node(name: str, cpus: float, gpus: float = 0, memory: float = 64 * GIB, free: float | None = None) -> Node:
    total = {"CPU": cpus, "memory": memory} | ({"GPU": gpus} if gpus else {})
    return Node(name, f"host-{name}", total, total | ({} if free is None else {"CPU": free}))


def test_room_is_the_scarcest_resource() -> None:
    assert room({"CPU": 8, "GPU": 2, "memory": 100 * GIB}, {"CPU": 2, "GPU": 1}) == 2
    assert room({"CPU": 8, "memory": 10 * GIB}, {"CPU": 1, "memory": 4 * GIB}) == 2
    assert room({"CPU": 8}, {"CPU": 1, "GPU": 1}) == 0


def test_what_ray_rounds_off_takes_no_gpu_away() -> None:
    assert room({"CPU": 8, "GPU": 1.9998}, {"CPU": 1, "GPU": 1}) == 2


@pytest.mark.parametrize(
    ("workers", "expected"), [((1, 1), 1), ((2, 5), 3), ((3, 3), 3), ((4, 4), 0), ((4, 8), 0), ((1, 2), 2)]
)
def test_fit_is_all_or_nothing_and_takes_the_most_of_a_range(workers: tuple[int, int], expected: int) -> None:
    nodes = (node("a", 4, free=2), node("b", 4, free=1.5))
    assert fit(nodes, GangRequest("job", workers)) == expected


def test_fraction_of_a_cpu() -> None:
    assert fit((node("a", 2),), GangRequest("job", (3, 3), cpus=0.5)) == 3
    assert GangRequest("job", (3, 3), cpus=0.5).threads == 1
    assert GangRequest("job", (3, 3), cpus=4).threads == 4


def test_what_can_never_fit_names_the_biggest_node_and_the_smallest_change() -> None:
    nodes = (node("a", 4), node("b", 8))
    with pytest.raises(CapacityError) as too_many:
        check_possible(nodes, GangRequest("job", (20, 20)))
    assert "20 workers with 1 CPU each" in str(too_many.value)
    assert "2 nodes, the biggest with 8 CPU" in str(too_many.value)
    assert too_many.value.hint == "resources.workers=12 would fit"
    with pytest.raises(CapacityError) as too_big:
        check_possible(nodes, GangRequest("job", (1, 1), cpus=16, memory=int(100 * GIB)))
    assert "resources.cpus_per_worker=8 and resources.memory_per_worker=64GiB" in too_big.value.hint
    with pytest.raises(CapacityError) as no_gpu:
        check_possible(nodes, GangRequest("job", (1, 1), gpus=1))
    assert "resources.gpus_per_worker=0" in no_gpu.value.hint
    assert no_gpu.value.permanent
    with pytest.raises(CapacityError, match="no nodes"):
        check_possible((), GangRequest("job", (1, 1)))


def test_busy_nodes_are_not_too_small() -> None:
    busy = (node("a", 4, free=0),)
    request = GangRequest("job", (1, 4))
    check_possible(busy, request)
    assert fit(busy, request) == 0
    error = does_not_fit_now(busy, request, 5)
    assert not error.permanent
    assert "1 to 4 workers with 1 CPU each within 5 s: 0 CPU free" in str(error)


def test_nodes_of_rays_tables() -> None:
    rows = [
        {"NodeID": "a", "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 2.0}, "Alive": True},
        {"NodeID": "b", "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 2.0}, "Alive": False},
        {"NodeID": "c", "NodeManagerAddress": "10.0.0.3", "Resources": {"CPU": 4.0}, "Alive": True},
    ]
    assert nodes_of(rows, {"a": {"CPU": 1.0}}) == (
        Node("a", "10.0.0.1", {"CPU": 2.0}, {"CPU": 1.0}),
        Node("c", "10.0.0.3", {"CPU": 4.0}, {}),
    )
