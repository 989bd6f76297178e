"""The running tasks of a gang's workers: start them, hear from them, end them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from epochal.engine import process, wire
from epochal.engine.assignment import Assignment
from epochal.engine.capacity import GangRequest
from epochal.engine.events import Done, Event, Failed, Started, redacted
from epochal.engine.failure import FailureKind, of_exception, of_ray
from epochal.redaction import Redactor, said, trace

_GONE_SECONDS = 10.0
_EXIT_SECONDS = 2.0


def run(assignment: Assignment, store_address: tuple[str, int] | None) -> Iterator[bytes]:
    """The task of one worker: its events, the last of them ``Done`` or ``Failed``.

    ``store_address`` is the host and port of rank 0's store. Rank 0 gets none: it makes one, and tells it as it starts.
    No value of the job's secrets gets beyond here.
    """
    redactor = Redactor.of_variables(assignment.request.secrets)
    try:
        from epochal.engine.worker import work  # and torch, which the driver does without

        for event in work(assignment, store_address):
            yield wire.encode(redacted(event, redactor))
    except Exception as error:
        yield wire.encode(redacted(of_exception(assignment.rank, error, trace()), redactor))


# With max_calls the process serves this one task; it ends once its results are no longer referred to.
_RUN = ray.remote(max_retries=0, max_calls=1, num_returns="streaming")(run)
_END = ray.remote(num_cpus=0, max_retries=0)(process.end)


class Ranks:
    """The workers of one attempt, by rank. ``home`` is the id of the node that this driver runs on."""

    def __init__(self, request: GangRequest, group: PlacementGroup, home: str) -> None:
        self._request = request
        self._group = group
        self._home = home
        self._streams: dict[int, Any] = {}
        self._started: dict[int, Started] = {}
        self._done: set[int] = set()

    def node_of(self, rank: int) -> Started:
        return self._started[rank]

    @property
    def started(self) -> frozenset[int]:
        return frozenset(self._started)

    def launch(self, assignment: Assignment, bundle: int, store_address: tuple[str, int] | None) -> None:
        name = f"epochal:{assignment.request.job}:rank{assignment.worker}"
        task = _RUN.options(**self.placement(bundle), name=name)
        self._streams[assignment.rank] = task.remote(assignment, store_address)

    def placement(self, bundle: int) -> dict[str, Any]:
        """Options of a Ray task that runs in that bundle and has all of it."""
        # Ray starts processes of their own for these values; without any it takes those that are there.
        variables = self._request.env_at_start
        return {
            **({"runtime_env": {"env_vars": variables}} if variables else {}),
            "num_cpus": self._request.cpus,
            "num_gpus": self._request.gpus,
            "memory": self._request.memory,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, bundle),
        }

    def poll(self, timeout: float) -> list[Event]:
        """What came in, waiting up to ``timeout`` seconds for the first of it."""
        if not self._streams:
            return []
        ready, waiting = ray.wait(list(self._streams.values()), num_returns=1, timeout=timeout)
        if ready and waiting:
            ready += ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        events = [self._next(rank) for rank, stream in list(self._streams.items()) if stream in ready]
        return [event for event in events if event is not None]

    def _next(self, rank: int) -> Event | None:
        try:
            event = wire.receive(self._streams[rank])
        except ray.exceptions.RayError as error:
            del self._streams[rank]
            return redacted(of_ray(rank, error), Redactor.of_variables(self._request.secrets))
        except ValueError as error:
            del self._streams[rank]
            return Failed(rank, FailureKind.USER_ERROR, f"what the worker told is {said(error)}")
        if event is None:
            del self._streams[rank]
            return Failed(rank, FailureKind.INFRASTRUCTURE, "the worker ended without a result")
        if isinstance(event, Started):
            self._started[rank] = event
        if isinstance(event, Done | Failed):
            del self._streams[rank]  # nothing more comes, and its process ends by itself
        if isinstance(event, Done):
            self._done.add(rank)
        return event

    def kill(self) -> None:
        """End the workers that are not done, by SIGKILL, and wait until they are gone.

        A stopped process obeys neither Ray's cancellation nor SIGTERM. Ray may take its time to end a stream, which
        says nothing about the process: each is waited for by itself.
        """
        for rank, stream in self._streams.items():
            if rank not in self._started:
                ray.cancel(stream, force=True)  # its process is not known
        killed = [worker for rank, worker in self._started.items() if rank not in self._done]
        self._sigkill(killed)
        deadline = time.monotonic() + _GONE_SECONDS
        while self._streams and time.monotonic() < deadline:
            self.poll(timeout=0.1)
        self._streams.clear()
        self._await_end(killed, _GONE_SECONDS)

    def forget(self, node_id: str) -> None:
        """Wait no longer for what runs on that node: nothing reaches it. Its workers end by themselves (the fence)."""
        for rank in [rank for rank, one in self._started.items() if one.node_id == node_id]:
            self._streams.pop(rank, None)
            del self._started[rank]

    def strike(self) -> None:
        """SIGKILL the workers that have started, and wait for nothing. Safe to call from another thread."""
        self._sigkill([worker for rank, worker in list(self._started.items()) if rank not in self._done], seconds=0.0)

    def await_exit(self) -> None:
        """Give workers that are done a moment to end by themselves, then end them."""
        left = list(self._started.values())
        self._await_end(left, _EXIT_SECONDS)
        self._sigkill(left)
        self._started.clear()

    def _await_end(self, workers: list[Started], seconds: float) -> None:
        """Of those on this node; ``_sigkill`` waits for the others."""
        mine = [worker for worker in workers if worker.node_id == self._home]
        process.await_end([one for worker in mine for one in worker.processes], seconds)

    def _sigkill(self, workers: list[Started], seconds: float = _GONE_SECONDS) -> None:
        """Directly where they are on this node, through a task on theirs otherwise. That is waited for: it ends with
        the worker, when all that this printed is in its log."""
        pending = []
        for worker in workers:
            if worker.node_id == self._home:
                process.kill_tree(worker.pid, worker.created)
            else:
                affinity = NodeAffinitySchedulingStrategy(worker.node_id, soft=False)
                pending.append(_END.options(scheduling_strategy=affinity).remote(worker.processes, _GONE_SECONDS))
        if pending:
            ray.wait(pending, num_returns=len(pending), timeout=seconds)
