from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import psutil
import pytest
import torch.distributed as dist

from epochal.engine.watchdog import DEFAULT_LIMITS
from epochal.training import process_group
from epochal.training.process_group import Rendezvous, join, serve
from epochal.training.worker import Worker


def test_the_store_listens_on_its_host_alone() -> None:
    with serve("127.0.0.1", 2) as (rendezvous, _):
        listening = [
            connection.laddr.ip
            for connection in psutil.Process().net_connections()
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == rendezvous.port
        ]
    assert listening == ["127.0.0.1"]


def test_a_lone_worker_joins_nothing() -> None:
    with join(Worker(), Rendezvous("127.0.0.1", 1)):
        assert not dist.is_initialized()


def test_a_peer_that_never_comes_is_not_waited_for_longer_than_it_may_take_to_set_up() -> None:
    assert Rendezvous("127.0.0.1", 1).seconds == DEFAULT_LIMITS["setup"]
    with (
        serve("127.0.0.1", 2) as (rendezvous, store),  # a busy machine takes long to connect
        pytest.raises(dist.DistError),
        join(Worker(rank=0, world_size=2), replace(rendezvous, seconds=0.2), store),
    ):
        pytest.fail("joined alone")
    assert not dist.is_initialized()


@pytest.fixture
def lonely(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Join as one of two workers, of whom the other never does anything: torch's own group that only pretends."""
    from torch.testing._internal.distributed import fake_pg  # noqa: F401 - registers the backend

    monkeypatch.setattr(process_group, "CPU_BACKEND", "fake")
    with serve("127.0.0.1", 2) as (rendezvous, store):
        store.add("arrived", 1)
        yield lambda: join(Worker(rank=0, world_size=2), rendezvous, store)


def test_one_that_fails_waits_for_no_other(
    lonely: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL's end in order waits for collectives of the others, who wait for this worker."""
    monkeypatch.setattr(dist, "destroy_process_group", lambda: pytest.fail("waits for the others"))
    with pytest.raises(ZeroDivisionError), lonely():
        1 / dist.get_rank()
    assert not dist.is_initialized()


def test_one_that_is_done_ends_its_group_in_order(
    lonely: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group.c10d, "_abort_process_group", lambda: pytest.fail("what others do is cut off"))
    with lonely():
        assert dist.get_world_size() == 2
    assert not dist.is_initialized()
