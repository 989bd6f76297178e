"""When a gang takes a node for lost: both its worker and its system are silent, for long enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from ray.util.placement_group import PlacementGroup

from epochal.engine.events import Started
from epochal.engine.failure import Evidence, Failed, FailureKind
from epochal.engine.gang import GONE_SECONDS, SILENT_SECONDS, Gang, _Flight
from epochal.engine.place import Place, Seat
from epochal.engine.ranks import Ranks
from epochal.engine.warm import WarmPool


@dataclass
class Cluster:
    """A driver on the node ``near``, and another node that answers or not."""

    answers: bool = False
    node_id: str = "near"
    warm: WarmPool = field(default_factory=WarmPool)
    left_out: list[str] = field(default_factory=list)

    def reaches(self, node: str) -> bool:
        return self.answers

    def trouble_at(self, node: str) -> str:
        return "" if self.answers else "which does not answer"

    def host_of(self, node: str) -> str:
        return f"host-{node}"

    def lost(self) -> str:
        return ""

    def leave_out(self, node: str) -> None:
        self.left_out.append(node)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def flight(cluster: Cluster) -> _Flight:
    """Of two workers, one on each node, neither of which has started."""
    place = Place(cast(Any, cluster), cast(Any, None), [], 2)
    seats = [Seat(cast(PlacementGroup, None), bundle, node, 0) for bundle, node in enumerate(("near", "far"))]
    ranks = Ranks(cast(Any, None), cast(PlacementGroup, None), "near")
    return _Flight(Gang(place, seats=seats), ranks, cast(Any, [None, None]))


def start(flight: _Flight, rank: int, node: str) -> None:
    event = Started(rank, 1, 1.0, node, f"host-{node}", "cpu")
    flight._ranks._started[rank] = event
    flight._watchdog.start(rank, flight._begun)


def lost(flight: _Flight, seconds: int) -> tuple[int, Failed] | None:
    """What first comes of a look each second, and when."""
    looks = ((second, flight._lost_node(flight._begun + second)) for second in range(1, seconds + 1))
    return next(((second, failed) for second, failed in looks if failed is not None), None)


@pytest.mark.parametrize("started", [True, False], ids=["trains", "starts"])
def test_a_node_without_a_sign_of_life_is_named(flight: _Flight, cluster: Cluster, started: bool) -> None:
    if started:
        start(flight, 0, "near")
        start(flight, 1, "far")
    found = lost(flight, 30)
    assert found is not None
    first, failed = found
    assert SILENT_SECONDS + GONE_SECONDS <= first <= SILENT_SECONDS + GONE_SECONDS + 3
    assert (failed.rank, failed.kind) == (1, FailureKind.INFRASTRUCTURE)
    assert failed.message == f"node host-far is not heard of for {first} s, and does not answer"
    assert cluster.left_out == ["far"]


def test_a_node_that_answers_is_not_lost_however_slow_its_worker_is(flight: _Flight, cluster: Cluster) -> None:
    cluster.answers = True
    start(flight, 0, "near")
    start(flight, 1, "far")
    assert lost(flight, 300) is None


def test_a_node_that_answers_now_and_then_is_not_lost(flight: _Flight, cluster: Cluster) -> None:
    start(flight, 1, "far")
    for second in range(1, 300):
        cluster.answers = second % 8 < 2
        assert flight._lost_node(flight._begun + second) is None


def test_a_death_is_told_with_its_node_and_what_is_wrong_there(flight: _Flight, cluster: Cluster) -> None:
    start(flight, 0, "near")
    start(flight, 1, "far")
    died = [Failed(rank, FailureKind.INFRASTRUCTURE, "it died") for rank in (0, 1)]
    raised = Failed(1, FailureKind.USER_ERROR, "ValueError", evidence=Evidence.EXCEPTION)
    told = [flight._located(failed).message for failed in (*died, raised)]
    assert told == ["it died", "it died; on node host-far, which does not answer", "ValueError"]
    cluster.answers = True
    assert flight._located(died[1]).message == "it died; on node host-far"
