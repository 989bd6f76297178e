"""The torch process group of a gang's workers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d
from torch._C._distributed_c10d import TCPStore

from epochal.training.control import SETUP_SECONDS
from epochal.training.worker import Worker

CPU_BACKEND = "gloo"
GPU_BACKEND = "cpu:gloo,cuda:nccl"
"""Both: sums over windows of steps and checkpoint plans travel as CPU tensors."""

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""Long, because a peer may be compiling or reading data. One that died is noticed at once all the same: gloo by its
closed connection, the engine by its process; one that hangs is killed by the engine's watchdog."""

_side: tuple[object, dist.ProcessGroup] | None = None


@dataclass(frozen=True)
class Rendezvous:
    """Where the workers of a gang find each other, and how many ``seconds`` one waits there for the others."""

    host: str
    port: int
    seconds: float = SETUP_SECONDS

    @property
    def timeout(self) -> timedelta:
        return timedelta(seconds=self.seconds)


@contextmanager
def serve(host: str, world_size: int, seconds: float = SETUP_SECONDS) -> Iterator[tuple[Rendezvous, TCPStore]]:
    """The first worker's part: a store that listens on ``host`` alone, on a port that the system chose.

    Tell the ``Rendezvous`` to the other workers, and pass the store to ``join``.
    """
    listener = socket.create_server((host, 0))
    port = listener.getsockname()[1]
    # torch listens on every interface of the machine unless it is given a socket. It owns the descriptor from here.
    rendezvous = Rendezvous(host, port, seconds)
    store = TCPStore(
        host, port, world_size, True, rendezvous.timeout, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    try:
        yield rendezvous, store
    finally:
        del store


@contextmanager
def join(worker: Worker, rendezvous: Rendezvous, store: TCPStore | None = None) -> Iterator[None]:
    """Be a member of the default process group within the ``with`` block.

    An exception that leaves the block aborts the group: to end it in order is to wait for collectives that the others
    have begun or will begin, which NCCL does for as long as its timeout.

    ``store`` is the first worker's own, from ``serve``; the others connect to it. A lone worker joins nothing.

    Raises:
        torch.distributed.DistError: the others did not come in time.
    """
    if worker.world_size == 1:
        yield
        return
    if worker.device.type == "cuda":
        torch.cuda.set_device(worker.device)
    store = store or TCPStore(
        rendezvous.host, rendezvous.port, worker.world_size, False, rendezvous.timeout, wait_for_workers=False
    )
    backend = GPU_BACKEND if worker.device.type == "cuda" else CPU_BACKEND
    _await_everyone(store, worker.world_size, rendezvous.timeout)
    dist.init_process_group(
        backend, store=store, rank=worker.rank, world_size=worker.world_size, timeout=COLLECTIVE_TIMEOUT
    )
    try:
        yield
    except BaseException:
        c10d._abort_process_group()
        raise
    dist.destroy_process_group()


def side_group() -> dist.ProcessGroup:
    """The group of the same workers for a thread beside the one that trains: a group tells collectives apart by their
    order alone, and two threads have none. All workers ask for the first one at the same point of their training.

    One for as long as the default group lasts: torch never frees its threads and descriptors, and a kept gang has a
    training for each trial.
    """
    global _side  # noqa: PLW0603
    if _side is None or _side[0] is not dist.group.WORLD:
        _side = dist.group.WORLD, dist.new_group(backend=CPU_BACKEND, timeout=COLLECTIVE_TIMEOUT)
    return _side[1]


def _await_everyone(store: TCPStore, world_size: int, timeout: timedelta) -> None:
    """torch would wait for the length of a collective's timeout for a peer that never comes."""
    if store.add("arrived", 1) == world_size:
        store.set("complete", "")
    store.wait(["complete"], timeout)
