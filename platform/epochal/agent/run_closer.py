"""Closes the runs of jobs that are over, one after the other, so that the next job need not wait for MLflow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Queue

from epochal.agent.kept_secrets import forget_secrets
from epochal.agent.port import JobSource
from epochal.agent.run_tracking import RunTracking
from epochal.errors import EpochalError
from epochal.ledger.values import Held, Lease
from epochal.settings import tracking_page
from epochal.tracking.connection import connect
from epochal.tracking.sent_trials import SweepTrials
from epochal.tracking.sync_state import SyncState

_logger = logging.getLogger(__name__)


class RunCloser:
    """A thread that closes what ``put`` gives it. What MLflow does not take now, housekeeping sends later."""

    def __init__(self, source: JobSource, tracking_uri: str, may_prepare: Callable[[], bool]) -> None:
        self._source = source
        self._uri = tracking_uri
        self._may_prepare = may_prepare
        self._waiting: Queue[Callable[[], None]] = Queue()
        self._thread = threading.Thread(target=self._run, name="run-closer", daemon=True)

    def start(self) -> None:
        """Once it ``may_prepare``, mlflow is imported: a job's first steps are a bad moment for that."""
        self._thread.start()

    def put(self, tracking: RunTracking, lease: Lease) -> None:
        """The job is over: close its run as the desired one says. A ledger that does not know the run yet is told."""
        self._waiting.put(lambda: self._close(tracking, lease))

    def put_aside(self, tracking: RunTracking) -> None:
        """The job goes on elsewhere, or later: end the thread that sends, and leave the run open."""
        self._waiting.put(tracking.leave)

    def wait(self, seconds: float) -> None:
        """Until all is closed, or the time is up."""
        deadline = time.monotonic() + seconds
        while self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)

    def _run(self) -> None:
        self._prepare()
        while True:
            close = self._waiting.get()
            try:
                close()
            except Exception:
                _logger.exception("a run could not be closed")
            self._waiting.task_done()

    def _prepare(self) -> None:
        while self._waiting.empty() and not self._may_prepare():
            time.sleep(0.2)
        try:
            connect(self._uri)
        except EpochalError:
            return  # it is told where a run is closed
        except Exception:  # without this thread no run would be closed
            _logger.exception("MLflow cannot be used")

    def _close(self, tracking: RunTracking, lease: Lease) -> None:
        known = tracking.run_id if tracking.told else ""
        synced = tracking.close()
        with suppress(EpochalError):  # it has gone on elsewhere, or housekeeping tells it later
            tell_runs(self._source, lease, tracking.folder, known)
            if not synced.pending:
                forget_secrets(tracking.folder, lease.epoch)


def tell_runs(source: JobSource, lease: Held, folder: Path, known: str | None) -> None:
    """Have the ledger know the runs that MLflow has by now: that of the job in ``folder``, where it is not the one that
    is ``known``, and, of a sweep, those of its trials.

    Raises:
        EpochalError: the ledger does not answer, or another attempt has followed.
    """
    state = SyncState.load(folder)
    if state.run_id and state.run_id != known:
        source.set_run(lease, state.run_id, tracking_page(state.uri), state.experiment_id or None)
    sent = SweepTrials(folder)
    sent.read_sent()
    if ids := sent.run_ids:
        told = {trial.number: trial.run_id for trial in source.trials(lease.job_id)}
        if untold := {number: run for number, run in ids.items() if told.get(number) != run}:
            source.set_trial_runs(lease, untold)
