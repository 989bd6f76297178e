"""What an attempt does with its place: the half of a job's work that knows nothing of leases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from epochal.agent.retry_policy import Ending
from epochal.agent.sweep_progress import SweepProgress
from epochal.engine.code import Package
from epochal.engine.events import Done, Failed, Heartbeat, Log, Reported, Started
from epochal.engine.gang import Gang, Stop
from epochal.engine.payload import PACKAGE, TRAIN, TrainPayload
from epochal.engine.place import GangRequest, Place, reserve
from epochal.engine.warm import not_kept
from epochal.engine.watchdog import DEFAULT_LIMITS
from epochal.ledger.capacity import Demand
from epochal.ledger.states import Reason
from epochal.ledger.values import FullJob
from epochal.redaction import named
from epochal.spec.job import JobSpec
from epochal.training.control import Phase, Report

_ROOM_SECONDS = 30.0
"""How long the packaging waits for room, which it needs next to none of."""


class Tell(Protocol):
    """Where a program's news go. Returns quickly."""

    def started(self, world_size: int, ranks: Sequence[Started]) -> None:
        """All of a gang's workers have started."""

    def log(self, rank: int, text: str, begun: str) -> None:
        """What a worker printed: whole lines, and what there is of one that it has begun."""

    def reached(self, step: int, phase: Phase | None) -> None:
        """A worker has done so many steps, and the first one says what it does: every second, and so beyond what the
        training tells."""

    def report(self, report: Report) -> None:
        """What the training itself tells."""

    def notice(self, text: str) -> None:
        """Something that a person should read."""


class SweepTell(Tell, Protocol):
    """Where a sweep's news go."""

    def swept(self, progress: SweepProgress) -> None:
        """How the sweep stands."""

    def of_trial(self, trial: int | None, report: Report) -> None:
        """What the training of a trial tells."""


def demand_of(job: FullJob) -> Demand:
    """What its workers need, of which it has as many as the ledger allows."""
    return Demand.of(job.spec).at_most(job.granted)


def request_of(job: FullJob, spec: JobSpec, code: Package | None) -> GangRequest:
    """The workers that train the job, and the shipped ``code`` that they import. Of a sweep, for as many trials at a
    time as there is room for."""
    demand = demand_of(job)
    return GangRequest(
        job=job.id,
        workers=demand.workers,
        cpus=demand.cpus,
        gpus=demand.gpus,
        memory=demand.memory,
        step=demand.step,
        env=spec.env,
        package=code,
        secrets=tuple(spec.secrets),
    )


def cold_starts(place: Place) -> list[str]:
    """Why workers start in seconds, for each node of the place whose raylet ends those that were kept for that."""
    warm = place.connection.warm
    wasteful, idle = warm.wasteful(), warm.idle()
    cold = [node for node, workers in place.workers_by_node.items() if node in wasteful and idle.get(node, 0) < workers]
    return [not_kept(wasteful[node])["found"] for node in cold]


@dataclass(frozen=True)
class TrainProgram:
    """One gang over the whole place trains one model. ``attempt`` is the lease's epoch, ``limits`` the watchdog's."""

    payload: TrainPayload
    folder: Path
    attempt: int
    limits: Mapping[Phase, float] = field(default_factory=lambda: DEFAULT_LIMITS)

    def run(self, place: Place, tell: Tell, stop: Stop) -> Ending:
        """Follow the gang until every worker is done, the first has failed, or it is stopped before it trains."""
        results: dict[int, Mapping[str, Any]] = {}
        started: dict[int, Started] = {}
        for cold in cold_starts(place):
            tell.notice(cold)
        gang = Gang(place, stop, self.limits)
        with closing(gang.run(TRAIN, self.payload, self.folder, self.attempt)) as events:
            for event in events:
                if isinstance(event, Failed):
                    said = f"rank {event.rank}: {event.message}"
                    return Ending(Reason(event.kind), said, event.traceback, refusal=event.refusal)
                if isinstance(event, Done):
                    results[event.rank] = event.result
                elif isinstance(event, Started):
                    started[event.rank] = event
                    if len(started) == gang.world_size:
                        tell.started(gang.world_size, [started[rank] for rank in sorted(started)])
                elif isinstance(event, Log):
                    tell.log(event.rank, event.text, event.begun)
                elif isinstance(event, Heartbeat):
                    tell.reached(event.step, event.phase if event.rank == 0 else None)
                elif isinstance(event, Reported):
                    tell.report(event.report)
        if not results:
            return Ending(None)
        return Ending(None if results[0]["state"] == "stopped" else Reason.COMPLETED, result=results[0])


@dataclass(frozen=True)
class PackageProgram:
    """One worker packages the model that was trained. ``spec`` is the resolved one."""

    spec: Mapping[str, Any]
    folder: Path
    attempt: int

    def run(self, place: Place, tell: Tell, stop: Stop) -> Ending:
        """``result`` holds tags for the run. A request to stop changes nothing: it takes seconds."""
        patient = Stop()
        gang = Gang(place, patient)
        with (
            stop.heard_by(lambda: None, patient.kill),
            closing(gang.run(PACKAGE, self.spec, self.folder, self.attempt)) as events,
        ):
            for event in events:
                if isinstance(event, Failed):
                    return Ending(Reason(event.kind), event.message, event.traceback)
                if isinstance(event, Log):
                    tell.log(event.rank, event.text, event.begun)
                elif isinstance(event, Done):
                    return Ending(Reason.COMPLETED, result=event.result)
        return Ending(None, "its worker never started")


def package(place: Place, program: PackageProgram, tell: Tell, stop: Stop, vacate: Callable[[], None]) -> Ending:
    """Package what the workers in that ``place`` have trained, once ``vacate`` has given it back. It never raises:
    where Ray fails now, the training has succeeded all the same.

    It takes no CPU and no GPU of the cluster's, where other jobs begin meanwhile, and so waits for none.
    """
    try:
        vacate()
        # A byte of memory, as Ray refuses a bundle of nothing.
        request = replace(place.request, workers=(1, 1), cpus=0, gpus=0, memory=1)
        with reserve(place.connection, request, _ROOM_SECONDS) as room:
            return program.run(room, tell, stop)
    except Exception as error:
        return Ending(Reason.INFRASTRUCTURE, named(error)).redacted()
