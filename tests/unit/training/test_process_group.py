from __future__ import annotations

from datetime import timedelta

import psutil
import pytest
import torch.distributed as dist

from epochal.training import process_group
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


def test_a_peer_that_never_comes_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "JOIN_TIMEOUT", timedelta(seconds=0.2))
    with (
        serve("127.0.0.1", 2) as (meeting, store),
        pytest.raises(dist.DistError),
        join(Worker(rank=0, world_size=2), meeting, store),
    ):
        pytest.fail("joined alone")
    assert not dist.is_initialized()
