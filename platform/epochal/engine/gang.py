"""A gang: all the workers of a job, or none of them."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from epochal.engine.capacity import GangRequest, check_possible, does_not_fit_now, fit
from epochal.engine.connection import Connection
from epochal.engine.events import Done, Event, Failed, Heartbeat, Started
from epochal.engine.failure import GRACE, FailureKind, first_failure
from epochal.engine.ranks import Ranks
from epochal.engine.task import Assignment, stop_marker
from epochal.engine.warm import Claim, preload
from epochal.engine.watchdog import DEFAULT_LIMITS, Watchdog
from epochal.training.control import Phase

__all__ = ["Gang", "GangRequest", "form"]

GROUP_PREFIX = "epochal:"
"""What the names of our placement groups begin with."""

START_SECONDS = 180.0
"""For a worker's process to start where none was warm, on a busy machine."""

_POLL_SECONDS = 0.25
_LOOK_SECONDS = 2.0
_CREATE_SECONDS = 5.0


def form(
    connection: Connection,
    request: GangRequest,
    timeout: float,
    limits: Mapping[Phase, float] = DEFAULT_LIMITS,
    given_up: Callable[[], bool] = lambda: False,
) -> Gang:
    """Reserve room for the workers, all of them or none; of an elastic range the most that fit now.

    ``timeout`` is in seconds; ``limits`` are the hang watchdog's, in seconds without progress by phase. Once the room
    is ``given_up`` nobody waits for it any longer.

    Raises:
        CapacityError: the workers can never fit, or did not within the timeout.
    """
    if request.gpus:
        connection.warm.make_way()  # while they start, warm workers hold a little of every GPU
    deadline = time.monotonic() + timeout
    while True:
        nodes = connection.nodes()
        check_possible(nodes, request)
        # Asking only once there is room: a group that is refused is looked at again much later.
        if (workers := fit(nodes, request)) and (group := _reserve(request, workers, timeout)) is not None:
            return Gang(connection, request, group, workers, limits)
        if time.monotonic() >= deadline or given_up():
            raise does_not_fit_now(nodes, request, timeout)
        time.sleep(0.02)


def _reserve(request: GangRequest, workers: int, timeout: float) -> PlacementGroup | None:
    name = f"{GROUP_PREFIX}{request.job}:{uuid.uuid4().hex[:8]}"
    group: PlacementGroup = placement_group([request.bundle] * workers, strategy="PACK", name=name)
    if group.wait(min(_CREATE_SECONDS, timeout)):
        return group
    remove_placement_group(group)
    return None


class Gang:
    """Reserved room for ``world_size`` workers, kept over the attempts of a job. Use it as a context manager."""

    def __init__(
        self,
        connection: Connection,
        request: GangRequest,
        group: PlacementGroup,
        world_size: int,
        limits: Mapping[Phase, float],
    ) -> None:
        self.request = request
        self.world_size = world_size
        self.connection = connection
        self._group = group
        self.limits = limits
        self._ranks: Ranks | None = None
        self._marker: Path | None = None
        self._stopping = False
        self.killed = threading.Event()

    def __enter__(self) -> Gang:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, target: str, payload: Any, folder: Path, attempt: int) -> Iterator[Event]:
        """Call ``target`` (``"module:function"``, see ``engine.worker``) on every worker; the events as they come.

        The last event is the last worker's ``Done``, or one ``Failed`` that names the first failing rank; by then
        the others have been killed. Where the gang is stopped before all have started there is neither: nothing has
        been trained. ``folder`` is the job's, reachable from every node. Closing the iterator kills the workers.
        """
        self._marker = stop_marker(folder, attempt)
        self._marker.parent.mkdir(parents=True, exist_ok=True)
        if self._stopping:
            self._marker.touch()
        ranks = self._ranks = Ranks(self.request, self._group, self.connection.node_id)
        seats = self._seats()
        assignments = [
            Assignment(
                rank=rank,
                world_size=self.world_size,
                local_rank=seat.local_rank,
                attempt=attempt,
                folder=folder,
                target=target,
                payload=payload,
                request=self.request,
            )
            for rank, seat in enumerate(seats)
        ]
        try:
            yield from _Flight(self, ranks, assignments, seats)
        finally:
            ranks.kill()
            self.connection.warm.rested()

    def stop(self) -> None:
        """Ask the workers to stop; where all have started they save their state first, and are ``Done`` when they have.

        Safe to call from any thread, and before they run.
        """
        self._stopping = True
        if self._marker is not None:
            self._marker.touch()

    def kill(self) -> None:
        """End the workers at once, without saving: ``run`` tells of a failure. Safe to call from any thread."""
        self.killed.set()
        if self._ranks is not None:
            self._ranks.strike()

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopping

    @property
    def is_whole(self) -> bool:
        """Whether all of its room is there still: a node that is lost takes its part along."""
        known: dict[str, Any] = placement_group_table(self._group)
        return known.get("state") == "CREATED"  # a GCS that has forgotten it knows nothing

    @property
    def placement(self) -> Mapping[str, int]:
        """How many workers each node has room for, by node id."""
        return Counter(self._places().values())

    def close(self) -> None:
        """End what is left of the workers, and give the room back."""
        if self._ranks is not None:
            self._ranks.kill()
            self._ranks.await_exit()
        remove_placement_group(self._group)

    def _seats(self) -> list[_Seat]:
        """Each rank's place; ranks of one node follow each other."""
        places = self._places()
        nodes = list(dict.fromkeys(places[bundle] for bundle in sorted(places)))
        used: Counter[str] = Counter()
        seats = []
        for bundle in sorted(places, key=lambda bundle: (nodes.index(places[bundle]), bundle)):
            node = places[bundle]
            seats.append(_Seat(bundle, node, used[node]))
            used[node] += 1
        return seats

    def _places(self) -> dict[int, str]:
        places: dict[int, str] = placement_group_table(self._group)["bundles_to_node_id"]
        return places


@dataclass(frozen=True)
class _Seat:
    """A worker's place: a bundle of the placement group, on a node."""

    bundle: int
    node: str
    local_rank: int


class _Flight:
    """One attempt while it runs."""

    def __init__(self, gang: Gang, ranks: Ranks, assignments: list[Assignment], seats: list[_Seat]) -> None:
        self._gang = gang
        self._warm = gang.connection.warm
        self._claim: Claim | None = None
        self._ranks = ranks
        self._assignments = assignments
        self._seats = seats
        self._watchdog = Watchdog(gang.limits)
        self._failures: list[Failed] = []
        self._verdict_at = float("inf")
        self._begun = time.monotonic()
        self._look_at = self._begun + _LOOK_SECONDS

    def __iter__(self) -> Iterator[Event]:
        everyone = range(len(self._assignments))
        done = 0
        with ExitStack() as claim:
            self._prepare(claim)
            while done < len(everyone):
                if self._gang.is_stopping and not self._ranks.started.issuperset(everyone):
                    return
                for event in self._ranks.poll(self._patience()):
                    if isinstance(event, Failed):
                        self._suspect(event)
                        continue
                    self._see(event)
                    yield event
                    done += isinstance(event, Done)
                if self._ranks.started.issuperset(everyone):
                    claim.close()
                self._watch()
                if self._gang.killed.is_set():
                    self._suspect(Failed(0, FailureKind.INFRASTRUCTURE, "the gang was killed"))
                if time.monotonic() >= self._verdict_at:
                    self._ranks.kill()
                    yield first_failure(self._failures)
                    return

    def _prepare(self, claim: ExitStack) -> None:
        """Launch rank 0, once there is a warm process for everyone."""
        self._claim = claim.enter_context(self._warm.claim(Counter(seat.node for seat in self._seats)))
        if not self._claim.enough:
            placements = [self._ranks.placement(seat.bundle) for seat in self._seats]
            preload(placements, given_up=lambda: self._gang.is_stopping)
        if not self._gang.is_stopping:
            self._ranks.launch(self._assignments[0], self._seats[0].bundle, None)

    def _see(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Started):
            if self._claim is not None:
                self._claim.taken(event.node_id, event.pid)
            self._watchdog.start(event.rank, now)
            if event.meeting is not None:
                self._launch_others(event.meeting)
        elif isinstance(event, Heartbeat):
            self._watchdog.heard(event, now)
        elif isinstance(event, Done):
            self._watchdog.finish(event.rank)

    def _launch_others(self, meeting: tuple[str, int]) -> None:
        for assignment, seat in zip(self._assignments[1:], self._seats[1:], strict=True):
            self._ranks.launch(assignment, seat.bundle, meeting)

    def _suspect(self, failed: Failed) -> None:
        self._watchdog.finish(failed.rank)
        self._failures.append(failed)
        self._verdict_at = min(self._verdict_at, time.monotonic() + GRACE[failed.evidence])

    def _watch(self) -> None:
        now = time.monotonic()
        if not self._failures and (hung := self._watchdog.hung(now)) is not None:
            self._suspect(hung)
        missing = sorted(set(range(len(self._assignments))) - self._ranks.started)
        if missing and not self._failures and (why := self._cannot_start(now)):
            self._suspect(Failed(missing[0], FailureKind.INFRASTRUCTURE, why))

    def _cannot_start(self, now: float) -> str:
        """Why nobody should wait for the workers that have not started yet; empty where they may still."""
        if now - self._begun > START_SECONDS:
            return f"the worker's process did not start within {START_SECONDS:g} s"
        if now > self._look_at:
            self._look_at = now + _LOOK_SECONDS
            if not self._gang.is_whole:
                return "a node on which workers have their place is gone"
        return ""

    def _patience(self) -> float:
        return max(0.0, min(_POLL_SECONDS, self._verdict_at - time.monotonic()))
