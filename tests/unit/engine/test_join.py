"""Which of a Ray cluster's nodes is this machine's."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import ray

from epochal.engine import connection

ALIVE, DEAD = 0, 1


def node(name: str, address: str, path: Path, state: int = ALIVE) -> SimpleNamespace:
    """As the GCS tells of it."""
    return SimpleNamespace(
        node_id=name.encode(), node_manager_address=address, raylet_socket_name=str(path), state=state
    )


def test_it_is_the_one_whose_raylet_listens_here(tmp_path: Path) -> None:
    """Its process may be one that this one does not see: another container's."""
    with socket.socket(socket.AF_UNIX) as raylet, socket.socket(socket.AF_UNIX) as ended:
        raylet.bind(str(tmp_path / "raylet"))
        raylet.listen()
        ended.bind(str(tmp_path / "ended"))
        nodes = [
            node("here", "127.0.0.1", tmp_path / "raylet"),
            node("before", "127.0.0.1", tmp_path / "ended"),
            node("removed", "127.0.0.1", tmp_path / "none"),
            node("elsewhere", "192.0.2.7", tmp_path / "raylet"),
            node("dead", "127.0.0.1", tmp_path / "raylet", DEAD),
        ]
        assert connection._nodes_here(nodes) == {b"here".hex()}


def test_ray_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    services = ray._private.services
    by_process = services.find_node_ids
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(tmp_path / "raylet"))
        raylet.listen()
        client = SimpleNamespace(get_all_node_info=lambda: {b"here": node("here", "127.0.0.1", tmp_path / "raylet")})
        with connection._found_by_socket(client):
            assert services.find_node_ids() == {b"here".hex()}
    assert services.find_node_ids is by_process
