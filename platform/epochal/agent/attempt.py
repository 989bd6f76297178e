"""One attempt at a job: watches its gang, and tells the ledger, the run's record and the observer what it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epochal.agent.observer import Observer
from epochal.agent.run_tracking import RunTracking
from epochal.engine.events import Done, Event, Failed, FailureKind, Log, Reported, Started
from epochal.engine.gang import Gang
from epochal.engine.payload import TRAIN, TrainPayload
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Lease
from epochal.tracking.record import CheckpointPointer, DatasetUsed
from epochal.training.control import Prepared, Progress, Report, Saved

REASONS = {
    FailureKind.USER_ERROR: Reason.USER_ERROR,
    FailureKind.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    FailureKind.INFRASTRUCTURE: Reason.INFRASTRUCTURE,
    FailureKind.NON_FINITE_LOSS: Reason.NON_FINITE_LOSS,
    FailureKind.HANG: Reason.HANG,
}


@dataclass(frozen=True)
class Ending:
    """How an attempt ended.

    ``reason`` is None where the training stopped because it was asked to; ``message`` names the first failing rank;
    ``result`` is what the first worker returned.
    """

    reason: Reason | None
    message: str = ""
    traceback: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)


class Attempt:
    """Runs ``payload`` on ``gang`` and follows it to its end."""

    def __init__(self, ledger: Ledger, lease: Lease, tracking: RunTracking, observer: Observer) -> None:
        self._ledger = ledger
        self._lease = lease
        self._tracking = tracking
        self._observer = observer
        self._started: dict[int, Started] = {}
        self._run_told = False
        self.progress: Progress | None = None
        self.checkpoint: Saved | None = None

    def run(self, gang: Gang, payload: TrainPayload, folder: Path) -> Ending:
        """Follow the gang until every worker is done, or the first has failed."""
        results: dict[int, Mapping[str, Any]] = {}
        for event in gang.run(TRAIN, payload, folder, self._lease.epoch):
            if isinstance(event, Failed):
                return Ending(REASONS[event.kind], f"rank {event.rank}: {event.message}", event.traceback)
            if isinstance(event, Done):
                results[event.rank] = event.result
            else:
                self._see(event, gang)
        self._tracking.update(tags=results[0]["tags"])
        stopped = results[0]["state"] == "stopped"
        return Ending(None if stopped else Reason.COMPLETED, result=results[0])

    def _see(self, event: Event, gang: Gang) -> None:
        if isinstance(event, Started):
            self._started[event.rank] = event
            if len(self._started) == gang.world_size:
                self._all_started(gang)
        elif isinstance(event, Log):
            self._observer.log(event.rank, event.text)
        elif isinstance(event, Reported) and event.rank == 0:
            self._reported(event.report)

    def _all_started(self, gang: Gang) -> None:
        workers = {str(rank): f"{one.host}:{one.pid} {one.device}" for rank, one in sorted(self._started.items())}
        job = self._ledger.running(self._lease, gang.world_size, {"workers": workers})
        self._observer.state(job)
        if job.state is JobState.STOPPING:  # asked for while the gang was forming
            gang.stop()
        self._tracking.update(tags={"epochal.world_size": str(gang.world_size)})

    def _reported(self, report: Report) -> None:
        if isinstance(report, Progress):
            self._progressed(report)
        elif isinstance(report, Saved):
            self.checkpoint = report
            self._observer.saved(report)
            pointer = CheckpointPointer(report.step, report.path, report.digest, report.metrics, report.best)
            self._tracking.checkpoint(pointer)
            self._ledger.note(self._lease, "checkpoint", detail={"step": report.step, "path": report.path})
        elif isinstance(report, Prepared):
            self._tracking.update(
                dataset=DatasetUsed(report.dataset, report.digest, report.source),
                tags={"epochal.parameters": str(report.parameters)},
            )

    def _progressed(self, progress: Progress) -> None:
        self.progress = progress
        self._observer.progress(progress)
        if progress.step > 0:
            self._tracking.start()
        if self._tracking.run_id and not self._run_told:
            self._run_told = True
            self._ledger.set_run(self._lease, self._tracking.run_id, self._tracking.uri)
