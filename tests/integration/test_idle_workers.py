"""Warm workers on a node whose raylet somebody else has started, without the variables that keep them."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from epochal.engine import ray_variables, warm
from epochal.engine.connection import Connection, connect
from epochal.engine.place import GangRequest, reserve
from polling import gone, until


def workers() -> list[str]:
    """Ray's, below this process, but for the agent of the raylet."""
    names = [one.name() for one in psutil.Process().children(recursive=True) if not gone(one.pid)]
    return [name for name in names if name.startswith("ray::") and name != "ray::RuntimeEnvAgent"]


def test_a_raylet_that_ends_idle_workers_is_told_of_and_not_given_new_ones_beside_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {name: value for name, value in ray_variables.PRIVATE.items() if name not in ray_variables.KEEPING}
    monkeypatch.setattr(ray_variables, "PRIVATE", kept)
    monkeypatch.setattr(warm, "LOOK_SECONDS", 0.5)
    with connect(token_path=tmp_path / "token", cpus=2) as cluster:
        cluster.keep_warm(2)
        until(lambda: sum(cluster.warm.idle().values()) == 2, "two warm workers, while their CPUs are free")
        (pid, other) = (pid for pids in cluster.warm._idle.values() for pid in pids)
        with reserve(cluster, GangRequest("digits", (2, 2)), 60):
            until(cluster.warm.wasteful, "somebody tells that they were ended")
            until(lambda: gone(pid) and gone(other), "both have ended")
            until(lambda: not cluster.warm.idle(), "that is known")
            time.sleep(6 * warm.LOOK_SECONDS)
            assert not workers(), "they would be ended again"
        assert dict(cluster.warm.wasteful()) == {cluster.node_id: cluster.host}
        # On a busy machine Ray takes a while to see it, and would end once more what is made meanwhile.
        until(lambda: cluster.nodes()[0].available.get("CPU") == 2, "Ray's view of what is free")
        cluster.warm.rested()
        until(lambda: sum(cluster.warm.idle().values()) == 2, "new ones, now that their CPUs are free")
    (told,) = [record for record in caplog.records if record.name == warm.__name__]
    assert told.levelno == logging.WARNING
    assert told.getMessage().startswith("node 127.0.0.1 does not keep idle workers")
    assert "RAY_num_workers_soft_limit=0 RAY_idle_worker_killing_time_threshold_ms=1000000000" in told.getMessage()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """For the tests below: what is above has one of its own, and is done with it."""
    with connect(token_path=tmp_path_factory.mktemp("ray") / "token", cpus=1) as connection:
        yield connection


def test_a_node_whose_clock_is_off_is_known_by_its_warm_worker(cluster: Connection) -> None:
    """Seen from agents whose own clocks are off the other way."""
    ahead, behind = (warm.WarmPool(lambda off=off: time.time() - off) for off in (300, -300))
    for pool, off in ((ahead, 300), (behind, -300)):
        pool.keep(1)
        until(pool.idle, "a warm worker")
        ((host, seconds),) = pool.clocks().items()
        assert host == cluster.host
        assert 0 < seconds / off <= 1.01
        pool.close()
    assert "s ahead of the agent's" in warm.clock_is_off(cluster.host, 300.0)["found"]


@pytest.mark.slow  # one that a job has used is replaced among the tests of gangs
def test_a_warm_worker_that_was_killed_is_replaced_and_nobody_is_blamed(
    cluster: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "LOOK_SECONDS", 0.5)
    cluster.keep_warm(1)
    until(lambda: sum(cluster.warm.idle().values()) == 1, "a warm worker")
    (pid,) = (pid for pids in cluster.warm._idle.values() for pid in pids)
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in cluster.warm._idle[cluster.node_id], "that is known")
    until(lambda: sum(cluster.warm.idle().values()) == 1, "another")
    assert not cluster.warm.wasteful()
    assert not cluster.warm.clocks()
