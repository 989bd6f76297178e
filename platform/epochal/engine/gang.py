"""A gang: the workers that train together in a place, one torch process group; all of them or none."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from epochal.engine.assignment import Assignment, stop_marker
from epochal.engine.events import Done, Event, Failed, Heartbeat, Started
from epochal.engine.failure import GRACE, Evidence, FailureKind, first_failure
from epochal.engine.place import Place, Seat
from epochal.engine.ranks import Ranks
from epochal.engine.warm import Claim
from epochal.engine.warm_round import preload
from epochal.engine.watchdog import DEFAULT_LIMITS, Watchdog
from epochal.training.control import Phase

START_SECONDS = 180.0
"""For a worker's process to start where none was warm, on a busy machine."""

SILENT_SECONDS = 10.0
"""Without a heartbeat, of which there is one a second, until the worker's node is looked at."""

GONE_SECONDS = 10.0
"""For which a node with a silent worker must not have answered until it counts as lost. A worker whose code holds the
interpreter's lock is silent too, but its node answers: that is the watchdog's case."""

_POLL_SECONDS = 0.25
_LOOK_SECONDS = 2.0


class Stop:
    """How those who run in a place are asked to end: from any thread, and before they run too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requested = self._killed = False
        self._grace = self._deadline = math.inf
        self._listeners: list[tuple[Callable[[], None], Callable[[], None]]] = []

    @property
    def requested(self) -> bool:
        return self._requested

    @property
    def killed(self) -> bool:
        return self._killed

    @property
    def overdue(self) -> float | None:
        """The grace that is used up; None while it is not."""
        return self._grace if time.monotonic() >= self._deadline else None

    def request(self, grace: float | None = None) -> None:
        """Have them save their state first; those that have not begun to after ``grace`` seconds are killed.

        Asked again, the grace that ends first counts.
        """
        if grace is not None:
            with self._lock:
                self._grace, self._deadline = min(self._grace, grace), min(self._deadline, time.monotonic() + grace)
        if not self._requested:
            self._requested = True
            for requested, _ in self._heard():
                requested()

    def kill(self) -> None:
        """At once, without saving: a gang then tells of a failure."""
        self._killed = True
        for _, killed in self._heard():
            killed()

    @contextmanager
    def heard_by(self, requested: Callable[[], None], killed: Callable[[], None]) -> Iterator[None]:
        """Within the ``with`` block the two are called as soon as that is asked for, or was asked for before."""
        listener = (requested, killed)
        with self._lock:
            self._listeners.append(listener)
        try:
            # A request made at this very moment calls it twice, which listeners have to stand.
            if self._requested:
                requested()
            if self._killed:
                killed()
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def _heard(self) -> list[tuple[Callable[[], None], Callable[[], None]]]:
        with self._lock:
            return list(self._listeners)


class Gang:
    """The workers of one attempt, in the ``seats`` of a group of a place: in all of them, unless told otherwise.

    ``limits`` are the hang watchdog's, in seconds without progress by phase. ``first_worker``: see ``Assignment``.
    """

    def __init__(
        self,
        place: Place,
        stop: Stop | None = None,
        limits: Mapping[Phase, float] = DEFAULT_LIMITS,
        seats: list[Seat] | None = None,
        first_worker: int = 0,
    ) -> None:
        self.place = place
        self.stop = stop or Stop()
        self.limits = limits
        self.seats = place.seats() if seats is None else seats
        self.first_worker = first_worker

    @property
    def world_size(self) -> int:
        return len(self.seats)

    def run(self, target: str, payload: Any, folder: Path, attempt: int) -> Generator[Event]:
        """Call ``target`` (``"module:function"``, see ``engine.worker``) on every worker; the events as they come.

        The last event is the last worker's ``Done``, or one ``Failed`` that names the first failing rank; by then
        the others have been killed. Where the gang is stopped before all have started there is neither: nothing has
        been trained. ``folder`` is the job's, reachable from every node. Closing the iterator kills the workers.
        """
        marker = stop_marker(folder, attempt)
        marker.parent.mkdir(parents=True, exist_ok=True)
        group = self.seats[0].group
        ranks = Ranks(self.place.request, group, self.place.connection.node_id)
        # A process that is done takes a moment to end: it is waited for when the room is given back, not before.
        self.place.before_closing(group, ranks.await_exit)
        assignments = [
            Assignment(
                rank=rank,
                world_size=self.world_size,
                local_rank=seat.local_rank,
                attempt=attempt,
                folder=folder,
                target=target,
                payload=payload,
                request=self.place.request,
                setup_seconds=self.limits["setup"],
                first_worker=self.first_worker,
            )
            for rank, seat in enumerate(self.seats)
        ]
        try:
            with self.stop.heard_by(partial(_mark, marker, ranks.strike), ranks.strike):
                yield from _Flight(self, ranks, assignments)
        finally:
            ranks.kill()
            self.place.connection.warm.rested()


def _mark(marker: Path, strike: Callable[[], None]) -> None:
    """Have the workers save their state and end. Where the disk is too full to tell them, it is too full to save."""
    try:
        marker.touch()
    except OSError:
        strike()


class _Flight:
    """One attempt while it runs."""

    def __init__(self, gang: Gang, ranks: Ranks, assignments: list[Assignment]) -> None:
        self._place = gang.place
        self._stop = gang.stop
        self._warm = gang.place.connection.warm
        self._claim: Claim | None = None
        self._ranks = ranks
        self._assignments = assignments
        self._seats = gang.seats
        self._watchdog = Watchdog(gang.limits)
        self._failures: list[Failed] = []
        self._verdict_at = float("inf")
        self._begun = time.monotonic()
        self._look_at = self._begun + _LOOK_SECONDS
        self._probe_at = 0.0
        self._unreached: dict[str, float] = {}

    def __iter__(self) -> Iterator[Event]:
        everyone = range(len(self._assignments))
        done = 0
        with ExitStack() as claim:
            self._prepare(claim)
            while done < len(everyone):
                if self._stop.requested and not self._ranks.started.issuperset(everyone):
                    return
                for event in self._ranks.poll(self._patience()):
                    if isinstance(event, Failed):
                        self._suspect(self._located(event))
                        continue
                    self._see(event)
                    yield event
                    done += isinstance(event, Done)
                if self._ranks.started.issuperset(everyone):
                    # While a claim lasts the pool makes no new processes.
                    claim.close()
                self._watch()
                if self._stop.killed:
                    self._suspect(Failed(0, FailureKind.INFRASTRUCTURE, "the gang was killed"))
                if time.monotonic() >= self._verdict_at:
                    self._ranks.kill()
                    yield first_failure(self._failures)
                    return

    def _prepare(self, claim: ExitStack) -> None:
        """Launch rank 0, once there is a warm process for everyone; one alone imports what it needs itself."""
        # Variables that are read at an import have no effect in a process that has everything imported.
        cold = bool(self._place.request.env_at_start)
        need = Counter(() if cold else (seat.node for seat in self._seats))
        self._claim = claim.enter_context(self._warm.claim(need))
        if not self._claim.enough and len(self._seats) > 1:
            placements = [self._ranks.placement(seat.bundle) for seat in self._seats]
            preload(placements, given_up=lambda: self._stop.requested)
        if not self._stop.requested:
            self._ranks.launch(self._assignments[0], self._seats[0].bundle, None)

    def _see(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Started):
            if self._claim is not None:
                self._claim.taken(event.node_id, event.pid)
            self._watchdog.start(event.rank, now)
            if event.store_address is not None:
                self._launch_others(event.store_address)
        elif isinstance(event, Heartbeat):
            self._watchdog.heard(event, now)
        elif isinstance(event, Done):
            self._watchdog.finish(event.rank)

    def _launch_others(self, store_address: tuple[str, int]) -> None:
        for assignment, seat in zip(self._assignments[1:], self._seats[1:], strict=True):
            self._ranks.launch(assignment, seat.bundle, store_address)

    def _suspect(self, failed: Failed) -> None:
        self._watchdog.finish(failed.rank)
        self._failures.append(failed)
        self._verdict_at = min(self._verdict_at, time.monotonic() + GRACE[failed.evidence])

    def _located(self, failed: Failed) -> Failed:
        """With the node of a worker that died on another one, and what is wrong there."""
        if failed.kind is not FailureKind.INFRASTRUCTURE or failed.rank not in self._ranks.started:
            return failed
        one, connection = self._ranks.node_of(failed.rank), self._place.connection
        if failed.evidence is not Evidence.DEATH or one.node_id == connection.node_id:
            return failed
        where = ", ".join(filter(None, (f"on node {one.host}", connection.trouble_at(one.node_id))))
        return replace(failed, message=f"{failed.message}; {where}")

    def _watch(self) -> None:
        now = time.monotonic()
        if (grace := self._stop.overdue) is not None and (late := self._watchdog.late(now, grace)) is not None:
            self._suspect(late)
        if not self._failures and (lost := self._lost_node(now)) is not None:
            self._suspect(lost)
        if not self._failures and (hung := self._watchdog.hung(now)) is not None:
            self._suspect(hung)
        missing = sorted(set(range(len(self._assignments))) - self._ranks.started)
        if missing and not self._failures and (why := self._cannot_start(now)):
            self._suspect(Failed(missing[0], FailureKind.INFRASTRUCTURE, why))

    def _lost_node(self, now: float) -> Failed | None:
        """A worker that is not heard of on a node that does not answer. Ray itself takes 70 s and more to say so."""
        connection = self._place.connection
        # One of each node: a question takes up to a second.
        silent = {node: (rank, heard) for rank, node, heard in self._silent(now) if node != connection.node_id}
        self._unreached = {node: since for node, since in self._unreached.items() if node in silent}
        if not silent or now < self._probe_at:
            return None
        self._probe_at = now + _LOOK_SECONDS
        for node, (rank, heard) in silent.items():
            if connection.reaches(node):
                self._unreached.pop(node, None)
            # If this machine does not reach the GCS either, it is this one that is cut off.
            elif now - self._unreached.setdefault(node, now) >= GONE_SECONDS and not connection.lost():
                self._ranks.forget(node)
                self._place.lose_node(node)
                host = connection.host_of(node)
                message = f"node {host} is not heard of for {now - heard:.0f} s, and does not answer"
                return Failed(rank, FailureKind.INFRASTRUCTURE, message)
        return None

    def _silent(self, now: float) -> Iterator[tuple[int, str, float]]:
        """Workers that are not heard of, those that do not start among them: rank, node, and since when."""
        for rank in self._watchdog.silent(now, SILENT_SECONDS):
            yield rank, self._ranks.node_of(rank).node_id, self._watchdog.heard_at(rank)
        if now - self._begun > SILENT_SECONDS:
            for rank, seat in enumerate(self._seats):
                if rank not in self._ranks.started:
                    yield rank, seat.node, self._begun

    def _cannot_start(self, now: float) -> str:
        """Why nobody should wait for the workers that have not started yet; empty where they may still."""
        if now - self._begun > START_SECONDS:
            return f"the worker's process did not start within {START_SECONDS:g} s"
        if now > self._look_at:
            self._look_at = now + _LOOK_SECONDS
            if not self._place.is_whole:
                connection = self._place.connection
                gone = {seat.node for seat in self._seats} - {node.id for node in connection.nodes()}
                hosts = ", ".join(sorted(map(connection.host_of, gone)))
                return f"a node on which workers have their place is gone{hosts and f': {hosts}'}"
        return ""

    def _patience(self) -> float:
        return max(0.0, min(_POLL_SECONDS, self._verdict_at - time.monotonic()))
