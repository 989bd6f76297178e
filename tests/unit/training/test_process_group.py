from __future__ import annotations

import psutil
import pytest
import torch.distributed as dist

from epochal.engine.watchdog import DEFAULT_LIMITS
from epochal.training.process_group import Rendezvous, join, serve
from epochal.training.worker import Worker


def test_the_store_listens_on_its_host_alone() -> None:
    with serve("127.0.0.1", 2) as (meeting, _):
        listening = [
            connection.laddr.ip
            for connection in psutil.Process().net_connections()
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == meeting.port
        ]
    assert listening == ["127.0.0.1"]


def test_a_lone_worker_joins_nothing() -> None:
    with join(Worker(), Rendezvous("127.0.0.1", 1)):
        assert not dist.is_initialized()


def test_a_peer_that_never_comes_is_not_waited_for_longer_than_it_may_take_to_set_up() -> None:
    assert Rendezvous("127.0.0.1", 1).seconds == DEFAULT_LIMITS["setup"]
    with (
        serve("127.0.0.1", 2, seconds=0.2) as (meeting, store),
        pytest.raises(dist.DistError),
        join(Worker(rank=0, world_size=2), meeting, store),
    ):
        pytest.fail("joined alone")
    assert not dist.is_initialized()
