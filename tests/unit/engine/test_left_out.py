"""A node whose cable was cut, while Ray still takes it for alive."""

from __future__ import annotations

from typing import cast

import pytest
import ray
from ray.util.placement_group import PlacementGroup

from epochal.engine import connection
from epochal.engine.connection import Connection
from epochal.engine.place import GangRequest, Place
from epochal.engine.warm import WarmPool

TABLE = [
    {"NodeID": name, "NodeManagerAddress": f"host-{name}", "Resources": {"CPU": 2.0}, "Alive": True}
    for name in ("near", "far")
]


def test_nobody_is_placed_on_a_node_that_was_lost_until_ray_must_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    state = ray._private.state
    monkeypatch.setattr(state, "nodes", lambda: TABLE)
    monkeypatch.setattr(state, "available_resources_per_node", lambda: {row["NodeID"]: {"CPU": 2.0} for row in TABLE})
    cluster = Connection("127.0.0.1:1", "near", WarmPool())
    place = Place(cluster, GangRequest("job", (2, 2)), [cast(PlacementGroup, None)], 2)
    assert [node.id for node in cluster.nodes()] == ["near", "far"]
    place.lose_node("far")
    assert [node.id for node in cluster.nodes()] == ["near"]
    assert not place.is_whole
    monkeypatch.setattr(connection, "LEFT_OUT_SECONDS", 0.0)
    place.lose_node("far")
    assert [node.id for node in cluster.nodes()] == ["near", "far"]
