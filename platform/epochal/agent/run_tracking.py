"""A job's run while an agent carries the job: the desired run at once, MLflow only when there is time for it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from epochal.errors import NotFoundError
from epochal.files import write_atomically
from epochal.ledger.values import Job
from epochal.redaction import named, said, trace
from epochal.spec.job import JobSpec
from epochal.sweeps.finding import Finding
from epochal.sweeps.report import html
from epochal.sweeps.report_png import png
from epochal.sweeps.trials import Measured, Trial, TrialState
from epochal.tracking.desired_run import (
    CheckpointPointer,
    DatasetUsed,
    DesiredRun,
    artifacts_folder,
    closed_by,
    desired_run_path,
    note_checkpoint,
)
from epochal.tracking.syncer import Synced
from epochal.tracking.tracker import Tracker
from epochal.tracking.trial_runs import Journal
from epochal.training.data_summary import DataSummary

_LEAVE_SECONDS = 5.0

_logger = logging.getLogger(__name__)


@contextmanager
def as_far_as_the_disk_allows(folder: Path) -> Iterator[None]:
    """A full disk must not end a training, nor keep the ledger from hearing how a job ended.

    What the desired run lacks is written with its next change, and at the latest by housekeeping.
    """
    try:
        yield
    except OSError as error:
        _logger.warning("%s cannot be written: %s", folder, said(error))


def recorded_trials(folder: Path) -> list[Trial]:
    """A sweep's trials as they were written down for MLflow: those that began."""
    journal = Journal(folder)
    journal.read()
    return [
        Trial(
            number=run.number,
            point=run.points[-1][2] if run.points else {},
            state=TrialState(run.state),
            curve=tuple(Measured(length, value) for length, (value, _) in sorted(run.measured.items())),
            why=run.why,
            message=run.message,
        )
        for run in journal.runs.values()
    ]


class RunTracking:
    """Writes the desired run in the job's folder, and starts the thread that tells MLflow once the training runs.

    Importing mlflow and opening its database cost seconds of CPU, which the workers need until their first step.
    """

    def __init__(self, uri: str, folder: Path, job_id: str, spec: JobSpec, notice: Callable[[str], None]) -> None:
        self.uri = uri
        self.folder = folder
        self.notice = notice
        """Told in words when MLflow takes nothing, or not everything, of the run, and when it does again."""
        self._tracker: Tracker | None = None
        self._changing = threading.Lock()  # the slots of a sweep tell at once, each from a thread of its own
        self.told = False
        """Whether the ledger knows the run."""
        self._spec = spec
        try:
            desired = DesiredRun.load(folder)
        except NotFoundError:
            desired = DesiredRun.of(job_id, spec)
        except (ValueError, TypeError) as error:  # a disk may lose its content with the power; MLflow has the run still
            notice(f"{desired_run_path(folder)} cannot be read, and is written anew: {said(error)}")
            desired = DesiredRun.of(job_id, spec)
        self._desired = desired.changed(status="RUNNING")
        self._desired.save(folder)

    def start(self) -> None:
        """Begin to tell MLflow, in the background. Calling it again does nothing."""
        with self._changing:
            if self._tracker is None:
                self._tracker = Tracker(self.uri, self.folder, self._tell)

    def _tell(self, text: str) -> None:
        self.notice(text)  # looked up each time: the reporter of the next attempt takes it over

    @property
    def run_id(self) -> str:
        return self._tracker.run_id if self._tracker else ""

    @property
    def experiment_id(self) -> str | None:
        return (self._tracker.experiment_id or None) if self._tracker else None

    def update(self, **changes: Any) -> None:
        """Change the desired run (see ``DesiredRun.changed``)."""
        with as_far_as_the_disk_allows(self.folder), self._changing:
            if self._tracker:
                self._tracker.update(**changes)
            else:
                self._desired = self._desired.changed(**changes)
                self._desired.save(self.folder)

    def prepared(self, data: DataSummary, parameters: int) -> None:
        """What is trained: the data, as the run's dataset and as artifacts, and the model's size."""
        self.update(
            dataset=DatasetUsed(data.dataset, data.digest, data.source), tags={"epochal.parameters": str(parameters)}
        )
        artifacts = artifacts_folder(self.folder)
        with as_far_as_the_disk_allows(self.folder):
            write_atomically(artifacts / "data.json", json.dumps(data.to_dict(), indent=1))
            write_atomically(artifacts / "data.txt", data.text())

    def checkpoint(self, pointer: CheckpointPointer) -> None:
        with as_far_as_the_disk_allows(self.folder):
            if self._tracker:
                self._tracker.checkpoint(pointer)
            else:
                note_checkpoint(self.folder, pointer)

    def settle(self, job: Job) -> None:
        """Write down how the job stands; nothing is sent yet. A job that waits for an attempt keeps its run open."""
        if changes := closed_by(job.state, job.reason, job.entered_at):
            self.update(**changes)

    def close(self) -> Synced:
        """Send what is left, within a deadline, and end the thread. A sweep's report is made first."""
        if self._spec.sweep is not None:
            self._report()
        self.start()
        assert self._tracker is not None
        return self._tracker.close()

    def _report(self) -> None:
        found = cache(lambda: Finding.of(self._spec, recorded_trials(self.folder)))
        made: dict[str, Callable[[], str | bytes]] = {
            "report.html": lambda: html(found(), self.folder.name),
            "report.png": lambda: png(found()),
        }
        for name, make in made.items():
            try:
                with as_far_as_the_disk_allows(self.folder):
                    write_atomically(artifacts_folder(self.folder) / name, make())
            except Exception as error:  # must not keep MLflow from hearing how the sweep ended
                _logger.error("%s of %s could not be made\n%s", name, self.folder.name, trace())
                self.notice(f"{name} of the sweep could not be made: {named(error)}")

    def leave(self) -> None:
        """End the thread, if there is one, with what is left sent as far as that goes quickly: the run stays open."""
        if self._tracker is not None:
            self._tracker.close(_LEAVE_SECONDS)
