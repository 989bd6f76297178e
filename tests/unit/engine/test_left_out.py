"""A node whose cable was cut, while Ray still takes it for alive."""

from __future__ import annotations

import errno
import socket
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


def test_what_is_wrong_with_a_node_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raylet that is merely slow has a system that answers for it."""
    with socket.create_server(("127.0.0.1", 0)) as raylet, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"busy": raylet.getsockname()[1], "ended": other.getsockname()[1]}
        other.close()
        rows = [{**TABLE[0], "NodeID": name, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port}
                for name, port in ports.items()]  # fmt: skip
        monkeypatch.setattr(ray, "nodes", lambda: rows)
        cluster = Connection("127.0.0.1:1", "near", WarmPool())
        told = {name: (cluster.reaches(name), cluster.trouble_at(name)) for name in (*ports, "unheard of")}
        assert told == {"busy": (True, ""), "ended": (True, "its Ray has ended"), "unheard of": (True, "")}
        for silence in (errno.EAGAIN, errno.EHOSTUNREACH):
            monkeypatch.setattr(connection, "_knock", lambda place, silence=silence: silence)
            assert (cluster.reaches("busy"), cluster.trouble_at("busy")) == (False, "which does not answer")


def test_a_dns_that_is_away_is_no_lost_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "raylet_is_gone", lambda _: False)
    with socket.create_server(("127.0.0.1", 0)) as gcs:
        cluster = Connection(f"localhost:{gcs.getsockname()[1]}", "near", WarmPool())
        assert cluster.lost() == ""

        def away(*_: object, **__: object) -> None:
            raise socket.gaierror(-3, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", away)
        assert cluster.lost() == ""
    assert cluster.lost() == f"the GCS at {cluster.address}"
