"""A job's run while an agent carries the job: the record at once, MLflow only when there is time for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from epochal.ledger.values import Job
from epochal.spec.job import JobSpec
from epochal.tracking.record import CheckpointPointer, RunRecord, closed_by, note_checkpoint, record_path
from epochal.tracking.sync import Synced
from epochal.tracking.tracker import Tracker

_LEAVE_SECONDS = 5.0


class RunTracking:
    """Writes the run's record in the job's folder, and starts the thread that tells MLflow once the training runs.

    Importing mlflow and opening its database cost seconds of CPU, which the workers need until their first step.
    """

    def __init__(self, uri: str, folder: Path, job_id: str, spec: JobSpec, notice: Callable[[str], None]) -> None:
        self.uri = uri
        self._folder = folder
        self._notice = notice
        self._tracker: Tracker | None = None
        self.told = False
        """Whether the ledger knows the run."""
        known = record_path(folder).exists()
        record = RunRecord.load(folder) if known else RunRecord.of(job_id, spec)
        self._record = record.changed(status="RUNNING")
        self._record.save(folder)

    def start(self) -> None:
        """Begin to tell MLflow, in the background. Calling it again does nothing."""
        if self._tracker is None:
            self._tracker = Tracker(self.uri, self._folder, self._notice)

    @property
    def run_id(self) -> str:
        return self._tracker.run_id if self._tracker else ""

    @property
    def experiment_id(self) -> str | None:
        return (self._tracker.experiment_id or None) if self._tracker else None

    def update(self, **changes: Any) -> None:
        """Change the record (see ``RunRecord.changed``)."""
        if self._tracker:
            self._record = self._tracker.update(**changes)
        else:
            self._record = self._record.changed(**changes)
            self._record.save(self._folder)

    def checkpoint(self, pointer: CheckpointPointer) -> None:
        if self._tracker:
            self._tracker.checkpoint(pointer)
        else:
            note_checkpoint(self._folder, pointer)

    def settle(self, job: Job) -> None:
        """Write down how the job stands; nothing is sent yet. A job that waits for an attempt keeps its run open."""
        if changes := closed_by(job.state, job.reason, job.entered_at):
            self.update(**changes)

    def close(self) -> Synced:
        """Send what is left, within a deadline, and end the thread."""
        self.start()
        assert self._tracker is not None
        return self._tracker.close()

    def leave(self) -> None:
        """End the thread, if there is one, with what is left sent as far as that goes quickly: the run stays open."""
        if self._tracker is not None:
            self._tracker.close(_LEAVE_SECONDS)
