"""Processes that stay for a test session and run functions together, as the workers of a gang do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import psutil
import torch
import torch.distributed as dist

from epochal.training.process_group import join, serve
from epochal.training.worker import Worker

HOST = "127.0.0.1"
PATIENCE = 240.0
GRACE = 30.0
"""For the other ranks, once one has failed: they may wait for it for ever."""


class GangError(Exception):
    """Functions failed; ``errors`` has what each raised, None for those that did not."""

    def __init__(self, errors: list[BaseException | None], text: str) -> None:
        super().__init__(text)
        self.errors = errors


class TestGang:
    """``run(world_size, function, *args)`` calls ``function(worker, *args)`` in that many processes at once."""

    __test__ = False

    def __init__(self, size: int) -> None:
        self._size = size
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(self._size)]
        self._pipes = [ours for ours, _ in pairs]
        self._processes = [context.Process(target=_serve_calls, args=(theirs,), daemon=False) for _, theirs in pairs]
        for process in self._processes:
            process.start()

    def run(self, world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        pipes = self._pipes[:world_size]
        for rank, pipe in enumerate(pipes):
            pipe.send((Worker(rank, world_size, rank), function, args))
        if world_size > 1:
            rendezvous = _receive(pipes[0])
            for pipe in pipes[1:]:
                pipe.send(rendezvous)
        replies = _replies(pipes)
        # After an error a process may hang where torch takes its process group apart.
        if len(replies) < world_size or not all(pipe.poll(GRACE) and pipe.recv() is None for pipe in pipes):
            self.close()
            self._start()
        errors = [replies[pipe].error if pipe in replies else None for pipe in pipes]
        if any(errors):
            raise GangError(errors, "\n".join(reply.text for reply in replies.values() if reply.text))
        if len(replies) < world_size:
            raise TimeoutError(f"a worker did not answer for {PATIENCE:g} seconds")
        return [replies[pipe].result for pipe in pipes]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


class Reply(NamedTuple):
    result: Any
    error: BaseException | None
    text: str


def _replies(pipes: list[Connection]) -> dict[Connection, Reply]:
    """What the workers answer, in time."""
    replies: dict[Connection, Reply] = {}
    deadline = time.monotonic() + PATIENCE
    while waiting := [pipe for pipe in pipes if pipe not in replies]:
        ready = wait(waiting, max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for pipe in waiting:
            if pipe in ready:
                replies[pipe] = pipe.recv()
        if any(reply.error for reply in replies.values()):
            deadline = min(deadline, time.monotonic() + GRACE)
    return replies


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(PATIENCE):
        raise TimeoutError(f"a worker did not answer for {PATIENCE:g} seconds")
    return pipe.recv()


def _serve_calls(pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    failed = []
    while True:
        worker, function, args = pipe.recv()
        try:
            with _group(worker, pipe):
                try:
                    pipe.send(Reply(function(worker, *args), None, ""))
                except BaseException:
                    # Kept: who frees it waits for a thread of the group's, at times for ever.
                    failed.append(dist.group.WORLD)
                    raise
        except BaseException as error:
            pipe.send(Reply(None, error, f"rank {worker.rank}: {traceback.format_exc()}"))
            _hang_up()
        pipe.send(None)


def _hang_up() -> None:
    """As where the process of a failed worker ends: the others hear that it is gone. Aborting the group closes no
    connection of gloo's."""
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fd)) as ours:
                ours.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _group(worker: Worker, pipe: Connection) -> Iterator[None]:
    if worker.world_size == 1:
        yield
    elif worker.is_first:
        with serve(HOST, worker.world_size) as (rendezvous, store):
            pipe.send(rendezvous)
            with join(worker, rendezvous, store):
                yield
    else:
        with join(worker, pipe.recv()):
            yield
