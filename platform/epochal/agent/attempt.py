"""One attempt at a job: watches its gang, and tells the ledger, the run's record and the observer what it sees."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from epochal.agent.observer import Observer
from epochal.agent.outbox import Outbox
from epochal.agent.port import JobSource
from epochal.agent.progress import ProgressLog
from epochal.agent.run_tracking import RunTracking
from epochal.agent.settlement import Ending
from epochal.engine.events import Done, Event, Failed, Log, Reported, Started
from epochal.engine.gang import Gang
from epochal.engine.payload import TRAIN, TrainPayload
from epochal.ledger.states import Reason
from epochal.ledger.values import Lease
from epochal.tracking.record import CheckpointPointer, DatasetUsed
from epochal.training.control import Prepared, Progress, Report, Saved


class Reporter:
    """Where an attempt's news go: to the ledger by way of the outbox, to the run's record, to the observer."""

    def __init__(
        self, source: JobSource, lease: Lease, outbox: Outbox, tracking: RunTracking, log: ProgressLog
    ) -> None:
        self._source = source
        self._lease = lease
        self._outbox = outbox
        self.tracking = tracking
        self.log = log

    def started(self, world_size: int, ranks: Sequence[Started]) -> None:
        workers = {str(one.rank): f"{one.host}:{one.pid} {one.device}" for one in ranks}
        self._outbox.tell(partial(self._source.running, self._lease, world_size, {"workers": workers}))
        self.tracking.update(tags={"epochal.world_size": str(world_size)})

    def saved(self, saved: Saved) -> None:
        self.tracking.checkpoint(CheckpointPointer(saved.step, saved.path, saved.digest, saved.metrics, saved.best))
        detail = {"step": saved.step, "path": saved.path}
        self._outbox.tell(partial(self._source.note, self._lease, "checkpoint", detail=detail))

    def prepared(self, prepared: Prepared) -> None:
        self.tracking.update(
            dataset=DatasetUsed(prepared.dataset, prepared.digest, prepared.source),
            tags={"epochal.parameters": str(prepared.parameters)},
        )

    def progressed(self, progress: Progress) -> None:
        self.log.add(progress, time.monotonic())
        self._outbox.progress(self.log.document())
        if progress.step > 0:
            self.tracking.start()
        if self.tracking.run_id and not self.tracking.told:
            self.tracking.told = True
            self._outbox.tell(partial(self._source.set_run, self._lease, self.tracking.run_id, self.tracking.uri))


class Attempt:
    """Runs ``payload`` on ``gang`` and follows it to its end."""

    def __init__(self, number: int, reporter: Reporter, observer: Observer) -> None:
        self._number = number
        self._reporter = reporter
        self._observer = observer
        self._started: dict[int, Started] = {}
        self.progress: Progress | None = None
        self.checkpoint: Saved | None = None

    def run(self, gang: Gang, payload: TrainPayload, folder: Path) -> Ending:
        """Follow the gang until every worker is done, the first has failed, or it is stopped before it trains."""
        results: dict[int, Mapping[str, Any]] = {}
        for event in gang.run(TRAIN, payload, folder, self._number):
            if isinstance(event, Failed):
                return Ending(Reason(event.kind), f"rank {event.rank}: {event.message}", event.traceback)
            if isinstance(event, Done):
                results[event.rank] = event.result
            else:
                self._see(event, gang)
        if not results:
            return Ending(None)
        self._reporter.tracking.update(tags=results[0]["tags"])
        stopped = results[0]["state"] == "stopped"
        return Ending(None if stopped else Reason.COMPLETED, result=results[0])

    def _see(self, event: Event, gang: Gang) -> None:
        if isinstance(event, Started):
            self._started[event.rank] = event
            if len(self._started) == gang.world_size:
                self._reporter.started(gang.world_size, sorted(self._started.values(), key=lambda one: one.rank))
        elif isinstance(event, Log):
            self._observer.log(event.rank, event.text)
        elif isinstance(event, Reported) and event.rank == 0:
            self._reported(event.report)

    def _reported(self, report: Report) -> None:
        if isinstance(report, Progress):
            self.progress = report
            self._observer.progress(report)
            self._reporter.progressed(report)
        elif isinstance(report, Saved):
            self.checkpoint = report
            self._observer.saved(report)
            self._reporter.saved(report)
        elif isinstance(report, Prepared):
            self._reporter.prepared(report)
