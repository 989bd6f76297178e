"""Gangs on a node that Ray takes to have a GPU. It has none, which its workers have to find out and say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from epochal.engine.connection import Connection, connect
from epochal.engine.events import Done, Event, Failed, FailureKind, Started
from epochal.engine.gang import Gang
from epochal.engine.place import GangRequest, reserve
from polling import until

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU is made up"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where the workers find the targets
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 1}')
        with connect(token_path=tmp_path_factory.mktemp("home") / "ray_token", cpus=2) as connection:
            connection.keep_warm(2)
            yield connection


@pytest.fixture
def idle(cluster: Connection) -> set[int]:
    """The processes that are warm, once there are two."""
    until(lambda: sum(cluster.warm.idle().values()) >= 2, "warm workers")
    return set().union(*cluster.warm._idle.values())


def run(cluster: Connection, request: GangRequest, folder: Path) -> list[Event]:
    with reserve(cluster, request, 60) as place:
        return list(Gang(place).run("gang_targets:add_up", None, folder, 1))


def test_a_gang_without_gpus_finds_warm_processes(cluster: Connection, idle: set[int], tmp_path: Path) -> None:
    events = run(cluster, GangRequest("cpus", (2, 2)), tmp_path)
    assert len([event for event in events if isinstance(event, Done)]) == 2
    assert {event.pid for event in events if isinstance(event, Started)} == idle


def test_one_with_gpus_finds_them_too_and_looks_for_its_gpu(
    cluster: Connection, idle: set[int], tmp_path: Path
) -> None:
    events = run(cluster, GangRequest("gpus", (1, 1), gpus=1), tmp_path)
    started, failed = events[0], events[-1]
    assert isinstance(started, Started)
    assert started.pid in idle
    assert started.device == "cuda:0"
    assert isinstance(failed, Failed)
    assert failed.kind is FailureKind.INFRASTRUCTURE
    assert "a GPU is reserved for this worker, and torch sees none" in failed.message
